"""Splits on disk: one JSON line per case, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from medjudge import artifacts
from medjudge.errors import DataError
from medjudge.records import Case


def write_split(path: Path, cases: Iterable[Case]) -> None:
    """Writes `cases` to `path` in their order, beside its place first and then moved into it."""
    artifacts.write_text(path, "".join(json.dumps(case.to_json(), ensure_ascii=False) + "\n" for case in cases))


def read_split(path: Path) -> tuple[Case, ...]:
    """The cases of a split as `write_split` wrote them. Raises DataError if the file is missing or damaged."""
    try:
        # Not splitlines(): a clinical text may hold U+2028, which JSON leaves as it is.
        with path.open(encoding="utf-8", newline="\n") as file:
            return tuple(Case(**json.loads(line)) for line in file)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Run the prepare stage first.") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}). Run prepare again with --fresh.") from None
