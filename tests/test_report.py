"""The report says what the rows say, and no more."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("rliable")
pytest.importorskip("rl_zoo3")

from sb3_reinforce import zoo  # noqa: E402
from sb3_reinforce.zoo import names, report, statistics, tables  # noqa: E402
from sb3_reinforce.zoo.cautions import cautions  # noqa: E402

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PAGES = [BENCHMARKS / "README.md", BENCHMARKS.parent / "README.md"]


@pytest.fixture
def preset(monkeypatch):
    """The program that makes the report of the pages."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("report")


def rows(env="CartPole-v1", held=1, threshold=475.0, random_return=25.0, **returns_by_algo):
    """Runs on CartPole-v1, say, which has a threshold of 475 and where random actions reach about 25."""
    return pd.DataFrame(
        [
            {
                "algo": algo,
                "env": env,
                "seed": seed,
                "budget": 0,
                "settings": "a",
                "resolved": "b",
                "steps": 50_000,
                "seconds": 10.0,
                "return_mean": value,
                "return_std": 0.0,
                "n_episodes": 20,
                "steps_to_threshold": 30_000 if value >= threshold else np.nan,
                "seconds_to_threshold": 5.0 if value >= threshold else np.nan,
                "entry": env,
                "held": held,
                "threshold": threshold,
                "random_return": random_return,
                "versions": "python=3",
                "command": "sb3-reinforce train --algo reinforce",
                "cpu": "one",
                "commit": "c",
            }
            for algo, values in returns_by_algo.items()
            for seed, value in enumerate(values)
        ]
    )


def curve(*points, **key):
    """Points of a learning curve: steps, seconds and return of each, which is the mean of 20 episodes."""
    return pd.DataFrame(points, columns=["steps", "seconds", "return_mean"]).assign(**{"n_episodes": 20, **key})


def test_what_was_not_run_has_an_empty_cell():
    table = tables.results_table(rows(reinforce=[400, 500], a2c=[300, 300]), ["reinforce", "a2c", "trpo"])
    header, _, line = table.splitlines()
    assert header == "| | REINFORCE | A2C | TRPO |"
    assert line == "| CartPole-v1 | **450** (400, 500), 2 × 50k | **300** (300, 300), 2 × 50k |  |"


def test_the_table_says_where_actions_are_held():
    """Else the settings that hold them would pass for the environment as it is."""
    held, not_held = rows(reinforce=[-110, -108], held=16), rows(a2c=[-120, -120])
    *_, line = tables.results_table(pd.concat([held, not_held])).splitlines()
    assert line == "| CartPole-v1 | **−109** (−110, −108), 2 × 50k, held 16 | **−120** (−120, −120), 2 × 50k |"


def test_small_returns_are_not_rounded_away():
    *_, line = tables.results_table(rows(reinforce=[0.25, 0.5], a2c=[-0.125])).splitlines()
    assert line == "| CartPole-v1 | **0.375** (0.250, 0.500), 2 × 50k | **−0.125**, 1 × 50k |"


def test_a_run_that_never_reached_the_threshold_counts_as_slow():
    """Else an algorithm would look the faster, the fewer of its runs succeed."""
    table = tables.threshold_table(rows(reinforce=[500, 500, 500], a2c=[500, 100, 100]))
    assert "| REINFORCE | 3 of 3 | 5.0 |  | 30,000 |" in table
    assert "| A2C | 1 of 3 | — | | — |" in table


def test_scores_are_0_for_random_actions_and_1_at_the_threshold():
    three = pd.concat([rows(env, reinforce=[475] * 3, a2c=[25] * 3) for env in "abc"], ignore_index=True)
    scores = statistics.scores(three, ["reinforce", "a2c"])
    np.testing.assert_allclose(scores["reinforce"], np.ones((3, 3)))
    np.testing.assert_allclose(scores["a2c"], np.zeros((3, 3)))


def test_scores_where_the_environment_names_no_threshold():
    """1 is the best algorithm's mean; 0 is the worst run where random actions are not known; no score where all are alike."""
    unnamed = rows("a", threshold=np.nan, random_return=0.0, reinforce=[3, 5], a2c=[2, 2])
    unknown = rows("b", threshold=np.nan, random_return=np.nan, reinforce=[3, 5], a2c=[2, 2])
    alike = rows("c", threshold=np.nan, random_return=np.nan, reinforce=[1, 1], a2c=[1, 1])
    worse = rows("d", threshold=np.nan, random_return=9.0, reinforce=[3, 5], a2c=[2, 2])
    scores = statistics.scores(pd.concat([unnamed, unknown, alike, worse]), ["reinforce", "a2c"])
    np.testing.assert_allclose(scores["reinforce"], [[0.75, 0.5, 0.5], [1.25, 1.5, 1.5]])
    np.testing.assert_allclose(scores["a2c"], [[0.5, 0, 0], [0.5, 0, 0]])


def test_an_environment_with_few_seeds_does_not_take_those_of_the_others():
    whole = [rows(env, reinforce=[0] * 4, a2c=[0] * 3) for env in "abc"]
    mixed = pd.concat([*whole, rows("d", reinforce=[0] * 4, a2c=[0])], ignore_index=True)
    scores = statistics.scores(mixed, ["reinforce", "a2c"], fewest_envs=3, fewest_seeds=3)
    assert scores["reinforce"].shape == scores["a2c"].shape == (3, 3)


def test_one_environment_is_no_aggregate():
    scores = statistics.scores(rows(reinforce=[475] * 3, a2c=[400] * 3), ["reinforce", "a2c"], tables.FEWEST_ENVS)
    assert scores == {}
    assert tables.aggregate_table(scores) == ""


def test_aggregates_compare_every_algorithm_with_the_first(monkeypatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 20)
    scores = {"reinforce": np.full((4, 2), 1.0), "a2c": np.full((4, 2), 0.5)}
    table = tables.aggregate_table(scores)
    assert "| 2 environments × 4 seeds |" in table
    assert "Of 4 seeds, the intervals say little." in table
    assert "| REINFORCE | 1.00 (1.00 to 1.00) |  |" in table
    assert "| A2C | 0.50 (0.50 to 0.50) | 1.00 (1.00 to 1.00) |" in table


def test_aggregates_by_hand(monkeypatch):
    """The interquartile mean leaves out a quarter on either side; ties count half; and the same numbers come twice."""
    monkeypatch.setattr(statistics, "REPETITIONS", 20)
    scores = {"a": np.array([[0.0], [1.0], [2.0], [9.0]]), "b": np.array([[0.0], [0.0], [2.0], [3.0]])}
    means, better = statistics.interquartile_means(scores), statistics.improvements(scores)
    assert means["a"].value == 1.5
    assert means["b"].value == 1.0
    # Of 16 pairs, 0, 1, 2 and 9 win 0, 2, 2 and 4 times and tie 2, 0, 1 and 0 times.
    assert better["b"].value == pytest.approx((8 + 3 / 2) / 16)
    assert better["b"].low <= better["b"].value <= better["b"].high
    assert (means, better) == (statistics.interquartile_means(scores), statistics.improvements(scores))


def test_where_no_threshold_is_named_the_curves_say_how_soon():
    """Three quarters of the way from random actions to the best mean, at the first point of a run's curve that is there."""
    runs = rows("own", threshold=np.nan, random_return=0.0, reinforce=[8, 8], a2c=[1, 1])
    points = [
        curve((10, 0.5, 5), (20, 1.0, 6), (30, 1.5, 7), algo="reinforce", env="own", seed=0),
        curve((10, 0.5, 7), algo="reinforce", env="own", seed=1),
        curve((10, 0.5, 5.9), algo="a2c", env="own", seed=0),
    ]
    reached = tables.with_targets(runs, pd.concat(points))
    assert list(reached["threshold"]) == [6.0] * 4
    np.testing.assert_array_equal(reached["steps_to_threshold"], [20, 10, np.nan, np.nan])
    np.testing.assert_array_equal(reached["seconds_to_threshold"], [1.0, 0.5, np.nan, np.nan])
    assert "| own | REINFORCE | 2 of 2 | 0.8 |  | 15 |" in tables.threshold_table(reached)
    assert runs["threshold"].isna().all()
    pd.testing.assert_frame_equal(tables.with_targets(rows(a=[1]), pd.DataFrame()), rows(a=[1]))


def test_a_threshold_is_reached_by_the_mean_of_twenty_returns_or_more():
    """Not by a point of a curve that is one lucky episode."""
    points = curve(*((10 * i, float(i), value) for i, value in enumerate([9, 0, 4, 8, 8, 8], 1)))
    points["n_episodes"] = [1, 15, 4, 1, 10, 10]
    # Of twenty episodes or more: from the 3rd point back, (9 + 0 + 16) / 20; (0 + 16 + 8) / 20; (16 + 8 + 80 + 0) / 30; 8.
    assert statistics.steps_to(points, 1.25) == (30, 3.0)
    assert statistics.steps_to(points, 1.26) == (50, 5.0)
    assert statistics.steps_to(points, 3.5) == (60, 6.0)
    assert statistics.steps_to(points, 8.1) == (np.inf, np.inf)
    assert statistics.steps_to(points, np.nan) == (np.inf, np.inf)
    assert statistics.steps_to(points[:2], 0.0) == (np.inf, np.inf)
    assert statistics.steps_to(points[:0], 0.0) == (np.inf, np.inf)


def test_mean_curve_is_of_where_all_runs_have_points():
    curves = [curve((10, 1, 0), (40, 4, 30)), curve((20, 4, 20), (80, 16, 80))]
    mean = statistics.mean_curve(curves, n_points=2)
    np.testing.assert_allclose(mean.steps, [20, 40])
    np.testing.assert_allclose(mean.seconds, [3, 6])
    np.testing.assert_allclose(mean.mean, [15, 35])
    assert statistics.mean_curve([curve((10, 1, 0), (20, 4, 3)), curve((20, 4, 20), (80, 16, 80))]) is None


def test_cautions_of_a_fair_comparison_are_none():
    fair = rows(reinforce=[1] * 5, a2c=[2] * 5)
    fair["seed"] += 1000
    assert cautions(fair, {}) == []


def test_cautions_name_what_is_not_equal():
    unfair = pd.concat(
        [
            rows(reinforce=[1] * 3).assign(steps=10_000),
            rows(a2c=[1] * 2).assign(entry="default", cpu="another"),
        ]
    )
    wrapper = {"env_wrapper": [{"rl_zoo3.wrappers.FrameSkip": {"skip": 2}}]}
    assert cautions(unfair, {"reinforce on CartPole-v1": wrapper}) == [
        "CartPole-v1: of 3 runs, A2C has 2: the others have failed, or were not run.",
        "CartPole-v1: numbers of steps differ (REINFORCE 10k, A2C 50k). `-n` makes them alike.",
        "CartPole-v1: environment wrappers differ (REINFORCE: FrameSkip({skip: 2}), A2C: none). "
        "`--same-wrappers` or `--no-wrappers` make them equal.",
        "CartPole-v1: A2C has no hyperparameters for it, and takes those of `default`.",
        "CartPole-v1: REINFORCE's hyperparameters were chosen on some of the seeds below 1000. `--first-seed 1000` takes "
        "others.",
        "Of 3 seeds, intervals say little: 5 or more are better.",
        "Rows are of 2 machines, so that seconds do not compare.",
    ]


def test_what_is_normalized_or_wrapped_for_some_is_named():
    several = rows(reinforce=[1] * 5, a2c=[2] * 5, ppo=[3] * 5)
    several["seed"] += 1000
    settings = {f"{algo} on CartPole-v1": {} for algo in ("reinforce", "a2c", "ppo")}
    settings["reinforce on CartPole-v1"] = {
        "normalize": "dict(norm_reward=False)",
        "vec_env_wrapper": ["stable_baselines3.common.vec_env.VecMonitor"],
    }
    assert cautions(several, settings) == [
        "CartPole-v1: environment wrappers differ (REINFORCE: VecMonitor, A2C: none, PPO: none). `--same-wrappers` or "
        "`--no-wrappers` make them equal.",
        "CartPole-v1: `normalize` is among the hyperparameters of REINFORCE, and not of A2C, PPO.",
    ]
    assert cautions(several, dict.fromkeys(settings, settings["reinforce on CartPole-v1"])) == [
        "CartPole-v1: environment wrappers are the same for all: VecMonitor."
    ]


def test_zero_has_no_minus():
    assert [names.number(value) for value in (-0.06, -0.6, 0.4)] == ["0", "−1", "0"]


def test_seconds_of_different_machines_are_not_compared():
    several = rows(reinforce=[500, 500], a2c=[500, 500], ppo=[500, 500])
    several.loc[several["algo"] == "ppo", "cpu"] = "another"
    table = tables.threshold_table(several)
    assert "| CartPole-v1 | A2C | 2 of 2 | 5.0 | 1.0 | 30,000 |" in table
    assert "| CartPole-v1 | PPO | 2 of 2 | 5.0 |  | 30,000 |" in table


def test_evaluations_that_are_too_short_to_tell_algorithms_apart_are_named():
    """A standard error of more than a quarter of the way from the worst algorithm's mean to the best's."""
    noisy = rows("Own-v0", reinforce=[1] * 5, a2c=[2] * 5, ppo=[1.5] * 5)
    noisy["seed"] += 1000
    assert cautions(noisy.assign(return_std=0.24 * 20**0.5), {}) == []
    noisy["return_std"] = 0.26 * 20**0.5
    assert cautions(noisy, {}) == [
        "Own-v0: a model's mean over 20 episodes has a standard error of 0.260, and the algorithms' means are 1.00 apart or "
        "less. `--eval-episodes` takes more than 20."
    ]
    assert cautions(noisy.assign(n_episodes=40), {}) == []
    assert cautions(noisy[noisy["algo"] == "a2c"], {}) == []


def test_hyperparameters_of_the_users_are_not_said_to_be_ours():
    own = rows(reinforce=[1] * 5).assign(command="sb3-reinforce train --algo reinforce --conf-file mine.yml")
    assert cautions(own, {}) == []


def test_environments_of_other_arguments_are_named():
    several = rows(reinforce=[1] * 5, a2c=[2] * 5)
    several["seed"] += 1000
    settings = {"reinforce on CartPole-v1": {}, "a2c on CartPole-v1": {"env_kwargs": {"bonus": 1.0}}}
    assert cautions(several, settings) == [
        "CartPole-v1: `env_kwargs` differ (REINFORCE: none, A2C: {'bonus': 1.0}), so the environments are not the same."
    ]
    settings["reinforce on CartPole-v1"] = settings["a2c on CartPole-v1"]
    assert cautions(several, settings) == []


def test_a_run_that_diverged_hides_no_digits_of_the_others():
    table = tables.results_table(rows("Own-v0", reinforce=[-2.553, -2.7], ppo=[-2.875, -2.9], a2c=[-22.7, -0.689]))
    assert "**−2.63** (−2.70, −2.55)" in table


@pytest.mark.parametrize(
    ("returns", "threshold", "shown"),
    [
        ([-15.483, -15.691, -16.012], -15.563, ["−15.5", "−15.7", "−16.0", "−15.6"]),
        ([2e-5, 8e-5, 14e-5], 1e-4, ["0.00002", "0.00008", "0.00014", "0.00010"]),
        ([499.8, 492.1, 500.0], 475, ["500", "492", "500", "475"]),
    ],
)
def test_as_many_decimals_as_tell_returns_apart(returns, threshold, shown):
    """And a threshold beside them has as many."""
    reinforce, a2c, ppo = returns
    several = rows("Own-v0", threshold=threshold, reinforce=[reinforce] * 2, a2c=[a2c] * 2, ppo=[ppo] * 2)
    *_, line = tables.results_table(several).splitlines()
    assert re.findall(r"\*\*(.+?)\*\*", line) == shown[:3]
    (named, *_), *_ = (part.splitlines() for part in report._how_soon(several, several, ["Own-v0"])[2:])
    assert named == f"- Own-v0: {shown[3]}, its own threshold."


def test_what_failed_altogether_is_named():
    """An algorithm or an environment without one finished run is part of what was asked for."""
    finished = rows("Own-v0", threshold=np.nan, a2c=[1, 2])
    settings = {f"{algo} on {env}": {} for env in ("Own-v0", "Bad-v0") for algo in ("reinforce", "a2c")}
    assert cautions(finished, settings)[:2] == [
        "Own-v0: of 2 runs, REINFORCE has 0: the others have failed, or were not run.",
        "Bad-v0: no run was finished.",
    ]


def test_what_has_no_scale_is_named():
    """Where nobody is better than random actions, or nobody knows what these get, 0 is the worst run."""
    fresh = [
        rows("Own-v0", threshold=np.nan, random_return=9.0, a2c=[1, 2], reinforce=[3, 4]),
        rows("Dark-v0", threshold=np.nan, random_return=np.nan, a2c=[1, 2], reinforce=[3, 4]),
        rows("Easy-v0", threshold=20.0, random_return=21.0, a2c=[1, 2], reinforce=[3, 4]),
        rows("Flat-v0", threshold=np.nan, random_return=np.nan, a2c=[5, 5], reinforce=[5, 5]),
    ]
    several = pd.concat(fresh).reset_index(drop=True)
    assert [line for line in cautions(several, {}) if "score" in line] == [
        "Own-v0: random actions have 9.00, and the best algorithm 3.50, so that the worst run has the score 0.",
        "Dark-v0: the return of random actions is not known, so that the worst run has the score 0.",
        "Easy-v0: random actions have 21.00, and its threshold 20.00, so that the worst run has the score 0.",
        "Flat-v0: the return of random actions is not known, so that the worst run has the score 0.",
        "Flat-v0: no run is worse than another, so that there are no scores.",
    ]
    curves = pd.concat([curve((10, 1.0, 2.0), algo=row.algo, env=row.env, seed=row.seed) for row in several.itertuples()])
    text = report._markdown(report.Comparison(several, curves, {}, {}), {}, {})
    assert "- Own-v0: 2.88. The environment names no threshold, so this is 75% of the way from the worst run to the" in text
    assert text.count("from the worst run to the best algorithm") == 2


def test_of_curves_that_were_made_again_the_last_counts():
    """Its points are at other steps than those of the first."""
    first, second = (
        curve(*((x, x / 10, v) for x in steps), algo="a2c", env="Own-v0", seed=0)
        for steps, v in (((10, 20, 30), 1), ((11, 21), 2))
    )
    other = curve((5, 1.0, 7.0), (15, 2.0, 7.0), algo="ppo", env="Own-v0", seed=0)
    kept = report._last_curves(pd.concat([first, other, second], ignore_index=True))
    assert kept[["algo", "steps", "return_mean"]].to_numpy().tolist() == [
        ["ppo", 5, 7],
        ["ppo", 15, 7],
        ["a2c", 11, 2],
        ["a2c", 21, 2],
    ]


def test_what_was_not_asked_for_is_not_missed():
    """Of other environments, more seeds were run, and other algorithms."""
    several = pd.concat([rows("Own-v0", a2c=[1] * 5, reinforce=[1] * 5), rows("Other-v0", a2c=[1] * 2)]).assign(
        entry="default"
    )
    settings = {key: {} for key in ("reinforce on Own-v0", "a2c on Own-v0", "a2c on Other-v0")}
    assert not [line for line in cautions(several, settings) if "have failed" in line]


def test_whoever_takes_the_default_is_named_once():
    several = rows("Own-v0", a2c=[1], reinforce=[1], ppo=[1]).assign(entry=["default", "default", "Own-v1"])
    assert [line for line in cautions(several, {}) if "hyperparameters for it" in line] == [
        "Own-v0: A2C, REINFORCE have no hyperparameters for it, and take those of `default`.",
        "Own-v0: PPO has no hyperparameters for it, and takes those of `Own-v1`.",
    ]


def test_wrappers_that_all_have_are_named():
    arguments = {"env_wrapper": [{"rl_zoo3.wrappers.FrameSkip": {"skip": 2}}]}
    settings = {f"{algo} on CartPole-v1": arguments for algo in ("reinforce", "a2c")}
    found = cautions(rows(reinforce=[1] * 5, a2c=[2] * 5), settings)
    assert "CartPole-v1: environment wrappers are the same for all: FrameSkip({skip: 2})." in found


def test_few_given_steps_may_differ():
    """Batches are completed, and episodes that are not finished are not counted."""
    given = pd.concat([rows(reinforce=[1]).assign(steps=3200), rows(a2c=[1]).assign(steps=1600)]).assign(budget=3000)
    differ = "CartPole-v1: numbers of steps differ (REINFORCE 3,200, A2C 1,600). A greater `-n` makes them more alike."
    assert differ in cautions(given, {})


@pytest.mark.parametrize("algos", [("reinforce",), ("reinforce", "sac", "mine")])
def test_a_report_of_little(tmp_path, algos, monkeypatch):
    """One environment and one seed, all given a number of steps: tables and pictures are there, and say how little it is."""
    monkeypatch.setattr(statistics, "REPETITIONS", 20)
    runs = rows("Own-v0", threshold=np.nan, **{algo: [float(i)] for i, algo in enumerate(algos)}).assign(budget=100)
    runs.to_csv(tmp_path / "results.csv", index=False)
    points = [curve((10, 1, 2), (40, 4, 3), algo=algo, env="Own-v0", seed=0) for algo in algos]
    pd.concat(points).to_csv(tmp_path / "curves.csv", index=False)
    report.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "Of 1 seed, intervals say little" in text
    has = "This comparison has" if len(algos) == 1 else "Of this comparison, these can be scored:"
    assert f"{has} 1 environment × 1 seed and {len(algos)} algorithm" in text
    assert ("the mean of the best algorithm here has the score 1." in text) == (len(algos) > 1)
    assert (tmp_path / "curves.png").is_file()
    assert (tmp_path / "profiles.png").is_file() == ("](profiles.png)" in text) == (len(algos) > 1)


def test_an_environment_that_only_one_was_run_on_has_no_scores():
    several = pd.concat([rows("a", reinforce=[475] * 3, a2c=[25] * 3), rows("b", reinforce=[475] * 3)], ignore_index=True)
    shapes = {algo: values.shape for algo, values in statistics.scores(several, ["reinforce", "a2c"]).items()}
    assert shapes == {"reinforce": (3, 1), "a2c": (3, 1)}
    assert statistics.scores(several[several["env"] == "b"], ["reinforce", "a2c"]) == {}


@pytest.mark.parametrize("last", [5.0, 1.0])
def test_environments_without_scores_are_not_spoken_of(tmp_path, last, monkeypatch):
    """There are none where all runs are alike. Only of those that are scored is it said what their score 1 is."""
    monkeypatch.setattr(statistics, "REPETITIONS", 20)
    named = rows("Named-v0", threshold=10.0, random_return=0.0, reinforce=[4.0], a2c=[2.0])
    alike = rows("Alike-v0", threshold=np.nan, random_return=np.nan, reinforce=[1.0], a2c=[last])
    pd.concat([named, alike]).to_csv(tmp_path / "results.csv", index=False)
    points = [
        curve((10, 1, 2), (40, 4, 3), algo=algo, env=env, seed=0) for algo in ("reinforce", "a2c") for env in named["env"]
    ]
    pd.concat(points).to_csv(tmp_path / "curves.csv", index=False)
    report.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    n = "2 environments" if last == 5.0 else "1 environment"
    assert f"Of this comparison, these can be scored: {n} × 1 seed and 2 algorithms." in text
    assert ("the mean of the best algorithm here has the score 1." in text) == (last == 5.0)


def test_a_report_of_enough(tmp_path, monkeypatch):
    """Three environments and three seeds are aggregated; the order is that of the command, not of the rows."""
    monkeypatch.setattr(statistics, "REPETITIONS", 20)
    runs = pd.concat([rows(env, a2c=[300, 400, 500], reinforce=[475, 500, 480]) for env in "abc"])
    runs.to_csv(tmp_path / "results.csv", index=False)
    curve((10, 1, 2), (40, 4, 3), algo="a2c", env="a", seed=0).to_csv(tmp_path / "curves.csv", index=False)
    (tmp_path / "settings.json").write_text('{"reinforce on c": {}, "a2c on c": {}, "reinforce on a": {}, "a2c on a": {}}')
    report.write(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# REINFORCE, A2C on c, a, b\n")
    assert "| 3 environments × 3 seeds | interquartile mean | REINFORCE is better with probability, ties half |" in text
    assert "names no threshold" not in text


def test_results_of_other_hyperparameters_are_left_out(preset, tmp_path, monkeypatch):
    monkeypatch.setattr(preset, "is_current", lambda algo, env, digest: {"reinforce": "b", "a2c": "a"}[algo] == digest)
    monkeypatch.setattr(
        preset, "reported", lambda n_steps: [(algo, "CartPole-v1", seed) for algo in ("reinforce", "a2c") for seed in (0, 1)]
    )
    newer, older = rows(reinforce=[300]).assign(settings="b"), rows(reinforce=[100, 100], a2c=[200, 200])
    pd.concat([newer, older]).to_csv(tmp_path / "learning.csv", index=False)
    assert sorted(preset.load(tmp_path / "learning.csv")["return_mean"]) == [200, 200, 300]


def test_nothing_to_report_is_said(preset, tmp_path, monkeypatch, capsys):
    """Every row was made with a number of steps, say."""
    for name in ("learning.csv", "learning_curves.csv"):
        rows(reinforce=[300]).assign(budget=500).to_csv(tmp_path / name, index=False)
    monkeypatch.setattr(sys, "argv", ["report.py", "--results", str(tmp_path / "learning.csv")])
    with pytest.raises(SystemExit):
        preset.main()
    assert "every row was given a number of steps" in capsys.readouterr().err


def test_whatever_was_run_was_run_with_the_hyperparameters_that_ship(preset):
    """Else an entry was changed and its results with the new one are missing."""
    every = pd.read_csv(BENCHMARKS / "results/learning.csv").query("budget == 0")
    reported = preset.load(BENCHMARKS / "results/learning.csv")
    assert {*zip(every["algo"], every["env"], strict=True)} == {*zip(reported["algo"], reported["env"], strict=True)}


@pytest.mark.parametrize("name", ["learning", "equal"])
def test_all_that_is_reported_has_been_run(preset, tmp_path, name):
    """But for what was dropped on the way: ``learning.py`` finds its rows, and would run no other."""
    learning = importlib.import_module("learning")
    learned, n_steps = BENCHMARKS / f"results/{name}.csv", {"learning": 0, "equal": learning.EQUAL_STEPS}[name]
    due = {job.run for job in learning.jobs(learned, n_steps)} - learning.Sweep(learned, learned, tmp_path).done()
    assert due == set()


def test_an_environment_that_is_not_reported_is_refused(preset, tmp_path, monkeypatch, capsys):
    """In words that name the program that takes any."""
    learning = importlib.import_module("learning")
    monkeypatch.setattr(sys, "argv", ["learning.py", "--env", "Own-v0", "--logs", str(tmp_path)])
    with pytest.raises(SystemExit):
        learning.main()
    assert "`sb3-reinforce compare`" in capsys.readouterr().err


def test_rows_of_other_columns_are_refused(preset, tmp_path):
    """Else numbers would end up in columns of another name."""
    records = importlib.import_module("records")
    records.append(tmp_path / "a.csv", {"a": 1, "b": 2})
    records.append(tmp_path / "a.csv", {"b": 4, "a": 3})
    assert records.read(tmp_path / "a.csv") == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    with pytest.raises(ValueError, match="other file"):
        records.append(tmp_path / "a.csv", {"a": 5, "c": 6})


def without_intervals(text):
    return re.sub(r" \(\S+ to \S+\)", "", text)


def test_the_pages_are_up_to_date_with_what_was_learned(preset, monkeypatch):
    all_rows, quoted = preset.load(BENCHMARKS / "results/learning.csv"), pd.read_csv(preset.QUOTED)
    learned = all_rows[all_rows["algo"].isin(preset.ALGOS)]
    everything, first_page = (page.read_text() for page in PAGES)
    assert tables.results_table(learned, preset.ALGOS) in everything
    assert preset.quoted_table(quoted) in everything
    assert tables.threshold_table(learned) in everything
    assert preset.variants_table(all_rows, preset.WITH_AND_WITHOUT) in everything
    assert preset.variants_table(all_rows, preset.LESS_AND_LESS) in everything
    assert preset.own_table() in everything
    equal = preset.load(preset.EQUAL, preset.EQUAL_STEPS)
    assert preset.losses(equal, quoted[:0]) in everything
    assert preset.variants_table(equal, preset.WITH_AND_WITHOUT) in everything
    assert preset.variants_table(equal, preset.LESS_AND_LESS) in everything
    assert tables.results_table(equal, preset.FIRST_PAGE) in everything
    assert tables.results_table(learned, preset.FIRST_PAGE) in first_page
    assert preset.losses(learned, quoted) in first_page
    monkeypatch.setattr(statistics, "REPETITIONS", 10)  # of the bootstrap, which takes half a minute otherwise
    for name, each in (("profiles", learned), ("equal_profiles", equal)):
        scores = preset.scores(each, preset.FIRST_PAGE)
        assert without_intervals(tables.aggregate_table(scores, f"results/{name}.png")) in without_intervals(everything)
        means = statistics.interquartile_means(scores)
        words = "{reinforce:.2f} for REINFORCE, {ppo:.2f} for PPO and {a2c:.2f} for A2C"
        assert words.format(**{algo: mean.value for algo, mean in means.items()}) in " ".join(first_page.split())


@pytest.mark.slow
def test_the_aggregate_of_equal_steps_is_up_to_date(preset):
    """Its intervals too, which take half a minute."""
    scores = preset.scores(preset.load(preset.EQUAL, preset.EQUAL_STEPS), preset.FIRST_PAGE)
    assert tables.aggregate_table(scores, "results/equal_profiles.png") in PAGES[0].read_text()


QUOTED = pd.DataFrame(
    {
        "env": ["CartPole-v1"] * 2,
        "algo": ["a2c", "trpo"],
        "return_mean": [1, 2],
        "return_std": [3, 4],
        "steps": ["5M", "6M"],
        "measured_on": ["CartPole-v0"] * 2,
    }
)


def test_what_is_quoted_has_a_table_of_its_own(preset):
    """By the environments it was measured on, which may be older."""
    assert preset.quoted_table(QUOTED).splitlines() == [
        "| measured on | A2C | PPO | TRPO | ARS |",
        "|---|---|---|---|---|",
        "| CartPole-v0 | 1 ± 3, 5M |  | 2 ± 4, 6M |  |",
    ]


def test_where_reinforce_loses(preset):
    """By means, and against what was quoted only where nothing was run."""
    learned = pd.concat([rows(reinforce=[400, 500], a2c=[300, 300]), rows("Other-v0", reinforce=[1], ppo=[2])])
    assert preset.losses(learned, QUOTED.assign(return_mean=1000)) == (
        "**Where REINFORCE loses.**\nA2C's mean is higher on 0 of 1: none.\nPPO's mean is higher on 1 of 1: all."
    )
    more = pd.concat([learned, rows("Third-v0", reinforce=[1], ppo=[2]), rows("Won-v0", reinforce=[3], ppo=[2])])
    assert "PPO's mean is higher on 2 of 3: all but Won-v0." in preset.losses(more, QUOTED)
    even = pd.concat([more, rows("Held-v0", reinforce=[3], ppo=[2])])
    assert "PPO's mean is higher on 2 of 4: Other-v0, Third-v0." in preset.losses(even, QUOTED)
    assert "A2C's mean is higher on 1 of 1" in preset.losses(rows(reinforce=[400]), QUOTED.assign(return_mean=1000))


def test_the_picture_of_the_first_page_is_of_the_algorithms_that_were_run(preset, tmp_path):
    one = curve((10, 1, 2), (40, 4, 3), algo="reinforce", env="CartPole-v1", seed=0)
    preset.seconds_chart(one, "CartPole-v1", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5_000


@pytest.mark.parametrize("name", ["speed", "scaling", "variance"])
def test_the_page_is_up_to_date_with_what_was_measured(name, monkeypatch):
    """Run the program of that name again: it measures nothing that it has a row of, and writes its table."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    program, records = importlib.import_module(name), importlib.import_module("records")
    measured = records.read(records.RESULTS / f"{name}.csv")
    assert program.table(pd.DataFrame(measured) if name == "variance" else measured) in PAGES[0].read_text()


def test_the_whole_table_of_speed_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    program, records = importlib.import_module("speed"), importlib.import_module("records")
    measured = records.read(records.RESULTS / "speed.csv")
    whole = program.table(measured, (1, 4, 8, 16), program.VEC_ENVS)
    assert (records.RESULTS / "speed.md").read_text() == f"{whole}\n"
    assert set(program.table(measured).splitlines()) < set(whole.splitlines())


@pytest.fixture
def equal_search(preset):
    """The program that searches for each algorithm alike."""
    pytest.importorskip("optuna")
    return importlib.import_module("equal_search")


def test_the_best_trials_become_entries(equal_search, monkeypatch):
    """With the arguments that the trials had."""
    import optuna
    import yaml
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
    from torch import nn

    zoo.register()
    monkeypatch.setattr(equal_search, "SEARCHED_ENVS", ["Pendulum-v1"])
    for algo in equal_search.SEARCHED_ALGOS:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
        drawn = []
        for value in (-3.0, -1.0, None, -1.0):
            trial = study.ask()
            drawn.append(HYPERPARAMS_SAMPLER[algo](trial, 1, 1, {}))
            study.tell(trial, value, state=optuna.trial.TrialState.PRUNED if value is None else None)
        study.ask()  # one that is cut short
        trials = equal_search.rows(algo, "Pendulum-v1", study)
        assert [row["return_mean"] for row in trials] == [-3.0, -1.0, "", -1.0]
        (entry,) = yaml.safe_load(equal_search.searched(trials, algo)).values()
        assert entry["n_timesteps"] == 30_000
        sampled = drawn[1]
        assert eval(entry["policy_kwargs"], {"nn": nn, "dict": dict}) == sampled.pop("policy_kwargs")
        rate = sampled.pop("learning_rate")
        assert float(str(entry["learning_rate"]).removeprefix("lin_")) == (rate(1.0) if callable(rate) else rate)
        assert sampled.items() <= entry.items()


def test_what_was_searched_is_what_was_found(equal_search):
    """Files of the best trials, which ``learning.py`` runs, are of the trials that are recorded."""
    zoo.register()
    trials = equal_search.read(equal_search.TRIALS)
    for algo in equal_search.SEARCHED_ALGOS:
        for env_id in equal_search.SEARCHED_ENVS:
            assert len([row for row in trials if (row["algo"], row["env"]) == (algo, env_id)]) == equal_search.N_TRIALS
        assert (equal_search.SEARCHED / f"{algo}.yml").read_text() == equal_search.searched(trials, algo)
