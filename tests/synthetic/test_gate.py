"""What the surface of the built-in rows gives away: string rules that once labelled them, and learnt baselines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from benchmarks.surface_gate import AIMS, OPTIONS, measure_set

from medjudge.synthetic.facts import holds, load_facts
from medjudge.synthetic.sets import GENERATORS
from medjudge.tasks.normalise import normalise

SEED = 90_210
"""Of rows that nobody looked at while the frames were written."""
N_ROWS = 1500
FACTS = {fact.id: fact for fact in load_facts()}

Rule = Callable[[dict[str, Any]], object]


@cache
def rows_of(name: str) -> list[dict[str, Any]]:
    return GENERATORS[name].rows(N_ROWS, SEED)


DENIAL = re.compile(
    r"\b(ruled out|cannot|wrong|not|anything but|nothing to do|rather than|either|could be|depending|hard to say|"
    r"commit|take that back|do not know|without further|specialist|not enough|look this up|along these lines|"
    r"but which)\b",
    re.IGNORECASE,
)


def value_of(row: dict[str, Any]) -> str:
    return FACTS[row["fact_id"]].value if row["fact_id"] in FACTS else row["reference"]


def value_without_denial(row: dict[str, Any]) -> int:
    return int(holds(row["candidate"], value_of(row)) and not DENIAL.search(row["candidate"]))


def reference_without_denial(row: dict[str, Any]) -> int:
    return int(holds(row["candidate"], row["reference"]) and not DENIAL.search(row["candidate"]))


def reference_stands_in_candidate(row: dict[str, Any]) -> int:
    return int(holds(row["candidate"], row["reference"].rstrip(".")))


def value_stands_in_candidate(row: dict[str, Any]) -> int:
    return int(holds(row["candidate"], value_of(row)))


def no_denial(row: dict[str, Any]) -> int:
    return int(not DENIAL.search(row["candidate"]))


def half_of_the_words(row: dict[str, Any]) -> int:
    words = set(normalise(row["reference"]).split())
    return int(len(words & set(normalise(row["candidate"]).split())) >= len(words) / 2)


@pytest.mark.parametrize(
    "rule",
    [
        value_without_denial,
        reference_without_denial,
        reference_stands_in_candidate,
        value_stands_in_candidate,
        no_denial,
        half_of_the_words,
    ],
)
def test_string_rules_on_equivalence(rule: Rule) -> None:
    rows = rows_of("equivalence")
    hits = sum(rule(row) == row["label"] for row in rows) / len(rows)
    assert max(hits, 1 - hits) <= 0.5 + 0.10


UNDECIDED = re.compile(r"hesitate|may just as well|both .*seem|either|would not decide", re.IGNORECASE)
ASIDE = re.compile(r"by the way|another thing|also|on another subject|in the same way|similarly", re.IGNORECASE)


def templates(row: dict[str, Any]) -> int:
    """The hand-written rule on phrases and length alone."""
    output = row["output"]
    if UNDECIDED.search(output):
        return 2
    return 3 if ASIDE.search(output) else 4 if len(output.split()) <= 17 else 5


def templates_and_reference(row: dict[str, Any]) -> int:
    return templates(row) if holds(row["output"], FACTS[row["fact_id"]].value) else 1


def by_length(row: dict[str, Any]) -> int:
    return 1 + min(4, len(row["output"].split()) // 16)


def by_words_of_the_reference(row: dict[str, Any]) -> int:
    words = set(normalise(row["reference"]).split())
    return 1 + min(4, int(5 * len(words & set(normalise(row["output"]).split())) / len(words)))


@pytest.mark.parametrize("rule", [templates, templates_and_reference, by_length, by_words_of_the_reference])
def test_string_rules_on_the_rubric(rule: Rule) -> None:
    rows = rows_of("rubric")
    assert sum(rule(row) == row["score"] for row in rows) / len(rows) <= 0.2 + 0.10


NO_NAMES = re.compile(
    r"skull|barium|without and with|thermography|MRI chest|ultrasonography of the (head|spine)|sinus radiography|"
    r"intravenous urography|discography|carotid duplex|FDG PET|bone scintigraphy|catheter|abdominal radiography|"
    r"arthrography|radiography of the ribs|spectroscopy|kidney scintigraphy|labelled red cell",
    re.IGNORECASE,
)
MILD = re.compile(r"typical|minor|mild|no warning sign|normal|asks for|uncomplicated|healthy|negative", re.IGNORECASE)
NO = "Usually Not Appropriate"


def by_name(row: dict[str, Any]) -> bool:
    return bool(NO_NAMES.search(row["procedure"]))


def by_name_or_case(row: dict[str, Any]) -> bool:
    return by_name(row) or bool(MILD.search(row["variant"]))


@pytest.mark.parametrize("rule", [by_name, by_name_or_case])
def test_string_rules_on_imaging_orders(rule: Rule) -> None:
    """Whether an order is right at all, from its name and a few words of the case; at balanced labels."""
    rows = rows_of("appropriateness")
    counts: Counter[tuple[bool, bool]] = Counter((row["appropriateness"] == NO, bool(rule(row))) for row in rows)
    recalls = [counts[gold, gold] / (counts[gold, True] + counts[gold, False]) for gold in (True, False)]
    assert sum(recalls) / 2 <= 0.5 + 0.10


def test_the_name_of_an_order_mostly_has_several_ratings() -> None:
    rated: dict[str, set[str]] = {}
    for row in rows_of("appropriateness"):
        rated.setdefault(row["procedure"], set()).add(row["appropriateness"])
    assert sum(len(rated[row["procedure"]]) > 1 for row in rows_of("appropriateness")) / N_ROWS > 0.7


def longest(row: dict[str, Any]) -> int:
    lengths = [len(row[name]) for name in OPTIONS]
    return lengths.index(max(lengths))


def shares_most_letters(row: dict[str, Any]) -> int:
    asked = {row["question"].casefold()[at : at + 4] for at in range(len(row["question"]))}
    shared = [
        sum(text[at : at + 4].casefold() in asked for at in range(len(text) - 3)) / len(text)
        for text in (row[name] for name in OPTIONS)
    ]
    return shared.index(max(shared))


@pytest.mark.parametrize("rule", [longest, shares_most_letters])
def test_string_rules_on_multiple_choice(rule: Rule) -> None:
    rows = rows_of("mcq")
    assert sum(rule(row) == row["cop"] for row in rows) / len(rows) <= 0.25 + 0.10


def better_by_words_of_the_reference(row: dict[str, Any]) -> str:
    words = set(normalise(row["reference"]).split())
    a, b = (len(words & set(normalise(row[name]).split())) for name in ("answer_a", "answer_b"))
    return "A" if a > b else "B" if b > a else "tie"


def better_by_length(row: dict[str, Any]) -> str:
    a, b = len(row["answer_a"].split()), len(row["answer_b"].split())
    return "tie" if abs(a - b) <= 2 else "A" if a > b else "B"


def better_by_value(row: dict[str, Any]) -> str:
    a, b = (holds(row[name], value_of(row)) and not DENIAL.search(row[name]) for name in ("answer_a", "answer_b"))
    return "tie" if a == b else "A" if a else "B"


@pytest.mark.parametrize("rule", [better_by_words_of_the_reference, better_by_length, better_by_value])
def test_string_rules_on_pairs(rule: Rule) -> None:
    rows = rows_of("pairwise")
    assert sum(rule(row) == row["label"] for row in rows) / len(rows) <= 1 / 3 + 0.10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pairwise", "pairwise-fr"])
def test_no_baseline_exceeds_the_aim_on_the_default_draw(name: str) -> None:
    scored = measure_set(name, GENERATORS[name].n, SEED)
    best = max(scored, key=lambda baseline: scored[baseline])
    assert scored[best] <= AIMS[name], best


NOISE = 0.05
"""By how much the best of some fifteen baselines on a few hundred rows may exceed what it has on all."""


@pytest.mark.parametrize("name", ["equivalence", "rubric", "appropriateness", "mcq", "pairwise"])
def test_no_baseline_of_words_and_overlaps_exceeds_its_aim(name: str) -> None:
    scored = measure_set(name, 500, SEED)
    best = max(scored, key=lambda baseline: scored[baseline])
    assert scored[best] <= AIMS[name] + NOISE, best
