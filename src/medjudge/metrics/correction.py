"""The true pass rate from a judge that errs in known ways: a judge's own pass rate is biased, and can be mended.

Two estimators. Rogan-Gladen turns the judged rate round with the judge's TPR and TNR; it needs them to be the same on
the new rows. Prediction-powered inference adds the judge's mean error on labelled rows; it needs the labelled rows to
be a random sample of the same population, and nothing about the judge.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError
from medjudge.metrics.intervals import BOOTSTRAP, Estimate, clustered_wilson, expanded_interval, resample_sums

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def rogan_gladen(
    judged: ArrayLike,
    labelled_judged: ArrayLike,
    labelled_gold: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    labelled_groups: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """(judged rate + TNR - 1) / (TPR + TNR - 1), clipped to [0, 1].

    judged: (N,) bool, the judge on rows without gold; labelled_judged, labelled_gold: (n,) bool on other rows, with
    gold. Their TPR and TNR must hold on the rows without gold too: a generator or a topic that the labelled rows lack
    breaks that. Independent rows: Lang & Reiczigel's interval. With groups, which both sets then need: an expanded
    bootstrap over groups, which needs `rng`. A code that is in both sets is one group, drawn with all its rows;
    groups with labelled rows and groups without are drawn apart, as many as there are of each. nan where the labelled
    rows lack a class, there are no rows, or TPR + TNR <= 1: such a judge carries no information.
    Source: Rogan & Gladen (1978), doi:10.1093/oxfordjournals.aje.a112510; Lang & Reiczigel (2014),
    doi:10.1016/j.prevetmed.2013.09.015.
    """
    called, labelled, gold = _checked(judged, labelled_judged, labelled_gold, binary=True)
    method = BOOTSTRAP if groups is not None else "Lang & Reiczigel"
    counts = _labelled_counts(labelled, gold)
    value = float(_rogan_gladen(called.mean() if len(called) else np.array(np.nan), counts.sum(0)))
    if np.isnan(value):
        return Estimate(np.nan, np.nan, np.nan, len(called), method)
    if groups is None and labelled_groups is None:
        low, high = _lang_reiczigel(called, counts.sum(0), level)
        return Estimate(value, low, high, len(called), method)
    if groups is None or labelled_groups is None or rng is None:
        raise DataError("with groups, Rogan-Gladen's bootstrap needs `groups`, `labelled_groups` and `rng`.")
    new, old, n_groups = _joint_codes(groups, labelled_groups)
    sums = np.column_stack(
        [
            _sum_groups(np.stack([called, np.ones(len(called))], axis=1), new, n_groups),
            _sum_groups(counts, old, n_groups),
        ]
    )
    with_labels = np.isin(np.arange(n_groups), old)
    # Drawn apart, so that every resample has as many labelled groups as there are: TPR and TNR rest on them.
    drawn = resample_sums(sums[with_labels], n_resamples, rng)
    if not with_labels.all():
        drawn = drawn + resample_sums(sums[~with_labels], n_resamples, rng)
    with np.errstate(invalid="ignore"):
        draws = _rogan_gladen(drawn[:, 0] / drawn[:, 1], drawn[:, 2:])
    low, high = expanded_interval(draws, level, min(len(np.unique(new)), int(with_labels.sum())))
    return Estimate(value, low, high, len(called), method)


def _labelled_counts(labelled: FloatArray, gold: FloatArray) -> FloatArray:
    """(n, 4): true positives, gold positives, true negatives, gold negatives."""
    return np.stack([labelled * gold, gold, (1 - labelled) * (1 - gold), 1 - gold], axis=1)


def _rogan_gladen(rate: FloatArray, counts: FloatArray) -> FloatArray:
    """rate: (...); counts: (..., 4) as `_labelled_counts`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        tpr, tnr = counts[..., 0] / counts[..., 1], counts[..., 2] / counts[..., 3]
        informative = tpr + tnr > 1
        corrected = (rate + tnr - 1) / np.where(informative, tpr + tnr - 1, np.nan)
    return np.asarray(np.clip(corrected, 0, 1))


def _lang_reiczigel(called: FloatArray, counts: FloatArray, level: float) -> tuple[float, float]:
    from scipy.stats import norm

    z = float(norm.ppf((1 + level) / 2))
    n, n_tpr, n_tnr = len(called) + z**2, counts[1] + 2, counts[3] + 2
    rate = (called.sum() + z**2 / 2) / n
    tpr, tnr = (counts[0] + 1) / n_tpr, (counts[2] + 1) / n_tnr
    gain = tpr + tnr - 1
    if gain <= 0:
        return np.nan, np.nan
    true = (rate + tnr - 1) / gain
    tpr_variance, tnr_variance = tpr * (1 - tpr) / n_tpr, tnr * (1 - tnr) / n_tnr
    shift = 2 * z**2 * (true * tpr_variance - (1 - true) * tnr_variance)
    spread = np.sqrt(rate * (1 - rate) / n + (1 - true) ** 2 * tnr_variance + true**2 * tpr_variance) / gain
    low, high = np.clip([true + shift - z * spread, true + shift + z * spread], 0, 1)
    return float(low), float(high)


def prediction_powered_rate(
    judged: ArrayLike,
    labelled_judged: ArrayLike,
    labelled_gold: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    labelled_groups: ArrayLike | None = None,
    tuning: Literal["tuned", "plain"] = "tuned",
    level: float = 0.95,
) -> Estimate:
    """mean(gold) on labelled rows + lambda (mean(judged) on the others - mean(judged) on labelled rows).

    judged: (N,), labelled_judged, labelled_gold: (n,), bool or numbers in [0, 1]; the ends are clipped to it. The
    labelled rows must be a random sample of the same population; of the judge nothing is asked. `plain`: lambda = 1
    (PPI). `tuned`: the lambda in [0, 1] with the smallest variance (PPI++), so that a useless judge costs nothing.
    groups, labelled_groups: (N,), (n,) codes, both or neither; a code that is in both is one group, and what its
    labelled and its other rows have in common enters the variance. Student's t with as many degrees of freedom as
    labelled groups less one. nan ends with fewer than two labelled groups or without spread.
    Source: Angelopoulos et al. (2023), arXiv:2301.09633; PPI++: Angelopoulos, Duchi & Zrnic (2023), arXiv:2311.01453,
    equation 8 (the tuned lambda of a mean).
    """
    called, labelled, gold = _checked(judged, labelled_judged, labelled_gold, binary=False)
    method = "PPI++" if tuning == "tuned" else "PPI"
    n = len(gold)
    if not n or not len(called):
        return Estimate(np.nan, np.nan, np.nan, n, method)
    if (groups is None) != (labelled_groups is None):
        raise DataError("prediction-powered inference takes `groups` and `labelled_groups`, both or neither.")
    covariance, n_groups = _mean_covariance(gold, labelled, called, groups, labelled_groups)
    # The estimate is mean(gold) + weight * gain, gain = mean(called) - mean(labelled).
    gain_variance = covariance[1, 1] + covariance[2, 2] - 2 * covariance[1, 2]
    with_gain = covariance[0, 2] - covariance[0, 1]
    weight = 1.0
    if tuning == "tuned":
        # From 0, the gold labels alone, to 1, plain PPI; a minimum of the variance outside of that is not used.
        weight = float(np.clip(-with_gain / gain_variance, 0, 1)) if gain_variance > 0 else 0.0
    value = float(gold.mean() + weight * (called.mean() - labelled.mean()))
    variance = covariance[0, 0] + 2 * weight * with_gain + weight**2 * gain_variance
    if n_groups < 2 or not variance > 0:
        return Estimate(value, np.nan, np.nan, n, method)
    from scipy.stats import t

    reach = float(t.ppf((1 + level) / 2, n_groups - 1) * np.sqrt(variance))
    return Estimate(value, max(value - reach, 0.0), min(value + reach, 1.0), n, method)


def gold_rate(gold: ArrayLike, groups: ArrayLike | None = None, *, level: float = 0.95) -> Estimate:
    """The pass rate of the labelled rows alone: what the two corrections are to be compared with."""
    return clustered_wilson(gold, groups, level=level)


def _mean_covariance(
    gold: FloatArray,
    labelled: FloatArray,
    called: FloatArray,
    groups: ArrayLike | None,
    labelled_groups: ArrayLike | None,
) -> tuple[FloatArray, int]:
    """(3, 3) covariance over groups of mean(gold), mean(labelled), mean(said), and the number of labelled groups."""
    if groups is None or labelled_groups is None:
        new, old, n_groups = np.arange(len(called)) + len(gold), np.arange(len(gold)), len(gold) + len(called)
    else:
        new, old, n_groups = _joint_codes(groups, labelled_groups)
    parts = np.zeros((n_groups, 3))
    for column, (values, code) in enumerate(((gold, old), (labelled, old), (called, new))):
        n_held = len(np.unique(code))
        deviations = np.bincount(code, weights=values - values.mean(), minlength=n_groups) / len(values)
        parts[:, column] = deviations * np.sqrt(n_held / max(n_held - 1, 1))
    return parts.T @ parts, len(np.unique(old))


def _joint_codes(groups: ArrayLike, labelled_groups: ArrayLike) -> tuple[IntArray, IntArray, int]:
    """Codes 0 .. n_groups - 1 of the other and of the labelled rows; equal given codes get one code."""
    new, old = np.asarray(groups), np.asarray(labelled_groups)
    names, code = np.unique(np.concatenate([new, old]), return_inverse=True)
    return code[: len(new)], code[len(new) :], len(names)


def _sum_groups(columns: FloatArray, code: IntArray, n_groups: int) -> FloatArray:
    """(n, k) -> (n_groups, k)."""
    sums = np.zeros((n_groups, columns.shape[1]))
    np.add.at(sums, code, columns)
    return sums


def _checked(
    judged: ArrayLike, labelled_judged: ArrayLike, labelled_gold: ArrayLike, *, binary: bool
) -> tuple[FloatArray, FloatArray, FloatArray]:
    called, labelled, gold = (np.asarray(a, dtype=np.float64) for a in (judged, labelled_judged, labelled_gold))
    if labelled.shape != gold.shape:
        raise DataError(
            f"{labelled.size} judged and {gold.size} gold values were given for the labelled rows: expected one each."
        )
    for values in (called, labelled, gold):
        allowed = np.isin(values, (0, 1)) if binary else (values >= 0) & (values <= 1)
        if not allowed.all():
            wanted = "passed or not (1 or 0)" if binary else "in [0, 1]"
            raise DataError(f"a pass rate is corrected from values {wanted}: leave out what is missing, and count it.")
    return called, labelled, gold
