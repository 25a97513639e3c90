"""Cells that hold several texts, such as the snippets of a literature search, written as one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medjudge.tasks.contract import RowError
from medjudge.tasks.text import checked_unicode, describe, is_missing, one_line, optional_text

_CITATION_KEYS = ("id", "citation", "citation_id", "number", "pmid")
_TEXT_KEYS = ("abstract", "text", "snippet")


def read_evidence(value: object, name: str) -> str | None:
    """Snippets as `[citation] Title. Text`, one a line, in the row's order; None where there are none.

    value: a text, which stays as it is, a list of texts or of snippets {title, abstract or text, id}, or citation id
    -> abstract. name: the field, for messages. Raises RowError.
    """
    if value is None or isinstance(value, str):
        return optional_text({name: value}, name)
    if isinstance(value, Mapping):  # citation id -> abstract, or -> {title, abstract}
        value = [{**(item if isinstance(item, Mapping) else {"text": item}), "id": key} for key, item in value.items()]
    if not isinstance(value, Sequence):
        raise RowError(name, describe(value), "a text, a list of snippets, or citation id -> abstract")
    snippets = [_read_snippet(item, name) for item in value]
    taken = {citation for citation, _ in snippets if citation}
    free = (str(n) for n in range(1, 2 * len(snippets) + 1) if str(n) not in taken)
    return "\n".join(f"[{citation or next(free)}] {text}" for citation, text in snippets if text) or None


def line_of(value: object, name: str) -> str:
    """A text on one line, or "" for nothing. Raises RowError."""
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise RowError(name, describe(value), "text")
    return checked_unicode(one_line(value), name)


def _read_snippet(item: object, name: str) -> tuple[str, str]:
    """(citation id or "", title and text on one line) of one snippet. Raises RowError."""
    if not isinstance(item, Mapping):
        return "", line_of(item, name)
    citation = next((str(item[key]).strip() for key in _CITATION_KEYS if not is_missing(item.get(key))), "")
    text = next((line_of(item[key], name) for key in _TEXT_KEYS if not is_missing(item.get(key))), "")
    title = line_of(item.get("title"), name).rstrip(".")
    return checked_unicode(one_line(citation), name), f"{title}. {text}" if title and text else text or title
