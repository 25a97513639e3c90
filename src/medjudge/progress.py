"""The one look of progress in a terminal and in a log. No torch here: judging through an endpoint needs none."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text

from medjudge.log import shown_on

BAR_WIDTH = 28
FIRST_LINE_S = 20.0
"""Without a terminal the first line comes after so long; lines then come at ever longer intervals."""


def training_bar(console: Console) -> Progress:
    """A progress bar that fits on one line of `console`.

    Tasks need a field `info` and may have one `first`: what was done in an earlier session.
    """
    return Progress(_Line(console), console=console, transient=True)


class _Line(ProgressColumn):
    """The whole line as one column: rich would shorten each of several columns, the count first."""

    max_refresh = None

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def render(self, task: Task) -> Text:
        """The line at the terminal's width now."""
        done, total, elapsed_s = int(task.completed), int(task.total or 0), task.elapsed or 0.0
        left_s = seconds_left(done, total, elapsed_s, first=task.fields.get("first", 0))
        info = str(task.fields.get("info", ""))
        return progress_line(task.description, done, total, elapsed_s, left_s, info, self.console.width)


def seconds_left(done: int, total: int, elapsed_s: float, *, first: int = 0) -> float | None:
    """What is left at the speed since the start; None before the first step.

    rich looks at the last 30 s only, and knows no time left where a step takes longer.
    """
    return elapsed_s / (done - first) * (total - done) if done > first else None


def progress_line(
    title: str, done: int, total: int, elapsed_s: float, left_s: float | None, info: str, width: int
) -> Text:
    """Title, bar, count, time left, time elapsed and figures on one line of at most `width` characters.

    Count and time left always stand there in full; for want of room the bar goes first, then figures from the last on,
    then the elapsed time, and then the title is shortened.
    """
    left = f"{duration(left_s)} left" if left_s is not None else "-:-- left"
    count = f"{done:,}/{total:,}"
    room = width - 4 - len(count) - len(left)
    title = title if len(title) <= room - 3 else f"{title[: max(0, room - 4)]}…"
    line = Text(f"  {title} ", no_wrap=True, overflow="ellipsis")
    rest = [f"{duration(elapsed_s)} elapsed", *(part for part in info.split("  ") if part)]
    room -= len(title) + 1
    tail = ""
    for part in rest:
        if len(tail) + len(part) + 2 > room:
            break
        tail += f"  {part}"
    bar = min(BAR_WIDTH, (room - len(tail) - 1) // 4 * 4)  # in fours: figures of changing length do not move it
    if bar >= 8:
        filled = round(bar * min(1.0, done / total)) if total else bar
        line.append("━" * filled, "green")
        line.append("━" * (bar - filled), "dim")
        line.append(" ")
    line.append(f"{count}  {left}")
    line.append(tail, "dim")
    return line


def duration(seconds: float) -> str:
    """`0:42`, `12:05`, `1:02:03`."""
    minutes, s = divmod(max(0, round(seconds)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def roughly(seconds: float) -> str:
    """`42 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class LogLines:
    """Lines of progress for a log file: after 20 s, then ever more seldom; an hour makes some 60, a day some 130."""

    def __init__(
        self, title: str, total: int, console: Console | None = None, *, done: int = 0, unit: str = "step"
    ) -> None:
        """`done`: steps of an earlier session, which tell nothing about the speed of this one."""
        self.title, self.total, self.console, self.unit = title, total, console or shown_on(), unit
        self.first = done
        self.started_s = self.last_s = time.monotonic()

    def show(self, done: int, info: str = "") -> None:
        """Prints a line if one is due."""
        now = time.monotonic()
        elapsed = now - self.started_s
        if now - self.last_s < max(FIRST_LINE_S, elapsed / 20) or done <= self.first:
            return
        self.last_s = now
        left = seconds_left(done, self.total, elapsed, first=self.first) or 0.0
        figures = f"  {info}" if info else ""
        self.console.print(
            f"  {self.title}: {self.unit} {done:,}/{self.total:,}, about {roughly(left)} left{figures}", soft_wrap=True
        )


class Bar:
    """A progress bar over `total` things for a `with` block; a line now and then where there is no terminal."""

    def __init__(self, title: str, total: int, console: Console | None = None) -> None:
        """Shows nothing before the block is entered. console: that of `log.show_on`, where none is given."""
        self.title, self.total, self.console = title, total, console or shown_on()
        self.progress = training_bar(self.console) if self.console.is_interactive else None
        self.lines: LogLines | None = None
        self.task: TaskID | None = None
        self.done = 0
        self.started_s = 0.0

    def __enter__(self) -> Bar:
        """Opens the bar."""
        self.started_s = time.monotonic()
        if self.progress is not None:
            self.progress.start()
            self.task = self.progress.add_task(self.title, total=self.total, info="")
        else:
            self.lines = LogLines(self.title, self.total, self.console, unit="case")
        return self

    def advance(self, n: int) -> None:
        """`n` more are done."""
        self.done += n
        if self.progress is not None and self.task is not None:
            self.progress.advance(self.task, n)
        if self.lines is not None:
            self.lines.show(self.done)

    def note(self, text: str) -> None:
        """Shows a few words beside the bar: what is being waited for."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, info=text)

    def __exit__(self, kind: object, *_: object) -> None:
        """Closes the bar."""
        if self.progress is not None:
            self.progress.stop()
        wall_s = time.monotonic() - self.started_s
        if wall_s > 2 and kind is None:
            self.console.print(f"  [dim]{self.title}: {self.total:,} cases in {roughly(wall_s)}[/]")
