"""A small part of `benchmarks/fuzz.py`: damaged recipes, rows, verdict files and commands end with one clear error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"


@pytest.mark.parametrize(("kind", "n"), [("recipes", 150), ("rows", 120), ("verdicts", 50), ("commands", 50)])
def test_no_damaged_input_ends_with_a_traceback(kind: str, n: int) -> None:
    arguments = [sys.executable, str(PROGRAM), "--only", kind, "--n", str(n), "--seed", "7", "--processes", "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{n} inputs, 0 failures" in done.stdout


def test_a_failure_is_found_and_told(tmp_path: Path) -> None:
    """The program that looks for faults sees one: a reader that breaks at every input."""
    broken = (
        "import runpy, sys; import medjudge.commands.check_data as module\n"
        "def breaks(*_, **__): raise KeyError('row')\n"
        "module.check_data = breaks\n"
        "sys.argv = ['fuzz.py', '--only', 'rows', '--case', '1']\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.stdout.startswith("failed\nrows 1 (seed 0): KeyError")
