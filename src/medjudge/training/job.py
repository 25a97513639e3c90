"""What the trainings are handed and what they give back: the same few objects for every algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medjudge.data.ratings import one_view_each, with_some_label
from medjudge.data.splits import seeded_sample
from medjudge.diagnostics.checks import Answer
from medjudge.diagnostics.preflight import taught_answers
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.rewards.composition import RewardPlan, rewardable
from medjudge.settings.model import ModelConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, encode_all


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What every training needs beside its settings and rows."""

    contract: TaskContract
    model: Any
    """The whole weights that the training starts from."""
    tokenizer: Any
    model_config: ModelConfig
    work: Path
    """The stage's work folder: checkpoints lie there, and training resumes from the last whole one."""
    seed: int


@dataclass(frozen=True, slots=True)
class RewardedRows:
    """The cases that a training on rewards sees, each encoded once, and the rewards built for them."""

    cases: tuple[Case, ...]
    encoded: tuple[Encoded, ...]
    """Prompts, in the order of the cases."""
    plan: RewardPlan
    answers: tuple[Answer, ...] = ()
    """The experts' answers after the round trip through template and tokenizer, for the pre-flight."""
    n_not_rewardable: int = 0
    """Rated cases that no reward can pay."""

    @classmethod
    def encode(cls, contract: TaskContract, cases: Sequence[Case], tokenizer: Any, plan: RewardPlan) -> RewardedRows:
        """Rows of cases that all have what `plan` needs."""
        return cls(tuple(cases), tuple(encode_all(contract, cases, tokenizer, with_target=False)), plan)

    @classmethod
    def of_split(cls, recipe: Recipe, split: Sequence[Case], tokenizer: Any) -> RewardedRows:
        """The rows of a split that GRPO trains on. Reasons are those that targets hold.

        Raises DataError where no case can be rewarded.
        """
        if recipe.grpo.ratings == "expected":
            split = [with_some_label(case, recipe.contract.labels) for case in split]
        answers = taught_answers(recipe.contract, [case for case in split if case.gold is not None], tokenizer)
        taught = [answer.rollout.case for answer in answers]
        # Rewards that weigh labels by how common they are count what they will be compared with.
        compared = [view.case for view in one_view_each(taught) for _ in range(view.n)]
        plan = recipe.reward_plan(compared if recipe.grpo.ratings == "expected" else taught)
        can_earn = rewardable(plan, taught)
        chosen = seeded_sample(can_earn, recipe.grpo.max_cases, recipe.seed)
        by_id = {answer.rollout.case.case_id: answer for answer in answers}
        rewarded = tuple(by_id[case.case_id] for case in chosen)
        return cls(chosen, tuple(one.encoded for one in rewarded), plan, rewarded, len(taught) - len(can_earn))


@dataclass(frozen=True, slots=True)
class Beside:
    """What watches a training that draws rollouts."""

    held_out: Callable[[Any], str] | None = None
    """Judges held-out cases with a model, `1` or `0` each."""
    pass_rates: Mapping[str, float] = field(default_factory=dict)
    """Case id -> share of right completions before training, for the doctor's `act` policy."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training gives back."""

    model: Any
    """The trained model or PeftModel."""
    history: list[dict[str, Any]]
    """The training log."""
    doctor: dict[str, Any] | None = None
    """What the doctor saw; None of a training without rollouts."""
