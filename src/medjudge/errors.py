"""What can go wrong, as a small tree under one base.

MedjudgeError
├── ConfigError      a recipe, an override or a command-line argument
├── DataError        a source file, a row, a split, a leak
│   └── NotRewardableError rows that lack the gold which the recipe's rewards compare with
├── ModelError       a model folder, a tokenizer, a template, a device
│   ├── LineageError an adapter or merge whose parent is not the one it was made from
│   └── EndpointError a model behind an endpoint that cannot be reached, refuses, or fails too often
└── RunError         a run folder: locked, damaged, or of another program version

Every message says what was got, what was expected and what to do, and carries no case text: the case id leads there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class MedjudgeError(Exception):
    """Base of every error that a user can cause and fix. The CLI prints its message alone and exits with 1.

    A value that a message repeats may be of any length: of a word of more than 1,000 characters 100 are kept.
    """

    def __init__(self, message: object = "") -> None:
        """message: what was got, what was expected and what to do."""
        super().__init__(re.sub(r"\S{1001,}", lambda word: f"{word[0][:100]}...", str(message)))


class ConfigError(MedjudgeError):
    """A recipe, an override or a command-line argument that cannot be used."""


class DataError(MedjudgeError):
    """A source file, a row or a split that cannot be used."""


class NotRewardableError(DataError):
    """Rows that lack the gold which the recipe's rewards compare with: there is nothing to train on."""


class ModelError(MedjudgeError):
    """A model folder, tokenizer, chat template or device that cannot be used."""


class LineageError(ModelError):
    """Weights that are not the ones an artifact says it was made from."""


class EndpointError(ModelError):
    """An endpoint that cannot be reached, refuses the request as such, or fails more often than allowed."""


class RunError(MedjudgeError):
    """A run folder that is locked, damaged or written by another program version."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean `X`?)` with the nearest known name, to end a message; "" where none is near."""
    # 0.5, below difflib's own 0.6: a wrong suggestion costs the reader a glance, a missing one a search.
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else ""
