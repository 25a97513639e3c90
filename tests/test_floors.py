"""Imports run downward only: the floors of the package, and a reading of every module's imports against them."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

import medjudge

SOURCE = Path(medjudge.__file__).parent

FLOORS = (
    "version",
    "errors",
    "log",
    "names",
    "files",
    "network",
    "records",
    "artifacts",
    "progress",
    "machine",
    "settings",
    "tasks",
    "synthetic",
    "data",
    "metrics",
    "models",
    "inference",
    "rewards",
    "diagnostics",  # before a training: reads rewards, knows no recipe
    "recipe",  # above the rewards, against which it checks `[grpo.rewards]`
    "training",
    "judging",
    "runs",
    "reporting",
    "stages",  # `runs.pipeline` names them as strings and imports each when it is due
    "commands",
    "api",
    "cli",
    "",  # `medjudge/__init__.py`: its three names are imported from `api` when first used
    "__main__",
)
"""From the ground up. A module imports from its own floor or a lower one, inside functions and for types too."""


def modules_in(root: Path) -> dict[str, Path]:
    """Module name -> file, of the package in folder `root`."""
    named = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        named[".".join((root.name, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    return named


def imported(path: Path, module: str, known: Iterable[str]) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in it: at load, in a function, under TYPE_CHECKING."""
    known, package = set(known), module.partition(".")[0]
    parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.partition(".")[0] != package:
                continue
            for alias in node.names:  # `from package import module` is an import of the module
                yield inner if (inner := f"{source}.{alias.name}") in known else source


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    files = modules_in(root)
    return {module: set(imported(path, module, files)) - {module} for module, path in files.items()}


def floor_of(module: str) -> int:
    """Height of a module's floor. Raises ValueError for one that the list lacks."""
    return FLOORS.index(module.split(".")[1] if "." in module else "")


def upward_imports(graph: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """(module, imported module) of every import that runs up."""
    return {
        (module, other) for module, others in graph.items() for other in others if floor_of(other) > floor_of(module)
    }


def circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """Strongly connected components of more than one node: groups that import each other, directly or around.

    By depth-first search forth and, in reverse order of leaving, back (Kosaraju).
    """
    left: list[str] = []
    seen: set[str] = set()

    def leave_in_order(node: str) -> None:
        seen.add(node)
        for other in sorted(graph.get(node, ())):
            if other not in seen:
                leave_in_order(other)
        left.append(node)

    for node in sorted(graph):
        if node not in seen:
            leave_in_order(node)
    importers: dict[str, set[str]] = {node: set() for node in left}
    for node, others in graph.items():
        for other in others:
            importers[other].add(node)
    components: set[frozenset[str]] = set()
    taken: set[str] = set()
    for node in reversed(left):
        group, open_nodes = set(), [node]
        while open_nodes:
            current = open_nodes.pop()
            if current not in taken:
                taken.add(current)
                group.add(current)
                open_nodes += importers[current]
        if len(group) > 1:
            components.add(frozenset(group))
    return components


def between_packages(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same graph with each floor as one node."""
    packages: dict[str, set[str]] = {}
    for module, others in graph.items():
        name = FLOORS[floor_of(module)]
        packages.setdefault(name, set()).update(FLOORS[floor_of(other)] for other in others)
    return {name: others - {name} for name, others in packages.items()}


def test_every_module_stands_on_a_floor() -> None:
    unlisted = {name.split(".")[1] for name in modules_in(SOURCE) if "." in name} - set(FLOORS)
    assert not unlisted, f"not in FLOORS: {sorted(unlisted)}"


def test_no_import_runs_upward() -> None:
    upward = upward_imports(import_graph(SOURCE))
    assert upward == set()


def test_no_files_import_each_other() -> None:
    assert circles(import_graph(SOURCE)) == set()


def test_no_packages_import_each_other() -> None:
    assert circles(between_packages(import_graph(SOURCE))) == set()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's own sources, to put a fault in."""
    return Path(shutil.copytree(SOURCE, tmp_path / "medjudge", ignore=shutil.ignore_patterns("builtin", "__pycache__")))


@pytest.mark.parametrize(
    "fault",
    [
        "from medjudge.recipe import Recipe",
        "from medjudge import recipe",
        "import medjudge.recipe",
        "from ..recipe import Recipe",
        "def late() -> None:\n    from medjudge.recipe import Recipe",
        "if TYPE_CHECKING:\n    from medjudge.recipe import Recipe",
        "try:\n    pass\nexcept ImportError:\n    from medjudge.recipe import Recipe",
    ],
)
def test_an_upward_import_put_in_is_seen(copy: Path, fault: str) -> None:
    before = import_graph(copy)
    with (copy / "rewards" / "rules.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\n{fault}\n")
    after = import_graph(copy)
    new = ("medjudge.rewards.rules", "medjudge.recipe")
    assert upward_imports(after) - upward_imports(before) == {new}
    assert frozenset({"recipe", "rewards"}) <= set().union(*circles(between_packages(after)))


@pytest.mark.parametrize("through", [(), ("medjudge.tasks.scale",)])
def test_a_circle_put_in_is_seen(copy: Path, through: tuple[str, ...]) -> None:
    chain = ("medjudge.tasks.normalise", *through, "medjudge.tasks.templates", "medjudge.tasks.normalise")
    for importer, other in pairwise(chain):
        with modules_in(copy)[importer].open("a", encoding="utf-8") as file:
            file.write(f"\n\ndef late() -> None:\n    import {other}\n")
    assert any(set(chain) <= group for group in circles(import_graph(copy)))


def test_a_floor_that_nobody_listed_is_refused(copy: Path) -> None:
    (copy / "attic.py").write_text("from medjudge import errors\n", encoding="utf-8")
    with pytest.raises(ValueError, match="not in tuple"):
        upward_imports(import_graph(copy))
