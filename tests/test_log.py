"""News is shown where somebody asked for it, and nowhere else."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from medjudge.log import PACKAGE, show_on, shown_on

LOG = logging.getLogger("medjudge.somewhere")


def test_messages_go_to_the_console_of_the_innermost_block(capsys: pytest.CaptureFixture[str]) -> None:
    outer, inner = io.StringIO(), io.StringIO()
    with show_on(Console(file=outer)):
        LOG.info("one [/] of %d", 3)
        with show_on(Console(file=inner), indent=4):
            LOG.warning("two")
            assert shown_on().file is inner
        LOG.debug("not shown")
        LOG.info("three")
    LOG.info("after")
    assert outer.getvalue() == "  one [/] of 3\n  three\n"
    assert inner.getvalue() == "    warning: two\n"
    assert capsys.readouterr() == ("", "")


def test_without_a_block_nothing_is_shown_and_nothing_stays_behind() -> None:
    before = (list(PACKAGE.handlers), PACKAGE.level, PACKAGE.propagate)
    with pytest.raises(ValueError, match="stop"), show_on(Console(quiet=True)):
        raise ValueError("stop")
    assert (list(PACKAGE.handlers), PACKAGE.level, PACKAGE.propagate) == before
    assert shown_on().quiet
