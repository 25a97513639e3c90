"""Which built-in sets are drawn on the fly, each with its task, its default size and what it is made of.

`builtin:NAME` as a source gives the default draw: `n` rows with seed 42. `build.write_rows` writes any other size or
seed. All rows say `synthetic: true` and are for research use.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

from medjudge.synthetic import (
    answers,
    appropriateness,
    blocks,
    equivalence,
    facts,
    marks,
    mcq,
    pairwise,
    phrasing,
    rubric,
    wordings,
)

SEED = 42
"""Seed of the default draws."""

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class GeneratedSet:
    """One built-in set that is drawn by seed."""

    kind: str
    """The task whose contract reads its rows."""
    n: int
    """Rows of the default draw."""
    group_by: tuple[str, ...]
    """Columns to split by, so that what is asked in a held-out split is asked in no other."""
    generate: Callable[[int, random.Random], list[Row]]
    """Draws this many distinct rows, or raises DataError where there are not so many."""
    made_of: Callable[[], tuple[Path, ...]]
    """The data files and the program texts on which its rows depend, for provenance."""

    def rows(self, n: int | None = None, seed: int = SEED) -> list[Row]:
        """`n` rows (default: `self.n`), the same for the same seed."""
        return self.generate(self.n if n is None else n, random.Random(seed))


def _from_facts(module_file: str, *texts: Path) -> Callable[[], tuple[Path, ...]]:
    written = (blocks.BLOCKS_PATH, phrasing.PHRASINGS_PATH, *texts)
    return lambda: (*facts.fact_files(), *written, *_code(phrasing, answers, blocks), Path(module_file))


def _worded(module_file: str, *texts: Path) -> Callable[[], tuple[Path, ...]]:
    return _from_facts(module_file, wordings.VALUES_PATH, Path(str(wordings.__file__)), *texts)


def _from_table() -> tuple[Path, ...]:
    return (*appropriateness.table_files(), *_code(appropriateness))


def _code(*modules: ModuleType) -> list[Path]:
    return [Path(str(module.__file__)) for module in modules]


_FROM_MCQ = _from_facts(mcq.__file__, mcq.NEAR_PATH)
_FROM_EQUIVALENCE = _worded(equivalence.__file__, wordings.FRAMES_PATH, equivalence.QUANTITIES_PATH)
_FROM_RUBRIC = _worded(rubric.__file__, rubric.GRADED_PATH)
_FROM_PAIRWISE = _worded(
    pairwise.__file__, wordings.FRAMES_PATH, equivalence.QUANTITIES_PATH, Path(str(equivalence.__file__))
)
BY_FACT, BY_BLOCK, BY_VARIANT = ("fact_id",), ("block_id",), ("variant_id",)
GENERATORS: dict[str, GeneratedSet] = {
    "mcq": GeneratedSet("mcq", 6000, BY_BLOCK, mcq.generate, _FROM_MCQ),
    "mcq-fr": GeneratedSet("mcq", 6000, BY_BLOCK, partial(mcq.generate, language="fr"), _FROM_MCQ),
    "equivalence": GeneratedSet("equivalence", 4000, BY_FACT, equivalence.generate, _FROM_EQUIVALENCE),
    "equivalence-fr": GeneratedSet(
        "equivalence", 4000, BY_FACT, partial(equivalence.generate, language="fr"), _FROM_EQUIVALENCE
    ),
    "rubric": GeneratedSet("rubric", 3000, BY_FACT, rubric.generate, _FROM_RUBRIC),
    "rubric-2": GeneratedSet("rubric", 3000, BY_FACT, partial(rubric.generate, points=2), _FROM_RUBRIC),
    "rubric-3": GeneratedSet("rubric", 3000, BY_FACT, partial(rubric.generate, points=3), _FROM_RUBRIC),
    "appropriateness": GeneratedSet("appropriateness", 3000, BY_VARIANT, appropriateness.generate, _from_table),
    "appropriateness-bare": GeneratedSet(
        "appropriateness", 3000, BY_VARIANT, partial(appropriateness.generate, evidence=False), _from_table
    ),
    "pairwise": GeneratedSet("pairwise", 3000, BY_FACT, pairwise.generate, _FROM_PAIRWISE),
    "pairwise-fr": GeneratedSet("pairwise", 3000, BY_FACT, partial(pairwise.generate, language="fr"), _FROM_PAIRWISE),
    "marks": GeneratedSet("marks", 3000, BY_VARIANT, marks.generate, lambda: (*_from_table(), Path(marks.__file__))),
}
