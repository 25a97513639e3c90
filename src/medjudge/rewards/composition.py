"""What a recipe's rewards come to: a weighted sum of terms, products among them, behind a gate.

    [grpo]
    reward_gate = ["schema"]                       # nothing is paid for a completion that cannot be read
    [grpo.rewards]
    "accuracy * embedding" = 1.0                   # a product of rewards, weighted
    format = 0.5                                   # a reward, weighted

A rollout earns the sum of weight x term. Where a gate reward is 0 or less, every term keeps only the part that takes
away: a gated rollout earns the sum of min(0, weight x term), so penalties stand and nothing is paid. A rollout whose
row lacks the gold of any term or gate (`None`) earns None: it is left out of training, not counted as 0.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from medjudge.errors import ConfigError, NotRewardableError, did_you_mean
from medjudge.records import Case, Rollout
from medjudge.rewards.rules import REWARDS, RewardRule, has_what_it_needs
from medjudge.settings.rewards import RewardSettings
from medjudge.tasks.contract import TaskContract

RULE_TOLERANCE = 1e-9


class BatchReward(Protocol):
    """A reward that scores many rollouts at once: what an embedding model or a judge model needs to be fast."""

    @property
    def minimum(self) -> float:
        """The least that it can pay."""

    @property
    def maximum(self) -> float:
        """The most that it can pay."""

    @property
    def gold_tolerance(self) -> float:
        """Tolerance of the expert's own answer below `most`; infinite for a judge model, which is then not asked."""

    @property
    def asks_a_model(self) -> bool:
        """Whether scoring takes a model; else it is arithmetic on what was parsed, and costs nothing."""

    def most(self, case: Case) -> float | None:
        """What a perfect answer to this case earns; None where the row lacks the gold that it compares with."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """One number per rollout, in their order. None where `most` of its case is None, or a judge model failed."""

    def report(self) -> Mapping[str, Any]:
        """What a report should say of it after a run: a measured baseline, calls and their cost. May be empty."""


@dataclass(frozen=True, slots=True)
class RewardContext:
    """What a reward may know of the run when it is built."""

    contract: TaskContract
    cases: Sequence[Case] = ()
    """The rated cases that are trained on: class counts and measured baselines come from here."""
    settings: RewardSettings = field(default_factory=RewardSettings)
    seed: int = 42
    device: str | None = None
    """As `model.device`."""


@dataclass(frozen=True, slots=True)
class BuiltReward:
    """A reward with settings, or one that must know the run: built once, then it scores many rollouts at once."""

    builder: str
    """`module:function`, imported only where a recipe names the reward: `function(context) -> BatchReward`."""
    minimum: float
    """The least that it can pay, whatever its settings. Below 0 it is a penalty, which never pays more than 0."""
    meaning: str


BUILT: dict[str, BuiltReward] = {
    "ordinal": BuiltReward("medjudge.rewards.shaping:ordinal", 0.0, "1 on the expert's label, less with each step off"),
    "balanced": BuiltReward("medjudge.rewards.shaping:balanced", 0.0, "as accuracy, rarer labels paying more"),
    "consistent": BuiltReward(
        "medjudge.rewards.consistency:consistent", 0.0, "1 where both orders of a pair get the expert's verdict"
    ),
    "brier": BuiltReward("medjudge.rewards.shaping:brier", -1.0, "minus the Brier score of the stated confidence"),
    "length": BuiltReward("medjudge.rewards.shaping:length", -1.0, "minus what a completion is too long by"),
    "repetition": BuiltReward("medjudge.rewards.shaping:repetition", -1.0, "minus its share of repeated n-grams"),
    "embedding": BuiltReward("medjudge.rewards.embedding:embedding", 0.0, "similarity of the reasoning, sentence-wise"),
    "embedding_published": BuiltReward(
        "medjudge.rewards.embedding:embedding_published", 0.0, "the same in the published form, (cos + 1) / 2"
    ),
    "llm": BuiltReward("medjudge.rewards.llm:llm_reward", 0.0, "a judge model's marks for the reasoning, 0 to 1"),
}

KNOWN: dict[str, RewardRule | BuiltReward] = {**REWARDS, **BUILT}
"""Every reward that a recipe can name."""


@dataclass(frozen=True, slots=True)
class RuleReward:
    """A rule as a `BatchReward`."""

    rule: RewardRule
    gold_tolerance: float = RULE_TOLERANCE
    asks_a_model: bool = False

    @property
    def minimum(self) -> float:
        """The least that the rule can pay."""
        return self.rule.minimum

    @property
    def maximum(self) -> float:
        """The most that the rule can pay."""
        return self.rule.maximum

    def most(self, case: Case) -> float | None:
        """The rule's maximum; None where the row lacks what the rule needs."""
        return self.rule.maximum if has_what_it_needs(case, self.rule.needs) else None

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """The rule, rollout by rollout. Raises ValueError where it pays what its line in `REWARDS` does not state."""
        paid = [self.rule.function(rollout) for rollout in rollouts]
        low, high = self.minimum - RULE_TOLERANCE, self.maximum + RULE_TOLERANCE
        for rollout, number in zip(rollouts, paid, strict=True):
            if number is None and self.most(rollout.case) is None:
                continue
            # Gates, products and the pre-flight reckon with what the line states; nan is in no range.
            if number is None or not low <= number <= high:
                raise ValueError(
                    f"{self.rule.function.__name__} paid {number} for case {rollout.case.case_id}, expected "
                    f"{self.minimum:g} to {self.maximum:g}, as its line in REWARDS states (None only where the row "
                    f"lacks what it `needs`: {self.rule.needs}). Correct the rule or its line."
                )
        return paid

    def report(self) -> Mapping[str, Any]:
        """A rule has none."""
        return {}


# --- what a recipe says -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """One line of `[grpo.rewards]`."""

    name: str
    """As the recipe writes it; what logs and reports call it."""
    weight: float

    @property
    def factors(self) -> tuple[str, ...]:
        """The rewards whose product the term is; one for a plain reward."""
        return factors_of(self.name)


def factors_of(name: str) -> tuple[str, ...]:
    """`"accuracy * embedding"` -> its rewards."""
    return tuple(factor.strip() for factor in name.split("*"))


def check_composition(rewards: Mapping[str, float], gate: Sequence[str]) -> None:
    """Raises ValueError for unknown rewards, and for a composition that cannot mean what it says."""
    for name in [*reward_names(rewards), *gate]:
        if name not in KNOWN:
            raise ValueError(f"unknown reward {name!r}{did_you_mean(name, KNOWN)}; known: {', '.join(KNOWN)}")
    if not rewards:
        raise ValueError("no reward named: GRPO has nothing to optimise. Name one, such as accuracy = 1.0")
    for name in rewards:
        factors = factors_of(name)
        signed = [factor for factor in factors if KNOWN[factor].minimum < 0]
        if len(factors) > 1 and signed:
            raise ValueError(
                f"{name!r} multiplies with {', '.join(signed)}, which can be negative: a wrong answer would earn more "
                "the worse the rest of it is. Multiply rewards from 0 up, such as accuracy, or add them"
            )
    if penalties := [name for name in gate if name in KNOWN and _never_positive(KNOWN[name])]:
        raise ValueError(
            f"the gate {', '.join(penalties)} never pays more than 0, so it would never open. "
            "Name a reward from 0 up, such as schema"
        )


def _never_positive(rule: RewardRule | BuiltReward) -> bool:
    return rule.maximum <= 0 if isinstance(rule, RewardRule) else rule.minimum < 0


def rewardable(plan: RewardPlan, cases: Sequence[Case]) -> list[Case]:
    """The cases that have the gold which every reward needs. Raises NotRewardableError if none has."""
    payable = [case for case in cases if plan.most(case) is not None]
    if not payable:
        lacking = [name for name, reward in plan.rewards.items() if not any(reward.most(c) is not None for c in cases)]
        raise NotRewardableError(
            f"no row of {len(cases)} has the gold that the reward {' and '.join(lacking) or 'plan'} compares with: an "
            "expert's label, for rewards on reasoning the expert's reasoning. Map the column in `data.fields`, or take "
            "rewards that these rows can pay."
        )
    return payable


def build_plan(rewards: Mapping[str, float], gate: Sequence[str], context: RewardContext) -> RewardPlan:
    """The recipe's rewards, built: each one once, whatever number of terms names it."""
    terms = tuple(Term(name, weight) for name, weight in rewards.items())
    # Once each: a reward that asks a judge model would otherwise pay for every term that names it.
    names = dict.fromkeys([*(factor for term in terms for factor in term.factors), *gate])
    return RewardPlan(terms, tuple(gate), {name: build_reward(name, context) for name in names})


def build_reward(name: str, context: RewardContext) -> BatchReward:
    """One reward by its name. Raises ConfigError if it cannot be built here."""
    rule = KNOWN[name]
    if isinstance(rule, RewardRule):
        return RuleReward(rule)
    module, _, function = rule.builder.partition(":")
    try:
        build = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"reward {name!r} needs {error.name}, which is not installed. "
            "Install it as `medjudge info` says, or take another reward."
        ) from None
    reward: BatchReward = build(context)
    return reward


# --- scoring ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoredRollout:
    """What one rollout earned, and for what."""

    rollout: Rollout
    rewards: Mapping[str, float | None]
    """Each reward that the recipe names, factors and gates too, as it was paid before products and gate."""
    terms: Mapping[str, float | None]
    """Each term by its name: product made, gate applied, before its weight."""
    total: float | None
    """The weighted sum of the terms; None where the row lacks the gold of a term or gate."""
    is_gated: bool = False
    """Whether a gate took away what the terms would have paid."""


@dataclass(frozen=True, slots=True)
class RewardPlan:
    """The rewards of a run: terms, weights, gate, and the built rewards behind them."""

    terms: tuple[Term, ...]
    gate: tuple[str, ...]
    rewards: Mapping[str, BatchReward]

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight, in the recipe's order."""
        return {term.name: term.weight for term in self.terms}

    @property
    def minimum(self) -> float:
        """The least that a rollout can earn."""
        low = (min(term.weight * value for value in self._range(term)) for term in self.terms)
        return sum(min(0.0, value) if self.gate else value for value in low)

    @property
    def maximum(self) -> float:
        """The most that a rollout can earn, of whichever case."""
        return sum(max(term.weight * value for value in self._range(term)) for term in self.terms)

    def _range(self, term: Term) -> tuple[float, float]:
        """(least, most) of a term; the factors of a product are never negative."""
        rewards = [self.rewards[factor] for factor in term.factors]
        return math.prod(r.minimum for r in rewards), math.prod(r.maximum for r in rewards)

    def report(self) -> dict[str, Any]:
        """What a report should say of the rewards: their composition, and what each has to tell."""
        built = {name: dict(details) for name, reward in self.rewards.items() if (details := reward.report())}
        return {"terms": self.weights, "gate": list(self.gate), "range": [self.minimum, self.maximum], **built}

    def most(self, case: Case) -> float | None:
        """What a perfect answer to this case earns; None where the row lacks the gold of a term or gate."""
        most = {name: reward.most(case) for name, reward in self.rewards.items()}
        if None in most.values():
            return None
        return sum(
            term.weight * (product(most, term) or 0.0) if term.weight > 0 else term.weight * self._range(term)[0]
            for term in self.terms
        )

    def score(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
        """Every rollout's terms and total, in the order of `rollouts`. Each reward is asked once for all of them."""
        if not rollouts:
            return []
        columns = {name: reward(rollouts) for name, reward in self.rewards.items()}
        # No reward at all, as in a part of a plan, still is a row for each rollout.
        rows = zip(*columns.values(), strict=True) if columns else ((),) * len(rollouts)
        return [self.compose(r, dict(zip(columns, row, strict=True))) for r, row in zip(rollouts, rows, strict=True)]

    def compose(self, rollout: Rollout, rewards: Mapping[str, float | None]) -> ScoredRollout:
        """Terms and total of one rollout from its rewards."""
        gates = [rewards[name] for name in self.gate]
        terms: dict[str, float | None] = {term.name: product(rewards, term) for term in self.terms}
        # None is the row's lack, not the policy's: a 0 here would teach the policy that it was wrong.
        if None in gates or None in terms.values():
            return ScoredRollout(rollout, rewards, terms, None)
        # Penalties stand behind a closed gate: an unreadable answer must not escape the price of its length.
        is_gated = any(value is not None and value <= 0 for value in gates)
        if is_gated:
            terms = {term.name: _what_it_takes_away(terms[term.name], term.weight) for term in self.terms}
        total = sum(term.weight * (terms[term.name] or 0.0) for term in self.terms)
        return ScoredRollout(rollout, rewards, terms, total, is_gated)


def product(rewards: Mapping[str, float | None], term: Term) -> float | None:
    """The product of a term's rewards; None if one is None."""
    values = [rewards[factor] for factor in term.factors]
    known = [value for value in values if value is not None]
    return math.prod(known) if len(known) == len(values) else None


def _what_it_takes_away(value: float | None, weight: float) -> float:
    return value if value is not None and weight * value < 0 else 0.0


def reward_names(rewards: Iterable[str]) -> list[str]:
    """Every reward that the terms are made of, once each, in order."""
    return list(dict.fromkeys(factor for name in rewards for factor in factors_of(name)))
