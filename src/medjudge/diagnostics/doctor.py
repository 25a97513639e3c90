"""What is wrong with a GRPO run, in words: a few numbers per step, and what a window of steps shows.

`diagnose` reads the steps so far (`diagnostics/observation.py` makes them), and `Doctor` remembers what was named.
Pure, no torch; the trainer's side is `training/doctor_callback.py`. `docs/doctor.md` tells each finding.

A finding is never drawn from one step. It needs `window_steps` steps that together hold `window_groups` groups: where
none of 32 groups differs in reward, at most 9 % of all groups do (rule of three, 3/n), and that a healthy run with half
of its groups alike shows such a window has probability 2e-10.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from medjudge.diagnostics.observation import (
    ALL,
    SAME,
    BatchFacts,
    Evidence,
    StepFacts,
    TermFacts,
    Window,
    common_prefix,
    other_label,
    shown,
)
from medjudge.metrics.comparison import mcnemar

MANY_TRUNCATED = 0.25
"""A quarter of the completions cut off. Below it the rest of each group still teaches the policy to be shorter."""
FEW_LABEL_GROUPS = 4
"""Groups of a label, at least, and a quarter of a window, before anything is said about how often it is answered."""
FEW_MIXED_GROUPS = 8
"""Groups in which two terms differ, before anything is said about how they add up."""
KL_RUNAWAY = 1.0
"""Nats per token: the average token is e times as likely, or as unlikely, as under the reference policy. The published
runs behind the recipes stay below 0.1; DeepSeekMath (arXiv:2402.03300) trains with a pull of 0.04 to stay there."""
ENTROPY_RISE = 1.0
"""Nats per token above the start: the policy wavers between e times as many tokens at every place."""
ENTROPY_LEFT = 0.1
"""Share of the starting entropy below which it has collapsed, where no group differs in reward any more."""
NO_GRADIENT = 1e-7
"""Norm below which the weights do not move in float32."""
LONGER = 1.5
"""Factor on the mean completion length that counts as growth."""
MORE_REPETITION = 0.1
"""Rise of the share of repeated word 4-grams that counts as repetition."""
SELDOM = 0.25
"""A label sampled a quarter as often as the experts give it, or less. Greedy answers may then hold it no more: on the
ACR table of 2020, 28 of 512 samples gave the middle rating (experts: 112), none of 1,000 greedy answers did."""
HELD_OUT_P = 0.01
"""McNemar's p for held-out accuracy now against before training: looked at about five times in a hundred steps."""

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
        "Lower `grpo.learning_rate`, set `model.dtype` to bfloat16 or float32, and begin again: weights may be spoilt.",
    ),
    "kl_runaway": Sign(
        "severe",
        "the policy runs away from its reference",
        "Lower `grpo.learning_rate` or raise `grpo.kl_coef`, and take the last checkpoint from before this step.",
    ),
    "entropy_runaway": Sign(
        "severe",
        "the policy dissolves into noise",
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
        "all groups are without spread",
        "Raise `grpo.temperature` or `grpo.group_size`, take cases of middling difficulty, or add a graded reward.",
    ),
    "constant_component": Sign(
        "warning",
        "a reward component never varies",
        "Look at what it pays on gold answers (`medjudge preflight`); mend it, or take it out of `grpo.rewards`.",
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
        "training cases are learned by heart while held-out accuracy falls",
        "Stop earlier, train on cases that SFT has not seen, or raise `grpo.kl_coef`.",
    ),
}
"""Every finding, causes before what they explain."""

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


@dataclass(frozen=True, slots=True)
class RewardShape:
    """What the doctor has to know of the rewards."""

    maxima: Mapping[str, float]
    """Term -> the most that it can pay, as it enters the total."""
    n_labels: int = 0
    """Size of the closed label set; 0 if unknown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the doctor names."""

    name: str
    """A key of `SIGNS`."""
    sentence: str
    """What was seen, with its numbers. No text of a case."""
    since_step: int
    """First step of the window that showed it."""
    named_step: int
    evidence: tuple[Evidence, ...] = ()
    subject: str = ""
    """The reward component that it is about, where it is about one."""
    last_step: int = 0
    """The last step at which it was still seen."""
    explained_by: str | None = None
    """The cause that was found later; such a finding is kept, but is no cause of its own."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return SIGNS[self.name].severity

    def to_json(self) -> dict[str, Any]:
        """The finding with what it means and what to do."""
        sign = SIGNS[self.name]
        return {**asdict(self), "severity": sign.severity, "title": sign.title, "advice": sign.advice}


def diagnose(
    steps: Sequence[StepFacts], shape: RewardShape, *, window_steps: int = 5, window_groups: int = 32
) -> list[Finding]:
    """What the last window of `steps` shows, causes only: what another finding explains is left out.

    steps: all steps so far, in order. Nothing is found before a window is full, but numbers that are none.
    """
    found: list[Finding] = []
    if (broken := _not_finite(steps)) is not None:
        found.append(broken)
    window = _last_window(steps, window_steps, window_groups)
    if window is not None:
        first = _first_window(steps, window_steps, window_groups)
        found += [
            finding
            for finding in (
                _kl(steps, window_steps),
                _entropy(steps, window_steps, window),
                _truncated(window),
                _all_unparsed(window),
                _components_cancel(window),
                _all_correct(window),
                _all_wrong(window, shape),
                _no_spread(window),
                *_constant_components(window, shape),
                _label_lost(steps, window_steps, window_groups),
                _zero_gradient(window),
                _hacking(steps, first, window),
            )
            if finding is not None
        ]
    names = {finding.name for finding in found}
    explained = {symptom for name in names for symptom in EXPLAINS.get(name, ())}
    return [finding for finding in found if finding.name not in explained]


def _last_window(steps: Sequence[StepFacts], n_steps: int, n_groups: int) -> Window | None:
    chosen: list[StepFacts] = []
    groups = batches = 0
    for step in reversed(steps):
        chosen.append(step)
        if step.batch is not None:
            batches, groups = batches + 1, groups + step.batch.n_groups
        if batches >= n_steps and groups >= n_groups:
            return Window(tuple(reversed(chosen)))
    return None


def _first_window(steps: Sequence[StepFacts], n_steps: int, n_groups: int) -> Window:
    groups = batches = 0
    for i, step in enumerate(steps):
        if step.batch is not None:
            batches, groups = batches + 1, groups + step.batch.n_groups
        if batches >= n_steps and groups >= n_groups:
            return Window(tuple(steps[: i + 1]))
    return Window(tuple(steps))


def _finding(
    name: str, sentence: str, window: Window, evidence: tuple[Evidence, ...] = (), subject: str = ""
) -> Finding:
    last = window.steps[-1].step
    return Finding(name, sentence, window.steps[0].step, last, evidence, subject, last_step=last)


def _span(window: Window) -> str:
    first, last = window.steps[0].step, window.steps[-1].step
    return f"step {first}" if first == last else f"steps {first} to {last}"


def _is_cut_off(window: Window) -> bool:
    """Whether truncation alone accounts for everything: then it is named, and nothing that follows from it."""
    unparsed, both = window.count("n_unparsed"), window.count("n_unparsed_truncated")
    return window.share("n_truncated", "n") >= ALL or (unparsed >= ALL * window.count("n") and both >= 0.8 * unparsed)


def _not_finite(steps: Sequence[StepFacts]) -> Finding | None:
    if not steps or not steps[-1].not_finite:
        return None
    window = Window((steps[-1],))
    return _finding("not_finite", f"{_span(window)}: {', '.join(steps[-1].not_finite)} is not a number.", window)


def _truncated(window: Window) -> Finding | None:
    n, cut = window.count("n"), window.count("n_truncated")
    if cut / n < MANY_TRUNCATED:
        return None
    unparsed, both = window.count("n_unparsed"), window.count("n_unparsed_truncated")
    if unparsed / n >= ALL and both < 0.8 * unparsed:
        return None  # what cannot be read was mostly not cut off: another cause
    limit = max(row.n_tokens for row in window.evidence("truncated"))
    sentence = (
        f"{cut:,} of {n:,} completions ({_span(window)}) were cut off at {limit} tokens; {both:,} of them could not be "
        f"read."
    )
    return _finding("truncated", sentence, window, window.evidence("truncated"))


def _all_unparsed(window: Window) -> Finding | None:
    n, unparsed = window.count("n"), window.count("n_unparsed")
    if unparsed / n < ALL or _is_cut_off(window):
        return None
    reasons: Counter[str] = Counter()
    for batch in window.batches:
        reasons.update(batch.reasons)
    reason, count = reasons.most_common(1)[0]
    prefix = common_prefix([batch.prefix for batch in window.batches if batch.prefix is not None])
    # What completions of many cases begin with is the model's habit, not text of a case.
    rows = [row for batch in window.batches for row in batch.evidence.get("unparsed", ())]
    is_habit = prefix.strip() and len({row.case_id for row in rows}) > 2
    begins = f" All begin with {shown(prefix)}." if is_habit else " They have no common beginning."
    sentence = (
        f"{unparsed:,} of {n:,} completions ({_span(window)}) could not be read, {count:,} of them because: {reason}."
        + begins
    )
    return _finding("all_unparsed", sentence, window, window.evidence("unparsed"))


def _components_cancel(window: Window) -> Finding | None:
    mixed, cancelled = window.count("n_mixed"), window.count("n_cancelled")
    if (
        mixed < FEW_MIXED_GROUPS
        or cancelled < 0.9 * mixed
        or window.count("n_spread") > mixed - cancelled + 0.1 * mixed
    ):
        return None
    names = [name for name, high_low in _term_ranges(window).items() if high_low[1] - high_low[0] > SAME]
    sentence = (
        f"in {cancelled:,} of {mixed:,} groups in which several components differ ({_span(window)}) their total does "
        f"not: {', '.join(names)} take away what the others pay."
    )
    return _finding("components_cancel", sentence, window, window.evidence("cancelled"))


def _all_correct(window: Window) -> Finding | None:
    rated, right = window.count("n_rated"), window.count("n_correct")
    if not rated or right / rated < ALL or window.share("n_spread", "n_groups") > 0.2:
        return None
    sentence = (
        f"{right:,} of {rated:,} completions ({_span(window)}) are right, and {window.count('n_spread'):,} of "
        f"{window.count('n_groups'):,} groups differ in reward: these cases teach nothing more."
    )
    return _finding("all_correct", sentence, window, window.evidence("right"))


def _all_wrong(window: Window, shape: RewardShape) -> Finding | None:
    rated, right, n = window.count("n_rated"), window.count("n_correct"), window.count("n")
    if not rated or right / rated > 1 - ALL or window.count("n_unparsed") > n / 2:
        return None
    guess = (
        f" Guessing among {shape.n_labels} labels would have given about {rated // shape.n_labels:,}, so the labels "
        "themselves may be misread."
        if shape.n_labels and rated >= 8 * shape.n_labels
        else ""
    )
    sentence = (
        f"{right:,} of {rated:,} completions ({_span(window)}) are right although {n - window.count('n_unparsed'):,} "
        f"could be read.{guess}"
    )
    return _finding("all_wrong", sentence, window, window.evidence("wrong"))


def _no_spread(window: Window) -> Finding | None:
    groups, spread, identical = (window.count(name) for name in ("n_groups", "n_spread", "n_identical"))
    if spread / groups > 1 - ALL or _is_cut_off(window):
        return None
    rated = window.count("n_rated")
    how_right = f" {window.count('n_correct'):,} of {rated:,} completions are right." if rated else ""
    same_text = identical >= 0.5 * groups
    sentence = (
        f"{spread:,} of {groups:,} groups ({_span(window)}) hold two different rewards: every advantage is 0. "
        + (
            f"In {identical:,} groups all completions are the same text: sampling is too cold, or the policy certain."
            if same_text
            else f"The texts differ in {groups - identical:,} groups, but are paid alike: the reward is too coarse."
        )
        + how_right
    )
    return _finding("no_spread", sentence, window, window.evidence("alike"))


def _term_ranges(window: Window) -> dict[str, tuple[float, float]]:
    """Term -> the least and the most that it paid; nan where it paid nothing."""
    ranges: dict[str, tuple[float, float]] = {}
    for name in window.batches[0].terms:
        facts = [batch.terms[name] for batch in window.batches if batch.terms[name].n]
        ranges[name] = (
            (min(f.low for f in facts), max(f.high for f in facts)) if facts else (float("nan"), float("nan"))
        )
    return ranges


def _constant_components(window: Window, shape: RewardShape) -> list[Finding]:
    """Terms that pay one and the same, unless it is their most: an earned format stays earned."""
    findings: list[Finding] = []
    n = window.count("n")
    if not window.count("n_spread") or _is_cut_off(window):
        return findings
    for name, (low, high) in _term_ranges(window).items():
        if math.isnan(low):
            sentence = f"`{name}` paid nothing to any of {n:,} completions ({_span(window)}): no row has what it needs."
        elif high - low > SAME or low >= shape.maxima.get(name, math.inf) - SAME:
            continue
        else:
            most = f"; it can pay {shape.maxima[name]:g}" if name in shape.maxima else ""
            sentence = f"`{name}` paid {low:g} to every one of {n:,} completions ({_span(window)}){most}."
        findings.append(_finding("constant_component", sentence, window, window.evidence("spread"), name))
    return findings


def _label_lost(steps: Sequence[StepFacts], n_steps: int, n_groups: int) -> Finding | None:
    """Labels that the experts give and the policy hardly does. A label has few of the groups: two windows are read."""
    window = _last_window(steps, n_steps, 2 * n_groups)
    if window is None or window.count("n_unparsed") > window.count("n") / 2:
        return None
    given, answers, n = window.tally("gold_groups"), window.tally("answers"), window.count("n")
    per_group = n / window.count("n_groups")
    lost = {
        label: n_given
        for label, n_given in given.most_common()
        if n_given >= max(FEW_LABEL_GROUPS, n_groups // 4) and answers[label] <= SELDOM * n_given * per_group
    }
    if not lost:
        return None
    at_first = _first_window(steps, n_steps, 2 * n_groups)
    told = [
        f"`{label}` is the experts' label in {n_given:,} of {window.count('n_groups'):,} groups, and "
        f"{answers[label]:,} of {n:,} completions give it ({at_first.tally('answers')[label]:,} of "
        f"{at_first.count('n'):,} at first)"
        for label, n_given in lost.items()
    ]
    evidence = window.evidence(other_label(next(iter(lost))))
    return _finding("label_lost", f"{_span(window)}: {'; '.join(told)}.", window, evidence)


def _zero_gradient(window: Window) -> Finding | None:
    """Every step with spread in the window brought no gradient, or no advantage."""
    told = [step for step in window.steps if step.batch is not None and step.batch.n_spread]
    norms = [step.grad_norm for step in told if step.grad_norm is not None]
    n_spread = window.count("n_spread")
    if len(told) < len(window.batches) / 2 or n_spread < 3 or _is_cut_off(window):
        return None
    if all(step.batch is not None and step.batch.n_advantages == 0 for step in told):
        why = "every advantage is 0 all the same: it is lost between reward and advantage"
    elif len(norms) == len(told) and all(norm <= NO_GRADIENT for norm in norms):
        why = f"the largest gradient norm was {max(norms):.1e}: nothing that the loss depends on is trained"
    else:
        return None
    sentence = f"{n_spread:,} of {window.count('n_groups'):,} groups ({_span(window)}) differ in reward, but {why}."
    return _finding("zero_gradient", sentence, window, window.evidence("spread"))


def _kl(steps: Sequence[StepFacts], n: int) -> Finding | None:
    known = [(step.step, step.kl) for step in steps if step.kl is not None]
    if len(known) < n:
        return None
    last = statistics.median(kl for _, kl in known[-n:])
    if last < KL_RUNAWAY:
        return None
    start = statistics.median(kl for _, kl in known[:n])
    window = Window(tuple(step for step in steps if step.step >= known[-n][0]))
    sentence = (
        f"KL from the reference policy has its median at {last:.2f} nats per token ({_span(window)}); in the first "
        f"{n} steps it was {start:.3f}."
    )
    return _finding("kl_runaway", sentence, window, window.evidence("longest"))


def _entropy(steps: Sequence[StepFacts], n: int, window: Window) -> Finding | None:
    known = [(step.step, step.entropy) for step in steps if step.entropy is not None]
    if len(known) < n:
        return None
    start, last = (statistics.median(e for _, e in part) for part in (known[:n], known[-n:]))
    recent = Window(tuple(step for step in steps if step.step >= known[-n][0]))
    told = f"entropy has its median at {last:.3f} nats per token ({_span(recent)}), at first it was {start:.3f}"
    if last >= start + ENTROPY_RISE:
        return _finding("entropy_runaway", f"{told}.", recent, recent.evidence("longest"))
    if last <= ENTROPY_LEFT * start and window.share("n_spread", "n_groups") <= 1 - ALL and not _is_cut_off(window):
        groups = window.count("n_groups")
        sentence = f"{told}, and {window.count('n_spread'):,} of {groups:,} groups differ in reward."
        return _finding("entropy_collapse", sentence, window, window.evidence("alike"))
    return None


def _hacking(steps: Sequence[StepFacts], first: Window, last: Window) -> Finding | None:
    """The reward rose, and held-out accuracy fell: by what?"""
    measured = [step for step in steps if step.held_out]
    if len(measured) < 2 or first.steps[-1].step >= last.steps[0].step:
        return None
    before, now = measured[0].held_out or "", measured[-1].held_out or ""
    lost = sum(b == "1" and a == "0" for b, a in zip(before, now, strict=True))
    won = sum(b == "0" and a == "1" for b, a in zip(before, now, strict=True))
    if lost <= won or mcnemar(lost, won).p > HELD_OUT_P or not _rose(first, last):
        return None
    name, how = _what_rose(first, last)
    sentence = (
        f"reward rose from {_mean_reward(first):.3f} to {_mean_reward(last):.3f} while accuracy on {len(now)} held-out "
        f"cases fell from {before.count('1') / len(before):.0%} to {now.count('1') / len(now):.0%} (step "
        f"{measured[-1].step}): {how}."
    )
    kind = {"hacking_repetition": "repetitive", "hacking_length": "longest"}.get(name, "best_paid_wrong")
    return _finding(name, sentence, last, last.evidence(kind))


def _mean_reward(window: Window) -> float:
    return statistics.fmean(batch.reward for batch in window.batches if batch.reward is not None)


def _rose(first: Window, last: Window) -> bool:
    """Whether the mean reward is higher by more than two standard errors, steps taken as units."""
    a, b = ([batch.reward for batch in w.batches if batch.reward is not None] for w in (first, last))
    if len(a) < 2 or len(b) < 2:
        return False
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return statistics.fmean(b) - statistics.fmean(a) > max(2 * error, SAME)


def _what_rose(first: Window, last: Window) -> tuple[str, str]:
    """(finding, in words)."""
    repetition = (first.mean("repetition"), last.mean("repetition"))
    tokens = (first.mean("tokens"), last.mean("tokens"))
    right = (first.share("n_correct", "n_rated"), last.share("n_correct", "n_rated"))
    if repetition[1] - repetition[0] >= MORE_REPETITION:
        return "hacking_repetition", f"repeated word 4-grams went from {repetition[0]:.0%} to {repetition[1]:.0%}"
    if tokens[1] >= LONGER * tokens[0]:
        return "hacking_length", f"completions went from {tokens[0]:.0f} to {tokens[1]:.0f} tokens"
    if right[1] <= right[0] + 0.01:
        rises = {name: _term_mean(last, name) - _term_mean(first, name) for name in first.batches[0].terms}
        most = max(rises, key=lambda name: rises[name])
        return "hacking_format", (
            f"the share of right answers went from {right[0]:.0%} to {right[1]:.0%}, what rose is `{most}` "
            f"({rises[most]:+.3f})"
        )
    return "overfitting", f"on training cases the share of right answers rose from {right[0]:.0%} to {right[1]:.0%}"


def _term_mean(window: Window, name: str) -> float:
    known = [batch.terms[name].mean for batch in window.batches if batch.terms[name].n]
    return statistics.fmean(known) if known else 0.0


# --- over a run -------------------------------------------------------------------------------------------------------


class Doctor:
    """Remembers the steps and what was named. Its `state` lies in checkpoints, so that a resumed run says the same."""

    def __init__(
        self,
        shape: RewardShape,
        *,
        window_steps: int = 5,
        window_groups: int = 32,
        steps: Iterable[StepFacts] = (),
        findings: Iterable[Finding] = (),
    ) -> None:
        """`steps`, `findings`: what an interrupted run had seen."""
        self.shape, self.window_steps, self.window_groups = shape, window_steps, window_groups
        self.steps = list(steps)
        self.findings = list(findings)

    def observe(self, step: StepFacts) -> list[Finding]:
        """Takes one more step; returns what is named now for the first time."""
        self.steps.append(step)
        seen = diagnose(self.steps, self.shape, window_steps=self.window_steps, window_groups=self.window_groups)
        self._forget_old_evidence()
        new = []
        for finding in seen:
            key = (finding.name, finding.subject)
            known = next((i for i, f in enumerate(self.findings) if (f.name, f.subject) == key), None)
            if known is not None:
                self.findings[known] = replace(self.findings[known], last_step=step.step)
            elif not any(self._explains(cause, finding) for cause in self.findings):
                new.append(finding)
        self.findings += new
        self.findings = [self._with_cause(finding) for finding in self.findings]
        return [finding for finding in new if finding in self.findings]

    @property
    def causes(self) -> list[Finding]:
        """The findings that no other explains."""
        return [finding for finding in self.findings if finding.explained_by is None]

    def _explains(self, cause: Finding, symptom: Finding) -> bool:
        if symptom.name not in EXPLAINS.get(cause.name, ()):
            return False
        overlap = cause.last_step >= symptom.since_step and cause.since_step <= symptom.last_step
        if cause.name in MEASURED_LATE:  # told after what follows from it, but not the cause of what always was
            return overlap and symptom.since_step > 1
        return overlap and cause.named_step <= symptom.named_step + self.window_steps

    def _with_cause(self, finding: Finding) -> Finding:
        cause = next((f.name for f in self.findings if f.explained_by is None and self._explains(f, finding)), None)
        return replace(finding, explained_by=finding.explained_by or cause)

    def _forget_old_evidence(self) -> None:
        """Evidence is read from the last window only; texts of a long run would fill the checkpoints."""
        for i in range(len(self.steps) - 1, -1, -1):
            groups = sum(step.batch.n_groups for step in self.steps[i:] if step.batch)
            if len(self.steps) - i > self.window_steps and groups > self.window_groups:
                batch = self.steps[i].batch
                if batch is not None:
                    self.steps[i] = replace(self.steps[i], batch=replace(batch, evidence={}))
                break

    def state(self) -> dict[str, Any]:
        """Everything it knows, as JSON."""
        return {"steps": [asdict(step) for step in self.steps], "findings": [asdict(f) for f in self.findings]}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], shape: RewardShape, *, window_steps: int, window_groups: int
    ) -> Doctor:
        """The doctor that `state` was taken from."""
        return cls(
            shape,
            window_steps=window_steps,
            window_groups=window_groups,
            steps=map(_step_from_json, state["steps"]),
            findings=[Finding(**{**f, "evidence": _evidence_from_json(f["evidence"])}) for f in state["findings"]],
        )


def _evidence_from_json(rows: Iterable[Mapping[str, Any]]) -> tuple[Evidence, ...]:
    return tuple(Evidence(**row) for row in rows)


def _step_from_json(row: Mapping[str, Any]) -> StepFacts:
    batch = row["batch"]
    if batch is not None:
        batch = BatchFacts(
            **{
                **batch,
                "terms": {name: TermFacts(**facts) for name, facts in batch["terms"].items()},
                "evidence": {kind: _evidence_from_json(rows) for kind, rows in batch["evidence"].items()},
            }
        )
    return StepFacts(**{**row, "batch": batch, "not_finite": tuple(row["not_finite"])})
