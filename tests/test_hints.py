"""A message that names an option names one that the command which printed it has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from medjudge.cli import app

SOURCE = Path(__file__).parent.parent / "src" / "medjudge"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*(?![\w_-])")
READING = ("check-data", "evaluate", "calibrate", "probe", "export lm-eval")
"""Commands that read rows by --map and --where."""
PRINTED_BY = {
    "artifacts.py": ("run", "demo"),
    "files.py": ("run", "demo"),
    "commands/bench.py": ("bench rubric",),
    "recipe.py --set": ("run", "evaluate", "demo"),
    "settings/overlays.py": ("run", "evaluate", "demo"),
    "recipe.py --task": ("demo",),
    "data/benchmarks.py": ("bench rubric",),
    "data/sources.py": READING,
    "data/sources.py --set": (*READING, "run", "demo"),
    "data/store.py": ("run", "demo"),
    "commands/push.py": ("push",),
    "data/cells.py": ("score",),
    "data/columns.py": ("score",),
    "data/paths.py": ("score",),
    "data/verdict_cells.py": ("score",),
    "data/rater_cells.py": ("score",),
    "commands/score_numbers.py": ("score",),
    "data/verdict_files.py": ("score",),
    **{f"data/verdict_formats/{path.name}": ("score",) for path in (SOURCE / "data" / "verdict_formats").glob("*.py")},
    "training/trl_adapter.py": ("run", "demo"),
    "runs/output_folder.py": ("evaluate", "probe", "score"),
    "runs/pipeline.py": ("run",),
    "diagnostics/preflight.py": ("run", "demo", "preflight"),
    "commands/check_data.py": ("check-data",),
    "commands/evaluate.py": ("evaluate", "probe"),
    "judging/evaluate_cases.py": ("evaluate", "probe"),
    "judging/judge.py": ("evaluate", "probe", "calibrate"),
    "commands/export.py": ("export lm-eval",),
    "commands/info.py": ("bench rubric",),
    "commands/init.py": ("init",),
    "commands/report.py": ("evaluate", "bench rubric"),
    "reporting/terminal.py": ("evaluate", "bench rubric"),
    "commands/score.py": ("score",),
}
"""File, or file and option -> the commands that print its messages, where the message names no command itself."""
OF_OTHER_PROGRAMS = {
    "git": "--porcelain --error-unmatch",
    "lm_eval": "--model --tasks",
    "inspect log convert": "--to",
    "pip install": "--no-deps --force-reinstall",
    "llama-gguf-split": "--merge",
    "vLLM": "--max-logprobs",
}


def commands() -> dict[str, set[str]]:
    """Every command by its full name, with its options."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
        for part, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, f"{name} {part}".strip())
        if not hasattr(command, "commands"):
            yield (
                name,
                {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)},
            )

    return {name: options | {"--help"} for name, options in walk(typer.main.get_command(app), "")}


COMMANDS = commands()


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The file's strings as they would be printed, with `{}` for what is filled in; docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped.update(id(value) for value in node.values)
            parts = [value.value if isinstance(value, ast.Constant) else "{}" for value in node.values]
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def command_lines(text: str) -> Iterator[tuple[str, str]]:
    """(command, what follows it) for every `medjudge COMMAND ..` in a text."""
    for match in re.finditer(r"medjudge ([a-z][a-z-]*(?: [a-z][a-z-]*)?)([^`\n]*)", text):
        words, rest = match[1].split(), match[2]
        name = " ".join(words)
        if name in COMMANDS:
            yield name, rest
        elif words[0] in COMMANDS:
            yield words[0], f" {' '.join(words[1:])}{rest}"


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if OPTION.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_options_in_messages_exist(path: Path) -> None:
    name = str(path.relative_to(SOURCE))
    for line, text in texts(path):
        for command, rest in command_lines(text):
            for option in OPTION.findall(rest):
                assert option in COMMANDS[command], f"{name}:{line}: `medjudge {command}` has no {option}"
        bare = re.sub(r"medjudge [a-z][^`\n]*", "", text)
        if name.startswith("cli/") or any(
            program in bare or bare in options for program, options in OF_OTHER_PROGRAMS.items()
        ):
            continue
        for option in OPTION.findall(bare):
            printed_by = PRINTED_BY.get(f"{name} {option}", PRINTED_BY.get(name, ()))
            assert printed_by, f"{name}:{line} names {option}: say here which commands print it"
            for command in printed_by:
                assert option in COMMANDS[command], f"{name}:{line}: `medjudge {command}` has no {option}: {text!r}"


def test_options_in_the_help_exist() -> None:
    known = {"--version"}.union(*COMMANDS.values())
    for path in sorted((SOURCE / "cli").glob("*.py")):
        for line, text in texts(path):
            for option in OPTION.findall(text):
                assert option in known, f"cli/{path.name}:{line}: {option}"
