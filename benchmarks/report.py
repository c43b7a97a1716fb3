"""Tables and pictures of what ``learning.py`` recorded: what each algorithm learned, how surely, and how soon.

    python benchmarks/report.py

They are those of ``sb3-reinforce compare``. A run counts if ``learning.py`` would make it today: with one of its seeds, and
the hyperparameters that are now in this project's file or in that of the RL Zoo that is installed. Runs of equal steps have
tables of their own. Tables are written between markers into README.md and benchmarks/README.md, pictures into
``benchmarks/results/``.
"""

import argparse
from pathlib import Path

import pandas as pd
import yaml
from learning import EQUAL_STEPS, OTHERS, VARIANTS, reported, taken
from matplotlib.figure import Figure
from records import RESULTS, show

from sb3_reinforce.zoo import hyperparams_file, statistics
from sb3_reinforce.zoo.charts import curves_chart, profiles_chart
from sb3_reinforce.zoo.names import LABELS, colours, in_order, label, number
from sb3_reinforce.zoo.records import TEXTS
from sb3_reinforce.zoo.tables import FEWEST_ENVS, FEWEST_SEEDS, aggregate_table, results_table, threshold_table

#: RL Zoo's ``benchmark.md``, commit 22e3ff2.
QUOTED = RESULTS.parent / "quoted.csv"
#: What ``sb3-reinforce compare`` has recorded of environments that no file of hyperparameters knows.
OWN = RESULTS / "own" / "results.csv"
#: What ``learning.py --equal-steps`` has recorded.
EQUAL = RESULTS / "equal.csv"
#: Columns, in this order; what else was run is not shown.
ALGOS = ["reinforce", "a2c", "ppo", "trpo", "ars"]
#: Those of README's first page.
FIRST_PAGE = ALGOS[:3]
#: The same three with and without the wrappers that REINFORCE's settings have.
WITH_AND_WITHOUT = ["reinforce_unwrapped", "a2c", "ppo", "reinforce", "a2c_wrapped", "ppo_wrapped"]
#: All that is tuned, then without the uses of a batch after the first, and then nothing.
LESS_AND_LESS = ["reinforce", "reinforce_once", "reinforce_textbook"]
#: The same three after the same effort of search.
SEARCHED = [f"{algo}_searched" for algo in FIRST_PAGE]
#: The trials of that search.
TRIALS = RESULTS / "search.csv"
LABELS |= {
    "reinforce_textbook": "REINFORCE, textbook",
    "reinforce_once": "REINFORCE, `n_epochs=1`",
    "reinforce_unwrapped": "REINFORCE, no wrappers",
    "a2c_wrapped": "A2C, REINFORCE's wrappers",
    "ppo_wrapped": "PPO, REINFORCE's wrappers",
    "reinforce_searched": "REINFORCE",
    "a2c_searched": "A2C",
    "ppo_searched": "PPO",
}


def load(path: Path, n_steps: int = 0) -> pd.DataFrame:
    """The rows that are reported, environments in the order of their hyperparameters. A run that was interrupted after its
    curve was written has that twice.

    :param n_steps: steps that each run was given; 0: as many as the hyperparameters say
    """
    rows = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str)).query("budget == @n_steps")
    rows = rows.merge(pd.DataFrame(sorted(set(reported(n_steps))), columns=["algo", "env", "seed"]))
    rows = rows.groupby(["algo", "env", "settings"], sort=False).filter(lambda own: is_current(*own.name))
    order = list(yaml.safe_load(hyperparams_file().read_text()))
    rows = rows.sort_values("algo", key=lambda algos: algos.map([*ALGOS, *VARIANTS].index), kind="stable")
    rows = rows.sort_values("env", key=lambda envs: envs.map(lambda env: (*order, env).index(env)), kind="stable")
    return rows.drop_duplicates(["algo", "env", "seed", "steps"], keep="last")


def is_current(algo: str, env_id: str, digest: str) -> bool:
    """Whether the hyperparameters of that digest are those that a run would take now."""
    return taken(algo, env_id).digest == digest


def losses(rows: pd.DataFrame, quoted: pd.DataFrame) -> str:
    """Where another algorithm of the first page has the higher mean, what RL Zoo quotes where it was not run."""
    found = []
    means = {**_means(quoted), **_means(rows)}  # what was run replaces what was quoted
    env_ids = in_order(rows["env"])
    for algo in FIRST_PAGE[1:]:
        both = [env for env in env_ids if {(algo, env), ("reinforce", env)} <= means.keys()]
        better = [env for env in both if means[algo, env] > means["reinforce", env]]
        others = [env for env in both if env not in better]
        names = ", ".join(better) or "none"
        if len(better) > len(others):
            names = "all but " + ", ".join(others) if others else "all"
        found.append(f"{label(algo)}'s mean is higher on {len(better)} of {len(both)}: {names}.")
    return "**Where REINFORCE loses.**\n" + "\n".join(found)


def _means(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    return dict(rows.groupby(["algo", "env"])["return_mean"].mean())


def variants_table(rows: pd.DataFrame, algos: list[str]) -> str:
    """Variants beside what they are variants of, on the environments where one of them was run."""
    where = rows.loc[rows["algo"].isin({*algos} & {*VARIANTS}), "env"]
    return results_table(rows[rows["env"].isin(where)], algos)


def scores(rows: pd.DataFrame, algos: list[str]) -> statistics.Scores:
    rows = rows[rows["algo"].isin(algos)]  # variants were run on fewer environments
    run = [algo for algo in algos if algo in set(rows["algo"])]
    return statistics.scores(rows, run, FEWEST_ENVS, FEWEST_SEEDS)


def quoted_table(quoted: pd.DataFrame) -> str:
    """What RL Zoo publishes: mean and standard deviation over episodes of one seed, and steps."""
    cells = quoted["return_mean"].map(number) + " ± " + quoted["return_std"].map(number) + ", " + quoted["steps"]
    table = quoted.assign(cell=cells).pivot(index="measured_on", columns="algo", values="cell").fillna("")
    table = table.reindex(index=in_order(quoted["measured_on"]), columns=OTHERS, fill_value="")
    lines = ["| measured on | " + " | ".join(map(label, OTHERS)) + " |", "|---" * (len(OTHERS) + 1) + "|"]
    lines += [f"| {env_id} | " + " | ".join(own) + " |" for env_id, own in zip(table.index, table.to_numpy(), strict=True)]
    return "\n".join(lines)


def trials_table() -> str:
    """The best and the median return of the trials of the search."""
    trials = pd.read_csv(TRIALS)
    lines = ["| | | best trial | median trial |", "|---|---|---|---|"]
    for (env_id, algo), returns in trials.groupby(["env", "algo"], sort=False)["return_mean"]:
        best, median = number(returns.max()), number(returns.median())
        lines.append(f"| {env_id} | {label(algo)} | {best} | {median} |")
    return "\n".join(lines)


def own_table() -> str:
    return results_table(pd.read_csv(OWN), FIRST_PAGE)


def seconds_chart(curves: pd.DataFrame, env_id: str, path: Path) -> None:
    """Training returns of one environment against seconds: the picture at the top of README."""
    colour = colours(FIRST_PAGE)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    for algo in reversed(FIRST_PAGE):  # ours above the others
        own = curves[(curves["env"] == env_id) & (curves["algo"] == algo)]
        curve = statistics.mean_curve([run for _, run in own.groupby("seed")]) if len(own) else None
        if curve is None:
            continue
        width = 2.4 if algo == "reinforce" else 1.6
        axis.plot(curve.seconds, curve.mean, color=colour[algo], label=label(algo), linewidth=width)
        axis.fill_between(curve.seconds, curve.low, curve.high, color=colour[algo], alpha=0.15, linewidth=0)
    axis.set(title=env_id, xlabel="seconds of training", ylabel="return in training", xscale="log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(True, color="0.92")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(*(reversed(each) for each in axis.get_legend_handles_labels()), frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS / "learning.csv")
    args = parser.parse_args()

    everything, curves = load(args.results), load(args.results.with_name(f"{args.results.stem}_curves.csv"))
    rows = everything[everything["algo"].isin(ALGOS)]
    if rows.empty:
        parser.error(f"{args.results}: every row was given a number of steps, or is of hyperparameters that have changed")
    curves_chart(curves, ALGOS, args.results.with_name("learning_curves.png"))
    seconds_chart(curves, "CartPole-v1", args.results.with_name("cartpole.png"))
    by_algo, quoted = scores(rows, FIRST_PAGE), pd.read_csv(QUOTED)
    equal = load(EQUAL, EQUAL_STEPS)
    equal_by_algo = scores(equal, FIRST_PAGE)
    tables = {
        "losses": losses(rows, quoted),
        "first page": results_table(rows, FIRST_PAGE),
        "results": results_table(rows, ALGOS),
        "quoted": quoted_table(quoted),
        "wrappers": variants_table(everything, WITH_AND_WITHOUT),
        "textbook": variants_table(everything, LESS_AND_LESS),
        "trials": trials_table(),
        "searched": variants_table(everything, SEARCHED),
        "own": own_table(),
        "threshold": threshold_table(rows),
        "aggregate": aggregate_table(by_algo, "results/profiles.png"),
        "equal losses": losses(equal, quoted[:0]),
        "equal": results_table(equal, FIRST_PAGE),
        "equal wrappers": variants_table(equal, WITH_AND_WITHOUT),
        "equal textbook": variants_table(equal, LESS_AND_LESS),
        "equal aggregate": aggregate_table(equal_by_algo, "results/equal_profiles.png"),
    }
    for name, each in (("profiles.png", by_algo), ("equal_profiles.png", equal_by_algo)):
        if each:
            profiles_chart(each, args.results.with_name(name))
    for name, table in tables.items():
        show(name, table, args.results)


if __name__ == "__main__":
    main()
