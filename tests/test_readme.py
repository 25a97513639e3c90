"""The README's commands run as they stand, in their order, from the project's folder."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONG = ("demo", "run", "report", "lineage", "evaluate", "probe", "calibrate", "preflight")
"""Need the training of `medjudge run`; the others run in seconds."""


def commands():
    """The lines of the README's blocks that begin with `medjudge`, split as a shell splits them."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("medjudge ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def is_short(arguments):
    return arguments[0] not in LONG or {"--help", "--dry-run"} & set(arguments)


def works(arguments, folder):
    done = subprocess.run(
        [sys.executable, "-m", "medjudge", *arguments], cwd=folder, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, f"medjudge {shlex.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    for name in ("examples", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def test_short_commands_run(folder):
    printed = {" ".join(arguments[:2]): works(arguments, folder) for arguments in commands() if is_short(arguments)}
    assert "read as" in printed["score examples/small_judge.csv"]
    assert (folder / "scored" / "index.html").exists()
    assert "time: about" in printed["run equivalence.toml"]


def test_other_lines_name_what_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in re.findall(r"```sh\n(.*?)```", text, flags=re.S):
        assert "TODO" not in line
    named = set(re.findall(r"`((?:docs|recipes|benchmarks|examples|tests|src)/[\w./-]+)`", text))
    assert named
    for path in named:
        assert (ROOT / path).exists(), path


@pytest.mark.slow
def test_all_commands_run_in_order(folder):
    for arguments in commands():
        works(arguments, folder)
