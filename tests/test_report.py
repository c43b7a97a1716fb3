"""The report says what the rows say, and no more."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("rliable")
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
README = BENCHMARKS.parent / "README.md"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("report")


def rows(env="CartPole-v1", **returns_by_algo):
    """Runs on CartPole-v1, say, which has a threshold of 475 and where random actions reach about 22."""
    return pd.DataFrame(
        [
            {
                "algo": algo,
                "env": env,
                "seed": seed,
                "budget": 0,
                "settings": "a",
                "steps": 50_000,
                "return_mean": value,
                "steps_to_threshold": 30_000 if value >= 475 else None,
                "seconds_to_threshold": 5.0 if value >= 475 else None,
            }
            for algo, values in returns_by_algo.items()
            for seed, value in enumerate(values)
        ]
    )


QUOTED = pd.DataFrame(
    {"env": ["CartPole-v1"] * 2, "algo": ["a2c", "trpo"], "return_mean": [1, 2], "return_std": [3, 4], "steps": ["5M", "6M"]}
)


def test_what_was_run_is_never_replaced_by_what_was_quoted(report):
    table = report.results_table(rows(reinforce=[400, 500], a2c=[300, 300]), QUOTED)
    header, _, line = table.splitlines()
    assert header == "| | REINFORCE | A2C | TRPO |"
    assert line == "| CartPole-v1 | **450** (400, 500), 2 × 50k | **300** (300, 300), 2 × 50k | *2 ± 4, 6M* |"


def test_the_table_says_where_actions_are_held(report):
    """Else the settings that hold them would pass for the environment as it is."""
    *_, line = report.results_table(rows("MountainCar-v0", reinforce=[-110, -108], a2c=[-120, -120]), QUOTED).splitlines()
    assert line == "| MountainCar-v0 | **−109** (−110, −108), 2 × 50k, held 16 | **−120** (−120, −120), 2 × 50k |  |"


def test_a_run_that_never_reached_the_threshold_counts_as_slow(report):
    """Else an algorithm would look the faster, the fewer of its runs succeed."""
    table = report.threshold_table(rows(reinforce=[500, 500, 500], a2c=[500, 100, 100]))
    assert "| REINFORCE | 3 of 3 | 5.0 |  | 30,000 |" in table
    assert "| A2C | 1 of 3 | — | | — |" in table


def test_scores_are_0_for_random_actions_and_1_at_the_threshold(report):
    low = report.random_return("CartPole-v1")
    assert 15 < low < 30
    returns = {"reinforce": [475] * 3, "a2c": [low] * 3}
    three = pd.concat([rows(env, **returns) for env in ("CartPole-v1", "MountainCar-v0", "Acrobot-v1")], ignore_index=True)
    scores = report.scores(three)
    np.testing.assert_allclose(scores["reinforce"][:, 1], [1, 1, 1])  # in alphabetical order
    np.testing.assert_allclose(scores["a2c"][:, 1], [0, 0, 0])


def test_an_environment_with_few_seeds_does_not_take_those_of_the_others(report):
    envs = ("CartPole-v1", "MountainCar-v0", "Acrobot-v1")
    whole = [rows(env, reinforce=[0] * 4, a2c=[0] * 3) for env in envs]
    scores = report.scores(pd.concat([*whole, rows("Pendulum-v1", reinforce=[0] * 4, a2c=[0])], ignore_index=True))
    assert scores["reinforce"].shape == scores["a2c"].shape == (3, 3)


def test_one_environment_is_no_aggregate(report):
    scores = report.scores(rows(reinforce=[475] * 3, a2c=[400] * 3))
    assert scores == {}
    assert report.aggregate_table(scores) == ""


def test_aggregates_compare_every_algorithm_with_reinforce(report, monkeypatch):
    monkeypatch.setattr(report, "REPETITIONS", 100)
    scores = {"reinforce": np.full((4, 2), 1.0), "a2c": np.full((4, 2), 0.5)}
    table = report.aggregate_table(scores)
    assert "| 2 environments × 4 seeds |" in table
    assert "Of 4 seeds, the intervals say little." in table
    assert "| REINFORCE | 1.00 (1.00 to 1.00) |  |" in table
    assert "| A2C | 0.50 (0.50 to 0.50) | 1.00 (1.00 to 1.00) |" in table


def test_results_of_other_hyperparameters_are_left_out(report, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "settings", lambda algo, env: {"reinforce": "b", "a2c": "a"}[algo])
    newer, older = rows(reinforce=[300]).assign(settings="b"), rows(reinforce=[100, 100], a2c=[200, 200])
    pd.concat([newer, older]).to_csv(tmp_path / "learning.csv", index=False)
    assert sorted(report.load(tmp_path / "learning.csv")["return_mean"]) == [200, 200, 300]


def test_whatever_was_run_was_run_with_the_hyperparameters_that_ship(report):
    """Else an entry was changed and its results with the new one are missing."""
    every = pd.read_csv(BENCHMARKS / "results/learning.csv").query("budget == 0 and algo in @report.LABELS")
    reported = report.load(BENCHMARKS / "results/learning.csv")
    assert {*zip(every["algo"], every["env"], strict=True)} == {*zip(reported["algo"], reported["env"], strict=True)}


def test_hyperparameters_of_an_older_version_come_before_the_default(report):
    """RL Zoo has A2C's for Hopper-v4, not for Hopper-v5, where its default would leave observations as they are."""
    learning = importlib.import_module("learning")
    assert learning.entry("a2c", "Hopper-v5")[0] == "Hopper-v4"
    assert "-params normalize:True" in learning.printable(learning.command("a2c", "Hopper-v5", 0, 0, Path("logs")))
    assert learning.entry("a2c", "InvertedPendulum-v5")[0] == "default"
    for algo, env_id in (("a2c", "InvertedPendulum-v5"), ("a2c", "CartPole-v1"), ("reinforce", "Hopper-v5")):
        assert "-params" not in learning.command(algo, env_id, 0, 0, Path("logs"))


def test_a_run_that_has_its_row_is_not_run_again(report, tmp_path):
    """So that an interrupted sweep goes on where it stopped."""
    out, logs = tmp_path / "rows.csv", tmp_path / "logs"
    sweep = [sys.executable, str(BENCHMARKS / "learning.py"), "--env", "CartPole-v1", "--seeds", "1", "-n", "200"]
    sweep += ["--jobs", "1", "--out", str(out), "--logs", str(logs)]

    def run():
        return subprocess.run(sweep, check=True, capture_output=True, text=True).stdout

    assert "1 runs to do, 0 done before" in run()
    (row,) = importlib.import_module("records").read(out)
    assert row["command"].startswith("sb3-reinforce train --algo reinforce --env CartPole-v1 --seed 0 ")
    assert row["n_episodes"] == 20
    assert 0 < row["return_mean"] <= 500
    last = pd.read_csv(tmp_path / "rows_curves.csv").iloc[-1]
    assert last["steps"] == row["steps"] >= 200
    assert last["seconds"] == row["seconds"]

    assert "0 runs to do, 1 done before" in run()
    assert len(pd.read_csv(out)) == 1


def test_rows_of_other_columns_are_refused(report, tmp_path):
    """Else numbers would end up in columns of another name."""
    records = importlib.import_module("records")
    records.append(tmp_path / "a.csv", {"a": 1, "b": 2})
    records.append(tmp_path / "a.csv", {"b": 4, "a": 3})
    assert records.read(tmp_path / "a.csv") == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    with pytest.raises(ValueError, match="other file"):
        records.append(tmp_path / "a.csv", {"a": 5, "c": 6})


def test_the_readme_is_up_to_date_with_what_was_learned(report):
    learned = report.load(BENCHMARKS / "results/learning.csv")
    assert report.results_table(learned, pd.read_csv(report.QUOTED)) in README.read_text()
    assert report.threshold_table(learned) in README.read_text()


@pytest.mark.parametrize("name", ["speed", "scaling", "variance"])
def test_the_readme_is_up_to_date_with_what_was_measured(name, monkeypatch):
    """Run the program of that name again: it measures nothing that it has a row of, and writes its table."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    program, records = importlib.import_module(name), importlib.import_module("records")
    measured = records.read(records.RESULTS / f"{name}.csv")
    assert program.table(pd.DataFrame(measured) if name == "variance" else measured) in README.read_text()


def test_the_whole_table_of_speed_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    program, records = importlib.import_module("speed"), importlib.import_module("records")
    measured = records.read(records.RESULTS / "speed.csv")
    whole = program.table(measured, (1, 4, 8, 16), program.VEC_ENVS)
    assert (records.RESULTS / "speed.md").read_text() == f"{whole}\n"
    assert set(program.table(measured).splitlines()) < set(whole.splitlines())
