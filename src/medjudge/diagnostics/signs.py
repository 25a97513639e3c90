"""The findings that the doctor knows: how severe each is, what it means, what to do, and which explains which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["severe", "warning"]


@dataclass(frozen=True, slots=True)
class Sign:
    """A finding that the doctor knows."""

    severity: Severity
    title: str
    advice: str


SIGNS: dict[str, Sign] = {
    "not_finite": Sign(
        "severe",
        "loss, gradient or KL is not a number",
        "Lower `grpo.learning_rate`, set `model.dtype` to bfloat16 or float32, and begin again: weights "
        "may be corrupted.",
    ),
    "kl_runaway": Sign(
        "severe",
        "the policy diverges from its reference",
        "Lower `grpo.learning_rate` or raise `grpo.kl_coef`, and take the last checkpoint from before this step.",
    ),
    "entropy_runaway": Sign(
        "severe",
        "entropy explosion: the policy is close to random",
        "Lower `grpo.learning_rate` and `grpo.temperature`; take out an entropy bonus (`grpo.trl.entropy_coef`).",
    ),
    "truncated": Sign(
        "severe",
        "completions are cut off by the token limit",
        "Raise `task.max_completion_tokens`, ask for shorter answers, or train SFT until answers end with the stop "
        "token.",
    ),
    "all_unparsed": Sign(
        "severe",
        "no completion can be read",
        "Compare the common beginning with what the contract expects (`medjudge preflight` does): thinking mode, chat "
        "template, or too little SFT.",
    ),
    "components_cancel": Sign(
        "severe",
        "reward components cancel each other",
        "Change the weights in `grpo.rewards`, so that one component cannot take away what the other pays.",
    ),
    "all_correct": Sign(
        "warning",
        "nothing is left to learn on these cases",
        "Stop here, or train on harder cases: `grpo.split` with rows that SFT has not seen, or the doctor's `act` "
        "policy.",
    ),
    "all_wrong": Sign(
        "severe",
        "the cases are too hard for the policy",
        "Check that gold labels and the answer's alphabet agree; then train SFT longer, take easier cases first (the "
        "doctor's `act` policy orders them), or a larger base.",
    ),
    "entropy_collapse": Sign(
        "severe",
        "the policy has become certain, and its groups alike",
        "Raise `grpo.temperature` or `grpo.kl_coef`, lower `grpo.learning_rate`, or take fresh cases.",
    ),
    "no_spread": Sign(
        "severe",
        "all groups have zero reward variance",
        "Raise `grpo.temperature` or `grpo.group_size`, take cases of middling difficulty, or add a graded reward.",
    ),
    "constant_component": Sign(
        "warning",
        "a reward component never varies",
        "Look at what it pays on gold answers (`medjudge preflight`); fix it, or take it out of `grpo.rewards`.",
    ),
    "label_lost": Sign(
        "warning",
        "a label of the experts is hardly answered any more",
        'Pay each label alike (reward `balanced` with `grpo.scale_rewards = "batch"`), let SFT see each as often '
        '(`sft.class_balance = "oversample"`) until it says it, or lower `grpo.learning_rate`.',
    ),
    "zero_gradient": Sign(
        "severe",
        "the reward has spread, but no gradient arrives",
        "Check what is trainable (adapter targets, frozen weights), `grpo.mask_truncated_completions`, and the "
        "schedule of the learning rate.",
    ),
    "hacking_repetition": Sign(
        "severe",
        "the reward rises by repetition while held-out accuracy falls",
        "Add a repetition penalty to `grpo.rewards`, or raise `grpo.kl_coef`; take an earlier checkpoint.",
    ),
    "hacking_length": Sign(
        "severe",
        "the reward rises by length while held-out accuracy falls",
        "Make the reward indifferent to length or penalise it; raise `grpo.kl_coef`; take an earlier checkpoint.",
    ),
    "hacking_format": Sign(
        "severe",
        "the reward rises by what does not depend on the answer, while held-out accuracy falls",
        "Weight correctness above format in `grpo.rewards`, or multiply instead of adding; take an earlier checkpoint.",
    ),
    "overfitting": Sign(
        "severe",
        "overfitting: training accuracy rises while held-out accuracy falls",
        "Stop earlier, train on cases that SFT has not seen, or raise `grpo.kl_coef`.",
    ),
}
"""Every finding, causes before what they explain."""
# Groups of findings that one cause brings about together.
_DEAD = frozenset({"no_spread", "constant_component", "zero_gradient", "entropy_collapse"})
_BROKEN = _DEAD | {"truncated", "all_unparsed", "all_wrong", "label_lost"}
_HACKED = _BROKEN | {"kl_runaway", "entropy_runaway"}
MEASURED_LATE = frozenset({"hacking_repetition", "hacking_length", "hacking_format", "overfitting"})
"""Found by held-out accuracy, which is measured now and then."""
EXPLAINS: dict[str, frozenset[str]] = {
    "not_finite": frozenset(SIGNS) - {"not_finite"},
    "kl_runaway": _BROKEN | {"entropy_runaway"},
    "entropy_runaway": _BROKEN,
    "truncated": frozenset({"all_unparsed"}),
    "all_unparsed": _DEAD | {"truncated", "label_lost"},
    "components_cancel": frozenset({"no_spread", "zero_gradient"}),
    "all_correct": _DEAD,
    "all_wrong": _DEAD | {"label_lost"},
    "entropy_collapse": _DEAD - {"entropy_collapse"} | {"label_lost"},
    "no_spread": frozenset({"constant_component", "zero_gradient"}),
    "hacking_repetition": _HACKED | {"hacking_length", "hacking_format"},
    "hacking_length": _HACKED | {"hacking_format"},
    "hacking_format": _HACKED,
    "overfitting": _HACKED | {"all_correct"},
}
"""Cause -> what follows from it and is then not named beside it."""
