"""The report of a comparison: what each algorithm learned, how surely, and how soon.

All are functions of tables. ``rows`` has a line for each run: ``algo``, ``env``, ``seed``, ``steps``, ``return_mean`` and
``return_std`` over ``n_episodes`` of the last model, ``held`` (steps of the environment that one action takes), ``threshold``
and ``random_return`` of the environment (NaN: not known), ``steps_to_threshold`` and ``seconds_to_threshold`` (NaN: never),
the ``command`` and the ``cpu``. ``curves`` has a line for each point of a run's learning curve: ``algo``, ``env``, ``seed``,
``steps``, ``seconds``, ``return_mean``, and ``n_episodes``, how many returns that is the mean of. Algorithms and environments
are in the order of ``rows``, and the first algorithm is what the others are compared with.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sb3_reinforce.zoo import records, statistics, tables
from sb3_reinforce.zoo.cautions import cautions
from sb3_reinforce.zoo.charts import curves_chart, profiles_chart
from sb3_reinforce.zoo.names import asked, decimals, in_order, label, number, run_name
from sb3_reinforce.zoo.statistics import Scores


class Comparison(NamedTuple):
    """What a comparison's folder holds, algorithms and environments in the order they were asked for."""

    rows: pd.DataFrame
    curves: pd.DataFrame
    settings: dict[str, dict[str, Any]]
    """All arguments of each ``algorithm on environment``."""
    failed: dict[str, str]
    """Runs that have failed and have not been run again, and why."""


def load(folder: Path) -> Comparison:
    """Read a comparison's folder.

    :raises ValueError: if a file is not whole or of something else
    :raises OSError: if one is missing
    """
    settings = records.read_json(folder / records.SETTINGS)
    rows = _table(folder / records.RESULTS, records.read_runs)
    curves = _table(folder / records.CURVES, records.read_curves)
    algos, env_ids = asked(settings, rows)
    places = {"algo": algos.index, "env": env_ids.index, "seed": int}
    rows = rows.sort_values(list(places), key=lambda column: column.map(places[column.name]), kind="stable")
    # A run that was made again has two rows, and one that was interrupted after its curve was written has that twice.
    rows = rows.drop_duplicates(["algo", "env", "seed"], keep="last").reset_index(drop=True)
    failed = records.read_json(folder / records.FAILED)
    for run in rows[["algo", "env", "seed"]].itertuples(index=False):
        failed.pop(run_name(*run), None)
    return Comparison(rows, _last_curves(curves), settings, failed)


def _last_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Of each run, the curve that was written last: its steps begin anew."""
    run = ["algo", "env", "seed"]
    curves = curves.assign(curve=curves.groupby(run)["steps"].transform(lambda steps: (steps.diff() <= 0).cumsum()))
    return curves[curves["curve"] == curves.groupby(run)["curve"].transform("max")].drop(columns="curve")


def _table(path: Path, read: Callable[[Path], list[records.Row]]) -> pd.DataFrame:
    """A table, as ``records.py`` finds it right."""
    if not read(path):
        raise ValueError(f"{path} has no rows of a comparison. {records.REMEDY}")
    return pd.read_csv(path, dtype=dict.fromkeys(records.TEXTS, str))


def write(folder: Path) -> None:
    """``report.md``, ``curves.png`` and ``profiles.png`` of a comparison's folder.

    :raises ValueError: if a file of the folder is not whole or of something else
    :raises OSError: if one is missing, or cannot be written
    """
    comparison = load(folder)
    rows, algos = comparison.rows, in_order(comparison.rows["algo"])
    curves_chart(comparison.curves, algos, folder / "curves.png")
    aggregated = statistics.scores(rows, algos, tables.FEWEST_ENVS, tables.FEWEST_SEEDS)
    shown = aggregated or statistics.scores(rows, algos)
    if shown:
        profiles_chart(shown, folder / "profiles.png")
    text = _markdown(comparison, aggregated, shown)
    records.replace(folder / "report.md", text)


def _markdown(comparison: Comparison, aggregated: Scores, shown: Scores) -> str:
    """The report.

    :param aggregated: scores that are worth an aggregate; empty if there are none
    :param shown: scores that the picture shows
    """
    rows, curves, settings, failed = comparison
    algos, env_ids = asked(settings, rows)
    parts = [f"# {', '.join(map(label, algos))} on {', '.join(env_ids)}"]
    env_ids = [env_id for env_id in env_ids if env_id in set(rows["env"])]
    found = cautions(rows, settings, failed)
    if found:
        parts += ["## Before you believe it", "\n".join(f"- {line}" for line in found)]
    parts += [
        "## What was learned",
        f"Mean over seeds of the return of the last model, with deterministic actions, over {int(rows['n_episodes'].iloc[0])} "
        "episodes; in brackets the 95 % bootstrap interval of the mean or, of five seeds or fewer, each seed's return; seeds "
        "× steps of the environment, those of finished episodes.",
        tables.results_table(rows),
        "![Learning curves](curves.png)",
        "Mean return in training over seeds with its 95 % interval, against steps, above, and seconds, below.",
    ]
    parts += _how_soon(rows, tables.with_targets(rows, curves), env_ids)
    parts.append("## Over all environments")
    n_seeds, n_envs = int(rows.groupby(["algo", "env"]).size().min()), len(env_ids)
    if shown:
        n_seeds, n_envs = next(iter(shown.values())).shape
    have = "Of this comparison, these can be scored:" if shown else "This comparison has"
    size = f"{_count(n_envs, 'environment')} × {_count(n_seeds, 'seed')}"
    parts.append(
        tables.aggregate_table(aggregated)
        or f"No interquartile mean and no probability of improvement: they need at least {tables.FEWEST_ENVS} environments × "
        f"{tables.FEWEST_SEEDS} seeds and 2 algorithms, whose runs differ. {have} {size} and "
        f"{_count(len(algos), 'algorithm')}."
    )
    if shown and statistics.scores(rows[rows["threshold"].isna()], list(shown), fewest_seeds=n_seeds):
        parts.append("Where an environment names no threshold, the mean of the best algorithm here has the score 1.")
    if shown:
        parts += ["![Performance profiles](profiles.png)", f"Runs of {size}."]
    parts += [
        "## Made with",
        "\n".join(f"- {versions}" for versions in in_order(rows["versions"])),
        "\n".join(f"- {cpu}" for cpu in in_order(rows["cpu"])),
        "Each run's command, commit and settings are in [results.csv](results.csv), all arguments in "
        "[settings.json](settings.json), points of the curves in [curves.csv](curves.csv), and the trained agents in `runs/`.",
    ]
    return "\n\n".join(parts) + "\n"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _how_soon(rows: pd.DataFrame, reached: pd.DataFrame, env_ids: Sequence[str]) -> list[str]:
    """The report's part on thresholds; none if no environment has one, or no algorithm two seeds.

    :param reached: the rows, with thresholds and when they were reached
    """
    targets = []
    for env_id in env_ids:
        here, value = rows[rows["env"] == env_id], reached[reached["env"] == env_id]["threshold"].iloc[0]
        if np.isnan(value):
            continue
        named = number(value, decimals([*here["return_mean"], value]))
        own = not np.isnan(here["threshold"].iloc[0])
        start = "random actions" if statistics.scale(here).from_random else "the worst run"
        share = f"{tables.TARGET:.0%} of the way from {start} to the best algorithm"
        why = ", its own threshold." if own else f". The environment names no threshold, so this is {share}."
        targets.append(f"- {env_id}: {named}{why}")
    table = tables.threshold_table(reached)
    if not targets or table.count("\n") < 2:
        return []
    return [
        "## How soon",
        f"Medians over seeds of when the mean return of {statistics.WINDOW} training episodes first reached:",
        "\n".join(targets),
        table,
        "— where half of the seeds or more never did.",
    ]
