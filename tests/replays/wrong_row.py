"""Reward from another case's row: the batch's positions taken for the dataset's.

Published: four reward designs for imaging appropriateness (github.com/annitziak/agentic-imaging-recommender,
`reasoning/reward_functions.py`, behind "Reinforcement Learning for Clinical Reasoning: Aligning LLMs with ACR Imaging
Appropriateness Criteria").
What happened: the LLM-judge and the embedding reward look up what to compare with as `dataset[i]`, `i` counting the
completions of the batch. A batch holds two prompts with six completions each, so whatever is asked is scored against
the first twelve rows of the training file, in every one of 200 steps.
What stops it here: a rollout carries its case id, and the reward is handed the case with that id. A reward that looks
at positions all the same fails the pre-flight, which pays gold answers in another order than that of the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from medjudge.data.sources import read_source
from medjudge.diagnostics import preflight
from medjudge.records import Case, Rollout, Verdict
from medjudge.rewards.composition import RewardContext, RewardPlan, Term, build_plan
from medjudge.settings.data import DataConfig
from medjudge.settings.training import GrpoConfig
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.encoding import encode_all
from medjudge.tiny_base.tiny import build_tokenizer
from medjudge.training import grpo
from tests.replays.common import Guard, refusal, share

CONTRACT = AppropriatenessContract(form="answer_only", system_prompt="", max_completion_tokens=64)
G = 6
CONFIG = GrpoConfig(prompts_per_step=2, group_size=G, micro_batch=6, max_steps=200)


@cache
def cases() -> tuple[Case, ...]:
    """200 rows: the published 200 steps were about two epochs."""
    return read_source("builtin:appropriateness-bare", CONTRACT, DataConfig(max_rows=200)).cases


def batches() -> list[list[int]]:
    """Row numbers of the completions of each step, in the order of training."""
    order, steps = grpo.grpo_order(len(cases()), CONFIG, seed=42)
    return [[row for row in order[2 * step : 2 * step + 2] for _ in range(G)] for step in range(steps)]


def published_rewards(labels: Sequence[str], dataset: Sequence[Case]) -> list[float]:
    """The published look-up, of the answer alone: `dataset[i]` with i counting the completions of the batch."""
    return [1.0 if label == dataset[i].gold else 0.0 for i, label in enumerate(labels)]


def mean(rewards: Sequence[Sequence[float]]) -> float:
    return sum(map(sum, rewards)) / sum(map(len, rewards))


def n_uneven(rewards: Sequence[Sequence[float]]) -> int:
    """Groups whose rewards differ, though their G completions are one and the same."""
    return sum(len(set(batch[first : first + G])) > 1 for batch in rewards for first in (0, G))


@cache
def published() -> tuple[str, ...]:
    rows = [(i, row) for batch in batches() for i, row in enumerate(batch)]
    n_other_case = sum(i != row for i, row in rows)
    n_other_label = sum(cases()[i].gold != cases()[row].gold for i, row in rows)
    right = [published_rewards([cases()[row].gold or "" for row in batch], cases()) for batch in batches()]
    commonest = Counter(case.gold for case in cases()[: 2 * G]).most_common(1)[0][0] or ""
    constant = [published_rewards([commonest] * len(batch), cases()) for batch in batches()]
    assert n_other_case > 0.95 * len(rows)
    assert mean(right) < mean(constant), "the published reward prefers the right policy"
    n_groups = 2 * len(batches())
    return (
        f"published | scored against the row of another case: {share(n_other_case, len(rows))} rollouts, "
        f"against another label: {share(n_other_label, len(rows))}",
        f"published | mean reward of the policy that is always right: {mean(right):.2f}; of one that always says "
        f"{commonest!r}: {mean(constant):.2f}",
        f"published | groups of {G} equal, right answers whose rewards differ: {share(n_uneven(right), n_groups)}",
    )


class ByPosition:
    """The published look-up as a reward of this package: a user may still write one."""

    minimum, maximum, gold_tolerance = 0.0, 1.0, 0.0
    asks_a_model = True

    def most(self, case: Case) -> float | None:
        return 1.0

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        said = [r.judgement.label if isinstance(r.judgement, Verdict) else "" for r in rollouts]
        return [1.0 if label == cases()[i].gold else 0.0 for i, label in enumerate(said)]


def caught() -> list[str]:
    """The right policy's completions through the trainer's reward functions; then a reward that reads row i."""
    tokenizer = build_tokenizer([CONTRACT.target(case) for case in cases()], 400)
    plan = build_plan({"accuracy": 1.0}, (), RewardContext(CONTRACT))
    encoded = encode_all(CONTRACT, cases(), tokenizer, with_target=True)
    reward = grpo.Rewarder(CONTRACT, cases(), encoded, tokenizer, plan).functions()[0]
    rewards = [
        reward(
            prompts=[""] * len(batch),
            completions=[""] * len(batch),
            completion_ids=[encoded[row].completion_ids or [] for row in batch],
            case_id=[cases()[row].case_id for row in batch],
        )
        for batch in batches()
    ]
    assert mean(rewards) == 1.0, "right answers do not earn the reward"
    rewards_by_name = {"by_position": ByPosition(), **build_plan({"format": 0.5}, (), RewardContext(CONTRACT)).rewards}
    positional = RewardPlan((Term("by_position", 1.0), Term("format", 0.5)), (), rewards_by_name)
    message = refusal(
        lambda: preflight.require_earnable(preflight.run_preflight(CONTRACT, cases(), tokenizer, positional))
    )
    return [
        f"medjudge  | the same completions, each with its own case: mean reward {mean(rewards):.2f}, "
        f"groups whose rewards differ {n_uneven(rewards)} of {2 * len(rewards)}",
        f"medjudge  | a reward that reads row i all the same: {message.split(' Such as case')[0]}",
    ]


def replay(folder: Path) -> list[str]:
    return [*published(), *caught()]


def _by_position(patch: pytest.MonkeyPatch) -> None:
    honest = grpo.Rewarder.score

    def score(rewarder: grpo.Rewarder, case_ids: Sequence[str], completion_ids: Sequence[Sequence[int]]) -> Any:
        return honest(rewarder, [cases()[i].case_id for i in range(len(case_ids))], completion_ids)

    patch.setattr(grpo.Rewarder, "score", score)


GUARDS = (
    Guard("the case is found by its position in the batch", _by_position, "right answers do not earn the reward"),
    Guard(
        "the pre-flight's stop (`require_earnable`) does nothing",
        lambda patch: patch.setattr(preflight, "require_earnable", lambda result: None),
        "nothing was refused",
    ),
)
