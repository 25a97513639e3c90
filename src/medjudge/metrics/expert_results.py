"""What `results.json` holds of several experts per case: their agreement, and every judge beside them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from medjudge.metrics.metric_result import Frozen, MetricResult, Number, TestResult

Metrics = dict[str, MetricResult]


def _with(*names: str) -> AfterValidator:
    """That a mapping holds what pages show without asking."""

    def check(metrics: Metrics) -> Metrics:
        if missing := [name for name in names if name not in metrics]:
            raise ValueError(f"expected `{missing[0]}`")
        return metrics

    return AfterValidator(check)


class RaterPairResult(Frozen):
    """Two experts on the cases that both rated."""

    a: str
    b: str
    n: int
    statistics: dict[str, MetricResult]
    """`accuracy_on_schema` (their agreement), `kappa`, with an ordered scale `kappa_quadratic`."""


class BesideOthers(Frozen):
    """A judge or experts against the majority of the other experts; a row is a case and the expert left out."""

    n: int
    n_cases: int
    statistics: Annotated[Metrics, _with("accuracy")]
    """`accuracy`, `kappa`, `gwet_ac1`, with an ordered scale `kappa_quadratic`, with a positive label `tpr`, `tnr`."""


class JudgeBesideExperts(BesideOthers):
    """One judge on the same rows as the experts."""

    ceiling: MetricResult
    """Accuracy of the experts on this judge's rows."""
    difference: MetricResult
    """Accuracy of the judge less that of the experts, in points."""
    test: TestResult


class AnnotatorResult(Frozen):
    """One expert in the alternative annotator test."""

    rater: str
    n: int
    n_groups: int
    judge_advantage: float
    """Share of cases on which the judge is at least as close to the other experts as this one."""
    rater_advantage: float
    p: Number
    """One-sided: small where leaving this expert out for the judge loses less than epsilon."""
    rejected: bool
    """By Benjamini and Yekutieli's method over the experts."""


class AlternativeAnnotator(Frozen):
    """The alternative annotator test of one judge."""

    alignment: str
    """How closeness to the other experts is measured: share of equal labels, or root mean square of the distance."""
    epsilon: float
    q: float
    winning_rate: float
    """Omega: share of the experts whose hypothesis is rejected."""
    advantage: MetricResult
    """Rho: the mean over experts of the judge's advantage."""
    annotators: tuple[AnnotatorResult, ...]
    n_left_out: int
    """Experts with too few cases."""
    test: TestResult
    """Of the hypothesis that fewer than half of the experts could be replaced: partial conjunction of their p."""


class SliceDisagreement(Frozen):
    """The cases of one value of a slice."""

    value: str
    n: int
    """Cases with two ratings or more."""
    disagreement: MetricResult
    """Share of them on which the experts are not unanimous."""
    positive: MetricResult | None
    """Share of positive ratings; None where the task has no positive label."""


class ExpertsResult(Frozen):
    """Several experts per case."""

    n_cases: int
    """Cases with two ratings or more."""
    n_ratings: int
    n_raters: int
    n_tied: int
    """Cases whose ratings gave no label."""
    n_undecided: int
    """Pairs of case and expert left out because the other experts have no majority."""
    agreement: Annotated[Metrics, _with("percent", "alpha_nominal")]
    """Names of `rater_agreement.COEFFICIENTS`."""
    pairs: tuple[RaterPairResult, ...]
    """Empty with more experts than `rater_agreement.MOST_RATERS`."""
    ceiling: BesideOthers | None
    """Each expert against the majority of the others, all together; None where no others have a majority."""
    raters: dict[str, BesideOthers]
    judges: dict[str, JudgeBesideExperts]
    alternative: dict[str, AlternativeAnnotator]
    not_tested: dict[str, str] = {}  # noqa: RUF012  (pydantic copies it)
    """Judge -> why the alternative annotator test was not made."""
    slices: dict[str, tuple[SliceDisagreement, ...]] = {}  # noqa: RUF012  (pydantic copies it)
    """`all`, then the name of each slice -> its values."""
