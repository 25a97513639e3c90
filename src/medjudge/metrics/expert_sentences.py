"""Several experts per case in plain words; `claims` decides what is claimed of a judge beside them."""

from __future__ import annotations

from medjudge.metrics.claims import find_claim
from medjudge.metrics.expert_results import AlternativeAnnotator, ExpertsResult, JudgeBesideExperts
from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.result_types import Claim, Results
from medjudge.metrics.wording import counted, p_value, percent, with_ends


def expert_sentences(results: Results) -> list[str]:
    """How far experts agree, then each judge beside them; nothing where no case has two ratings."""
    experts = results.experts
    if experts is None:
        return []
    sentences = [_agreement(experts)]
    for name, judge in experts.judges.items():
        sentences.append(_beside(name, judge, find_claim(results.claims, "ceiling", (name,), "accuracy")))
    for name, one in experts.alternative.items():
        sentences.append(_alternative(name, one, find_claim(results.claims, "annotators", (name,), "winning_rate")))
    by_reason: dict[str, list[str]] = {}
    for name, reason in experts.not_tested.items():
        by_reason.setdefault(reason, []).append(name)
    return sentences + [
        f"The alternative annotator test was not made of {', '.join(names)}: {reason}."
        for reason, names in by_reason.items()
    ]


def _agreement(experts: ExpertsResult) -> str:
    alpha = experts.agreement.get("alpha_ordinal") or experts.agreement["alpha_nominal"]
    ceiling = None if experts.ceiling is None else experts.ceiling.statistics["accuracy"]
    human = (
        "no expert can be compared with a majority of others"
        if ceiling is None
        else f"an expert gives the majority label of the others in {with_ends(ceiling)}"
    )
    tied = f"; {counted(experts.n_tied, 'case')} without a label are left out of accuracy" if experts.n_tied else ""
    return (
        f"Human ceiling: {counted(experts.n_raters, 'expert')} rated {counted(experts.n_cases, 'case')} twice or more; "
        f"{human}; pairs of ratings are equal in {with_ends(experts.agreement['percent'])}, Krippendorff's alpha "
        f"{_coefficient(alpha)}{tied}."
    )


def _coefficient(metric: MetricResult) -> str:
    if metric.value is None:
        return "undefined"
    ends = "" if metric.low is None or metric.high is None else f" ({metric.low:.3f} to {metric.high:.3f})"
    return f"{metric.value:.3f}{ends}"


def _beside(name: str, judge: JudgeBesideExperts, claim: Claim | None) -> str:
    own, human = percent(judge.statistics["accuracy"].value), percent(judge.ceiling.value)
    points = judge.difference
    ends = "" if points.low is None or points.high is None else f"{points.low:.1f} to {points.high:.1f}, "
    p = "" if claim is None or claim.adjusted_p is None else f"{p_value(claim.adjusted_p)}, "
    detail = f"{points.value or 0.0:+.1f} points ({ends}{p}n = {judge.n:,})"
    shares = f"it gives the majority label of the other experts in {own}, an expert in {human}"
    if claim is None or not claim.claimed:
        return f"{name} is not distinguishable from an expert: {shares}, {detail}."
    side = "below" if (points.value or 0.0) < 0 else "above"
    return f"{name} is {side} the human ceiling: {shares}, {detail}."


def _alternative(name: str, one: AlternativeAnnotator, claim: Claim | None) -> str:
    p = "" if claim is None or claim.adjusted_p is None else f", {p_value(claim.adjusted_p)}"
    detail = (
        f"winning rate {one.winning_rate:.2f} of {counted(len(one.annotators), 'expert')}, advantage probability "
        f"{one.advantage.value or 0.0:.2f}, epsilon {one.epsilon:g}{p}"
    )
    if may_replace(one, claim):
        return f"By the alternative annotator test {name} may take the place of an expert: {detail}."
    return f"The alternative annotator test does not show that {name} may take the place of an expert: {detail}."


def may_replace(one: AlternativeAnnotator, claim: Claim | None) -> bool:
    """Whether a page may say so: by the winning rate, and by its test under the correction of the page."""
    return one.winning_rate >= 0.5 and claim is not None and claim.claimed
