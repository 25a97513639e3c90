"""`docs/extend.md` is followed to the letter on a copy of the package, and what it says comes out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import medjudge

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
PACKAGE = "medjudge/"


@dataclass(frozen=True)
class Block:
    """A block of the page: its language, where it goes, and its text without the line that says so."""

    language: str
    place: str
    text: str


def blocks_of(section: str) -> list[Block]:
    blocks = []
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE):
        place = re.match(r"# (\S+\.(?:py|toml)(?:, (?:at the imports|(?:above|in|the line) \w+))?)\n", text)
        blocks.append(Block(language, place[1] if place else "", text[place.end() :] if place else text))
    return blocks


SECTIONS = {
    title: blocks_of(body) for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.S | re.M)
}


def lay(block: Block, source: Path, folder: Path) -> None:
    """Writes a block where its first line says: a file of the package or the folder, or a place within a file."""
    name, _, where = block.place.partition(", ")
    path = source / name if name.startswith(PACKAGE) else folder / name
    if not where:
        assert not path.exists(), f"{name} is there already"
        path.write_text(block.text, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if where == "at the imports":
        at = lines.index("from __future__ import annotations\n") + 1
    elif where.startswith("the line "):
        at = next(i for i, line in enumerate(lines) if re.match(rf" *{where.split()[-1]}: ", line))
        del lines[at]
    else:
        word, _, table = where.partition(" ")
        at = next(i for i, line in enumerate(lines) if re.match(rf"{table}\b.*[{{]$", line)) + (word == "in")
    # What stands in `path` may be a link to the package's own file: it is replaced, never written through.
    path.unlink()
    path.write_text("".join([*lines[:at], block.text, "\n" * (where.startswith("above") * 2), *lines[at:]]), "utf-8")


def runs(command: list[str], source: Path, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the package in which files are links until they are changed."""
    shutil.copytree(
        Path(medjudge.__file__).parent,
        tmp_path / "source" / "medjudge",
        copy_function=os.link if Path(medjudge.__file__).stat().st_dev == tmp_path.stat().st_dev else shutil.copy2,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path / "source"


@pytest.mark.parametrize("title", [title for title, blocks in SECTIONS.items() if blocks])
def test_what_a_section_adds_works(title: str, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    blocks = SECTIONS[title]
    for block in (block for block in blocks if block.place):
        lay(block, source, folder)
    added = [str(source / name) for block in blocks if (name := block.place.partition(",")[0]).startswith(PACKAGE)]
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F", "--line-length", "120"]
    runs([*ruff, *added], source, folder)
    printed = ""
    for block in blocks:
        if block.language == "python" and block.place and not block.place.startswith(PACKAGE):
            printed = runs([sys.executable, block.place], source, folder)
        elif block.language == "sh":
            printed = "".join(
                runs([sys.executable, "-m", *line.split()], source, folder) for line in block.text.splitlines()
            )
        elif block.language == "text":
            lines = [line.rstrip() for line in printed.splitlines()]
            assert [line for line in block.text.splitlines() if line.rstrip() not in lines] == [], printed


def test_every_kind_of_extension_has_a_section() -> None:
    assert {title.split(maxsplit=1)[1] for title in SECTIONS} == {
        "task", "reward", "metric", "algorithm", "inference backend"
    }  # fmt: skip
