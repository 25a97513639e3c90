"""Numbers and counts in words, as sentences, tables and pages share them."""

from __future__ import annotations

from collections.abc import Sequence

from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.result_types import Results

NO_LEAKAGE_CHECK = "Leakage: no check was made between these rows and the rows the models were trained on."


def percent(value: float | None, digits: int = 1) -> str:
    """0.2604 -> "26.0 %"; None -> "undefined"."""
    return "undefined" if value is None else f"{100 * value:.{digits}f} %"


def p_value(p: float) -> str:
    """0.62 -> "p = .62"; 0.0312 -> "p = .031"; 0.00004 -> "p < .001"."""
    if p < 0.001:
        return "p < .001"
    if p > 0.995:
        return "p = 1"
    return "p = " + (f"{p:.3f}" if p < 0.0995 else f"{p:.2f}").removeprefix("0")


def signed(value: float) -> str:
    """3.24 -> "+3.2"; zero, from either side, is "+0.0"."""
    return f"{round(value, 1) + 0.0:+.1f}"


def counted(n: int, noun: str) -> str:
    """1, "case" -> "1 case"; 1257, "case" -> "1,257 cases"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def listed(names: Sequence[str]) -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def with_ends(metric: MetricResult) -> str:
    """A share with its interval: "61.0 % (52.3 to 69.1)"."""
    if metric.low is None or metric.high is None:
        return percent(metric.value)
    return f"{percent(metric.value)} ({100 * metric.low:.1f} to {100 * metric.high:.1f})"


def leakage_line(results: Results) -> str:
    """What the leakage check found, in one sentence; says so if none was made."""
    if not results.leakage.get("comparisons", True):
        return NO_LEAKAGE_CHECK
    return str(results.leakage.get("summary_line") or NO_LEAKAGE_CHECK)
