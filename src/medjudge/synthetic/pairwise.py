"""Pairs of answers to a question with a reference, of which one is better or neither, in English or French.

Each place of a pair is a frame and a class of overlap with the reference for which both a right and a wrong filling are
drawn. Which of the two is taken decides the label alone: right beside wrong, or both alike. So frames, lengths and
overlaps are the same for every label, on either side.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from medjudge.synthetic.answers import Row, bare, draw_rows, question, statement
from medjudge.synthetic.equivalence import (
    KINDS,
    NO_ERROR,
    RENAMED_SHARE,
    SENTENCE_SHARE,
    bare_name,
    candidate,
    overlap_class,
    sloppy,
)
from medjudge.synthetic.facts import Fact, Language
from medjudge.synthetic.wordings import frames, names, put, siblings

A, B, TIE = "A", "B", "tie"
RIGHT_SIDES: dict[str, tuple[tuple[bool, bool], ...]] = {
    A: ((True, False),),
    B: ((False, True),),
    TIE: ((True, True), (False, False)),
}
"""Label -> whether answer A and answer B are right."""
ALWAYS_WRONG = frozenset({"list", "undecided"})
"""Kinds of answers that no filling makes right."""
SLOPPY_SHARE = 0.1
"""Of the answers, those in capitals or small letters, or without accents or full stop."""
MAX_TRIES = 60
"""Candidates drawn for one place before another frame is taken."""
SYSTEMS: dict[str, float] = {"alder": 0.8, "birch": 0.65, "cedar": 0.5, "elm": 0.35, "fir": 0.2}
"""Simulated system -> share of right answers, where right and wrong ones are equally frequent. No text shows it."""
REASONS: dict[Language, dict[tuple[bool, bool], str]] = {
    "en": {
        (True, False): "Answer A commits to the reference answer, {v}; answer B commits to {b}.",
        (False, True): "Answer B commits to the reference answer, {v}; answer A commits to {a}.",
        (True, True): "Both commit to the reference answer, {v}.",
        (False, False): "Neither commits to the reference answer, {v}.",
    },
    "fr": {
        (True, False): "La réponse A affirme la référence, {v} ; la réponse B affirme {b}.",
        (False, True): "La réponse B affirme la référence, {v} ; la réponse A affirme {a}.",
        (True, True): "Les deux affirment la référence, {v}.",
        (False, False): "Aucune n'affirme la référence, {v}.",
    },
}


@dataclass(frozen=True, slots=True)
class _Said:
    """One filling of a place."""

    text: str
    kind: str
    value: str
    """What it commits to."""


def generate(n: int, rng: random.Random, language: Language = "en") -> list[Row]:
    """`n` distinct rows in the fields of the `pairwise` contract, with the simulated systems that gave the answers.

    The labels take turns, so that each has a third of the rows. Raises DataError where `n` rows cannot be drawn.
    """

    def draw(fact: Fact, n_rows: int) -> Row:
        return _draw(fact, (A, B, TIE)[n_rows % 3], rng, language)

    rows = draw_rows(n, rng, draw, ("question", "reference", "answer_a", "answer_b"))
    # The label of a row would else stand in its number.
    rng.shuffle(rows)
    return rows


def _draw(fact: Fact, label: str, rng: random.Random, language: Language) -> Row:
    is_sentence = rng.random() < SENTENCE_SHARE
    known_as = rng.choice(names(fact, language)) if rng.random() < RENAMED_SHARE else ""
    value = fact.value_in(language)
    reference = statement(fact, value, rng, language) if is_sentence else bare(bare_name(known_as) or value)
    used = names(fact, language)[0] if is_sentence or not known_as else known_as
    sides = rng.choice(RIGHT_SIDES[label])
    first = _place(fact, used, rng, language)[sides[0]]
    second = _place(fact, used, rng, language)[sides[1]]
    while second.text == first.text:
        second = _place(fact, used, rng, language)[sides[1]]
    system_a, system_b = _systems(sides, rng)
    return {
        "question": question(fact, rng, language),
        "reference": reference,
        "answer_a": first.text,
        "answer_b": second.text,
        "label": label,
        "reason": put(REASONS[language][sides], v=value, a=first.value, b=second.value),
        "system_a": system_a,
        "system_b": system_b,
        "kind_a": first.kind,
        "kind_b": second.kind,
        "fact_id": fact.id,
        "relation": fact.relation,
        "language": language,
        "synthetic": True,
    }


def _place(fact: Fact, used: str, rng: random.Random, language: Language) -> dict[bool, _Said]:
    """A right and a wrong filling of one frame, alike in what they repeat of the reference."""
    kinds = {kind: share for kind, share in KINDS.items() if kind not in ALWAYS_WRONG}
    if not siblings(fact):
        kinds.pop("same")
    while True:
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        frame = rng.choice(frames(kind, language))
        change = rng.randrange(2**30) if rng.random() < SLOPPY_SHARE else None
        found: dict[tuple[str, str], dict[bool, _Said]] = {}
        for _ in range(MAX_TRIES):
            text, error, other, _ = candidate(kind, frame, fact, used, rng, language)
            # An answer that is only too vague is better than a wrong one: two such are no tie.
            if error not in (NO_ERROR, "wrong_entity"):
                continue
            if change is not None:
                text = sloppy(text, random.Random(change))
            is_right = error == NO_ERROR
            said = _Said(text, kind, (fact if is_right else other).value_in(language))
            fillings = found.setdefault(overlap_class(text, bare_name(used)), {})
            fillings.setdefault(is_right, said)
            if len(fillings) == 2:
                return fillings


def _systems(sides: tuple[bool, bool], rng: random.Random) -> tuple[str, str]:
    """Two systems, each the likelier the more of its answers are as good as this one."""
    chosen: list[str] = []
    for is_right in sides:
        left = {name: share if is_right else 1 - share for name, share in SYSTEMS.items() if name not in chosen}
        chosen += rng.choices(list(left), list(left.values()))
    # In turn, or the second would be drawn from fewer more often than the first.
    return chosen[0], chosen[1]
