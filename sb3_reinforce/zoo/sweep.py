"""Many runs, several at a time, each in a process of its own; what is finished is recorded at once and never run again."""

import errno
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tqdm import tqdm

from sb3_reinforce.zoo import records
from sb3_reinforce.zoo.names import run_name
from sb3_reinforce.zoo.runs import EVAL_EPISODES, Task
from sb3_reinforce.zoo.settings import Contestant, Hyperparameters, Settings, digest

Process = subprocess.Popen[bytes]
#: No run is started with less room than this, in bytes, on the disk that takes its model.
ROOM = 100_000_000


class Run(NamedTuple):
    """What tells runs apart, as columns of ``results.csv``."""

    algo: str  # name in this comparison
    env: str
    seed: int
    budget: int  # steps of the environment; 0 leaves the number to the hyperparameters
    settings: str  # digest of the hyperparameters


class Job(NamedTuple):
    """A run, and all that it takes."""

    run: Run
    contestant: Contestant
    settings: Settings
    columns: Mapping[str, Any]  # more columns of its row
    threshold: float
    flags: Sequence[str] = ()  # more flags of `sb3-reinforce train`
    eval_episodes: int = EVAL_EPISODES  # of the last model

    def train(self) -> list[str]:
        """The command, but for the log folder."""
        words = ["train", "--algo", self.contestant.algo, "--env", self.run.env, "--seed", str(self.run.seed)]
        words += ["--eval-freq", "-1", "--num-threads", "1", "--verbose", "0", "--device", "cpu"]
        return [*words, *self.flags, *self.settings.flags]


def description(taken: Settings, full: Hyperparameters, threshold: float, random_return: float | None) -> records.Row:
    """Columns that say what a run was made with.

    :param full: all its arguments
    :param threshold: of the environment; NaN: none
    :param random_return: of actions drawn at random; None: not known
    """
    return {
        "resolved": digest(full),
        "entry": taken.entry,
        "held": taken.held,
        "threshold": None if math.isnan(threshold) else threshold,
        "random_return": random_return,
    }


class Sweep:
    """Jobs, and the folder of their logs and tables.

    :param results: the table with a row for each run; the points of the curves are beside it
    :param curves: the table of those
    :param logs: a folder for what RL Zoo leaves of each run
    :param provenance: makes the columns that say with what a run was made, when it starts
    """

    def __init__(
        self, results: Path, curves: Path, logs: Path, provenance: Callable[[], records.Row] = records.provenance
    ) -> None:
        self.results, self.curves, self.logs = results, curves, logs
        self._provenance = provenance

    def done(self) -> set[Run]:
        """Those that have a row."""
        return {Run(*(row[name] for name in Run._fields)) for row in records.read(self.results)}

    def work(self, jobs: Sequence[Job], at_a_time: int) -> dict[Run, str]:
        """Do the jobs that have not been done, and show how many are.

        :param at_a_time: how many run beside each other
        :return: runs that have failed, and why; they have no row, so that another sweep tries them again
        :raises OSError: if the disk is full, or the tables cannot be written, once what was running has ended
        :raises ValueError: if a table or a result was changed meanwhile, likewise
        """
        done = self.done()
        due = [job for job in jobs if job.run not in done]
        failed: dict[Run, str] = {}
        stopped: OSError | ValueError | None = None
        running: dict[Process, Job] = {}
        with tqdm(total=len(jobs), initial=len(jobs) - len(due), unit="run", dynamic_ncols=True) as bar:
            try:
                while due or running:
                    try:
                        self._turn(due, running, failed, at_a_time, bar)
                    except (OSError, ValueError) as error:  # a full disk, or a table that somebody has changed
                        bar.write(f"{error}: nothing more is begun, and what runs goes on to its end", file=sys.stderr)
                        stopped, due = stopped or error, []
                    time.sleep(0.05)
            finally:
                for process in running:
                    process.kill()
                    _closed(process)
        if stopped is not None:
            raise stopped
        return failed

    def _turn(
        self, due: list[Job], running: dict[Process, Job], failed: dict[Run, str], at_a_time: int, bar: "tqdm[Any]"
    ) -> None:
        """Start what may start, and record what has ended."""
        while due and len(running) < at_a_time:
            job = due.pop(0)
            if self._is_finished(job):  # in a sweep that ended before it could record it
                self._record(job.run)
                bar.update()
            else:
                running[self._start(job)] = job
        for process in [process for process in running if process.poll() is not None]:
            job = running.pop(process)
            _closed(process)
            if process.returncode == 0 and self._is_finished(job):
                self._record(job.run)
            else:
                failed[job.run] = self._complaint(job.run, process.returncode)
                bar.write(f"failed: {named(job.run)}: {failed[job.run]}", file=sys.stderr)
            bar.update()

    def folder(self, run: Run) -> Path:
        """RL Zoo's log folder of a run."""
        return self.logs / "-".join((quote(run.env, safe=""), run.algo, *map(str, run[2:])))

    def _result(self, run: Run) -> Path:
        return self.folder(run) / "result.json"

    def _is_finished(self, job: Job) -> bool:
        try:
            row = records.read_json(self._result(job.run)).get("row", {})
        except ValueError:  # written when the disk was full, say
            return False
        expected = {**job.run._asdict(), "resolved": job.columns.get("resolved"), "n_episodes": job.eval_episodes}
        return bool(row) and all(row.get(name) == value for name, value in expected.items())

    def _start(self, job: Job) -> Process:
        folder = self.folder(job.run)
        folder.mkdir(parents=True, exist_ok=True)
        self._result(job.run).unlink(missing_ok=True)  # of an earlier attempt, with other arguments or not whole
        if shutil.disk_usage(folder).free < ROOM:
            raise OSError(errno.ENOSPC, f"less than {ROOM // 1_000_000} MB are left on the disk of {folder}")
        task = Task(
            key=job.run._asdict(),
            columns={**job.columns, **self._provenance(), "command": shlex.join(["sb3-reinforce", *job.train()])},
            algo=job.contestant.algo,
            env_id=job.run.env,
            train=[*job.train(), "-f", str(folder)],
            logs=str(folder),
            threshold=job.threshold,
            eval_episodes=job.eval_episodes,
            result=str(self._result(job.run)),
        )
        with (folder / "output.txt").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "sb3_reinforce.zoo.runs", json.dumps(task._asdict())],
                stdin=subprocess.PIPE,  # closed when this process ends, whereupon the child ends too
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            )

    def _record(self, run: Run) -> None:
        """Rows of a run that has ended. Its own comes last, since it says that all is there."""
        result = records.read_json(self._result(run))
        records.append(self.curves, *result["curve"])
        records.append(self.results, result["row"])

    def _complaint(self, run: Run, returncode: int) -> str:
        """Why a run has failed: the signal that ended it, or the error that it has written."""
        output = self.folder(run) / "output.txt"
        if returncode < 0:
            name = signal.Signals(-returncode).name
            why = f"ended by {name}{', as where memory runs out' if name == 'SIGKILL' else ''}"
        elif returncode == 0:
            why = "it ended before it had a result"
        else:
            why = _error(output.read_text(encoding="utf-8", errors="replace"))
        return f"{why} (all it wrote: {output})"


def _error(output: str) -> str:
    """The first line of the last error in what a program has written; without one, its last line."""
    _, traceback, rest = output.rpartition("Traceback (most recent call last):\n")
    named = (line for line in rest.split("\n") if traceback and line[:1].isidentifier())
    lines = [line.strip() for line in output.split("\n") if line.strip()]
    return next(named, lines[-1] if lines else "it wrote nothing")


def _closed(process: Process) -> None:
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def named(run: Run) -> str:
    return run_name(run.algo, run.env, run.seed)
