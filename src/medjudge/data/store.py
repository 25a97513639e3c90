"""Splits on disk: one JSON line per case, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.errors import DataError, RunError
from medjudge.records import Case


def write_split(path: Path, cases: Iterable[Case]) -> None:
    """Writes `cases` to `path` in their order, beside its place first and then moved into it."""
    artifacts.write_lines(path, (case.to_json() for case in cases))


def read_split(path: Path) -> tuple[Case, ...]:
    """The cases of a split as `write_split` wrote them. Raises DataError if the file is missing or damaged."""
    if not path.exists():
        raise DataError(f"{path} does not exist. Run the prepare stage first.")
    try:
        return tuple(artifacts.parsed(path, row, _case) for row in artifacts.read_lines(path))
    except RunError as error:
        raise DataError(f"{path} is damaged: {error}") from None


def _case(row: Any) -> Case:
    case = Case(**row)
    texts = [case.case_id, *case.inputs, *case.inputs.values(), *(text for text in (case.gold, case.group) if text)]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError
    return case
