"""A number as files hold it: with its interval, the rows behind it, and None where it is undefined."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from medjudge.metrics.group_tests import GroupTest
from medjudge.metrics.intervals import Estimate


class Frozen(BaseModel):
    """A part of `results.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricResult(Frozen):
    """One metric of one model, with its interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Rows behind the value."""
    method: str
    """How the interval was made."""


def finite(value: float) -> float | None:
    """The number, or None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def measured(estimate: Estimate) -> MetricResult:
    """An estimate as files hold it."""
    return MetricResult(
        value=finite(estimate.value),
        low=finite(estimate.low),
        high=finite(estimate.high),
        n=estimate.n,
        method=estimate.method,
    )


class TestResult(Frozen):
    """A test as files hold it, before it is corrected for the others of its page."""

    __test__ = False  # not one of pytest's

    p: float | None
    """Two-sided, by groups; None where it could not be tested."""
    n_groups: int
    """Groups that carry it."""
    method: str


def tested(test: GroupTest) -> TestResult:
    """A test as files hold it."""
    return TestResult(p=finite(test.p), n_groups=test.n_groups, method=test.method)
