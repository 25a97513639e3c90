"""The results as a table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medjudge.metrics.coverage import kind_counts
from medjudge.metrics.results import ModelResult, Results
from medjudge.reporting.audit_tables import Cell, Grid, page_grids
from medjudge.reporting.inputs import (
    DASH,
    chance_text,
    interval_text,
    main_metric,
    main_names,
    method_notes,
    metric_names,
    metric_title,
    value_text,
)
from medjudge.reporting.probe_tables import probe_grids
from medjudge.reporting.reasoning_tables import reasoning_grids

_PAGE_ONLY = {"Judged positive, %", "Always-positive F1, %", "Positive F1, %", "AC1", "Statistic", "SD left over"}
"""Columns of the audit's tables that a terminal is too narrow for."""

_COLUMN_WIDTH = 13
"""Of a metric with its interval, borders included."""


def results_tables(results: Results, width: int) -> list[Table]:
    """`results_table`, in as many parts as a terminal of this width needs: accuracy and coverage first."""
    whole = results_table(results)
    if Console(width=max(width, 1000)).measure(whole).minimum <= width:
        return [whole]
    names = main_names(results)
    first = [name for name in names if name in ("accuracy", "accuracy_on_schema", "schema_pass_rate")]
    rest = [name for name in names if name not in first]
    longest = max(map(len, results.models))
    n_parts = -(-len(rest) // max(1, (width - longest - 4) // _COLUMN_WIDTH - 1))
    size = -(-len(rest) // max(n_parts, 1))
    parts = [first, *(rest[start : start + size] for start in range(0, len(rest), max(size, 1)))]
    last = len(parts) - 1
    tables = [
        results_table(results, names=part, counts=not place, chance=place == last) for place, part in enumerate(parts)
    ]
    for table in tables[:-1]:
        table.caption = None
    for table in tables[1:]:
        table.title = None
    return tables


def results_table(
    results: Results,
    *,
    all_metrics: bool = False,
    names: list[str] | None = None,
    counts: bool = True,
    chance: bool = True,
) -> Table:
    """Models by metrics with intervals, n and n_unparsed; baselines dimmed. `Console.print` shows it.

    No value is marked as the best: whether one model beats another is for `results.statements` to say, by a test.
    all_metrics: also those that fit a wide terminal only. names: these metrics instead.
    counts, chance: with the columns on how many cases were answered, and on chance.
    """
    if names is None:
        main = main_names(results)
        names = [*main, *(name for name in metric_names(results) if name not in main)] if all_metrics else main
    table = Table(
        title=f"{results.task}, split {results.split!r}: {results.n_cases:,} cases in {results.n_groups:,} groups",
        caption="\n".join(method_notes(results)),
        title_justify="left",
        caption_justify="left",
        caption_style="dim",
    )
    table.add_column("model", overflow="fold", min_width=min(12, max(map(len, results.models))))
    if counts:
        table.add_column("n", justify="right", min_width=8)
        table.add_column("unparsed", justify="right", min_width=8)
    for name in names:
        table.add_column(metric_title(name), justify="right", min_width=10, overflow="fold")
    if chance:
        table.add_column("vs chance", overflow="fold", min_width=9)
    for role in ("model", "baseline"):
        rows = results.of_role(role)
        for number, (name, model) in enumerate(rows.items()):
            cells = _cells(name, model, results, names)
            table.add_row(
                *[cells[0], *(cells[1:3] if counts else []), *cells[3:-1], *(cells[-1:] if chance else [])],
                style="dim" if role == "baseline" else None,
                end_section=number == len(rows) - 1,
            )
    return table


def audit_tables(results: Results) -> list[Table]:
    """Slices, generators, and judges against each other, where there are any; the page has the rest."""
    grids = page_grids(results)
    reasoning = reasoning_grids(results.reasoning, results.level)[:1] if results.reasoning else []
    tables = []
    for grid in (*grids["prompts"], *grids["slices"], *grids["generators"], *grids["pairs"], *probe_grids(results)):
        tables.append(grid_table(grid, noted=False))
    return [*tables, *map(grid_table, reasoning)]


def grid_table(grid: Grid, *, noted: bool = True, whole: bool = False) -> Table:
    """A grid for the terminal; `whole`: also what only a page has room for. `noted`: with its small print."""
    table = Table(
        title=grid.caption,
        title_justify="left",
        caption=grid.note if noted else None,
        caption_justify="left",
        caption_style="dim",
    )
    kept = [place for place, column in enumerate(grid.columns) if whole or column not in _PAGE_ONLY]
    table.add_column("", overflow="fold")
    for place in kept:
        table.add_column(grid.columns[place], justify="right", min_width=6)
    for head, cells in grid.rows:
        table.add_row(Text(head), *(_stacked(cells[place]) for place in kept))
    return table


def _stacked(cell: Cell) -> Text:
    under = cell.under.replace(" to ", DASH)
    return Text(cell.text).append(f"\n{under}" if under else "", style="dim")


def usage_table(results: Results) -> Table | None:
    """What the models behind endpoints were asked, and what that took and cost; None where there are none."""
    asked = {name: model.usage for name, model in results.models.items() if model.usage is not None}
    if not asked:
        return None
    table = Table(
        title="Endpoints",
        caption="What is refused, cut off or failed and holds no verdict counts as wrong.",
        title_justify="left",
        caption_justify="left",
        caption_style="dim",
    )
    table.add_column("")
    for name in asked:
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
        table.add_row(heading, *(cell(usage) for usage in asked.values()))
    return table


def _cost(all_usd: float | None, new_usd: float | None) -> str:
    if all_usd is None or new_usd is None:
        return "no prices set"
    return f"${all_usd:,.4f} (${new_usd:,.4f})"


def _seconds(median_s: float | None, p95_s: float | None) -> str:
    return DASH if median_s is None or p95_s is None else f"{median_s:.2f} / {p95_s:.2f}"


def _cells(name: str, model: ModelResult, results: Results, metrics: list[str]) -> list[Text]:
    answered = f"\n{model.n_answered:,} answered" if model.n_unparsed else ""
    kinds = "".join(f"\n{count:,} {word}" for word, count in kind_counts(model.unanswered).items())
    cells = [
        Text(name),
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
