"""The parts of free records in `results.json` that pages and tables rely on; all else in them may be anything."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Overlap(_Stored):
    n_cases: int = 0


class StoredPair(_Stored):
    """Leakage between two splits."""

    train: str = ""
    held_out: str = ""
    n_train: int = 0
    n_held_out: int = 0
    overlaps: dict[str, _Overlap]


class StoredLeakage(_Stored):
    """`LeakageReport.to_json()`."""

    comparisons: tuple[StoredPair, ...] = ()


class _StoredMerge(_Stored):
    n_positions: int | None = None
    max_logit_difference: float | None = None
    share_unchanged_tokens: float | None = None
    stored_max_logit_difference: float | None = None
    stored_share_unchanged_tokens: float | None = None
    trained_max_logit_difference: float | None = None
    trained_share_unchanged_tokens: float | None = None


class StoredLineage(_Stored):
    """`Lineage.to_json()`, or the record of an endpoint."""

    base: str | None = None
    ancestry: tuple[dict[str, Any], ...] | None = None
    merge: _StoredMerge | None = None
