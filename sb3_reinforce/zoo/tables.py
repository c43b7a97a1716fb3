"""Tables in Markdown: what each algorithm learned, how soon, and over all environments. ``rows`` and ``curves`` are those of
``report.py``."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sb3_reinforce.zoo import statistics
from sb3_reinforce.zoo.names import decimals, in_order, label, number, steps_of
from sb3_reinforce.zoo.statistics import Estimate, Scores

#: Fewer environments than this are not worth an aggregate.
FEWEST_ENVS = 3
#: An environment on which some algorithm has fewer seeds than this is no part of it.
FEWEST_SEEDS = 3
#: With fewer seeds than this, the bootstrap has hardly anything to draw from.
ENOUGH_SEEDS = 5
#: Where an environment names no threshold: this share of the way from random actions to the best algorithm.
TARGET = 0.75


def results_table(rows: pd.DataFrame, algos: Sequence[str] | None = None) -> str:
    """Environment by algorithm: mean over seeds, its interval or, of five seeds or fewer, the returns themselves; number
    of seeds and steps, and for how many an action is held.

    :param algos: the columns; None: those of ``rows``
    """
    algos = in_order(rows["algo"]) if algos is None else algos
    lines = ["| | " + " | ".join(map(label, algos)) + " |", "|---" * (len(algos) + 1) + "|"]
    for env_id in in_order(rows["env"]):
        here = rows[rows["env"] == env_id]
        digits = decimals(here["return_mean"].to_numpy())
        cells = [_returns_cell(here[here["algo"] == algo], digits) for algo in algos]
        lines.append(f"| {env_id} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _returns_cell(runs: pd.DataFrame, digits: int) -> str:
    if runs.empty:
        return ""
    returns = runs["return_mean"].to_numpy()
    low, high = statistics.interval(returns)
    spread = f"{number(low, digits)} to {number(high, digits)}"
    if len(runs) <= 5:
        spread = ", ".join(number(value, digits) for value in sorted(returns))
    spread = f" ({spread})" if len(runs) > 1 else ""
    held = int(runs["held"].iloc[0])
    steps = steps_of(runs["steps"].median()) + (f", held {held}" if held > 1 else "")
    return f"**{number(returns.mean(), digits)}**{spread}, {len(runs)} × {steps}"


def threshold_table(rows: pd.DataFrame) -> str:
    """Median seconds and steps until the threshold was reached, of algorithms with two seeds or more. Seconds are compared
    where they are of the same machines."""
    first = rows["algo"].iloc[0]
    lines = [f"| | | reached by | seconds | × {label(first)}'s | steps |", "|---|---|---|---|---|---|"]
    for env_id in in_order(rows["env"]):
        here = rows[rows["env"] == env_id]
        ours = here[here["algo"] == first]["seconds_to_threshold"].fillna(np.inf).median()
        machines = set(here[here["algo"] == first]["cpu"])
        for algo in in_order(rows["algo"]):
            own = here[here["algo"] == algo]
            if len(own) < 2 or own["threshold"].isna().all():
                continue
            # A run that never got there counts as infinitely slow.
            seconds, steps = (own[f"{name}_to_threshold"].fillna(np.inf).median() for name in ("seconds", "steps"))
            reached = f"{own['steps_to_threshold'].notna().sum()} of {len(own)}"
            comparable = algo != first and np.isfinite([seconds, ours]).all() and set(own["cpu"]) == machines
            ratio = f"{seconds / ours:.1f}" if comparable else ""
            shown = f"{seconds:.1f} | {ratio} | {steps:,.0f}" if np.isfinite(seconds) else "— | | —"
            lines.append(f"| {env_id} | {label(algo)} | {reached} | {shown} |")
    return "\n".join(lines)


def with_targets(rows: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The rows with a threshold for environments that name none, ``TARGET`` of the way from random actions to the best
    algorithm's mean, and when each run's curve first reached it."""
    rows = rows.copy()
    for env_id in in_order(rows["env"]):
        here = rows["env"] == env_id
        if not rows.loc[here, "threshold"].isna().all():
            continue
        scale = statistics.scale(rows[here])
        if not scale.is_one:
            continue
        rows.loc[here, "threshold"] = target = scale.low + TARGET * (scale.high - scale.low)
        for index, row in rows[here].iterrows():
            same = (curves["env"] == env_id) & (curves["algo"] == row["algo"]) & (curves["seed"] == row["seed"])
            steps, seconds = statistics.steps_to(curves[same], target)
            columns = ["steps_to_threshold", "seconds_to_threshold"]
            rows.loc[index, columns] = [steps, seconds] if np.isfinite(steps) else [np.nan, np.nan]
    return rows


def aggregate_table(by_algo: Scores, profiles: str = "profiles.png") -> str:
    """Interquartile mean of each algorithm, and how likely a run of the first is better than one of it.

    :param by_algo: of ``statistics.scores``; empty: so is the table
    :param profiles: where the picture of the performance profiles is
    """
    if not by_algo:
        return ""
    first = next(iter(by_algo))
    means, better = statistics.interquartile_means(by_algo), statistics.improvements(by_algo)
    n_seeds, n_envs = by_algo[first].shape
    lines = [
        f"Over the environments on which all were run with {FEWEST_SEEDS} seeds or more, on a scale where random actions",
        "have 0 and the environment's threshold 1 (rliable; Agarwal et al. 2021):\n",
        f"| {n_envs} environments × {n_seeds} seeds | interquartile mean "
        f"| {label(first)} is better with probability, ties half |",
        "|---|---|---|",
    ]
    lines += [f"| {label(algo)} | {_cell(means[algo])} | {_cell(better.get(algo))} |" for algo in by_algo]
    if n_seeds < ENOUGH_SEEDS:
        lines.append(f"\nOf {n_seeds} seeds, the intervals say little.")
    lines.append(f"\n[Performance profiles]({profiles}) show the share of runs above each score.")
    return "\n".join(lines)


def _cell(estimate: Estimate | None) -> str:
    return "" if estimate is None else "{:.2f} ({:.2f} to {:.2f})".format(*estimate).replace("-", "−")
