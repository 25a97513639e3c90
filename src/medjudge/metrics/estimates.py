"""Every number of one judge, each with one interval: what the tables of results and the audit both take theirs from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medjudge.metrics.agreement import agreement_estimates
from medjudge.metrics.classification import (
    PROPORTIONS,
    Outcomes,
    classification_metrics,
    count_options,
    group_counts,
    metric_n,
    metrics_from_counts,
)
from medjudge.metrics.intervals import Estimate, bootstrap_interval, resample_sums
from medjudge.metrics.metric_result import MetricResult, measured

MAX_AGREEMENT_RESAMPLES = 1000
"""The most that statistics and the audit draw, whatever is asked for: their jackknife intervals seldom need any."""


@dataclass(frozen=True, slots=True)
class JudgeEstimates:
    """The numbers of one judge. A name in both is one number with one interval."""

    metrics: dict[str, MetricResult]
    """Those of `classification_metrics`: what the table of results shows."""
    statistics: dict[str, MetricResult]
    """Those of `agreement.STATISTICS` that the task has: what the audit shows."""


def judge_estimates(
    outcomes: Outcomes, *, level: float = 0.95, n_resamples: int = 2000, seed: int = 42
) -> JudgeEstimates:
    """Every number of one judge with its interval. Raises DataError on zero rows.

    Where a metric is one of `agreement.STATISTICS` it has that statistic's interval. The metrics that are left, shares
    of answers in readable form above all, get a bootstrap over groups. All judges see the same resamples, drawn from
    `seed`.
    """
    # A new `rng` from the seed for each judge and each kind of draw: what else is measured changes no number here.
    drawn_statistics = agreement_estimates(
        outcomes,
        level=level,
        n_resamples=min(n_resamples, MAX_AGREEMENT_RESAMPLES),
        rng=np.random.default_rng(seed),
    )
    statistics = {name: measured(estimate) for name, estimate in drawn_statistics.items()}
    counts = group_counts(outcomes)
    counts = counts[counts.sum((1, 2)) > 0]  # groups that this judge has no row in carry nothing
    sums = resample_sums(counts, n_resamples, np.random.default_rng(seed))
    drawn = metrics_from_counts(sums, **count_options(outcomes))

    def bootstrapped(name: str, value: float) -> MetricResult:
        interval = bootstrap_interval(
            value, drawn[name], level=level, n_groups=len(counts), proportion=name in PROPORTIONS
        )
        return measured(Estimate(value, interval.low, interval.high, metric_n(outcomes, name), interval.method))

    metrics = {
        name: statistics[name] if name in statistics else bootstrapped(name, value)
        for name, value in classification_metrics(outcomes).items()
    }
    return JudgeEstimates(metrics, statistics)
