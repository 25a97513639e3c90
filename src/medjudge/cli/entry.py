"""The console script: runs a command, and turns errors that a user can fix into messages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from medjudge.cli.app import app, console
from medjudge.errors import MedjudgeError
from medjudge.files import private_files, write_failure


def main() -> None:
    """The console script: messages for errors a user can fix, and their exit code."""
    from medjudge.log import show_on
    from medjudge.machine import prepare_process
    from medjudge.network import offline

    prepare_process()
    with offline(), show_on(console()):
        run_guarded(app)


def run_guarded(command: Callable[[], Any]) -> None:
    """Runs `command`; a MedjudgeError becomes its message and exit code 1, an interrupt says how to go on."""
    try:
        with private_files():
            command()
    except MedjudgeError as error:
        message = str(error)
    except OSError as error:  # no space, no permission, a file where a folder should be
        message = write_failure(error) or (
            f"{error.filename or 'a file'}: {error.strerror or type(error).__name__}. Nothing half-written was left."
        )
    except MemoryError:
        message = "out of memory. Lower `sft.micro_batch`, `grpo.micro_batch` or `evaluate.batch_tokens`."
    except Exception as error:  # some libraries raise no OSError where a file cannot be written
        if (message := write_failure(error) or "") == "":
            raise
    else:
        return
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(_wrapped(message, len("error: ")) if sys.stderr.isatty() else message, err=True)
    sys.exit(1)


def _wrapped(message: str, indent: int) -> str:
    """The message broken between words, at the width of the terminal; a path or a hash stays whole."""
    import shutil
    import textwrap

    width = max(40, shutil.get_terminal_size().columns)
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True)
    lines = message.split("\n")
    first = textwrap.TextWrapper(
        width, initial_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ).fill(lines[0])[indent:]
    return "\n".join([first, *(wrapper.fill(line) for line in lines[1:])])
