"""`medjudge init KIND`: a recipe whose comments are the settings' own documentation, so that it cannot go stale."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from medjudge import artifacts
from medjudge.errors import ConfigError, did_you_mean
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.runs.stages import SECTIONS
from medjudge.settings.base import Settings
from medjudge.tasks.catalog import TASKS

WIDTH = 110


def write_recipe(kind: str, path: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """Writes a recipe for one task: what must be said is said, every other setting is there as a comment.

    settings: of the task, such as the labels of a classification. Raises ConfigError for an unknown task or setting, or
    a file that is there already.
    """
    if kind not in TASKS:
        raise ConfigError(
            f"no task is called {kind!r}{did_you_mean(kind, TASKS)}. Name one of these: {', '.join(TASKS)}."
        )
    if path.exists():
        raise ConfigError(
            f"{path} is there already, expected a new file; nothing is overwritten. Name another file with --out."
        )
    if not path.parent.is_dir():
        raise ConfigError(f"the folder {path.parent} does not exist. Make it, or name another file with --out.")
    artifacts.write_text(path, recipe_text(kind, settings), private=False)
    return path


def recipe_text(kind: str, settings: Mapping[str, Any] | None = None) -> str:
    """The recipe as text, with what the task needs to be told (an example, where `settings` has it not).

    It loads as it is. Raises ConfigError for settings that the task does not have.
    """
    if other := sorted({*(settings or {})} - {*TASKS[kind].by_name()}):
        raise ConfigError(
            f"the task {kind} has no setting {other[0]}, expected one of {', '.join(TASKS[kind].by_name())}: leave "
            f"--{other[0]} out, or name a task that has it, such as classification."
        )
    given = {**TASKS[kind].needed, **(settings or {})}
    contract = recipe_from_tree({"name": kind, "task": {"kind": kind, **given}}, [], where="init").contract
    lines = [
        f"# A recipe for the task `{kind}`. Lines that begin with `# name =` are settings at their defaults.",
        "#",
        "#   medjudge run THIS_FILE --dry-run      what would happen, and what it would cost",
        "#   medjudge run THIS_FILE                do it; the same command goes on where it was cut off",
        "",
        f'name = "{kind}"                     # the run folder is runs/NAME',
        "seed = 42",
        "",
        "[task]",
        f'kind = "{kind}"',
        *[f"{name} = {_toml(value)}" for name, value in given.items()],
        *_settings(contract, skip=("kind", *given)),
        "",
    ]
    for name in SECTIONS:
        section = _section_type(Recipe.model_fields[name].annotation)
        assert section is not None  # every name in SECTIONS is one
        lines += [f"[{name}]", *_comment(_first_line(section.__doc__))]
        if name == "data":
            required = [f for f in contract.fields if f not in contract.optional_fields]
            optional = [f for f in contract.fields if f in contract.optional_fields]
            lines += [
                'source = "rows.jsonl"                # a file, `hub:owner/name[:split]` or `builtin:NAME`',
                *_comment(f"Columns it needs: {', '.join(required)}. It may also have: {', '.join(optional)}."),
                *[line for f, what in contract.fields.items() for line in _comment(f"  {f}: {what}")],
            ]
        lines += [*_settings(section(), skip=("source",) if name == "data" else ()), ""]
        lines += _inner_sections(name, section)
    return "\n".join(lines)


def _inner_sections(name: str, section: type[Settings]) -> list[str]:
    """`# [section.inner]` with its settings, at whatever depth."""
    lines = []
    for field, info in section.model_fields.items():
        inner = _section_type(info.annotation)
        if inner is not None:
            place = f"{name}.{field}"
            lines += [f"# [{place}]", *_comment(_first_line(inner.__doc__)), *_settings(inner()), ""]
            lines += _inner_sections(place, inner)
    return lines


def _settings(section: Settings, skip: tuple[str, ...] = ()) -> list[str]:
    """`# key = default` for each plain setting, under what it means.

    section: an instance, which knows defaults that depend on one another.
    """
    lines = []
    documentation = attribute_docstrings(type(section))
    for attribute, info in type(section).model_fields.items():
        name = info.alias or attribute
        if name in skip or _section_type(info.annotation) is not None:
            continue
        default = getattr(section, attribute)
        lines += _comment(documentation.get(attribute, ""))
        lines.append(f"# {name} = {_toml(default)}" if default is not None else f"# {name} =")
    return lines


def attribute_docstrings(section: type[Settings]) -> dict[str, str]:
    """Setting -> the text under it in its class, inherited ones included, on one line."""
    docstrings: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not issubclass(cls, Settings) or cls is Settings:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)  # the source of a class
        for setting, text in itertools.pairwise(body.body):
            if (
                isinstance(setting, ast.AnnAssign)
                and isinstance(setting.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                docstrings[setting.target.id] = " ".join(text.value.value.split())
    return docstrings


def _section_type(annotation: Any) -> type[Settings] | None:
    """The settings class in an annotation, as it stands or as a union's member; None where there is none."""
    if get_origin(annotation) is Mapping:  # sections by a name of the user's own
        return None
    for candidate in [annotation, *(get_args(annotation) if get_origin(annotation) else ())]:
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH)]


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().split("\n")[0]
