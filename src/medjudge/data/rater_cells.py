"""What a case's rows say together where each holds one expert's label, and the label that a rule makes of them."""

from __future__ import annotations

from dataclasses import replace

from medjudge.data.cells import shown_id
from medjudge.data.ratings import GoldRule
from medjudge.data.verdict_cells import Facts
from medjudge.errors import DataError


def with_rating(case_id: str, before: Facts, now: Facts, place: str) -> Facts:
    """What the rows of one case say together, a row for each rater.

    Raises DataError where a rater gave the case two labels, or two rows contradict each other in what is the case's.
    """
    for rater, label in now.ratings.items():
        if before.ratings.get(rater, label) != label:
            raise DataError(
                f"{place}: a rater has a second label for case {shown_id(case_id)}, expected one label of each rater "
                "for each case. Keep one of the rows, or name the column that tells raters apart: --gold-map "
                "rater=COLUMN."
            )
    for name in ("generator", "group", "adjudicated"):
        old, new = getattr(before, name), getattr(now, name)
        if old and new and old != new:
            raise DataError(
                f"{place}: case {shown_id(case_id)} has another {name} than in an earlier row, expected the same in "
                f"the rows of all its raters. Correct it, or read none: --gold-map {name}=."
            )
    return replace(
        before,
        generator=before.generator or now.generator,
        group=before.group or now.group,
        inputs=before.inputs or now.inputs,
        ratings={**before.ratings, **now.ratings},
        adjudicated=before.adjudicated or now.adjudicated,
        numbers={**before.numbers, **now.numbers},
    )


def settled(facts: Facts, rule: GoldRule) -> Facts:
    """The facts of a case with the label that the rule makes of its ratings; without ratings as they are."""
    if not facts.ratings and facts.adjudicated is None:
        return facts
    if not facts.ratings:
        return facts if facts.gold is not None else replace(facts, gold=facts.adjudicated)
    return replace(facts, gold=rule.gold(facts.ratings, facts.adjudicated))
