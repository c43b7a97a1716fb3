"""What does it cost to have the policy on an accelerator?

Whole training runs with the policy on the CPU and on the accelerator, in one process with one torch thread. All setups
alternate within a repeat, and ratios are taken within one. Seconds are those of the clock, since an accelerator works beside
the CPU.

    python benchmarks/devices.py                 # three repeats; a setup that has its row is not run again
    python benchmarks/devices.py --report-only

Rows go to ``results/devices.csv``, and the table to the benchmarks' README.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import torch as th
from records import Row, append, command_line, provenance, read, show
from speed import ImageEnv
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from sb3_reinforce import REINFORCE, RecurrentREINFORCE
from sb3_reinforce.vec_env import FastDummyVecEnv


class Asked(ActorCriticPolicy):
    """A perceptron that acts through ``forward``, as each did before there were copies for rollouts."""

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Any:
        return super().forward(obs, deterministic)


class Setup(NamedTuple):
    """Who trains, on what, and for how many steps."""

    algorithm: type[Any]
    policy: type[ActorCriticPolicy] | str
    env: str
    n_envs: int
    n_steps: int
    arguments: dict[str, Any] | None = None


SETUPS = {
    "REINFORCE": Setup(REINFORCE, "MlpPolicy", "CartPole-v1", 8, 40_000),
    "REINFORCE, value": Setup(
        REINFORCE, "MlpPolicy", "CartPole-v1", 8, 40_000, {"return_type": "reward_to_go", "baseline": "value"}
    ),
    "REINFORCE, 256 x 256 units": Setup(
        REINFORCE, "MlpPolicy", "CartPole-v1", 8, 40_000, {"policy_kwargs": {"net_arch": [256, 256]}}
    ),
    "REINFORCE, the policy is asked": Setup(REINFORCE, Asked, "CartPole-v1", 8, 20_000),
    "A2C": Setup(A2C, "MlpPolicy", "CartPole-v1", 8, 10_000),
    "RecurrentREINFORCE": Setup(RecurrentREINFORCE, "MlpLstmPolicy", "CartPole-v1", 8, 20_000),
    "REINFORCE, images": Setup(REINFORCE, "CnnPolicy", "images", 32, 4_000, {"n_episodes": 32}),
    "A2C, images": Setup(A2C, "CnnPolicy", "images", 32, 4_000),
}


def make_env(setup: Setup, seed: int) -> VecEnv:
    env: Any = (lambda: ImageEnv((4, 84, 84))) if setup.env == "images" else setup.env
    return make_vec_env(env, setup.n_envs, seed, vec_env_cls=FastDummyVecEnv)


def measure(name: str, device: str, seed: int) -> Row:
    """One run from scratch."""
    setup = SETUPS[name]
    env = make_env(setup, seed)
    model = setup.algorithm(setup.policy, env, seed=seed, device=device, **(setup.arguments or {}))
    start = time.perf_counter()
    model.learn(setup.n_steps, log_interval=1_000_000)
    if device != "cpu":
        th.accelerator.synchronize()
    seconds = time.perf_counter() - start
    env.close()
    steps = model.num_timesteps
    return {"steps": steps, "seconds": round(seconds, 4), "steps_per_second": round(steps / seconds, 1)}


def table(rows: list[Row]) -> str:
    """Medians of steps a second, and of the ratio of accelerator to CPU within one repeat."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        found.setdefault(row["name"], {}).setdefault(row["device"], {})[row["repeat"]] = row["steps_per_second"]
    lines = ["| steps/s | CPU | accelerator | ratio |", "|---|---|---|---|"]
    for name in SETUPS:
        cpu, cuda = (found.get(name, {}).get(device, {}) for device in ("cpu", "cuda"))
        at = cpu.keys() & cuda.keys()
        if at:
            ratio = np.median([cuda[repeat] / cpu[repeat] for repeat in at])
            lines.append(f"| {name} | {np.median([*cpu.values()]):,.0f} | {np.median([*cuda.values()]):,.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__, "devices.csv", 3)
    args = parser.parse_args()
    th.set_num_threads(1)
    done = {(row["name"], row["device"], row["repeat"]) for row in read(args.out)}
    todo = [(r, name, device) for r in range(args.repeats) for name in SETUPS for device in ("cpu", "cuda")]
    missing = [] if args.report_only else [(r, *each) for r, *each in todo if (*each, r) not in done]
    if missing and not th.cuda.is_available():
        parser.error("there is no accelerator that torch knows as cuda")
    hardware = th.cuda.get_device_name() if missing else ""
    for device in ("cpu", "cuda") if missing else ():
        for name in ("REINFORCE, images", "RecurrentREINFORCE"):
            measure(name, device, seed=1000)  # not kept: first calls in a process are slow
    for repeat, name, device in missing:
        numbers = measure(name, device, repeat)
        origin = {"hardware": hardware, **provenance()}
        append(args.out, {"name": name, "device": device, "repeat": repeat, **numbers, **origin})
        print(repeat, name, device, numbers, flush=True)
    show("devices", table(read(args.out)), args.out)


if __name__ == "__main__":
    main()
