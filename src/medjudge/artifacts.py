"""Every file name of a run, and the rules by which files come to be.

A stage works in `runs/NAME/.STAGE.work` and is moved to `runs/NAME/STAGE` when it is whole, its manifest written last.
Killed at any moment, a run has for each stage either the whole folder or a work folder to resume from. What a
finished stage wrote is checked against the hashes of its manifest wherever it is read (`files.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from medjudge.errors import MedjudgeError, RunError
from medjudge.files import HASHES as HASHES
from medjudge.files import MANIFEST as MANIFEST
from medjudge.files import (
    check_output,
    how_to_renew,
)
from medjudge.files import check_outputs as check_outputs
from medjudge.files import make_folder as make_folder
from medjudge.files import private_files as private_files
from medjudge.files import remove as remove
from medjudge.files import sha256_file as sha256_file
from medjudge.files import write_bytes as write_bytes
from medjudge.files import write_json as write_json
from medjudge.files import write_text as write_text
from medjudge.version import __version__

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
CONTRACT = "contract.json"
THREADS = "threads.json"
CHECKPOINTS = "checkpoints"
CHECKPOINT_COMPLETE = "complete.json"
HISTORY = "history.json"
PREFLIGHT = "preflight.json"
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
CALIBRATION_MANIFEST = "calibration.manifest.json"
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


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]], *, private: bool = True) -> None:
    """Writes JSON objects, one a line, whole or not at all: what `read_lines` reads."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), private=private)


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
