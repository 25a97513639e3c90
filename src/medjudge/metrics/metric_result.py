"""A number as files hold it: with its interval, the rows behind it, and None where it is undefined.

The measures compute with NaN and write None. `Frozen` reads what they return by its attributes, so that a measure's own
value (`Estimate`, `GroupTest`, ...) becomes the stored one without a field being named twice.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

from medjudge.metrics.group_tests import GroupTest
from medjudge.metrics.intervals import Estimate


class Frozen(BaseModel):
    """A part of `results.json`. Unknown fields are refused: a typo in a stored file is not read as an absent value."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


def finite(value: float) -> float | None:
    """The number, or None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def _without_nan(value: Any) -> Any:
    return finite(value) if isinstance(value, float) else value


Number = Annotated[float | None, BeforeValidator(_without_nan)]
"""A number, None where it is undefined: JSON has no NaN."""


class MetricResult(Frozen):
    """One metric of one model, with its interval; None where undefined."""

    value: Number
    low: Number
    high: Number
    n: int
    """Rows behind the value."""
    method: str
    """How the interval was made."""


def measured(estimate: Estimate) -> MetricResult:
    """An estimate as files hold it."""
    return MetricResult.model_validate(estimate)


class TestResult(Frozen):
    """A test as files hold it, before it is corrected for the others of its page."""

    __test__ = False  # not one of pytest's

    p: Number
    """Two-sided, by groups; None where it could not be tested."""
    n_groups: int
    """Groups that carry it."""
    method: str


def tested(test: GroupTest) -> TestResult:
    """A test as files hold it."""
    return TestResult.model_validate(test)
