"""Names that become files and folders: of runs, variants, splits and benchmark sets; and names of models."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

StageName = Literal["prepare", "base", "sft", "grpo", "merge", "evaluate", "report"]
STAGE_NAMES: tuple[StageName, ...] = ("prepare", "base", "sft", "grpo", "merge", "evaluate", "report")
"""Stages of a run, in their order."""
LONGEST = 64
"""Characters; with what is put around a name (`.NAME.work`), every file system has room for so many."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
LONGEST_MODEL = 100


def file_name_trouble(name: object, reserved: Collection[str] = ()) -> str | None:
    """Why a name cannot be a file's; None if it can. reserved: names that are taken, in small letters."""
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        return "letters, digits, `.`, `_` and `-` are allowed, the first one a letter or a digit"
    if len(name) > LONGEST:
        return f"it has {len(name):,} characters, at most {LONGEST} are allowed"
    if name.endswith("."):
        return "it may not end in a dot"
    # Windows: a file called `con.json` opens the console.
    if _DEVICES.fullmatch(name):
        return "some systems have a device of that name"
    if name.lower() in reserved:
        return "it is the name of a file or folder that medjudge itself writes there"
    return None


def model_name_trouble(name: object) -> str | None:
    """Why a name cannot be a model's, which stands in tables and files; None if it can."""
    if not isinstance(name, str) or not name.strip():
        return "it is empty"
    if len(name) > LONGEST_MODEL:
        return f"it has {len(name):,} characters, at most {LONGEST_MODEL} are allowed"
    if name != name.strip():
        return "it begins or ends with a blank"
    if not name.isprintable():
        return "it holds a character that cannot be printed"
    return None


def shown(name: object) -> str:
    """A name, or another value, as a message repeats it: escaped, and not at any length."""
    try:
        text = repr(name) if not isinstance(name, str) or name.isprintable() else ascii(name)
    except ValueError:  # an integer of more digits than Python turns into text
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST + 16 else f"{text[:LONGEST]}..."
