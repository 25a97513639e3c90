"""The one look of progress in a terminal. No torch here: judging through an endpoint needs none."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Remaining


def training_bar(console: Console) -> Progress:
    """The one look of every progress bar: title, bar, count, elapsed and remaining time, figures."""
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        Remaining(compact=True, elapsed_when_finished=False),
        TextColumn("[dim]{task.fields[info]}"),
        console=console,
        transient=True,
    )


class Bar:
    """A progress bar over `total` things for a `with` block; a line at the end where there is no terminal."""

    def __init__(self, title: str, total: int, console: Console) -> None:
        """Shows nothing before the block is entered."""
        self.title, self.total, self.console = title, total, console
        self.progress = training_bar(console) if console.is_terminal else None
        self.task: TaskID | None = None
        self.started_s = 0.0

    def __enter__(self) -> Bar:
        """Opens the bar."""
        self.started_s = time.monotonic()
        if self.progress is not None:
            self.progress.start()
            self.task = self.progress.add_task(self.title, total=self.total, info="")
        return self

    def advance(self, n: int) -> None:
        """`n` more are done."""
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task, n)

    def note(self, text: str) -> None:
        """Shows a few words beside the bar: what is being waited for."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, info=text)

    def __exit__(self, *_: object) -> None:
        """Closes the bar."""
        if self.progress is not None:
            self.progress.stop()
        wall_s = time.monotonic() - self.started_s
        if wall_s > 2:
            self.console.print(f"  [dim]{self.title}: {self.total:,} cases in {wall_s:.0f} s[/]")
