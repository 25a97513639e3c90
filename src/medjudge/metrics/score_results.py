"""What `results.json` holds of judges that give numbers: discrimination, calibration, and agreement of numbers."""

from __future__ import annotations

from typing import Literal

from medjudge.metrics.metric_result import Frozen, MetricResult, Number, TestResult

ScoreKind = Literal["probability", "percent", "logit", "number"]


class ThresholdResult(Frozen):
    """The threshold of one judge."""

    value: float
    rule: str
    """`given`, or the rule that chose it on the calibration part."""
    n: int = 0
    """Rows of the calibration part; 0 of a threshold that was given."""
    n_positive: int = 0
    sensitivity: float | None = None
    """On the calibration part, where it is too good; that on the rest stands among the statistics."""
    specificity: float | None = None


class CurveBin(Frozen):
    """One bin of a calibration curve."""

    stated: float
    share: float
    low: Number
    high: Number
    n: int


class ProbabilityResult(Frozen):
    """The scores as probabilities of the positive label, against what the experts said."""

    n: int
    mean: float
    """Mean stated probability."""
    share: float
    """Share positive by the experts."""
    brier: MetricResult
    log_loss: MetricResult
    ece: float
    ece_if_calibrated: float
    """Mean ECE of calibrated probabilities like these."""
    bins: tuple[CurveBin, ...]
    test: TestResult
    """Of the mean probability against the share positive."""


class BlandAltmanResult(Frozen):
    """Score less expert's number: mean difference and limits of agreement, each with its interval."""

    n: int
    mean: MetricResult
    sd: float
    lower: MetricResult
    """mean - 1.96 sd."""
    upper: MetricResult
    points: tuple[tuple[float, float], ...]
    """(mean of the two, difference) of up to 400 cases, for the picture."""


class ScoreResult(Frozen):
    """One judge's scores."""

    n: int
    """Cases with an expert label and a score."""
    n_without: int
    """Cases with an expert label that it was to answer and gave no score for: they take no part in what is below."""
    auc: MetricResult | None
    """None of all below where the task has no positive label."""
    auc_test: TestResult | None
    average_precision: MetricResult | None
    prevalence: float | None
    """Share positive: the average precision of scores that say nothing."""
    threshold: ThresholdResult | None
    roc: tuple[tuple[float, float], ...]
    """(1 - specificity, sensitivity) of up to 100 thresholds."""
    probabilities: ProbabilityResult | None
    """None where scores are no probabilities."""
    correlations: dict[str, MetricResult]
    """`pearson`, `spearman`, `kendall_tau_b`, and on one scale `icc_2_1`, `icc_3_1`; empty where experts give two
    values or less."""
    bland_altman: BlandAltmanResult | None


class AucDifference(Frozen):
    """AUC of `a` less that of `b` on the cases that both scored."""

    a: str
    b: str
    n: int
    difference: MetricResult
    test: TestResult


class ScoresResult(Frozen):
    """Judges that give numbers."""

    kind: ScoreKind
    rule: str | None
    """None where the threshold was given."""
    n_calibration: int
    """Cases that chose thresholds, and take no part in anything else on the page."""
    n_calibration_groups: int
    judges: dict[str, ScoreResult]
    differences: tuple[AucDifference, ...]
