"""Tables for a terminal: as many parts as its width needs, so that no heading, number or word is broken."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

NO_BREAK = "\N{NO-BREAK SPACE}"
_PROSE = 11
"""A line of this many characters is not wrapped; a longer one is, between words."""
_HEAD_LINES = 3
_BORDERS = 3
"""Columns of text that a table's column takes beside its content."""


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of a row, the first of them its head."""

    cells: tuple[Text, ...]
    style: str | None = None
    end_section: bool = False


def fitted_tables(
    heads: Sequence[str],
    rows: Sequence[Row],
    width: int,
    *,
    title: str | None = None,
    note: str = "",
    left: Iterable[int] = (),
) -> list[RenderableType]:
    """A table in parts of at most `width` characters, each with the rows' heads; one part where all fits.

    left: the columns whose cells are aligned left. Only a word that is longer than the terminal is wide is broken.
    The title is on the first part, the note under the last.
    """
    first = min(_column_width(heads[0], [row.cells[0] for row in rows], 1, prose=22), max(width // 2, 8))
    # Heads are wrapped only as far as it takes for all columns to fit side by side.
    for head_lines in range(1, _HEAD_LINES + 1):
        columns = [(head, [row.cells[i] for row in rows]) for i, head in enumerate(heads[1:], 1)]
        widths = [_column_width(head, cells, head_lines) for head, cells in columns]
        if len(_parts(widths, width - first - _BORDERS - 1)) == 1:
            break
    widths = [min(one, max(width - first - 2 * _BORDERS - 1, 4)) for one in widths]
    aligned_left = set(left)
    tables: list[RenderableType] = []
    for part in _parts(widths, width - first - _BORDERS - 1):
        table = Table(title=None if tables else title, title_justify="left")
        table.add_column(Text(heads[0]), width=first, overflow="fold")
        for i in part:
            justify: JustifyMethod = "left" if i + 1 in aligned_left else "right"
            table.add_column(Text(heads[i + 1]), width=widths[i], overflow="fold", justify=justify)
        for row in rows:
            cells = (row.cells[0], *(row.cells[i + 1] for i in part))
            table.add_row(*cells, style=row.style, end_section=row.end_section)
        tables.append(table)
    if note:
        tables[-1] = Group(tables[-1], Text(wrapped(note, width), style="dim"))
    return tables


def kept_together(text: str) -> str:
    """The text with spaces that do not break where a line must not end: `85.0 %`, `p < .001`, `78.3 to`."""
    # A number parted from its unit at the end of a line is easily misread.
    text = re.sub(r"(?<=\d) (?=%|to \D?\d)", NO_BREAK, text)
    return re.sub(r"\b([pn]) ([=<]) (?=[\d.])", rf"\1{NO_BREAK}\2{NO_BREAK}", text)


def wrapped(text: str, width: int, *, bullet: str = "") -> str:
    """The text in lines of at most `width` characters, broken between words; lines after a bullet are indented."""
    lines = [
        textwrap.fill(
            kept_together(line),
            max(width, len(bullet) + 1),
            initial_indent=bullet,
            subsequent_indent=" " * len(bullet),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.splitlines()
    ]
    return "\n".join(lines).replace(NO_BREAK, " ")


def _parts(widths: Sequence[int], space: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    left = space
    for i, width in enumerate(widths):
        if parts[-1] and width + _BORDERS > left:
            parts.append([])
            left = space
        parts[-1].append(i)
        left -= width + _BORDERS
    return parts


def _column_width(head: str, cells: Iterable[Text], head_lines: int, prose: int = _PROSE) -> int:
    lines = [line for cell in cells for line in cell.plain.splitlines()]
    longest = max((len(line) if len(line) <= prose else _wrapped_width(line, prose) for line in lines), default=1)
    width = max(longest, _longest_word(head), 1)
    while len(textwrap.wrap(head, width)) > head_lines:
        width += 1
    return width


def _wrapped_width(line: str, prose: int) -> int:
    """Of a line that is wrapped between words to at most `prose` characters, where its words allow."""
    return max(map(len, textwrap.wrap(line, max(prose, _longest_word(line)))))


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)
