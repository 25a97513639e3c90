"""Rule rewards: pure arithmetic on one rollout.

`reward(rollout)` gives one number. The policy's own failure earns what the rule says; None means that the row lacks the
gold that the rule compares with, never that the policy failed. `rewards/composition.py` says how a recipe puts rewards
together. The published designs are:

    MedMCQA    rewards = {json = 1, schema = 1, accuracy = 1}         0..3
    French     rewards = {correctness = 1, format = 0.5}              -1..1.5
    ACR        rewards = {accuracy = 1, format = 0.5}                 0..1.5, `answer + tag format`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from medjudge.records import Case, Rollout, Unparsed, Verdict
from medjudge.tasks.citations import cited_ids, given_ids


def json_reward(rollout: Rollout) -> float | None:
    """1.0 if the outer form can be read (a JSON object; the right tags), whatever it holds; else 0.0."""
    judgement = rollout.judgement
    return 0.0 if isinstance(judgement, Unparsed) and judgement.kind != "schema" else 1.0


def schema_reward(rollout: Rollout) -> float | None:
    """1.0 if the completion holds a verdict in full accord with the contract; else 0.0."""
    return 1.0 if isinstance(rollout.judgement, Verdict) else 0.0


def accuracy_reward(rollout: Rollout) -> float | None:
    """1.0 on the expert's label, else 0.0; None without an expert label."""
    return None if rollout.case.gold is None else float(is_correct(rollout))


def correctness_reward(rollout: Rollout) -> float | None:
    """+1.0 on the expert's label, -1.0 on any other and on an unparsed completion; None without an expert label."""
    return None if rollout.case.gold is None else 1.0 if is_correct(rollout) else -1.0


def citations_reward(rollout: Rollout) -> float | None:
    """Share of the ids cited in the reasoning that the prompt's evidence holds; 0.0 for an unparsed completion.

    A reasoning without any citation earns 1.0 where nothing calls for one (the prompt shows no evidence, or the expert
    cites none of it), else 0.0: citing nothing is no way around the check.
    """
    if not isinstance(rollout.judgement, Verdict):
        return 0.0
    cited, valid = count_citations(rollout)
    if cited:
        return valid / cited
    given = given_ids(rollout.inputs.get("evidence", ""))
    return 0.0 if set(cited_ids(rollout.case.reason or "", given)) & set(given) else 1.0


def count_citations(rollout: Rollout) -> tuple[int, int]:
    """(ids cited in the reasoning, those of them that the prompt's evidence holds)."""
    given = given_ids(rollout.inputs.get("evidence", ""))
    judgement = rollout.judgement
    cited = cited_ids(judgement.rationale, given) if isinstance(judgement, Verdict) else ()
    return len(cited), sum(one in given for one in cited)


def is_correct(rollout: Rollout) -> bool:
    """Whether the completion holds a verdict with the expert's label."""
    judgement = rollout.judgement
    return isinstance(judgement, Verdict) and judgement.label == rollout.case.gold


Needs = Literal["nothing", "label", "reason"]
"""What a row must have to be rewarded: nothing, the expert's label, the expert's reasoning."""


def has_what_it_needs(case: Case, needs: Needs) -> bool:
    """Whether a row can be rewarded."""
    return needs == "nothing" or (case.gold is not None if needs == "label" else bool(case.reason))


@dataclass(frozen=True, slots=True)
class RewardRule:
    """A reward with the least and the most that it can pay; the pre-flight holds gold answers to the most."""

    function: Callable[[Rollout], float | None]
    minimum: float
    maximum: float
    meaning: str
    needs: Needs = "nothing"


REWARDS: dict[str, RewardRule] = {
    "json": RewardRule(json_reward, 0.0, 1.0, "the outer form can be read"),
    "schema": RewardRule(schema_reward, 0.0, 1.0, "the whole answer keeps the contract"),
    "format": RewardRule(schema_reward, 0.0, 1.0, "the same under the name that tag-based recipes use"),
    "accuracy": RewardRule(accuracy_reward, 0.0, 1.0, "1 on the expert's label, else 0", "label"),
    "citations": RewardRule(citations_reward, 0.0, 1.0, "share of the cited ids that the prompt's evidence holds"),
    "correctness": RewardRule(correctness_reward, -1.0, 1.0, "+1 on the expert's label, else -1", "label"),
}
