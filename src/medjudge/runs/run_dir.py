"""One run's folder: its lock, its stages, its splits, and the notes beside them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge.artifacts import COMMANDS, PREFLIGHT, RECIPE, read_json
from medjudge.data.store import Split
from medjudge.errors import RunError
from medjudge.files import HASHES, LOCK, private_files, remove
from medjudge.runs.output_folder import OutputFolder, Record, hold
from medjudge.runs.ranks import is_first_rank, launch_key, n_ranks


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder of one run."""

    path: Path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this command; its files are for their owner alone. Raises RunError if another has it.

        Of several processes of one run the first, which stands for all, takes it; the others work in its shadow.
        """
        if not is_first_rank():
            with private_files():
                yield
            return
        # The others look at the lock now and then, and for that moment it cannot be taken.
        with hold(self.path, patience_s=5.0 if n_ranks() > 1 else 0.0):
            yield

    def announce(self, stage: str, state: str) -> None:
        """Tells the other processes of this run that a stage `runs` or is `done`; alone, there is nobody to tell."""
        if n_ranks() > 1:
            self._announcements.write_text(
                json.dumps({"launch": launch_key(), **self._announced(), stage: state}), encoding="utf-8"
            )

    def announced(self, stage: str) -> str:
        """What the process that holds the run said of a stage last; an empty text before it said anything."""
        return str(self._announced().get(stage, ""))

    @property
    def _announcements(self) -> Path:
        return self.path / LOCK  # for as long as it is held

    def _announced(self) -> dict[str, Any]:
        try:
            states = json.loads(self._announcements.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there yet, or half-written: the next look finds it
            return {}
        # What an earlier launch left there says nothing about this one.
        return states if isinstance(states, dict) and states.get("launch") == launch_key() else {}

    def output(self, name: str) -> OutputFolder:
        """The folder of a stage, finished or not, with its life cycle."""
        return OutputFolder.of_stage(self.path, name)

    def stage(self, name: str) -> Path:
        """The finished folder of a stage (it may not exist yet)."""
        return self.path / name

    def work(self, name: str) -> Path:
        """The folder in which a stage is being made."""
        return self.output(name).work

    def split(self, name: str) -> Split:
        """One of the splits that the prepare stage wrote (it may not exist)."""
        return Split.of(self.stage("prepare"), name)

    def manifest(self, name: str) -> dict[str, Any] | None:
        """As `OutputFolder.manifest`."""
        return self.output(name).manifest()

    def is_current(self, name: str, inputs: Mapping[str, Any]) -> tuple[bool, str]:
        """As `OutputFolder.is_current`."""
        return self.output(name).is_current(inputs)

    def begin(self, name: str, inputs: Mapping[str, Any]) -> Path:
        """As `OutputFolder.begin`."""
        return self.output(name).begin(inputs)

    def finish(self, name: str, record: Record) -> None:
        """As `OutputFolder.finish`."""
        self.output(name).finish(record)

    def discard_notes(self) -> None:
        """Forgets what the run's own folder holds beside its stages where that is damaged."""
        for name in (RECIPE, COMMANDS, PREFLIGHT, HASHES):
            path = self.path / name
            try:
                is_whole = not os.path.lexists(path) or isinstance(read_json(path), dict | list)
            except RunError:
                is_whole = False
            if not is_whole:
                remove(path)
