"""The one way to the shared folder of real rows and tokenizers: tests that need it skip, with a reason, without it."""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_dir() -> Path | None:
    """`$MEDJUDGE_SHARED_DIR`, else the folder `shared` beside the repository; None where there is none."""
    named = os.environ.get("MEDJUDGE_SHARED_DIR")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    return folder if folder.is_dir() else None


def require_shared(*parts: str) -> Path:
    """A path in the shared folder; skips the test where it is absent."""
    folder = shared_dir()
    if folder is None:
        pytest.skip("no shared folder beside the repository (MEDJUDGE_SHARED_DIR names another place)")
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the shared folder has no {'/'.join(parts)}")
    return path


def shared_rows(*parts: str) -> list[dict[str, Any]]:
    """The rows of a `.jsonl` or `.jsonl.gz` file in the shared folder."""
    path = require_shared(*parts)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@cache
def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def shared_tokenizer(name: str) -> Any:
    """One of the real tokenizers (`qwen3`, `phi-3-mini`, `phi-4`, `smollm2`), loaded once. Do not change it."""
    return _tokenizer(require_shared("tokenizers", name))
