"""The runs that are reported: hours.

    python benchmarks/learning.py
    python benchmarks/learning.py --algo reinforce a2c --env CartPole-v1   # only these
    python benchmarks/learning.py --equal-steps                            # 100,000 steps for each instead

REINFORCE takes this project's hyperparameters, ``reinforce_textbook`` the pure estimator, ``reinforce_once`` uses each batch
once. ``reinforce_searched``, ``a2c_searched`` and ``ppo_searched`` take what ``equal_search.py`` has found. Every other
algorithm takes RL Zoo's own hyperparameters, those of an older version of the environment where RL Zoo has none for this one.

What a run is, and how it is recorded, is ``sb3_reinforce.zoo``'s, whose ``sb3-reinforce compare`` compares any algorithms
on any environments. Rows go to ``results/learning.csv`` and ``learning_curves.csv``, those of equal steps to
``results/equal.csv`` and ``equal_curves.csv``. A run that has its row is not run again, unless its hyperparameters have
changed.
"""

import argparse
import functools
import os
from itertools import product
from pathlib import Path

import records
from rl_zoo3.utils import ALGOS

from sb3_reinforce import zoo
from sb3_reinforce.zoo.settings import Contestant, Settings, resolved, settings
from sb3_reinforce.zoo.settings import threshold as named_threshold
from sb3_reinforce.zoo.sweep import Job, Run, Sweep, description, named
from sb3_reinforce.zoo.tryout import random_return

#: Files of hyperparameters that ``equal_search.py`` has found for these algorithms on these environments.
SEARCHED = os.path.relpath(Path(__file__).parent / "searched")
SEARCHED_ALGOS = ["reinforce", "a2c", "ppo"]
SEARCHED_ENVS = ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "InvertedPendulum-v5"]
#: What is not one of RL Zoo's algorithms with its own hyperparameters.
VARIANTS = {
    "reinforce_textbook": Contestant("reinforce", "reinforce_textbook.yml"),
    "reinforce_once": Contestant("reinforce", changes=(("n_epochs", 1),)),
    "reinforce_unwrapped": Contestant("reinforce", wrappers="none"),
    "a2c_wrapped": Contestant("a2c", wrappers="reinforce"),
    "ppo_wrapped": Contestant("ppo", wrappers="reinforce"),
    **{f"{algo}_searched": Contestant(algo, f"{SEARCHED}/{algo}.yml") for algo in SEARCHED_ALGOS},
}
CLASSIC = ["CartPole-v1", "Acrobot-v1", "MountainCarContinuous-v0"]
MUJOCO = ["InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Swimmer-v5"]
OTHERS = ["a2c", "ppo", "trpo", "ars"]
#: The return that counts as solved, where the environment names none.
SOLVED = {"Pendulum-v1": -200.0, "Walker2d-v5": 3000.0}
#: Algorithms, environments, seeds. No setting of REINFORCE's was chosen for what it had on those from 100 to 149.
REPORTED = [
    (["reinforce", *OTHERS, "reinforce_textbook"], CLASSIC[:1], range(100, 105)),
    (["reinforce", "reinforce_textbook"], CLASSIC[:1], range(105, 110)),
    (["reinforce"], CLASSIC[:1], range(110, 150)),
    (["reinforce"], [*CLASSIC[1:], "MountainCar-v0"], range(100, 110)),
    (["reinforce"], ["Pendulum-v1", "LunarLander-v3"], range(100, 110)),
    (["reinforce_unwrapped", "a2c_wrapped", "ppo_wrapped"], ["MountainCarContinuous-v0"], range(100, 103)),
    (["reinforce_once"], ["LunarLander-v3", "HalfCheetah-v5", "Hopper-v5"], range(100, 103)),
    (OTHERS, [*CLASSIC[1:], "MountainCar-v0"], range(3)),
    (["ppo", "trpo"], ["LunarLanderContinuous-v3"], range(3)),
    (["a2c"], ["LunarLanderContinuous-v3"], range(2)),
    (OTHERS[:3], ["Pendulum-v1", "LunarLander-v3"], range(3)),
    (["ars"], ["Pendulum-v1", "LunarLander-v3"], range(1)),
    (["reinforce"], MUJOCO, range(100, 105)),
    (["a2c", "ppo"], MUJOCO, range(3)),
    (["reinforce"], ["LunarLanderContinuous-v3"], range(100, 110)),
    (["reinforce"], ["BipedalWalker-v3"], range(100, 103)),
    ([f"{algo}_searched" for algo in SEARCHED_ALGOS], SEARCHED_ENVS, range(100, 105)),
]
#: A comparison in which each has the same number of steps, however many its hyperparameters would have: a seed of all, and
#: then the next. MountainCarContinuous-v0 is left out: PPO updates after each 8 steps there, and was not done in four minutes.
EQUAL_STEPS = 100_000
EQUAL_ENVS = [*CLASSIC[:2], "MountainCar-v0", "Pendulum-v1", "LunarLander-v3", "LunarLanderContinuous-v3", *MUJOCO]
EQUAL = [(["reinforce", "a2c", "ppo"], EQUAL_ENVS, range(seed, seed + 1)) for seed in range(100, 105)]
EQUAL += [
    (["reinforce_once", "reinforce_textbook"], [*CLASSIC, *EQUAL_ENVS[2:6]], range(100, 103)),
    (["reinforce_once"], ["InvertedPendulum-v5", "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Swimmer-v5"], range(100, 103)),
    (["reinforce_unwrapped", "a2c_wrapped", "ppo_wrapped"], [*EQUAL_ENVS[1:5], "Swimmer-v5"], range(100, 103)),
    (["reinforce"], CLASSIC[2:], range(100, 103)),
]


def contestant(algo: str) -> Contestant:
    return VARIANTS.get(algo, Contestant(algo))


@functools.cache
def taken(algo: str, env_id: str, n_steps: int = 0) -> Settings:
    """What a run takes today. ``n_steps``: 0 for as many as the hyperparameters say."""
    return settings(contestant(algo), env_id, n_steps)


def reported(n_steps: int = 0) -> list[tuple[str, str, int]]:
    """Algorithm, environment and seed of each run of so many steps, algorithms by turns."""
    groups = EQUAL if n_steps else REPORTED
    return [(algo, env_id, seed) for algos, env_ids, seeds in groups for env_id, seed, algo in product(env_ids, seeds, algos)]


def threshold(env_id: str) -> float:
    """The environment's own reward threshold, or what ``SOLVED`` says; NaN if there is none."""
    return SOLVED.get(env_id, named_threshold(env_id))


def jobs(results: Path, n_steps: int = 0) -> list[Job]:
    """All that is reported, algorithms by turns, each once."""
    zoo.register()
    random_returns = {row["env"]: row["random_return"] for row in records.read(results)}
    found: dict[Run, Job] = {}
    for algo, env_id, seed in reported(n_steps):
        if env_id not in random_returns:
            random_returns[env_id] = random_return(env_id)
        own = taken(algo, env_id, n_steps)
        full = resolved(ALGOS[contestant(algo).algo], own, n_steps)
        columns = description(own, full, threshold(env_id), random_returns[env_id])
        run = Run(algo, env_id, seed, n_steps, own.digest)
        found[run] = Job(run, contestant(algo), own, columns, threshold(env_id))
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", help="only these environments of those that are reported")
    parser.add_argument("--algo", nargs="+", help="only these algorithms")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--equal-steps", action="store_true", help=f"{EQUAL_STEPS:,} steps for each")
    parser.add_argument("--out", type=Path, help="table of the results")
    parser.add_argument("--logs", type=Path, default=Path("logs/learning"), help="where RL Zoo keeps the runs")
    args = parser.parse_args()

    out = args.out or records.RESULTS / ("equal.csv" if args.equal_steps else "learning.csv")
    wanted = jobs(out, EQUAL_STEPS if args.equal_steps else 0)
    wanted = [job for job in wanted if job.run.env in (args.env or [job.run.env])]
    wanted = [job for job in wanted if job.run.algo in (args.algo or [job.run.algo])]
    if not wanted:
        parser.error("none of these is reported; for others there is `sb3-reinforce compare`")
    sweep = Sweep(out, out.with_name(f"{out.stem}_curves.csv"), args.logs, records.provenance)
    done = len({job.run for job in wanted} & sweep.done())
    print(f"{len(wanted) - done} runs to do, {done} done before", flush=True)
    failed = sweep.work(wanted, args.jobs)
    for run, complaint in failed.items():
        print(f"failed: {named(run)}: {complaint}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
