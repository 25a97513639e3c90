"""Every replay shows what `docs/failures.md` says of it, to the letter, and fails once its guard is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.replays import museum
from tests.replays.common import Guard

QUOTED = museum.quoted()


@pytest.mark.parametrize("name", museum.REPLAYS)
def test_replay_fails_as_published_and_is_stopped_here(name: str) -> None:
    assert museum.output(name) == QUOTED[name]  # after a change that is meant: python -m tests.replays page


@pytest.mark.parametrize(("name", "guard"), museum.GUARDS, ids=[name for name, _ in museum.GUARDS])
def test_without_its_guard_the_replay_fails(name: str, guard: Guard) -> None:
    line = f"{name} | {guard.name} | fails: {museum.without(name, guard)}\n"
    assert line in QUOTED["unguarded"]


def test_the_page_quotes_every_replay_and_guard_and_nothing_else() -> None:
    assert set(QUOTED) == {*museum.REPLAYS, "unguarded"}
    assert QUOTED["unguarded"].count("\n") == len(museum.GUARDS)
    assert {name for name, _ in museum.GUARDS} == set(museum.MODULES)


def test_a_failure_that_is_not_the_guards_own_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """`without` must tell its guard's assertion from any other, and notice a replay that passes unguarded."""

    def broken(folder: Path) -> list[str]:
        raise AssertionError("something else")

    guard = Guard("nothing is removed", lambda patch: None, "the right assertion")
    monkeypatch.setitem(museum.REPLAYS, "wrong_row", broken)
    with pytest.raises(AssertionError, match="another assertion failed: something else"):
        museum.without("wrong_row", guard)
    monkeypatch.setitem(museum.REPLAYS, "wrong_row", lambda folder: [])
    with pytest.raises(AssertionError, match="wrong_row passes although nothing is removed"):
        museum.without("wrong_row", guard)
