"""Statistics over runs, as functions of numbers: intervals, curves, scores. Aggregates are rliable's (Agarwal et al. 2021)."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

#: Of the bootstraps, so that the same rows make the same report.
SEED = 0
REPETITIONS = 2000
#: Training returns whose mean is compared with a threshold: one alone may be luck.
WINDOW = 20

Scores = dict[str, np.ndarray]


def interval(values: np.ndarray, repetitions: int = REPETITIONS) -> np.ndarray:
    """Bounds of the 95 % bootstrap interval of the mean over runs, float ``[2, ...]``.

    :param values: float ``[n_runs, ...]``
    :param repetitions: how often the runs are drawn anew
    """
    resampled = np.random.default_rng(SEED).choice(values, size=(repetitions, len(values))).mean(1)
    return np.percentile(resampled, [2.5, 97.5], axis=0)


class MeanCurve(NamedTuple):
    """Mean of several learning curves, arrays ``[n_points]``."""

    steps: np.ndarray
    seconds: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def mean_curve(curves: Sequence[pd.DataFrame], n_points: int = 100) -> MeanCurve | None:
    """Mean over runs and its 95 % interval, on a grid of steps where all runs have points; seconds are their median there.

    :param curves: of each run, with columns ``steps``, ``seconds`` and ``return_mean``
    :return: None where the runs share no two points
    """
    start, end = max(c["steps"].iloc[0] for c in curves), min(c["steps"].iloc[-1] for c in curves)
    if start >= end:
        return None
    grid = np.geomspace(start, end, n_points)
    seconds = np.median([np.interp(grid, c["steps"], c["seconds"]) for c in curves], axis=0)
    values = np.array([np.interp(grid, c["steps"], c["return_mean"]) for c in curves])
    low, high = interval(values, repetitions=500)
    return MeanCurve(grid, seconds, values.mean(0), low, high)


class Scale(NamedTuple):
    """The returns that have scores 0 and 1 on an environment."""

    low: float
    """Of random actions, or of the worst run where these are not known or no algorithm does better."""
    high: float
    """Its threshold or, where it names none, the mean of the best algorithm."""
    from_random: bool
    """Whether 0 is random actions."""

    @property
    def is_one(self) -> bool:
        """Whether runs differ on it."""
        return self.high > self.low


def scale(rows: pd.DataFrame) -> Scale:
    """The scale of scores on an environment.

    :param rows: of one environment
    """
    random, threshold = rows["random_return"].iloc[0], rows["threshold"].iloc[0]
    high = rows.groupby("algo")["return_mean"].mean().max() if np.isnan(threshold) else threshold
    from_random = bool(random < high)
    return Scale(float(random if from_random else rows["return_mean"].min()), float(high), from_random)


def scores(rows: pd.DataFrame, algos: Sequence[str], fewest_envs: int = 1, fewest_seeds: int = 1) -> Scores:
    """Returns on a common scale, float ``[n_seeds, n_environments]`` of each algorithm, over the environments, in
    alphabetical order, that all algorithms were run on. Where they have different numbers of seeds, it is the first ones.

    :param algos: two or more
    :param fewest_envs: with fewer environments there are no scores
    :param fewest_seeds: an environment on which an algorithm has fewer seeds is left out
    :return: empty if there are none
    """
    counts = rows.pivot_table(index="env", columns="algo", values="seed", aggfunc="count")
    counts = counts.reindex(columns=list(algos)).dropna()
    counts = counts[counts.min(axis="columns") >= fewest_seeds]
    scales = {env_id: scale(rows[rows["env"] == env_id]) for env_id in counts.index}
    env_ids = [env_id for env_id, found_scale in scales.items() if found_scale.is_one]
    if len(env_ids) < fewest_envs or len(algos) < 2:
        return {}
    n_seeds = int(counts.loc[env_ids].min().min())
    found: dict[str, list[np.ndarray]] = {algo: [] for algo in algos}
    for env_id in env_ids:
        low, high, _ = scales[env_id]
        for algo, columns in found.items():
            own = rows[(rows["env"] == env_id) & (rows["algo"] == algo)].sort_values("seed")["return_mean"].to_numpy()
            columns.append((own[:n_seeds] - low) / (high - low))
    return {algo: np.stack(columns, axis=1) for algo, columns in found.items()}


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile_means(by_algo: Scores) -> dict[str, Estimate]:
    """Mean of the middle half of each algorithm's scores."""
    from rliable import metrics

    return _estimates(by_algo, lambda values: np.array([metrics.aggregate_iqm(values)]))


def improvements(by_algo: Scores) -> dict[str, Estimate]:
    """Probability that a run of the first algorithm is better than one of each other on the same environment, ties half."""
    from rliable import metrics

    first, *others = by_algo
    return _estimates({algo: (by_algo[first], by_algo[algo]) for algo in others}, metrics.probability_of_improvement)


def _estimates(scores: Mapping[str, Any], statistic: Callable[..., Any]) -> dict[str, Estimate]:
    from rliable import library

    with _repeatable():
        values, bounds = library.get_interval_estimates(dict(scores), statistic, reps=REPETITIONS)
    return {name: Estimate(float(np.ravel(values[name])[0]), *map(float, np.ravel(bounds[name]))) for name in values}


def performance_profiles(by_algo: Scores, taus: np.ndarray) -> tuple[Scores, Scores]:
    """Share of each algorithm's runs above each score ``[n_taus]``, and its interval ``[2, n_taus]``."""
    from rliable import library

    with _repeatable():
        shares, bounds = library.create_performance_profile(by_algo, taus, reps=REPETITIONS)
    return shares, bounds


@contextmanager
def _repeatable() -> Iterator[None]:
    """Within it, what rliable draws is the same every time, and nobody hears of how it calls arch."""
    state = np.random.get_state()
    np.random.seed(SEED)  # the generator that rliable's resampling takes, whatever it is given
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "random_state is deprecated", FutureWarning)
            yield
    finally:
        np.random.set_state(state)


def steps_to(curve: pd.DataFrame, threshold: float) -> tuple[float, float]:
    """Steps and seconds when the mean of the last ``WINDOW`` training returns first reached a threshold; infinity if never.

    :param curve: with columns ``steps``, ``seconds``, ``return_mean``, and ``n_episodes``, how many returns that is the mean
        of: it takes as many of the last points as have ``WINDOW`` episodes or more
    :param threshold: NaN: there is none
    """
    n_episodes = curve["n_episodes"].to_numpy()
    episodes = np.append(0, n_episodes.cumsum())
    totals = np.append(0.0, (n_episodes * curve["return_mean"].to_numpy()).cumsum())
    ends = np.flatnonzero(episodes >= WINDOW)
    starts = np.searchsorted(episodes, episodes[ends] - WINDOW, side="right") - 1
    means = (totals[ends] - totals[starts]) / (episodes[ends] - episodes[starts])
    reached = ends[means >= threshold]
    if not len(reached):
        return np.inf, np.inf
    first = curve.iloc[reached[0] - 1]
    return float(first["steps"]), float(first["seconds"])
