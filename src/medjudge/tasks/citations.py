"""Citations: the ids that a prompt's evidence offers, those that a text cites, and a text without what it cannot see.

Evidence stands in a case as one snippet a line, `[id] Title. Text`. A text cites in square brackets: `[7]`, `[3, 5]`,
`[12-19]`. What is no id (`[sic]`, `[see below]`) is no citation. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from medjudge.tasks.text import first_words, n_words

_SNIPPET = re.compile(r"^\[([^\[\]\n]{1,60})\] ", re.MULTILINE)
_BRACKET = re.compile(r"\s?\[([^\[\]\n]{1,120})\]")
_RANGE = re.compile(r"(\d{1,6})\s*[-–]\s*(\d{1,6})")
# An id that the evidence may not hold still looks like one: 7, PMID:123, c2, 10.1000/x7.
_ID = re.compile(r"[A-Za-z]{0,10}[:#]?\d[\w.:/-]*")
_LONGEST_RANGE = 200
MIN_SNIPPET_WORDS = 20
"""Fewer words of an abstract say nothing that could be cited."""


def given_ids(evidence: str) -> tuple[str, ...]:
    """The ids of the snippets in a prompt's evidence, in their order."""
    return tuple(dict.fromkeys(_SNIPPET.findall(evidence)))


def snippet_starts(evidence: str) -> list[int]:
    """Where each snippet of the evidence begins; the start of the text where it has none."""
    starts = [match.start() for match in _SNIPPET.finditer(evidence)]
    return starts if starts[:1] == [0] else [0, *starts]


def first_snippets(evidence: str, n: int) -> str:
    """The first `n` words of the evidence, without a last snippet of which only a stub would be left."""
    text = first_words(evidence, n)
    if len(text) == len(evidence):
        return evidence
    start = max((at for at in snippet_starts(evidence) if at < len(text)), default=0)
    rest = evidence[len(text) :]
    is_cut = bool(rest) and not rest.startswith("\n")
    return text[:start].rstrip() if is_cut and n_words(text[start:]) < MIN_SNIPPET_WORDS else text.rstrip()


def cited_ids(text: str, known: Container[str] = ()) -> tuple[str, ...]:
    """The ids that a text cites, each once, in their order. `known`: ids that count however they look."""
    found = (_ids_in(inside, known) for inside in _BRACKET.findall(text))
    return tuple(dict.fromkeys(one for ids in found for one in ids))


def without_unseen(text: str, known: Container[str]) -> str:
    """`text` with only those of its citations that are `known`. A bracket that is left empty goes, with its space."""

    def kept(match: re.Match[str]) -> str:
        ids = _ids_in(match[1], known)
        seen = [one for one in ids if one in known]
        if len(seen) == len(ids):
            return match[0]
        return f"{match[0].partition('[')[0]}[{', '.join(seen)}]" if seen else ""

    return _BRACKET.sub(kept, text)


def _ids_in(inside: str, known: Container[str]) -> Sequence[str]:
    """The ids in a bracket; none unless all that stands there is ids."""
    ids: list[str] = []
    for part in re.split(r"[,;]", inside):
        one = part.strip()
        if one in known:
            ids.append(one)
        elif found := _RANGE.fullmatch(one):
            first, last = int(found[1]), int(found[2])
            if not first <= last < first + _LONGEST_RANGE:
                return ()
            ids += map(str, range(first, last + 1))
        elif _ID.fullmatch(one):
            ids.append(one)
        else:
            return ()
    return ids
