"""How far stated confidences are from the share that is right: reliability diagram, ECE, Brier score, log-loss.

A confidence here is the probability, in [0, 1], that the verdict is right: verbalised, or the label's probability. Rows
without one (nan) are left out by the caller, who counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError
from medjudge.metrics.intervals import wilson_interval
from medjudge.metrics.result_types import BinResult

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Bins = Literal["mass", "width"]

CLIP = 1e-6
"""Confidences closer than this to 0 or 1 are moved to it before a logarithm is taken."""


@dataclass(frozen=True, slots=True)
class BrierParts:
    """Brier score = reliability - resolution + uncertainty + within_bin (Stephenson, Coelho & Jolliffe 2008)."""

    score: float
    reliability: float
    """Mean squared distance of a bin's confidence from its accuracy: 0 is calibrated."""
    resolution: float
    """How far the bins' accuracies lie apart: higher is better."""
    uncertainty: float
    """Variance of being right: accuracy (1 - accuracy)."""
    within_bin: float
    """What is left because confidences differ inside a bin; 0 with one bin per distinct confidence."""


def reliability_curve(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, bins: Bins = "mass", level: float = 0.95
) -> tuple[BinResult, ...]:
    """The bins of a reliability diagram, lowest confidence first, with Wilson intervals. Empty bins are left out.

    confidence: (n,) in [0, 1]; correct: (n,) bool.

    mass: bins of as equal numbers of rows as can be where equal confidences share a bin. width: [0, .1), [.1, .2), ..
    """
    given, right = checked(confidence, correct)
    n, mean, accuracy = _bin_means(given, right, bin_codes(given, n_bins, bins))
    curve = []
    for rows, stated, share in zip(n, mean, accuracy, strict=True):
        low, high = wilson_interval(share * rows, rows, level=level)
        curve.append(BinResult(confidence=float(stated), accuracy=float(share), low=low, high=high, n=int(rows)))
    return tuple(curve)


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, bins: Bins = "mass"
) -> float:
    """ECE: mean distance between a bin's accuracy and its mean confidence, weighted by rows; in [0, 1], nan if empty.

    Biased upward, most at small n and many bins: read it beside `ece_if_calibrated`.
    Source: Naeini, Cooper & Hauskrecht (2015), doi:10.1609/aaai.v29i1.9602; equal-mass bins: Nixon et al. (2019),
    arXiv:1904.01685.
    """
    given, right = checked(confidence, correct)
    if not len(given):
        return float("nan")
    n, mean, accuracy = _bin_means(given, right, bin_codes(given, n_bins, bins))
    return float((n * np.abs(accuracy - mean)).sum() / n.sum())


def ece_under_calibration(
    confidence: ArrayLike, *, n_bins: int = 10, n_draws: int = 400, rng: np.random.Generator
) -> FloatArray:
    """(n_draws,) equal-mass ECEs of a perfectly calibrated judge with these confidences.

    Draws whether each verdict is right from its own confidence, rows apart: the consistency resampling of Bröcker &
    Smith (2007), doi:10.1175/WAF993.1.
    """
    given = np.asarray(confidence, dtype=np.float64)
    code = bin_codes(given, n_bins, "mass")
    n = np.bincount(code).astype(np.float64)
    total = np.bincount(code, weights=given)
    # Within a bin the number right is a sum of independent draws; only the sum matters to ECE.
    draws = np.empty(n_draws)
    for draw in range(n_draws):
        right = np.bincount(code, weights=rng.random(len(given)) < given, minlength=len(n))
        draws[draw] = np.abs(right - total).sum() / n.sum()
    return draws


def debiased_rms_error(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Root-mean-square calibration error with each bin's sampling variance taken off, and 0 where that leaves less.

    Over equal-mass bins; in [0, 1], nan if empty. Source: Kumar, Liang & Ma (2019), arXiv:1909.10155, section 5.
    """
    given, right = checked(confidence, correct)
    if not len(given):
        return float("nan")
    n, mean, accuracy = _bin_means(given, right, bin_codes(given, n_bins, "mass"))
    # What a bin's accuracy varies by itself: the square of its distance is too large by as much.
    noise = accuracy * (1 - accuracy) / np.maximum(n - 1, 1)
    return float(np.sqrt(max((n * ((accuracy - mean) ** 2 - noise)).sum() / n.sum(), 0.0)))


def brier_score(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance of confidence from being right; in [0, 1], nan if empty.

    Source: Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2, in the half form for two outcomes.
    """
    given, right = checked(confidence, correct)
    return float(np.mean((given - right) ** 2)) if len(given) else float("nan")


def label_brier_score(probabilities: ArrayLike, gold: ArrayLike) -> float:
    """Brier score over all labels, in [0, 2], nan if empty. probabilities: (n, K), rows sum to 1; gold: (n,) codes.

    For two labels it is twice `brier_score` of the positive one. Source: Brier (1950), the original form.
    """
    given = np.array(probabilities, dtype=np.float64)
    if not len(given):
        return float("nan")
    given[np.arange(len(given)), np.asarray(gold)] -= 1
    return float((given**2).sum(1).mean())


def brier_parts(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int | None = None) -> BrierParts:
    """Murphy's decomposition over equal-mass bins, or over the distinct confidences (n_bins None).

    Source: Murphy (1973), doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2; within-bin terms: Stephenson, Coelho &
    Jolliffe (2008), doi:10.1175/2007WAF2006116.1.
    """
    given, right = checked(confidence, correct)
    if not len(given):
        return BrierParts(*[float("nan")] * 5)
    code = np.unique(given, return_inverse=True)[1] if n_bins is None else bin_codes(given, n_bins, "mass")
    n, mean, accuracy = _bin_means(given, right, code)
    base = right.mean()
    apart_x, apart_y = given - mean[code], right - accuracy[code]
    return BrierParts(
        score=float(np.mean((given - right) ** 2)),
        reliability=float((n * (mean - accuracy) ** 2).sum() / n.sum()),
        resolution=float((n * (accuracy - base) ** 2).sum() / n.sum()),
        uncertainty=float(base * (1 - base)),
        within_bin=float(np.mean(apart_x**2 - 2 * apart_x * apart_y)),
    )


def log_loss(confidence: ArrayLike, correct: ArrayLike, *, clip: float = CLIP) -> float:
    """Mean negative log-likelihood in nats; nan if empty.

    Confidences are clipped to [clip, 1 - clip]: a judge that writes 1.00 has rounded, and one wrong answer at exactly 1
    would otherwise make the mean infinite.
    """
    given, right = checked(confidence, correct)
    return float(log_losses(given, right, clip).mean()) if len(given) else float("nan")


def bin_codes(confidence: FloatArray, n_bins: int, bins: Bins) -> IntArray:
    """(n,) bin of each row, 0 upward without gaps."""
    if bins == "width":
        raw = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
    else:
        _, code, count = np.unique(confidence, return_inverse=True, return_counts=True)
        # The middle rank of equal confidences: they share a bin, since their order means nothing.
        middle = (np.cumsum(count) - count / 2) / max(len(confidence), 1)
        raw = (middle * n_bins).astype(np.int64)[code]
    return np.asarray(np.unique(raw, return_inverse=True)[1])


def _bin_means(
    confidence: FloatArray, correct: FloatArray, code: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows, mean confidence and accuracy of each bin."""
    n = np.bincount(code).astype(np.float64)
    return n, np.bincount(code, weights=confidence) / n, np.bincount(code, weights=correct) / n


def log_losses(confidence: FloatArray, correct: FloatArray, clip: float) -> FloatArray:
    """(n,) negative log-likelihoods in nats of being right (1.0) or wrong (0.0); confidences clipped."""
    p = np.clip(confidence, clip, 1 - clip)
    return np.asarray(-np.where(correct > 0, np.log(p), np.log1p(-p)))


def checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as (n,) floats. Raises DataError for lengths that differ and for a confidence outside [0, 1]."""
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if given.shape != right.shape or given.ndim != 1:
        raise DataError(
            f"confidence has shape {given.shape} and correct {right.shape}: expected one of each per verdict."
        )
    if np.isnan(given).any() or (given < 0).any() or (given > 1).any():
        raise DataError("a confidence is missing or outside [0, 1]: leave such verdicts out, and count them.")
    return given, right
