"""Tables and sentences of a terminal: nothing is clipped, and no word or number is broken."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from medjudge.reporting.fitting import Row, fitted_tables, wrapped

HEADS = ("", "n", "Detectable difference, points", "Accuracy: p, Holm", "Matthews correlation, difference")
CELLS = ("small_judge minus large_judge", "180\n175 answered", "12.9", "< .001", "−0.335\n−0.509–−0.161")


def shown(width, **options):
    console = Console(width=width, color_system=None, file=io.StringIO())
    rows = [Row(tuple(map(Text, CELLS)))]
    tables = fitted_tables(HEADS, rows, width, title="A title", **options)
    for table in tables:
        console.print(table)
    return len(tables), console.file.getvalue()


@pytest.mark.parametrize("width", [44, 60, 80, 140])
def test_every_word_and_number_stands_whole_at_any_width(width):
    n_tables, text = shown(width, note="A note on the method, p < .001.")
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for word in " ".join([*HEADS, *CELLS]).split():
        assert word in text.split(), word
    assert text.count("A title") == 1
    assert text.count("A note") == 1
    assert n_tables == 1 if width == 140 else n_tables >= 1
    assert sum(line.count("small_judge") for line in text.splitlines()) == n_tables


def test_a_line_does_not_end_between_a_number_and_its_sign():
    line = "judge is right in 85.0 % (78.3 to 89.9) of all cases, p < .001, n = 180, which is above chance (50.0 %)"
    for width in range(24, 80):
        lines = wrapped(line, width, bullet=" - ").splitlines()
        assert max(map(len, lines)) <= width
        assert all(one.startswith(" - " if i == 0 else "   ") for i, one in enumerate(lines))
        for whole in ("85.0 %", "p < .001", "n = 180", "(50.0 %)"):
            assert any(whole in one for one in lines), (width, whole)
