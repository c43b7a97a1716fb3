"""Rows of results, as the package records them, with this repository's commit; and tables written into the pages that show
them."""

import argparse
import re
import shlex
import sys
from pathlib import Path

from sb3_reinforce.zoo import records
from sb3_reinforce.zoo.records import Row, append, read

__all__ = ["PAGES", "RESULTS", "Row", "append", "between_markers", "command_line", "provenance", "read", "show"]

RESULTS = Path(__file__).parent / "results"
#: The one that shows all tables, and the first one that is read, which shows some.
PAGES = (RESULTS.parent / "README.md", RESULTS.parent.parent / "README.md")


def command_line(doc: str | None, results: str, repeats: int) -> argparse.ArgumentParser:
    """The options of a program that measures by turns, goes on where it was stopped, and reports what there is.

    :param results: name of the file of rows
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="measurements of each, by turns")
    parser.add_argument("--out", type=Path, default=RESULTS / results, help="rows are added")
    parser.add_argument("--report-only", action="store_true", help="the table of what there is")
    return parser


def provenance() -> Row:
    """Versions, machine, commit of the package and its hyperparameters, and command of this process."""
    origin = records.provenance(("../../sb3_reinforce", "../../hyperparams"), RESULTS)
    return {**origin, "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])}


def between_markers(text: str, name: str, table: str) -> str:
    """The text with the table in the place of what ``<!-- name -->`` and ``<!-- /name -->`` enclose, if they are there."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}\n{table}\n\n{match[2]}", text, flags=re.DOTALL)


def show(name: str, table: str, source: Path) -> None:
    """Print a table, and write it between its markers if the rows it is made of are among the results."""
    print(f"\n{table}")
    if source.resolve().parent != RESULTS.resolve():
        return
    texts = {page: page.read_text() for page in PAGES}
    assert any(f"<!-- {name} -->" in text for text in texts.values()), f"no page has markers for {name}"
    for page, text in texts.items():
        page.write_text(between_markers(text, name, table))
