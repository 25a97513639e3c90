"""What a window of steps shows: one pure function per finding, from a few numbers per step. No torch.

A finding is never drawn from one step. It needs `window_steps` steps that together hold `window_groups` groups: where
none of 32 groups differs in reward, at most 9 % of all groups do (rule of three, 3/n), and that a healthy run with half
of its groups alike shows such a window has probability 2e-10.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medjudge.diagnostics.observation import (
    ALL,
    SAME,
    Evidence,
    StepFacts,
    Window,
    common_prefix,
    other_label,
    shown,
)
from medjudge.diagnostics.signs import EXPLAINS, SIGNS, Severity
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
    findings: list[Finding] = []
    if (broken := _not_finite(steps)) is not None:
        findings.append(broken)
    window = _last_window(steps, window_steps, window_groups)
    if window is not None:
        first = _first_window(steps, window_steps, window_groups)
        findings += [
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
    names = {finding.name for finding in findings}
    explained = {symptom for name in names for symptom in EXPLAINS.get(name, ())}
    return [finding for finding in findings if finding.name not in explained]


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
    # 0.8: a few unreadable answers happen to be long as well.
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
    sentences = [
        f"`{label}` is the experts' label in {n_given:,} of {window.count('n_groups'):,} groups, and "
        f"{answers[label]:,} of {n:,} completions give it ({at_first.tally('answers')[label]:,} of "
        f"{at_first.count('n'):,} at first)"
        for label, n_given in lost.items()
    ]
    evidence = window.evidence(other_label(next(iter(lost))))
    return _finding("label_lost", f"{_span(window)}: {'; '.join(sentences)}.", window, evidence)


def _zero_gradient(window: Window) -> Finding | None:
    """Every step with spread in the window brought no gradient, or no advantage."""
    with_spread = [step for step in window.steps if step.batch is not None and step.batch.n_spread]
    norms = [step.grad_norm for step in with_spread if step.grad_norm is not None]
    n_spread = window.count("n_spread")
    if len(with_spread) < len(window.batches) / 2 or n_spread < 3 or _is_cut_off(window):
        return None
    if all(step.batch is not None and step.batch.n_advantages == 0 for step in with_spread):
        why = "every advantage is 0 all the same: it is lost between reward and advantage"
    elif len(norms) == len(with_spread) and all(norm <= NO_GRADIENT for norm in norms):
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
    change = f"entropy has its median at {last:.3f} nats per token ({_span(recent)}), at first it was {start:.3f}"
    if last >= start + ENTROPY_RISE:
        return _finding("entropy_runaway", f"{change}.", recent, recent.evidence("longest"))
    if last <= ENTROPY_LEFT * start and window.share("n_spread", "n_groups") <= 1 - ALL and not _is_cut_off(window):
        groups = window.count("n_groups")
        sentence = f"{change}, and {window.count('n_spread'):,} of {groups:,} groups differ in reward."
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
    # Paired by case: the same cases were judged before and now, so only those that changed count.
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
