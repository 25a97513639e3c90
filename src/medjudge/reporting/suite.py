"""The benchmark as tables and one page: each number as we score it, and as the published scheme does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.metrics.coverage import kinds_text
from medjudge.metrics.published import IN_PERCENT, METRICS, JudgeOnSet, SetResult, SuiteResults
from medjudge.reporting.audit_tables import Cell, Grid, number
from medjudge.reporting.html import template_environment
from medjudge.reporting.inputs import DASH
from medjudge.version import __version__

BINARY = ("accuracy", "precision", "recall", "f1")
SCALES = ("accuracy", "f1", "pearson", "spearman", "kendall")
NOTE = (
    "Upper value: what cannot be read counts as wrong. In brackets: the published scheme, which drops it first and "
    "writes 0 for everything where that is more than 20 % (*). Correlations: over answers that were read."
)


def suite_grids(suite: SuiteResults) -> list[Grid]:
    """One table for pass-or-fail sets, one for scales of three and five points; those without a set are left out."""
    grids = []
    for caption, columns, points in (
        ("Pass or fail; precision, recall and F1 of 1", BINARY, (2,)),
        ("Three and five points; F1 is the macro average", SCALES, (3, 5)),
    ):
        rows = [
            (f"{set_name} · {name}" if len(suite.models) > 1 else set_name, _cells(judge, columns))
            for set_name, one in suite.sets.items()
            if one.points in points
            for name, judge in one.judges.items()
        ]
        if rows:
            heads = tuple(METRICS[name] + (", %" if name in IN_PERCENT else "") for name in columns)
            grids.append(Grid(caption, ("Unparsed", *heads), tuple(rows)))
    return [*grids[:-1], *(replace(grid, note=NOTE) for grid in grids[-1:])]


def _cells(judge: JudgeOnSet, columns: tuple[str, ...]) -> tuple[Cell, ...]:
    dropped = judge.published.n_dropped
    cells = [
        Cell(f"{judge.n_unparsed:,} of {judge.n:,}", " ".join([f"({dropped:,})", kinds_text(judge.unanswered)]).strip())
    ]
    for name in columns:
        percent = name in IN_PERCENT
        ours, theirs = judge.honest.get(name), judge.published.metrics.get(name)
        shown = DASH if ours is None else number(ours.value, percent)
        why = ""
        if ours is not None and ours.low is not None and ours.high is not None:
            why = f"{number(ours.low, percent)} to {number(ours.high, percent)}, {ours.method}, n = {ours.n:,}"
        under = "(0 *)" if judge.published.is_zeroed else f"({number(theirs, percent)})"
        cells.append(Cell(shown, under, why))
    return tuple(cells)


def usage_lines(suite: SuiteResults) -> list[str]:
    """What each endpoint was asked over all sets, and what that cost."""
    lines = []
    for name in suite.models:
        used = [one.judges[name].usage or {} for one in suite.sets.values() if name in one.judges]
        if not any(used):
            continue
        answered, cached, failed = (sum(u[key] for u in used) for key in ("n_answered", "n_from_cache", "n_failed"))
        costs = [u["cost_usd"] for u in used]
        cost = "no prices set" if None in costs else f"${sum(costs):,.4f} in all"
        lines.append(f"{name}: {answered:,} answers ({cached:,} from cache), {failed:,} failed, {cost}")
    return lines


def left_out_text(one: SetResult) -> str:
    """Why rows take no part, with their numbers."""
    return "; ".join(f"{reason} ({count:,})" for reason, count in one.left_out.items()) or DASH


def write_suite_page(suite: SuiteResults, folder: Path, commands: list[Any], versions: Mapping[str, str]) -> Path:
    """Writes `index.html` of a benchmark's folder; the pages of its sets lie beside it. Returns its path.

    versions: of the packages that measured, where they are known.
    """
    page = (
        template_environment()
        .get_template("suite.html.j2")
        .render(
            suite=suite,
            title=f"{folder.absolute().name}: rubric-judge benchmark",
            version=__version__,
            grids=suite_grids(suite),
            n_cases=sum(one.n_cases for one in suite.sets.values()),
            left_out=left_out_text,
            notes=[*suite.notes, *usage_lines(suite)],
            commands=commands,
            versions=versions,
        )
    )
    path = folder / artifacts.REPORT
    artifacts.write_text(path, page)
    return path
