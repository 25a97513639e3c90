"""What a program says while it works: library code logs, and the command line shows it on its console.

Below the stages nothing is handed a console: `log.info` for news, `log.warning` for what a reader should act on, and
`progress.Bar` for a bar. Without `show_on`, as in a notebook, news is silent and warnings go to stderr, as Python's
`logging` has it. A message carries no text of a case.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

PACKAGE = logging.getLogger("medjudge")


class ConsoleHandler(logging.Handler):
    """Prints each message on a line of its own, without markup; a warning says that it is one."""

    def __init__(self, console: Console, indent: int = 2) -> None:
        """indent: spaces before each message."""
        super().__init__(logging.INFO)
        self.console, self.indent = console, indent

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one message."""
        try:
            warning = "warning: " if record.levelno >= logging.WARNING else ""
            self.console.print(Text(" " * self.indent + warning + record.getMessage()), soft_wrap=True)
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def show_on(console: Console, *, indent: int = 2) -> Iterator[None]:
    """Shows the package's messages and bars on `console` while the block runs; the innermost block holds."""
    handler, before = ConsoleHandler(console, indent), (list(PACKAGE.handlers), PACKAGE.level, PACKAGE.propagate)
    PACKAGE.handlers, PACKAGE.propagate = [handler], False
    PACKAGE.setLevel(logging.INFO)
    try:
        yield
    finally:
        PACKAGE.handlers, PACKAGE.propagate = before[0], before[2]
        PACKAGE.setLevel(before[1])


def shown_on() -> Console:
    """The console of the innermost `show_on`; one that shows nothing outside of any."""
    console = next((one.console for one in PACKAGE.handlers if isinstance(one, ConsoleHandler)), None)
    return Console(quiet=True) if console is None else console
