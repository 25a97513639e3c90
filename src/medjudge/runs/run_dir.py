"""One run's folder: its lock, its stages, and the rule by which a stage is skipped, resumed or done again."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge.artifacts import (
    CALIBRATION,
    CHECKPOINTS,
    COMMANDS,
    FORCED,
    INPUTS,
    JUDGES,
    PREFLIGHT,
    RECIPE,
    THREADS,
    drop_damaged_checkpoints,
    git_revision,
    package_versions,
    read_json,
    sha256_json,
    sittings,
)
from medjudge.errors import RunError
from medjudge.files import HASHES as HASHES
from medjudge.files import (
    LOCK,
    as_manifest,
    file_stamp,
    how_to_renew,
    output_trouble,
    remember_output,
)
from medjudge.files import MANIFEST as MANIFEST
from medjudge.files import check_outputs as check_outputs
from medjudge.files import make_folder as make_folder
from medjudge.files import private_files as private_files
from medjudge.files import remove as remove
from medjudge.files import sha256_file as sha256_file
from medjudge.files import write_bytes as write_bytes
from medjudge.files import write_json as write_json
from medjudge.files import write_text as write_text


@dataclass(frozen=True, slots=True)
class RunDir:
    """The folder of one run."""

    path: Path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; its files are for their owner alone. Raises RunError if another has it."""
        make_folder(self.path)
        with contextlib.suppress(OSError):
            self.path.chmod(0o700)
        descriptor = self._open_lock()
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"{self.path} is in use by another medjudge process. Wait for it, or give this run another `name`."
                ) from None
            with private_files():
                yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        """A lock is held by a process, not by the file: what a dead process left there is taken over."""
        path = self.path / LOCK
        if os.path.lexists(path) and not path.is_file():
            remove(path)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except PermissionError:
            return os.open(path, os.O_RDONLY)

    def stage(self, name: str) -> Path:
        """The finished folder of a stage (it may not exist yet)."""
        return self.path / name

    def work(self, name: str) -> Path:
        """The folder in which a stage is being made."""
        return self.path / f".{name}.work"

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of a finished stage, or None. A stage that was cut off while moving into place is moved now.

        Raises RunError if it is damaged.
        """
        work, final = self.work(name), self.stage(name)
        if self._is_whole(name):
            _move_into_place(work, final)
        path = final / MANIFEST
        if not os.path.lexists(path):
            return None
        manifest = as_manifest(read_json(path))
        if manifest is None or manifest["stage"] != name:
            raise RunError(f"{path} is not the manifest of stage {name}. {how_to_renew(final)}")
        return dict(manifest)

    def _is_whole(self, name: str) -> bool:
        """Whether the work folder only waits to be moved: its manifest, which is written last, is there."""
        path = self.work(name) / MANIFEST
        try:
            manifest = as_manifest(read_json(path)) if path.is_file() else None
        except RunError:
            return False
        return manifest is not None and manifest["stage"] == name

    def is_current(self, name: str, inputs: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether a finished stage was made from these very inputs and its outputs have their hashes, and why not."""
        begun, manifest = self._begun(name), self.manifest(name)
        if manifest is None or manifest["inputs_sha256"] != sha256_json(inputs):
            if begun == _as_json(inputs):
                return False, "resumes where it was cut off"
            if begun is not None:
                return False, f"begun with other settings, begins anew; changed: {_changed(begun, inputs)}"
            return False, f"changed: {_changed(manifest['inputs'], inputs)}" if manifest else "not run yet"
        for relative in manifest["outputs"]:
            if (trouble := output_trouble(self.stage(name), manifest, relative)) is not None:
                return False, trouble
        return True, "unchanged"

    def _begun(self, name: str) -> dict[str, Any] | None:
        """The inputs that a cut-off stage was begun from; None where none is begun, or it cannot be gone on with."""
        path = self.work(name) / INPUTS
        if not path.is_file() or (self.work(name) / MANIFEST).exists():
            return None
        try:
            inputs = read_json(path)
        except RunError:
            return None
        return inputs if isinstance(inputs, dict) else None

    def begin(self, name: str, inputs: Mapping[str, Any]) -> Path:
        """The work folder for a stage: that of a cut-off run with the same inputs, or an empty one."""
        work = self.work(name)
        if os.path.lexists(work) and (not work.is_dir() or self._begun(name) != _as_json(inputs)):
            remove(work)
        make_folder(work)
        write_json(work / INPUTS, inputs)
        return work

    def finish(
        self, name: str, *, config: Any, inputs: Mapping[str, Any], summary: Mapping[str, Any], seed: int, wall_s: float
    ) -> None:
        """Writes the manifest and moves the work folder into place. Checkpoints are not kept.

        wall_s: seconds over all sittings of the stage.
        """
        work = self.work(name)
        threads = read_json(work / THREADS) if (work / THREADS).exists() else None
        stamps = {path: file_stamp(path) for path in work.rglob("*") if path.is_file()}
        outputs: dict[str, dict[str, Any]] = {
            path.relative_to(work).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(work.rglob("*"))
            if path.is_file()
            and path.relative_to(work).parts[0] not in (CHECKPOINTS, INPUTS, THREADS)
            and path.name != CALIBRATION  # fitted and replaced after the stage
        }
        write_json(
            work / MANIFEST,
            {
                "stage": name,
                "config": config,
                "seed": seed,
                "inputs": dict(inputs),
                "inputs_sha256": sha256_json(inputs),
                "outputs": outputs,
                "summary": dict(summary),
                "versions": package_versions(),
                "git_revision": git_revision(),
                "wall_s": round(wall_s, 3),
                "sittings": max(1, len(sittings(work))),
                "threads": threads,
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
        _move_into_place(work, self.stage(name))
        for path, stamp in stamps.items():
            place = path.relative_to(work)
            if (entry := outputs.get(place.as_posix())) is not None:
                remember_output(self.path, self.stage(name) / place, entry["sha256"], stamp)

    def allow_failed_preflight(self, allowed: bool) -> None:
        """Says whether the stages of the command that runs now go on over a failed pre-flight."""
        remove(self.path / FORCED)
        if allowed:
            (self.path / FORCED).touch(mode=0o600)

    @property
    def allows_failed_preflight(self) -> bool:
        """Whether `--force` was given."""
        return (self.path / FORCED).exists()

    def adopt(self, name: str, other: RunDir) -> None:
        """Takes over a finished stage of another run that was made from the very same inputs; no byte is copied.

        Files are linked, as no finished stage is ever written to again.
        """
        copy = self.path / f".{name}.adopted"
        remove(copy)
        shutil.copytree(other.stage(name), copy, copy_function=_link)
        remove(self.work(name))
        _move_into_place(copy, self.stage(name))

    def discard(self, name: str) -> None:
        """Forgets a stage, finished or begun, whatever lies in its place."""
        for path in (self.work(name), self.stage(name), *(self.path / f".{name}.{end}" for end in ("old", "adopted"))):
            remove(path)

    def drop_useless_work(self, name: str) -> None:
        """Removes begun work that nothing can be gone on from: no checkpoint, no kept answer, no pre-flight."""
        work = self.work(name)
        drop_damaged_checkpoints(work)
        worth = (f"{CHECKPOINTS}/checkpoint-*", f"{CHECKPOINTS}/{JUDGES}", ".answers-*", PREFLIGHT)
        if work.is_dir() and not any(path for pattern in worth for path in work.glob(pattern)):
            with contextlib.suppress(OSError, RunError):
                remove(work)

    def discard_notes(self) -> None:
        """Forgets what the run's own folder holds beside its stages where that is damaged."""
        for name in (RECIPE, COMMANDS, PREFLIGHT, HASHES):
            path = self.path / name
            try:
                sound = not os.path.lexists(path) or isinstance(read_json(path), dict | list)
            except RunError:
                sound = False
            if not sound:
                remove(path)

    def renew_outputs(self, name: str) -> None:
        """Takes pages that were written again into the manifest of their stage."""
        manifest, folder = self.manifest(name), self.stage(name)
        if manifest is None:
            return
        for relative in manifest["outputs"]:
            path = folder / relative
            if path.suffix in (".html", ".png", ".md") and path.is_file():
                manifest["outputs"][relative] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        write_json(folder / MANIFEST, manifest)


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


def _move_into_place(work: Path, final: Path) -> None:
    """The last steps of a stage, each of which may be the one that a kill interrupts: the next look does them again."""
    for name in (CHECKPOINTS, INPUTS, THREADS):
        remove(work / name)
    old = final.with_name(f".{final.name}.old")
    remove(old)
    if os.path.lexists(final):
        final.rename(old)
    work.rename(final)
    remove(old)
