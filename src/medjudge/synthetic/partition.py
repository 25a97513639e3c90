"""Which facts and situations the tiny base was asked about before it was shipped, and which are left for the tasks.

`builtin:tiny` has read every fact as a plain statement. Besides, it has practised questions, on the `pretraining` part
alone: about a third of the facts and situations, set aside here once and for all. The built-in sets are drawn from the
other part, `task`, so that no row of theirs, in whatever split, asks what the base has been asked before.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from medjudge.synthetic.facts import Fact, facts_by_relation, is_wrong

Part = Literal["pretraining", "task"]

PRETRAINING_SHARE = 1 / 3
BLOCK_VALUES = 6
"""Values of a block, at least."""
MIN_BLOCKS = 3
"""A relation with fewer blocks is not cut: its few values are each the answer of many facts, and each fact is a block
of its own."""
MAX_SHUFFLES = 100


@cache
def block_ids() -> Mapping[str, str]:
    """Fact id -> its block, the same in every draw: `RELATION/2`; its own id where the relation is not cut.

    A block is some six values of a relation with all their facts, enough for each to be asked about among the others.
    """
    return {fact_id: block for facts in facts_by_relation().values() for fact_id, block in _cut(facts).items()}


@cache
def part_ids() -> Mapping[str, Part]:
    """Fact id -> its part. Whole blocks go to one part, in every relation about a third to `pretraining`."""
    found: dict[str, Part] = {}
    for relation, facts in facts_by_relation().items():
        blocks = sorted({block_ids()[fact.id] for fact in facts})
        chosen = set(set_aside(blocks, relation))
        found |= {fact.id: "pretraining" if block_ids()[fact.id] in chosen else "task" for fact in facts}
    return found


def set_aside(names: Sequence[str], key: str) -> list[str]:
    """About a third of `names`, the same ones every time; `key` tells one drawing of lots from another."""
    order = sorted(names)
    random.Random(f"{key} set aside").shuffle(order)
    return order[: round(len(order) * PRETRAINING_SHARE)]


@cache
def facts_of(part: Part) -> tuple[Fact, ...]:
    """The facts of one part, by relation and id."""
    return tuple(fact for facts in facts_by_relation().values() for fact in facts if part_ids()[fact.id] == part)


@cache
def relatives(fact: Fact) -> tuple[Fact, ...]:
    """The facts of `fact`'s relation and part, itself among them: from these its wrong answers come.

    Values of the other part would never be right in a set, and would give themselves away.
    """
    return tuple(other for other in facts_by_relation()[fact.relation] if part_ids()[other.id] == part_ids()[fact.id])


def wrong_values(fact: Fact, facts: Sequence[Fact]) -> set[str]:
    """Values among `facts` that are wrong for the subject of `fact`."""
    return {other.value for other in facts if is_wrong(fact, other)}


def wrong_subjects(fact: Fact, facts: Sequence[Fact]) -> list[Fact]:
    """Facts among `facts` of whose subjects the value of `fact` is not true."""
    return [other for other in facts if is_wrong(other, fact)]


def _cut(facts: Sequence[Fact]) -> dict[str, str]:
    """Fact id -> block for one relation: the first shuffle of its values that leaves each fact enough wrong options."""
    values = sorted({fact.value for fact in facts})
    n_blocks = len(values) // BLOCK_VALUES
    for attempt in range(MAX_SHUFFLES if n_blocks >= MIN_BLOCKS else 0):
        order = values.copy()
        random.Random(f"{facts[0].relation} {attempt}").shuffle(order)
        place = {value: index % n_blocks for index, value in enumerate(order)}
        parts = [[fact for fact in facts if place[fact.value] == number] for number in range(n_blocks)]
        if all(
            len(wrong_values(fact, part)) >= 3 and len(wrong_subjects(fact, part)) >= 3
            for part in parts
            for fact in part
        ):
            return {fact.id: f"{fact.relation}/{place[fact.value]}" for fact in facts}
    return {fact.id: fact.id for fact in facts}
