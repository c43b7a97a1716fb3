"""Measurements as rows of a CSV file, each with what it takes to believe it later."""

import csv
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = RESULTS.parent.parent / "README.md"
PACKAGES = ("sb3_reinforce", "stable_baselines3", "sb3_contrib", "rl_zoo3", "tianshou", "torch", "numpy", "gymnasium")

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """All rows, numbers as numbers; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: _parsed(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _parsed(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row at once, so that an interrupted program loses nothing. The first row names the columns.

    :raises ValueError: if the row has other columns than the file
    """
    columns = list(row)
    if path.exists():
        with path.open(newline="") as file:
            columns = next(csv.reader(file))
        if set(columns) != set(row):
            raise ValueError(f"{path} has the columns {columns}, not {list(row)}: write to another file.")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def provenance() -> Row:
    """Versions, machine, commit and command of this process."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    commit = _git("rev-parse", "--short", "HEAD")
    if _git("status", "--porcelain", "--", "../../sb3_reinforce", "../../hyperparams"):
        commit += "-dirty"
    return {
        "versions": " ".join(f"{package}={number}" for package, number in versions.items()),
        "cpu": f"{os.cpu_count()} x {cpu}",
        "commit": commit,
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
    }


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=RESULTS).stdout.strip()


def between_markers(text: str, name: str, table: str) -> str:
    """The text with the table in the place of what ``<!-- name -->`` and ``<!-- /name -->`` enclose."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    assert re.search(pattern, text, re.DOTALL), f"the text has no markers for {name}"
    return re.sub(pattern, lambda match: f"{match[1]}\n{table}\n\n{match[2]}", text, flags=re.DOTALL)


def show(name: str, table: str, source: Path) -> None:
    """Print a table, and write it into the README between its markers if the rows it is made of are among the results."""
    print(f"\n{table}")
    if source.resolve().parent == RESULTS.resolve():
        README.write_text(between_markers(README.read_text(), name, table))
