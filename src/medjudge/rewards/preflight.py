"""Proof, before the first step, that the reward can be earned.

Gold answers are rendered, tokenised and decoded by the very functions that rollouts use, then parsed and rewarded. A
reward that a perfect policy cannot earn (published failure 1: a think block that the parser had never heard of) stops
the run here, with the cause.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from medjudge.errors import DataError
from medjudge.records import Case, Rollout, Unparsed, Verdict
from medjudge.rewards.composition import RewardPlan
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, encode_all, read_rollout, stop_token_ids


@dataclass(frozen=True, slots=True)
class Preflight:
    """What gold answers earn on the real template."""

    n_cases: int
    n_at_maximum: int
    maximum: float
    n_prompts_cut: int
    n_words_cut: int
    n_snippets_cut: int
    causes: Mapping[str, int]
    """Why gold answers fell short -> number of cases."""
    example_case_ids: tuple[str, ...]
    not_held_to: tuple[str, ...] = ()
    """Rewards that gold answers are not held to, since no fixed sum is theirs: a judge model's marks."""

    @property
    def passed(self) -> bool:
        """Whether every gold answer earns the maximum."""
        return self.n_at_maximum == self.n_cases

    def to_json(self) -> dict[str, Any]:
        """The findings as a JSON object."""
        return {**asdict(self), "causes": dict(self.causes), "passed": self.passed}


def check_gold(contract: TaskContract, cases: Sequence[Case], tokenizer: Any, plan: RewardPlan) -> Preflight:
    """What the gold answers of `cases` (all with gold) earn after the round trip through template and tokenizer.

    Each must earn what `plan.most` promises for its case, within the rewards' own tolerances. A row that lacks the gold
    of a reward is held to nothing by it.
    """
    encoded = encode_all(contract, cases, tokenizer, with_target=True)
    held_to = {name: reward for name, reward in plan.rewards.items() if math.isfinite(reward.gold_tolerance)}
    rollouts = gold_rollouts(contract, cases, encoded, tokenizer)
    columns = {name: reward(rollouts) for name, reward in held_to.items()}
    causes: Counter[str] = Counter()
    examples: list[str] = []
    for i, rollout in enumerate(rollouts):
        short = [
            f"{name} pays {_number(columns[name][i])} of {most:g}"
            for name, reward in held_to.items()
            if (most := reward.most(rollout.case)) is not None
            and _falls_short(columns[name][i], most, reward.gold_tolerance)
        ]
        if short:
            causes[f"{', '.join(short)}: {_why(rollout)}"] += 1
            examples.append(rollout.case.case_id)
    return Preflight(
        n_cases=len(cases),
        n_at_maximum=len(cases) - len(examples),
        maximum=plan.maximum,
        n_prompts_cut=sum(row.n_words_cut > 0 for row in encoded),
        n_words_cut=sum(row.n_words_cut for row in encoded),
        n_snippets_cut=sum(row.n_snippets_cut for row in encoded),
        causes=dict(causes.most_common()),
        example_case_ids=tuple(examples[:5]),
        not_held_to=tuple(name for name in plan.rewards if name not in held_to),
    )


def gold_rollouts(
    contract: TaskContract, cases: Sequence[Case], encoded: Sequence[Encoded], tokenizer: Any
) -> list[Rollout]:
    """The experts' answers as if the policy had sampled them: decoded from their token ids, read by the contract."""
    stop_ids = stop_token_ids(tokenizer)
    return [
        read_rollout(contract, case, row.completion_ids or [], tokenizer, stop_ids, prompt=row)
        for case, row in zip(cases, encoded, strict=True)
    ]


def as_taught(contract: TaskContract, cases: Sequence[Case], tokenizer: Any) -> list[Case]:
    """The cases with the experts' reasons as SFT targets hold them: shortened where they do not fit the limits.

    A reward compares with these: no policy can write what the contract cuts off.
    """
    rollouts = gold_rollouts(contract, cases, encode_all(contract, cases, tokenizer, with_target=True), tokenizer)
    return [
        replace(case, reason=judgement.rationale or None)
        if case.reason and isinstance(judgement := rollout.judgement, Verdict)
        else case
        for case, rollout in zip(cases, rollouts, strict=True)
    ]


def require_earnable(result: Preflight) -> None:
    """Raises DataError if a perfect policy could not earn the maximum."""
    if result.passed:
        return
    why = "; ".join(f"{count} x {cause}" for cause, count in list(result.causes.items())[:3])
    raise DataError(
        f"pre-flight: {result.n_at_maximum} of {result.n_cases} gold answers earn the maximum, {result.maximum:g}. "
        f"{why}. First cases: {', '.join(result.example_case_ids)}. "
        "A policy cannot learn what the expert's own answer does not earn: raise the limit or mend the contract."
    )


def _falls_short(earned: float | None, most: float, tolerance: float) -> bool:
    return earned is None or earned < most - tolerance


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def _why(rollout: Rollout) -> str:
    judgement = rollout.judgement
    if isinstance(judgement, Unparsed):
        return judgement.reason
    if judgement.label != rollout.case.gold:
        return "it parses to a label other than the gold one"
    return "it parses to the gold label"
