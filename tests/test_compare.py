"""``sb3-reinforce compare``: what is asked for is run once, failures are named, and what cannot run is said at once."""

import csv
import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from command import run as sb3_reinforce_command

pd = pytest.importorskip("pandas")
pytest.importorskip("rliable")
pytest.importorskip("rl_zoo3")

import filelock  # noqa: E402

from sb3_reinforce import REINFORCE  # noqa: E402
from sb3_reinforce.zoo import cli, plan, records, register, report, runs, sweep, tryout  # noqa: E402
from sb3_reinforce.zoo.settings import (  # noqa: E402
    Contestant,
    digest,
    entries,
    entry_for,
    resolved,
    settings,
    steps_per_action,
    threshold,
)

#: An environment of the user's, in the user's folder, whose episodes have ten steps.
OWN = """
import gymnasium as gym
import numpy as np

class Own(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(action), False, False, {}

gym.register("Own-v0", Own, max_episode_steps=10)
gym.register("Endless-v0", Own)
"""
#: An environment whose episodes last as long as it is told.
TOLD = """
from own import Own, gym

class Told(Own):
    def __init__(self, size):
        self.size = size

    def reset(self, seed=None, options=None):
        self.n_steps = 0
        return super().reset(seed=seed)

    def step(self, action):
        self.n_steps += 1
        obs, _, _, _, info = super().step(action)
        return obs, 1.0, self.n_steps == self.size, False, info

gym.register("Told-v0", Told)
"""
#: One that cannot be made, and one whose rewards are no numbers.
BROKEN = """
from own import Own, gym

def make(**kwargs):
    raise RuntimeError("no")

class NaN(Own):
    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float("nan"), terminated, truncated, info

gym.register("Broken-v0", make)
gym.register("NaN-v0", NaN, max_episode_steps=10, disable_env_checker=True)
"""
#: What a run writes, by something that takes no time: seed 1 fails while there is a file `broken`.
STAND_IN = """
import json, os, sys
task = json.loads(sys.argv[1])
if task["key"]["seed"] == 1 and os.path.exists("broken"):
    exec(open("broken").read() or 'sys.exit("ValueError: it broke\\\\n\\\\n")')
row = {**task["key"], "steps": 10, "seconds": 0.5, "return_mean": 1.5, "return_std": 0.0, "n_episodes": task["eval_episodes"],
       "steps_to_threshold": None, "seconds_to_threshold": None, **task["columns"]}
points = [{**task["key"], "steps": steps, "seconds": 0.1, "return_mean": 1.0, "n_episodes": 1} for steps in (5, 10)]
with open(task["result"], "w") as file:
    json.dump({"row": row, "curve": points}, file)
print(*task["train"], file=open("started", "a"))
"""


def run(*arguments: object) -> None:
    """``sb3-reinforce compare <arguments>``."""
    sb3_reinforce_command("compare", *arguments)


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user is in a folder with a module of an environment."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tryout, "RANDOM_EPISODES", 2)
    monkeypatch.setattr(tryout, "RANDOM_SECONDS", 0.2)
    for env_id in ("Own-v0", "Endless-v0"):
        gym.registry.pop(env_id, None)
    for module in ("own", "told"):
        sys.modules.pop(module, None)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and pictures are stand-ins."""
    popen = subprocess.Popen
    monkeypatch.setattr(report, "curves_chart", lambda curves, algos, path: path.touch())

    def start(command: list[str], **kwargs: Any) -> Any:
        if command[1:3] == ["-m", "sb3_reinforce.zoo.runs"]:
            command = [command[0], "-S", "-E", "-c", STAND_IN, *command[3:]]
        return popen(command, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", start)


def started() -> list[str]:
    """Commands of the runs that have ended well, and forget them."""
    file = Path("started")
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [line.partition(" --eval-freq")[0] for line in lines]


def rows(folder: str = "logs/compare") -> list[dict[str, Any]]:
    return records.read(Path(folder, "results.csv"))


OWN_FLAGS = ("--env", "Own-v0", "--gym-packages", "own", "-n", 20, "--seeds", 1, "--jobs", 1)


@pytest.mark.usefixtures("_quick")
def test_only_what_is_missing_is_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two algorithms on an environment of the user's, interrupted when the first run is recorded, and finished later."""
    append = records.append

    def append_and_interrupt(path: Path, *new: Any) -> None:
        append(path, *new)
        if path.name == "results.csv":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "append", append_and_interrupt)
        with pytest.raises(SystemExit) as end:
            run(*OWN_FLAGS, "--algos", "reinforce", "a2c")
    assert end.value.code == 130
    assert "Interrupted: 1 of 2 runs are done. The same command goes on." in capsys.readouterr().err
    (first,) = rows()
    assert started() == ["train --algo reinforce --env Own-v0 --seed 0"]
    run(*OWN_FLAGS, "--algos", "reinforce", "a2c")
    assert "1 runs to do, 1 done before" in capsys.readouterr().out
    assert started() == ["train --algo a2c --env Own-v0 --seed 0"]
    again, second = rows()
    assert again == first
    assert (first["algo"], second["algo"]) == ("reinforce", "a2c")
    assert all(Path("logs/compare", name).is_file() for name in ("report.md", "curves.png"))


def test_a_run_is_rl_zoos_and_is_evaluated() -> None:
    """A real one, of an environment of the user's, from the command to the report. Its clock starts with the environment,
    when torch has imported its compiler."""
    Path("own.py").write_text(f"import sys\nprint('torch._dynamo' in sys.modules)\n{OWN}")
    run(*OWN_FLAGS, "--algos", "reinforce", "--eval-episodes", 3)
    (row,) = rows()
    assert row["command"] == (
        "sb3-reinforce train --algo reinforce --env Own-v0 --seed 0 --eval-freq -1 --num-threads 1 --verbose 0 --device cpu "
        "--gym-packages own -n 20"
    )
    assert {*row} == {*records.WORDS, *records.NUMBERS, *records.PERHAPS}
    assert (row["entry"], row["held"], row["threshold"], row["n_episodes"]) == ("default", 1, "", 3)
    assert 0 <= row["random_return"] <= 10
    assert 0 <= row["return_mean"] <= 10
    assert "torch=" in row["versions"]
    last = pd.read_csv("logs/compare/curves.csv").iloc[-1]
    assert last["steps"] == row["steps"] == 80  # a batch of 8 episodes
    assert last["seconds"] == row["seconds"]
    assert REINFORCE.load(next(Path("logs/compare/runs").rglob("reinforce/*/Own-v0.zip"))).n_episodes == 8
    (output,) = Path("logs/compare/runs").rglob("output.txt")
    assert output.read_text().startswith("True\n")
    full = json.loads(Path("logs/compare/settings.json").read_text())["reinforce on Own-v0"]
    assert digest(full) == row["resolved"]
    text = Path("logs/compare/report.md").read_text()
    assert "Own-v0: REINFORCE has no hyperparameters for it, and takes those of `default`." in text
    assert Path("logs/compare/curves.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on() -> None:
    """However it is killed: what runs ends with it, and is run again; what had been recorded is not."""
    command = [sys.executable, "-m", "sb3_reinforce.zoo", "compare", *map(str, OWN_FLAGS), "--algos", "reinforce", "a2c"]
    command[command.index("--seeds") + 1] = "2"
    process = subprocess.Popen(command)
    while not rows():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    (first,) = rows()
    time.sleep(15)  # a run that goes on would be whole by then
    assert len(list(Path("logs/compare/runs").glob("*/result.json"))) == 1
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "3 runs to do, 1 done before" in again.stdout
    assert len(rows()) == 4
    assert rows()[0] == first


@pytest.mark.usefixtures("_quick")
def test_runs_take_turns_and_more_can_be_asked_for() -> None:
    """Algorithms by turns; a second call with more seeds and algorithms runs what is missing, and one with fewer nothing."""
    run(*OWN_FLAGS[:-4], "--algos", "reinforce", "a2c", "--seeds", 2, "--jobs", 1)
    assert started() == [f"train --algo {algo} --env Own-v0 --seed {seed}" for seed in (0, 1) for algo in ("reinforce", "a2c")]
    run(*OWN_FLAGS[:-4], "--algos", "reinforce", "a2c", "ppo", "--seeds", 3, "--jobs", 1)
    missing = [("ppo", 0), ("ppo", 1), ("reinforce", 2), ("a2c", 2), ("ppo", 2)]
    assert started() == [f"train --algo {algo} --env Own-v0 --seed {seed}" for algo, seed in missing]
    run(*OWN_FLAGS, "--algos", "a2c", "a2c")
    assert started() == []
    assert len(rows()) == 9


@pytest.mark.usefixtures("_quick")
def test_a_failed_run_is_named_and_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    """And stops no other."""
    Path("broken").touch()
    flags = (*OWN_FLAGS[:-4], "--algos", "reinforce", "--seeds", 3, "--jobs", 2)
    with pytest.raises(SystemExit, match=r"1 of 3 runs have failed\. The same command tries them again\."):
        run(*flags)
    error = capsys.readouterr().err
    assert "failed: reinforce on Own-v0, seed 1: ValueError: it broke (all it wrote: logs" in error.replace("\\", "/")
    assert sorted(row["seed"] for row in rows()) == [0, 2]
    assert Path("logs/compare/report.md").is_file()
    line = "- reinforce on Own-v0, seed 1 has failed: ValueError: it broke (all it wrote: "
    assert line in Path("logs/compare/report.md").read_text()
    run("--report-only")
    assert line in Path("logs/compare/report.md").read_text()
    Path("broken").unlink()
    started()
    run(*flags)
    assert started() == ["train --algo reinforce --env Own-v0 --seed 1"]
    assert "has failed" not in Path("logs/compare/report.md").read_text()
    assert sorted(row["seed"] for row in rows()) == [0, 1, 2]


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("os.kill(os.getpid(), 9)", "ended by SIGKILL, as where memory runs out"),
        ("os.abort()", "ended by SIGABRT"),
        ("sys.exit(0)", "it ended before it had a result"),
        ("raise ValueError('first\\n  second\\nthird')", "ValueError: first"),
        ("print('Log path: x'); sys.exit(3)", "Log path: x"),
    ],
)
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no signals")
def test_it_is_said_why_a_run_has_failed(broken: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where there is a result of an earlier attempt, with other arguments."""
    Path("broken").write_text(broken)
    flags = (*OWN_FLAGS[:-4], "--algos", "reinforce", "--seeds", 2, "--jobs", 1)
    with pytest.raises(SystemExit, match=r"1 of 2 runs have failed"):
        run(*flags)
    assert f"failed: reinforce on Own-v0, seed 1: {why} (all it wrote: logs" in capsys.readouterr().err.replace("\\", "/")
    assert [row["seed"] for row in rows()] == [0]


@pytest.mark.usefixtures("_quick")
def test_environments_of_like_names_have_runs_of_their_own() -> None:
    """``ns/Own-v0`` and ``ns-Own-v0``, which RL Zoo's files call alike."""
    with Path("own.py").open("a") as file:
        file.write("for name in ('ns/Own-v0', 'ns-Own-v0'): gym.register(name, Own, max_episode_steps=10)")
    flags = ("--gym-packages", "own", "-n", 20, "--seeds", 1, "--jobs", 1, "--algos", "reinforce")
    run("--env", "ns/Own-v0", "ns-Own-v0", *flags)
    assert sorted(row["env"] for row in rows()) == ["ns-Own-v0", "ns/Own-v0"]
    assert len(started()) == 2


@pytest.mark.usefixtures("_quick")
def test_one_command_at_a_time_works_in_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """Two would lose each other's settings."""
    Path("logs/compare").mkdir(parents=True)
    with filelock.FileLock("logs/compare/.lock"), pytest.raises(SystemExit) as end:
        run(*OWN_FLAGS, "--algos", "reinforce")
    assert end.value.code == 2
    assert "another `compare` is at work in logs" in capsys.readouterr().err
    assert started() == []
    run(*OWN_FLAGS, "--algos", "reinforce")
    assert len(rows()) == 1


@pytest.mark.usefixtures("_quick")
def test_a_table_that_another_program_has_saved_goes_on() -> None:
    """With a mark at its beginning, one more column, and no end of the last line."""
    run(*OWN_FLAGS, "--algos", "reinforce")
    table = Path("logs/compare/results.csv")
    first, second = table.read_text().splitlines()
    table.write_text(f"\ufeff{first},note\n{second},good", encoding="utf-8")
    run(*OWN_FLAGS, "--algos", "a2c")
    assert [(row["algo"], row["note"]) for row in rows()] == [("reinforce", "good"), ("a2c", "")]
    assert Path("logs/compare/report.md").read_text().startswith("# A2C, REINFORCE on Own-v0")


@pytest.mark.usefixtures("_quick")
def test_a_table_without_a_column_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    run(*OWN_FLAGS, "--algos", "reinforce")
    table = pd.read_csv("logs/compare/results.csv", dtype=str)
    table.drop(columns="cpu").to_csv("logs/compare/results.csv", index=False)
    started()
    with pytest.raises(SystemExit):
        run(*OWN_FLAGS, "--algos", "a2c")
    assert "It has no column cpu" in capsys.readouterr().err
    assert started() == []
    with pytest.raises(SystemExit, match=r"there is no report: .*results.csv is not of a comparison: .* It has no column cpu"):
        run("--report-only")


@pytest.mark.usefixtures("_quick")
def test_where_steps_are_given_it_does_not_matter_what_a_file_says_of_them() -> None:
    for n_timesteps in (1000, 2000):
        entry = {"policy": "MlpPolicy", "n_timesteps": n_timesteps}
        Path("mine.yml").write_text(json.dumps({"Own-v0": entry}))
        run(*OWN_FLAGS, "--algos", "reinforce", "-conf", "mine.yml")
    assert len(started()) == len(rows()) == 1


@pytest.mark.usefixtures("_quick")
def test_a_finished_run_that_could_not_be_recorded_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk was full; what was recorded before is as it was, and the next call records without running again."""
    run(*OWN_FLAGS, "--algos", "reinforce")
    before = Path("logs/compare/results.csv").read_bytes()
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if target.name == "results.csv":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(SystemExit, match=r"No space left on device.*with room, the same command goes on"):
            run(*OWN_FLAGS, "--algos", "a2c")
    assert Path("logs/compare/results.csv").read_bytes() == before
    assert not list(Path("logs/compare").glob("*.tmp"))
    assert len(started()) == 2
    run(*OWN_FLAGS, "--algos", "a2c")
    assert started() == []
    assert [row["algo"] for row in rows()] == ["reinforce", "a2c"]
    curves = pd.read_csv("logs/compare/curves.csv")
    assert len(curves) == 6  # those of a2c twice, which the report takes once
    assert "2 × 10" not in Path("logs/compare/report.md").read_text()
    for name in ("results.csv", "curves.csv"):
        Path("logs/compare", name).unlink()
    run(*OWN_FLAGS, "--algos", "a2c", "--eval-episodes", 30)
    assert len(started()) == 1  # what was finished is over another number of episodes
    assert [row["n_episodes"] for row in rows()] == [30]


@pytest.mark.usefixtures("_quick")
def test_a_full_disk_is_said_before_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=sweep.ROOM - 1))
    with pytest.raises(SystemExit, match=r"less than 100 MB are left on the disk of logs.*with room"):
        run(*OWN_FLAGS, "--algos", "reinforce")
    assert started() == []


def test_running_children_end_with_the_sweep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where it ends early, for whatever reason."""
    register()
    processes = []
    taken = settings(Contestant("reinforce"), "CartPole-v1")
    job = sweep.Job(sweep.Run("reinforce", "CartPole-v1", 0, 0, "a"), Contestant("reinforce"), taken, {}, np.nan)

    def start(self: sweep.Sweep, job: sweep.Job) -> Any:
        if processes:
            raise KeyboardInterrupt
        processes.append(subprocess.Popen([sys.executable, "-S", "-E", "-c", "import time; time.sleep(5)"]))
        return processes[0]

    monkeypatch.setattr(sweep.Sweep, "_start", start)
    table = tmp_path / "rows.csv"
    with pytest.raises(KeyboardInterrupt):
        sweep.Sweep(table, table, tmp_path).work([job, job._replace(run=job.run._replace(seed=1))], at_a_time=2)
    assert processes[0].returncode not in (None, 0)


@pytest.mark.usefixtures("_quick")
def test_what_runs_when_the_disk_fills_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes on to its end, and nothing more is begun."""
    usage = shutil.disk_usage(".")
    free = [sweep.ROOM]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=free.pop() if free else sweep.ROOM - 1))
    flags = [*OWN_FLAGS[:4], "-n", 20, "--seeds", 3, "--jobs", 3]
    with pytest.raises(SystemExit, match="less than 100 MB are left"):
        run(*flags, "--algos", "reinforce")
    assert "nothing more is begun" in capsys.readouterr().err
    assert [row["seed"] for row in rows()] == [0]
    assert len(started()) == 1


@pytest.mark.usefixtures("_quick")
def test_report_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Makes the report again, and needs no environment."""
    run(*OWN_FLAGS, "--algos", "reinforce", "-f", "mine")
    started()
    for name in ("report.md", "curves.png"):
        Path("mine", name).unlink()
    gym.registry.pop("Own-v0")
    run("--report-only", "-f", "mine")
    assert started() == []
    assert Path("mine/report.md").is_file()
    assert Path("mine/curves.png").is_file()
    with pytest.raises(SystemExit):
        run("--report-only", "-f", "nowhere")
    assert "--report-only: there is no results.csv in nowhere, which -f names" in capsys.readouterr().err


COLUMNS = ",".join([*records.WORDS, *records.NUMBERS, *records.PERHAPS])
HALVES = {
    "results.csv": ("algo,env,seed,steps,return_mean\nreinforce,Own-v0", "results.csv is not whole: line 2"),
    "curves.csv": (None, "curves.csv"),
    "results.csv, binary": (b"\xff\xfe", "results.csv is no table"),
    "results.csv, edited": (f"{COLUMNS}\n{'x,' * COLUMNS.count(',')}x\n", "must be a number"),
    "curves.csv, half": ("algo,env,seed,steps,seconds,return_mean,n_episodes\na2c,Own", "curves.csv is not whole: line 2"),
    "failed.json": ("{", "failed.json is not whole"),
    "settings.json": ('{"reinforce on Own', "settings.json is not whole"),
}


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("name", HALVES)
def test_files_that_are_not_whole_are_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a crash, or when they were edited; and nothing is run on top of them."""
    content, message = HALVES[name]
    run(*OWN_FLAGS, "--algos", "reinforce")
    started()
    file = Path("logs/compare", name.partition(",")[0])
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SystemExit, match=f"there is no report: .*{message}"):
        run("--report-only")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        run(*OWN_FLAGS, "--algos", "reinforce")
    error = capsys.readouterr().err
    assert message in error
    assert started() == []
    if "Delete results.csv and curves.csv, and the command that made them makes both again" in error:
        for table in ("results.csv", "curves.csv"):
            Path("logs/compare", table).unlink(missing_ok=True)
        run(*OWN_FLAGS, "--algos", "reinforce")
        assert started() == []
        assert len(rows()) == 1


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("content", ["", "a,b\n", "algo,env,seed,steps,return_mean\n"])
def test_tables_without_a_row_are_no_comparison(content: str) -> None:
    Path("empty").mkdir()
    for name in ("results.csv", "curves.csv"):
        Path("empty", name).write_text(content)
    with pytest.raises(SystemExit, match=r"there is no report: .*results.csv has no rows of a comparison"):
        run("--report-only", "-f", "empty")


@pytest.mark.usefixtures("_quick")
def test_a_result_that_is_not_whole_is_made_again() -> None:
    """It was written when the disk was full, say."""
    run(*OWN_FLAGS, "--algos", "reinforce")
    (result,) = Path("logs/compare/runs").rglob("result.json")
    result.write_text("")
    Path("logs/compare/results.csv").unlink()
    started()
    run(*OWN_FLAGS, "--algos", "reinforce")
    assert len(started()) == len(rows()) == 1


@pytest.mark.usefixtures("_quick")
def test_the_first_algorithm_of_the_command_is_compared_with() -> None:
    """Also in a folder that was made with another first."""
    run(*OWN_FLAGS, "--algos", "reinforce", "a2c")
    assert Path("logs/compare/report.md").read_text().startswith("# REINFORCE, A2C on Own-v0")
    run(*OWN_FLAGS, "--algos", "a2c", "reinforce")
    assert Path("logs/compare/report.md").read_text().startswith("# A2C, REINFORCE on Own-v0")


@pytest.mark.usefixtures("_quick")
def test_seeds_may_begin_elsewhere() -> None:
    run(*OWN_FLAGS[:-4], "--algos", "reinforce", "--first-seed", 100, "--seeds", 2, "--jobs", 1)
    assert [row["seed"] for row in rows()] == [100, 101]


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("within", ["try_out", "import_environments"])
def test_an_interruption_before_the_first_run_is_none_of_python(
    within: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, within, interrupted)
    with pytest.raises(SystemExit) as end:
        run(*OWN_FLAGS, "--algos", "reinforce")
    assert end.value.code == 130
    assert "Interrupted." in capsys.readouterr().err


@pytest.mark.usefixtures("_quick")
def test_what_is_written_does_not_depend_on_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has signs that not every encoding knows."""
    encodings = []
    write_text = Path.write_text

    def write(self: Path, text: str, encoding: str | None = None) -> int:
        if "logs" in self.parts:
            encodings.append(encoding)
        return write_text(self, text, encoding)

    monkeypatch.setattr(Path, "write_text", write)
    run(*OWN_FLAGS, "--algos", "reinforce")
    assert set(encodings) == {"utf-8"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--algos", "a2c"), "--env and --algos are required"),
        (("--env", "CartPole-v1", "--algos", "a2d"), "there is no algorithm 'a2d', maybe you meant 'a2c'?"),
        (("--env", "CartPole-v1", "--algos", "??"), "there is no algorithm '??', there are a2c, ddpg"),
        (("--env", "CartPol-v1", "--algos", "a2c"), "there is no environment 'CartPol-v1', maybe you meant 'CartPole-v1'?"),
        (("--env", "??", "--algos", "a2c"), "a module that registers it is named with --gym-packages"),
        (("--env", "CartPole-v1", "--algos", "a2c", "--seeds", "0"), "--seeds: must be a whole number of at least 1, not 0"),
        (
            ("--env", "CartPole-v1", "--algos", "a2c", "--first-seed", "4294967292"),
            "must be below 2**32, but the last would be",
        ),
        (("--env", "CartPole-v1", "--algos", "a2c", "--seeds", "x"), "--seeds: must be a whole number of at least 1, not x"),
        (("--env", "CartPole-v1", "--algos", "a2c", "--jobs", "1.5"), "--jobs: must be a whole number of at least 1, not 1.5"),
        (("--env", "CartPole-v1", "--algos", "a2c", "-n", "-5"), "must be a whole number of at least 1, not -5"),
        (("--env", "CartPole-v1", "--algos", "a2c", "--gym-packages", "nothing_of_that_name"), "cannot be imported"),
        (
            ("--env", "CartPole-v1", "--algos", "a2c", "--gym-packages", "faulty"),
            "'faulty' cannot be imported: ZeroDivisionError",
        ),
        (
            ("--env", "CartPole-v1", "--algos", "a2c", "-conf", "no.yml"),
            "a2c on CartPole-v1: ValueError: there is no file 'no.yml'",
        ),
        (("--env", "CartPole-v1", "--algos", "a2c", "-conf", "own.py"), "own.py is no YAML file"),
        (
            ("--env", "CartPole-v1", "--algos", "a2c", "-conf", "text.yml"),
            "`learning_rate` of CartPole-v1 must be a number, but it is the text '1e-3': write !!float 1e-3",
        ),
        (("--env", "CartPole-v1", "--algos", "a2c", "-n", "9", "-conf", "short.yml"), "CartPole-v1 must have `n_timesteps`"),
        (
            ("--env", "NaN-v0", "--algos", "a2c", "--gym-packages", "broken_env"),
            "NaN-v0 cannot be played: ValueError: rewards must be finite, but those of an episode sum to nan",
        ),
        (("--env", "CartPole-v1", "--algos", "a2c", "ppo", "-conf", "a2c:a.yml", "b.yml"), "each is ALGO:FILE"),
        (("--env", "CartPole-v1", "--algos", "a2c", "-conf", "ppo:a.yml"), "'ppo' is not one of --algos"),
        (("--env", "CartPole-v1", "--algos", "a2c", "sac"), "sac on CartPole-v1: AssertionError"),
        (
            ("--env", "Broken-v0", "--algos", "a2c", "--gym-packages", "broken_env"),
            "Broken-v0 cannot be played: RuntimeError: no",
        ),
        (("--env", "CartPole-v1", "--algos", "a2c", "--same-wrappers", "--no-wrappers"), "not allowed with argument"),
    ],
)
def test_what_cannot_be_compared_is_said_at_once(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is run."""
    Path("faulty.py").write_text("1 / 0")
    Path("text.yml").write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 50, learning_rate: 1e-3}")
    Path("short.yml").write_text("CartPole-v1: {policy: MlpPolicy}")
    Path("broken_env.py").write_text(BROKEN)
    monkeypatch.setattr(sweep.Sweep, "_start", lambda *_: pytest.fail("a run was started"))
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("logs/compare/results.csv").exists()


def test_an_environment_of_custom_envs_that_does_not_import_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """RL Zoo keeps that error to itself, and would say that there is no such environment."""
    Path("custom_envs.py").write_text("import no_such_physics")
    with pytest.raises(SystemExit) as end:
        run("--env", "Own-v0", "--algos", "a2c")
    assert end.value.code == 2
    assert (
        "'custom_envs' cannot be imported: ModuleNotFoundError: No module named 'no_such_physics'" in capsys.readouterr().err
    )
    sys.modules.pop("custom_envs", None)


@pytest.mark.usefixtures("_quick")
def test_a_folder_of_another_comparison_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Else one table would hold what does not compare."""
    run(*OWN_FLAGS, "--algos", "reinforce")
    capsys.readouterr()
    flags = [*OWN_FLAGS[:4], "--seeds", 1, "--jobs", 1, "--algos", "reinforce"]
    entry = {"policy": "MlpPolicy", "n_episodes": 3, "return_type": "reward_to_go", "n_timesteps": 50}
    Path("mine.yml").write_text(json.dumps({"Own-v0": entry}))
    for more, message in (
        (("-n", 30), "it was run with -n 20 (now 30;"),
        (("-n", 30, "--algos", "a2c"), "it was run with -n 20 (now 30;"),
        (("-n", 20, "--eval-episodes", 30), "it was run with --eval-episodes 20 (now 30)"),
        (("-n", 20, "-conf", "mine.yml"), "reinforce on Own-v0 was run with baseline time_leave_one_out (now None), ent_coef"),
    ):
        with pytest.raises(SystemExit):
            run(*flags, *more)
        error = capsys.readouterr().err
        assert "holds another comparison, take another folder with -f" in error
        assert message in error
    Path("foreign").mkdir()
    Path("foreign/results.csv").write_text("a,b\n1,2\n")
    Path("file").touch()
    for folder, message in (("foreign", "is not of a comparison: take another folder"), ("file", "-f: FileExistsError")):
        with pytest.raises(SystemExit) as end:
            run(*flags, "-n", 20, "-f", folder)
        assert message in f"{capsys.readouterr().err}{end.value.code}"


@pytest.mark.usefixtures("_quick")
def test_conf_files(capsys: pytest.CaptureFixture[str]) -> None:
    """Of one algorithm, or of all."""
    for name, n_envs in (("one.yml", 1), ("two.yml", 2)):
        entry = {"policy": "MlpPolicy", "n_envs": n_envs, "n_timesteps": 50}
        Path(name).write_text(json.dumps({"Own-v0": entry}))
    flags = [*OWN_FLAGS[:4], "--seeds", 1, "--jobs", 1, "--algos", "reinforce", "a2c"]
    for conf, expected in ((["one.yml"], (1, 1)), (["reinforce:one.yml", "a2c:two.yml"], (1, 2))):
        run(*flags, "-f", len(conf), "-conf", *conf)
        recorded = json.loads(Path(str(len(conf)), "settings.json").read_text())
        assert (recorded["reinforce on Own-v0"]["n_envs"], recorded["a2c on Own-v0"]["n_envs"]) == expected
        assert {row["entry"] for row in rows(str(len(conf)))} == {"Own-v0"}
        assert "has no hyperparameters for it" not in Path(str(len(conf)), "report.md").read_text()


def test_hyperparameters_of_an_older_version_come_before_the_default() -> None:
    """RL Zoo has A2C's for Hopper-v4, not for Hopper-v5, where its default would leave observations as they are."""
    hopper = settings(Contestant("a2c"), "Hopper-v5")
    assert hopper.entry == "Hopper-v4"
    assert "normalize:True" in hopper.flags[hopper.flags.index("-params") :]
    assert settings(Contestant("a2c"), "InvertedPendulum-v5").entry == "default"
    for algo, env_id in (("a2c", "InvertedPendulum-v5"), ("a2c", "CartPole-v1"), ("reinforce", "Hopper-v5")):
        assert settings(Contestant(algo), env_id).flags == []
    with pytest.raises(ValueError, match="no entry for CartPole-v1, and no `default`"):
        entry_for("CartPole-v1", {"Acrobot-v1": {}})


def test_the_default_normalizes_what_can_be_normalized(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is recorded of a run is what RL Zoo does, which needs no flags for it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("own")
    box, discrete = (settings(Contestant("reinforce"), env_id) for env_id in ("Own-v0", "FrozenLake-v1"))
    assert box.hyperparameters == entries("reinforce")["default"]
    assert discrete.hyperparameters == {k: v for k, v in box.hyperparameters.items() if k != "normalize"}
    assert (box.flags, discrete.flags) == ([], [])


def test_nothing_of_the_default_is_left_where_an_older_version_has_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RL Zoo would take ``default`` for the newer version. What is unset is what the class has."""
    spec = gym.envs.registration.EnvSpec("CartPole-v7", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)
    monkeypatch.setitem(gym.registry, "CartPole-v7", spec)
    file = tmp_path / "mine.yml"
    default = {"gamma": 0.5, "n_envs": 2, "normalize": True, "frame_stack": 2, "policy_kwargs": "dict(net_arch=[3])"}
    own = {"policy": "MlpPolicy", "n_timesteps": 20, "n_episodes": 3}
    file.write_text(json.dumps({"default": {**own, **default}, "CartPole-v1": own}))
    taken = settings(Contestant("reinforce", str(file)), "CartPole-v7")
    assert taken.hyperparameters == own
    monkeypatch.setattr(sys, "argv", ["sb3-reinforce", "train", "--env", "CartPole-v7", *taken.flags, "-f", str(tmp_path)])
    cli.main()
    model = REINFORCE.load(tmp_path / "reinforce/CartPole-v7_1/CartPole-v7.zip")
    assert (model.gamma, model.n_envs, model.n_episodes, model.policy_kwargs) == (0.99, 1, 3, {})
    assert model.observation_space.shape == (4,)
    assert not list(tmp_path.glob("**/vecnormalize.pkl"))


def test_a_time_limit_that_monitor_does_not_see_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yml"
    wrapper = [{"gymnasium.wrappers.TimeLimit": {"max_episode_steps": 40}}, "gymnasium.wrappers.FlattenObservation"]
    file.write_text(json.dumps({"CartPole-v1": {"policy": "MlpPolicy", "n_timesteps": 20, "env_wrapper": wrapper}}))
    with pytest.raises(ValueError, match="`env_wrapper` must not have a TimeLimit"):
        settings(Contestant("a2c", str(file)), "CartPole-v1")


def test_random_actions_are_those_that_are_offered() -> None:
    class Offering(gym.Env[Any, Any]):
        observation_space, action_space = gym.spaces.Discrete(1), gym.spaces.Discrete(5)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.taken: list[int] = []
            return 0, {}

        def action_masks(self) -> Any:
            return np.array([False, True, False, True, False])

        def step(self, action: Any) -> Any:
            assert action in (1, 3)
            self.taken.append(action)
            return 0, float(action), len(self.taken) == 20, False, {}

    gym.register("Offering-v0", Offering)
    try:
        assert 20 < (tryout.random_return("Offering-v0") or 0) < 60
    finally:
        del gym.registry["Offering-v0"]


def test_a_model_whose_buffer_asks_for_its_environment_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hindsight experience replay, which RL Zoo's ``enjoy`` gives one, too."""
    spec = gym.envs.registration.EnvSpec("Flip-v0", "stable_baselines3.common.envs:BitFlippingEnv", kwargs={"n_bits": 3})
    monkeypatch.setitem(gym.registry, "Flip-v0", spec)
    monkeypatch.setattr(gym.logger, "min_level", gym.logger.ERROR)  # its observations are integers of another size
    file = tmp_path / "her.yml"
    buffer = {"replay_buffer_class": "HerReplayBuffer", "learning_starts": 20, "buffer_size": 100}
    file.write_text(json.dumps({"Flip-v0": {"policy": "MultiInputPolicy", "n_timesteps": 30, **buffer}}))
    flags = ("train", "--algo", "dqn", "--env", "Flip-v0", "--conf-file", file, "--eval-freq", -1, "-f", tmp_path)
    monkeypatch.setattr(sys, "argv", ["sb3-reinforce", *map(str, flags)])
    cli.main()
    assert runs.evaluate_last_model(tmp_path / "dqn/Flip-v0_1", "dqn", "Flip-v0", 2).shape == (2,)


def test_brackets_in_the_name_of_a_folder(tmp_path: Path) -> None:
    """SB3 reads a pattern there."""
    folder = tmp_path / "runs [2]"
    folder.mkdir()
    (folder / "0.monitor.csv").write_text('#{"t_start": 0, "env_id": "X"}\nr,l,t\n1.5,10,0.5\n')
    assert runs.training_curve(folder)["return"].tolist() == [1.5]


def test_changed_hyperparameters() -> None:
    """One of a file's, and the rest as they are."""
    own, once = (settings(Contestant("reinforce", changes=changes), "CartPole-v1") for changes in ((), (("n_epochs", 1),)))
    assert own.hyperparameters["n_epochs"] == 10
    assert once.hyperparameters == {**own.hyperparameters, "n_epochs": 1}
    assert once.overrides == {"n_epochs": 1}
    assert once.flags == ["-params", "n_epochs:1"]
    assert once.digest != own.digest


def test_same_wrappers() -> None:
    """A2C with what REINFORCE has on MountainCar-v0, where an action is held for 16 steps, for as many steps as before."""
    own, same = (settings(Contestant("a2c", wrappers=wrappers), "MountainCar-v0") for wrappers in ("own", "reinforce"))
    ours = entries("reinforce")["MountainCar-v0"]
    assert own.held == 1
    assert same.held == 16
    assert same.hyperparameters["env_wrapper"] == ours["env_wrapper"]
    assert same.hyperparameters["n_timesteps"] == own.hyperparameters["n_timesteps"] / 16
    assert same.overrides.keys() == {"env_wrapper", "n_timesteps"}
    assert same.flags == ["-params", *(f"{name}:{value!r}" for name, value in same.overrides.items())]
    assert settings(Contestant("a2c", wrappers="reinforce"), "MountainCar-v0", 1601).flags[:2] == ["-n", "101"]
    assert settings(Contestant("a2c", wrappers="reinforce"), "CartPole-v1") == settings(Contestant("a2c"), "CartPole-v1")


def test_same_wrappers_are_those_that_reinforce_has_here(tmp_path: Path) -> None:
    """Where it was given another file of hyperparameters, they are that file's."""
    file = tmp_path / "mine.yml"
    entry = {**entries("reinforce")["CartPole-v1"], "env_wrapper": [{"rl_zoo3.wrappers.FrameSkip": {"skip": 3}}]}
    file.write_text(json.dumps({"CartPole-v1": entry}))
    for algo, conf_file in (("reinforce", str(file)), ("a2c", None)):
        same = settings(Contestant(algo, conf_file, "reinforce", str(file)), "CartPole-v1")
        assert same.held == 3
        assert same.hyperparameters["env_wrapper"] == entry["env_wrapper"]


def test_no_wrappers() -> None:
    """REINFORCE on MountainCar-v0 as it is."""
    own, none = (settings(Contestant("reinforce", wrappers=wrappers), "MountainCar-v0") for wrappers in ("own", "none"))
    assert own.held == 16
    assert none.held == 1
    assert "env_wrapper" not in none.hyperparameters
    assert none.overrides == {"env_wrapper": None, "n_timesteps": own.hyperparameters["n_timesteps"] * 16}
    assert none.digest != own.digest


@pytest.mark.slow
def test_wrappers_that_were_taken_away_are_gone_when_a_model_is_evaluated(tmp_path: Path) -> None:
    """RL Zoo's own evaluation would not do without ``frame_stack`` and ``vec_env_wrapper``."""
    with pytest.MonkeyPatch.context() as patch:
        train = [
            "sb3-reinforce",
            "train",
            "--env",
            "MountainCar-v0",
            "-n",
            "200",
            "--eval-freq",
            "-1",
            "--verbose",
            "0",
            "-f",
            "logs",
        ]
        patch.setattr(
            sys, "argv", [*train, "-params", *(f"{name}:None" for name in ("env_wrapper", "vec_env_wrapper", "frame_stack"))]
        )
        patch.setattr(sys, "path", [*sys.path])
        cli.main()
    folder = runs.latest_run("logs", "reinforce", "MountainCar-v0")
    assert list(runs.evaluate_last_model(folder, "reinforce", "MountainCar-v0", 2)) == [-200, -200]
    assert runs.training_curve(folder)["steps"].iloc[-1] == 200 * REINFORCE.load(folder / "MountainCar-v0.zip").n_episodes
    with pytest.raises(ValueError, match="The last model's 2 episodes have not ended after 399 actions"):
        runs.evaluate_last_model(folder, "reinforce", "MountainCar-v0", 2, patience=399)
    with pytest.raises(FileNotFoundError, match="No saved a2c agent"):
        runs.latest_run("logs", "a2c", "MountainCar-v0")


def test_steps_per_action() -> None:
    skip = {"env_wrapper": [{"rl_zoo3.wrappers.FrameSkip": {"skip": 3}}]}
    assert steps_per_action("CartPole-v1", {}) == 1
    assert steps_per_action("CartPole-v1", skip) == 3
    assert steps_per_action("CartPole-v1", {"env_wrapper": "gymnasium.wrappers.FlattenObservation"}) == 1


def test_what_the_class_decides_is_among_the_arguments() -> None:
    """So that settings that differ in it alone are told apart."""
    full = resolved(REINFORCE, settings(Contestant("reinforce"), "CartPole-v1"), 500)
    assert full["n_timesteps"] == 500
    assert full["n_episodes"] == entries("reinforce")["CartPole-v1"]["n_episodes"]
    assert full["vf_coef"] == 0.5
    assert not {"env", "seed", "device", "verbose", "_init_setup_model"} & full.keys()
    assert digest(full) != digest({**full, "vf_coef": 0.25})


def test_when_the_threshold_was_reached() -> None:
    """By the mean of 20 episodes."""
    curve = pd.DataFrame({"steps": range(10, 310, 10), "seconds": np.arange(30) / 10, "return": [0.0] * 9 + [1.0] * 21})
    assert runs.to_threshold(curve, 0.5) == {"steps_to_threshold": 200, "seconds_to_threshold": 1.9}
    never = {"steps_to_threshold": None, "seconds_to_threshold": None}
    assert runs.to_threshold(curve, 1.5) == runs.to_threshold(curve, np.nan) == never
    assert threshold("CartPole-v1") == 475
    assert np.isnan(threshold("Pendulum-v1"))


def test_small_returns_keep_their_digits() -> None:
    assert [records.rounded(value) for value in (2.00004e-5, 12345.6789, -3)] == [2.00004e-5, 12345.68, -3]


@pytest.mark.usefixtures("_quick")
def test_an_environment_whose_episodes_do_not_end_is_named_before_it_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    run("--env", "Endless-v0", *OWN_FLAGS[2:], "--algos", "a2c")
    assert "Endless-v0: no episode of random actions ended in" in capsys.readouterr().err


def test_actions_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean of whole episodes; none where they do not end."""
    monkeypatch.setattr(tryout, "RANDOM_EPISODES", 50)
    monkeypatch.setattr(tryout, "RANDOM_SECONDS", 60)
    low = tryout.random_return("CartPole-v1")
    assert low == tryout.random_return("CartPole-v1")
    assert low is not None
    assert 15 < low < 30
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("own")
    monkeypatch.setattr(tryout, "RANDOM_SECONDS", 0.1)
    assert tryout.random_return("Endless-v0") is None


@pytest.mark.usefixtures("_quick")
def test_actions_at_random_are_played_where_the_algorithms_are() -> None:
    """Their hyperparameters may have arguments of the environment."""
    Path("told.py").write_text(TOLD)
    entry = {"policy": "MlpPolicy", "n_timesteps": 50, "env_kwargs": {"size": 7}}
    Path("told.yml").write_text(json.dumps({"Told-v0": entry}))
    run("--env", "Told-v0", "--gym-packages", "told", "-conf", "told.yml", "--algos", "a2c", "--seeds", 1, "--jobs", 1)
    assert [row["random_return"] for row in rows()] == [7]


def test_returns_that_are_no_numbers_are_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of an environment that returned NaN to an algorithm that does not mind."""
    monkeypatch.setattr(runs, "latest_run", lambda *_: tmp_path)
    monkeypatch.setattr(runs, "training_curve", lambda _: pd.DataFrame({"steps": [5], "seconds": [1.0], "return": [1.0]}))
    monkeypatch.setattr(runs, "evaluate_last_model", lambda *_, **__: np.array([1.0, np.nan]))
    task = runs.Task({}, {}, "a2c", "Own-v0", [], "", np.nan, 2, "")
    with pytest.raises(ValueError, match=r"returns are not finite: \[1.0, nan\]"):
        runs._result(task)


def test_texts_of_digits_stay_texts(tmp_path: Path) -> None:
    """A digest of digits alone would be another run's number."""
    records.append(tmp_path / "a.csv", {"settings": "00123456", "commit": "12e4567", "seed": 1})
    assert records.read(tmp_path / "a.csv") == [{"settings": "00123456", "commit": "12e4567", "seed": 1}]


def test_a_commit_is_of_the_whole_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in it one is: what was changed elsewhere may be what was run."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", *words], check=True)

    (tmp_path / "folder").mkdir()
    for name in ("env.py", "folder/results.csv"):
        (tmp_path / name).touch()
    git("init", "-q")
    git("add", "env.py", "folder")
    git("commit", "-qm", "one")
    monkeypatch.chdir(tmp_path / "folder")
    commit = records.provenance()["commit"]
    assert len(commit) >= 7
    assert not commit.endswith("dirty")
    (tmp_path / "env.py").write_text("changed")
    assert records.provenance()["commit"] == f"{commit}-dirty"
    monkeypatch.chdir("/")
    assert records.provenance()["commit"] == ""


def test_rows_come_all_or_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other file"):
        records.append(tmp_path / "a.csv", {"a": 1}, {"b": 2})
    assert not (tmp_path / "a.csv").exists()
    records.append(tmp_path / "a.csv", {"a": 1}, {"a": "x,y"})
    assert list(csv.reader((tmp_path / "a.csv").read_text().splitlines())) == [["a"], ["1"], ["x,y"]]
