"""Tables and pictures of what ``learning.py`` recorded: what each algorithm learned, how surely, and how soon.

    python benchmarks/report.py

They are those of ``sb3-reinforce compare``. Left out are runs that were given a number of steps, and those whose
hyperparameters are no longer in this project's file, or in that of the RL Zoo that is installed. Tables are written into
README.md between markers, pictures into ``benchmarks/results/``.
"""

import argparse
from pathlib import Path

import pandas as pd
import yaml
from learning import taken
from records import RESULTS, show

from sb3_reinforce.zoo import hyperparams_file, report, statistics
from sb3_reinforce.zoo.records import TEXTS

QUOTED = RESULTS.parent / "quoted.csv"
#: Columns, in this order; what else was run is not shown.
ALGOS = ["reinforce", "a2c", "ppo", "trpo", "ars"]


def load(path: Path) -> pd.DataFrame:
    """The rows that are reported, environments in the order of their hyperparameters. A run that was interrupted after its
    curve was written has that twice."""
    rows = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str)).query("budget == 0 and algo in @ALGOS")
    rows = rows.groupby(["algo", "env", "settings"], sort=False).filter(lambda own: is_current(*own.name))
    order = list(yaml.safe_load(hyperparams_file().read_text()))
    rows = rows.sort_values("algo", key=lambda algos: algos.map(ALGOS.index), kind="stable")
    rows = rows.sort_values("env", key=lambda envs: envs.map(lambda env: (*order, env).index(env)), kind="stable")
    return rows.drop_duplicates(["algo", "env", "seed", "steps"], keep="last")


def is_current(algo: str, env_id: str, digest: str) -> bool:
    """Whether the hyperparameters of that digest are those that a run would take now."""
    return taken(algo, env_id).digest == digest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS / "learning.csv")
    args = parser.parse_args()

    rows, curves = load(args.results), load(args.results.with_name(f"{args.results.stem}_curves.csv"))
    if rows.empty:
        parser.error(f"{args.results}: every row was given a number of steps, or is of hyperparameters that have changed")
    report.curves_chart(curves, ALGOS, args.results.with_name("learning_curves.png"))
    run = [algo for algo in ALGOS if algo in set(rows["algo"])]
    by_algo = statistics.scores(rows, run, report.FEWEST_ENVS, report.FEWEST_SEEDS)
    tables = {
        "results": report.results_table(rows, pd.read_csv(QUOTED), ALGOS),
        "threshold": report.threshold_table(rows),
        "aggregate": report.aggregate_table(by_algo, "benchmarks/results/profiles.png"),
    }
    if by_algo:
        report.profiles_chart(by_algo, args.results.with_name("profiles.png"))
    for name, table in tables.items():
        show(name, table, args.results)


if __name__ == "__main__":
    main()
