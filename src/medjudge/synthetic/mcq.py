"""Multiple-choice questions from the fact base: one true option, three that are false of the subject.

The options of a question come from one block: some six values of a relation with all their facts. Splits go by block.
If options came from the whole relation and splits went by fact, most values would be the answer of one fact only: in
training, the value of a held-out fact would be offered again and again and never be right, so that a judge would learn
to rule out every held-out answer. By block, all options of a held-out question are as new as its answer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from medjudge.errors import DataError
from medjudge.files import BUILTIN_DIR
from medjudge.synthetic.answers import Direction, reasoned
from medjudge.synthetic.blocks import block_ids, relatives, wrong_subjects
from medjudge.synthetic.facts import Fact, Language, is_wrong, load_facts
from medjudge.synthetic.phrasing import PHRASINGS, fill

OPTIONS = ("opa", "opb", "opc", "opd")
REVERSE_SHARE = 0.25
"""Of the questions, those that name a value and offer subjects, in relations that are cut into blocks."""
COMMENTED_SHARE = 0.67
"""Of the questions, those with a text in `comment`. Expert rows often have none: 47 % of 3,346 of MedMCQA's dev set."""
MAX_TRIES = 50
"""Draws for one row that repeats an earlier one, before the set counts as exhausted."""

NEAR_PATH: Path = BUILTIN_DIR / "near_values.json"
"""Fact id -> the facts of its block whose values (or subjects) are nearest to its subject (or value), by sentence
embeddings; written by `benchmarks/near_values.py`."""
N_NEAREST = 4
"""Nearest wrong options, of which three are offered."""

NEAREST_SHARE = 0.6
"""Of the questions, those whose wrong options are the three nearest."""

Row = dict[str, object]


def generate(n: int, rng: random.Random, language: Language = "en") -> list[Row]:
    """`n` distinct rows in the fields of the `mcq` contract.

    Every fact is asked once before any is asked again, so that n rows hold min(n, number of facts) facts. Distractors
    are three of the four values of the block that are nearest to what the question names. Split by `block_id`. Raises
    DataError where `n` rows cannot be drawn.
    """
    rows: list[Row] = []
    seen: set[tuple[object, ...]] = set()
    facts = load_facts()
    while len(rows) < n:
        n_before = len(rows)
        for fact in rng.sample(facts, len(facts)):
            if len(rows) < n and (row := _distinct_row(fact, rng, language, seen)):
                rows.append(row)
        if len(rows) == n_before:
            raise DataError(f"no more than {n_before} distinct questions could be drawn, asked for {n}.")
    return rows


@cache
def _neighbours(fact: Fact) -> tuple[Fact, ...]:
    """The facts from which the options of a question about `fact` come: its block, or its relation where not cut."""
    blocks = block_ids()
    if blocks[fact.id] == fact.id:
        return relatives(fact)
    return tuple(other for other in relatives(fact) if blocks[other.id] == blocks[fact.id])


def _distinct_row(fact: Fact, rng: random.Random, language: Language, seen: set[tuple[object, ...]]) -> Row | None:
    for _ in range(MAX_TRIES):
        # Where a relation is not cut, the subjects nearest to a value would be wrong options in two splits.
        reverse = block_ids()[fact.id] != fact.id and rng.random() < REVERSE_SHARE
        row = (_reverse_row if reverse else _forward_row)(fact, rng, language)
        if row is None:
            continue
        key = (row["question"], frozenset(str(row[name]) for name in OPTIONS))
        if key not in seen:
            seen.add(key)
            return row
    return None


def _forward_row(fact: Fact, rng: random.Random, language: Language) -> Row | None:
    """A subject is named, its value is among four values."""
    phrasing = PHRASINGS[language][fact.relation]
    others = _draw(rng, _nearest(fact, "values"))
    if others is None:
        return None
    question = fill(rng.choice(phrasing.questions), subject=fact.subject_in(language))
    wrong = [other.value_in(language) for other in others]
    return _row(fact, question, fact.value_in(language), wrong, rng, language, "forward")


def _reverse_row(fact: Fact, rng: random.Random, language: Language) -> Row | None:
    """A value is named, and of four subjects only the fact's has it. The subject's own explanation is the reason."""
    phrasing = PHRASINGS[language][fact.relation]
    others = _draw(rng, _nearest(fact, "subjects"))
    if others is None or not phrasing.reverse:
        return None
    question = fill(rng.choice(phrasing.reverse), value=fact.value_in(language))
    wrong = [other.subject_in(language) for other in others]
    return _row(fact, question, fact.subject_in(language), wrong, rng, language, "reverse")


def _draw(rng: random.Random, facts: Sequence[Fact]) -> list[Fact] | None:
    """Three of `facts`, nearest first, or None if there are not so many: mostly the three nearest."""
    if len(facts) < 3:
        return None
    if rng.random() < NEAREST_SHARE:
        return list(facts[:3])
    return rng.sample(facts, 3)


def other_values(fact: Fact) -> list[Fact]:
    """The facts of the block whose values are wrong for the subject."""
    return [other for other in _neighbours(fact) if is_wrong(fact, other)]


def other_subjects(fact: Fact) -> list[Fact]:
    """The facts of the block of whose subjects the value is not true."""
    return wrong_subjects(fact, _neighbours(fact))


@cache
def _near() -> Mapping[str, Mapping[str, Sequence[str]]]:
    tree: dict[str, dict[str, list[str]]] = json.loads(NEAR_PATH.read_text(encoding="utf-8"))
    return tree


@cache
def _nearest(fact: Fact, kind: str) -> tuple[Fact, ...]:
    """The nearest wrong options among `values` or `subjects`: facts whose values, or subjects, are offered."""
    allowed = {other.id: other for other in (other_values if kind == "values" else other_subjects)(fact)}
    return tuple(allowed[fact_id] for fact_id in _near()[fact.id][kind] if fact_id in allowed)


def _row(
    fact: Fact,
    question: str,
    right: str,
    wrong: list[str],
    rng: random.Random,
    language: Language,
    direction: Direction,
) -> Row:
    position = rng.randrange(4)
    options = [*wrong[:position], right, *wrong[position:]]
    lots = random.Random(f"{question} {fact.id}")  # of its own: the rows are those that they would be without reasoning
    reasoning = reasoned(fact, lots, language, direction)
    return {
        "question": question,
        **dict(zip(OPTIONS, options, strict=True)),
        "cop": position,
        "exp": fact.explanation_in(language),
        "fact_id": fact.id,
        "block_id": block_ids()[fact.id],
        "relation": fact.relation,
        "direction": direction,
        "language": language,
        "synthetic": True,
        "reasoning": reasoning,
        "comment": reasoning if lots.random() < COMMENTED_SHARE else None,
    }
