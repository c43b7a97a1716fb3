"""Train algorithms on environments with several seeds through RL Zoo's own pipeline, and record the results.

    python benchmarks/learning.py                # all runs that the README reports: hours
    python benchmarks/learning.py --algo reinforce a2c ppo --env CartPole-v1 --seeds 10

REINFORCE takes this project's hyperparameters, ``reinforce_textbook`` the pure estimator, every other algorithm RL
Zoo's own, those of an older version of the environment where RL Zoo has none for this one. Each run adds, when it is
whole, one row to ``learning.csv`` (the evaluation of its last model) and its training curve to ``learning_curves.csv``;
a run that has its row is not run again, so an interrupted sweep goes on where it stopped. Its ``settings`` tell results
of changed hyperparameters from older ones. Runs go in parallel, one torch thread each, algorithms by turns, since the
speed of a machine drifts.
"""

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import records
import rl_zoo3
import torch as th
import yaml
from gymnasium.envs.registration import get_env_id, parse_env_id
from runs import evaluate_last_model, latest_run, training_curve

from sb3_reinforce.zoo import hyperparams_file

Run = tuple[str, str, int, int, str]
FINAL_EPISODES = 20
#: The program `sb3-reinforce`. When the first optimizer is made, torch imports its compiler, in a second or two that are no
#: part of learning, and that ARS, which has no optimizer, does not take: so, like every import, before the clock starts.
PROGRAM = "import torch._dynamo; from sb3_reinforce.zoo.cli import main; main()"
#: What stands for an algorithm on the command line and in the CSV, if it is not RL Zoo's name for it.
VARIANTS = {"reinforce_textbook": ("reinforce", "reinforce_textbook.yml")}
CLASSIC = ["CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0"]
MUJOCO = ["InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Swimmer-v5"]
OTHERS = ["a2c", "ppo", "trpo", "ars"]
#: The return that counts as solved, where the environment names none.
SOLVED = {"Pendulum-v1": -200.0, "Walker2d-v5": 3000.0}
#: The runs of the README: algorithms, environments, number of seeds.
REPORTED = [
    (["reinforce", *OTHERS], CLASSIC[:1], 10),
    (["reinforce"], [*CLASSIC[1:], "LunarLander-v3", "Pendulum-v1", "MountainCar-v0"], 10),
    (OTHERS, CLASSIC[1:], 3),
    (["a2c"], CLASSIC[2:], 4),
    (["reinforce"], MUJOCO, 5),
    (["a2c"], MUJOCO, 1),
    (["reinforce_textbook"], CLASSIC[:1], 5),
    (OTHERS[:3], ["Pendulum-v1", "LunarLander-v3"], 3),
    (["ars"], ["Pendulum-v1", "LunarLander-v3"], 1),
    (["reinforce"], ["LunarLanderContinuous-v3"], 3),
    (["reinforce"], ["BipedalWalker-v3"], 1),
]
#: What tells runs apart. A budget of 0 steps leaves the number to the hyperparameters.
RUN = ["algo", "env", "seed", "budget", "settings"]


def entry(label: str, env_id: str) -> tuple[str, dict[str, Any]]:
    """Name and hyperparameters of the entry that a run takes: the environment's, or that of its newest older version, or
    the default."""
    algo, conf = VARIANTS.get(label, (label, f"{label}.yml"))
    file = hyperparams_file(conf) if algo == "reinforce" else Path(rl_zoo3.__path__[0], "hyperparams", conf)
    entries = yaml.safe_load(file.read_text())
    namespace, name, version = parse_env_id(env_id)
    older = [get_env_id(namespace, name, number) for number in reversed(range(version or 0))]
    taken = next(each for each in (env_id, *older, "default") if each in entries)
    return taken, entries[taken]


def settings(label: str, env_id: str) -> str:
    """A digest of the hyperparameters of a run."""
    _, hyperparameters = entry(label, env_id)
    return hashlib.sha256(json.dumps(hyperparameters, sort_keys=True).encode()).hexdigest()[:8]


def command(label: str, env_id: str, seed: int, budget: int, logs: Path) -> list[str]:
    """The RL Zoo command of one run; a budget of 0 leaves the number of steps to the hyperparameters."""
    algo, conf = VARIANTS.get(label, (label, None))
    words = [sys.executable, "-c", PROGRAM, "train", "--algo", algo, "--env", env_id, "--seed", str(seed)]
    words += ["-f", str(logs), "--eval-freq", "-1", "--num-threads", "1", "--verbose", "0", "--device", "cpu"]
    if budget:
        words += ["-n", str(budget)]
    if conf:
        words += ["--conf-file", conf]
    taken, hyperparameters = entry(label, env_id)
    if taken not in (env_id, "default"):  # RL Zoo itself would take the default
        words += ["-params", *(f"{name}:{value!r}" for name, value in hyperparameters.items())]
    return words


def printable(words: list[str]) -> str:
    """The same command as a user types it."""
    at = words.index("-f")
    return shlex.join(["sb3-reinforce", *words[3:at], *words[at + 2 :]])


def threshold(env_id: str) -> float:
    """The environment's own reward threshold, or what ``SOLVED`` says; infinity if there is none."""
    reward_threshold = SOLVED.get(env_id, gym.spec(env_id).reward_threshold)
    return np.inf if reward_threshold is None else reward_threshold


def to_threshold(curve: pd.DataFrame, env_id: str) -> dict[str, float | None]:
    """When the mean of the last 20 training returns first reached the environment's threshold; None if never."""
    reached = curve[curve["return"].rolling(20).mean() >= threshold(env_id)]
    return {f"{name}_to_threshold": reached[name].iloc[0] if len(reached) else None for name in ("steps", "seconds")}


def train_and_evaluate(run: Run, log_root: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One run: the row of its last model's evaluation, and the rows of its training curve, at most 50."""
    label, env_id, *_ = run
    algo = VARIANTS.get(label, (label,))[0]
    logs = log_root / "-".join(map(str, run))
    words = command(*run[:4], logs)
    origin = records.provenance()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(words, check=True, env=environment, stdout=subprocess.DEVNULL)

    folder = latest_run(str(logs), algo, env_id)
    curve = training_curve(folder)
    returns = evaluate_last_model(folder, algo, env_id, FINAL_EPISODES)
    key = dict(zip(RUN, run, strict=True))
    result = {
        **key,
        "steps": curve["steps"].iloc[-1],
        "seconds": curve["seconds"].iloc[-1],
        "return_mean": returns.mean(),
        "return_std": returns.std(),
        "n_episodes": len(returns),
        **to_threshold(curve, env_id),
        **origin,
        "command": printable(words),
    }
    points = [
        {**key, **part[["steps", "seconds"]].iloc[-1], "return_mean": part["return"].mean(), "n_episodes": len(part)}
        for _, part in curve.groupby(pd.cut(curve["steps"], min(50, len(curve))), observed=True)
    ]
    return result, points


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, (float, np.floating)) else value for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", help="without it: all that the README reports")
    parser.add_argument("--algo", nargs="+", help="RL Zoo's names, or reinforce_textbook; with --env: reinforce")
    parser.add_argument("--seeds", type=int, help="seeds 0 to this, exclusive; with --env: 10")
    parser.add_argument("-n", "--n-timesteps", type=int, default=0, help="0: as the hyperparameters say")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--out", type=Path, default=records.RESULTS / "learning.csv")
    parser.add_argument("--logs", type=Path, default=Path("logs/learning"), help="where RL Zoo keeps the runs")
    args = parser.parse_args()
    if (args.algo or args.seeds) and not args.env:
        parser.error("--algo and --seeds need --env: without it, all that the README reports is run")

    curves = args.out.with_name(f"{args.out.stem}_curves.csv")
    done = set(pd.read_csv(args.out)[RUN].itertuples(index=False, name=None)) if args.out.exists() else set()
    wanted = [(args.algo or ["reinforce"], args.env, args.seeds or 10)] if args.env else REPORTED
    runs = dict.fromkeys(  # once each, and in order
        (algo, env_id, seed, args.n_timesteps, settings(algo, env_id))
        for algos, env_ids, n_seeds in wanted
        for env_id, seed, algo in product(env_ids, range(n_seeds), algos)
    )
    th.set_num_threads(1)  # of the evaluations, beside which others train
    due = [run for run in runs if run not in done]
    print(f"{len(due)} runs to do, {len(runs) - len(due)} done before")
    lock = Lock()

    def do(run: Run) -> None:
        result, points = train_and_evaluate(run, args.logs)
        with lock:
            for point in points:
                records.append(curves, rounded(point))
            records.append(args.out, rounded(result))  # last, since this row says that the run is whole
        print(
            f"{run[:3]}: return {result['return_mean']:.1f} after {result['steps']} steps, {result['seconds']:.1f} s",
            flush=True,
        )

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(do, due))


if __name__ == "__main__":
    main()
