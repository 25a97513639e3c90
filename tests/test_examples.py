"""Each script of `examples/` runs as `docs/examples.md` calls it, and prints what the page shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 80
PAGE = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```sh\npython (examples/\w+\.py) (\S+)\n```\n\n```text\n(.*?)```", PAGE, flags=re.DOTALL)
NUMBER = re.compile(r"\d+(\.\d+)?")
EXACT = ("examples/audit_verdicts.py",)
"""Prints the same digits everywhere; what a training gives differs in the last ones from machine to machine."""


def printed(script: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / script), str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder.parent,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_the_page_shows_every_script_and_each_is_short() -> None:
    scripts = sorted(ROOT.glob("examples/*.py"))
    assert sorted(script for script, _, _ in SHOWN) == [str(path.relative_to(ROOT)) for path in scripts]
    for path in scripts:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, path.name


@pytest.mark.parametrize(("script", "folder", "shown"), SHOWN, ids=[script for script, _, _ in SHOWN])
def test_a_script_prints_what_the_page_shows(script: str, folder: str, shown: str, tmp_path: Path) -> None:
    lines = printed(script, tmp_path / folder).splitlines()
    for line in shown.splitlines():
        if script in EXACT:
            assert line in lines
        else:
            assert NUMBER.sub("#", line) in [NUMBER.sub("#", other) for other in lines], shlex.join(lines)
