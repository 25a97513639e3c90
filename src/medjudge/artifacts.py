"""Every file name of a run, and the rules by which files come to be.

A stage works in `runs/NAME/.STAGE.work` and is moved to `runs/NAME/STAGE` when it is whole, its manifest written last.
Killed at any moment, a run has for each stage either the whole folder or a work folder to resume from.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medjudge import __version__
from medjudge.errors import RunError

MANIFEST = "manifest.json"
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

VERSIONED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy", "scikit-learn")
"""Packages whose versions stand in each manifest."""


def write_text(path: Path, text: str) -> None:
    """Writes `path` whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises RunError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {type(error).__name__}. Run again with --fresh to make it anew.") from None


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


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
        """Holds the run for this process. Raises RunError if another process has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(
                    f"{self.path} is in use by another medjudge process. Wait for it, or give this run another `name`."
                ) from None
            yield

    def stage(self, name: str) -> Path:
        """The finished folder of a stage (it may not exist yet)."""
        return self.path / name

    def work(self, name: str) -> Path:
        """The folder in which a stage is being made."""
        return self.path / f".{name}.work"

    def manifest(self, name: str) -> dict[str, Any] | None:
        """The manifest of a finished stage, or None. A stage that was cut off while moving into place is moved now."""
        work, final = self.work(name), self.stage(name)
        if (work / MANIFEST).exists():
            _move_into_place(work, final)
        path = final / MANIFEST
        return read_json(path) if path.exists() else None

    def is_current(self, name: str, inputs: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether a finished stage was made from these very inputs and is still whole, and why not."""
        begun, manifest = self._begun(name), self.manifest(name)
        if manifest is None or manifest["inputs_sha256"] != sha256_json(inputs):
            if begun == _as_json(inputs):
                return False, "resumes where it was cut off"
            if begun is not None:
                return False, f"begun with other settings, begins anew; changed: {_changed(begun, inputs)}"
            return False, f"changed: {_changed(manifest['inputs'], inputs)}" if manifest else "not run yet"
        for relative, size in manifest["outputs"].items():
            path = self.stage(name) / relative
            if not path.exists() or path.stat().st_size != size["bytes"]:
                return False, f"{relative} is missing or was changed"
        return True, "unchanged"

    def _begun(self, name: str) -> dict[str, Any] | None:
        """The inputs that a cut-off stage was begun from; None where none is begun, or it only waits to be moved."""
        path = self.work(name) / INPUTS
        if not path.exists() or (self.work(name) / MANIFEST).exists():
            return None
        return dict(read_json(path))

    def begin(self, name: str, inputs: Mapping[str, Any]) -> Path:
        """The work folder for a stage: that of a cut-off run with the same inputs, or an empty one."""
        work = self.work(name)
        if work.exists() and self._begun(name) != _as_json(inputs):
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / INPUTS, inputs)
        return work

    def finish(
        self, name: str, *, config: Any, inputs: Mapping[str, Any], summary: Mapping[str, Any], seed: int, wall_s: float
    ) -> None:
        """Writes the manifest and moves the work folder into place. Checkpoints are not kept."""
        work = self.work(name)
        threads = read_json(work / THREADS) if (work / THREADS).exists() else None
        outputs = {
            str(path.relative_to(work)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in sorted(work.rglob("*"))
            if path.is_file() and path.relative_to(work).parts[0] not in (CHECKPOINTS, INPUTS, THREADS)
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
                "threads": threads,
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
        _move_into_place(work, self.stage(name))

    def allow_failed_preflight(self, allowed: bool) -> None:
        """Says whether the stages of the command that runs now go on over a failed pre-flight."""
        if allowed:
            (self.path / FORCED).touch()
        else:
            (self.path / FORCED).unlink(missing_ok=True)

    @property
    def allows_failed_preflight(self) -> bool:
        """Whether `--force` was given."""
        return (self.path / FORCED).exists()

    def adopt(self, name: str, other: RunDir) -> None:
        """Takes over a finished stage of another run that was made from the very same inputs; no byte is copied.

        Files are linked, as no finished stage is ever written to again.
        """
        copy = self.path / f".{name}.adopted"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(other.stage(name), copy, copy_function=_link)
        shutil.rmtree(self.work(name), ignore_errors=True)
        _move_into_place(copy, self.stage(name))

    def discard(self, name: str) -> None:
        """Forgets a stage, finished or begun."""
        shutil.rmtree(self.work(name), ignore_errors=True)
        shutil.rmtree(self.stage(name), ignore_errors=True)


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
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)
    (work / INPUTS).unlink(missing_ok=True)
    (work / THREADS).unlink(missing_ok=True)
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    work.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def mark_checkpoint_complete(checkpoint: Path) -> None:
    """Records the files of a checkpoint once all are written; a checkpoint without this mark is not resumed from."""
    sizes = {str(p.relative_to(checkpoint)): p.stat().st_size for p in checkpoint.rglob("*") if p.is_file()}
    write_json(checkpoint / CHECKPOINT_COMPLETE, sizes)


def latest_checkpoint(work: Path) -> Path | None:
    """The last checkpoint that was written in full; half-written ones are removed."""
    best: tuple[int, Path] | None = None
    for path in sorted((work / CHECKPOINTS).glob("checkpoint-*")):
        mark = path / CHECKPOINT_COMPLETE
        whole = mark.exists() and all(
            (path / name).exists() and (path / name).stat().st_size == size for name, size in read_json(mark).items()
        )
        if not whole:
            shutil.rmtree(path)
            continue
        step = int(path.name.rpartition("-")[2])
        if best is None or step > best[0]:
            best = (step, path)
    return best[1] if best else None
