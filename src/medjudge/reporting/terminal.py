"""The outcome of a run on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from medjudge import artifacts
from medjudge.metrics.coverage import headlines, outcome_sentence
from medjudge.metrics.published import SuiteResults
from medjudge.metrics.result_types import Results
from medjudge.reporting.fitting import wrapped
from medjudge.reporting.gather import _variants
from medjudge.reporting.suite import left_out_text, suite_grids, usage_lines
from medjudge.reporting.tables import audit_tables, grid_tables, results_tables, usage_table
from medjudge.reporting.variants import variants_grid


def print_outcome(folder: Path, console: Console) -> None:
    """The table and the statements of a run, and where its page lies; nothing where it was not evaluated."""
    if (folder / artifacts.SUITE).exists():
        _print_suite(folder, console)
        return
    evaluated = next((f for f in (folder / "evaluate", folder / artifacts.COMPARE) if f.is_dir()), folder)
    path = evaluated / artifacts.RESULTS
    if not path.exists():
        return
    results = artifacts.read_as(path, Results.from_json)
    console.print()
    console.print(Text(wrapped(outcome_sentence(results), console.width), style="bold"))
    console.print()
    tables = results_tables(results, console.width)
    if (variants := _variants(evaluated)) is not None:
        tables = [*grid_tables(variants_grid(variants), console.width), *tables]
    if (usage := usage_table(results)) is not None:
        tables.append(usage)
    for table in (*tables, *audit_tables(results, console.width)):
        console.print(table)
        console.print()
    first = headlines(results)
    for line in first:
        print_point(line, console)
    pages = (folder / "report" / artifacts.REPORT, evaluated / artifacts.REPORT)
    page = next((page for page in pages if page.exists()), None)
    probed = results.probes.statements if results.probes else ()
    others = [*results.statements, *probed, *(results.audit.statements if results.audit else ())]
    n_others = len([line for line in others if line not in first])
    more = f" ({n_others:,} more finding{'' if n_others == 1 else 's'} there)" if n_others else ""
    console.print(f"\nreport: {page}{more}" if page else f"\nresults: {path}{more}", soft_wrap=True)


def print_point(line: str, console: Console) -> None:
    """A sentence as a point of a list; its further lines are indented."""
    console.print(Text(wrapped(line, console.width, bullet=" - ")))


def _print_suite(folder: Path, console: Console) -> None:
    """The benchmark's tables, and where its pages lie."""
    suite = artifacts.read_as(folder / artifacts.SUITE, SuiteResults.from_json)
    for grid in suite_grids(suite):
        for table in grid_tables(grid, console.width, whole=True):
            console.print()
            console.print(table)
    for name, one in suite.sets.items():
        if one.left_out:
            print_point(f"{name}: left out: {left_out_text(one)}", console)
    for note in (*suite.notes, *usage_lines(suite)):
        print_point(note, console)
    console.print(f"\nreport: {folder / artifacts.REPORT}", soft_wrap=True)
