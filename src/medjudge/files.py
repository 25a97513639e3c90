"""How files are written, removed, and checked against their manifest when they are read.

A file appears whole or not at all, and only its owner can read it from its first byte on, since most files of a run
hold texts of cases. A file that a manifest lists is read only where its sha256 is the one that the manifest names.

Hashing: every file is hashed once per process. A file of `REMEMBERED_FROM` bytes or more (weights) is remembered in
the run folder (`.hashes.json`) by its path, inode, size and both times (mtime and ctime, in ns), and is hashed again
only where one of these differs. ctime cannot be set by a program, so a rewrite that restores size and mtime is noticed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medjudge.errors import RunError

BUILTIN_DIR = Path(__file__).parent / "builtin"
"""Facts, situations, recipes and the small model that ship with the package."""
MANIFEST = "manifest.json"
LOCK = ".lock"
HASHES = ".hashes.json"
REMEMBERED_FROM = 64 * 2**20
"""Bytes from which on a file's hash is remembered between processes: a smaller one is hashed in a tenth of a second."""
SETTLED_NS = 1_000_000_000
"""A file that changed less than this ago is not remembered: a second change might leave the same time stamp."""
LEVELS = 4
"""Folders above a file that are searched for its manifest."""
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600

_WRITE_FAILURES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the limit for files of this process (`ulimit -f`)",
    errno.EROFS: "the file system is read-only",
}
_WRITE_FAILURE_TEXTS = (
    ("os error 28", errno.ENOSPC),
    ("no space left on device", errno.ENOSPC),
    ("disk is full", errno.ENOSPC),
    ("os error 122", errno.EDQUOT),
    ("os error 27", errno.EFBIG),
    ("file too large", errno.EFBIG),
    ("os error 30", errno.EROFS),
    ("read-only file system", errno.EROFS),
    ("inline_container.cc", errno.ENOSPC),  # torch's writer names no cause
    ("pytorchstreamwriter", errno.ENOSPC),
)
"""What libraries that raise no OSError say of a failed write."""

_hashes: dict[tuple[Any, ...], str] = {}
_manifests: dict[tuple[Any, ...], Mapping[str, Any] | None] = {}


# --- writing and removing ---------------------------------------------------------------------------------------------


_masks: list[int] = []


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Every file and folder that this process makes meanwhile, by a library too, is for its owner alone."""
    _masks.append(os.umask(0o077))
    try:
        yield
    finally:
        os.umask(_masks.pop())


@contextlib.contextmanager
def shared_files() -> Iterator[None]:
    """The user's own umask, also within `private_files`: for a cache of models that several people may share."""
    previous = os.umask(_masks[0]) if _masks else None
    try:
        yield
    finally:
        if previous is not None:
            os.umask(previous)


def make_folder(path: Path) -> None:
    """Makes a folder that only its owner can enter, with its parents. Raises RunError where a file is in the way."""
    try:
        if path.is_symlink() and not path.exists():
            path.unlink()  # a link that leads nowhere
        path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RunError(
            f"{path} cannot be made: a file is in its place or in that of a folder above. Move it."
        ) from None


def write_bytes(path: Path, content: bytes, *, private: bool = True) -> None:
    """Writes `path` whole or not at all, readable for its owner alone unless `private` is false.

    Raises RunError where a folder lies in its place, OSError with the file's name where it cannot be written.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder, where a file is to be written: move the folder, or run with --fresh.")
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        remove(temporary)
        with contextlib.nullcontext() if private else shared_files():
            mode = PRIVATE_FILE if private else 0o666
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, private: bool = True) -> None:
    """As `write_bytes`, in UTF-8; half a surrogate pair, as arguments that are not UTF-8 bring, as its escape."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), private=private)


def write_json(path: Path, value: Any, *, private: bool = True) -> None:
    """Writes `value` as indented JSON, whole or not at all. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", private=private)


def remove(path: Path) -> None:
    """Removes whatever lies there: a folder with all in it (read-only parts too), a file, a link that leads nowhere."""
    if path.is_dir() and not path.is_symlink():

        def allow(function: Any, name: str, _: BaseException) -> None:
            with contextlib.suppress(OSError):
                Path(name).parent.chmod(PRIVATE_FOLDER)
                if Path(name).is_dir():
                    Path(name).chmod(PRIVATE_FOLDER)
                    shutil.rmtree(name)
                else:
                    function(name)

        _rmtree(path, allow)
    else:
        path.unlink(missing_ok=True)
    if os.path.lexists(path):
        raise RunError(f"{path} cannot be removed: check its permissions, or remove it by hand.")


def _rmtree(path: Path, on_error: Any) -> None:
    import sys

    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=on_error)
    else:
        shutil.rmtree(path, onerror=lambda function, name, info: on_error(function, name, info[1]))


def write_failure(error: BaseException) -> str | None:
    """A sentence for an exception, of whatever library, that says that a file could not be written; else None."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            break
        code = seen.errno if isinstance(seen, OSError) else None
        if code not in _WRITE_FAILURES and not isinstance(seen, RunError):
            text = str(seen).lower()
            code = next((number for words, number in _WRITE_FAILURE_TEXTS if words in text), None)
        if code in _WRITE_FAILURES:
            name = seen.filename if isinstance(seen, OSError) and seen.filename else "a file"
            return (
                f"{name} cannot be written: {_WRITE_FAILURES[code]}. Nothing half-written is used. Make room, or write "
                "to another folder, and run the same command again."
            )
        seen = seen.__cause__ or seen.__context__
    return None


# --- hashes -----------------------------------------------------------------------------------------------------------


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes; a file is hashed once per process while its inode, size and times stay the same."""
    key = file_stamp(path)
    known = _hashes.get((os.path.abspath(path), *key))  # noqa: PTH100 - resolve() would follow links out of a run
    if known is not None:
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if file_stamp(path) == key and _is_settled(key):
        _hashes[(os.path.abspath(path), *key)] = digest  # noqa: PTH100
    return digest


def file_stamp(path: Path) -> tuple[int, int, int, int]:
    """Inode, size in bytes, mtime and ctime in ns: what tells that a file may have changed."""
    info = path.stat()
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _is_settled(stamp: tuple[int, int, int, int]) -> bool:
    return time.time_ns() - max(stamp[2], stamp[3]) > SETTLED_NS


def sha256_output(run_folder: Path, path: Path) -> str:
    """As `sha256_file`; the hash of a large file is remembered in the run folder for the next process."""
    stamp = file_stamp(path)
    if stamp[1] < REMEMBERED_FROM:
        return sha256_file(path)
    place = os.path.relpath(path, run_folder)
    remembered = _remembered(run_folder)
    if place in remembered and remembered[place][:-1] == [*stamp]:
        return str(remembered[place][-1])
    digest = sha256_file(path)
    remember_output(run_folder, path, digest, stamp)
    return digest


def remember_output(run_folder: Path, path: Path, digest: str, stamp: tuple[int, int, int, int]) -> None:
    """Notes the hash of a large file that had this inode, size, mtime and ctime before it was hashed."""
    if stamp[1] >= REMEMBERED_FROM and file_stamp(path) == stamp and _is_settled(stamp):
        remembered, place = _remembered(run_folder), os.path.relpath(path, run_folder)
        kept = {name: value for name, value in remembered.items() if (run_folder / name).exists()}
        with contextlib.suppress(OSError, RunError):  # a folder that cannot be written is hashed each time
            write_json(run_folder / HASHES, {**kept, place: [*stamp, digest]})


def _remembered(run_folder: Path) -> dict[str, list[Any]]:
    try:
        value = json.loads((run_folder / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: entry for name, entry in value.items() if isinstance(entry, list) and len(entry) == 5}


# --- a stage's outputs ------------------------------------------------------------------------------------------------


def as_manifest(value: Any) -> Mapping[str, Any] | None:
    """`value` if it is the manifest of a finished stage; None if it is of another program or damaged."""
    if not isinstance(value, dict) or not isinstance(value.get("outputs"), dict):
        return None
    texts = all(isinstance(value.get(key), str) for key in ("stage", "inputs_sha256"))
    entries = all(
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("bytes"), int)
        and not Path(name).is_absolute()
        for name, entry in value["outputs"].items()
    )
    return value if texts and entries and isinstance(value.get("inputs"), dict) else None


def output_trouble(stage: Path, manifest: Mapping[str, Any], relative: str) -> str | None:
    """Why a listed output is not what the manifest says; None if it is."""
    path, entry = stage / relative, manifest["outputs"][relative]
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{relative} is not a file"
        # Beside a command's own folder lie the user's files: hashes are remembered in runs, and in the folder itself.
        found = sha256_output(stage.parent if (stage.parent / LOCK).exists() else stage, path)
    except FileNotFoundError:
        return f"{relative} is missing"
    except OSError as error:
        return f"{relative} cannot be read ({error.strerror or type(error).__name__})"
    if found == entry["sha256"]:
        return None
    return f"{relative} was changed: its sha256 is {found[:12]}, {MANIFEST} names {entry['sha256'][:12]}"


def check_output(path: Path) -> None:
    """Raises RunError if `path` is a file of a finished stage and not the one that its stage wrote."""
    place = _stage_of(path)
    if place is None:
        return
    stage, manifest = place
    relative = Path(os.path.abspath(path)).relative_to(stage).as_posix()  # noqa: PTH100
    if relative in manifest["outputs"] and path.exists():
        _require(stage, manifest, [relative])


def check_outputs(folder: Path) -> None:
    """As `check_output`, for all files that a finished stage wrote into `folder`; a missing one is an error, too."""
    place = _stage_of(folder / MANIFEST)
    if place is None:
        return
    stage, manifest = place
    inside = Path(os.path.abspath(folder)).relative_to(stage).as_posix()  # noqa: PTH100
    prefix = "" if inside == "." else f"{inside}/"
    _require(stage, manifest, [name for name in manifest["outputs"] if name.startswith(prefix)])


def _require(stage: Path, manifest: Mapping[str, Any], names: list[str]) -> None:
    for name in names:
        if (trouble := output_trouble(stage, manifest, name)) is not None:
            raise RunError(f"{stage}: {trouble}. {how_to_renew(stage)}")


def how_to_renew(path: Path) -> str:
    """What makes a file or folder of a run anew."""
    from medjudge.names import STAGE_NAMES

    places = Path(os.path.abspath(path))  # noqa: PTH100
    for part in (places, *places.parents[:LEVELS]):
        name = part.name.removeprefix(".").removesuffix(".work")
        if name in STAGE_NAMES and (part.parent / LOCK).exists():
            return f"To make it anew: medjudge run RECIPE --from {name} --fresh."
        if (part / MANIFEST).exists():
            return "To make it anew, run the command that wrote it again."
        if _is_run(part):
            return "To make it anew: medjudge run RECIPE --fresh."
    return "Restore it from a copy, or run the command that wrote it again."


def _stage_of(path: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The finished stage that a file lies in, and its manifest. Raises RunError if that is damaged."""
    place = Path(os.path.abspath(path))  # noqa: PTH100
    for folder in place.parents[:LEVELS]:
        manifest_path = folder / MANIFEST
        try:
            key = (str(manifest_path), *file_stamp(manifest_path))
        except OSError:
            continue
        if key not in _manifests or not _is_settled(key[1:]):
            _manifests[key] = _read_manifest(manifest_path)
        manifest = _manifests[key]
        if manifest is not None:
            return folder, manifest
        if _is_run(folder.parent):  # elsewhere it is another program's file of the same name
            raise RunError(
                f"{manifest_path} is damaged, so what lies beside it cannot be checked. {how_to_renew(folder)}"
            )
    return None


def _is_run(folder: Path) -> bool:
    return (folder / LOCK).exists() and any((folder / name).exists() for name in ("recipe.json", "commands.json"))


def _read_manifest(path: Path) -> Mapping[str, Any] | None:
    try:
        return as_manifest(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
