"""Tables and pictures of runs: what each algorithm learned, how surely, and how soon.

All are functions of tables. ``rows`` has a line for each run: ``algo``, ``env``, ``seed``, ``steps``, ``return_mean`` and
``return_std`` over ``n_episodes`` of the last model, ``held`` (steps of the environment that one action takes), ``threshold``
and ``random_return`` of the environment (NaN: not known), ``steps_to_threshold`` and ``seconds_to_threshold`` (NaN: never),
the ``command`` and the ``cpu``. ``curves`` has a line for each point of a run's learning curve: ``algo``, ``env``, ``seed``,
``steps``, ``seconds``, ``return_mean``, and ``n_episodes``, how many returns that is the mean of. Algorithms and environments
are in the order of ``rows``, and the first algorithm is what the others are compared with.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, EngFormatter, LogLocator, NullFormatter

from sb3_reinforce.zoo import records, statistics
from sb3_reinforce.zoo.statistics import Estimate, Scores

LABELS = {
    "reinforce": "REINFORCE",
    "crossq": "CrossQ",
    "qrdqn": "QR-DQN",
    "ppo_lstm": "PPO LSTM",
    "reinforce_mask": "REINFORCE masked",
    "reinforce_lstm": "REINFORCE LSTM",
}
LABELS |= {name: name.upper() for name in ("a2c", "ppo", "trpo", "ars", "ddpg", "td3", "sac", "tqc", "dqn")}
COLOURS = {"reinforce": "#c1272d", "a2c": "#0072b2", "ppo": "#56b4e9", "trpo": "#009e73", "ars": "#e69f00"}
MORE_COLOURS = ("#cc79a7", "#332288", "#999933", "#882255", "#44aa99", "#661100", "#6699cc", "#888888")
#: Fewer environments than this are not worth an aggregate.
FEWEST_ENVS = 3
#: An environment on which some algorithm has fewer seeds than this is no part of it.
FEWEST_SEEDS = 3
#: With fewer seeds than this, the bootstrap has hardly anything to draw from.
ENOUGH_SEEDS = 5
#: None of REINFORCE's hyperparameters that ship was chosen on this seed or a greater one.
FRESH_SEED = 1000
#: Where an environment names no threshold: this share of the way from random actions to the best algorithm.
TARGET = 0.75


def label(algo: str) -> str:
    return LABELS.get(algo, algo)


def in_order(values: "pd.Series[Any]") -> list[str]:
    """Each once, in order of the first."""
    return list(dict.fromkeys(values))


def colours(algos: Sequence[str]) -> dict[str, str]:
    others = [algo for algo in algos if algo not in COLOURS]
    return COLOURS | {algo: MORE_COLOURS[i % len(MORE_COLOURS)] for i, algo in enumerate(others)}


def number(value: float, scale: float = np.inf) -> str:
    """Two or three digits of numbers of this scale, and a true minus."""
    digits = 0 if scale >= 10 else 2 if scale >= 1 else 3
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def steps_of(steps: float) -> str:
    if steps < 10_000:
        return f"{steps:,.0f}"
    return f"{steps / 1e6:.3g}M" if steps >= 999_500 else f"{steps / 1e3:.0f}k"


def results_table(rows: pd.DataFrame, quoted: pd.DataFrame | None = None, algos: Sequence[str] | None = None) -> str:
    """Environment by algorithm: mean over seeds, its interval or, of five seeds or fewer, the returns themselves; number
    of seeds and steps, and for how many an action is held. Quoted where not run.

    :param quoted: what others have measured: ``algo``, ``env``, ``return_mean``, ``return_std``, and ``steps`` as text
    :param algos: the columns; None: those of ``rows``
    """
    quoted = pd.DataFrame(columns=["algo", "env"]) if quoted is None else quoted
    algos = in_order(rows["algo"]) if algos is None else algos
    lines = ["| | " + " | ".join(map(label, algos)) + " |", "|---" * (len(algos) + 1) + "|"]
    for env_id in in_order(rows["env"]):
        scale = rows[rows["env"] == env_id]["return_mean"].abs().median()  # a run that diverged hides no digits of the others
        cells = []
        for algo in algos:
            own = rows[(rows["env"] == env_id) & (rows["algo"] == algo)]
            theirs = quoted[(quoted["env"] == env_id) & (quoted["algo"] == algo)]
            if len(own):
                returns = own["return_mean"].to_numpy()
                low, high = statistics.interval(returns)
                spread = f"{number(low, scale)} to {number(high, scale)}"
                if len(own) <= 5:
                    spread = ", ".join(number(value, scale) for value in sorted(returns))
                spread = f" ({spread})" if len(own) > 1 else ""
                held = int(own["held"].iloc[0])
                steps = steps_of(own["steps"].median()) + (f", held {held}" if held > 1 else "")
                cells.append(f"**{number(returns.mean(), scale)}**{spread}, {len(own)} × {steps}")
            elif len(theirs):
                row = theirs.iloc[0]
                cells.append(f"*{number(row['return_mean'])} ± {number(row['return_std'])}, {row['steps']}*")
            else:
                cells.append("")
        lines.append(f"| {env_id} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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


def profiles_chart(by_algo: Scores, path: Path) -> None:
    """Share of runs above each score."""
    every = np.concatenate([values.ravel() for values in by_algo.values()])
    # A run that diverged would leave no room for the others.
    taus = np.linspace(max(-1.0, min(0.0, every.min())), min(2.0, max(1.05, every.max() + 0.05)), 101)
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


def cautions(rows: pd.DataFrame, settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is to be known of a comparison before its numbers are believed.

    :param settings: all arguments of each ``algorithm on environment``, as ``settings.json`` has them
    """
    found = []
    algos, env_ids = _asked(settings, rows)
    counts = rows.groupby(["algo", "env"]).size()
    for env_id in env_ids:
        here = rows[rows["env"] == env_id]
        have = {algo: int(counts.get((algo, env_id), 0)) for algo in algos}
        have = {algo: count for algo, count in have.items() if count or not settings or f"{algo} on {env_id}" in settings}
        most = max(have.values())
        if most == 0:
            found.append(f"{env_id}: no run was finished.")
            continue
        missing = [f"{label(algo)} has {count}" for algo, count in have.items() if count < most]
        if missing:
            found.append(f"{env_id}: of {most} runs, {', '.join(missing)}: the others have failed, or were not run.")
        steps = here.groupby("algo")["steps"].median()
        if steps.max() > 1.1 * steps.min():
            taken = ", ".join(f"{label(algo)} {steps_of(steps[algo])}" for algo in algos if algo in steps)
            remedy = "A greater `-n` makes them more alike" if here["budget"].all() else "`-n` makes them alike"
            found.append(f"{env_id}: numbers of steps differ ({taken}). {remedy}.")
        wrappers = {algo: _wrappers(settings.get(f"{algo} on {env_id}", {})) for algo in algos if algo in steps}
        own = ", ".join(f"{label(algo)}: {names or 'none'}" for algo, names in wrappers.items())
        if len(set(wrappers.values())) > 1:
            found.append(
                f"{env_id}: environment wrappers differ ({own}). `--same-wrappers` or `--no-wrappers` make them equal."
            )
        elif any(wrappers.values()):
            found.append(f"{env_id}: environment wrappers are the same for all: {next(iter(wrappers.values()))}.")
        kwargs = {algo: str(settings.get(f"{algo} on {env_id}", {}).get("env_kwargs") or "none") for algo in wrappers}
        if len(set(kwargs.values())) > 1:
            own = ", ".join(f"{label(algo)}: {each}" for algo, each in kwargs.items())
            found.append(f"{env_id}: `env_kwargs` differ ({own}), so the environments are not the same.")
        normalizing = {algo: bool(settings.get(f"{algo} on {env_id}", {}).get("normalize")) for algo in wrappers}
        if len(set(normalizing.values())) > 1:
            with_it, without = (", ".join(label(a) for a, does in normalizing.items() if does is w) for w in (True, False))
            found.append(f"{env_id}: `normalize` is among the hyperparameters of {with_it}, and not of {without}.")
        others = here[(here["entry"] != env_id) & (here["entry"] != "atari")].drop_duplicates("algo")
        for entry, those in others.groupby("entry", sort=False):
            has, takes = ("has", "takes") if len(those) == 1 else ("have", "take")
            names = ", ".join(map(label, those["algo"]))
            found.append(f"{env_id}: {names} {has} no hyperparameters for it, and {takes} those of `{entry}`.")
    for env_id in in_order(rows["env"]):
        here = rows[rows["env"] == env_id]
        found += [*_cautions_of_evaluation(here), *_cautions_of_scale(here)]
    tuned = rows[rows["algo"].str.startswith("reinforce") & (rows["entry"] == rows["env"]) & (rows["seed"] < FRESH_SEED)]
    tuned = tuned[~tuned["command"].str.contains("--conf-file")]
    if len(tuned):
        found.append(
            f"{', '.join(in_order(tuned['env']))}: REINFORCE's hyperparameters were chosen on some of the seeds below "
            f"{FRESH_SEED}. `--first-seed {FRESH_SEED}` takes others."
        )
    n_seeds = int(counts.max())
    if n_seeds < ENOUGH_SEEDS:
        found.append(
            f"Of {n_seeds} {'seeds' if n_seeds > 1 else 'seed'}, intervals say little: {ENOUGH_SEEDS} or more are better."
        )
    for column, what in (("cpu", "machines, so that seconds do not compare"), ("versions", "versions")):
        if rows[column].nunique() > 1:
            found.append(f"Rows are of {rows[column].nunique()} {what}.")
    return found


def _cautions_of_evaluation(here: pd.DataFrame) -> list[str]:
    """Whether the episodes of an evaluation are too few, beside how far the algorithms are apart.

    :param here: rows of one environment
    """
    error = float((here["return_std"] / np.sqrt(here["n_episodes"])).median())
    means = here.groupby("algo")["return_mean"].mean()
    apart = float(means.max() - means.min())
    if len(means) < 2 or 4 * error <= apart:
        return []
    env_id, n_episodes = here["env"].iloc[0], int(here["n_episodes"].iloc[0])
    return [
        f"{env_id}: a model's mean over {n_episodes} episodes has a standard error of {number(error, error)}, and the "
        f"algorithms' means are {number(apart, apart)} apart or less. `--eval-episodes` takes more than {n_episodes}."
    ]


def _cautions_of_scale(here: pd.DataFrame) -> list[str]:
    """What is to be known of the scores on an environment.

    :param here: its rows
    """
    env_id, random, scale = here["env"].iloc[0], here["random_return"].iloc[0], statistics.scale(here)
    found = []
    if not scale.from_random:
        best = "the best algorithm" if np.isnan(here["threshold"].iloc[0]) else "its threshold"
        known = f"random actions have {number(random, abs(random))}, and {best} {number(scale.high, abs(scale.high))}"
        known = "the return of random actions is not known" if np.isnan(random) else known
        found.append(f"{env_id}: {known}, so that the worst run has the score 0.")
    if not scale.is_one:
        found.append(f"{env_id}: no run is worse than another, so that there are no scores.")
    return found


def _asked(settings: Mapping[str, Any], rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Algorithms and environments that were asked for, in this order, whether or not a run of theirs was finished."""
    pairs = [key.split(" on ", 1) for key in settings]
    algos = dict.fromkeys([*(algo for algo, _ in pairs), *rows["algo"]])
    env_ids = dict.fromkeys([*(env_id for _, env_id in pairs), *rows["env"]])
    return list(algos), list(env_ids)


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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def load(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Rows, curves and settings of a comparison, algorithms and environments in the order they were asked for.

    :raises ValueError: if a file is not whole or of something else
    :raises OSError: if one is missing
    """
    settings = records.read_json(folder / "settings.json")
    rows, curves = _table(folder / "results.csv"), _table(folder / "curves.csv")
    algos, env_ids = _asked(settings, rows)
    places = {"algo": algos.index, "env": env_ids.index, "seed": int}
    rows = rows.sort_values(list(places), key=lambda column: column.map(places[column.name]), kind="stable")
    # A run that was made again has two rows, and one that was interrupted after its curve was written has that twice.
    rows = rows.drop_duplicates(["algo", "env", "seed"], keep="last").reset_index(drop=True)
    return rows, _last_curves(curves), settings


def _last_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Of each run, the curve that was written last: its steps begin anew."""
    run = ["algo", "env", "seed"]
    curves = curves.assign(curve=curves.groupby(run)["steps"].transform(lambda steps: (steps.diff() <= 0).cumsum()))
    return curves[curves["curve"] == curves.groupby(run)["curve"].transform("max")].drop(columns="curve")


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise ValueError(f"there is no {path}: delete results.csv as well, and the same command makes both from `runs/`")
    found = records.read(path) or [{}]
    if not {"algo", "env", "seed", "steps", "return_mean"} <= found[0].keys():
        raise ValueError(f"{path} has no rows of a comparison")
    return pd.read_csv(path, dtype=dict.fromkeys(records.TEXTS, str))


def write(folder: Path) -> None:
    """``report.md``, ``curves.png`` and ``profiles.png`` of a comparison's folder.

    :raises ValueError: if a file of the folder is not whole or of something else
    :raises OSError: if one is missing, or cannot be written
    """
    rows, curves, settings = load(folder)
    algos = in_order(rows["algo"])
    curves_chart(curves, algos, folder / "curves.png")
    aggregated = statistics.scores(rows, algos, FEWEST_ENVS, FEWEST_SEEDS)
    shown = aggregated or statistics.scores(rows, algos)
    if shown:
        profiles_chart(shown, folder / "profiles.png")
    text = _markdown(rows, with_targets(rows, curves), settings, aggregated, shown)
    records.replace(folder / "report.md", text)


def _markdown(
    rows: pd.DataFrame, reached: pd.DataFrame, settings: Mapping[str, Any], aggregated: Scores, shown: Scores
) -> str:
    """The report.

    :param reached: the rows, with thresholds and when they were reached
    :param aggregated: scores that are worth an aggregate; empty if there are none
    :param shown: scores that the picture shows
    """
    algos, env_ids = _asked(settings, rows)
    parts = [f"# {', '.join(map(label, algos))} on {', '.join(env_ids)}"]
    env_ids = [env_id for env_id in env_ids if env_id in set(rows["env"])]
    found = cautions(rows, settings)
    if found:
        parts += ["## Before you believe it", "\n".join(f"- {line}" for line in found)]
    parts += [
        "## What was learned",
        f"Mean over seeds of the return of the last model, with deterministic actions, over {int(rows['n_episodes'].iloc[0])} "
        "episodes; in brackets the 95 % bootstrap interval of the mean or, of five seeds or fewer, each seed's return; seeds "
        "× steps of the environment, those of finished episodes.",
        results_table(rows),
        "![Learning curves](curves.png)",
        "Mean return in training over seeds with its 95 % interval, against steps, above, and seconds, below.",
    ]
    parts += _how_soon(rows, reached, env_ids)
    parts.append("## Over all environments")
    n_seeds, n_envs = int(rows.groupby(["algo", "env"]).size().min()), len(env_ids)
    if shown:
        n_seeds, n_envs = next(iter(shown.values())).shape
    size = f"{_count(n_envs, 'environment')} × {_count(n_seeds, 'seed')}"
    parts.append(
        aggregate_table(aggregated)
        or f"No interquartile mean and no probability of improvement: they need at least {FEWEST_ENVS} environments × "
        f"{FEWEST_SEEDS} seeds and 2 algorithms, whose runs differ. This comparison has {size} and "
        f"{_count(len(algos), 'algorithm')}."
    )
    if shown and rows["threshold"].isna().any():
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


def _how_soon(rows: pd.DataFrame, reached: pd.DataFrame, env_ids: Sequence[str]) -> list[str]:
    """The report's part on thresholds; none if no environment has one, or no algorithm two seeds.

    :param reached: the rows, with thresholds and when they were reached
    """
    targets = []
    for env_id in env_ids:
        here, value = rows[rows["env"] == env_id], reached[reached["env"] == env_id]["threshold"].iloc[0]
        if np.isnan(value):
            continue
        named = number(value, abs(value))
        own = not np.isnan(here["threshold"].iloc[0])
        start = "random actions" if statistics.scale(here).from_random else "the worst run"
        targets.append(
            f"- {env_id}: {named}, its own threshold."
            if own
            else f"- {env_id}: {named}. The environment names no threshold, so this is {TARGET:.0%} of the way from {start} "
            "to the best algorithm."
        )
    table = threshold_table(reached)
    if not targets or table.count("\n") < 2:
        return []
    return [
        "## How soon",
        f"Medians over seeds of when the mean return of {statistics.WINDOW} training episodes first reached:",
        "\n".join(targets),
        table,
        "— where half of the seeds or more never did.",
    ]
