"""Judges that give numbers in plain words; `claims` decides what is claimed of them."""

from __future__ import annotations

from medjudge.metrics.claims import AUC, PROBABILITY, find_claim
from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.result_types import Claim, Results
from medjudge.metrics.score_results import AucDifference, ProbabilityResult, ScoreResult
from medjudge.metrics.wording import p_value, percent


def score_sentences(results: Results) -> list[str]:
    """Ranking, probabilities, differences and agreement of numbers; nothing where judges give labels."""
    scores = results.scores
    if scores is None:
        return []
    sentences = []
    for name, judge in scores.judges.items():
        if judge.auc is not None and judge.auc.value is not None:
            sentences.append(_auc(name, judge, judge.auc, find_claim(results.claims, "chance", (name,), AUC)))
        if judge.probabilities is not None:
            claim = find_claim(results.claims, "calibration", (name,), PROBABILITY)
            sentences.append(_probabilities(name, judge.probabilities, claim))
        if judge.bland_altman is not None:
            sentences.append(_numbers(name, judge))
        if judge.n_without:
            sentences.append(f"{name}: {judge.n_without:,} cases without a score take no part in AUC and correlations.")
    return sentences + [
        _difference(one, find_claim(results.claims, "difference", (one.a, one.b), AUC)) for one in scores.differences
    ]


def _ends(metric: MetricResult) -> str:
    if metric.value is None:
        return "undefined"
    ends = "" if metric.low is None or metric.high is None else f" ({metric.low:.3f} to {metric.high:.3f})"
    return f"{metric.value:.3f}{ends}"


def _p(claim: Claim | None) -> str:
    return "" if claim is None or claim.adjusted_p is None else f"{p_value(claim.adjusted_p)}, "


def _auc(name: str, judge: ScoreResult, auc: MetricResult, claim: Claim | None) -> str:
    if claim is None or not claim.claimed:
        place = "is not distinguishable from chance (.5)"
    else:
        place = f"is {'above' if (auc.value or 0.0) > 0.5 else 'below'} chance (.5)"
    precision = ""
    if judge.average_precision is not None and judge.prevalence is not None:
        precision = f"; average precision {_ends(judge.average_precision)}, {judge.prevalence:.3f} by chance"
    return f"The AUC of {name}, {_ends(auc)}, {place}, {_p(claim)}n = {judge.n:,}{precision}."


def _probabilities(name: str, one: ProbabilityResult, claim: Claim | None) -> str:
    detail = (
        f"mean {percent(one.mean)}, positive by the experts {percent(one.share)}, {_p(claim)}n = {one.n:,}; ECE "
        f"{one.ece:.3f} ({one.ece_if_calibrated:.3f} expected of calibrated ones), Brier score {_ends(one.brier)}"
    )
    if claim is None or not claim.claimed:
        return f"The probabilities of {name} are not shown to be too high or too low: {detail}."
    return f"The probabilities of {name} are too {'high' if one.mean > one.share else 'low'}: {detail}."


def _numbers(name: str, judge: ScoreResult) -> str:
    limits = judge.bland_altman
    assert limits is not None
    rank = judge.correlations.get("spearman")
    same = judge.correlations.get("icc_2_1")
    both = "".join(
        f"{title} {_ends(metric)}, " for title, metric in (("Spearman's rho", rank), ("ICC(2,1)", same)) if metric
    )
    return (
        f"{name} and the experts' numbers: {both}mean difference {_ends(limits.mean)}, limits of agreement "
        f"{_ends(limits.lower)} and {_ends(limits.upper)}, n = {limits.n:,}. No test is made of these."
    )


def _difference(one: AucDifference, claim: Claim | None) -> str:
    detail = f"{_ends(one.difference)}, {_p(claim)}n = {one.n:,}"
    if claim is None or not claim.claimed:
        return f"The AUC of {one.a} is not distinguishable from that of {one.b}: difference {detail}."
    side = "higher" if (one.difference.value or 0.0) > 0 else "lower"
    return f"The AUC of {one.a} is {side} than that of {one.b}: difference {detail}."
