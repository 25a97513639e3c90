"""Reasoning beside labels, as rows of text for the page and the terminal."""

from __future__ import annotations

from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.reasoning import REASONING_METRICS, ReasoningResults
from medjudge.reporting.audit_tables import Cell, Grid, statistic_cell

NOTE = (
    "In per cent, but the judge's score. Alignment is the sentence-wise embedding similarity with the expert's reasons "
    "(F1), rescaled so that another case's reasons have about 0; an unreadable answer counts as 0. Entities count once "
    "per case."
)


def reasoning_grids(reasoning: ReasoningResults, level: float) -> list[Grid]:
    """Every metric (columns) of every model (rows), then the differences from the reference."""
    names = [name for name in REASONING_METRICS if name not in reasoning.not_measured]
    if not names:
        return [Grid("Reasoning", (), (), _small_print(reasoning))]
    heads = tuple(_head(name) for name in names)
    grids = [
        Grid(
            "Reasoning against the experts'",
            heads,
            tuple((model, _cells(row, names)) for model, row in reasoning.models.items()),
            _small_print(reasoning),
        )
    ]
    if reasoning.differences:
        rows = tuple((f"{d.a} minus {d.b}", _cells(d.metrics, names)) for d in reasoning.differences)
        note = (
            f"Points, but the judge's score, on the same cases, with {100 * level:g} % intervals over groups. They are "
            "not tested: an interval that leaves out zero is no claim by itself."
        )
        grids.append(Grid("Differences in reasoning", heads, rows, note))
    return grids


def reasoning_cell(name: str, metric: MetricResult | None) -> Cell:
    """A reasoning metric with its interval."""
    return statistic_cell(metric, percent=name != "judge_score", digits=2)


def _cells(metrics: dict[str, MetricResult], names: list[str]) -> tuple[Cell, ...]:
    return tuple(reasoning_cell(name, metrics.get(name)) for name in names)


def _head(name: str) -> str:
    return REASONING_METRICS[name]


def _small_print(reasoning: ReasoningResults) -> str:
    facts = " ".join(f"{key.capitalize()}: {value}." for key, value in reasoning.facts.items())
    missing: dict[str, list[str]] = {}
    for name, why in reasoning.not_measured.items():
        missing.setdefault(why, []).append(REASONING_METRICS[name])
    absent = " ".join(f"Not measured: {', '.join(names)} ({why})." for why, names in missing.items())
    return " ".join(part for part in (NOTE if reasoning.facts else "", facts, absent) if part)
