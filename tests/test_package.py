"""What holds for the package as a whole: it imports, imports run one way, the door opens fast."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import medjudge

SOURCE = Path(medjudge.__file__).parent
MODULES = sorted(
    name for _, name, _ in pkgutil.walk_packages(medjudge.__path__, "medjudge.") if name != "medjudge.__main__"
)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name: str) -> None:
    importlib.import_module(name)


def test_a_stage_never_imports_a_stage() -> None:
    shared = {"report"}  # the CLI's printing of an outcome lives beside the page
    for path in (SOURCE / "stages").glob("*.py"):
        for imported in re.findall(r"from medjudge\.stages\.(\w+)", path.read_text(encoding="utf-8")):
            assert imported in shared, f"{path.name} imports stages.{imported}"


@pytest.mark.parametrize("package", ["tasks", "data", "metrics", "rewards", "reporting"])
def test_torch_is_imported_where_it_is_needed_alone(package: str) -> None:
    for path in [
        *(SOURCE / package).rglob("*.py"),
        *(SOURCE / "cli").glob("*.py"),
        SOURCE / "recipe.py",
        SOURCE / "runs" / "pipeline.py",
    ]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^(import|from) (torch|transformers|trl|peft|medjudge\.training)", text, re.MULTILINE), (
            path
        )


def fastest(command: list[str], *, runs: int = 5) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Least wall seconds of some runs: a busy machine makes a run slower, never faster."""
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        best = min(best, time.perf_counter() - started)
    return best, done


def imported_modules(arguments: list[str]) -> str:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "medjudge", *arguments], capture_output=True, text=True
    ).stderr


@pytest.mark.parametrize("arguments", [["--help"], ["run", "missing.toml"], ["evaluate", "--help"]])
def test_help_and_config_errors_load_no_torch(arguments: list[str]) -> None:
    assert not re.search(r"\| +(torch|transformers|scipy|sklearn|pandas|matplotlib)\n", imported_modules(arguments))
