"""Whether a judge's stated confidence can be relied on: every measure of it, with intervals over groups."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import ArrayLike

from medjudge.errors import DataError
from medjudge.metrics.intervals import Estimate, Interval, bootstrap_rows, bootstrap_sums
from medjudge.metrics.metric_result import MetricResult, measured
from medjudge.metrics.reliability import (
    CLIP,
    brier_parts,
    brier_score,
    debiased_rms_error,
    ece_under_calibration,
    expected_calibration_error,
    log_loss,
    log_losses,
    reliability_curve,
)
from medjudge.metrics.result_types import CalibrationMeasures
from medjudge.metrics.selective import aurc_of_weights, risk_coverage


def calibration_measures(
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_bins: int = 10,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> CalibrationMeasures:
    """Everything above for one judge. confidence: (n,), nan where a verdict has none (counted, left out).

    groups: (n,) codes; None takes rows as independent. Raises DataError if no row has a confidence.
    """
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    stated = ~np.isnan(given)
    if not stated.any():
        raise DataError(f"none of {len(given):,} verdicts has a confidence: there is no calibration to measure.")
    code = np.arange(len(given)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_without = int((~stated).sum())
    given, right, code = given[stated], right[stated], np.unique(code[stated], return_inverse=True)[1]
    highest_first = np.argsort(-given, kind="stable")  # saves the resamples a sorting each
    given, right, code = given[highest_first], right[highest_first], code[highest_first]
    n = len(given)

    ece = expected_calibration_error(given, right, n_bins=n_bins)
    if_calibrated = ece_under_calibration(given, n_bins=n_bins, rng=rng)
    # Means are ratios of sums over groups, so a resample needs three numbers per group and no rows.
    sums = np.zeros((int(code.max()) + 1, 3))
    np.add.at(sums, code, np.stack([np.ones(n), (given - right) ** 2, log_losses(given, right, CLIP)], axis=1))
    means = bootstrap_sums(
        sums,
        lambda s: {"brier": s[..., 1] / s[..., 0], "log_loss": s[..., 2] / s[..., 0]},
        n_resamples=n_resamples,
        rng=rng,
        level=level,
    )
    curve = risk_coverage(given, right)
    area = bootstrap_rows(aurc_of_weights(given, right), code, n_resamples=n_resamples, rng=rng, level=level)
    return CalibrationMeasures(
        n=n,
        n_without=n_without,
        mean_confidence=float(given.mean()),
        accuracy=float(right.mean()),
        ece=ece,
        ece_if_calibrated=float(if_calibrated.mean()),
        calibrated_p=float((1 + (if_calibrated >= ece - 1e-12).sum()) / (1 + len(if_calibrated))),
        rms_error=debiased_rms_error(given, right, n_bins=n_bins),
        brier=_with_ends(brier_score(given, right), means["brier"], n),
        brier_parts=asdict(brier_parts(given, right, n_bins=n_bins)),
        log_loss=_with_ends(log_loss(given, right), means["log_loss"], n),
        aurc=_with_ends(curve.aurc, area, n),
        excess_aurc=curve.excess_aurc,
        bins=reliability_curve(given, right, n_bins=n_bins, level=level),
    )


def _with_ends(value: float, interval: Interval, n: int) -> MetricResult:
    return measured(Estimate(value, interval.low, interval.high, n, interval.method))
