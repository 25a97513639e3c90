"""Judges that give numbers: how well they rank, whether they are probabilities, and how near to the experts' numbers.

Everything here takes the cases with an expert label and a score, and counts groups of cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.metrics.agreement import icc
from medjudge.metrics.calibration import calibration_measures
from medjudge.metrics.classification import due_cases
from medjudge.metrics.comparison import DIFFERENCE, difference_interval
from medjudge.metrics.group_tests import right_as_stated, sign_test_floor
from medjudge.metrics.intervals import (
    BOOTSTRAP,
    JACKKNIFE,
    Estimate,
    bootstrap_rows,
    jackknife_interval,
    jackknife_rows,
    leave_one_out,
)
from medjudge.metrics.metric_result import MetricResult, TestResult, measured, tested
from medjudge.metrics.score_results import (
    AucDifference,
    BlandAltmanResult,
    CurveBin,
    ProbabilityResult,
    ScoreKind,
    ScoreResult,
    ScoresResult,
    ThresholdResult,
)
from medjudge.records import Case, Judgement, Verdict
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.scale import LabelScale

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Statistic = Callable[[FloatArray], FloatArray]
"""(m, n) row weights -> (m,) values, nan where undefined."""

JACKKNIFE_T = "t of the jackknife over groups"
RANGES: dict[ScoreKind, tuple[float, float]] = {
    "probability": (0.0, 1.0),
    "percent": (0.0, 100.0),
    "logit": (-np.inf, np.inf),
    "number": (-np.inf, np.inf),
}
LIMIT = 1.96
"""Standard deviations to either side of the mean difference, between which 95 % of normal differences lie."""
N_POINTS = 400
N_ROC = 100


@dataclass(frozen=True, slots=True)
class ScoredCases:
    """What is known of the scores beside the verdicts."""

    kind: ScoreKind
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Case id -> the expert's number."""
    thresholds: Mapping[str, ThresholdResult] = field(default_factory=dict)
    """By judge."""
    rule: str | None = None
    n_calibration: int = 0
    n_calibration_groups: int = 0


@dataclass(frozen=True, slots=True)
class _Rows:
    """One judge's scores on the cases with an expert label."""

    ids: tuple[str, ...]
    score: FloatArray
    positive: BoolArray | None
    number: FloatArray
    """nan where the expert gave none."""
    groups: NDArray[np.int64]


def scores_result(
    cases: Sequence[Case],
    judgements: Mapping[str, Sequence[Judgement]],
    scored: ScoredCases,
    *,
    contract: TaskContract | LabelScale,
    level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 42,
) -> ScoresResult:
    """The numbers of every judge that gave scores, and AUC compared in pairs. Verdicts without a score take no part."""
    rated = {case.case_id: case for case in cases if case.gold is not None}
    codes: dict[str, int] = {}
    group = {
        case_id: codes.setdefault(f"group {case.group}" if case.group else f"case {case_id}", len(codes))
        for case_id, case in rated.items()
    }
    due = due_cases(rated.keys(), {name: {one.case_id for one in answers} for name, answers in judgements.items()})
    judges: dict[str, ScoreResult] = {}
    rows_of: dict[str, _Rows] = {}
    for name, answers in judgements.items():
        given = {
            one.case_id: one.score
            for one in answers
            if isinstance(one, Verdict) and one.score is not None and one.case_id in rated
        }
        if not given:
            continue
        ids = tuple(given)
        positive = None
        if contract.positive is not None:
            positive = np.array([rated[case_id].gold == contract.positive for case_id in ids])
        rows_of[name] = rows = _Rows(
            ids,
            np.array(list(given.values()), dtype=np.float64),
            positive,
            np.array([scored.numbers.get(case_id, np.nan) for case_id in ids], dtype=np.float64),
            np.array([group[case_id] for case_id in ids], dtype=np.int64),
        )
        sampling: dict[str, Any] = {"level": level, "n_resamples": n_resamples, "rng": np.random.default_rng(seed)}
        judges[name] = _of_judge(rows, scored, scored.thresholds.get(name), len(due[name]) - len(ids), sampling)
    pairs = combinations(rows_of, 2) if contract.positive is not None else ()
    differences = (_auc_difference(a, b, rows_of[a], rows_of[b], level) for a, b in pairs)
    return ScoresResult(
        kind=scored.kind,
        rule=scored.rule,
        n_calibration=scored.n_calibration,
        n_calibration_groups=scored.n_calibration_groups,
        judges=judges,
        differences=tuple(one for one in differences if one is not None),
    )


def _of_judge(
    rows: _Rows, scored: ScoredCases, threshold: ThresholdResult | None, n_without: int, sampling: dict[str, Any]
) -> ScoreResult:
    auc = auc_test = precision = prevalence = probabilities = None
    roc: tuple[tuple[float, float], ...] = ()
    if rows.positive is not None:
        auc = measured(_ranked(auc_of_weights(rows.score, rows.positive), rows, **sampling))
        auc_test = auc_against_chance(rows.score, rows.positive, rows.groups)
        precision = measured(_ranked(average_precision_of_weights(rows.score, rows.positive), rows, **sampling))
        prevalence, roc = float(rows.positive.mean()), _roc(rows.score, rows.positive)
        if scored.kind != "number":
            probabilities = _probabilities(as_probability(rows.score, scored.kind), rows, sampling)
    known = ~np.isnan(rows.number)
    score, number, groups = rows.score[known], rows.number[known], rows.groups[known]
    several = len(np.unique(number)) > 2
    low, high = RANGES[scored.kind]
    one_scale = scored.kind != "logit" and bool(((number >= low) & (number <= high)).all())
    return ScoreResult(
        n=len(rows.ids),
        n_without=n_without,
        auc=auc,
        auc_test=auc_test,
        average_precision=precision,
        prevalence=prevalence,
        threshold=threshold,
        roc=roc,
        probabilities=probabilities,
        correlations=correlations(score, number, groups, one_scale=one_scale, level=sampling["level"])
        if several
        else {},
        bland_altman=bland_altman(score, number, groups, level=sampling["level"], rng=sampling["rng"])
        if several and one_scale
        else None,
    )


def as_probability(scores: ArrayLike, kind: ScoreKind) -> FloatArray:
    """(n,) probabilities of the positive label: as they are, of 100, or by the logistic function."""
    from scipy.special import expit

    x = np.asarray(scores, dtype=np.float64)
    return np.asarray(expit(x) if kind == "logit" else x / 100 if kind == "percent" else x)


def _by_value(scores: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order of ascending scores, and where in it each different score begins."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return order, starts


def auc_of_weights(scores: ArrayLike, positive: ArrayLike) -> Statistic:
    """The area under the ROC curve as a function of row weights, for intervals.

    scores: (n,); positive: (n,) bool. In [0, 1]: the probability that a positive row scores higher than a negative one,
    ties counted half; .5 says nothing. nan where all weight is positive, or none. Source: Hanley & McNeil (1982),
    doi:10.1148/radiology.143.1.7063747.
    """
    x, is_positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    order, starts = _by_value(x)
    hit = is_positive[order].astype(np.float64)

    def auc(weights: FloatArray) -> FloatArray:
        w = weights[:, order]
        plus, minus = np.add.reduceat(w * hit, starts, axis=1), np.add.reduceat(w * (1 - hit), starts, axis=1)
        below = np.cumsum(minus, axis=1) - minus
        pairs = plus.sum(1) * minus.sum(1)
        won = (plus * (below + minus / 2)).sum(1)
        return np.asarray(np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1.0), np.nan))

    return auc


def average_precision_of_weights(scores: ArrayLike, positive: ArrayLike) -> Statistic:
    """Average precision as a function of row weights: sum over thresholds of the recall gained times the precision.

    In [0, 1]; the share of positive rows where scores say nothing. Equal scores are one threshold. nan without a
    positive row. As scikit-learn's `average_precision_score`.
    """
    x, is_positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    order, starts = _by_value(-x)
    hit = is_positive[order].astype(np.float64)

    def average_precision(weights: FloatArray) -> FloatArray:
        w = weights[:, order]
        plus, every = np.add.reduceat(w * hit, starts, axis=1), np.add.reduceat(w, starts, axis=1)
        taken = np.cumsum(every, axis=1)
        precision = np.cumsum(plus, axis=1) / np.where(taken > 0, taken, 1.0)
        total = plus.sum(1)
        return np.asarray(np.where(total > 0, (plus * precision).sum(1) / np.where(total > 0, total, 1.0), np.nan))

    return average_precision


def _ranked(statistic: Statistic, rows: _Rows, *, level: float, n_resamples: int, rng: np.random.Generator) -> Estimate:
    """The statistic with a jackknife over groups on log-odds, or a bootstrap where that is undefined."""
    n = len(rows.score)
    value = float(statistic(np.ones((1, n)))[0])
    low, high = jackknife_interval(value, jackknife_rows(statistic, rows.groups), level, 0.0)
    if low == low or np.isnan(value):
        return Estimate(value, low, high, n, JACKKNIFE)
    drawn = bootstrap_rows(statistic, rows.groups, n_resamples=n_resamples, rng=rng, level=level)
    return Estimate(value, drawn.low, drawn.high, n, BOOTSTRAP)


def _t_of_jackknife(value: float, without: FloatArray, n_groups: int) -> TestResult:
    """Two-sided p of `value` being 0, by Student's t with n_groups - 1 degrees of freedom, never below a sign test's.

    without: (n_blocks,) the value without each block of groups. None where a block decides whether it is defined.
    """
    from scipy.stats import t

    n_blocks = len(without)
    if n_groups < 2 or n_blocks < 2 or not np.isfinite(np.append(without, value)).all():
        return TestResult(p=None, n_groups=n_groups, method=JACKKNIFE_T)
    error = float(np.sqrt((n_blocks - 1) / n_blocks * ((without - without.mean()) ** 2).sum()))
    # Without spread the answer is certain either way.
    certain = 1.0 if abs(value) < 1e-12 else 0.0
    p = certain if error <= 1e-12 else float(2 * t.sf(abs(value) / error, n_groups - 1))
    return TestResult(p=max(p, sign_test_floor(n_groups)), n_groups=n_groups, method=JACKKNIFE_T)


def _carrying(positive: BoolArray, groups: NDArray[np.int64]) -> int:
    """Groups with rows of the rarer kind, positive or negative: AUC depends on those the most."""
    return min(len(np.unique(groups[positive])), len(np.unique(groups[~positive])))


def auc_against_chance(scores: ArrayLike, positive: ArrayLike, groups: ArrayLike) -> TestResult:
    """Whether AUC is .5. scores: (n,); positive: (n,) bool; groups: (n,) codes.

    p is the larger of two: t of the jackknife over groups, and Mann and Whitney's test of rows, whose variance is known
    where all of a kind score alike.
    """
    from scipy.stats import mannwhitneyu

    x, is_positive, code = np.asarray(scores, np.float64), np.asarray(positive, bool), np.asarray(groups, np.int64)
    statistic = auc_of_weights(x, is_positive)
    value = float(statistic(np.ones((1, len(x))))[0])
    test = _t_of_jackknife(value - 0.5, jackknife_rows(statistic, code) - 0.5, _carrying(is_positive, code))
    if test.p is None or len(np.unique(x)) < 2:
        return test.model_copy(update={"p": None if test.p is None else 1.0})
    apart = float(mannwhitneyu(x[is_positive], x[~is_positive]).pvalue)
    return test.model_copy(update={"p": max(test.p, apart), "method": f"{JACKKNIFE_T}, and Mann-Whitney of rows"})


def _auc_difference(a: str, b: str, rows_a: _Rows, rows_b: _Rows, level: float) -> AucDifference | None:
    """AUC of `a` less that of `b` on shared cases; None where these are all positive, or none is."""
    place = {case_id: at for at, case_id in enumerate(rows_b.ids)}
    both = np.array([(at, place[case_id]) for at, case_id in enumerate(rows_a.ids) if case_id in place]).reshape(-1, 2)
    if not len(both) or rows_a.positive is None:
        return None
    first, second = both[:, 0], both[:, 1]
    positive, groups = rows_a.positive[first], rows_a.groups[first]
    if positive.all() or not positive.any():
        return None
    auc_a, auc_b = auc_of_weights(rows_a.score[first], positive), auc_of_weights(rows_b.score[second], positive)

    def statistic(weights: FloatArray) -> FloatArray:
        return auc_a(weights) - auc_b(weights)

    value = float(statistic(np.ones((1, len(first))))[0])
    without = jackknife_rows(statistic, groups)
    low, high = difference_interval(value, without, level) if len(without) else (np.nan, np.nan)
    ends = np.clip([low, high], -1.0, 1.0)
    return AucDifference(
        a=a,
        b=b,
        n=len(first),
        difference=MetricResult(value=value, low=float(ends[0]), high=float(ends[1]), n=len(first), method=DIFFERENCE),
        test=_t_of_jackknife(value, without, _carrying(positive, groups)),
    )


def _roc(scores: FloatArray, positive: BoolArray) -> tuple[tuple[float, float], ...]:
    """Up to `N_ROC` points of the curve, from (0, 0) to (1, 1)."""
    order, starts = _by_value(-scores)
    ends = np.append(starts[1:], len(scores)) - 1
    hits, alarms = np.cumsum(positive[order])[ends], np.cumsum(~positive[order])[ends]
    n_positive, n_negative = max(int(positive.sum()), 1), max(int((~positive).sum()), 1)
    x, y = np.append(0, alarms) / n_negative, np.append(0, hits) / n_positive
    shown = np.unique(np.linspace(0, len(x) - 1, N_ROC).round().astype(int))
    return tuple((round(float(x[at]), 5), round(float(y[at]), 5)) for at in shown)


def _probabilities(probability: FloatArray, rows: _Rows, sampling: dict[str, Any]) -> ProbabilityResult:
    positive = np.asarray(rows.positive)
    measures = calibration_measures(probability, positive, rows.groups, **sampling)
    return ProbabilityResult(
        n=measures.n,
        mean=measures.mean_confidence,
        share=measures.accuracy,
        brier=measures.brier,
        log_loss=measures.log_loss,
        ece=measures.ece,
        ece_if_calibrated=measures.ece_if_calibrated,
        bins=tuple(
            CurveBin(stated=one.confidence, share=one.accuracy, low=one.low, high=one.high, n=one.n)
            for one in measures.bins
        ),
        test=tested(right_as_stated(positive, probability, rows.groups)),
    )


def correlations(
    scores: ArrayLike, numbers: ArrayLike, groups: ArrayLike, *, one_scale: bool, level: float = 0.95
) -> dict[str, MetricResult]:
    """Pearson's r, Spearman's rho and Kendall's tau-b of scores and experts' numbers, and ICC(2,1) and ICC(3,1).

    scores, numbers: (n,) finite; groups: (n,) codes. one_scale: whether both are in one unit, without which ICC means
    nothing and is left out. nan, stored as None, where a side does not vary. By SciPy; ICC as `agreement.icc`.
    Intervals: jackknife over groups, on Fisher's z and for ICC on -log(1 - x).
    """
    from scipy.stats import kendalltau, pearsonr, spearmanr

    x, y = np.asarray(scores, dtype=np.float64), np.asarray(numbers, dtype=np.float64)
    names = ("pearson", "spearman", "kendall_tau_b", *(("icc_2_1", "icc_3_1") if one_scale else ()))

    def values(weights: FloatArray) -> FloatArray:
        rows = []
        for keep in weights > 0:
            a, b = x[keep], y[keep]
            varies = len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0
            row = [f(a, b).statistic if varies else np.nan for f in (pearsonr, spearmanr, kendalltau)]
            if one_scale:
                forms = icc(np.stack([a, b], axis=1))
                row += [forms.icc_2_1, forms.icc_3_1]
            rows.append(row)
        return np.array(rows, dtype=np.float64)

    whole = values(np.ones((1, len(x))))[0]
    without = jackknife_rows(values, groups).reshape(-1, len(names))
    found = {}
    for at, name in enumerate(names):
        lowest = -np.inf if name.startswith("icc") else -1.0
        low, high = jackknife_interval(float(whole[at]), without[:, at], level, lowest)
        found[name] = measured(Estimate(float(whole[at]), low, high, len(x), JACKKNIFE))
    return found


def bland_altman(
    scores: ArrayLike, numbers: ArrayLike, groups: ArrayLike, *, level: float = 0.95, rng: np.random.Generator
) -> BlandAltmanResult:
    """Mean difference (score less expert's number) and limits of agreement, mean -+ 1.96 standard deviations.

    scores, numbers: (n,) in one unit; groups: (n,) codes. The standard deviation has n - 1 in the denominator; nan,
    stored as None, with one row. Intervals: jackknife over groups with Student's t, which with a row per group is for
    the mean the textbook's and for the limits close to its sqrt(3 / n) s. Limits hold where differences are near
    normal and their spread does not depend on the size: the picture shows whether.
    Source: Bland & Altman (1986), doi:10.1016/S0140-6736(86)90837-8; (1999), doi:10.1177/096228029900800204.
    """
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(numbers, dtype=np.float64)
    gap = x - y
    _, code = np.unique(np.asarray(groups), return_inverse=True)
    # Around their mean, so that squares lose no digits where differences are large and alike.
    centre = float(gap.mean())
    parts = (np.ones(len(gap)), gap - centre, (gap - centre) ** 2)
    sums = np.stack([np.bincount(code, weights=part) for part in parts], axis=1).astype(np.float64)

    def statistics(s: FloatArray) -> dict[str, FloatArray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = s[..., 1] / s[..., 0]
            spread = np.sqrt(np.maximum(s[..., 2] - s[..., 0] * mean**2, 0.0) / (s[..., 0] - 1))
        return {"mean": mean + centre, "lower": mean + centre - LIMIT * spread, "upper": mean + centre + LIMIT * spread}

    values, without = statistics(sums.sum(0)), leave_one_out(sums, statistics) if len(sums) > 1 else {}

    def with_ends(name: str) -> MetricResult:
        low, high = difference_interval(float(values[name]), without[name], level) if without else (np.nan, np.nan)
        return measured(Estimate(float(values[name]), low, high, len(gap), DIFFERENCE))

    shown = np.sort(rng.choice(len(gap), min(N_POINTS, len(gap)), replace=False))
    return BlandAltmanResult(
        n=len(gap),
        mean=with_ends("mean"),
        sd=float(gap.std(ddof=1)) if len(gap) > 1 else 0.0,
        lower=with_ends("lower"),
        upper=with_ends("upper"),
        points=tuple((float((x[at] + y[at]) / 2), float(gap[at])) for at in shown),
    )
