"""What the replays share: a refusal as text, and a guard that can be taken away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from medjudge.errors import MedjudgeError


@dataclass(frozen=True, slots=True)
class Guard:
    """One thing that stops a published failure, and how to take away exactly that."""

    name: str
    remove: Callable[[pytest.MonkeyPatch], None]
    then: str
    """What fails once it is gone: words of the assertion, at its start."""


def refusal(action: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The message with which the tool refuses; an AssertionError if it goes on."""
    try:
        action(*arguments, **options)
    except MedjudgeError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def share(part: int, whole: int) -> str:
    """3, 4 -> "3 of 4 (75.0 %)"."""
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)"
