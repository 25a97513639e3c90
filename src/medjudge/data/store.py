"""Splits on disk: one JSON line per case, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.errors import DataError, RunError
from medjudge.records import Case


@dataclass(frozen=True, slots=True)
class Split:
    """A split by its name and its file, which may not exist."""

    name: str
    path: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> Split:
        """The split `name` in a folder that the prepare stage writes."""
        return cls(name, folder / f"{name}{artifacts.SPLIT_SUFFIX}")

    @property
    def exists(self) -> bool:
        """Whether the data were split with it."""
        return self.path.exists()

    def read(self) -> tuple[Case, ...]:
        """Its cases. Raises DataError if it is missing or damaged."""
        return read_split(self.path)

    def write(self, cases: Iterable[Case]) -> None:
        """Writes its cases in their order."""
        write_split(self.path, cases)

    @property
    def sha256(self) -> str:
        """Hex digest of its file."""
        return artifacts.sha256_file(self.path)


def write_split(path: Path, cases: Iterable[Case]) -> None:
    """Writes `cases` to `path` in their order, beside its place first and then moved into it."""
    artifacts.write_lines(path, (case.to_json() for case in cases))


def read_split(path: Path) -> tuple[Case, ...]:
    """The cases of a split as `write_split` wrote them. Raises DataError if the file is missing or damaged."""
    if not path.exists():
        raise DataError(
            f"{path} does not exist, expected the split that the prepare stage writes. Run the prepare stage first."
        )
    try:
        return tuple(artifacts.parsed(path, row, _case) for row in artifacts.read_lines(path))
    except RunError as error:
        raise DataError(f"{path} is damaged: {error}") from None


def _case(row: Any) -> Case:
    case = Case(**row)
    texts = [case.case_id, *case.inputs, *case.inputs.values(), *(text for text in (case.gold, case.group) if text)]
    texts += [*case.ratings, *case.ratings.values()]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError
    return case
