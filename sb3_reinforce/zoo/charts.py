"""Pictures: learning curves and performance profiles. ``curves`` are those of ``report.py``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, EngFormatter, LogLocator, NullFormatter

from sb3_reinforce.zoo import statistics
from sb3_reinforce.zoo.names import colours, in_order, label
from sb3_reinforce.zoo.statistics import Scores


def profiles_chart(by_algo: Scores, path: Path) -> None:
    """Share of runs above each score."""
    every = np.concatenate([values.ravel() for values in by_algo.values()])
    # A run that diverged would leave no room for the others.
    taus = np.linspace(max(-1.0, min(0.0, every.min() - 0.05)), min(2.0, max(1.05, every.max() + 0.05)), 101)
    shares, bounds = statistics.performance_profiles(by_algo, taus)
    colour = colours(list(by_algo))
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axis = figure.subplots()
    for i, (algo, share) in enumerate(shares.items()):
        axis.plot(taus, share, color=colour[algo], label=label(algo), linewidth=1.4 if i else 2.2)
        axis.fill_between(taus, *bounds[algo], color=colour[algo], alpha=0.12)
    axis.set(xlabel="score (0: random actions, 1: solved, or the best here)", ylabel="share of runs above it")
    axis.set(ylim=(0, 1.02), xlim=(taus[0], taus[-1]))
    axis.grid(True, color="0.92")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def curves_chart(curves: pd.DataFrame, algos: Sequence[str], path: Path) -> None:
    """Training returns of each environment against steps, above, and against seconds, below; nothing of no curves."""
    env_ids = in_order(curves["env"])
    if not env_ids:
        return
    n_columns = min(4, len(env_ids))
    n_blocks = -(-len(env_ids) // n_columns)
    colour = colours(algos)
    figure = Figure(figsize=(3.3 * n_columns + 0.4, 4.6 * n_blocks + 0.5), layout="constrained")
    axes = figure.subplots(2 * n_blocks, n_columns, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for i, env_id in enumerate(env_ids):
        block, column = divmod(i, n_columns)
        above, below = axes[2 * block, column], axes[2 * block + 1, column]
        for axis, x in ((above, "steps"), (below, "seconds")):
            axis.set_visible(True)
            axis.set(xlabel=x, xscale="log")
            axis.xaxis.set_major_formatter(EngFormatter(sep="") if x == "steps" else "{x:g}")  # 300m would pass for minutes
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(True, color="0.92")
            if column == 0:
                axis.set_ylabel("return in training")
        above.set_title(env_id, fontsize=min(10, 300 / len(env_id)))  # the end of a long name is its version
        for k, algo in enumerate(algos):
            own = curves[(curves["env"] == env_id) & (curves["algo"] == algo)]
            curve = statistics.mean_curve([run for _, run in own.groupby("seed")]) if len(own) else None
            if curve is None:
                continue
            for axis, grid in ((above, curve.steps), (below, curve.seconds)):
                axis.plot(grid, curve.mean, color=colour[algo], label=label(algo), linewidth=1.3 if k else 2)
                axis.fill_between(grid, curve.low, curve.high, color=colour[algo], alpha=0.15, linewidth=0)
        for axis in (above, below):
            left, right = axis.get_xlim()
            many = AutoLocator() if right < 5 * left else LogLocator(subs=(1, 2, 5) if right < 50 * left else (1, 3))
            axis.xaxis.set_major_locator(many)
    handles = {name: handle for axis in axes.flat for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=min(len(handles), 2 * n_columns), frameon=False)
    figure.savefig(path, dpi=130)
