"""The derivation as a program says what it should."""

import re
import runpy
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "derivation.py"


def test_both_sides_of_each_line_agree(capsys):
    """To the rounding of float32; but for the biased reward-to-go, which differs visibly."""
    runpy.run_path(str(SCRIPT), run_name="__main__")
    output = capsys.readouterr().out
    differences = {
        title: float(value)
        for title, value in re.findall(r"\n\n(.*)\n  left .*\n  right .*\n  largest difference (\S+)", output)
    }
    assert len(differences) == 10
    biased = [title for title in differences if title.startswith("Without")]
    assert [title for title, difference in differences.items() if difference > 1e-6] == biased
    assert differences[biased[0]] > 1e-3
