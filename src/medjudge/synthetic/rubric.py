"""Answers of known quality to questions of the fact base, to be graded on 2, 3 or 5 points, with written feedback.

A question asks about a fact and, for comparison, about three others of the same relation. An answer gives four values,
the right ones or the same four in another order, in other names than the reference's: every quality of answer is made
of the same words in the same frames, and which value is said of which subject is all that earns points. What a quality
earns on each scale is one table, `SCORES`; the rubric's text says the same in words.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from medjudge.files import BUILTIN_DIR
from medjudge.synthetic.answers import Row, draw_rows, question
from medjudge.synthetic.blocks import relatives
from medjudge.synthetic.facts import Fact, is_wrong
from medjudge.synthetic.wordings import names, near_facts, put

Points = Literal[2, 3, 5]
GRADED_PATH: Path = BUILTIN_DIR / "wordings" / "graded.json"

SCORES: dict[str, dict[int, int]] = {  # quality of the answer -> points of the scale -> score
    "all_right": {5: 5, 3: 3, 2: 1},
    "sides_partly": {5: 4, 3: 2, 2: 1},
    "sides_wrong": {5: 3, 3: 2, 2: 1},
    "main_wrong": {5: 2, 3: 1, 2: 0},
    "all_wrong": {5: 1, 3: 1, 2: 0},
}
ORDERS: dict[str, tuple[tuple[int, ...], ...]] = {
    "all_right": ((0, 1, 2, 3),),
    "sides_partly": ((0, 2, 1, 3), (0, 3, 2, 1), (0, 1, 3, 2)),
    "sides_wrong": ((0, 2, 3, 1), (0, 3, 1, 2)),
    "main_wrong": ((1, 0, 2, 3), (2, 1, 0, 3), (3, 1, 2, 0), (1, 2, 0, 3), (2, 1, 3, 0), (3, 0, 2, 1)),
    "all_wrong": ((1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0), (1, 2, 3, 0), (3, 0, 1, 2), (2, 0, 3, 1)),
}
"""Quality -> which of the four values is said of the asked subject (first) and of each of the others."""
REPEATED_SHARE = 0.7
"""Of the values in an output, those under the name that the reference gives them."""
RENAMED_SHARE = 0.25
"""Of the values in a reference, those under another name than the fact base's."""


@cache
def _texts() -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(GRADED_PATH.read_text(encoding="utf-8"))
    return tree


def generate(n: int, rng: random.Random, points: Points = 5) -> list[Row]:
    """`n` distinct rows in the fields of the `rubric` contract, with `quality`, the kind of answer.

    points: 2 (scores 0-1), 3 (1-3) or 5 (1-5). The scores take turns, so that each has its equal share, and the
    qualities that earn one score are equally frequent among its rows. Raises DataError where `n` rows cannot be drawn.
    """
    kinds: dict[int, list[str]] = {}
    for kind, scores in SCORES.items():
        kinds.setdefault(scores[points], []).append(kind)
    scale = sorted(kinds)

    def draw(fact: Fact, n_rows: int) -> Row:
        return _draw(fact, rng.choice(kinds[scale[n_rows % len(scale)]]), points, rng)

    return draw_rows(n, rng, draw, ("input", "output"))


@cache
def _companions(fact: Fact) -> tuple[Fact, ...]:
    """Facts of the relation of which each value is wrong for the other's subject."""
    return tuple(other for other in relatives(fact) if is_wrong(fact, other) and is_wrong(other, fact))


def _four(fact: Fact, rng: random.Random) -> list[Fact]:
    """The fact and three others, each value wrong for the three other subjects; one of them near in wording."""
    near = [other for other in near_facts(fact) if other in _companions(fact)]
    rest = rng.sample(_companions(fact), len(_companions(fact)))
    first = rng.sample(near, min(1, len(near)))
    pool = [*first, *(other for other in rest if other not in first)]
    # The first three in this order of which each value is wrong for the others' subjects.
    others = next(
        list(three)
        for three in combinations(pool, 3)
        if all(is_wrong(one, other) and is_wrong(other, one) for one, other in combinations(three, 2))
    )
    rng.shuffle(others)
    return [fact, *others]


def _draw(fact: Fact, quality: str, points: Points, rng: random.Random) -> Row:
    texts = _texts()
    four = _four(fact, rng)
    subjects = {f"s{i}": one.subject for i, one in enumerate(four)}
    known = [_known_as(one, rng) for one in four]
    order = rng.choice(ORDERS[quality])
    reference = put(rng.choice(texts["reference"]), **{f"v{i}": name for i, name in enumerate(known)}, **subjects)
    said = [_said_as(four[i], known[i], rng) for i in order]
    right = [i for i in range(1, 4) if order[i] == i]
    wrong = [i for i in range(1, 4) if order[i] != i]
    about = four[rng.choice(wrong if quality == "sides_partly" else right or wrong)].subject
    feedback = put(rng.choice(texts["feedback"][quality]), v=known[0], w=said[0], x=about)
    return {
        "input": put(rng.choice(texts["asked"]), q=question(fact, rng, "en"), **subjects),
        "reference": reference,
        "output": _output(four, said, rng),
        "criteria": rng.choice(texts["criteria"][str(points)]),
        "rubric": dict(texts["rubric"][str(points)]),
        "score": SCORES[quality][points],
        "feedback": feedback,
        "quality": quality,
        "fact_id": fact.id,
        "relation": fact.relation,
        "language": "en",
        "synthetic": True,
    }


def _known_as(fact: Fact, rng: random.Random) -> str:
    listed = names(fact, "en")
    return rng.choice(listed[1:]) if len(listed) > 1 and rng.random() < RENAMED_SHARE else listed[0]


def _said_as(fact: Fact, known: str, rng: random.Random) -> str:
    others = [name for name in names(fact, "en") if name != known]
    return rng.choice(others) if others and rng.random() >= REPEATED_SHARE else known


def _output(four: Sequence[Fact], said: Sequence[str], rng: random.Random) -> str:
    """The main claim first or last, the others in any order, each in a frame of its own."""
    texts = _texts()
    # A rejected name is one of the values said of the others, so that it adds no word of its own.
    main = put(rng.choice(texts["main"]), v0=said[0], x=rng.choice(said[1:]))
    frames = rng.sample(texts["side"], 3)
    sides = [put(frames[i - 1], s=four[i].subject, v=said[i]) for i in rng.sample(range(1, 4), 3)]
    return " ".join([main, *sides])
