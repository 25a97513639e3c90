"""Rule rewards by hand, and the mirror test: the expert's own answer earns the maximum on every row."""

from __future__ import annotations

from typing import Any

import pytest

from medjudge.diagnostics.preflight import check_gold, require_earnable
from medjudge.errors import DataError
from medjudge.models.scratch import build_tokenizer
from medjudge.records import Case, Completion, Judgement, Rollout, Unparsed, Verdict
from medjudge.rewards.composition import KNOWN, RewardContext, RewardPlan, build_plan
from medjudge.rewards.rules import REWARDS, RewardRule
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from tests.models.small_models import TEXT
from tests.shared_data import shared_rows, shared_tokenizer

CASE = Case("c", {"question": "q"}, gold="A")
RIGHT, WRONG = Verdict("c", "A"), Verdict("c", "B")
NOT_JSON, OFF_SCHEMA = Unparsed("c", "x", "no JSON", "format"), Unparsed("c", "{}", "no label", "schema")

MEDMCQA = {"json": 1.0, "schema": 1.0, "accuracy": 1.0}
FRENCH = {"correctness": 1.0, "format": 0.5}
ACR = {"accuracy": 1.0, "format": 0.5}


def rollout(judgement: Judgement, case: Case = CASE) -> Rollout:
    return Rollout(case, judgement, Completion("x", 1, True))


def plan_of(weights: dict[str, float], contract: Any = None) -> RewardPlan:
    return build_plan(weights, (), RewardContext(contract or McqContract()))


@pytest.mark.parametrize(
    ("weights", "right", "wrong", "off_schema", "unreadable"),
    [(MEDMCQA, 3.0, 2.0, 1.0, 0.0), (FRENCH, 1.5, -0.5, -1.0, -1.0), (ACR, 1.5, 0.5, 0.0, 0.0)],
)
def test_published_designs(
    weights: dict[str, float], right: float, wrong: float, off_schema: float, unreadable: float
) -> None:
    def total(judgement: Judgement) -> float | None:
        return plan_of(weights).score([rollout(judgement)])[0].total

    assert [total(j) for j in (RIGHT, WRONG, OFF_SCHEMA, NOT_JSON)] == [right, wrong, off_schema, unreadable]


def test_none_is_for_rows_without_gold_never_for_a_failed_policy() -> None:
    unrated = Case("c", {})
    for judgement in (RIGHT, NOT_JSON):
        assert REWARDS["accuracy"].function(rollout(judgement, unrated)) is None
        assert REWARDS["correctness"].function(rollout(judgement, unrated)) is None
        assert REWARDS["format"].function(rollout(judgement, unrated)) is not None
        assert plan_of(ACR).score([rollout(judgement, unrated)])[0].total is None


@pytest.mark.parametrize("name", REWARDS)
def test_gold_verdict_earns_the_stated_maximum(name: str) -> None:
    case = Case("c", {"question": "q"}, gold="A", reason="because")
    assert REWARDS[name].function(rollout(Verdict("c", "A", rationale="because"), case)) == REWARDS[name].maximum


@pytest.mark.parametrize("number", [1.5, -0.5, float("nan"), None])
def test_what_the_line_of_a_rule_does_not_state_is_refused(
    number: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pays(rollout: Rollout) -> float | None:
        return number

    monkeypatch.setitem(KNOWN, "own", RewardRule(pays, 0.0, 1.0, "what it likes"))
    with pytest.raises(ValueError, match=rf"pays paid {number} for case c, expected 0 to 1, as its line in REWARDS"):
        plan_of({"own": 1.0}).score([rollout(RIGHT)])


def orders(n: int = 12) -> list[Case]:
    labels = ("Usually Not Appropriate", "May Be Appropriate", "Usually Appropriate")
    return [
        Case(str(i), {"condition": "pain", "variant": f"v{i}", "procedure": "CT"}, gold=labels[i % 3]) for i in range(n)
    ]


def test_preflight_passes_where_gold_answers_earn_the_maximum() -> None:
    tokenizer = build_tokenizer(TEXT, 320)
    contract = AppropriatenessContract(form="answer_only", max_completion_tokens=64)
    found = check_gold(contract, orders(), tokenizer, plan_of(ACR))
    assert (found.n_cases, found.n_at_maximum, found.maximum, found.passed) == (12, 12, 1.5, True)
    require_earnable(found)


def test_preflight_stops_a_parser_that_does_not_know_its_own_answers() -> None:
    class Deaf(AppropriatenessContract):
        def parse(self, case_id: str, completion: str) -> Judgement:
            return Unparsed(case_id, completion, "expected one <answer> tag, found 0")

    found = check_gold(
        Deaf(form="answer_only", max_completion_tokens=64), orders(), build_tokenizer(TEXT, 320), plan_of(ACR)
    )
    assert found.n_at_maximum == 0
    with pytest.raises(DataError, match=r"0 of 12 gold answers earn the maximum, 1.5.*expected one <answer> tag"):
        require_earnable(found)


def test_preflight_counts_only_weights_that_can_be_earned() -> None:
    found = check_gold(
        EquivalenceContract(max_completion_tokens=8),
        [Case("1", {"question": "q", "reference": "r", "candidate": "c"}, gold="1")],
        build_tokenizer(TEXT, 320),
        plan_of(FRENCH),
    )
    assert (found.maximum, found.passed) == (1.5, True)


@pytest.mark.parametrize("thinking", [False, True])
def test_gold_answers_earn_the_maximum_on_the_real_qwen3_template(thinking: bool) -> None:
    rows = shared_rows("data", "medmcqa_train", "medmcqa_train.jsonl")[:200]
    contract: Any = McqContract(first_index=1, thinking=thinking, max_completion_tokens=400)
    cases = [contract.read_case(row, str(i)) for i, row in enumerate(rows)]
    found = check_gold(contract, cases, shared_tokenizer("qwen3"), plan_of(MEDMCQA))
    assert found.passed, found.causes
    assert found.maximum == 3.0


EVIDENCE = "[5] One. text\n[7] Two. text"


@pytest.mark.parametrize(
    ("reasoning", "evidence", "expert", "earned"),
    [
        ("as in [5] and [7]", EVIDENCE, "by [5]", 1.0),
        ("as in [5] and [9]", EVIDENCE, "by [5]", 0.5),
        ("as in [9]", EVIDENCE, "by [5]", 0.0),
        ("as in [5]", "", None, 0.0),  # made up: the prompt shows nothing
        ("no citation", EVIDENCE, "by [5]", 0.0),  # saying nothing is no way around the check
        ("no citation", EVIDENCE, "by no source", 1.0),
        ("no citation", EVIDENCE, None, 1.0),
        ("no citation", "", "by [5]", 1.0),  # nothing that could be cited
    ],
)
def test_citations(reasoning: str, evidence: str, expert: str | None, earned: float) -> None:
    case = Case("c", {"evidence": evidence} if evidence else {}, gold="A", reason=expert)
    judged = Rollout(case, Verdict("c", "A", rationale=reasoning), Completion("x", 1, True))
    assert REWARDS["citations"].function(judged) == earned


def test_citations_are_held_against_what_the_prompt_showed() -> None:
    case = Case("c", {"evidence": EVIDENCE}, gold="A", reason="by [5] and [7]")
    shown = Completion("x", 1, True, n_words_cut=3, shown={"evidence": EVIDENCE.split("\n")[0]})
    assert REWARDS["citations"].function(Rollout(case, Verdict("c", "A", rationale="[7]"), shown)) == 0.0
    assert REWARDS["citations"].function(Rollout(case, Verdict("c", "A", rationale="[5]"), shown)) == 1.0
    assert REWARDS["citations"].function(Rollout(case, NOT_JSON, shown)) == 0.0
