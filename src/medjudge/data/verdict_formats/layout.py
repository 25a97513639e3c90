"""What every reader of another program's file has in common: how it knows the file, and what it makes of the rows."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medjudge.data.cells import PAIRS, id_text, number, tidy
from medjudge.data.paths import MISSING, look_up
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.errors import DataError
from medjudge.tasks.contract import TaskContract

Values = Mapping[str, Any]
Meaning = Literal["", "sides", "pair"]

NO_VERDICT = "no verdict here"
"""A column of rows that hold a case and its experts' label, and no judge's row: for the judges the case is absent."""
N_LOOKED_AT = 20
"""First rows that a reader looks at to know its file."""
GOLD_NAMES = re.compile(
    r"(?i)(gold|experts?|human|clinician|physician|reference_label|ground_truth_label)((?<!label)_(label|score|verdict))?"
)
"""Keys under which people add experts' labels to the inputs of another program."""
PEOPLE = re.compile(r"(?i)expert|human|clinician|physician|doctor|nurse|annotat|reviewer|\bgold|precomputed|\brater")
"""Names of scorers that are people."""
SIDES = {
    "A": ("a", "1", "model_a", "model_1", "output_1", "answer_a", "response_a", "first", "a>b", "chosen"),
    "B": ("b", "2", "model_b", "model_2", "output_2", "answer_b", "response_b", "second", "b>a", "rejected"),
    "tie": ("tie", "c", "1.5", "equal", "same", "draw", "both", "a=b", "tie (inconsistent)", "tie (bothbad)"),
}
"""Which of two answers is better -> what programs write for it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, as far as a reader needs it."""

    labels: tuple[str, ...]
    scores: bool = False
    """Whether a threshold makes labels of numbers: a reader that has a verdict and a score takes the score."""
    gold: str | None = None
    """A column, or another name of this file, that holds the experts' labels."""
    gold_elsewhere: bool = False
    """Whether they stand in a file of their own."""
    contract: TaskContract | None = None
    """Of a task whose answers are read by its parser."""


@dataclass(slots=True)
class Layout:
    """The rows of one file, one for each verdict, with the columns that stand for fields."""

    rows: list[Row]
    """As the file has them, with computed columns added."""
    columns: dict[str, str]
    """Field of `columns.FIELDS` -> column; "" where the file has none under any name."""
    same: dict[str, str] = field(default_factory=dict)
    """A path that one would name for a verdict or a label -> the computed column that holds it whole."""
    notes: list[str] = field(default_factory=list)
    meaning: Meaning = ""
    """`pair`: verdicts are A, B and tie. `sides`: they are the two sides of a question."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the files of one program are known and read."""

    name: str
    title: str
    """What the file is, for people: "a log of inspect_ai"."""
    command: str
    """The shortest command that scores one."""
    recognise: Callable[[Sequence[Values]], str]
    """The first rows -> what shows that it is this program's file, or "" where it is not."""
    read: Callable[[list[Row], Asked, str], Layout]
    """(rows, what was asked, the source's name) -> layout. Raises DataError where two readings are possible."""
    container: Callable[[Values], list[Any] | None] = lambda tree: None
    """A JSON object -> the list of rows in it, None where it is not this program's file."""


def having(*paths: str, one_of: Sequence[str] = ()) -> Callable[[Sequence[Values]], str]:
    """A `recognise`: all first rows have all `paths`, and one of `one_of` where that is given."""

    def recognise(rows: Sequence[Values]) -> str:
        there = [*paths, *[path for path in one_of if any(has(row, path) for row in rows)][:1]]
        if not rows or (one_of and len(there) == len(paths)) or not all(has(r, p) for r in rows for p in paths):
            return ""
        return f"its rows have {', '.join(there)}"

    return recognise


def has(values: object, path: str) -> bool:
    """Whether a row has `path`."""
    return isinstance(values, Mapping) and look_up(values, path) is not MISSING


def get(values: object, path: str, default: Any = None) -> Any:
    """The value at `path`, `default` where there is none."""
    found = look_up(values, path) if isinstance(values, Mapping) else MISSING
    return default if found is MISSING else found


def entries(values: object) -> list[Any]:
    """A list as it is, anything else as no list."""
    return values if isinstance(values, list) else []


def objects(values: object) -> list[Values]:
    """The objects of a list."""
    return [value for value in entries(values) if isinstance(value, Mapping)]


def items(values: object) -> dict[str, Any]:
    """An object with its keys as text, anything else as none."""
    return {str(key): value for key, value in values.items()} if isinstance(values, Mapping) else {}


def added(row: Row, columns: Mapping[str, object]) -> Row:
    """The row with computed columns."""
    return Row(row.place, {**row.values, **columns})


def finite(value: object) -> float | None:
    """A number that is one, else None: NaN is how programs write that nothing was scored."""
    if isinstance(value, bool):
        return None
    return number(value)


def or_none(value: object) -> object:
    """None for NaN and infinity, else the value."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def majority(values: Iterable[object]) -> tuple[object, bool]:
    """(what most of the values are, whether there is no such one although there are values). Empty ones do not vote."""
    votes: Counter[str] = Counter()
    first: dict[str, object] = {}
    for value in values:
        if text := tidy(plain(value)):
            votes[text.casefold()] += 1
            first.setdefault(text.casefold(), value)
    best = votes.most_common(2)
    if not best:
        return None, False
    if len(best) == 2 and best[0][1] == best[1][1]:
        return None, True
    return first[best[0][0]], False


def tied_experts(n_tied: int, n: int) -> list[str]:
    """A note on cases on which as many people say one thing as another."""
    if not n_tied:
        return []
    return [f"On {n_tied:,} of {n:,} cases the experts tie: these have no expert label. Elsewhere it is what most say."]


def gold_path(rows: Sequence[Row], inside: Sequence[str], asked: Asked, source: str) -> str | None:
    """The path of the experts' label that people have added inside of one of `inside` ("" for the row itself).

    None where none is, or where another place was named. Raises DataError where two may be meant.
    """
    if asked.gold is not None or asked.gold_elsewhere:
        return None
    found: dict[str, None] = {}
    for row in rows[:200]:
        for outer in inside:
            node = row.values if not outer else get(row.values, outer)
            for key in items(node):
                if GOLD_NAMES.fullmatch(key):
                    found.setdefault(f"{outer}.{key}" if outer else key)
    # One key is often repeated, in a test's inputs and in the row's.
    last = {path.rpartition(".")[2]: path for path in reversed(found)}
    if len(last) > 1:
        shown = " or ".join(f"--gold {path}" for path in last.values())
        raise DataError(
            f"{source}: {' and '.join(last.values())} may each hold the experts' labels. Name one: {shown}."
        )
    return next(iter(last.values()), None)


def unique(rows: Sequence[Row], path: str) -> bool:
    """Whether every row has a text at `path`, no two the same."""
    ids = [id_text(get(row.values, path)) for row in rows]
    return all(ids) and len(set(ids)) == len(ids)


def sides_of(labels: Sequence[str]) -> dict[str, str]:
    """Side of `SIDES` -> the label that names it; none unless A and B have one each."""
    named: dict[str, str] = {}
    for label in labels:
        for side, words in SIDES.items():
            if label.casefold() in words and side not in named:
                named[side] = label
    return named if {"A", "B"} <= named.keys() and len(set(named.values())) == len(named) else {}


def meanings(meaning: Meaning, labels: Sequence[str]) -> dict[str, str]:
    """What a program writes -> the label that means it, for labels that name the same thing; nothing for others."""
    if meaning == "pair":
        named = sides_of(labels)
        own = {label.casefold() for label in labels}
        return {
            word: named[side] for side, words in SIDES.items() if side in named for word in words if word not in own
        }
    if meaning == "sides" and len(labels) == 2:
        by_word = {label.casefold(): label for label in labels}
        for low, high in (pair for pair in PAIRS if set(by_word) == set(pair)):
            words = {pair[side]: by_word[(low, high)[side]] for pair in PAIRS for side in (0, 1)}
            words |= {"i": by_word[low], "c": by_word[high]}
            return {word: label for word, label in words.items() if word not in by_word}
    return {}
