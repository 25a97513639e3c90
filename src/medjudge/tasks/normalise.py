"""Text brought to one form, so that what a reader would call the same text compares equal."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence


class _Fold(dict[int, str | None]):
    """Character -> what it becomes, filled as characters are met: punctuation to a space, invisible ones to nothing.

    Symbols (`<`, `+`, `±`, `≥`) stay: "HR < 100" and "HR > 100" are not the same finding.
    """

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        folded: str | None = " " if category[0] in "PZ" else None if category == "Cf" else character
        self[code] = folded
        return folded


_FOLD = _Fold()


def normalise(text: str) -> str:
    """`text` in NFKC, casefolded, with punctuation and white space folded to single spaces.

    A text of punctuation alone keeps it ("?" and "-" stay two different answers). Accents are kept.
    """
    unified = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unified.translate(_FOLD).split()) or unified.strip()


def short_hash(parts: Sequence[str], n_hex: int = 12) -> str:
    """The first `n_hex` hex digits of sha256 over `parts`: a key that shows no text."""
    return hashlib.sha256(json.dumps(list(parts), ensure_ascii=False).encode()).hexdigest()[:n_hex]
