"""How fast does REINFORCE train on environments without deep copies, on gymnasium's vector environments, and carrying over?

Whole training runs on CartPole-v1 with default hyperparameters, in one process with one torch thread. All setups alternate
within a repeat, and ratios are taken within one. Seconds are those of the CPU, since others may use the machine.

    python benchmarks/vec_envs.py                 # five repeats; a setup that has its row is not run again
    python benchmarks/vec_envs.py --report-only

Rows go to ``results/vec_envs.csv``, and the table to the benchmarks' README.
"""

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
import yaml
from records import Row, append, command_line, provenance, read, show
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_reinforce import REINFORCE
from sb3_reinforce.gymnasium_vec_env import GymnasiumVecEnv
from sb3_reinforce.vec_env import FastDummyVecEnv
from sb3_reinforce.zoo import hyperparams_file

ENV = "CartPole-v1"


class Setup(NamedTuple):
    """Who trains, and on what."""

    trains: str
    """What trains: reinforce, carried (over), shipped (settings), a2c, batches (A2C with batches like REINFORCE's), or
    random (actions without learning)."""
    vec_env: str
    n_envs: int


#: Keys of an entry of hyperparams/reinforce.yml that are no arguments of REINFORCE, or that are given here.
NOT_SHIPPED = ("n_envs", "n_timesteps", "policy", "learning_rate")
#: Steps of a batch of 16 trajectories, of the first updates.
BATCH = 400
SETUPS = [
    *(Setup(trains, "dummy", n) for n in (1, 8) for trains in ("reinforce", "a2c", "batches")),
    *(Setup(trains, "fast", n) for n in (1, 8) for trains in ("reinforce", "random")),
    Setup("shipped", "fast", 1),
    Setup("carried", "fast", 8),
    Setup("a2c", "dummy", 16),
    *(Setup("carried", vec_env, 16) for vec_env in ("fast", "vector")),
    *(Setup("reinforce", vec_env, n) for n in (16, 64, 256) for vec_env in ("dummy", "vector")),
    *(Setup("carried", "vector", n) for n in (64, 256)),
]
if importlib.util.find_spec("envpool"):  # which does not install everywhere
    SETUPS += [Setup("reinforce", "envpool", n) for n in (64, 256)]


def make(setup: Setup, seed: int) -> VecEnv:
    if setup.vec_env == "envpool":
        import envpool

        return GymnasiumVecEnv(envpool.make(ENV, env_type="gymnasium", num_envs=setup.n_envs, num_threads=1, seed=seed))
    if setup.vec_env == "vector":
        env: VecEnv = GymnasiumVecEnv(gym.make_vec(ENV, num_envs=setup.n_envs))
        env.seed(seed)
        return env
    return make_vec_env(ENV, setup.n_envs, seed, vec_env_cls={"dummy": DummyVecEnv, "fast": FastDummyVecEnv}[setup.vec_env])


class Watched(BaseCallback):
    """What was used, and what it was worth, of rollouts that are over."""

    def __init__(self) -> None:
        super().__init__()
        self.unused: list[tuple[float, int]] = []  # share, of how many steps
        self.worth: list[float] = []  # effective sample size over m

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._begun = self.num_timesteps
        logged = self.logger.name_to_value
        if "train/carried_effective_sample_size" in logged:
            self.worth.append(logged["train/carried_effective_sample_size"] / logged["train/n_episodes"])

    def _on_rollout_end(self) -> None:
        share = self.logger.name_to_value["rollout/unused_steps_fraction"]
        self.unused.append((share, self.num_timesteps - self._begun))


def shipped() -> dict[str, Any]:
    """REINFORCE's arguments as its file of hyperparameters has them."""
    entry = yaml.safe_load(hyperparams_file().read_text())[ENV]
    rate = LinearSchedule(float(entry["learning_rate"].removeprefix("lin_")), 0, 1)
    return {"learning_rate": rate, **{name: value for name, value in entry.items() if name not in NOT_SHIPPED}}


def measure(setup: Setup, seed: int) -> Row:
    """One run from scratch: 40,000 steps, or 2,000 of each environment if that is more; a quarter of it for A2C."""
    env, n_steps = make(setup, seed), max(40_000, 2_000 * setup.n_envs)
    train: Callable[[], Any]
    watched = Watched()
    if setup.trains == "random":
        actions = [np.stack([env.action_space.sample() for _ in range(setup.n_envs)]) for _ in range(1000)]
        env.reset()

        def train() -> None:
            for row in range(n_steps // setup.n_envs):
                env.step(actions[row % 1000])
    else:
        m = max(16, 2 * setup.n_envs)
        model: Any
        if of_a2c := setup.trains in ("a2c", "batches"):
            n_steps //= 4  # it takes several times as long
            options: dict[str, Any] = {"n_steps": BATCH // setup.n_envs} if setup.trains == "batches" else {}
            model = A2C("MlpPolicy", env, seed=seed, device="cpu", **options)
        else:
            options = shipped() if setup.trains == "shipped" else {"n_episodes": m, "carry_over": setup.trains == "carried"}
            model = REINFORCE("MlpPolicy", env, seed=seed, device="cpu", **options)

        def train() -> None:
            model.learn(n_steps, None if of_a2c else watched, log_interval=1_000_000)

    start = time.process_time()
    train()
    seconds = time.process_time() - start
    steps = n_steps if setup.trains == "random" else model.num_timesteps
    env.close()
    taken = sum(n for _, n in watched.unused)
    unused = round(float(sum(share * n for share, n in watched.unused)) / taken, 4) if taken else ""
    return {
        "steps": steps,
        "cpu_seconds": round(seconds, 4),
        "steps_per_second": round(steps / seconds, 1),
        "unused": unused,
        "worth": round(float(np.mean(watched.worth)), 4) if watched.worth else "",
    }


def table(rows: list[Row]) -> str:
    """Medians, and medians of ratios within one repeat: to A2C and to REINFORCE as they run on ``DummyVecEnv``."""
    found: dict[Setup, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(Setup(row["trains"], row["vec_env"], row["n_envs"]), {})[row["repeat"]] = row

    def ratio(setup: Setup, other: Setup) -> str:
        ours, theirs = found[setup], found.get(other, {})
        ratios = [ours[at]["steps_per_second"] / theirs[at]["steps_per_second"] for at in ours.keys() & theirs.keys()]
        return f"{np.median(ratios):.2f}" if ratios and setup != other else ""

    def median(setup: Setup, name: str, form: str) -> str:
        values = [row[name] for row in found[setup].values() if row[name] != ""]
        return f"{np.median(values):{form}}" if values else ""

    lines = [
        "| | steps/s | unused | sample size / m | times A2C on `DummyVecEnv` | times REINFORCE on it | of random stepping |",
        "|---|---|---|---|---|---|---|",
    ]
    names = {"dummy": "`DummyVecEnv`", "fast": "`FastDummyVecEnv`", "vector": "`make_vec`", "envpool": "EnvPool"}
    trains = {
        "reinforce": "REINFORCE",
        "carried": "REINFORCE, `carry_over`",
        "shipped": "REINFORCE, shipped settings",
        "a2c": "A2C",
        "batches": f"A2C, batches of {BATCH} steps",
        "random": "random actions",
    }
    for setup in sorted(
        found, key=lambda each: (each.n_envs, list(names).index(each.vec_env), list(trains).index(each.trains))
    ):
        n = setup.n_envs
        cells = [
            f"{trains[setup.trains]}, {n} in {names[setup.vec_env]}",
            median(setup, "steps_per_second", ",.0f"),
            median(setup, "unused", ".1%"),
            median(setup, "worth", ".3f"),
            ratio(setup, Setup("a2c", "dummy", min(n, 16))),
            ratio(setup, Setup("reinforce", "dummy", n)),
            ratio(setup, Setup("random", "fast", n)) if setup.vec_env == "fast" else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    args = command_line(__doc__, "vec_envs.csv", 5).parse_args()
    th.set_num_threads(1)
    done = {(row["trains"], row["vec_env"], row["n_envs"], row["repeat"]) for row in read(args.out)}
    missing = [] if args.report_only else [(r, s) for r in range(args.repeats) for s in SETUPS if (*s, r) not in done]
    for setup in dict.fromkeys(setup._replace(n_envs=1) for _, setup in missing):
        measure(setup, seed=1000)  # not kept: first calls in a process are slow
    for repeat, setup in missing:
        numbers = measure(setup, repeat)
        append(args.out, {**setup._asdict(), "repeat": repeat, **numbers, **provenance()})
        print(repeat, *setup, numbers, flush=True)
    show("vec_envs", table(read(args.out)), args.out)


if __name__ == "__main__":
    main()
