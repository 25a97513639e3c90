"""Every file name of a run, and the rules by which files come to be.

A stage works in `runs/NAME/.STAGE.work` and is moved to `runs/NAME/STAGE` when it is whole, its manifest written last.
Killed at any moment, a run has for each stage either the whole folder or a work folder to resume from. What a
finished stage wrote is checked against the hashes of its manifest wherever it is read (`files.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from medjudge import __version__
from medjudge.errors import MedjudgeError, RunError
from medjudge.files import HASHES as HASHES
from medjudge.files import (
    LOCK,
    as_manifest,
    check_output,
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

INPUTS = "inputs.json"
RECIPE = "recipe.json"
SPLIT_SUFFIX = ".jsonl"
REJECTED = "rejected.jsonl"
LINT = "lint.json"
LEAKAGE = "leakage.json"
DATA = "data.json"
MODEL = "model"
ADAPTER = "adapter"
LINEAGE = "lineage.json"
THREADS = "threads.json"
CHECKPOINTS = "checkpoints"
CHECKPOINT_COMPLETE = "complete.json"
HISTORY = "history.json"
PREFLIGHT = "preflight.json"
FORCED = ".forced"
DOCTOR = "doctor.json"
JUDGES = "judges.json"
TIMINGS = "timings.json"
TOTALS = "totals.json"
SITTINGS = "sittings.json"
VARIANTS = "compare.json"
COMPARE = "compare"
RESULTS = "results.json"
VERDICTS = "verdicts.jsonl"
SUITE = "suite.json"
SET = "set.json"
ANSWERS = ".answers"
PROBES = "probes.jsonl"
PROMPTS = "prompts.jsonl"
CALIBRATION = "calibration.json"
COMMANDS = "commands.json"
REPORT = "index.html"
CARD = "MODEL_CARD.md"

_T = TypeVar("_T")

VERSIONED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy", "scikit-learn")
"""Packages whose versions stand in each manifest."""


def read_json(path: Path, *, constants: bool = False) -> Any:
    """The value of a JSON file. Raises RunError if it cannot be read, or a finished stage wrote another one.

    constants: whether NaN and Infinity are borne, which other programs write into a model's config.
    """
    check_output(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=float if constants else _refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {path}: {_why_unreadable(error)}. {how_to_renew(path)}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _why_unreadable(error: Exception) -> str:
    """Without text of the file, which a JSON error does not quote."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start:,})"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON (line {error.lineno:,}, column {error.colno:,})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "it is not JSON"


def read_as(path: Path, parse: Callable[[Any], _T]) -> _T:
    """What `parse` makes of a JSON file. Raises RunError, with the file's name, where the value has another shape."""
    return parsed(path, read_json(path), parse)


def parsed(path: Path, value: Any, parse: Callable[[Any], _T]) -> _T:
    """As `read_as`, for a value that was read from `path`."""
    try:
        return parse(value)
    except MedjudgeError as error:
        raise RunError(f"{path}: {error}") from None
    except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise RunError(
            f"{path} does not hold what this version of medjudge writes there ({type(error).__name__}). "
            f"{how_to_renew(path)}"
        ) from None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises RunError for what is none, or if a finished stage wrote another."""
    check_output(path)
    try:
        # Not splitlines(): a text may hold U+2028, which JSON leaves as it is.
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                row = json.loads(line, parse_constant=_refuse_constant)
                if not isinstance(row, dict):
                    raise RunError(f"{path}:{number} holds no JSON object. {how_to_renew(path)}")
                yield row
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {path}: {_why_unreadable(error)}. {how_to_renew(path)}") from None


def read_commands(path: Path) -> list[str]:
    """The commands that are noted in a folder; none where the note is damaged, which no result depends on."""
    try:
        commands = read_json(path) if path.exists() else []
    except RunError:
        return []
    return [str(command) for command in commands] if isinstance(commands, list) else []


def write_kept(path: Path, value: Any) -> None:
    """Keeps a JSON value, with its hash, that can be made again."""
    write_json(path, {"sha256": sha256_json(value), "value": value})


def read_kept(path: Path) -> Any:
    """What `write_kept` wrote; None where it is damaged or not there: it is then made again."""
    try:
        tree = read_json(path)
        return tree["value"] if tree["sha256"] == sha256_json(tree["value"]) else None
    except (RunError, TypeError, KeyError, RecursionError):
        return None


def path_signature(path: Path) -> str | None:
    """What tells that a path changed: a file's content, size and time of a folder's files; None where nothing is."""
    if path.is_dir():
        return sha256_json(
            [
                (str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns)
                for p in sorted(path.rglob("*"))
                if p.is_file()
            ]
        )
    return sha256_file(path) if path.is_file() else None


def sha256_json(value: Any) -> str:
    """Hex digest of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of what a result depends on; packages that are not installed are left out."""
    found = {"medjudge": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_revision() -> str | None:
    """The revision of the checkout that this code lies in, with `-dirty` where it has changes; None outside of one."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("-dirty" if status.stdout.strip() else "") if head.returncode == 0 else None


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


# --- checkpoints ------------------------------------------------------------------------------------------------------

_TRAINER_STATE = "trainer_state.json"


def begin_sitting(work: Path) -> None:
    """Notes that work on a stage begins, or goes on after it was cut off: its seconds are those of all sittings.

    A sitting that is killed counts up to its last checkpoint, one that is stopped by an error or Ctrl-C in full.
    """
    (work / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    path = work / CHECKPOINTS / SITTINGS
    if path.is_dir():
        remove(path)
    write_json(path, [*_sittings(work), {"began": time.monotonic(), "seconds": 0.0}])


def note_sitting(work: Path) -> None:
    """Notes the seconds of the sitting that runs; nothing where none was begun."""
    if noted := _sittings(work):
        *earlier, last = noted
        write_json(work / CHECKPOINTS / SITTINGS, [*earlier, {**last, "seconds": time.monotonic() - last["began"]}])


def sittings(work: Path) -> list[float]:
    """Seconds of each sitting, as they were last noted."""
    return [sitting["seconds"] for sitting in _sittings(work)]


def _sittings(work: Path) -> list[dict[str, float]]:
    """What is noted of each sitting; nothing where the note is damaged: a wrong time must not stop a training."""
    try:
        noted = read_json(work / CHECKPOINTS / SITTINGS)
        return [{key: float(sitting[key]) for key in ("began", "seconds")} for sitting in noted]
    except (RunError, KeyError, TypeError, ValueError):
        return []


def mark_checkpoint_complete(checkpoint: Path) -> None:
    """Records the files of a checkpoint once all are written; a checkpoint without this mark is not resumed from."""
    files = {
        path.relative_to(checkpoint).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != CHECKPOINT_COMPLETE
    }
    write_json(checkpoint / CHECKPOINT_COMPLETE, files)


def drop_damaged_checkpoints(work: Path) -> list[str]:
    """Removes checkpoints that are not as they were written. Returns a line for each, and for what it goes on from."""
    folder = work / CHECKPOINTS
    if os.path.lexists(folder) and not folder.is_dir():
        remove(folder)
        return [f"{folder.name} is not a folder and was removed: the stage starts from its beginning"]
    dropped = []
    for path in _checkpoints(work):
        if (trouble := _checkpoint_trouble(path)) is not None:
            remove(path)
            dropped.append(f"{path.name} is not used: {trouble}")
    left = _checkpoints(work)
    if dropped:
        dropped[-1] += f"; goes on from {left[-1].name}" if left else "; the stage starts from its beginning"
    return dropped


def latest_checkpoint(work: Path) -> Path | None:
    """The last checkpoint that is as it was written, file by file; others are removed."""
    drop_damaged_checkpoints(work)
    whole = _checkpoints(work)
    return whole[-1] if whole else None


def _checkpoints(work: Path) -> list[Path]:
    """What is called a checkpoint, in the order of the steps; files of other names are left alone."""
    found = [path for path in (work / CHECKPOINTS).glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def _checkpoint_trouble(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be gone on from; None if it can."""
    if not checkpoint.is_dir() or not (checkpoint / CHECKPOINT_COMPLETE).is_file():
        return "it was not written to its end"
    try:
        files = read_json(checkpoint / CHECKPOINT_COMPLETE)
        if not isinstance(files, dict) or not files:
            return f"{CHECKPOINT_COMPLETE} is damaged"
        for name, entry in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            # An earlier version noted the size alone.
            n_bytes, digest = (entry["bytes"], entry["sha256"]) if isinstance(entry, dict) else (entry, None)
            if path.stat().st_size != n_bytes or digest not in (None, sha256_file(path)):
                return f"{name} was changed or cut off"
        state = checkpoint / _TRAINER_STATE
        if state.is_file() and not isinstance(read_json(state), dict):
            return f"{_TRAINER_STATE} is damaged"
    except (RunError, OSError, KeyError, TypeError, ValueError):
        return "its files cannot be read"
    return None
