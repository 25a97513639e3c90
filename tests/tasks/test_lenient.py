"""Lenient reading takes one verdict in many forms, and never one of two that differ."""

from __future__ import annotations

import json

import pytest

from medjudge.records import Verdict
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.marks import Marks, ReasoningContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.rubric import RubricContract
from medjudge.tasks.text import JsonError
from tests.tasks.parsing import label_of, reason_of

CONTRACTS: dict[str, TaskContract] = {
    "mcq": McqContract(lenient=True),
    "equivalence": EquivalenceContract(lenient=True),
    "rubric": RubricContract(lenient=True),
    "appropriateness": AppropriatenessContract(lenient=True),
}
A = '{"predicted_category": "A", "confidence": 0.9, "reason": "r"}'
B = '{"predicted_category": "B", "confidence": 0.8, "reason": "r"}'
QUOTED = '{"predicted_category": "B", "confidence": 0.9, "reason": "the "classic" sign"}'
YES, NO = "Usually Appropriate", "Usually Not Appropriate"


@pytest.mark.parametrize(
    ("kind", "completion"),
    [
        ("mcq", f"{B}\n{A}"),
        ("mcq", f"Draft:\n```json\n{B}\n```\nFinal:\n```json\n{A}\n```"),
        ("mcq", f"{QUOTED}\n{A}"),
        ("mcq", f"{B} On reflection, the answer is A."),
        ("mcq", f"Answer: B\n{A}"),
        ("mcq", '{"predicted_category": "A", "predicted_category": "B", "confidence": 1, "reason": "r"}'),
        ("mcq", f'[{A}, {{"nested": {B}}}]'),
        ("mcq", f'{A} {{"predicted_category": "E", "confidence": 1, "reason": "r"}}'),
        ("mcq", f"{json.dumps(A)} {json.dumps(B)}"),
        ("mcq", "The answer is A or B."),
        ("mcq", f'{{"answer": "B"}} {A}'),
        ("mcq", '{"answer": "B"} {"answer": "A"}'),
        ("mcq", "Answer: A. No, wait. Answer: B."),
        ("mcq", f"{B}<think>hm</think>{A}"),
        ("equivalence", "1, or rather 0"),
        ("equivalence", "```\n1\n```\n```\n0\n```"),
        ("equivalence", "0<think>hm</think>1"),
        ("equivalence", '{"score": 1} {"score": 0}'),
        ("equivalence", "Score: 3. Only 1 detail is off."),
        ("equivalence", "Label: 1 out of 5"),
        ("rubric", "<score>4</score><score>5</score>"),
        ("rubric", "```\n<score>4</score>\n```\n```\n<score>5</score>\n```"),
        ("rubric", "<score>4</score><score>four or five</score>"),
        ("rubric", "<score>4</score>\nFinal score: 5"),
        ("rubric", "Score: 4. Score: 5."),
        ("rubric", "Score: 4-5"),
        ("rubric", '{"score": 4} {"score": 5}'),
        ("appropriateness", f"<answer>{YES}</answer><answer>{NO}</answer>"),
        ("appropriateness", f"<answer>{YES}</answer> No: {NO}"),
        ("appropriateness", f"<answer>{YES} or {NO}</answer>"),
        ("appropriateness", f"<answer>{YES}</answer><answer>unsure</answer>"),
        ("appropriateness", f"{YES}. Or {NO}."),
    ],
)
def test_two_verdicts_are_none(kind: str, completion: str) -> None:
    strict = type(CONTRACTS[kind])()
    assert reason_of(strict, completion)
    reason = reason_of(CONTRACTS[kind], completion)[1]
    if completion not in ("Label: 1 out of 5", "Score: 4-5"):  # one statement, and it is no point of the scale
        assert "ambiguous" in reason


@pytest.mark.parametrize(
    ("kind", "completion", "label"),
    [
        ("mcq", f"{A} {A}", "A"),
        ("mcq", f"```json\n{A}\n```\nSo the answer is A.", "A"),
        ("mcq", QUOTED, "B"),
        ("mcq", f"Option B is a distractor. {A}", "A"),
        ("mcq", f'{{"result": {A}}}', "A"),
        ("mcq", f"[THINK]perhaps {B}[/THINK]{A}", "A"),
        ("mcq", A.replace('"r"', '"the answer is B, one might think"') + "!", "A"),
        ("mcq", A[:-1], "A"),
        ("mcq", '{"answer": "A"}', "A"),
        ("mcq", A.replace('"r"', '"r", "more": {"of": {"it": 1}}, "note": "the answer is B?"'), "A"),
        ("equivalence", "Score: 1. So 1.", "1"),
        ("equivalence", "<think>0</think>\n1", "1"),
        ("equivalence", "perhaps 0</think>1", "1"),
        ("rubric", "<score>4</score> <score>4/5</score>", "4"),
        ("rubric", "<feedback>A score of 5 needs more.</feedback> <score>4.0</score>!", "4"),
        ("rubric", "Score: 4 out of 5", "4"),
        ("appropriateness", f"<answer>{YES}</answer> That is: {YES}.", YES),
        ("appropriateness", f"<think>{NO}?</think> {YES}", YES),
        ("appropriateness", f"Rather than {NO}: <answer>{YES}</answer>", YES),
    ],
)
def test_one_verdict_may_be_read_however_often(kind: str, completion: str, label: str) -> None:
    assert reason_of(type(CONTRACTS[kind])(), completion)
    assert label_of(CONTRACTS[kind], completion) == label


@pytest.mark.parametrize(
    ("kind", "completion"),
    [
        ("equivalence", "<think>It must be 1"),
        ("mcq", f"<thinking>{A}"),
        ("rubric", "<think><score>4</score>"),
        ("rubric", "<score>4/10</score>"),
        ("rubric", "Score: 4/10"),
        ("rubric", "score: -1"),
        ("appropriateness", f"<think>{YES}"),
        ("appropriateness", "Not usually appropriate"),
        ("equivalence", "Score: 1/5"),
    ],
)
def test_a_thought_or_another_scale_is_no_verdict(kind: str, completion: str) -> None:
    assert reason_of(CONTRACTS[kind], completion)


def test_a_confidence_that_differs_is_none() -> None:
    contract = McqContract(lenient=True)
    assert contract.parse("c", f"{A} {A}") == Verdict("c", "A", 0.9, "r")
    assert contract.parse("c", f"{A} {A.replace('0.9', '0.1')}") == Verdict("c", "A", None, "r")


def test_marks_that_differ_are_none() -> None:
    low, high = (json.dumps({"medical_concepts": n, "logic_alignment": n, "supporting_evidence": n}) for n in (1, 9))
    contract = ReasoningContract(lenient=True)
    assert contract.read_marks(f"```json\n{low}\n```\n{low}") == Marks(1, 1, 1)
    marks = contract.read_marks(f"```json\n{low}\n```\n```json\n{high}\n```")
    assert isinstance(marks, JsonError)
    assert "ambiguous" in marks.reason


def test_only_lenient_contracts_change_their_fingerprint() -> None:
    assert McqContract().fingerprint() != McqContract(lenient=True).fingerprint()
