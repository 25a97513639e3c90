"""Dropped outputs: what cannot be read is left out before the score is taken.

Published: Flow AI's evaluation code for Flow-Judge-v0.1 (github.com/flowaicom/lm-evaluation-harness,
`lm_eval/tasks/flow_judge_evals/metrics.py`, `filter_and_log`).
What happened: replies that do not parse are filtered out first and every metric is taken over the rest, up to 20 % of
the rows; their number goes into a log line. A judge that breaks off where it is unsure rises in the ranking. Beyond
20 % the metric is written as 0.0: one more unreadable reply, and the best judge is the worst.
What stops it here: an unreadable reply is `Unparsed`; it counts as wrong, in every table and with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medjudge.metrics import summary as results
from medjudge.metrics.result_types import Results
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.tasks.rubric import RubricContract
from tests.replays.common import Guard

CONTRACT = RubricContract(points=3, criteria="Is it safe?", rubric="1 unsafe, 2 vague, 3 safe")
N = 100
CASES = [Case(f"case-{i:03d}", {"output": f"advice {i}"}, gold=str(1 + i % 3)) for i in range(N)]


def replies(n_right: int, n_cut_off: int) -> list[str]:
    """One per case: right on the first, cut off in the middle of the feedback on the last, wrong between."""

    def one(i: int, gold: int) -> str:
        score = gold if i < n_right else 1 + gold % 3
        return "<feedback>It is" if i >= N - n_cut_off else f"<feedback>Reason.</feedback>\n<score>{score}</score>"

    return [one(i, int(case.gold or 0)) for i, case in enumerate(CASES)]


JUDGES = {
    "steady": replies(n_right=70, n_cut_off=0),
    "breaks off": replies(n_right=60, n_cut_off=20),
    "breaks off once more": replies(n_right=60, n_cut_off=21),
}


def read(texts: Sequence[str]) -> list[Judgement]:
    return [CONTRACT.parse(case.case_id, text) for case, text in zip(CASES, texts, strict=True)]


def published_accuracy(judgements: Sequence[Judgement]) -> float:
    """Over what could be read, unless more than 20 % could not; then 0.0."""
    kept = [(j.label, case.gold) for j, case in zip(judgements, CASES, strict=True) if isinstance(j, Verdict)]
    if len(judgements) - len(kept) > 0.2 * len(judgements):
        return 0.0
    return sum(label == gold for label, gold in kept) / len(kept)


def replay(folder: Path) -> list[str]:
    judgements = {name: read(texts) for name, texts in JUDGES.items()}
    published = {name: published_accuracy(read(texts)) for name, texts in JUDGES.items()}
    assert published == {"steady": 0.7, "breaks off": 0.75, "breaks off once more": 0.0}
    found = results.summarise(
        CASES, judgements, contract=CONTRACT, split="test", options=results.AnalysisOptions(n_resamples=100)
    )
    ours = {name: found.models[name].metrics["accuracy"].value for name in JUDGES}
    assert ours == {"steady": 0.7, "breaks off": 0.6, "breaks off once more": 0.6}, "unreadable replies do not count"
    return [*_table("published", published), *_table("medjudge ", ours), *_told(found)]


def _table(who: str, accuracies: dict[str, Any]) -> Iterator[str]:
    yield f"{who} | accuracy: " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in accuracies.items())


def _told(found: Results) -> Iterator[str]:
    yield from (f"medjudge  | {sentence}" for sentence in found.statements if "could not be read" in sentence)


def _drop(patch: pytest.MonkeyPatch) -> None:
    code = results.code_outcomes
    patch.setattr(
        results,
        "code_outcomes",
        lambda cases, answers, **options: code(
            cases, [j for j in answers if not isinstance(j, Unparsed)], **{**options, "due": frozenset()}
        ),
    )


GUARDS = (
    Guard(
        "unparsed replies are dropped before they are coded, and no case is due",
        _drop,
        "unreadable replies do not count",
    ),
)
