"""Which facts and situations the tiny base was asked about before it was shipped, and which are left for the tasks.

`builtin:tiny` has read every fact as a plain statement. Besides, it has practised questions, on the `pretraining` part
alone: about a third of the facts and situations, set aside here once and for all. The built-in sets are drawn from the
other part, `task`, so that no row of theirs, in whatever split, asks what the base has been asked before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from medjudge.files import BUILTIN_DIR
from medjudge.synthetic.facts import Fact, facts_by_relation, is_wrong, load_facts

Part = Literal["pretraining", "task"]

PARTITION_PATH = BUILTIN_DIR / "partition.json"
"""Which facts make a block, and which blocks and imaging situations the shipped base has practised: a record, so that
a mended name or a new situation moves nothing from one part to the other."""
BLOCK_VALUES = 6
"""Values of a block, at least. Blocks were drawn by chance so that each fact has three wrong values and three wrong
subjects in its own."""


@cache
def _partition() -> Any:
    return json.loads(PARTITION_PATH.read_text(encoding="utf-8"))


@cache
def block_ids() -> Mapping[str, str]:
    """Fact id -> its block: `RELATION/2`; its own id where the relation is not cut.

    A block is some six values of a relation with all their facts, enough for each to be asked about among the others.
    A relation of few values is not cut: each is the answer of many facts, and each fact is a block of its own.
    """
    listed = {fact_id: block for block, ids in _partition()["blocks"].items() for fact_id in ids}
    return {fact.id: listed.get(fact.id, fact.id) for fact in load_facts()}


@cache
def part_ids() -> Mapping[str, Part]:
    """Fact id -> its part. Whole blocks go to one part, in every relation about a third to `pretraining`."""
    practised = set(_partition()["pretraining"]["blocks"])
    return {fact_id: "pretraining" if block in practised else "task" for fact_id, block in block_ids().items()}


def practised_situations() -> frozenset[str]:
    """Ids of the imaging situations of the `pretraining` part, about a third of those that the base has read."""
    return frozenset(_partition()["pretraining"]["situations"])


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
