"""Rows of results, as the package records them, with this repository's commit; and tables written into README.md."""

import re
import shlex
import sys
from pathlib import Path

from sb3_reinforce.zoo import records
from sb3_reinforce.zoo.records import Row, append, read

__all__ = ["README", "RESULTS", "Row", "append", "between_markers", "provenance", "read", "show"]

RESULTS = Path(__file__).parent / "results"
README = RESULTS.parent.parent / "README.md"


def provenance() -> Row:
    """Versions, machine, commit of the package and its hyperparameters, and command of this process."""
    origin = records.provenance(("../../sb3_reinforce", "../../hyperparams"), RESULTS)
    return {**origin, "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])}


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
