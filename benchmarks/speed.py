"""How many steps a second does a whole training run take, next to other libraries and to the environment alone?

Every contender trains on the same environments, each wrapped in ``Monitor``, in one process with one torch thread.
One measurement builds a model, then times training from scratch for ``--steps`` steps, again and again until
``--seconds`` have been timed. Contenders alternate within a repeat, since the speed of a shared machine drifts, and ratios
are taken within a repeat. Steps are those the environments took, used for an update or not.

    python benchmarks/speed.py                      # CartPole-v1, 1 and 8 environments
    python benchmarks/speed.py --env Hopper-v5 --n-envs 8 --contender reinforce random
    python benchmarks/speed.py --full               # everything; hours

Rows are appended to ``--output`` as they are measured. The same command, run again, goes on where it was stopped. A table
of all of them is written beside it; benchmarks/README.md has that of 1 and 8 environments in one process.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import matplotlib
import numpy as np
import torch as th
from gymnasium import spaces
from records import RESULTS, Row, append, provenance, read, show
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from torch import nn

from sb3_reinforce import REINFORCE


class Case(NamedTuple):
    env: str
    n_envs: int
    vec_env: str


class ImageEnv(gym.Env[np.ndarray, np.int64]):
    """Pixels that cost next to nothing to make. Episodes last 50 steps on average."""

    action_space = spaces.Discrete(4)

    def __init__(self, shape: tuple[int, ...]):
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self._frames = np.random.default_rng(0).integers(0, 256, (16, *shape), dtype=np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._frames[0], {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        frame = int(self.np_random.integers(len(self._frames)))
        return self._frames[frame], float(action == frame % 4), self.np_random.random() < 0.02, False, {}


class DictEnv(gym.Env[dict[str, Any], np.int64]):
    """Two vectors and a category. Episodes last 50 steps on average."""

    observation_space = spaces.Dict(
        position=spaces.Box(-1, 1, (3,), np.float32), velocity=spaces.Box(-1, 1, (3,), np.float32), gear=spaces.Discrete(4)
    )
    action_space = spaces.Discrete(4)

    def _observation(self) -> dict[str, Any]:
        numbers = self.np_random.uniform(-1, 1, 6).astype(np.float32)
        return {"position": numbers[:3], "velocity": numbers[3:], "gear": self.np_random.integers(4)}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        return self._observation(), float(action == 0), self.np_random.random() < 0.02, False, {}


gym.register("Image36-v0", ImageEnv, kwargs={"shape": (36, 36, 1)}, disable_env_checker=True)
gym.register("Image84-v0", ImageEnv, kwargs={"shape": (84, 84, 4)}, disable_env_checker=True)
gym.register("Dict-v0", lambda: DictEnv(), disable_env_checker=True)
POLICIES = {"Image36-v0": "CnnPolicy", "Image84-v0": "CnnPolicy", "Dict-v0": "MultiInputPolicy"}
ENVS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "LunarLander-v3", "Hopper-v5", "Image36-v0", "Image84-v0", "Dict-v0")
VEC_ENVS: dict[str, type[DummyVecEnv] | type[SubprocVecEnv]] = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}


class Run(NamedTuple):
    steps: int
    """Steps the environments took."""
    unused: float
    """Share of these that no update used."""


#: Train from scratch for about so many steps.
Train = Callable[[int], Run]
#: Builds a model and its environments for a case and a seed; leaving the context closes them.
Contender = Callable[[Case, int], AbstractContextManager[Train]]


def n_episodes(case: Case) -> int:
    """Trajectories per update: the default of 16, and at least two for each environment."""
    return max(16, 2 * case.n_envs)


def make(case: Case, seed: int) -> VecEnv:
    return make_vec_env(
        lambda: gym.make(case.env),
        case.n_envs,
        seed=seed,
        vec_env_cls=VEC_ENVS[case.vec_env],
        # Workers are forked, since to import everything in each takes longer than to measure.
        vec_env_kwargs={"start_method": "fork"} if case.vec_env == "subproc" else None,
    )


class CountUsed(BaseCallback):
    """Counts the steps that REINFORCE hands to its update."""

    used = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.used += self.locals["rollout_buffer"].lengths.sum()


@contextmanager
def reinforce(case: Case, seed: int) -> Iterator[Train]:
    env = make(case, seed)
    model = REINFORCE(POLICIES.get(case.env, "MlpPolicy"), env, n_episodes=n_episodes(case), seed=seed, device="cpu")

    def train(steps: int) -> Run:
        count = CountUsed()
        model.learn(steps, callback=count)
        return Run(model.num_timesteps, 1 - count.used / model.num_timesteps)

    yield train
    env.close()


def of_sb3(algorithm: type[BaseAlgorithm]) -> Contender:
    """SB3's algorithm with its own defaults."""

    @contextmanager
    def contender(case: Case, seed: int) -> Iterator[Train]:
        env = make(case, seed)
        model = algorithm(POLICIES.get(case.env, "MlpPolicy"), env, seed=seed, device="cpu")  # type: ignore[call-arg]
        yield lambda steps: Run(model.learn(steps).num_timesteps, 0.0)
        env.close()

    return contender


@contextmanager
def tianshou(case: Case, seed: int) -> Iterator[Train]:
    """Tianshou's Reinforce as in its examples, without tests and logs, one pass over each batch of as many episodes."""
    from tianshou.algorithm import Reinforce
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv, SubprocVectorEnv
    from tianshou.trainer import OnPolicyTrainerParams
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.continuous import ContinuousActorProbabilistic

    th.manual_seed(seed)
    vec_env = {"dummy": DummyVectorEnv, "subproc": SubprocVectorEnv}[case.vec_env]
    env = vec_env([lambda: Monitor(gym.make(case.env)) for _ in range(case.n_envs)])
    env.seed(seed)
    obs_space, action_space = env.observation_space[0], env.action_space[0]
    body: dict[str, Any] = {"state_shape": obs_space.shape, "hidden_sizes": [64, 64], "activation": nn.Tanh}
    policy: ProbabilisticActorPolicy
    if isinstance(action_space, spaces.Discrete):
        policy = DiscreteActorPolicy(actor=Net(**body, action_shape=int(action_space.n)), action_space=action_space)
    else:
        policy = ProbabilisticActorPolicy(
            actor=ContinuousActorProbabilistic(preprocess_net=Net(**body), action_shape=action_space.shape, unbounded=True),
            dist_fn=lambda loc_scale: th.distributions.Independent(th.distributions.Normal(*loc_scale), 1),
            action_space=action_space,
        )
    algorithm = Reinforce(policy=policy, optim=AdamOptimizerFactory(lr=1e-3))
    collector: Any = Collector(algorithm, env, VectorReplayBuffer(20_000, case.n_envs))

    def train(steps: int) -> Run:
        algorithm.run_training(
            OnPolicyTrainerParams(
                training_collector=collector,
                max_epochs=1,
                epoch_num_steps=steps,
                collection_step_num_env_steps=None,
                collection_step_num_episodes=n_episodes(case),
                batch_size=None,
                verbose=False,
                show_progress=False,
            )
        )
        return Run(collector.collect_step, 0.0)

    yield train
    env.close()


@contextmanager
def loop(case: Case, seed: int) -> Iterator[Train]:
    """The loop of tutorials: one environment, one distribution a step, one backward pass an episode."""
    env = Monitor(gym.make(case.env))
    env.reset(seed=seed)
    th.manual_seed(seed)
    assert env.observation_space.shape is not None
    discrete = isinstance(env.action_space, spaces.Discrete)
    n_outputs = env.action_space.n if isinstance(env.action_space, spaces.Discrete) else env.action_space.shape[0]  # type: ignore[index]
    net = nn.Sequential(
        nn.Linear(env.observation_space.shape[0], 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, int(n_outputs))
    )
    log_std = nn.Parameter(th.zeros(int(n_outputs)))
    optimizer = th.optim.Adam([*net.parameters(), log_std], lr=1e-3)

    def play() -> tuple[list[th.Tensor], list[float]]:
        log_probs, rewards = [], []
        obs, _ = env.reset()
        done = False
        while not done:
            output = net(th.as_tensor(obs, dtype=th.float32))
            pi = th.distributions.Categorical(logits=output) if discrete else th.distributions.Normal(output, log_std.exp())
            action = pi.sample()
            obs, reward, terminated, truncated, _ = env.step(action.item() if discrete else action.numpy())
            log_probs.append(pi.log_prob(action).sum())
            rewards.append(float(reward))
            done = terminated or truncated
        return log_probs, rewards

    def train(steps: int) -> Run:
        taken = 0
        while taken < steps:
            log_probs, rewards = play()
            to_go = 0.0
            rewards_to_go: list[float] = []
            for reward in reversed(rewards):
                to_go = reward + 0.99 * to_go
                rewards_to_go.insert(0, to_go)
            optimizer.zero_grad()
            (-(th.stack(log_probs) * th.tensor(rewards_to_go)).sum()).backward()
            optimizer.step()
            taken += len(rewards)
        return Run(taken, 0.0)

    yield train
    env.close()


@contextmanager
def random(case: Case, seed: int) -> Iterator[Train]:
    """Nobody learns: the environments alone, given actions that were drawn before. About the limit of any training."""
    env = make(case, seed)
    env.action_space.seed(seed)
    actions = [np.stack([env.action_space.sample() for _ in range(case.n_envs)]) for _ in range(1000)]
    env.reset()

    def train(steps: int) -> Run:
        n_rows = -(-steps // case.n_envs)
        for row in range(n_rows):
            env.step(actions[row % 1000])
        return Run(n_rows * case.n_envs, 1.0)

    yield train
    env.close()


CONTENDERS: dict[str, Contender] = {
    "reinforce": reinforce,
    "random": random,
    "a2c": of_sb3(A2C),
    "ppo": of_sb3(PPO),
    "tianshou": tianshou,
    "loop": loop,
}
LABELS = {
    "reinforce": "REINFORCE (this project)",
    "random": "random actions, no learning",
    "a2c": "SB3 A2C",
    "ppo": "SB3 PPO",
    "tianshou": "Tianshou Reinforce",
    "loop": "tutorial loop",
}


STYLES: dict[str, dict[str, Any]] = {
    "random": {"color": "0.6", "linestyle": "--", "marker": "."},
    "reinforce": {"color": "#c1272d", "linewidth": 2.2, "marker": "o", "markersize": 5, "zorder": 3},
    "a2c": {"color": "#0072b2", "marker": "s", "markersize": 4},
    "ppo": {"color": "#56b4e9", "marker": "^", "markersize": 4},
    "tianshou": {"color": "#009e73", "marker": "D", "markersize": 4},
    "loop": {"color": "#e69f00", "marker": "v", "markersize": 6, "linestyle": "none"},
}


def plays(contender: str, case: Case) -> bool:
    """Whether a contender is measured in a case: tutorials have one environment; the networks here take vectors."""
    if contender == "loop" and (case.n_envs > 1 or case.vec_env != "dummy"):
        return False
    return case.env not in POLICIES or contender not in ("loop", "tianshou")


def measure(contender: str, case: Case, seed: int, steps: int, at_least: float) -> dict[str, Any]:
    """Whole runs of ``steps`` steps, until they have taken ``at_least`` seconds."""
    taken, seconds, unused = 0, 0.0, 0.0
    while seconds < at_least:
        with CONTENDERS[contender](case, seed) as train:
            start = time.perf_counter()
            run = train(steps)
            seconds += time.perf_counter() - start
        taken += run.steps
        unused += run.steps * run.unused
        seed += 1000
    return {
        "run_steps": steps,
        "steps": taken,
        "seconds": round(seconds, 4),
        "steps_per_second": round(taken / seconds, 1),
        "unused": round(unused / taken, 4),
    }


KEYS = ("contender", "env", "n_envs", "vec_env", "repeat", "command")


def run(cases: list[Case], contenders: list[str], repeats: int, steps: int, seconds: float, output: Path) -> None:
    """Measure what this command has not measured yet: what is compared has to be measured side by side."""
    done = {tuple(row[key] for key in KEYS) for row in read(output)}
    origin = provenance()
    command = origin["command"]
    for case in cases:
        playing = [contender for contender in contenders if plays(contender, case)]
        missing = [(r, c) for r in range(repeats) for c in playing if (c, *case, r, command) not in done]
        for contender in dict.fromkeys(c for _, c in missing):
            measure(contender, case, seed=0, steps=1, at_least=0.0001)  # not kept: first calls in a process are slow
        for repeat, contender in missing:
            numbers = measure(contender, case, repeat, steps, seconds)
            m = n_episodes(case) if contender in ("reinforce", "tianshou") else ""
            append(output, {"contender": contender, **case._asdict(), "repeat": repeat, **numbers, "n_episodes": m, **origin})
            print(f"{repeat} {' '.join(map(str, case))} {contender}: {numbers['steps_per_second']:.0f} steps/s", flush=True)


#: Rows of one contender, by command and repeat: ratios are taken within one, side by side.
Measured = dict[tuple[str, int], Row]


def lengths(rows: list[Row], case: Case) -> list[int]:
    """How long the measured runs of a case were, in steps, shortest first."""
    return sorted({row["run_steps"] for row in rows if tuple(row[key] for key in Case._fields) == case})


def measured(rows: list[Row], case: Case, run_steps: int) -> dict[str, Measured]:
    """What was measured of each contender in runs of one length."""
    found: dict[str, Measured] = {}
    for row in rows:
        if (*(row[key] for key in Case._fields), row["run_steps"]) == (*case, run_steps):
            found.setdefault(row["contender"], {})[row["command"], row["repeat"]] = row
    return found


def _median(rows: Measured, name: str) -> float:
    return float(np.median([row[name] for row in rows.values()]))


def _spread(values: list[float], form: str) -> str:
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def table(rows: list[Row], counts: Iterable[int] = (1, 8), vec_envs: Iterable[str] = ("dummy",)) -> str:
    """How many times as fast as each contender REINFORCE is: medians of ratios within one repeat, with their range.

    :param rows: what was measured
    :param counts: numbers of environments to show
    :param vec_envs: names of the vectorised environments to show
    """
    others = [contender for contender in CONTENDERS if contender != "reinforce"]
    lines = [
        "| | run | steps/s | unused | " + " | ".join(LABELS[other] for other in others) + " |",
        "|---" * (len(others) + 4) + "|",
    ]
    for case in (Case(*case) for case in product(ENVS, counts, vec_envs)):
        for run_steps in lengths(rows, case):
            contenders = measured(rows, case, run_steps)
            if "reinforce" not in contenders:
                continue
            ours = contenders["reinforce"]
            cells = []
            for other in others:
                theirs = contenders.get(other, {})
                ratios = [ours[at]["steps_per_second"] / theirs[at]["steps_per_second"] for at in ours.keys() & theirs.keys()]
                cells.append(_spread(ratios, ".2f" if other == "random" else ".1f") if ratios else "")
            processes = "" if case.vec_env == "dummy" else " process" if case.n_envs == 1 else " processes"
            name = f"{case.env}, {case.n_envs}{processes}"
            numbers = f"{run_steps:,} | {_median(ours, 'steps_per_second'):,.0f} | {_median(ours, 'unused'):.0%}"
            lines.append(f"| {name} | {numbers} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chart(rows: list[Row], path: Path) -> None:
    """A panel for each environment and VecEnv: median steps per second of each contender's longest runs, with ranges."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator

    found = {(row["vec_env"], row["env"]) for row in rows}
    panels = [panel for panel in product(VEC_ENVS, ENVS) if panel in found]
    n_columns = min(4, len(panels))
    n_rows = -(-len(panels) // n_columns)
    size = (3.2 * n_columns + 0.4, 2.7 * n_rows + 0.9)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    ticks = sorted({row["n_envs"] for row in rows})
    for axis, (vec_env, env) in zip(axes.flat, panels, strict=False):
        longest: dict[int, dict[str, Measured]] = {n_envs: {} for n_envs in ticks}
        for n_envs, contenders in longest.items():
            case = Case(env, n_envs, vec_env)
            for run_steps in lengths(rows, case):
                contenders.update(measured(rows, case, run_steps))  # in the place of shorter ones
        for contender, style in STYLES.items():
            medians, below, above, counts = [], [], [], []
            for n_envs in ticks:
                values = [row["steps_per_second"] for row in longest[n_envs].get(contender, {}).values()]
                if values:
                    counts.append(n_envs)
                    medians.append(np.median(values))
                    below.append(medians[-1] - min(values))
                    above.append(max(values) - medians[-1])
            if counts:
                axis.errorbar(counts, medians, [below, above], label=LABELS[contender], capsize=2, **style)
        axis.set(title=f"{env}, {VEC_ENVS[vec_env].__name__}", xscale="log", yscale="log")
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.minorticks_off()
        axis.set_xlim(0.85 * ticks[0], 1.18 * ticks[-1])
        axis.grid(True, color="0.92")
        axis.set_axisbelow(True)
        axis.title.set_fontsize(10)
    for axis in axes[:, 0]:
        axis.set_ylabel("steps per second")
    for column in range(n_columns):
        lowest = (len(panels) - 1 - column) // n_columns
        axes[lowest, column].set_xlabel("environments")
    handles = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    shown = [LABELS[contender] for contender in STYLES if LABELS[contender] in handles]
    columns = min(len(shown), 3 if n_columns > 1 else 1)
    figure.legend([handles[label] for label in shown], shown, loc="outside upper center", ncols=columns, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", choices=ENVS, default=["CartPole-v1"])
    parser.add_argument("--n-envs", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--vec-env", nargs="+", choices=list(VEC_ENVS), default=["dummy"])
    parser.add_argument("--contender", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS), help="who runs")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, by turns")
    parser.add_argument("--steps", type=int, default=50_000, help="steps of one training run")
    parser.add_argument("--seconds", type=float, default=2.0, help="repeat training runs until so many seconds are timed")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "speed.csv", help="rows are added; delete some to measure anew"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="all environments, 1, 4, 8 and 16 of them, both VecEnvs, whatever else is said of these",
    )
    args = parser.parse_args()
    if args.full:
        args.env, args.n_envs, args.vec_env = ENVS, [1, 4, 8, 16], list(VEC_ENVS)
    try:
        version("tianshou")
    except PackageNotFoundError:
        print("Tianshou is not installed and sits out: pip install 'sb3_reinforce[bench]'")
        args.contender = [contender for contender in args.contender if contender != "tianshou"]

    th.set_num_threads(1)
    cases = [Case(env, n_envs, vec_env) for env in args.env for vec_env in args.vec_env for n_envs in args.n_envs]
    run(cases, args.contender, args.repeats, args.steps, args.seconds, args.output)
    rows = read(args.output)
    whole = args.output.with_suffix(".md")
    whole.write_text(f"{table(rows, sorted({row['n_envs'] for row in rows}), VEC_ENVS)}\n")
    show("speed", table(rows), args.output)
    print(f"\nThe whole table: {whole}")
    chart(rows, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
