"""Rule rewards: pure arithmetic on a judgement and its case.

`reward(judgement, case)` gives one number per rollout. The policy's own failure earns what the rule says; None means
that the row has no gold label, never that the policy failed. A recipe names rewards and weights; their weighted sum is
what GRPO optimises. The published designs are:

    MedMCQA    rewards = {json = 1, schema = 1, accuracy = 1}         0..3
    French     rewards = {correctness = 1, format = 0.5}              -1..1.5
    ACR        rewards = {accuracy = 1, format = 0.5}                 0..1.5, `answer + tag format`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medjudge.records import Case, Judgement, Unparsed, Verdict


def json_reward(judgement: Judgement, case: Case) -> float | None:
    """1.0 if the outer form can be read (a JSON object; the right tags), whatever it holds; else 0.0."""
    return 0.0 if isinstance(judgement, Unparsed) and judgement.kind != "schema" else 1.0


def schema_reward(judgement: Judgement, case: Case) -> float | None:
    """1.0 if the completion holds a verdict in full accord with the contract; else 0.0."""
    return 1.0 if isinstance(judgement, Verdict) else 0.0


def accuracy_reward(judgement: Judgement, case: Case) -> float | None:
    """1.0 on the expert's label, else 0.0; None without an expert label."""
    if case.gold is None:
        return None
    return 1.0 if isinstance(judgement, Verdict) and judgement.label == case.gold else 0.0


def correctness_reward(judgement: Judgement, case: Case) -> float | None:
    """+1.0 on the expert's label, -1.0 on any other and on an unparsed completion; None without an expert label."""
    if case.gold is None:
        return None
    return 1.0 if isinstance(judgement, Verdict) and judgement.label == case.gold else -1.0


@dataclass(frozen=True, slots=True)
class RewardRule:
    """A reward with the least and the most that it can pay; the pre-flight holds gold answers to the most."""

    function: Callable[[Judgement, Case], float | None]
    minimum: float
    maximum: float
    meaning: str


REWARDS: dict[str, RewardRule] = {
    "json": RewardRule(json_reward, 0.0, 1.0, "the outer form can be read"),
    "schema": RewardRule(schema_reward, 0.0, 1.0, "the whole answer keeps the contract"),
    "format": RewardRule(schema_reward, 0.0, 1.0, "the same under the name that tag-based recipes use"),
    "accuracy": RewardRule(accuracy_reward, 0.0, 1.0, "1 on the expert's label, else 0"),
    "correctness": RewardRule(correctness_reward, -1.0, 1.0, "+1 on the expert's label, else -1"),
}


def total_reward(components: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """The weighted sum; None if a weighted component is None."""
    total = 0.0
    for name, weight in weights.items():
        value = components[name]
        if value is None:
            return None
        total += weight * value
    return total


def score(judgement: Judgement, case: Case, weights: Mapping[str, float]) -> dict[str, float | None]:
    """Every weighted component of one rollout, by name, before weights."""
    return {name: REWARDS[name].function(judgement, case) for name in weights}
