"""The museum of failures: every replay by name, every guard with what fails once it is gone, and the page of both."""

from __future__ import annotations

import re
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

PAGE = Path(__file__).parents[2] / "docs" / "failures.md"
QUOTATION = re.compile(r"(```sh\npython -m tests\.replays (\w+)\n```\n\n```text\n)(.*?)(?=```)", re.DOTALL)
"""A command of the page and its output: what stands before the output, the replay's name, the output."""


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


def output(name: str) -> str:
    """What `python -m tests.replays NAME` prints."""
    return "".join(f"{line}\n" for line in (unguarded() if name == "unguarded" else play(name)))


def quoted() -> dict[str, str]:
    """Replay -> its output as the page has it."""
    return {name: text for _, name, text in QUOTATION.findall(PAGE.read_text(encoding="utf-8"))}


def rewrite_page() -> None:
    """Plays everything and puts the outputs into the page; what cannot be played here keeps the output it has."""

    def fresh(found: re.Match[str]) -> str:
        head, name, old = found.groups()
        try:
            return str(head) + output(name)
        except pytest.skip.Exception:
            return f"{head}{old}"

    PAGE.write_text(QUOTATION.sub(fresh, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
