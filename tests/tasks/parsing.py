"""What the parser tests of all four contracts share."""

from __future__ import annotations

import random

from medjudge.records import Unparsed, Verdict
from medjudge.tasks.contract import TaskContract

PIECES = [
    "<think>", "</think>", "<answer>", "</answer>", "<feedback>", "</feedback>", "<score>", "</score>", "<THINK>",
    "{", "}", "[", "]", '"', ":", ",", "\\", "\\u", "\\ud800", "\ud800", "\udfff", "\x00", "\n", " ", "\t", "\u00a0",
    '"predicted_category"', '"confidence"', '"reason"', "A", "E", "0", "1", "3", "-1", "1e999", "NaN", "Infinity",
    "true", "null", "```json", "```", "Usually Appropriate", "usually", "not", "MAY BE", "answer is B", "score: 4",
    "é", "和", "\U0001f600", "9" * 5000,
]  # fmt: skip
MONSTERS = [
    "", " ", "\x00", "[" * 100_000, '{"a":' * 100_000, "{" * 100_000, "9" * 100_000, "<think>" * 20_000, "\ud800",
    "<think></think>" * 20_000, "<score>" + "1" * 10_000 + "</score>", '{"predicted_category": "A", "confidence": '
    + "1" * 5000 + ', "reason": "x"}', "<answer>" + " " * 100_000, "```" * 50_000,
    "answer " * 50_000, "\u2028" * 10_000,
]  # fmt: skip


def assert_never_raises(contract: TaskContract) -> None:
    """Every string gives a verdict on the scale or an Unparsed that keeps it and says why."""
    rng = random.Random(0)
    mixed = ["".join(rng.choices(PIECES, k=rng.randint(0, 12))) for _ in range(2000)]
    noise = ["".join(chr(rng.randrange(0x110000)) for _ in range(rng.randint(0, 40))) for _ in range(500)]
    for text in [*MONSTERS, *mixed, *noise]:
        judgement = contract.parse("c", text)
        if isinstance(judgement, Verdict):
            assert judgement.label in contract.labels
            judgement.rationale.encode("utf-8", "surrogatepass")
        else:
            assert judgement.completion == text
            assert judgement.reason
            assert len(judgement.reason) < 300


def reason_of(contract: TaskContract, completion: str) -> tuple[str, str]:
    """(kind, reason) of a completion that must not parse."""
    judgement = contract.parse("c", completion)
    assert isinstance(judgement, Unparsed), judgement
    return judgement.kind, judgement.reason


def label_of(contract: TaskContract, completion: str) -> str:
    """The label of a completion that must parse."""
    judgement = contract.parse("c", completion)
    assert isinstance(judgement, Verdict), judgement
    return judgement.label
