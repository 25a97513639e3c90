"""What numbers were made from, for the manifest beside them: the command, and the data and weights by their hashes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.data.rows import source_files
from medjudge.errors import MedjudgeError
from medjudge.models.sources import source_files as model_files
from medjudge.settings.endpoint import is_endpoint
from medjudge.settings.engine import local_name

WEIGHT_FILES = ("*.safetensors", "*.bin")
Files = dict[str, dict[str, Any]]
"""Path -> its size in bytes and its sha256."""


def command_line() -> str:
    """The command of this process, as it can be typed again."""
    return shlex.join(["medjudge", *sys.argv[1:]])


def record_command(folder: Path) -> None:
    """Keeps the commands that touched a folder, the newest last, for its page."""
    path = folder / artifacts.COMMANDS
    commands = artifacts.read_commands(path)
    # Each command once, where it was typed last, and only the newest: a page is to show them.
    artifacts.write_json(path, list(dict.fromkeys([*commands, command_line()]))[-20:])


def file_entry(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": path.stat().st_size, "sha256": artifacts.sha256_file(path)}


def data_files(sources: Iterable[str | None]) -> Files:
    """The local files of sources of rows or verdicts. Of a hub data set there are none: its name stands in the inputs.

    A source that is not given, or no longer there, is left out.
    """
    paths: list[Path] = []
    for source in sources:
        try:
            # A gone file is no error here: what was read of it stands in the inputs by its hash.
            paths += source_files(source) if source else ()
        except MedjudgeError:
            continue
    return _entries(paths)


def weight_files(models: Iterable[str | Path | None], revision: str | None = None) -> Files:
    """The weight files of model folders, of built-in models and of hub models that lie in the hub's cache, and GGUF
    files themselves; of endpoints there are none."""
    paths: list[Path] = []
    for model in models:
        if model is None or is_endpoint(str(model)):
            continue
        name = local_name(str(model))
        if files := model_files(name):
            paths += files
            continue
        folder = _folder(name, revision)
        paths += [path for pattern in WEIGHT_FILES for path in sorted(folder.glob(pattern))] if folder else []
    return _entries(paths)


def _folder(model: str, revision: str | None) -> Path | None:
    if (folder := Path(model).expanduser()).is_dir():
        return folder
    from medjudge.models.load import resolve  # imports torch, which is loaded already where a hub model was asked

    try:
        # Nothing is downloaded for a manifest.
        return resolve(model, revision, is_asked_for=False)
    except MedjudgeError:
        return None


def _entries(paths: Iterable[Path]) -> Files:
    return {str(path): file_entry(path) for path in dict.fromkeys(paths) if path.is_file()}
