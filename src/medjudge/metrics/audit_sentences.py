"""The audit in plain words: what the rows could show, and what generators, confidences and comparisons do show.

Whether two judges differ is said in one place, `sentences`; here is what the rows could have shown. `claims` decides
what is claimed of generators, confidences and families. Each sentence comes with the names of the judges it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from medjudge.metrics.claims import PREVALENCE, find_claim
from medjudge.metrics.result_types import (
    Audit,
    CalibrationResult,
    Claim,
    CorrectionResult,
    GeneratorResult,
    HeterogeneityResult,
    JudgeAudit,
    PairResult,
    PowerResult,
    SelfPreferenceResult,
)
from medjudge.metrics.wording import counted, p_value, percent, with_ends

RATES = {
    "prevalence": "share of gold positives",
    "accuracy": "accuracy",
    "tpr": "sensitivity",
    "tnr": "specificity",
    "answered": "share of answered cases",
}


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, and the judges that it speaks of; none where it speaks of the rows alone."""

    text: str
    about: tuple[str, ...] = ()


def audit_statements(audit: Audit, claims: Sequence[Claim], chance: Mapping[str, float]) -> list[Statement]:
    """The sentences, most important first. claims: what the page may claim. chance: judge -> its chance accuracy;
    those named there are spoken of."""
    judged = {name: audit.judges[name] for name in chance}
    statements = [Statement(pair_sentence(pair), (pair.a, pair.b)) for pair in audit.pairs]
    statements += [
        Statement(power_sentence(name, judge.power, chance[name]), (name,)) for name, judge in judged.items()
    ]
    statements += _of_generators(judged, claims)
    for name, judge in judged.items():
        if judge.self_preference is not None:
            claim = find_claim(claims, "self-preference", (name,), "positive_rate_error")
            statements.append(Statement(self_preference_sentence(name, judge.self_preference, claim), (name,)))
        if judge.calibration is not None:
            ece = find_claim(claims, "calibration", (name,), "ece")
            direction = find_claim(claims, "calibration", (name,), "direction")
            statements.append(Statement(calibration_sentence(name, judge.calibration, ece, direction), (name,)))
        if judge.correction is not None:
            statements.append(Statement(correction_sentence(name, judge.correction), (name,)))
    return statements


def pair_sentence(pair: PairResult) -> str:
    """What a comparison of two judges could have shown."""
    return f"{pair.a} and {pair.b} on {counted(pair.n, 'shared case')}: {_reach(pair.power)}"


def _reach(power: PowerResult) -> str:
    """What a comparison of two judges could have shown."""
    if power.minimum_detectable is None:
        return "they disagree on too few rows for any difference to be detected with 80 % power."
    return f"these rows detect differences from {100 * power.minimum_detectable:.1f} points with 80 % power."


def power_sentence(name: str, power: PowerResult, chance: float) -> str:
    """What the rows could show of a judge's distance from chance."""
    grouped = f" (effective number {power.n / power.design_effect:,.0f})" if power.design_effect > 1.005 else ""
    start = f"{name}: with {counted(power.n, 'row')}{grouped},"
    if power.minimum_detectable is None:
        return f"{start} no accuracy is told from chance ({percent(chance)}) with 80 % power."
    least = percent(chance + power.minimum_detectable)
    return f"{start} an accuracy of {least} or more is told from chance ({percent(chance)}) with 80 % power."


def _of_generators(judges: Mapping[str, JudgeAudit], claims: Sequence[Claim]) -> list[Statement]:
    """Prevalence, which no judge changes, once; the rest by judge."""
    sentences = []
    first = next((judge for judge in judges.values() if judge.generators), None)
    if first is not None:
        sentences += [Statement(line) for line in _prevalence(first.generators)]
        sentences += [
            Statement(heterogeneity_sentence("", rate, find_claim(claims, "heterogeneity", (), PREVALENCE)))
            for rate in first.heterogeneity
            if rate.outcome == PREVALENCE
        ]
    for name, judge in judges.items():
        sentences += [
            Statement(
                heterogeneity_sentence(name, rate, find_claim(claims, "heterogeneity", (name,), rate.outcome)),
                (name,),
            )
            for rate in judge.heterogeneity
            if rate.outcome != PREVALENCE
        ]
    return sentences


def _prevalence(rows: Iterable[GeneratorResult]) -> list[str]:
    f1 = [row.always_positive_f1 for row in rows if row.always_positive_f1 is not None]
    if len(f1) < 2 or max(f1) - min(f1) < 0.005:
        return []
    return [
        f"On these rows calling every answer positive has an F1 from {min(f1):.2f} to {max(f1):.2f}, depending on the "
        "generator: it follows the share of gold positives, whether that differs by chance or not."
    ]


def heterogeneity_sentence(name: str, rate_test: HeterogeneityResult, claim: Claim | None) -> str:
    """Whether a rate differs between generators, with how much of the spread sampling explains."""
    low, high = (
        min(rate_test.rates, key=rate_test.rates.__getitem__),
        max(rate_test.rates, key=rate_test.rates.__getitem__),
    )
    rate = RATES[rate_test.outcome] + (" on answered cases" if rate_test.answered_only else "")
    whose = f"{name}'s {rate}" if name else rate.capitalize()
    if rate_test.rates[low] == rate_test.rates[high]:
        return f"{whose} is the same for all generators: {percent(rate_test.rates[low])} (n = {rate_test.n:,})."
    span = f"{percent(rate_test.rates[low])} ({low}) to {percent(rate_test.rates[high])} ({high})"
    test = f"{rate_test.method}, {_p(claim)}n = {rate_test.n:,}"
    spread = (
        f"standard deviation {100 * rate_test.sd:.1f} points, {100 * rate_test.sampling_sd:.1f} expected from sampling"
    )
    if claim is not None and claim.claimed:
        return f"{whose} differs between generators: {span}; {spread} ({test})."
    return f"{whose} is not shown to differ between generators: {span}; {spread} ({test})."


def self_preference_sentence(name: str, preference: SelfPreferenceResult, claim: Claim | None) -> str:
    """Whether a judge favours its own family, as far as the test supports it."""
    gap = preference.positive_rate_error
    if gap.value is None or claim is None or claim.p is None:
        return f"{name}: a preference for its own family ({preference.family}) cannot be estimated from these rows."
    interval = "" if gap.low is None or gap.high is None else f" ({100 * gap.low:.1f} to {100 * gap.high:.1f})"
    ends = f"{100 * gap.value:+.1f} points{interval}, {_p(claim)}n = {gap.n:,}"
    if not claim.claimed:
        return f"{name} is not shown to favour its own family ({preference.family}): {ends}."
    if gap.value > 0:
        return (
            f"{name} favours its own family ({preference.family}): it calls more of that family's answers positive "
            f"than the experts do, compared with others' answers, {ends}."
        )
    return (
        f"{name} disfavours its own family ({preference.family}): it calls fewer of that family's answers positive "
        f"than the experts do, compared with others' answers, {ends}."
    )


def calibration_sentence(name: str, calibration: CalibrationResult, ece: Claim | None, direction: Claim | None) -> str:
    """Over- or underconfident, by how much, and whether ECE is above what a calibrated judge would show.

    ece, direction: the tests of being calibrated in every bin, and of mean confidence against the share right.
    """
    means = f"mean confidence {percent(calibration.mean_confidence)}, right {percent(calibration.accuracy)}"
    means += f", {_p(direction)}n = {calibration.n:,}"
    without = ""
    if calibration.n_without:
        n_verdicts = calibration.n + calibration.n_without
        are = "verdict has" if calibration.n_without == 1 else "verdicts have"
        without = f"; {calibration.n_without:,} of {n_verdicts:,} {are} no confidence and take no part"
    if not calibration.varies:
        detail = f"{means}; all confidences are equal, so they cannot rank verdicts{without}"
    else:
        detail = (
            f"{means}; ECE {calibration.ece:.3f} ({calibration.ece_if_calibrated:.3f} expected of a calibrated judge"
            f"{'' if ece is None or ece.adjusted_p is None else f'; {p_value(ece.adjusted_p)}'}){without}"
        )
    if direction is not None and direction.claimed:
        word = "overconfident" if calibration.mean_confidence > calibration.accuracy else "underconfident"
    elif ece is not None and ece.claimed:
        word = "miscalibrated, not shown to be so in one direction"
    else:
        return f"{name} is not shown to be miscalibrated: {detail}."
    return f"{name} is {word}: {detail}."


def _p(claim: Claim | None) -> str:
    """The corrected p, with a comma for what follows; empty where there is none."""
    return "" if claim is None or claim.adjusted_p is None else f"{p_value(claim.adjusted_p)}, "


def correction_sentence(name: str, correction: CorrectionResult) -> str:
    """The judged pass rate of the unrated cases, and what it is likely to be."""
    return (
        f"{name} calls {percent(correction.judged.value)} of {counted(correction.n_unrated, 'case')} without an expert "
        f"label positive. Corrected by its errors on {counted(correction.n_rated, 'rated case')}: "
        f"{with_ends(correction.rogan_gladen)} by Rogan-Gladen, if its error rates are the same there; "
        f"{with_ends(correction.prediction_powered)} by prediction-powered inference, if the rated cases are a random "
        f"sample. The rated cases alone: {with_ends(correction.gold)}."
    )
