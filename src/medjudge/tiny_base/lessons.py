"""What the tiny base is taught in each phase: how many examples of each kind an epoch holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medjudge.synthetic.facts import Language

Numbers = Mapping[tuple[str, Language], int]
"""Documents of each kind and language in one epoch."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What some epochs hold."""

    numbers: Numbers
    """Questions are about the set-aside part."""
    n_epochs: int = 1
    stated_share: float = 1.0
    """Of the facts, those that one of these epochs states."""
    stated_orders_share: float = 0.0
    """Of the rated pairs of the imaging table, those that one epoch states."""


WORDS = Lesson({("words", "en"): 1280}, stated_share=0.0)
"""The first lesson, which goes on until it is learned: how long that takes depends on the random draw."""
LESSONS = (
    Lesson({("words", "en"): 450, ("names", "en"): 1000, ("later", "en"): 500}, n_epochs=4, stated_share=0.0),
    Lesson(
        {("matches", "en"): 1200, ("told", "en"): 200, ("later", "en"): 120, ("names", "en"): 80},
        n_epochs=5,
        stated_share=0.0,
    ),
    Lesson(
        {
            ("told", "en"): 900,
            ("find", "en"): 300,
            ("find", "fr"): 100,
            ("matches", "en"): 400,
            ("later", "en"): 150,
            ("names", "en"): 100,
            ("verdicts", "en"): 200,
        },
        n_epochs=6,
        stated_share=0.15,
    ),
)
"""The next ones, in order; the last goes on until it is learned."""
PRACTICE = Lesson(
    {("mock", "en"): 1100, ("mock", "fr"): 150, ("echo", "en"): 350, ("later", "en"): 100}, stated_share=0.5
)
"""Repeating what is asked about, beside facts that are read again."""
EVERYTHING = Lesson(
    {
        ("mock", "en"): 800,
        ("mock", "fr"): 100,
        ("echo", "en"): 100,
        ("mcq", "en"): 700,
        ("mcq", "fr"): 120,
        ("find", "en"): 100,
        ("find", "fr"): 30,
        ("open", "en"): 300,
        ("open", "fr"): 60,
        ("equivalence", "en"): 120,
        ("equivalence", "fr"): 60,
        ("rubric", "en"): 60,
        ("appropriateness", "en"): 80,
        ("names", "en"): 50,
        ("later", "en"): 50,
    },
    stated_orders_share=0.073,
)
"""All that it should know and do, a sentence before every option."""
JUDGING = Lesson(
    {
        ("listed orders", "en"): 900,
        ("stated orders", "en"): 300,
        ("rated", "en"): 250,
        ("equivalence", "en"): 300,
        ("equivalence", "fr"): 70,
        ("graded", "en"): 250,
        ("mcq", "en"): 300,
        ("mcq", "fr"): 50,
        ("mock", "en"): 300,
        ("mock", "fr"): 40,
        ("find", "en"): 40,
        ("open", "en"): 100,
        ("later", "en"): 30,
    },
    stated_share=0.7,
)
"""Comparing, grading and rating, beside what was learned before. Orders are stated of all situations."""
