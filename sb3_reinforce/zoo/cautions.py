"""What is to be known of a comparison before its numbers are believed. ``rows`` are those of ``report.py``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sb3_reinforce.zoo import statistics
from sb3_reinforce.zoo.names import asked, decimals, in_order, label, number, pair_name, steps_of
from sb3_reinforce.zoo.tables import ENOUGH_SEEDS

#: None of REINFORCE's hyperparameters that ship was chosen on this seed or a greater one.
FRESH_SEED = 1000


def cautions(
    rows: pd.DataFrame, settings: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str] | None = None
) -> list[str]:
    """One sentence or two each, those of an environment with its name before them.

    :param settings: all arguments of each ``algorithm on environment``, as ``settings.json`` has them
    :param failed: runs that have failed, and why, as ``failed.json`` has them
    """
    algos, env_ids = asked(settings, rows)
    found = [f"{run} has failed: {why}" for run, why in (failed or {}).items()]
    for env_id in env_ids:
        here = rows[rows["env"] == env_id]
        own = {algo: settings.get(pair_name(algo, env_id), {}) for algo in algos if algo in set(here["algo"])}
        expected = [algo for algo in algos if algo in own or not settings or pair_name(algo, env_id) in settings]
        about = [*_of_missing(here, expected), *_of_steps(here), *_of_arguments(own), *_of_entries(here, env_id)]
        found += [f"{env_id}: {each}" for each in about]
    for env_id in in_order(rows["env"]):
        here = rows[rows["env"] == env_id]
        found += [f"{env_id}: {each}" for each in (*_of_evaluation(here), *_of_scale(here))]
    return [*found, *_of_seeds(rows), *_of_machines(rows)]


def _of_missing(here: pd.DataFrame, expected: Sequence[str]) -> list[str]:
    """Of algorithms that were asked for, runs that others have."""
    counts = here["algo"].value_counts()
    have = {algo: int(counts.get(algo, 0)) for algo in expected}
    most = max(have.values())
    if most == 0:
        return ["no run was finished."]
    missing = [f"{label(algo)} has {count}" for algo, count in have.items() if count < most]
    return [f"of {most} runs, {', '.join(missing)}: the others have failed, or were not run."] if missing else []


def _of_steps(here: pd.DataFrame) -> list[str]:
    steps = here.groupby("algo", sort=False)["steps"].median()
    if len(steps) == 0 or steps.max() <= 1.1 * steps.min():
        return []
    taken = ", ".join(f"{label(algo)} {steps_of(median)}" for algo, median in steps.items())
    remedy = "A greater `-n` makes them more alike" if here["budget"].all() else "`-n` makes them alike"
    return [f"numbers of steps differ ({taken}). {remedy}."]


def _of_arguments(own: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What makes the environment of one algorithm another than that of the next.

    :param own: all arguments of each algorithm
    """
    found = []
    wrappers = {algo: _wrappers(arguments) for algo, arguments in own.items()}
    if len(set(wrappers.values())) > 1:
        each = _each({algo: names or "none" for algo, names in wrappers.items()})
        found.append(f"environment wrappers differ ({each}). `--same-wrappers` or `--no-wrappers` make them equal.")
    elif any(wrappers.values()):
        found.append(f"environment wrappers are the same for all: {next(iter(wrappers.values()))}.")
    kwargs = {algo: str(arguments.get("env_kwargs") or "none") for algo, arguments in own.items()}
    if len(set(kwargs.values())) > 1:
        found.append(f"`env_kwargs` differ ({_each(kwargs)}), so the environments are not the same.")
    with_it = [label(algo) for algo, arguments in own.items() if arguments.get("normalize")]
    without = [label(algo) for algo, arguments in own.items() if not arguments.get("normalize")]
    if with_it and without:
        found.append(f"`normalize` is among the hyperparameters of {', '.join(with_it)}, and not of {', '.join(without)}.")
    return found


def _each(values: Mapping[str, str]) -> str:
    return ", ".join(f"{label(algo)}: {value}" for algo, value in values.items())


def _of_entries(here: pd.DataFrame, env_id: str) -> list[str]:
    """Algorithms without hyperparameters for the environment."""
    others = here[(here["entry"] != env_id) & (here["entry"] != "atari")].drop_duplicates("algo")
    found = []
    for entry, those in others.groupby("entry", sort=False):
        has, takes = ("has", "takes") if len(those) == 1 else ("have", "take")
        names = ", ".join(map(label, those["algo"]))
        found.append(f"{names} {has} no hyperparameters for it, and {takes} those of `{entry}`.")
    return found


def _of_seeds(rows: pd.DataFrame) -> list[str]:
    """Seeds on which settings were chosen, and too few of them."""
    found = []
    tuned = rows[rows["algo"].str.startswith("reinforce") & (rows["entry"] == rows["env"]) & (rows["seed"] < FRESH_SEED)]
    tuned = tuned[~tuned["command"].str.contains("--conf-file")]
    if len(tuned):
        found.append(
            f"{', '.join(in_order(tuned['env']))}: REINFORCE's hyperparameters were chosen on some of the seeds below "
            f"{FRESH_SEED}. `--first-seed {FRESH_SEED}` takes others."
        )
    n_seeds = int(rows.groupby(["algo", "env"]).size().max())
    if n_seeds < ENOUGH_SEEDS:
        found.append(
            f"Of {n_seeds} {'seeds' if n_seeds > 1 else 'seed'}, intervals say little: {ENOUGH_SEEDS} or more are better."
        )
    return found


def _of_machines(rows: pd.DataFrame) -> list[str]:
    columns = {"cpu": "machines, so that seconds do not compare", "versions": "versions"}
    counts = {what: rows[column].nunique() for column, what in columns.items()}
    return [f"Rows are of {count} {what}." for what, count in counts.items() if count > 1]


def _of_evaluation(here: pd.DataFrame) -> list[str]:
    """Whether the episodes of an evaluation are too few, beside how far the algorithms are apart.

    :param here: rows of one environment
    """
    error = float((here["return_std"] / np.sqrt(here["n_episodes"])).median())
    means = here.groupby("algo")["return_mean"].mean()
    apart = float(means.max() - means.min())
    if len(means) < 2 or 4 * error <= apart:
        return []
    n_episodes = int(here["n_episodes"].iloc[0])
    one, between = (number(value, decimals([-value, value])) for value in (error, apart))
    return [
        f"a model's mean over {n_episodes} episodes has a standard error of {one}, and the algorithms' means are {between} "
        f"apart or less. `--eval-episodes` takes more than {n_episodes}."
    ]


def _of_scale(here: pd.DataFrame) -> list[str]:
    """What is to be known of the scores on an environment.

    :param here: its rows
    """
    random, scale = here["random_return"].iloc[0], statistics.scale(here)
    found = []
    if not scale.from_random:
        best = "the best algorithm" if np.isnan(here["threshold"].iloc[0]) else "its threshold"
        digits = decimals([*here["return_mean"], random, scale.high])
        known = f"random actions have {number(random, digits)}, and {best} {number(scale.high, digits)}"
        known = "the return of random actions is not known" if np.isnan(random) else known
        found.append(f"{known}, so that the worst run has the score 0.")
    if not scale.is_one:
        found.append("no run is worse than another, so that there are no scores.")
    return found


def _wrappers(arguments: Mapping[str, Any]) -> str:
    """Names of what changes the environment."""
    wrappers: list[Any] = []
    for found in (arguments.get("env_wrapper") or [], arguments.get("vec_env_wrapper") or []):
        wrappers += found if isinstance(found, list) else [found]
    names = [wrapper if isinstance(wrapper, str) else next(iter(wrapper)) for wrapper in wrappers]
    values = ["" if isinstance(wrapper, str) else f"({next(iter(wrapper.values()))})" for wrapper in wrappers]
    named = [name.rpartition(".")[2] + value.replace("'", "") for name, value in zip(names, values, strict=True)]
    stack = arguments.get("frame_stack")
    return " ".join([*named, *([f"frame_stack {stack}"] if stack else [])])
