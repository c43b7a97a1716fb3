"""Tables and pictures of what ``learning.py`` recorded: what each algorithm learned, how surely, and how soon.

    python benchmarks/report.py

Aggregates over environments follow Agarwal et al. (2021) and come from rliable: interquartile means, performance profiles and
probabilities of improvement, with stratified-bootstrap 95 % intervals. A score is a return on a scale of its
environment, on which actions drawn at random have 0 and its threshold has 1. Left out are runs that were given a number of
steps with ``-n``, and those whose hyperparameters are no longer in this project's file, or in that of the RL Zoo that is
installed. Tables are written into README.md between markers, pictures into ``benchmarks/results/``.
"""

import argparse
import warnings
from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml
from learning import entry, settings, threshold
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from records import RESULTS, show

from sb3_reinforce.zoo import hyperparams_file

QUOTED = RESULTS.parent / "quoted.csv"
#: In this order; a line here is all that another of RL Zoo's algorithms takes to appear.
LABELS = {"reinforce": "REINFORCE", "a2c": "A2C", "ppo": "PPO", "trpo": "TRPO", "ars": "ARS"}
COLOURS = {"reinforce": "#c1272d", "a2c": "#0072b2", "ppo": "#56b4e9", "trpo": "#009e73", "ars": "#e69f00"}
FRAME_SKIP = "rl_zoo3.wrappers.FrameSkip"
#: Seeds of the bootstraps, so that the same rows make the same report.
SEED = 0
REPETITIONS = 2000
#: Fewer environments than this are not worth an aggregate.
FEWEST_ENVS = 3
#: An environment on which some algorithm has fewer seeds than this is no part of it.
FEWEST_SEEDS = 3
#: With fewer seeds than this, the bootstrap has hardly anything to draw from.
ENOUGH_SEEDS = 5


def load(path: Path) -> pd.DataFrame:
    """The rows that are reported, environments in the order of their hyperparameters. A run that was interrupted after its
    curve was written has that twice."""
    rows = pd.read_csv(path).query("budget == 0 and algo in @LABELS")
    rows = rows.groupby(["algo", "env", "settings"], sort=False).filter(lambda own: settings(*own.name[:2]) == own.name[2])
    order = list(yaml.safe_load(hyperparams_file().read_text()))
    rows = rows.sort_values("env", key=lambda envs: envs.map(lambda env: (*order, env).index(env)), kind="stable")
    return rows.drop_duplicates(["algo", "env", "seed", "steps"], keep="last")


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over seeds."""
    resampled = np.random.default_rng(SEED).choice(values, size=(REPETITIONS, len(values))).mean(1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def random_return(env_id: str, n_episodes: int = 50) -> float:
    """Mean return of actions drawn at random."""
    env = gym.make(env_id)
    env.action_space.seed(SEED)
    total = 0.0
    for episode in range(n_episodes):
        env.reset(seed=SEED + episode)
        done = False
        while not done:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            done = terminated or truncated
    env.close()
    return total / n_episodes


def number(value: float) -> str:
    """Three digits or so, and a true minus."""
    return f"{value:.0f}".replace("-", "−")


def steps_of(steps: float) -> str:
    return f"{steps / 1e6:.3g}M" if steps >= 999_500 else f"{steps / 1e3:.0f}k"


def held(algo: str, env_id: str) -> int:
    """For how many steps of the environment RL Zoo's FrameSkip holds each action; 1 without it."""
    wrappers = entry(algo, env_id)[1].get("env_wrapper") or []
    named = [wrapper for wrapper in wrappers if isinstance(wrapper, dict)]
    return next((each[FRAME_SKIP]["skip"] for each in named if FRAME_SKIP in each), 1)


def results_table(rows: pd.DataFrame, quoted: pd.DataFrame) -> str:
    """Environment by algorithm: mean over seeds, its interval or, of five seeds or fewer, the returns themselves; number
    of seeds and steps, and for how many an action is held. Quoted where not run."""
    algos = [algo for algo in LABELS if algo in {*rows["algo"], *quoted["algo"]}]
    lines = ["| | " + " | ".join(LABELS[algo] for algo in algos) + " |", "|---" * (len(algos) + 1) + "|"]
    for env_id in dict.fromkeys(rows["env"]):
        cells = []
        for algo in algos:
            own = rows[(rows["env"] == env_id) & (rows["algo"] == algo)]
            theirs = quoted[(quoted["env"] == env_id) & (quoted["algo"] == algo)]
            if len(own):
                returns = own["return_mean"].to_numpy()
                low, high = interval(returns)
                spread = f"{number(low)} to {number(high)}" if len(own) > 5 else ", ".join(map(number, sorted(returns)))
                spread = f" ({spread})" if len(own) > 1 else ""
                steps = steps_of(own["steps"].median())
                skip = held(algo, env_id)
                steps += f", held {skip}" if skip > 1 else ""
                cells.append(f"**{number(returns.mean())}**{spread}, {len(own)} × {steps}")
            elif len(theirs):
                row = theirs.iloc[0]
                cells.append(f"*{number(row['return_mean'])} ± {number(row['return_std'])}, {row['steps']}*")
            else:
                cells.append("")
        lines.append(f"| {env_id} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def threshold_table(rows: pd.DataFrame) -> str:
    """Median seconds and steps until the mean of 20 training returns reached the environment's threshold."""
    lines = ["| | | reached by | seconds | × REINFORCE's | steps |", "|---|---|---|---|---|---|"]
    for env_id in dict.fromkeys(rows["env"]):
        ours = rows[(rows["env"] == env_id) & (rows["algo"] == "reinforce")]["seconds_to_threshold"].fillna(np.inf).median()
        for algo in (algo for algo in LABELS if algo in set(rows["algo"])):
            own = rows[(rows["env"] == env_id) & (rows["algo"] == algo)]
            if len(own) < 2 or np.isinf(threshold(env_id)):
                continue
            # A run that never got there counts as infinitely slow.
            seconds, steps = (own[f"{name}_to_threshold"].fillna(np.inf).median() for name in ("seconds", "steps"))
            reached = f"{own['steps_to_threshold'].notna().sum()} of {len(own)}"
            ratio = f"{seconds / ours:.1f}" if algo != "reinforce" and np.isfinite(seconds) and np.isfinite(ours) else ""
            shown = f"{seconds:.1f} | {ratio} | {steps:,.0f}" if np.isfinite(seconds) else "— | | —"
            lines.append(f"| {env_id} | {LABELS[algo]} | {reached} | {shown} |")
    return "\n".join(lines)


def scores(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Normalised scores ``[n_seeds, n_environments]`` of each algorithm, over the environments that all were run on with
    ``FEWEST_SEEDS`` or more.

    Empty if these are fewer than ``FEWEST_ENVS``.
    """
    counts = rows.pivot_table(index="env", columns="algo", values="seed", aggfunc="count").dropna()
    counts = counts[counts.min(axis="columns") >= FEWEST_SEEDS]
    if len(counts) < FEWEST_ENVS or len(counts.columns) < 2:
        return {}
    n_seeds = int(counts.min().min())
    found: dict[str, list[np.ndarray]] = {algo: [] for algo in LABELS if algo in counts.columns}
    for env_id in counts.index:
        low, high = random_return(env_id), threshold(env_id)
        assert np.isfinite(high), f"{env_id} has no reward threshold: give it one in SOLVED of learning.py"
        for algo, columns in found.items():
            own = rows[(rows["env"] == env_id) & (rows["algo"] == algo)].sort_values("seed")["return_mean"].to_numpy()
            columns.append((own[:n_seeds] - low) / (high - low))
    return {algo: np.stack(columns, axis=1) for algo, columns in found.items()}


def aggregate_table(by_algo: dict[str, np.ndarray]) -> str:
    """Interquartile mean of each algorithm, and how likely a run of REINFORCE is better than one of it."""
    from rliable import library, metrics

    if not by_algo:
        return ""
    np.random.seed(SEED)  # the generator that rliable's resampling takes, whatever it is given
    warnings.filterwarnings("ignore", "random_state is deprecated", FutureWarning)  # of how rliable calls arch
    iqm, iqm_bounds = library.get_interval_estimates(by_algo, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=REPETITIONS)
    pairs = {algo: (by_algo["reinforce"], other) for algo, other in by_algo.items() if algo != "reinforce"}
    better, better_bounds = library.get_interval_estimates(pairs, metrics.probability_of_improvement, reps=REPETITIONS)
    n_seeds, n_envs = by_algo["reinforce"].shape
    runs = f"{n_envs} environments × {n_seeds} seeds"
    lines = [
        f"Over the environments on which all were run with {FEWEST_SEEDS} seeds or more, on a scale where random actions",
        "have 0 and the environment's threshold 1 (rliable; Agarwal et al. 2021):\n",
    ]
    lines += [f"| {runs} | interquartile mean | REINFORCE is better with probability, ties half |", "|---|---|---|"]
    for algo in by_algo:
        low, high = iqm_bounds[algo][:, 0]
        cell = ""
        if algo in better:
            below, above = np.ravel(better_bounds[algo])
            cell = f"{float(np.ravel(better[algo])[0]):.2f} ({below:.2f} to {above:.2f})"
        lines.append(f"| {LABELS[algo]} | {iqm[algo][0]:.2f} ({low:.2f} to {high:.2f}) | {cell} |")
    if n_seeds < ENOUGH_SEEDS:
        lines.append(f"\nOf {n_seeds} seeds, the intervals say little.")
    lines.append("\n[Performance profiles](benchmarks/results/profiles.png) show the share of runs above each score.")
    return "\n".join(lines)


def profiles_chart(by_algo: dict[str, np.ndarray], path: Path) -> None:
    """Share of runs above each score."""
    from rliable import library

    np.random.seed(SEED)
    taus = np.linspace(0, 1.3, 53)
    shares, bounds = library.create_performance_profile(by_algo, taus, reps=REPETITIONS)
    figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for algo, share in shares.items():
        axis.plot(taus, share, color=COLOURS[algo], label=LABELS[algo], linewidth=2.2 if algo == "reinforce" else 1.4)
        axis.fill_between(taus, *bounds[algo], color=COLOURS[algo], alpha=0.12)
    axis.set(xlabel="score (0: random actions, 1: solved)", ylabel="share of runs above it", ylim=(0, 1.02), xlim=(0, 1.3))
    axis.grid(True, color="0.92")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def mean_curve(curves: list[pd.DataFrame]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Mean over runs and its interval, where all runs have points, on a grid of 100: steps, and the median seconds there."""
    grid = np.geomspace(max(c["steps"].iloc[0] for c in curves), min(c["steps"].iloc[-1] for c in curves), 100)
    seconds = np.median([np.interp(grid, c["steps"], c["seconds"]) for c in curves], axis=0)
    values = np.array([np.interp(grid, c["steps"], c["return_mean"]) for c in curves])
    resampled = np.random.default_rng(SEED).choice(values, size=(500, len(values)), axis=0).mean(1)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return {"steps": grid, "seconds": seconds}, values.mean(0), low, high


def curves_chart(curves: pd.DataFrame, path: Path) -> None:
    """Training returns of each environment against steps, above, and against seconds, below."""
    env_ids = list(dict.fromkeys(curves["env"]))
    n_columns = min(4, len(env_ids))
    n_blocks = -(-len(env_ids) // n_columns)
    figure, axes = plt.subplots(
        2 * n_blocks, n_columns, figsize=(3.3 * n_columns + 0.4, 4.6 * n_blocks + 0.5), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_visible(False)
    for i, env_id in enumerate(env_ids):
        block, column = divmod(i, n_columns)
        for k, x in enumerate(("steps", "seconds")):
            axis = axes[2 * block + k, column]
            axis.set_visible(True)
            for algo in (algo for algo in LABELS if algo in set(curves["algo"])):
                own = curves[(curves["env"] == env_id) & (curves["algo"] == algo)]
                runs = [run for _, run in own.groupby("seed") if len(run) > 1]
                if not runs:
                    continue
                grids, mean, low, high = mean_curve(runs)
                axis.plot(grids[x], mean, color=COLOURS[algo], label=LABELS[algo], linewidth=2 if algo == "reinforce" else 1.3)
                axis.fill_between(grids[x], low, high, color=COLOURS[algo], alpha=0.15, linewidth=0)
            axis.set(xlabel=x, xscale="log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(True, color="0.92")
            if k == 0:
                axis.set_title(env_id, fontsize=10)
            if column == 0:
                axis.set_ylabel("return in training")
    handles = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=min(len(handles), 2 * n_columns), frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS / "learning.csv")
    args = parser.parse_args()

    rows, curves = load(args.results), load(args.results.with_name(f"{args.results.stem}_curves.csv"))
    curves_chart(curves, args.results.with_name("learning_curves.png"))
    by_algo = scores(rows)
    tables = {
        "results": results_table(rows, pd.read_csv(QUOTED)),
        "threshold": threshold_table(rows),
        "aggregate": aggregate_table(by_algo),
    }
    if by_algo:
        profiles_chart(by_algo, args.results.with_name("profiles.png"))
    for name, table in tables.items():
        show(name, table, args.results)


if __name__ == "__main__":
    main()
