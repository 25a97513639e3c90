"""Rewards that must know the task, the class counts or a setting: built once from the recipe, then pure arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medjudge.errors import ConfigError
from medjudge.records import Case, Rollout, Verdict
from medjudge.rewards.composition import RULE_TOLERANCE, RewardContext, RuleReward
from medjudge.rewards.rules import RewardRule, is_correct


def ordinal(context: RewardContext) -> RuleReward:
    """1 - |label - gold| / (points - 1): 1, 1/2, 0 on three points, 1, 3/4, .. 0 on five; 0 for an unparsed completion.

    Raises ConfigError for a task whose labels have no order.
    """
    contract = context.contract
    if not contract.ordered:
        raise ConfigError(
            f"reward `ordinal` needs labels that lie on a scale, but those of task {contract.kind} have no order. "
            "Take `accuracy`."
        )
    place = {label: i for i, label in enumerate(contract.labels)}

    def reward(rollout: Rollout) -> float | None:
        gold, judgement = rollout.case.gold, rollout.judgement
        if gold is None:
            return None
        if not isinstance(judgement, Verdict):
            return 0.0
        # Places, not the labels' numbers: a scale may be words.
        return 1 - abs(place[judgement.label] - place[gold]) / (len(place) - 1)

    return RuleReward(RewardRule(reward, 0.0, 1.0, "closeness on the scale", "label"))


def brier(context: RewardContext) -> RuleReward:
    """-(p - correct)^2 for the stated confidence p in [0, 1]; -1 for an unparsed completion or one that states none.

    Added to `accuracy` with equal weights it is the reward of RLCR (Damani et al. 2025, arXiv:2507.16806, eq. 2), which
    is greatest for the likeliest label with its true probability. Alone it would also pay for being surely wrong.
    Raises ConfigError for a task that asks for no confidence.
    """
    contract = context.contract
    target = getattr(contract, "target_confidence", None)
    if target is None:
        raise ConfigError(
            f"reward `brier` scores a stated confidence, but task {contract.kind} asks for none. Take `accuracy`."
        )

    def reward(rollout: Rollout) -> float | None:
        if rollout.case.gold is None:
            return None
        judgement = rollout.judgement
        if not isinstance(judgement, Verdict) or judgement.confidence is None:
            return -1.0
        return -((judgement.confidence - is_correct(rollout)) ** 2)

    # Gold answers state the confidence that SFT teaches, not 1.
    tolerance = (1 - float(target)) ** 2 + RULE_TOLERANCE
    return RuleReward(RewardRule(reward, -1.0, 0.0, "minus the Brier score", "label"), tolerance)


def length(context: RewardContext) -> RuleReward:
    """0 up to the target, then falling evenly to -1 at target + fade.

    The form of DAPO's overlong penalty (Yu et al. 2025, arXiv:2503.14476, eq. 13), with a target of one's own.
    """
    settings = context.settings.length
    fade = settings.fade or settings.target

    def reward(rollout: Rollout) -> float | None:
        completion = rollout.completion
        n = completion.n_tokens if settings.unit == "tokens" else len(completion.text.split())
        return -min(1.0, max(0, n - settings.target) / fade)

    return RuleReward(RewardRule(reward, -1.0, 0.0, "minus what it is too long by"))


def repetition(context: RewardContext) -> RuleReward:
    """Minus the share of repeated word n-grams above what is allowed, scaled to reach -1."""
    settings = context.settings.repetition

    def reward(rollout: Rollout) -> float | None:
        share = repeated_share(rollout.completion.text, settings.ngram)
        return -max(0.0, share - settings.allowed) / (1 - settings.allowed)

    return RuleReward(RewardRule(reward, -1.0, 0.0, "minus its share of repeated n-grams"))


def repeated_share(text: str, n: int) -> float:
    """Share of a text's word n-grams that occurred before in it, in [0, 1); 0 for fewer than n words."""
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


@dataclass(frozen=True, slots=True)
class Balanced:
    """Correctness weighted by the gold label, so that each label brings the same to the mean over the training split.

    A right answer pays n / (k n_label) over n cases of k labels, a wrong or unparsed one 0: the mean over the training
    split is the balanced accuracy, and an answer that is always the same earns 1 / k whichever it is. Advantages that
    are scaled by each group's own spread undo it: a group shares its gold label. It acts under
    `grpo.scale_rewards = "batch"` or `"none"`.
    """

    weights: Mapping[str, float]
    gold_tolerance: float = RULE_TOLERANCE
    asks_a_model: bool = False

    @property
    def minimum(self) -> float:
        """0, for a wrong answer."""
        return 0.0

    @property
    def maximum(self) -> float:
        """What a right answer pays on the rarest label."""
        return max(self.weights.values())

    def most(self, case: Case) -> float | None:
        """What a right answer to this case pays."""
        return None if case.gold is None else self.weights[case.gold]

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """The weight of the gold label for a right answer, else 0."""
        return [None if (most := self.most(r.case)) is None else most * is_correct(r) for r in rollouts]

    def report(self) -> Mapping[str, Any]:
        """What a right answer pays, by label."""
        return {"weights": {label: round(weight, 4) for label, weight in self.weights.items()}}


def balanced(context: RewardContext) -> Balanced:
    """`Balanced`, with the class counts of the cases that are trained on."""
    # Of the training split: the held-out labels must not shape what is paid.
    counts = Counter(case.gold for case in context.cases if case.gold is not None)
    # A label that the split lacks is worth what the rarest is, should it turn up elsewhere.
    n, rarest = max(1, counts.total()), min(counts.values(), default=1)
    labels = context.contract.labels
    return Balanced({label: n / (max(1, len(counts)) * counts.get(label, rarest)) for label in labels})
