"""Blocks of facts that are split together, and the facts that a fact is told apart from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache

from medjudge.files import BUILTIN_DIR
from medjudge.synthetic.facts import Fact, facts_by_relation, is_wrong, load_facts

BLOCKS_PATH = BUILTIN_DIR / "blocks.json"
"""Block -> ids of its facts: a record, so that a mended name moves no fact to another block. Drawn by chance so that
each fact has three wrong values and three wrong subjects in its own block."""


@cache
def block_ids() -> Mapping[str, str]:
    """Fact id -> its block: `RELATION/2`; its own id where the relation is not cut.

    A block is some six values of a relation with all their facts, enough for each to be asked about among the others.
    A relation of few values is not cut: each is the answer of many facts, and each fact is a block of its own.
    """
    listed = json.loads(BLOCKS_PATH.read_text(encoding="utf-8"))
    blocks = {fact_id: block for block, ids in listed.items() for fact_id in ids}
    return {fact.id: blocks.get(fact.id, fact.id) for fact in load_facts()}


def relatives(fact: Fact) -> tuple[Fact, ...]:
    """The facts of `fact`'s relation, itself among them: from these its wrong answers come."""
    return facts_by_relation()[fact.relation]


def wrong_subjects(fact: Fact, facts: Sequence[Fact]) -> list[Fact]:
    """Facts among `facts` of whose subjects the value of `fact` is not true."""
    return [other for other in facts if is_wrong(other, fact)]
