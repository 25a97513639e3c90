"""A recipe's variants side by side: the table of the published work with intervals, and its picture."""

from __future__ import annotations

from collections.abc import Mapping

from medjudge.metrics.coverage import kinds_under
from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.reasoning import REASONING_METRICS
from medjudge.metrics.variants import VariantRow, Variants
from medjudge.reporting.audit_tables import Cell, Grid, number, statistic_cell
from medjudge.reporting.figures import GREY, Picture, panels, short_names
from medjudge.reporting.inputs import DASH, metric_title

LABEL_METRICS = ("macro_f1", "weighted_f1")
REASONING_COLUMNS = ("alignment", "judge_score", "entity_f1", "citations_valid", "citing")
_LONGEST = 16


def variants_grid(variants: Variants) -> Grid:
    """Variants (rows) by macro-F1, weighted F1, reasoning, and training time."""
    columns = shown_columns(variants)
    rows = [
        (
            row.name,
            (
                *(_cell(name, row) for name in columns),
                Cell(f"{row.n:,}"),
                Cell(f"{row.n_unparsed:,}", ", ".join(kinds_under(row.unanswered))),
            ),
        )
        for row in variants.rows
    ]
    width = len(columns) + 2
    rows += [(name, (Cell("not trained"), *[Cell(DASH)] * (width - 1))) for name in variants.not_trained]
    return Grid("Variants", (*map(_head, columns), "n", "Unparsed"), tuple(rows), _note(variants))


def shown_columns(variants: Variants) -> list[str]:
    """What the variants were measured by."""
    measured = [
        name
        for name in (*LABEL_METRICS, *REASONING_COLUMNS)
        if any((m := row.metrics.get(name)) is not None and m.value is not None for row in variants.rows)
    ]
    return [*measured, "relative_time"] if any(row.relative_time for row in variants.rows) else measured


def variants_picture(variants: Variants, colors: Mapping[str, str]) -> Picture:
    """A panel per column: each variant's value and interval. colors: model -> its colour on the page."""
    columns = shown_columns(variants)
    names = short_names([row.name for row in variants.rows], _LONGEST)
    with panels(len(columns), row_height=0.8 + 0.33 * len(names)) as (figure, axes):
        for position, (axis, column) in enumerate(zip(axes, columns, strict=True)):
            percent = _in_percent(column)
            for i, row in enumerate(variants.rows):
                metric = _metric(column, row)
                if metric is None or metric.value is None:
                    continue
                factor = 100 if percent else 1
                color = colors.get(row.name, GREY)
                if metric.low is not None and metric.high is not None:
                    axis.plot([factor * metric.low, factor * metric.high], [i, i], color=color, linewidth=1.8)
                axis.plot([factor * metric.value], [i], marker="o", markersize=5, color=color)
            axis.set_yticks(range(len(names)), names if position % 2 == 0 else [""] * len(names))
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x")
            axis.set_title(_head(column) + (", %" if percent else ""))
    spoken = "; ".join(
        f"{row.name}: "
        + ", ".join(f"{_head(c)} {number(m.value, _in_percent(c), 2)}" for c in columns if (m := _metric(c, row)))
        for row in variants.rows
    )
    return Picture("variants", "Variants side by side", f"Value and interval per variant. {spoken}.", figure)


def _metric(column: str, row: VariantRow) -> MetricResult | None:
    return row.relative_time if column == "relative_time" else row.metrics.get(column)


def _cell(column: str, row: VariantRow) -> Cell:
    return statistic_cell(_metric(column, row), percent=_in_percent(column), digits=2)


def _in_percent(column: str) -> bool:
    return column not in ("judge_score", "relative_time")


def _head(column: str) -> str:
    if column == "relative_time":
        return "Training time, relative"
    return REASONING_METRICS.get(column) or metric_title(column)


def _note(variants: Variants) -> str:
    seconds = ", ".join(
        f"{row.name} {row.seconds_per_step.value:.2f}"
        for row in variants.rows
        if row.seconds_per_step is not None and row.seconds_per_step.value is not None
    )
    parts = [
        f"In per cent, but scores and times; {100 * variants.level:g} % intervals over groups of cases.",
        f"Training time is that of a GRPO step against {variants.reference}'s, one run each, with an interval over "
        f"logged steps; seconds per step: {seconds}."
        if seconds
        else "",
        *(f"{name} was not trained: {why}" for name, why in variants.not_trained.items()),
    ]
    by_reason: dict[str, list[str]] = {}
    for name, why in variants.not_measured.items():
        by_reason.setdefault(why, []).append(_head(name))
    parts += [f"Not measured: {', '.join(names)} ({why})." for why, names in by_reason.items()]
    return " ".join(part for part in parts if part)
