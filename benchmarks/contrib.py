"""What do action masks and memory cost and give, next to MaskablePPO and RecurrentPPO of sb3-contrib?

    python benchmarks/contrib.py speed     # steps a second on CartPole-v1, contenders by turns, in one process
    python benchmarks/contrib.py masks     # sb3-contrib's invalid-action tasks, 2,560 steps; its test settings for MaskablePPO
    python benchmarks/contrib.py novel     # CartPole without velocities; the settings of sb3-contrib's test for RecurrentPPO

Each run adds a row to ``results/contrib.csv``, and its learning curve to ``contrib_curves.csv``; a run that has its row is not
run again. Seconds are those of the CPU, of ``learn()`` alone, with one torch thread. Returns are the mean of 20 episodes with
deterministic actions.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import records
import rl_zoo3.import_envs  # noqa: F401 # registers CartPoleNoVel-v1
import torch as th
import torch._dynamo  # by the first optimizer otherwise, which takes seconds
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.envs import InvalidActionEnvDiscrete, InvalidActionEnvMultiBinary, InvalidActionEnvMultiDiscrete
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked_policy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_reinforce import REINFORCE, MaskableREINFORCE, RecurrentREINFORCE

FINAL_EPISODES = 20
#: What tells runs apart.
RUN = ("task", "algo", "env", "n_envs", "seed")
#: Builds the model of a seed, its evaluation environment, and how it is evaluated.
Contender = Callable[[int], tuple[BaseAlgorithm, VecEnv | None, Callable[..., Any]]]
#: Name of the algorithm, environment, number of environments, steps, and the model.
Case = tuple[str, str, int, int, Contender]


class Curve(BaseCallback):
    """What training episodes return as it goes on, in 20 parts of the run.

    Where a trajectory is one choice, its episode of 100 is not whole: there, 100 times the mean reward.
    """

    def __init__(self, steps: int, of_choices: bool):
        super().__init__()
        self.size = steps / 20
        self.of_choices = of_choices
        self.returns: dict[int, list[float]] = {}  # by part

    def _on_step(self) -> bool:
        if self.of_choices:
            seen = [100.0 * self.locals["rewards"].mean()]
        else:
            seen = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        if seen:
            self.returns.setdefault(int(self.num_timesteps / self.size), []).extend(seen)
        return True

    def rows(self) -> list[records.Row]:
        return [
            {"steps": round((part + 1) * self.size), "return_mean": round(np.mean(returns), 2), "n": len(returns)}
            for part, returns in self.returns.items()
        ]


class AllOffered(gym.Wrapper[Any, Any, Any, Any]):
    """Masks that leave everything to choose: what is measured is what they cost."""

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        self.mask = np.ones(env.action_space.n, dtype=bool)  # type: ignore[attr-defined]

    def action_masks(self) -> np.ndarray:
        return self.mask


def cartpole(algorithm: type[BaseAlgorithm], policy: str, n_envs: int, seed: int, **kwargs: Any) -> Any:
    """CartPole-v1 for an algorithm. The agent is not evaluated."""
    masked = issubclass(algorithm, MaskablePPO | MaskableREINFORCE)
    env = make_vec_env("CartPole-v1", n_envs, seed=seed, wrapper_class=AllOffered if masked else None)
    return algorithm(policy, env, seed=seed, device="cpu", **kwargs), None, evaluate_policy


def speed() -> Iterator[Case]:
    """Defaults of each, but for the number of trajectories: at least two for each environment. LSTMs of 256, or of 64."""
    for n_envs in (1, 8):
        ours: dict[str, Any] = {"n_episodes": max(16, 2 * n_envs)}
        recurrent, small = partial(cartpole, RecurrentREINFORCE, "MlpLstmPolicy"), {"policy_kwargs": {"lstm_hidden_size": 64}}
        for name, steps, contender in (
            ("REINFORCE", 30_000, partial(cartpole, REINFORCE, "MlpPolicy", n_envs, **ours)),
            ("MaskableREINFORCE", 30_000, partial(cartpole, MaskableREINFORCE, "MlpPolicy", n_envs, **ours)),
            ("MaskablePPO", 2048 * n_envs, partial(cartpole, MaskablePPO, "MlpPolicy", n_envs)),
            ("RecurrentREINFORCE", 10_000, partial(recurrent, n_envs, **ours)),
            ("RecurrentPPO", 128 * n_envs, partial(cartpole, RecurrentPPO, "MlpLstmPolicy", n_envs)),
            (
                "RecurrentREINFORCE, LSTM 64",
                10_000,
                partial(recurrent, n_envs, **ours, **small),
            ),
            ("RecurrentPPO, LSTM 64", 128 * n_envs, partial(cartpole, RecurrentPPO, "MlpLstmPolicy", n_envs, **small)),
        ):
            yield name, "CartPole-v1", n_envs, steps, contender


#: sb3-contrib's settings in its test_invalid_actions.py; and ours, found on other seeds. Each choice is a trajectory.
TESTED_MASKABLE_PPO: dict[str, Any] = {"gamma": 0.1, "clip_range": 0.4, "n_epochs": 2}
WIDE: dict[str, Any] = {"policy_kwargs": {"net_arch": [512]}}
MASKABLE_REINFORCE: dict[str, Any] = {
    "n_episodes": 64,
    "horizon": 1,
    "return_type": "reward_to_go",
    "normalize_advantage": True,
    "learning_rate": 0.001,
    **WIDE,
}
TASKS: dict[str, Callable[[], gym.Env[Any, Any]]] = {
    "InvalidActionEnvDiscrete(70, 55)": lambda: InvalidActionEnvDiscrete(dim=70, n_invalid_actions=55),
    "InvalidActionEnvMultiDiscrete([2, 3], 1)": lambda: InvalidActionEnvMultiDiscrete(dims=[2, 3], n_invalid_actions=1),
    "InvalidActionEnvMultiBinary(3, 1)": lambda: InvalidActionEnvMultiBinary(dims=3, n_invalid_actions=1),
}


def masked_task(algorithm: type[BaseAlgorithm], settings: dict[str, Any], task: str, seed: int) -> Any:
    np.random.seed(seed)  # what these environments draw from
    env = make_vec_env(TASKS[task], 1, seed=seed)
    model = algorithm("MlpPolicy", env, seed=seed, device="cpu", **settings)
    return model, make_vec_env(TASKS[task], 1, seed=seed + 10_000), evaluate_masked_policy


def masks() -> Iterator[Case]:
    for task in TASKS:
        yield "MaskableREINFORCE", task, 1, 2_560, partial(masked_task, MaskableREINFORCE, MASKABLE_REINFORCE, task)
        yield "MaskablePPO", task, 1, 2_048, partial(masked_task, MaskablePPO, TESTED_MASKABLE_PPO, task)
        wide = {**TESTED_MASKABLE_PPO, **WIDE}
        yield "MaskablePPO, net_arch [512]", task, 1, 2_048, partial(masked_task, MaskablePPO, wide, task)


NO_VELOCITY = "CartPoleNoVel-v1"
#: Found on other seeds. Observations are normalised, as in sb3-contrib's test. Without, or with less entropy, some seeds end
#: with a policy that takes one action for ever.
RECURRENT_REINFORCE: dict[str, Any] = {
    "n_episodes": 4,
    "gamma": 0.999,
    "return_type": "reward_to_go",
    "baseline": "time_leave_one_out",
    "normalize_advantage": True,
    "ent_coef": 0.05,
    "learning_rate": lambda progress_remaining: 0.003 * progress_remaining,
    "policy_kwargs": {
        "net_arch": {"pi": [64], "vf": [64]},
        "lstm_hidden_size": 64,
        "enable_critic_lstm": False,
        "ortho_init": False,
    },
}
#: sb3-contrib's settings in its test_lstm.py.
TESTED_RECURRENT_PPO: dict[str, Any] = {
    "n_steps": 128,
    "learning_rate": 0.0007,
    "batch_size": 256,
    "n_epochs": 10,
    "max_grad_norm": 1,
    "gae_lambda": 0.98,
    "policy_kwargs": {
        "net_arch": {"vf": [64], "pi": []},
        "lstm_hidden_size": 64,
        "ortho_init": False,
        "enable_critic_lstm": True,
    },
}


def without_velocities(algorithm: type[BaseAlgorithm], settings: dict[str, Any], n_envs: int, seed: int) -> Any:
    train, test = (make_vec_env(NO_VELOCITY, n, seed=seed + start) for n, start in ((n_envs, 0), (1, 10_000)))
    train = VecNormalize(train, norm_reward=algorithm is RecurrentPPO)
    test = VecNormalize(test, training=False, norm_reward=False)
    test.obs_rms = train.obs_rms
    return algorithm("MlpLstmPolicy", train, seed=seed, device="cpu", **settings), test, evaluate_policy


def novel() -> Iterator[Case]:
    ours = partial(without_velocities, RecurrentREINFORCE, RECURRENT_REINFORCE, 1)
    yield "RecurrentREINFORCE", NO_VELOCITY, 1, 100_000, ours
    yield "RecurrentPPO", NO_VELOCITY, 8, 50_000, partial(without_velocities, RecurrentPPO, TESTED_RECURRENT_PPO, 8)


def measure(task: str, case: Case, seed: int) -> tuple[records.Row, list[records.Row]]:
    """The row of one run, and those of its learning curve."""
    _, _, _, steps, contender = case
    model, test, evaluate = contender(seed)
    curve = Curve(steps, task == "masks")
    begun = time.process_time()
    model.learn(steps, None if task == "speed" else curve)
    seconds = time.process_time() - begun
    mean, std = evaluate(model, test, FINAL_EPISODES, warn=False) if test is not None else ("", "")
    row = {
        "steps": model.num_timesteps,
        "seconds": round(seconds, 3),
        "steps_per_second": round(model.num_timesteps / seconds, 1),
        "return_mean": mean,
        "return_std": std,
    }
    return row, curve.rows()


def table(rows: list[records.Row]) -> str:
    """Medians of seconds and speed, and the mean and the least of the returns, over seeds."""
    groups: dict[tuple[Any, ...], list[records.Row]] = {}
    for row in rows:
        groups.setdefault((row["env"], row["n_envs"], row["algo"]), []).append(row)
    lines = ["| | | seeds | steps | CPU seconds | steps/s | return, least |", "|---|---|---|---|---|---|---|"]
    for (env, n_envs, algo), group in sorted(groups.items()):
        steps, seconds, speed = (np.median([row[name] for row in group]) for name in ("steps", "seconds", "steps_per_second"))
        returns = [float(row["return_mean"]) for row in group if row["return_mean"] != ""]
        learned = f"{np.mean(returns):.1f}, {min(returns):.1f}" if returns else ""
        place = f"{env}, {n_envs} at once" if n_envs > 1 else env
        lines.append(f"| {place} | {algo} | {len(group)} | {steps:,.0f} | {seconds:.1f} | {speed:,.0f} | {learned} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("speed", "masks", "novel"))
    parser.add_argument("--algo", nargs="+", help="only those whose name begins so")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to this, exclusive")
    parser.add_argument("--out", type=Path, default=records.RESULTS / "contrib.csv")
    args = parser.parse_args()
    th.set_num_threads(1)
    curves = args.out.with_name(f"{args.out.stem}_curves.csv")
    done = {tuple(row[name] for name in RUN) for row in records.read(args.out)}
    cases = list({"speed": speed, "masks": masks, "novel": novel}[args.task]())
    for seed in range(args.seeds):  # contenders by turns, since the speed of a machine drifts
        for case in cases:
            run = (args.task, *case[:3], seed)
            if run in done or (args.algo and not case[0].startswith(tuple(args.algo))):
                continue
            row, points = measure(args.task, case, seed)
            key = dict(zip(RUN, run, strict=True))
            for point in points:
                records.append(curves, {**key, **point})
            records.append(args.out, {**key, **row, **records.provenance()})  # last, since it says that the run is whole
            print(*run, row, flush=True)
    records.show("contrib", table(records.read(args.out)), args.out)


if __name__ == "__main__":
    main()
