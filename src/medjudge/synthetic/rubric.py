"""Answers of known quality to questions of the fact base, to be graded on 2, 3 or 5 points, with a written reason.

An answer is built as one of seven kinds, from right with a reason to off the topic; what a kind earns on each scale is
one table, `SCORES`, and the rubric's text says the same in words.
"""

from __future__ import annotations

import random
from typing import Literal

from medjudge.synthetic.answers import Row, bare, draw_rows, named, question, statement, wrong_fact
from medjudge.synthetic.facts import Fact
from medjudge.synthetic.partition import Part, facts_of, part_ids
from medjudge.synthetic.phrasing import capital

Points = Literal[2, 3, 5]

SCORES: dict[str, dict[int, int]] = {  # kind of answer -> points of the scale -> score
    "right_with_reason": {5: 5, 3: 3, 2: 1},
    "right": {5: 4, 3: 2, 2: 1},
    "right_off_topic_extra": {5: 3, 3: 2, 2: 1},
    "right_false_extra": {5: 3, 3: 2, 2: 1},
    "undecided": {5: 2, 3: 1, 2: 0},
    "wrong": {5: 1, 3: 1, 2: 0},
    "off_topic": {5: 1, 3: 1, 2: 0},
}
CRITERIA: dict[int, tuple[str, ...]] = {
    2: (
        "Does the output commit to the right answer to the question?",
        "Is the question answered correctly and without evasion?",
    ),
    3: (
        "How well is the question answered: is the answer right, and does a correct reason support it?",
        "Judge whether the output gives the right answer and explains it.",
    ),
    5: (
        "How good is the answer: is it right, decided, supported by a correct reason, and free of errors and asides?",
        "Judge the correctness, the decision and the reasoning of the answer to the question.",
    ),
}
RUBRICS: dict[int, dict[str, str]] = {
    2: {
        "0": "The output gives a wrong answer, does not decide between answers, or does not answer the question.",
        "1": "The output commits to the right answer, with or without a reason.",
    },
    3: {
        "1": "The output gives a wrong answer, does not decide between answers, or does not answer the question.",
        "2": "The output commits to the right answer but gives no reason, or adds something false or beside the point.",
        "3": "The output commits to the right answer and supports it with a correct reason.",
    },
    5: {
        "1": "The output gives a wrong answer or does not answer the question.",
        "2": "The output names the right answer among others but does not decide.",
        "3": "The output commits to the right answer but adds something false or beside the point.",
        "4": "The output commits to the right answer but gives no reason.",
        "5": "The output commits to the right answer and supports it with a correct reason.",
    },
}
OPENINGS = ("", "", "", "Good question. ", "Answer: ", "In short: ", "Without any doubt: ", "Every textbook says so: ")
"""Before answers of every kind, so that the tone tells nothing of the quality."""
PLAIN = ("I would answer {v}.", "The answer is {v}.", "It is {v}.")
CONTRAST = ("It is {v}, not {w}.", "Some say {w}, but the answer is {v}.", "I first thought of {w}, but it is {v}.")
UNDECIDED = (
    "It is either {a} or {b}; I would not decide.",
    "Some say {a}, others {b}; both seem possible.",
    "It may be {a}, but it may just as well be {b}.",
    "I hesitate between {a} and {b}.",
)
ASIDES = ("By the way: {x}", "Another thing worth knowing: {x}", "Also: {x}", "On another subject: {x}")
FALSE_EXTRAS = ("In the same way: {x}", "Note also: {x}", "Similarly: {x}")
FEEDBACK: dict[str, tuple[str, ...]] = {
    "right_with_reason": (
        "The output commits to the right answer, {v}. It supports it with a correct reason.",
        "{V} is what was asked for, and the reason given is correct.",
    ),
    "right": (
        "The output commits to the right answer, {v}. It gives no reason for it.",
        "{V} is what was asked for, but no reason supports it.",
    ),
    "right_off_topic_extra": (
        "The output commits to the right answer, {v}. What it adds is beside the point.",
        "{V} is what was asked for, but the addition has nothing to do with the question.",
    ),
    "right_false_extra": (
        "The output commits to the right answer, {v}. What it adds about {x} is false.",
        "{V} is what was asked for, but the addition about {x} is wrong.",
    ),
    "undecided": (
        "The output names {v} only as one of two possibilities. It does not decide.",
        "The right answer, {v}, is mentioned next to {w}, but the output does not commit to it.",
    ),
    "wrong": (
        "The output answers {w}. The right answer is {v}.",
        "{W} is wrong here; the question calls for {v}.",
    ),
    "off_topic": (
        "The output speaks of something else and does not answer the question. The right answer is {v}.",
        "What the output says is beside the point; the question calls for {v}.",
    ),
}


def generate(n: int, rng: random.Random, points: Points = 5, part: Part = "task") -> list[Row]:
    """`n` distinct rows in the fields of the `rubric` contract, with `quality`, the kind of answer.

    points: 2 (scores 0-1), 3 (1-3) or 5 (1-5). The scores take turns, so that each has its equal share, and the kinds
    that earn one score are equally frequent among its rows. Raises DataError where `n` rows cannot be drawn.
    """
    kinds: dict[int, list[str]] = {}
    for kind, scores in SCORES.items():
        kinds.setdefault(scores[points], []).append(kind)
    scale = sorted(kinds)

    def draw(fact: Fact, n_rows: int) -> Row:
        score = scale[n_rows % len(scale)]
        return _draw(fact, rng.choice(kinds[score]), points, rng)

    return draw_rows(n, rng, draw, ("input", "output"), part)


def _draw(fact: Fact, kind: str, points: Points, rng: random.Random) -> Row:
    other = wrong_fact(fact, rng)
    output, aside = _answer(fact, kind, other, rng)
    feedback = rng.choice(FEEDBACK[kind]).replace("{x}", aside)
    for place, text in (("v", named(fact, "en")), ("w", named(other, "en"))):
        feedback = feedback.replace("{" + place + "}", text).replace("{" + place.upper() + "}", capital(text))
    return {
        "input": question(fact, rng, "en"),
        "reference": bare(fact.value),
        "output": output,
        "criteria": rng.choice(CRITERIA[points]),
        "rubric": dict(RUBRICS[points]),
        "score": SCORES[kind][points],
        "feedback": feedback,
        "quality": kind,
        "fact_id": fact.id,
        "relation": fact.relation,
        "language": "en",
        "synthetic": True,
    }


def _answer(fact: Fact, kind: str, other: Fact, rng: random.Random) -> tuple[str, str]:
    """(an answer of this kind, the subject of what it adds or an empty text)."""
    opening = rng.choice(OPENINGS)
    match kind:
        case "right_with_reason":  # the explanation states the answer itself
            lead = f"{_assert(fact, fact, other, rng)} " if rng.random() < 0.6 else ""
            return f"{opening}{lead}{fact.explanation}", ""
        case "right":
            return opening + _assert(fact, fact, other, rng), ""
        case "right_off_topic_extra":
            return f"{opening}{_assert(fact, fact, other, rng)} {_aside(fact, rng)}", ""
        case "right_false_extra":
            return f"{opening}{_assert(fact, fact, other, rng)} {_false_extra(other, rng)}", other.subject
        case "undecided":
            first, second = rng.sample([named(fact, "en"), named(other, "en")], 2)
            return opening + rng.choice(UNDECIDED).replace("{a}", first).replace("{b}", second), ""
        case "wrong":  # with all that a right answer may have beside it
            extra = rng.choice(
                ("", "", f" {other.explanation}", f" {_aside(fact, rng)}", f" {_false_extra(other, rng)}")
            )
            return opening + _assert(fact, other, fact, rng) + extra, ""
        case "off_topic":
            more = f" {_aside(fact, rng)}" if rng.random() < 0.4 else ""
            return opening + _other_relation(fact, rng).explanation + more, ""
    raise AssertionError(f"no kind of answer {kind!r}")


def _assert(fact: Fact, source: Fact, rejected: Fact, rng: random.Random) -> str:
    """The value of `source` as the answer to the question about `fact`: plain, against another, or in a sentence."""
    way = rng.random()
    if way < 0.25:
        return rng.choice(PLAIN).replace("{v}", named(source, "en"))
    if way < 0.5:
        return rng.choice(CONTRAST).replace("{v}", named(source, "en")).replace("{w}", named(rejected, "en"))
    return statement(fact, source.value, rng, "en")


def _aside(fact: Fact, rng: random.Random) -> str:
    """A true sentence that has nothing to do with the question."""
    return rng.choice(ASIDES).replace("{x}", _other_relation(fact, rng).explanation)


def _false_extra(fact: Fact, rng: random.Random) -> str:
    """A false sentence about the subject of `fact`, which is another than the question's: the answer is not touched."""
    return rng.choice(FALSE_EXTRAS).replace("{x}", statement(fact, wrong_fact(fact, rng).value, rng, "en"))


def _other_relation(fact: Fact, rng: random.Random) -> Fact:
    """A fact of another relation that does not speak of this one's subject or value."""
    while True:
        other = rng.choice(facts_of(part_ids()[fact.id]))
        text = other.explanation.casefold()
        if other.relation != fact.relation and not any(word.casefold() in text for word in (fact.subject, fact.value)):
            return other
