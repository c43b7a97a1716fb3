"""Measurements as rows of a CSV file, each with what it takes to believe it later."""

import csv
import hashlib
import io
import json
import os
import platform
import subprocess
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

#: Files of a comparison's folder.
RESULTS, CURVES, SETTINGS, FAILED = "results.csv", "curves.csv", "settings.json", "failed.json"
#: What to do where a table is lost or damaged.
REMEDY = f"Delete {RESULTS} and {CURVES}, and the command that made them makes both again, from `runs/`."
#: Columns of its tables that are numbers, those that may be empty, and the others of ``results.csv``.
CURVE_NUMBERS = ("seed", "steps", "seconds", "return_mean", "n_episodes")
NUMBERS = (*CURVE_NUMBERS, "budget", "return_std", "held")
PERHAPS = ("steps_to_threshold", "seconds_to_threshold", "threshold", "random_return")
WORDS = ("algo", "env", "settings", "resolved", "entry", "versions", "cpu", "commit", "command")
PACKAGES = ("sb3_reinforce", "stable_baselines3", "sb3_contrib", "rl_zoo3", "tianshou", "torch", "numpy", "gymnasium")
#: Their versions decide what an environment does.
SIMULATORS = ("mujoco", "box2d", "ale_py")

#: Columns that are no numbers, whatever their digits.
TEXTS = ("settings", "resolved", "commit")

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """All rows, numbers as numbers; none if there is no file.

    :raises ValueError: if a row has more or fewer cells than there are columns
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark before the first name
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table: {error}") from error
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"{path} is not whole: line {line} has more or fewer cells than there are columns")
    return [{name: text if name in TEXTS else _parsed(text) for name, text in row.items()} for row in rows]


def read_runs(path: Path) -> list[Row]:
    """The rows of a comparison's ``results.csv``.

    :raises ValueError: if it is not whole or of something else
    """
    return _checked(path, NUMBERS, PERHAPS, WORDS)


def read_curves(path: Path) -> list[Row]:
    """The rows of a comparison's ``curves.csv``.

    :raises ValueError: if it is not whole or of something else
    """
    return _checked(path, CURVE_NUMBERS, (), WORDS[:2])


def _checked(path: Path, numbers: Iterable[str], perhaps: Iterable[str], words: Iterable[str]) -> list[Row]:
    try:
        rows = read(path)
    except ValueError as error:
        raise ValueError(f"{error}. {REMEDY}") from error
    missing = [name for name in (*words, *numbers, *perhaps) if rows and name not in rows[0]]
    if missing:
        raise ValueError(
            f"{path} is not of a comparison: take another folder with -f (or give it commas again, if another program has "
            f"saved it). It has no column {', '.join(missing)}"
        )
    for line, row in enumerate(rows, start=2):
        for name in (*numbers, *perhaps):
            if isinstance(row[name], str) and (row[name] or name in numbers):
                wrong = f"`{name}` in line {line} must be a number, but it is {row[name]!r}"
                raise ValueError(f"{path} is not whole: {wrong}. {REMEDY}")
    return rows


def rounded(value: float) -> float:
    """Seven digits, however small the number is."""
    return float(f"{value:.7g}")


def read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing if there is no file.

    :raises ValueError: if it is no whole JSON object
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not whole: {error}") from error


def _parsed(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def append(path: Path, *rows: Mapping[str, Any]) -> None:
    """Add rows, all or none, so that neither an interrupted program nor a full disk loses what was there or leaves half a
    row. The first row of a file names the columns. Columns that somebody has added stay empty.

    :raises ValueError: if a row has columns that the file does not have
    """
    old = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    old += "\n" if old and not old.endswith("\n") else ""  # which some editors leave out
    columns = next(csv.reader(io.StringIO(old)), None) or list(rows[0])
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if not old:
        writer.writeheader()
    for row in rows:
        if not set(row) <= set(columns):
            raise ValueError(f"{path} does not have the columns {sorted(set(row) - set(columns))}: write to another file.")
        writer.writerow(row)
    replace(path, old + text.getvalue())


def replace(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it, now or after a crash, finds the old text or the new one.

    :raises OSError: if it cannot be written; the old file is left as it was
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def provenance(paths: Iterable[str] = (":/",), folder: Path | None = None) -> Row:
    """Versions, processor, machine and commit of this process.

    :param paths: what of the repository has to be as committed, or ``-dirty`` is added to the commit; by default all
    :param folder: a folder of that repository, to which ``paths`` are relative; None: the current one
    :return: ``versions``, ``cpu`` (with a digest that identifies the machine) and ``commit``, empty outside of a repository
    """
    versions = {"python": platform.python_version()}
    for package in PACKAGES + SIMULATORS:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    cpu = _processor()
    commit = _git(folder, "rev-parse", "--short", "HEAD")
    if commit and _git(folder, "status", "--porcelain", "--untracked-files=no", "--", *paths):
        commit += "-dirty"
    return {
        "versions": " ".join(f"{package}={number}" for package, number in versions.items()),
        "cpu": f"{os.cpu_count()} x {cpu}, machine {_machine(cpu)}",
        "commit": commit,
    }


def _processor() -> str:
    """Name, family and model: cloud machines give many processors the same name."""
    cpuinfo = Path("/proc/cpuinfo")
    facts = {}
    for line in cpuinfo.read_text().partition("\n\n")[0].splitlines() if cpuinfo.exists() else ():
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    return f"{facts['model name']} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def _machine(cpu: str) -> str:
    """A digest that tells this machine, or container, from others and gives away nothing of it."""
    address = uuid.getnode()
    made_up = address >> 40 & 1  # no hardware address was found, and the number is another one every time
    return hashlib.sha256(f"{platform.node()} {0 if made_up else address} {cpu}".encode()).hexdigest()[:8]


def _git(folder: Path | None, *words: str) -> str:
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=folder).stdout.strip()
    except FileNotFoundError:  # git is not installed
        return ""
