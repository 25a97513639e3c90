"""Parts of which right and wrong answers to questions about a fact are built."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Literal

from medjudge.errors import DataError
from medjudge.synthetic.blocks import relatives
from medjudge.synthetic.facts import Fact, Language, holds, is_wrong, load_facts
from medjudge.synthetic.phrasing import PHRASINGS, VALUE_FIRST, capital, fill

Row = dict[str, object]
Direction = Literal["forward", "reverse"]
"""From a subject to its value, or from a value to a subject."""

MIN_PART = 4
"""Letters that a part of a value needs to stand as an incomplete answer."""
NO_PART = frozenset(
    [
        "glycogen phosphorylase",
        "phosphorylase",
        "glycogène phosphorylase",
        "glycogène",
        "horn of the sinus venosus",
        "sinus venosus",
        "venosus",
        "human",
        "première",
        "deuxième",
        "troisième",
        "quatrième",
        "perte de la",
        "perte de la région",
        "bloc AV du",
        "sodium channel blockade",
        "channel blockade",
        "calcium channel blockade",
        "blocage des canaux sodiques",
        "blocage des canaux calciques",
        "blocage des canaux",
        "hypertension",
        "hypertension artérielle",
        "récessive",
        "dominante",
        "recessive",
        "dominant",
    ]
)
"""Parts that a strict and a lenient reader would judge differently, or that are no answer at all."""
MAX_TRIES = 40
"""Draws for one row that repeats an earlier one, before the next fact has its turn."""


def draw_rows(n: int, rng: random.Random, draw: Callable[[Fact, int], Row], identity: tuple[str, ...]) -> list[Row]:
    """`n` rows that differ in the fields `identity`, every fact once before any comes again.

    draw: a row about a fact, given how many rows there are already. Raises DataError where so many cannot be drawn.
    """
    rows: list[Row] = []
    seen: set[tuple[object, ...]] = set()
    facts = load_facts()
    while len(rows) < n:
        n_before = len(rows)
        for fact in rng.sample(facts, len(facts)):
            for _ in range(MAX_TRIES):
                row = draw(fact, len(rows))
                key = tuple(row[name] for name in identity)
                if key not in seen:
                    seen.add(key)
                    rows.append(row)
                    break
            if len(rows) == n:
                break
        if len(rows) == n_before:
            raise DataError(f"no more than {n_before} distinct rows can be drawn, asked for {n}.")
    return rows


def question(fact: Fact, rng: random.Random, language: Language) -> str:
    """An open question that the fact's value answers."""
    return fill(rng.choice(PHRASINGS[language][fact.relation].questions), subject=fact.subject_in(language))


def statement(fact: Fact, value: str, rng: random.Random, language: Language) -> str:
    """A sentence that gives the fact's subject this value, right or wrong."""
    template = rng.choice(PHRASINGS[language][fact.relation].statements)
    return fill(template, subject=fact.subject_in(language), value=value)


def reasoned(fact: Fact, rng: random.Random, language: Language, direction: Direction = "forward") -> str:
    """A true sentence that starts from what a question names, as one says it to oneself before answering."""
    template = rng.choice(reasonings(fact.relation, language, direction))
    return fill(template, subject=fact.subject_in(language), value=fact.value_in(language))


@cache
def reasonings(relation: str, language: Language, direction: Direction) -> tuple[str, ...]:
    """The wordings of a statement that name the subject first, or the value for a reverse question."""
    if direction == "reverse":
        return VALUE_FIRST[language][relation]
    templates = PHRASINGS[language][relation].statements
    return tuple(text for text in templates if text.lower().index("{s}") < text.lower().index("{v}"))


def bare(value: str) -> str:
    """A value as a short answer: `Axillary nerve.`"""
    return capital(value) + "."


def named(fact: Fact, language: Language) -> str:
    """A fact's value as it stands inside a sentence, with an article where its relation has one."""
    return PHRASINGS[language][fact.relation].article + fact.value_in(language)


@cache
def wrong_facts(fact: Fact) -> tuple[Fact, ...]:
    """The facts of the relation whose value is wrong here and shares no whole value with the right one."""
    found = [
        other
        for other in relatives(fact)
        if is_wrong(fact, other) and not (_overlap(fact.value, other.value) or _overlap(fact.value_fr, other.value_fr))
    ]
    if not found:
        raise DataError(f"{fact.id}: no other value of {fact.relation!r} is wrong for its subject.")
    return tuple(found)


def _overlap(one: str, other: str) -> bool:
    """Whether one text stands whole, at word boundaries, inside the other."""
    return holds(one, other) or holds(other, one)


@cache
def incomplete(fact: Fact, language: Language) -> tuple[str, ...]:
    """Answers that leave open which value is meant, at least one.

    The words that the value shares with another, wrong value of its relation (`mesenteric artery` for the superior
    one, `Plasmodium` for one species), and the relation's vague answers.
    """
    words = fact.value_in(language).split()
    from_front = language == "fr" or fact.relation in ("organism_disease", "vitamin_deficiency")
    parts = []
    for length in range(1, len(words)):
        part = words[:length] if from_front else words[-length:]
        shared = (
            other.value_in(language).split()[:length] if from_front else other.value_in(language).split()[-length:]
            for other in wrong_facts(fact)
        )
        text = " ".join(part)
        if part in shared and len(part[-1] if from_front else part[0]) >= MIN_PART and text not in NO_PART:
            parts.append(text)
    return (*parts, *PHRASINGS[language][fact.relation].vague)
