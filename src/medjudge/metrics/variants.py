"""Variants of one recipe side by side: the columns of the published table, and what training took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.metric_result import Frozen, MetricResult, finite

FloatArray = NDArray[np.float64]
STEPS = "percentile bootstrap over logged steps"


class VariantRow(Frozen):
    """One variant's trained model."""

    name: str
    n: int
    n_unparsed: int
    unanswered: dict[str, int] = {}  # noqa: RUF012  (pydantic copies it)
    """Kind of `classification.KINDS` -> count of the cases without a verdict."""
    metrics: dict[str, MetricResult]
    """`macro_f1`, `weighted_f1` and the reasoning metrics, as far as they were measured."""
    seconds_per_step: MetricResult | None
    """Mean wall time of a GRPO step, rollouts and rewards included; None for a model that GRPO did not train."""
    relative_time: MetricResult | None
    """The same as a multiple of the reference's."""
    rewards: dict[str, float]
    """Term -> weight; empty for a model that was not trained on rewards."""


class Variants(Frozen):
    """The content of `compare.json`."""

    reference: str
    rows: tuple[VariantRow, ...]
    not_trained: dict[str, str]
    """Variant -> why there is no model of it."""
    not_measured: dict[str, str]
    """Metric -> why it was not measured."""
    level: float


def step_times(
    seconds: Mapping[str, Sequence[float]], reference: str, *, level: float, n_resamples: int, seed: int
) -> dict[str, tuple[MetricResult, MetricResult | None]]:
    """Variant -> (mean seconds per step, the same over the reference's), with intervals over the logged steps.

    The intervals tell how steps differ within these runs, not how another run or another load of the machine would.
    """
    drawn = {name: _resampled_means(values, n_resamples, seed) for name, values in seconds.items() if values}
    times: dict[str, tuple[MetricResult, MetricResult | None]] = {}
    for name, means in drawn.items():
        n, mean = len(seconds[name]), float(np.mean(seconds[name]))
        relative = None
        if reference in drawn and name != reference:
            ratio = mean / float(np.mean(seconds[reference]))
            # Another seed than the reference's: the two runs' steps have nothing to do with one another.
            others = _resampled_means(seconds[name], n_resamples, seed + 1)
            relative = _with_interval(ratio, others / drawn[reference], level, n)
        elif name == reference:
            relative = MetricResult(value=1.0, low=None, high=None, n=n, method="by definition")
        times[name] = (_with_interval(mean, means, level, n), relative)
    return times


def _resampled_means(values: Sequence[float], n_resamples: int, seed: int) -> FloatArray:
    steps = np.asarray(values, dtype=np.float64)
    drawn: FloatArray = np.random.default_rng(seed).choice(steps, size=(n_resamples, len(steps))).mean(axis=1)
    return drawn


def _with_interval(value: float, draws: FloatArray, level: float, n: int) -> MetricResult:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) if n > 1 else (np.nan, np.nan)
    return MetricResult(value=finite(value), low=finite(float(low)), high=finite(float(high)), n=n, method=STEPS)
