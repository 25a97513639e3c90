"""The museum of failures: every replay by name, and every guard with what fails once it is gone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.replays import (
    adapter_chain,
    dropped_outputs,
    leaked_rows,
    rank_sweep,
    resampled,
    sentinel_score,
    think_block,
    wrong_row,
)
from tests.replays.common import Guard

MODULES: dict[str, ModuleType] = {
    "think_block": think_block,
    "adapter_chain": adapter_chain,
    "wrong_row": wrong_row,
    "leaked_rows": leaked_rows,
    "dropped_outputs": dropped_outputs,
    "sentinel_score": sentinel_score,
    "rank_sweep": rank_sweep,
    "resampled": resampled,
}
REAL: dict[str, Callable[[Path], list[str]]] = {
    "think_block_qwen3": think_block.replay_on_qwen3,
    "leaked_rows_published": leaked_rows.replay_on_published_rows,
}
"""The same on real tokenizers and rows, which cannot be shipped with this project."""
REPLAYS: dict[str, Callable[[Path], list[str]]] = {
    **{name: module.replay for name, module in MODULES.items()},
    **REAL,
}
GUARDS: list[tuple[str, Guard]] = [(name, guard) for name, module in MODULES.items() for guard in module.GUARDS]


def play(name: str) -> list[str]:
    """What a replay prints, from a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return REPLAYS[name](Path(folder))


def without(name: str, guard: Guard) -> str:
    """The assertion that fails when the replay runs without the guard. Raises AssertionError if none does."""
    with pytest.MonkeyPatch.context() as patch:
        guard.remove(patch)
        try:
            play(name)
        except AssertionError as failed:
            first_line = str(failed).partition("\n")[0]
            assert first_line == guard.then, f"another assertion failed: {first_line}"
            return first_line
    raise AssertionError(f"{name} passes although {guard.name}")


def unguarded() -> Iterator[str]:
    """One line per guard: replay, what is taken away, which assertion then fails."""
    for name, guard in GUARDS:
        yield f"{name} | {guard.name} | fails: {without(name, guard)}"
