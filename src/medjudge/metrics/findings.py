"""The audit in plain words: what the rows could show, and what generators, confidences and comparisons do show.

Whether two judges differ is said in one place, `statements`, by one rule; here stands what the rows could have shown.
Each sentence names the judges that it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.stats import norm

from medjudge.metrics.statements import counted, p_value, percent

if TYPE_CHECKING:
    from medjudge.metrics.audit import (
        Audit,
        CalibrationResult,
        CorrectionResult,
        GeneratorResult,
        HeterogeneityResult,
        JudgeAudit,
        PairResult,
        PowerResult,
        SelfPreferenceResult,
    )
    from medjudge.metrics.measured import MetricResult

RATES = {
    "prevalence": "the share of gold positives",
    "accuracy": "accuracy",
    "tpr": "sensitivity",
    "tnr": "specificity",
    "answered": "share of answered cases",
}
PREVALENCE = "prevalence"
ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence, and the judges that it speaks of; none where it speaks of the rows alone."""

    text: str
    about: tuple[str, ...] = ()


def of_audit(audit: Audit, chance: Mapping[str, float], level: float) -> list[Finding]:
    """The sentences, most important first. chance: judge -> its chance accuracy; those named there are spoken of."""
    alpha = 1 - level
    judged = {name: audit.judges[name] for name in chance}
    found = [Finding(pair_sentence(pair), (pair.a, pair.b)) for pair in audit.pairs]
    found += [Finding(power_sentence(name, judge.power, chance[name]), (name,)) for name, judge in judged.items()]
    found += _of_generators(judged, alpha)
    for name, judge in judged.items():
        if judge.self_preference is not None:
            found.append(Finding(self_preference_sentence(name, judge.self_preference), (name,)))
        if judge.calibration is not None:
            found.append(Finding(calibration_sentence(name, judge.calibration, alpha), (name,)))
        if judge.correction is not None:
            found.append(Finding(correction_sentence(name, judge.correction), (name,)))
    return found


def pair_sentence(pair: PairResult) -> str:
    """What a comparison of two judges could have shown."""
    return f"{pair.a} and {pair.b} on {counted(pair.n, 'shared case')}: {_reach(pair.power)}"


def _reach(power: PowerResult) -> str:
    """What a comparison of two judges could have shown."""
    if power.minimum_detectable is None:
        could = "they disagree on too few rows for any difference to be detected with 80 % power"
    else:
        could = f"these rows detect differences from {100 * power.minimum_detectable:.1f} points with 80 % power"
    if power.rows_needed is None:
        return f"{could}."
    return (
        f"{could}; {counted(power.rows_needed, 'row')} would be needed to detect the {100 * abs(power.effect):.1f} "
        "seen."
    )


def power_sentence(name: str, power: PowerResult, chance: float) -> str:
    """What the rows could show of a judge's distance from chance."""
    grouped = f", which count as {power.n / power.design_effect:,.0f}," if power.design_effect > 1.005 else ""
    if power.minimum_detectable is None:
        could = "detect no distance from chance with 80 % power"
    else:
        could = (
            f"detect an accuracy of {percent(chance + power.minimum_detectable)} or more against chance "
            f"({percent(chance)}) with 80 % power"
        )
    sentence = f"{name}: {counted(power.n, 'row')}{grouped} {could}"
    too_few = power.rows_needed is not None and power.rows_needed > power.n
    if not too_few:
        return f"{sentence}."
    return (
        f"{sentence}; {counted(power.rows_needed or 0, 'row')} would be needed to detect the "
        f"{100 * abs(power.effect):.1f} points seen."
    )


def _of_generators(judges: Mapping[str, JudgeAudit], alpha: float) -> list[Finding]:
    """Prevalence, which no judge changes, once; the rest by judge."""
    sentences = []
    first = next((judge for judge in judges.values() if judge.generators), None)
    if first is not None:
        sentences += [Finding(line) for line in _prevalence(first.generators)]
        sentences += [
            Finding(heterogeneity_sentence("", found, alpha))
            for found in first.heterogeneity
            if found.outcome == PREVALENCE
        ]
    for name, judge in judges.items():
        sentences += [
            Finding(heterogeneity_sentence(name, found, alpha), (name,))
            for found in judge.heterogeneity
            if found.outcome != PREVALENCE
        ]
    return sentences


def _prevalence(rows: Iterable[GeneratorResult]) -> list[str]:
    f1 = [row.always_positive_f1 for row in rows if row.always_positive_f1 is not None]
    if len(f1) < 2:
        return []
    return [
        f"Calling every answer positive has an F1 from {min(f1):.2f} to {max(f1):.2f}, depending on the generator: "
        "F1 compared between generators compares how often they are right before it compares judges."
    ]


def heterogeneity_sentence(name: str, found: HeterogeneityResult, alpha: float) -> str:
    """Whether a rate differs between generators, with how much of the spread sampling explains."""
    low, high = min(found.rates, key=found.rates.__getitem__), max(found.rates, key=found.rates.__getitem__)
    rate = RATES[found.outcome] + (" on answered cases" if found.answered_only else "")
    whose = f"{name}'s {rate}" if name else rate.capitalize()
    span = f"{percent(found.rates[low])} ({low}) to {percent(found.rates[high])} ({high})"
    test = f"{found.method}, {p_value(found.p)}, n = {found.n:,}"
    spread = f"standard deviation {100 * found.sd:.1f} points, from sampling alone {100 * found.sampling_sd:.1f}"
    if found.p < alpha:
        return f"{whose} differs between generators: {span}; {spread} ({test})."
    return f"{whose} is not shown to differ between generators: {span}; {spread} ({test})."


def self_preference_sentence(name: str, found: SelfPreferenceResult) -> str:
    """Whether a judge favours its own family, as far as the interval supports it."""
    gap = found.positive_rate_error
    if gap.value is None or gap.low is None or gap.high is None:
        return f"{name}: whether it favours its own family ({found.family}) cannot be said from these rows."
    ends = f"{100 * gap.value:+.1f} points ({100 * gap.low:.1f} to {100 * gap.high:.1f}), n = {gap.n:,}"
    if gap.low > 0:
        return (
            f"{name} is more generous to its own family ({found.family}) than to others, against the experts: {ends}."
        )
    if gap.high < 0:
        return f"{name} is stricter with its own family ({found.family}) than with others, against the experts: {ends}."
    return f"{name} is not shown to favour its own family ({found.family}): {ends}."


def calibration_sentence(name: str, found: CalibrationResult, alpha: float) -> str:
    """Over- or underconfident, by how much, and whether ECE is above what a calibrated judge would show.

    The direction by a normal approximation that takes rows as independent.
    """
    gap = found.mean_confidence - found.accuracy
    means = f"mean confidence {percent(found.mean_confidence)}, right {percent(found.accuracy)}, n = {found.n:,}"
    ece = (
        f"ECE {found.ece:.3f}, where a calibrated judge would show {found.ece_if_calibrated:.3f} on as many rows "
        f"({p_value(found.calibrated_p)})"
    )
    if found.calibrated_p >= alpha:
        return f"{name}'s confidences are not shown to be off: {means}; {ece}."
    # Which way, only where the mean is off by more than the share of right answers is uncertain.
    margin = norm.isf(alpha / 2) * (found.accuracy * (1 - found.accuracy) / found.n) ** 0.5
    word = (
        "overconfident" if gap > margin else "underconfident" if gap < -margin else "miscalibrated, neither way overall"
    )
    return f"{name} is {word}: {means}; {ece}."


def correction_sentence(name: str, found: CorrectionResult) -> str:
    """The judged pass rate of the unrated cases, and what it is likely to be."""
    return (
        f"On {counted(found.n_unrated, 'case')} without an expert label {name} calls {percent(found.judged.value)} "
        f"positive. Corrected by its errors on {counted(found.n_rated, 'rated case')}: "
        f"{_estimate(found.rogan_gladen)} by Rogan-Gladen, if its errors are the same there; "
        f"{_estimate(found.prediction_powered)} by prediction-powered inference, if the rated cases are a random "
        f"sample; the rated cases alone say {_estimate(found.gold)}."
    )


def _estimate(metric: MetricResult) -> str:
    if metric.low is None or metric.high is None:
        return percent(metric.value)
    return f"{percent(metric.value)} ({100 * metric.low:.1f} to {100 * metric.high:.1f})"
