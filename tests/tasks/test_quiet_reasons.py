"""Why an answer cannot be read is counted in results and shown on pages: it repeats nothing that the answer says."""

from __future__ import annotations

import pytest

from medjudge.records import Unparsed
from medjudge.tasks.catalog import TASKS
from medjudge.tasks.marks import ReasoningContract
from medjudge.tasks.text import JsonError

WORDS = ("Mrs Example", "19510412", "1951")
ANSWERS = (
    "{said}",
    "<think>{said}</think>{said}",
    '{{"predicted_category": "{said}", "confidence": 0.5, "reason": "r"}}',
    '{{"predicted_category": "A", "confidence": "{said}", "reason": "r"}}',
    '{{"predicted_category": "A", "confidence": 1951, "reason": {{"{said}": 1}}}}',
    '{{"predicted_category": "A", "confidence": 0.5, "{said}": "r"}}',
    '{{"medical_concepts": "{said}", "logic_alignment": 1, "supporting_evidence": 1}}',
    '{{"medical_concepts": 19510412, "logic_alignment": 1, "supporting_evidence": 1}}',
    '{{"medical_concepts": 1951, "logic_alignment": 1, "supporting_evidence": 1}}',
    '{{"medical_concepts": {said}}}',
    '{{"{said}": 1}}',
    "<feedback>{said}</feedback>\n<score>{said}</score>",
    "<score>{said}</score>",
    "<reasoning>{said}</reasoning>\n<answer>{said}</answer>",
    "<{said}>1</{said}>",
)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("lenient", [False, True])
def test_a_reason_repeats_nothing_of_the_answer(kind: str, lenient: bool) -> None:
    contract = TASKS[kind].model_validate({"kind": kind, **TASKS[kind].needed, "lenient": lenient})
    n_unparsed = 0
    for answer in ANSWERS:
        for word in WORDS:
            judgement = contract.parse("c", answer.format(said=word))
            reasons = [judgement.reason] if isinstance(judgement, Unparsed) else []
            if isinstance(contract, ReasoningContract) and isinstance(
                marks := contract.read_marks(answer.format(said=word)), JsonError
            ):
                reasons.append(marks.reason)
            n_unparsed += len(reasons)
            for reason in reasons:
                assert not any(said in reason for said in ("Example", "Mrs", "1951")), reason
    assert n_unparsed > len(ANSWERS)
