"""Sums, products and gates by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from medjudge.errors import ConfigError, DataError
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case, Rollout, Verdict
from medjudge.rewards import composition
from medjudge.rewards.composition import BuiltReward, RewardContext, RewardPlan, build_plan, rewardable
from medjudge.tasks.mcq import McqContract
from tests.rewards.rollouts import case, said, unread

MARKED = case(reason="because")
BARE = case(case_id="bare")


@dataclass
class Scripted:
    """A heavy reward that pays what the reasoning says, and counts how often it is asked."""

    minimum: float = 0.0
    maximum: float = 1.0
    gold_tolerance: float = float("inf")
    asks_a_model: bool = True
    asked: list[int] = field(default_factory=list)

    def most(self, about: Case) -> float | None:
        return 1.0 if about.reason else None

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        self.asked.append(len(rollouts))
        return [
            None
            if not r.case.reason
            else float(r.judgement.rationale or 0)
            if isinstance(r.judgement, Verdict)
            else 0.0
            for r in rollouts
        ]

    def report(self) -> Mapping[str, Any]:
        return {"n_asked": sum(self.asked)}


SCRIPTED = Scripted()


def scripted(context: RewardContext) -> Scripted:
    return SCRIPTED


@pytest.fixture(autouse=True)
def _heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    SCRIPTED.asked.clear()
    builder = BuiltReward("tests.rewards.test_composition:scripted", 0.0, "scripted")
    monkeypatch.setattr(composition, "KNOWN", {**composition.KNOWN, "llm": builder})


def plan_of(rewards: dict[str, float], gate: Sequence[str] = ()) -> RewardPlan:
    return build_plan(rewards, gate, RewardContext(McqContract()))


RIGHT, WRONG, UNREAD = said("A", MARKED, "0.5"), said("B", MARKED, "0.9"), unread(MARKED)
OFF_SCHEMA = unread(MARKED, "schema")


@pytest.mark.parametrize(
    ("rewards", "gate", "totals"),
    [
        ({"accuracy": 1, "llm": 1}, (), [1.5, 0.9, 0, 0]),
        ({"accuracy * llm": 1, "format": 0.5}, (), [1.0, 0.5, 0, 0]),
        ({"accuracy*llm": 2}, (), [1.0, 0, 0, 0]),
        ({"correctness": 1, "llm": 1}, (), [1.5, -0.1, -1, -1]),
        # Behind the gate a wrong answer keeps its penalty and loses the 0.9 that it would have been paid.
        ({"correctness": 1, "llm": 1}, ("accuracy",), [1.5, -1, -1, -1]),
        ({"json": 1, "llm": 1}, ("schema",), [1.5, 1.9, 0, 0]),
        ({"json": 1, "llm": 1}, (), [1.5, 1.9, 0, 1]),
        # A negative weight makes a penalty of a reward: gating takes away what is paid, not what is taken.
        ({"accuracy": 1, "json": -1}, ("accuracy",), [0, -1, 0, -1]),
    ],
)
def test_totals(rewards: dict[str, float], gate: tuple[str, ...], totals: list[float]) -> None:
    plan = plan_of(rewards, gate)
    scored = plan.score([RIGHT, WRONG, UNREAD, OFF_SCHEMA])
    assert [row.total for row in scored] == pytest.approx(totals)
    for row in scored:
        assert row.total is not None
        paid = sum(plan.weights[name] * (value or 0) for name, value in row.terms.items())
        assert paid == pytest.approx(row.total), "terms and weights make the total, so TRL's sum is ours"
        assert plan.minimum - 1e-9 <= row.total <= plan.maximum + 1e-9
    assert len(SCRIPTED.asked) <= 1, "a reward that two terms share is asked once"


def test_a_gated_rollout_says_so_and_keeps_its_raw_rewards() -> None:
    right, wrong = plan_of({"correctness": 1, "llm": 1}, ["accuracy"]).score([RIGHT, WRONG])
    assert (right.is_gated, wrong.is_gated) == (False, True)
    assert wrong.rewards == {"correctness": -1.0, "llm": 0.9, "accuracy": 0.0}
    assert wrong.terms == {"correctness": -1.0, "llm": 0.0}


def test_one_reward_in_two_terms_and_the_gate_is_asked_once_for_the_whole_batch() -> None:
    plan_of({"llm": 1, "accuracy * llm": 1}, ["llm"]).score([RIGHT, WRONG, UNREAD])
    assert SCRIPTED.asked == [3]


@pytest.mark.parametrize(("rewards", "gate"), [({"format": 1, "llm": 1}, ()), ({"format": 1}, ("llm",))])
def test_a_row_without_the_gold_of_a_term_or_gate_is_left_out(rewards: dict[str, float], gate: tuple[str, ...]) -> None:
    plan = plan_of(rewards, gate)
    assert [row.total for row in plan.score([RIGHT, said("A", BARE)])][1] is None
    assert plan.most(BARE) is None
    assert rewardable(plan, [BARE, MARKED]) == [MARKED]
    with pytest.raises(DataError, match="no row of 1 has the gold that the reward llm compares with"):
        rewardable(plan, [BARE])


@pytest.mark.parametrize(
    ("rewards", "gate", "low", "high", "most"),
    [
        ({"correctness": 1, "format": 0.5}, (), -1, 1.5, 1.5),
        ({"accuracy * llm": 2, "correctness": 1}, (), -1, 3, 3),
        ({"accuracy": 1, "json": -1}, (), -1, 1, 1),
        ({"accuracy": 1}, ("schema",), 0, 1, 1),
    ],
)
def test_range(rewards: dict[str, float], gate: tuple[str, ...], low: float, high: float, most: float) -> None:
    plan = plan_of(rewards, gate)
    assert (plan.minimum, plan.maximum, plan.most(MARKED)) == (low, high, most)


def test_nothing_to_score() -> None:
    assert plan_of({"accuracy": 1}).score([]) == []


@pytest.mark.parametrize(
    ("rewards", "gate", "message"),
    [
        ({"acuracy * embedding": 1}, [], r"unknown reward 'acuracy' \(did you mean `accuracy`\?\)"),
        ({"accuracy * embeding": 1}, [], r"unknown reward 'embeding' \(did you mean `embedding`\?\)"),
        ({"accuracy": 1}, ["shema"], r"unknown reward 'shema' \(did you mean `schema`\?\)"),
        ({"correctness * embedding": 1}, [], "multiplies with correctness, which can be negative"),
        ({"accuracy": 1}, ["length"], "the gate length never pays more than 0"),
        ({"accuracy *": 1}, [], "unknown reward ''"),
        ({}, [], "no reward named"),
    ],
)
def test_compositions_that_cannot_mean_what_they_say(rewards: dict[str, float], gate: list[str], message: str) -> None:
    tree = {"name": "x", "task": {"kind": "mcq"}, "grpo": {"rewards": rewards, "reward_gate": gate}}
    with pytest.raises(ConfigError, match=message):
        recipe_from_tree(tree)


def test_balanced_alone_under_group_scaling_is_refused() -> None:
    tree: dict[str, Any] = {"name": "x", "task": {"kind": "mcq"}, "grpo": {"rewards": {"balanced": 1.0}}}
    with pytest.raises(ConfigError, match="does nothing under"):
        recipe_from_tree(tree)
    assert recipe_from_tree(tree, ["grpo.scale_rewards=batch"]).grpo.rewards == {"balanced": 1.0}
    tree["grpo"]["reward_settings"] = {"embeding": {}}
    with pytest.raises(ConfigError, match=r"`grpo.reward_settings.embeding` \(did you mean `embedding`\?\)"):
        recipe_from_tree(tree)
