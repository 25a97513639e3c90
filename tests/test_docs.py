"""The pages: all in the site's contents, links whole, commands and options that exist, nothing from the network."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import medjudge
from tests.links import broken_links, markdown_files
from tests.test_floors import FLOORS
from tests.test_hints import COMMANDS, OPTION

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "RELEASING.md")),
]
SITE = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
ZENSICAL = Path(sys.executable).parent / "zensical"
FETCHES = re.compile(r"""(?:<(?:script|img|iframe|source|link)\b[^>]*?\s(?:src|href)=|url\()["']?(https?:)?//""")


def names_in(nav: Any) -> list[str]:
    """The files that the contents name, at any depth."""
    if isinstance(nav, str):
        return [nav]
    return [name for part in (nav.values() if isinstance(nav, dict) else nav) for name in names_in(part)]


def test_every_page_stands_in_the_contents_once() -> None:
    assert sorted(names_in(SITE["nav"])) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("path", markdown_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert list(broken_links(path)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Two `words`\n\n# Two words\n", encoding="utf-8")
    page = tmp_path / "a.md"
    page.write_text("[1](b.md#two-words) [2](b.md#two-words-1) [3](https://x.org/y) ![4](b.md)", encoding="utf-8")
    assert list(broken_links(page)) == []
    page.write_text("[1](b.md#three) [2](c.md) ![3](d.png) [4](#here)", encoding="utf-8")
    assert len(list(broken_links(page))) == 4


def shell_commands(path: Path) -> list[str]:
    """The lines of a page's shell blocks that call medjudge, continued lines joined, without comments."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"\s#\s.*", "", line) for line in lines if line.startswith("medjudge ")]


def trouble(line: str) -> str | None:
    """Why the line cannot run: a command or an option that there is not; None where it can."""
    words = line.split()[1:]
    if words and words[0].startswith("-"):
        return None if words[0] in ("--help", "--version") else f"medjudge has no option {words[0]}"
    name = next((name for n in (2, 1) if (name := " ".join(words[:n])) in COMMANDS), None)
    if name is None:
        return f"there is no command {' '.join(words[:2])!r}"
    unknown = [option for option in OPTION.findall(line) if option not in COMMANDS[name]]
    return f"`medjudge {name}` has no {', '.join(unknown)}" if unknown else None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_of_a_page_exist_with_their_options(path: Path) -> None:
    assert {line: why for line in shell_commands(path) if (why := trouble(line))} == {}
    # In the text, too: `medjudge COMMAND --option`.
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    inline = [" ".join(code.split()) for code in re.findall(r"`(medjudge [a-z][^`]*)`", text)]
    inline = [line for line in inline if not re.search(r"[|\[(.]", line.split("--")[0])]
    assert {line: why for line in inline if (why := trouble(line))} == {}


def test_a_command_that_does_not_exist_is_found() -> None:
    assert trouble("medjudge run r.toml --dry-run") is None
    assert trouble("medjudge run r.toml --dry") == "`medjudge run` has no --dry"
    assert trouble("medjudge walk r.toml") == "there is no command 'walk r.toml'"
    assert sum(len(shell_commands(path)) for path in PAGES) > 25


@pytest.mark.skipif(not ZENSICAL.exists(), reason="needs the extra `docs`")
def test_the_site_is_built_and_fetches_nothing(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "src").symlink_to(ROOT / "src")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = subprocess.run([ZENSICAL, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert {path.stem for path in pages} >= {Path(name).stem for name in names_in(SITE["nav"])}
    for path in [*pages, *(tmp_path / "site").rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        assert not FETCHES.search(text), f"{path.name} fetches from the network"
        assert 'class="mermaid"' not in text, f"{path.name}: its diagram would be drawn by a script from the network"
    entries = json.loads((tmp_path / "site" / "search.json").read_text(encoding="utf-8"))["items"]
    assert any(entry["title"].endswith("load_cases") for entry in entries), "the reference stands in the search"


def test_the_picture_shows_every_floor() -> None:
    spec = importlib.util.spec_from_file_location("floors", ROOT / "docs" / "figures" / "floors.py")
    assert spec is not None
    assert spec.loader is not None
    floors = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(floors)
    drawn = [name for names, _, _ in floors.FLOORS for name in names.split()]
    package = Path(medjudge.__file__).parent
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert sorted(drawn) == sorted(folders | {path.stem for path in package.glob("[!_]*.py")})
    assert (*reversed(drawn[2:]), "api", "cli") == FLOORS[: len(drawn)], "drawn in the order of the floors"
    assert (ROOT / "docs" / "figures" / "floors.svg").read_text(encoding="utf-8") == floors.draw()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_that_a_page_names_exist(path: Path) -> None:
    named = set(re.findall(r"`((?:docs|recipes|benchmarks|examples|tests|src)/[\w./-]+)`", path.read_text("utf-8")))
    assert sorted(name for name in named if not (ROOT / name).exists() and "NAME" not in name) == []


def test_hooks_run_what_the_check_runs() -> None:
    """The hooks come from this project alone, and cover each line of `make check`."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    entries = {hook["entry"].removeprefix(".venv/bin/") for repo in hooks["repos"] for hook in repo["hooks"]}
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe is not None
    lines = [line.replace("$(BIN)/", "").strip() for line in recipe[1].splitlines()]
    assert entries == {re.sub(r" (--check )?\.$| --check \.$", "", line) for line in lines}


@pytest.mark.parametrize("path", [ROOT / "CONTRIBUTING.md", ROOT / "RELEASING.md", ROOT / "docs" / "index.md"])
def test_make_targets_that_a_page_names_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets
