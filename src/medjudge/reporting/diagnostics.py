"""The pre-flight and the doctor in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from medjudge.diagnostics.checks import CHECKS, Check, Status
from medjudge.diagnostics.observation import shown
from medjudge.diagnostics.preflight import Preflight
from medjudge.reporting.inputs import DASH

STYLES: dict[Status, str] = {"passed": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


def print_preflight(result: Preflight, console: Console) -> None:
    """The checks, what each term of the reward pays, the causes of what failed, and the verdict."""
    table = Table(box=None, padding=(0, 0, 0, 2), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in result.checks:
        text = Text.assemble(CHECKS[check.name], (f". {check.told}" if check.told else "", "dim"))
        table.add_row(Text(check.status, STYLES[check.status]), text)
    console.print(table)
    if result.terms:
        console.print()
        console.print(_term_table(result))
    for check in result.checks:
        if check.causes:
            _print_causes(check, console)
    console.print()
    console.print(Text.assemble("  pre-flight ", _verdict(result), f" in {result.seconds:.1f} s"))


def print_doctor(report: Mapping[str, Any], console: Console) -> None:
    """What the doctor named in a whole training, or that it named nothing."""
    causes = [finding for finding in report["findings"] if finding["explained_by"] is None]
    if not causes:
        console.print(f"          [dim]doctor: nothing found in {report['n_steps']:,} steps[/]")
    for finding in causes:
        colour = "red" if finding["severity"] == "severe" else "yellow"
        last = finding["last_step"]
        end = "still there at the end" if last == report["n_steps"] else f"last seen at step {last}"
        console.print(
            Text.assemble("  doctor: ", (finding["title"], colour), f" (from step {finding['since_step']}, {end})")
        )


def _verdict(result: Preflight) -> Text:
    if not result.passed:
        word = "failed, and was forced" if result.forced else "failed"
        return Text(f"{word}: {', '.join(check.name for check in result.failures)}", "bold red")
    if result.warnings:
        return Text(f"passed, with a look at: {', '.join(check.name for check in result.warnings)}", "yellow")
    return Text("passed", "green")


def _term_table(result: Preflight) -> Table:
    table = Table(
        box=None, padding=(0, 0, 0, 2), title="What each component pays, weight applied", title_justify="left"
    )
    table.add_column("component", overflow="fold")
    for column in ("weight", "most", "gold", "other\nrows", "policy", "sd", "groups\nthat differ"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result.terms:
        table.add_row(
            row.name,
            f"{row.weight:g}",
            *(_number(v) for v in (row.most, row.gold, row.shuffled, row.policy, row.policy_sd)),
            DASH if row.groups_with_spread is None else f"{row.groups_with_spread:.0%}",
        )
    return table


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3g}"


def _print_causes(check: Check, console: Console) -> None:
    console.print()
    console.print(Text.assemble("  ", (check.status, STYLES[check.status]), f"  {CHECKS[check.name]}"))
    for cause in check.causes:
        console.print(Padding.indent(Text(cause), 4))
    if check.evidence is not None:
        row = check.evidence
        earned = "nothing" if row.reward is None else f"{row.reward:g}"
        line = f"e.g. case {row.case_id}, earning {earned}"
        console.print(
            Padding.indent(Text(f"{line}: {shown(row.completion, 160)}" if row.completion else line, "dim"), 4)
        )
