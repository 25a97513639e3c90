"""Is this data fit to train and to test on? Every bad row, the labels, lint, and leaks into held-out rows.

medjudge check-data rows.jsonl --task equivalence --where split=train --against rows.jsonl --against-where split=eval
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medjudge.data.leakage import NOTHING_FOUND, Comparison, LeakageReport, check_leakage
from medjudge.data.lint import N_SHOWN, LintReport, lint_cases
from medjudge.data.sources import CaseTable, Plain, parse_where, read_source
from medjudge.settings.data import DataConfig
from medjudge.tasks.contract import TaskContract


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """One of the two sides of a check."""

    name: str
    table: CaseTable
    lint: LintReport


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check_data` found."""

    rows: CheckedSource
    against: CheckedSource | None
    leakage: LeakageReport | None
    max_share: float
    """Share of the held-out cases that may leak, in [0, 1]."""
    allow: tuple[str, ...]
    """Kinds of leak that do not count."""

    @property
    def n_bad_rows(self) -> int:
        """Rows that cannot be used, on both sides."""
        return sum(len(side.table.rejected) for side in (self.rows, self.against) if side)

    @property
    def n_leaks(self) -> int:
        """Held-out cases that leak by a kind that is not allowed."""
        return sum(len(c.case_ids(without=self.allow)) for c in self._comparisons)

    @property
    def ok(self) -> bool:
        """No bad row, and no leak beyond the limit. Lint findings are for a person to judge and do not count."""
        within = all(len(c.case_ids(without=self.allow)) <= self.max_share * c.n_held_out for c in self._comparisons)
        return within and not self.n_bad_rows

    @property
    def _comparisons(self) -> Sequence[Comparison]:
        return self.leakage.comparisons if self.leakage else ()


def check_data(
    path: str,
    contract: TaskContract,
    data: DataConfig,
    *,
    against: str | None = None,
    where: Sequence[str] = (),
    against_where: Sequence[str] = (),
) -> CheckReport:
    """Reads and lints `path`, and looks in it for the cases of `against`.

    `path` is what is learned from, `against` what is held out. `where` and `against_where` hold `column=value`; without
    `where` that of `data` holds for `path`. Bad rows are collected, never refused, whatever `data.bad_rows` says.
    Raises DataError where a source as a whole cannot be read or no row of it can be used.
    """
    filters = parse_where(where) if where else data.where
    rows = _checked(path, contract, data, filters)
    if against is None:
        return CheckReport(rows, None, None, data.leakage.max_share, data.leakage.allow)
    held_out = _checked(against, contract, data, parse_where(against_where))
    # Splits are named in the report, and two sides of one file would share a name.
    if held_out.name == rows.name:
        held_out = CheckedSource(f"{held_out.name} (against)", held_out.table, held_out.lint)
    leakage = check_leakage(
        {rows.name: rows.table.cases},
        {held_out.name: held_out.table.cases},
        near_duplicate_threshold=data.leakage.near_duplicate_threshold,
        likeness_threshold=data.leakage.likeness_threshold,
    )
    return CheckReport(rows, held_out, leakage, data.leakage.max_share, data.leakage.allow)


def _checked(source: str, contract: TaskContract, data: DataConfig, where: Mapping[str, Plain]) -> CheckedSource:
    # A check shows all bad rows at once; refusing at the first would make one run per mistake.
    lenient = {"bad_rows": "set_aside", "duplicates": "keep" if data.duplicates == "keep" else "drop"}
    table = read_source(source, contract, data.model_copy(update=lenient), where=where)
    name = Path(source).name
    if where:
        name += f" [{', '.join(f'{column}={value}' for column, value in where.items())}]"
    return CheckedSource(name, table, lint_cases(table.cases, contract))


def print_check(report: CheckReport, console: Console) -> None:
    """The report for a person: per source rows, labels and findings; then leaks; then the verdict."""
    sides = [side for side in (report.rows, report.against) if side]
    for side in sides:
        _print_rows(side, console)
    _print_labels(sides, console)
    for side in sides:
        _print_lint(side, console)
    if report.leakage:
        for comparison in report.leakage.comparisons:
            _print_leakage(comparison, report, console)
    _print_verdict(report, console)


def _print_rows(side: CheckedSource, console: Console) -> None:
    table = side.table
    parts = [f"{table.n_rows} rows read", f"{len(table.cases)} cases"]
    parts += [f"{table.n_filtered} left out by where"] if table.n_filtered else []
    parts += [f"{table.n_duplicates} repeat another row"] if table.n_duplicates else []
    parts += [f"{table.n_tied} without a label because experts tie"] if table.n_tied else []
    parts += [f"{len(table.rejected)} bad"] if table.rejected else []
    parts.append(f"{len({case.group for case in table.cases})} groups")
    console.print(Text.assemble((side.name, "bold"), ": ", ", ".join(parts)))
    for bad in table.rejected:
        console.print(Text(f"  {bad}", style="red"), soft_wrap=True)


def _print_labels(sides: Sequence[CheckedSource], console: Console) -> None:
    table = Table(title="Labels", title_justify="left", title_style="bold")
    table.add_column("label")
    for side in sides:
        table.add_column(Text(side.name), justify="right")
        table.add_column("share", justify="right")
    for label in sides[0].lint.labels:
        cells = []
        for side in sides:
            n_labelled = side.lint.n_cases - side.lint.n_unlabelled
            count = side.lint.labels[label]
            cells += [str(count), f"{count / n_labelled:.1%}" if n_labelled else "-"]
        table.add_row(Text(label), *cells)
    if any(side.lint.n_unlabelled for side in sides):
        table.add_row("(no label)", *(cell for side in sides for cell in (str(side.lint.n_unlabelled), "-")))
    console.print(table)


def _print_lint(side: CheckedSource, console: Console) -> None:
    if not side.lint.findings:
        console.print(Text.assemble((side.name, "bold"), ": nothing for lint to say"))
        return
    table = Table(title=Text(f"Lint: {side.name}"), title_justify="left", title_style="bold")
    table.add_column("finding", no_wrap=True)
    table.add_column("cases", justify="right")
    table.add_column("what")
    table.add_column("case ids")
    for finding in side.lint.findings:
        shown = ", ".join(finding.case_ids[:N_SHOWN])
        more = f", ... {finding.count - N_SHOWN} more" if len(finding.case_ids) > N_SHOWN else ""
        table.add_row(finding.code, str(finding.count), Text(finding.message), Text(shown + more))
    console.print(table)


def _print_leakage(comparison: Comparison, report: CheckReport, console: Console) -> None:
    """A table of kinds; under it, which single fields recur."""
    title = Text(f"Held-out cases of {comparison.held_out} that occur in {comparison.train}")
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("kind", no_wrap=True)
    for head in ("cases", "share", "same label", "other label", "pairs"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("case ids (held-out = training)")
    for kind, over in comparison.overlaps.items():
        shown = [held_out if held_out == train else f"{held_out} = {train}" for held_out, train in over.pairs[:2]]
        shown += ["..."] if over.n_pairs > 2 else []
        name = kind.replace("_", "-") + (" (allowed)" if kind in report.allow else "")
        style = "red" if over.n_cases and kind not in report.allow else ""
        counts = (over.n_cases_same_label, over.n_cases_other_label, over.n_pairs)
        table.add_row(
            name, str(over.n_cases), f"{over.share:.1%}", *map(str, counts), Text(", ".join(shown)), style=style
        )
    console.print(table)
    recurring = ", ".join(f"{field} {n}" for field, n in comparison.same_field.items())
    console.print(
        Text(f"Of {comparison.n_held_out} held-out cases, the text of one field alone recurs in training: {recurring}.")
    )


def _print_verdict(report: CheckReport, console: Console) -> None:
    parts = []
    if report.n_bad_rows:
        parts.append(f'{report.n_bad_rows} bad rows (correct them, or set data.bad_rows = "set_aside")')
    if report.leakage and report.n_leaks:
        n_held_out = sum(c.n_held_out for c in report.leakage.comparisons)
        within = "" if report.n_leaks > report.max_share * n_held_out else ", within data.leakage.max_share"
        parts.append(
            f"{report.n_leaks} of {n_held_out} held-out cases leak ({report.n_leaks / n_held_out:.1%}{within}): "
            f"split by group, or leave these cases out"
        )
    if not report.ok:
        console.print(Text("NOT OK: " + "; ".join(parts), style="bold red"))
        return
    if not report.n_bad_rows:
        parts.insert(0, "no bad row")
    if not report.leakage:
        parts.append("leaks were not looked for (--against PATH does)")
    elif not report.n_leaks:
        parts.append(NOTHING_FOUND)
    console.print(Text("OK: " + "; ".join(parts), style="bold green"))
