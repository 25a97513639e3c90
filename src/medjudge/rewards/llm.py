"""The reward `llm`: a judge model marks the policy's reasoning against the expert's.

    [grpo.rewards]
    accuracy = 1.0
    llm = 0.5
    [grpo.reward_settings.llm]
    judge = "openai:MODEL@URL"         # or a model folder, or a hub id

Three marks of 0 to 10, averaged to [0, 1]. A judge that fails on a rollout leaves it out of training (None, counted as
`n_failed`), and stops the run where it fails too often: a failure is never a mark of 0. A policy's answer that cannot
be read, or that gives no reasons, earns 0 without asking.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medjudge.errors import ConfigError, ModelError
from medjudge.inference.endpoint import EndpointClient
from medjudge.inference.loader import LoadedWhenAsked, LoadSettings
from medjudge.inference.protocol import Engine
from medjudge.models.contract import check_contract, trained_under
from medjudge.records import Case, Completion, Rollout, Verdict
from medjudge.rewards.composition import RewardContext
from medjudge.settings.model import ModelConfig
from medjudge.tasks.marks import Marks, ReasoningContract

log = logging.getLogger(__name__)

FEWEST_COUNTED = 20
"""The share of failures is taken over at least so many reasonings."""


def reasoning_case(rollout: Rollout) -> Case:
    """What the judge model is shown: the inputs that the policy saw, the expert's reasons, and the policy's."""
    case, shown = rollout.case, rollout.completion.shown or rollout.case.inputs
    inputs = "\n".join(f"{name}: {text}" for name, text in shown.items())
    return Case(case.case_id, {"case": inputs, "expert": case.reason or "", "trainee": _rationale(rollout)})


@dataclass
class MarkCounts:
    """How a judge model did, over all calls."""

    n_marked: int = 0
    """Reasonings that got their marks."""
    n_failed: int = 0
    """Reasonings that got none: failed calls, refusals, replies that stayed unreadable."""
    n_asked_again: int = 0
    """Replies that could not be read and were asked for again."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why there are no marks."""


class ReasoningScorer:
    """A judge model as marks for reasonings. Equal ones are asked once per call."""

    def __init__(
        self,
        engine: Engine,
        contract: ReasoningContract | None = None,
        *,
        name: str = "the judge",
        max_reasks: int = 1,
        max_failed_share: float = 0.05,
    ) -> None:
        """max_reasks: how often a reply that cannot be read is asked for again, with what was wrong in the prompt."""
        self.engine, self.contract, self.name = engine, contract or ReasoningContract(), name
        self.max_reasks, self.max_failed_share = max_reasks, max_failed_share
        self.counts = MarkCounts()

    def mark(self, cases: Sequence[Case]) -> list[Marks | None]:
        """Marks per case (made by `reasoning_case`), in their order; None where the judge failed.

        Raises ModelError where it failed on more than the share that is borne, counted over all calls.
        """
        outcomes = self._ask({_content(case): case for case in cases})
        marks: list[Marks | None] = []
        for case in cases:
            outcome = outcomes[_content(case)]
            marks.append(outcome if isinstance(outcome, Marks) else None)
            if isinstance(outcome, str):
                self.counts.reasons[outcome] += 1
        n_failed = marks.count(None)
        self.counts.n_failed += n_failed
        self.counts.n_marked += len(marks) - n_failed
        self._stop_if_too_many()
        return marks

    def _ask(self, distinct: dict[str, Case]) -> dict[str, Marks | str]:
        """Marks by content, or why there are none."""
        outcomes: dict[str, Marks | str] = {}
        todo = distinct
        for n_reasks in range(self.max_reasks + 1):
            if not todo:
                break
            if n_reasks:
                self.counts.n_asked_again += len(todo)
            unreadable: dict[str, Case] = {}
            completions = self.engine.generate(self.contract, list(todo.values()))
            for (content, case), completion in zip(todo.items(), completions, strict=True):
                outcome, ask_again = self._read(completion)
                outcomes[content] = outcome
                if ask_again:
                    unreadable[content] = replace(case, inputs={**case.inputs, "problem": str(outcome)})
            todo = unreadable
        return outcomes

    def _read(self, completion: Completion) -> tuple[Marks | str, bool]:
        """(marks, or why there are none; whether asking again may help)."""
        if completion.failure is not None:
            return f"the call failed: {completion.failure}", False
        marks = self.contract.read_marks(completion.text)
        if isinstance(marks, Marks):
            return marks, False
        if completion.refused:
            return "the judge or its provider refused to answer", False
        if not completion.stopped:
            return "the reply was cut off at the token limit", True
        return marks.reason, True

    def _stop_if_too_many(self) -> None:
        counts = self.counts
        n_all = counts.n_marked + counts.n_failed
        if counts.n_failed > self.max_failed_share * max(n_all, FEWEST_COUNTED):
            why = "; ".join(f"{count} x {reason}" for reason, count in counts.reasons.most_common(3))
            raise ModelError(
                f"{self.name} failed to mark {counts.n_failed:,} of {n_all:,} reasonings, more than the share of "
                f"{self.max_failed_share:g} that `max_failed_share` of the judge's settings bears: {why}. Take a judge "
                "that keeps to the form, raise `max_completion_tokens` or `max_reasks`, or set `lenient = true`."
            )


def _content(case: Case) -> str:
    return "\0".join(case.inputs.values())


class LlmReward:
    """The marks as a reward: their mean in [0, 1]."""

    minimum = 0.0
    maximum = 1.0
    asks_a_model = True
    gold_tolerance = math.inf  # no judge model is bound to give the expert's own words full marks

    def __init__(self, scorer: ReasoningScorer, client: EndpointClient | None = None) -> None:
        """`client`: where the scorer's judge is an endpoint."""
        self.scorer, self.client = scorer, client
        self.n_without_gold = self.n_unread = 0

    def most(self, case: Case) -> float | None:
        """1; None where no expert gave reasons."""
        return self.maximum if case.reason else None

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """The mean mark per rollout in [0, 1]; None where the row has no reasons, or where the judge failed."""
        values: list[float | None] = [None if not rollout.case.reason else 0.0 for rollout in rollouts]
        asked = [i for i, value in enumerate(values) if value is not None and _rationale(rollouts[i])]
        self.n_without_gold += values.count(None)
        self.n_unread += len(values) - values.count(None) - len(asked)
        marks = self.scorer.mark([reasoning_case(rollouts[i]) for i in asked])
        for i, mark in zip(asked, marks, strict=True):
            values[i] = mark.share if mark is not None else None
        return values

    def report(self) -> dict[str, Any]:
        """Counts: rollouts marked and failed, rows without the expert's reasons, answers that earned 0 unasked."""
        counts = self.scorer.counts
        return {
            "judge": self.scorer.name,
            "n_marked": counts.n_marked,
            "n_failed": counts.n_failed,
            "n_asked_again": counts.n_asked_again,
            "failures": dict(counts.reasons.most_common()),
            "n_without_gold": self.n_without_gold,
            "n_unread": self.n_unread,
            "endpoint": self.client.record() if self.client is not None else None,
            "usage": self.client.usage.to_json(self.client.settings) if self.client is not None else None,
        }

    def state(self) -> dict[str, Any]:
        """The counts of rollouts, as JSON: they belong to the steps of a checkpoint."""
        counts = {**vars(self.scorer.counts), "reasons": dict(self.scorer.counts.reasons)}
        return {"counts": counts, "n_without_gold": self.n_without_gold, "n_unread": self.n_unread}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on counting from `state`."""
        counts = state["counts"]
        self.scorer.counts = MarkCounts(**{**counts, "reasons": Counter(counts["reasons"])})
        self.n_without_gold, self.n_unread = state["n_without_gold"], state["n_unread"]


def _rationale(rollout: Rollout) -> str:
    return rollout.judgement.rationale.strip() if isinstance(rollout.judgement, Verdict) else ""


# --- building ---------------------------------------------------------------------------------------------------------


def llm_reward(context: RewardContext) -> LlmReward:
    """The reward of a run. The judge's weights are loaded when it is first asked.

    Raises ConfigError where no judge is named, its endpoint cannot be asked, or it was trained for another task than
    marking; ModelError where there is no such model.
    """
    settings = context.settings.llm
    if settings.judge is None:
        raise ConfigError(
            "the reward `llm` needs a judge: set `grpo.reward_settings.llm.judge` to a model folder, a hub id or "
            "openai:MODEL@URL."
        )
    contract = ReasoningContract(
        instructions=settings.instructions,
        lenient=settings.lenient,
        max_prompt_tokens=settings.max_prompt_tokens,
        max_completion_tokens=settings.max_completion_tokens,
    )
    if (note := check_contract(trained_under(settings.judge), contract)) is not None:
        log.warning(note)
    load = LoadSettings(
        model=ModelConfig(device=context.device), batch_tokens=settings.batch_tokens, endpoint=settings.endpoint
    )
    engine = LoadedWhenAsked(settings.judge, load)
    scorer = ReasoningScorer(
        engine,
        contract,
        name=settings.judge,
        max_reasks=settings.max_reasks,
        max_failed_share=settings.max_failed_share,
    )
    return LlmReward(scorer, engine.client)
