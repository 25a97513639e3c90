"""The results as a table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from medjudge.metrics.coverage import kinds_under
from medjudge.metrics.judge_pairs import best_model
from medjudge.metrics.result_types import ModelResult, Results
from medjudge.reporting.audit_tables import Cell, Grid, page_grids
from medjudge.reporting.expert_tables import expert_grids
from medjudge.reporting.fitting import Row, fitted_tables
from medjudge.reporting.inputs import (
    DASH,
    chance_text,
    interval_text,
    main_metric,
    main_names,
    method_notes,
    metric_names,
    metric_title,
    not_run,
    value_text,
)
from medjudge.reporting.preference_tables import preference_grids
from medjudge.reporting.probe_tables import probe_grids
from medjudge.reporting.reasoning_tables import reasoning_grids
from medjudge.reporting.score_tables import score_grids

_PAGE_ONLY = {
    "Judged positive, %",
    "Always-positive F1, %",
    "Positive F1, %",
    "AC1",
    "Statistic",
    "Excess SD",
    "MDE, points",
}
"""Columns of the audit's tables that a terminal is too narrow for."""


def results_tables(results: Results, width: int, *, all_metrics: bool = False) -> list[RenderableType]:
    """Models by metrics with intervals, n and n_unparsed, in as many parts as a terminal of this width needs.

    Baselines are dimmed. No value is marked as the best: whether one model beats another is for `results.statements`
    to say, by a test. all_metrics: also those that fit a wide terminal only.
    """
    names = main_names(results)
    if all_metrics:
        names = [*names, *(name for name in metric_names(results) if name not in names)]
    heads = ["model", "n", "unparsed", *map(metric_title, names), "vs chance"]
    rows = []
    for role in ("model", "baseline"):
        models = results.of_role(role)
        for number, (name, model) in enumerate(models.items()):
            cells = tuple(_cells(name, model, results, names))
            rows.append(Row(cells, "dim" if role == "baseline" else None, number == len(models) - 1))
    return fitted_tables(
        heads,
        rows,
        width,
        title=f"{results.task}, split {results.split!r}: {results.n_cases:,} cases in {results.n_groups:,} groups",
        note="\n".join([*method_notes(results), *(f"{names} not run: {why}" for names, why in not_run(results))]),
        left=(len(heads) - 1,),
    )


def audit_tables(results: Results, width: int) -> list[RenderableType]:
    """Slices, generators, and judges against each other, where there are any; the page has the rest."""
    grids = page_grids(results)
    reasoning = reasoning_grids(results.reasoning, results.level)[:1] if results.reasoning else []
    tables: list[RenderableType] = []
    # The human ceiling belongs beside the judges; agreement in detail is for the page.
    for grid in (*expert_grids(results)[:1], *score_grids(results)):
        tables += grid_tables(grid, width)
    for grid in (
        *grids["prompts"],
        *grids["slices"],
        *grids["generators"],
        *grids["pairs"],
        *preference_grids(results.preferences),
        *probe_grids(results),
    ):
        tables += grid_tables(grid, width, noted=False)
    for grid in reasoning:
        tables += grid_tables(grid, width)
    return tables


def grid_tables(grid: Grid, width: int, *, noted: bool = True, whole: bool = False) -> list[RenderableType]:
    """A grid for a terminal of this width; `whole`: also what only a page has room for. `noted`: with its notes."""
    places = [place for place, column in enumerate(grid.columns) if whole or column not in _PAGE_ONLY]
    rows = [Row((Text(head), *(_stacked(cells[place]) for place in places))) for head, cells in grid.rows]
    heads = ["", *(grid.columns[place] for place in places)]
    return fitted_tables(heads, rows, width, title=grid.caption, note=grid.note if noted else "")


def _stacked(cell: Cell) -> Text:
    under = cell.under.replace(" to ", DASH)
    return Text(cell.text).append(f"\n{under}" if under else "", style="dim")


def usage_table(results: Results) -> Table | None:
    """What the models behind endpoints were asked, and what that took and cost; None where there are none."""
    usages = {name: model.usage for name, model in results.models.items() if model.usage is not None}
    if not usages:
        return None
    table = Table(
        title="Endpoints",
        caption="What is refused, cut off or failed and holds no verdict counts as wrong.",
        title_justify="left",
        caption_justify="left",
        caption_style="dim",
    )
    table.add_column("")
    for name in usages:
        table.add_column(Text(name), justify="right", no_wrap=True)
    rows: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "answers (from cache)": lambda u: f"{u['n_answered']:,} ({u['n_from_cache']:,})",
        "requests (retries)": lambda u: f"{u['n_requests']:,} ({u['n_retries']:,})",
        "refused / cut off / failed": lambda u: f"{u['n_refused']:,} / {u['n_truncated']:,} / {u['n_failed']:,}",
        "tokens in / out": lambda u: f"{u['prompt_tokens']:,} / {u['completion_tokens']:,}",
        "cost of all answers (of new ones)": lambda u: _cost(u["cost_usd"], u["new_cost_usd"]),
        "seconds per answer, median / p95": lambda u: _seconds(u["latency_median_s"], u["latency_p95_s"]),
    }
    for heading, cell in rows.items():
        table.add_row(heading, *(cell(usage) for usage in usages.values()))
    return table


def _cost(all_usd: float | None, new_usd: float | None) -> str:
    if all_usd is None or new_usd is None:
        return "no prices set"
    return f"${all_usd:,.4f} (${new_usd:,.4f})"


def _seconds(median_s: float | None, p95_s: float | None) -> str:
    return DASH if median_s is None or p95_s is None else f"{median_s:.2f} / {p95_s:.2f}"


def _cells(name: str, model: ModelResult, results: Results, metrics: list[str]) -> list[Text]:
    answered = f"\n{model.n_answered:,} answered" if model.n_unparsed else ""
    kinds = "".join(f"\n{line}" for line in kinds_under(model.unanswered))
    is_best = name == best_model(results.models, "baseline")
    cells = [
        Text(name).append("\nbest baseline" if is_best else "", style="dim"),
        Text(f"{model.n:,}").append(answered, style="dim"),
        Text(f"{model.n_unparsed:,}").append(kinds, style="dim"),
    ]
    for metric_name in metrics:
        metric = main_metric(results, name, metric_name)
        if metric is None:
            cells.append(Text(DASH))
            continue
        interval = interval_text(metric, metric_name).replace(" to ", DASH)
        cells.append(Text(value_text(metric, metric_name)).append(f"\n{interval}" if interval else "", style="dim"))
    cells.append(Text(chance_text(name, results)))
    return cells
