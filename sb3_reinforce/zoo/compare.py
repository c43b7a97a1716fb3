"""``sb3-reinforce compare``: algorithms on environments over seeds, with a report. Runs go through RL Zoo's own pipeline."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from sb3_reinforce.zoo import records
from sb3_reinforce.zoo.runs import EVAL_EPISODES

if TYPE_CHECKING:
    from sb3_reinforce.zoo.sweep import Job

#: Held while a command works in the folder.
LOCK = ".lock"


def main(arguments: list[str]) -> None:
    """Do what the command line says: all that is missing of a comparison, and its report.

    :raises SystemExit: 2 if nothing can be compared so, 1 if a run has failed, 130 after Ctrl-C
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    folder = Path(args.log_folder)
    if args.report_only:
        if not (folder / records.RESULTS).is_file():
            parser.error(f"--report-only: there is no {records.RESULTS} in {folder}, which -f names")
        _report(folder)
        return
    if not args.env or not args.algos:
        parser.error("--env and --algos are required, unless --report-only is given")

    if args.first_seed + args.seeds > 2**32:
        parser.error(f"--first-seed: seeds must be below 2**32, but the last would be {args.first_seed + args.seeds - 1}")
    try:
        _compare(args, folder, parser)
    except Timeout:
        parser.error(f"another `compare` is at work in {folder}: wait for its end, or take another folder with -f")
    except OSError as error:
        when = "with room" if error.errno == errno.ENOSPC else "once it can be written to"
        sys.exit(f"sb3-reinforce compare: {error}. What was finished is in {folder}; {when}, the same command goes on.")
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on.", file=sys.stderr)
        sys.exit(130)


def _compare(args: argparse.Namespace, folder: Path, parser: argparse.ArgumentParser) -> None:
    """Check what is asked for, run what is missing, and report.

    :raises Timeout: if another command works in the folder
    :raises OSError: if the disk is full, or the folder cannot be written to
    """
    from sb3_reinforce.zoo import plan
    from sb3_reinforce.zoo.registration import register

    register()
    try:
        plan.import_environments(args.gym_packages)
        contestants = plan.contestants(args)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"-f: {type(error).__name__}: {error}")
        with FileLock(folder / LOCK, timeout=0):
            _work(plan.jobs(args, contestants, folder), args.jobs, folder)
    except plan.RefusedError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sb3-reinforce compare",
        description="Train algorithms on environments over seeds, through RL Zoo, each run in a process of its own with one "
        "thread, and report. One folder holds results.csv, curves.csv, settings.json, report.md, curves.png, runs/, with two "
        "algorithms or more profiles.png, and failed.json where a run has failed. "
        "The same command goes on where it was interrupted, and tries again what failed; with more seeds, algorithms or "
        "environments, it runs what is missing.",
    )
    parser.add_argument("--env", nargs="+", metavar="ID", help="environments")
    parser.add_argument(
        "--algos", nargs="+", metavar="ALGO", help="RL Zoo's names: reinforce a2c ppo ...; the first is the reference"
    )
    parser.add_argument(
        "--seeds", type=partial(_whole_number, least=1), default=5, metavar="N", help="number of seeds (default: 5)"
    )
    parser.add_argument(
        "--first-seed", type=partial(_whole_number, least=0), default=0, metavar="SEED",
        help="the first of them; REINFORCE's hyperparameters were chosen on some below 1000 (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "-n", "--n-timesteps", type=partial(_whole_number, least=1), default=0, metavar="STEPS",
        help="steps of the environment in each run; an action that a wrapper holds for k steps counts k "
        "(default: each algorithm's hyperparameters say how many)",
    )  # fmt: skip
    parser.add_argument(
        "--eval-episodes", type=partial(_whole_number, least=1), default=EVAL_EPISODES, metavar="N",
        help=f"episodes that each last model is evaluated over (default: {EVAL_EPISODES})",
    )  # fmt: skip
    parser.add_argument("--gym-packages", nargs="+", default=[], metavar="MODULE", help="modules that register environments")
    parser.add_argument(
        "--jobs", type=partial(_whole_number, least=1), default=_processors(), metavar="N",
        help="runs at a time (default: one a processor)",
    )  # fmt: skip
    parser.add_argument("-f", "--log-folder", default="logs/compare", metavar="FOLDER", help="default: logs/compare")
    parser.add_argument(
        "-conf", "--conf-file", nargs="+", default=[], metavar="[ALGO:]FILE",
        help="YAML file of hyperparameters, of one algorithm or of all",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--same-wrappers",
        action="store_true",
        help="every algorithm with the environment wrappers of REINFORCE's hyperparameters",
    )
    which.add_argument("--no-wrappers", action="store_true", help="every algorithm on the environment as it is")
    parser.add_argument("--report-only", action="store_true", help="run nothing; report on all that the folder holds")
    return parser


def _processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _whole_number(text: str, least: int) -> int:
    try:
        number = int(float(text)) if float(text).is_integer() else -1
    except (ValueError, OverflowError):
        number = -1
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text}")
    return number


def _work(jobs: list[Job], at_a_time: int, folder: Path) -> None:
    """Run what is missing, and report."""
    from sb3_reinforce.zoo.sweep import Sweep, named

    sweep = Sweep(folder / records.RESULTS, folder / records.CURVES, folder / "runs")
    runs = {job.run for job in jobs}
    done = len(runs & sweep.done())
    print(f"{len(jobs) - done} runs to do, {done} done before", flush=True)
    try:
        failed = sweep.work(jobs, at_a_time)
        told = {**records.read_json(folder / records.FAILED), **{named(run): why for run, why in failed.items()}}
    except ValueError as error:  # of a file that has changed since
        sys.exit(f"sb3-reinforce compare: {error}")
    except KeyboardInterrupt:
        print(
            f"\nInterrupted: {len(runs & sweep.done())} of {len(jobs)} runs are done. The same command goes on.",
            file=sys.stderr,
        )
        sys.exit(130)
    if told:
        records.replace(folder / records.FAILED, json.dumps(told, indent=1) + "\n")
    if (folder / records.RESULTS).is_file():
        _report(folder)
    for run, complaint in failed.items():
        print(f"failed: {named(run)}: {complaint}", file=sys.stderr)
    if failed:
        sys.exit(f"{len(failed)} of {len(jobs)} runs have failed. The same command tries them again.")


def _report(folder: Path) -> None:
    from sb3_reinforce.zoo import report

    try:
        report.write(folder)
    except (OSError, ValueError) as error:
        sys.exit(f"sb3-reinforce compare: there is no report: {type(error).__name__}: {error}")
    print(f"Report: {folder / 'report.md'}")
