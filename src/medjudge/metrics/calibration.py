"""Whether a judge's stated confidence can be relied on, how to mend it, and when to ask a person instead.

A confidence here is the probability, in [0, 1], that the verdict is right: verbalised, or the label's probability. Rows
without one (nan) are left out by the caller, who counts them. Calibrators are fitted on a validation split and saved
with the model; thresholds come with a finite-sample guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.metrics.intervals import Estimate

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
CalibratorKind = Literal["temperature", "platt", "isotonic"]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of a reliability diagram, lowest confidence first; each array is (n_bins,)."""

    mean_confidence: FloatArray
    accuracy: FloatArray
    low: FloatArray
    """Wilson interval of each accuracy."""
    high: FloatArray
    n: IntArray


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


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """One judge's calibration; intervals are bootstraps over groups."""

    n: int
    n_without: int
    """Verdicts without a confidence."""
    mean_confidence: float
    accuracy: float
    ece: Estimate
    ece_if_calibrated: float
    """Mean ECE of a perfectly calibrated judge with these confidences: ECE is biased upward by as much at this n."""
    rms_error: float
    """Debiased root-mean-square calibration error (Kumar et al. 2019, arXiv:1909.10155)."""
    brier: Estimate
    brier_parts: BrierParts
    log_loss: Estimate
    aurc: Estimate
    excess_aurc: float
    reliability: Reliability


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A map from confidence to confidence, fitted on a validation split. Plain numbers: it goes into a JSON file."""

    kind: CalibratorKind
    parameters: dict[str, list[float]]
    """temperature: {"temperature": [T]}; platt: {"slope": [a], "intercept": [b]}; isotonic: {"x": [..], "y": [..]}."""
    n: int
    """Rows that it was fitted on."""

    def apply(self, confidence: ArrayLike) -> FloatArray:
        """(n,) confidences in [0, 1] -> calibrated ones; nan stays nan."""
        raise NotImplementedError

    def apply_to_labels(self, probabilities: ArrayLike) -> FloatArray:
        """(n, K) label probabilities, rows summing to 1 -> calibrated ones. Temperature keeps each row's order.

        Platt and isotonic move the top label's probability and share the rest in proportion.
        """
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """The calibrator as a JSON object."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, value: Any) -> Calibrator:
        """The calibrator in a JSON object. Raises RunError if it is damaged."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Selective error at each coverage; arrays are (n_points,), one point per distinct confidence, highest first."""

    threshold: FloatArray
    """Verdicts with a confidence of at least this are kept."""
    coverage: FloatArray
    risk: FloatArray
    """Share wrong among those kept."""
    aurc: float
    """Area under the curve, the mean of the risk over coverages 1/n .. 1; ties in every order, on average."""
    excess_aurc: float
    """AURC less that of a judge whose errors are exactly its least confident verdicts."""


@dataclass(frozen=True, slots=True)
class SelectiveRule:
    """Accept a verdict where its confidence is above `threshold`; a guarantee on what is accepted."""

    threshold: float | None
    """Confidence above which a verdict is accepted; -1 accepts all; None: no threshold keeps the promise."""
    max_error: float
    delta: float | None
    """The promise fails for at most this share of calibration sets; None where it holds on average."""
    promise: str
    """In words, what is guaranteed."""
    method: Literal["learn-then-test", "conformal risk control"]
    n: int
    """Independent rows (or groups) that it was chosen on."""
    coverage: float
    """Share accepted on those rows."""
    error: float
    """The controlled error on those rows; nan where none is accepted."""

    def accepts(self, confidence: ArrayLike) -> BoolArray:
        """(n,) which verdicts are accepted; nan never is."""
        raise NotImplementedError


def reliability_curve(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, bins: Literal["mass", "width"] = "mass"
) -> Reliability:
    """The reliability diagram. confidence: (n,) in [0, 1]; correct: (n,) bool. Equal confidences share a bin."""
    raise NotImplementedError


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, bins: Literal["mass", "width"] = "mass"
) -> float:
    """ECE: mean distance between a bin's accuracy and its mean confidence, weighted by its rows; in [0, 1], nan if
    empty.

    Biased upward, most at small n and many bins: read it beside `ece_if_calibrated`.
    Source: Naeini, Cooper & Hauskrecht (2015); equal-mass bins: Nixon et al. (2019), arXiv:1904.01685.
    """
    raise NotImplementedError


def ece_if_calibrated(
    confidence: ArrayLike, *, n_bins: int = 10, n_draws: int = 200, rng: np.random.Generator
) -> float:
    """The mean equal-mass ECE that a perfectly calibrated judge with these confidences would show.

    Draws `correct` from the confidences themselves: the "consistency resampling" of Bröcker & Smith (2007),
    doi:10.1175/WAF993.1.
    """
    raise NotImplementedError


def debiased_rms_error(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Root-mean-square calibration error with each bin's sampling variance taken off; 0 where less than nothing is
    left.

    Source: Kumar, Liang & Ma (2019), arXiv:1909.10155, Definition 5.2 (the debiased estimator).
    """
    raise NotImplementedError


def brier_score(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance of confidence from being right; in [0, 1], nan if empty. By scikit-learn."""
    raise NotImplementedError


def label_brier_score(probabilities: ArrayLike, gold: ArrayLike) -> float:
    """Brier score over all labels, in [0, 2]. probabilities: (n, K); gold: (n,) codes. Source: Brier (1950)."""
    raise NotImplementedError


def brier_parts(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int | None = None) -> BrierParts:
    """Murphy's decomposition over equal-mass bins, or over the distinct confidences (n_bins None).

    Source: Murphy (1973), doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2; within-bin term: Stephenson et al.
    (2008),
    doi:10.1175/2007WAF2006116.1.
    """
    raise NotImplementedError


def log_loss(confidence: ArrayLike, correct: ArrayLike, *, clip: float = 1e-6) -> float:
    """Mean negative log-likelihood in nats. Confidences are clipped to [clip, 1 - clip]: a judge that says 1.00
    rounds."""
    raise NotImplementedError


def calibration_report(
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_bins: int = 10,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> CalibrationReport:
    """Everything above for one judge. confidence: (n,), nan where a verdict has none (counted, left out).

    groups: (n,) codes; None takes rows as independent. Raises DataError if no row has a confidence.
    """
    raise NotImplementedError


def fit_calibrator(kind: CalibratorKind, confidence: ArrayLike, correct: ArrayLike) -> Calibrator:
    """Fits on the verdicts of a validation split: confidence that they are right, and whether they are.

    temperature: divides the log-odds by T. platt: logistic regression on the log-odds, with Platt's smoothed targets.
    isotonic: the best non-decreasing step function (scikit-learn); wants a thousand rows.
    Raises DataError with fewer than two rows with a confidence, or a confidence outside [0, 1].
    Source: Guo et al. (2017), arXiv:1706.04599; Platt (1999); Zadrozny & Elkan (2002), doi:10.1145/775047.775151.
    """
    raise NotImplementedError


def fit_label_temperature(probabilities: ArrayLike, gold: ArrayLike) -> Calibrator:
    """The temperature of (n, K) label probabilities that maximises the likelihood of the gold codes (n,).

    Source: Guo et al. (2017), arXiv:1706.04599, section 4.2.
    """
    raise NotImplementedError


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """The selective error at every coverage. Equal confidences are accepted together.

    Source: Geifman & El-Yaniv (2017), arXiv:1705.08500; excess AURC: Geifman, Uziel & El-Yaniv (2019),
    arXiv:1805.08206.
    """
    raise NotImplementedError


def selective_threshold(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    max_error: float,
    delta: float = 0.1,
    groups: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
) -> SelectiveRule:
    """The lowest threshold at which at most `max_error` of the *accepted* verdicts are wrong, with probability 1 -
    delta.

    The error among accepted verdicts does not fall monotonically with the threshold, so conformal risk control does not
    apply; each of 20 coverages is tested exactly instead (binomial, Bonferroni), the loosest that passes is taken.
    groups: one row per group is drawn by `rng` and tested, because rows of a group are not independent.
    Source: Angelopoulos et al. (2021), Learn then Test, arXiv:2110.01052; Geifman & El-Yaniv (2017), arXiv:1705.08500.
    """
    raise NotImplementedError


def risk_control_threshold(
    confidence: ArrayLike, correct: ArrayLike, *, max_error: float, groups: ArrayLike | None = None
) -> SelectiveRule:
    """The lowest threshold at which at most `max_error` of *all* verdicts are accepted and wrong, on average over sets.

    That loss falls as the threshold rises, which conformal risk control needs. groups: a group's loss is its mean.
    Source: Angelopoulos et al. (2022), Conformal Risk Control, arXiv:2208.02814, Theorem 1.
    """
    raise NotImplementedError


def abstention_rates(
    accepted: ArrayLike, by: Sequence[str], groups: ArrayLike | None = None, *, level: float = 0.95
) -> dict[str, Estimate]:
    """Share not accepted, per value of `by` (gold label, generator), with Wilson intervals (design effect from
    groups)."""
    raise NotImplementedError
