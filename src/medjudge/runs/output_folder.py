"""A folder of results and its one life cycle, for stages and for commands.

Work goes on in a folder beside the final one. Cut off, it is gone on with by the same inputs and dropped by others.
When the results are whole, the manifest is written as the last file, and the folder is moved into place in one step:
killed at any moment, there is either the whole folder or a work folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.artifacts import (
    ANSWERS,
    CALIBRATION,
    CALIBRATION_MANIFEST,
    CHECKPOINTS,
    INPUTS,
    JUDGES,
    PREFLIGHT,
    THREADS,
    drop_damaged_checkpoints,
    git_revision,
    package_versions,
    read_json,
    sha256_json,
)
from medjudge.errors import ConfigError, RunError
from medjudge.files import (
    LOCK,
    MANIFEST,
    as_manifest,
    file_stamp,
    how_to_renew,
    make_folder,
    output_trouble,
    private_files,
    remember_output,
    remove,
    write_json,
)
from medjudge.runs.provenance import Files, command_line, file_entry

NOT_OUTPUTS = (CHECKPOINTS, INPUTS, THREADS, LOCK)
"""What lies in a work folder for the work alone, and is removed before the folder moves into place."""
WORTH_KEEPING = (f"{CHECKPOINTS}/checkpoint-*", f"{CHECKPOINTS}/{JUDGES}", f"{ANSWERS}*", PREFLIGHT)
"""Begun work that the same command goes on from."""
PAGES = (".html", ".png", ".md")


@dataclass(frozen=True, slots=True)
class Record:
    """How results came to be, as their manifest keeps it."""

    inputs: Mapping[str, Any]
    """Everything that the results depend on; the folder is current as long as these stay equal."""
    config: Any = None
    """The settings, as JSON."""
    seed: int | None = None
    files: Files = field(default_factory=dict)
    """Data, gold and weight files that were read."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    trl: Mapping[str, Any] = field(default_factory=dict)
    """TRL's own settings in force, of those that change gradients and whose defaults differ between its versions."""


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """One folder of results: a stage of a run, or what a command was told to write."""

    name: str
    """Of the stage or command; its manifest says it."""
    final: Path
    work: Path
    home: Path
    """Where hashes of large files are remembered."""

    @classmethod
    def of_stage(cls, run_dir: Path, name: str) -> OutputFolder:
        """The folder `name` in a run's folder, whose lock is that of the run."""
        return cls(name, run_dir / name, run_dir / f".{name}.work", run_dir)

    @classmethod
    def new(cls, out_dir: Path, command: str, key: str = "") -> OutputFolder:
        """The folder that a command writes. Raises ConfigError where something lies there: nothing is overwritten.

        key: tells begun work of one question from that of another, where several may wait to be gone on with.
        """
        final = out_dir.absolute()
        if final.exists() and not final.is_dir():
            raise ConfigError(f"--out {final} is a file: name a folder.")
        if final.exists() and any(final.iterdir()):
            raise ConfigError(f"--out {final} is not an empty folder: name a new one, nothing is overwritten.")
        work = final.with_name(f".{final.name}.{key}.work" if key else f".{final.name}.work")
        return cls(command, final, work, final)

    # --- the life cycle -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self, inputs: Mapping[str, Any]) -> Iterator[Path]:
        """Holds and opens the work folder of a command, which calls `finish` at the end of the block.

        After an error or Ctrl-C the begun work is kept if the same command can go on from it, and removed otherwise.
        """
        with hold(self.work):
            work = self.begin(inputs)
            try:
                yield work
            except BaseException:
                artifacts.note_sitting(work)
                self.drop_useless_work()
                raise

    def begin(self, inputs: Mapping[str, Any]) -> Path:
        """The work folder: that of a cut-off run with the same inputs, or an empty one."""
        if os.path.lexists(self.work) and not self.work.is_dir():
            remove(self.work)
        make_folder(self.work)
        if self.begun() != _as_json(inputs):
            for path in self.work.iterdir():
                if path.name != LOCK:  # held by this very process
                    remove(path)
            write_json(self.work / INPUTS, inputs)
        artifacts.begin_sitting(self.work)
        return self.work

    def finish(self, record: Record) -> None:
        """Writes the manifest, then moves the work folder into place. Checkpoints are not kept."""
        artifacts.note_sitting(self.work)
        stamps = {path: file_stamp(path) for path in self.work.rglob("*") if path.is_file()}
        outputs = self._outputs()
        write_json(self.work / MANIFEST, self._manifest(record, outputs))
        self._move_into_place()
        for path, stamp in stamps.items():
            place = path.relative_to(self.work)
            if (entry := outputs.get(place.as_posix())) is not None:
                remember_output(self.home, self.final / place, entry["sha256"], stamp)

    def _outputs(self) -> Files:
        return {
            path.relative_to(self.work).as_posix(): file_entry(path)
            for path in sorted(self.work.rglob("*"))
            if path.is_file()
            and path.relative_to(self.work).parts[0] not in NOT_OUTPUTS
            and path.name not in (CALIBRATION, CALIBRATION_MANIFEST)  # fitted and replaced after the stage
        }

    def _manifest(self, record: Record, outputs: Files) -> dict[str, Any]:
        seconds = artifacts.sittings(self.work)
        threads = read_json(self.work / THREADS) if (self.work / THREADS).exists() else None
        return manifest_of(self.name, record, outputs) | {
            "wall_s": round(sum(seconds), 3),
            "sittings": max(1, len(seconds)),
            "threads": threads,
        }

    def _move_into_place(self) -> None:
        """The last steps, each of which may be the one that a kill interrupts: the next look does them again."""
        for name in NOT_OUTPUTS:
            remove(self.work / name)
        old = self.final.with_name(f".{self.final.name}.old")
        remove(old)
        if os.path.lexists(self.final):
            self.final.rename(old)
        self.work.rename(self.final)
        remove(old)

    # --- what lies there ----------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, or None. Results that were cut off while moving into place are moved now.

        Raises RunError if it is damaged.
        """
        if self._is_whole():
            self._move_into_place()
        path = self.final / MANIFEST
        if not os.path.lexists(path):
            return None
        manifest = as_manifest(read_json(path))
        if manifest is None or manifest["stage"] != self.name:
            raise RunError(f"{path} is not the manifest of stage {self.name}. {how_to_renew(self.final)}")
        return dict(manifest)

    def _is_whole(self) -> bool:
        """Whether the work folder only waits to be moved: its manifest, which is written last, is there."""
        path = self.work / MANIFEST
        try:
            manifest = as_manifest(read_json(path)) if path.is_file() else None
        except RunError:
            return False
        return manifest is not None and manifest["stage"] == self.name

    def is_current(self, inputs: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether the results were made from these very inputs and have their hashes, and why not."""
        begun, manifest = self.begun(), self.manifest()
        if manifest is None or manifest["inputs_sha256"] != sha256_json(inputs):
            if begun == _as_json(inputs):
                return False, "resumes where it was cut off"
            if begun is not None:
                return False, f"begun with other settings, begins anew; changed: {_changed(begun, inputs)}"
            return False, f"changed: {_changed(manifest['inputs'], inputs)}" if manifest else "not run yet"
        for relative in manifest["outputs"]:
            if (trouble := output_trouble(self.final, manifest, relative)) is not None:
                return False, trouble
        return True, "unchanged"

    def begun(self) -> dict[str, Any] | None:
        """The inputs that cut-off work was begun from; None where none is begun, or it cannot be gone on with."""
        path = self.work / INPUTS
        if not path.is_file() or (self.work / MANIFEST).exists():
            return None
        try:
            inputs = read_json(path)
        except RunError:
            return None
        return inputs if isinstance(inputs, dict) else None

    @property
    def has_kept_work(self) -> bool:
        """Whether there is begun work that the same command goes on from."""
        return any(path for pattern in WORTH_KEEPING for path in self.work.glob(pattern))

    def drop_useless_work(self) -> None:
        """Removes begun work that nothing can be gone on from: no checkpoint, no kept answer, no pre-flight."""
        drop_damaged_checkpoints(self.work)
        if self.work.is_dir() and not self.has_kept_work:
            with contextlib.suppress(OSError, RunError):
                remove(self.work)

    def discard(self) -> None:
        """Forgets the results, finished or begun, whatever lies in their place."""
        beside = (self.final.with_name(f".{self.final.name}.{end}") for end in ("old", "adopted"))
        for path in (self.work, self.final, *beside):
            remove(path)

    def adopt(self, other: OutputFolder) -> None:
        """Takes over results that were made from the very same inputs elsewhere; no byte is copied.

        Files are linked, as no finished folder is ever written to again.
        """
        copy = self.final.with_name(f".{self.final.name}.adopted")
        remove(copy)
        shutil.copytree(other.final, copy, copy_function=_link)
        remove(self.work)
        copy.rename(self.work)
        self._move_into_place()

    def renew_pages(self) -> None:
        """Takes pages that were written again, or for the first time, into the manifest; results stay as they were."""
        if self.manifest() is not None:
            renew_pages(self.final)


def manifest_of(name: str, record: Record, outputs: Files) -> dict[str, Any]:
    """A manifest of what this process made just now, with the packages that it runs."""
    return {
        "stage": name,
        "command": command_line(),
        "config": record.config,
        "seed": record.seed,
        "inputs": dict(record.inputs),
        "inputs_sha256": sha256_json(record.inputs),
        "files": dict(record.files),
        "outputs": outputs,
        "summary": dict(record.summary),
        "versions": package_versions(),
        "trl": dict(record.trl),
        "git_revision": git_revision(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def renew_pages(folder: Path) -> None:
    """Takes a folder's pages as they are now into its manifest, where it has one."""
    path = folder / MANIFEST
    manifest = as_manifest(read_json(path)) if path.exists() else None
    if manifest is None:
        return
    others = {name: entry for name, entry in manifest["outputs"].items() if Path(name).suffix not in PAGES}
    own = [path for path in folder.glob("*") if not (path / MANIFEST).exists()]  # not those of a benchmark's sets
    pages = {
        path.relative_to(folder).as_posix(): file_entry(path)
        for place in sorted(own)
        for path in (sorted(place.rglob("*")) if place.is_dir() else [place])
        if path.suffix in PAGES and path.is_file()
    }
    write_json(path, {**manifest, "outputs": {**others, **pages}})


@contextlib.contextmanager
def hold(folder: Path, *, patience_s: float = 0.0) -> Iterator[None]:
    """Holds a folder for this process; its files are for their owner alone. Raises RunError if another has it.

    patience_s: for how long a folder that another process holds is tried again.
    """
    if folder.name.endswith(".work") and os.path.lexists(folder) and not folder.is_dir():
        remove(folder)  # nobody but this program makes a name like that
    make_folder(folder)
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
    descriptor = _open_lock(folder / LOCK)
    try:
        until_s = time.monotonic() + patience_s
        while not _take(descriptor, fcntl.LOCK_EX):
            if time.monotonic() < until_s:
                time.sleep(0.05)
                continue
            raise RunError(
                f"{folder} is in use by another medjudge process. Wait for it, or give this run another `name` or "
                "`--out`."
            )
        with private_files():
            yield
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether some process holds a folder."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _take(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _open_lock(path: Path) -> int:
    """A lock is held by a process, not by the file: what a dead process left there is taken over."""
    if os.path.lexists(path) and not path.is_file():
        remove(path)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links, or another one
        shutil.copy2(source, target)


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Names of the inputs that differ, with the keys that differ in those that are sections."""
    names = []
    now = _as_json(after)
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += [f"{key}.{part}" for part in sorted({*old, *new}) if old.get(part) != new.get(part)]
        elif old != new:
            names.append(key)
    return ", ".join(names)
