"""The medical terms that this package knows: from its facts, and from the conditions and procedures of its table."""

from __future__ import annotations

import re
from functools import cache

from medjudge.synthetic.appropriateness import load_variants
from medjudge.synthetic.facts import LANGUAGES, load_facts

# "CT of the chest, abdomen and pelvis with IV contrast" names a test, three regions and a way of doing it.
_JOINT = re.compile(r"\s+of\s+(?:the\s+)?|\s+and\s+(?!with)|,\s*|\s+(?=without\b|(?<!and )with\b)|\s*/\s*")


@cache
def builtin_terms() -> frozenset[str]:
    """Terms in English and French, as they stand in the facts and in the imaging table."""
    facts = {
        term for fact in load_facts() for lang in LANGUAGES for term in (fact.subject_in(lang), fact.value_in(lang))
    }
    table = {variant.condition for variant in load_variants()}
    for variant in load_variants():
        for rating in variant.ratings:
            table.update(procedure_parts(rating.procedure))
    return frozenset(facts | table)


def procedure_parts(procedure: str) -> list[str]:
    """A procedure's test, regions and manner: "CT of the head without IV contrast" -> CT, head, without IV contrast."""
    return [part for part in _JOINT.split(procedure) if part]
