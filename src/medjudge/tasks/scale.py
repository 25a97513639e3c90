"""A label scale alone: what is needed of a task where verdicts were made by another program."""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar, Literal

from pydantic import model_validator

from medjudge.settings.base import Settings


class LabelScale(Settings):
    """The labels of a task of which nothing else is known: no prompt, no parser."""

    kind: Literal["labels"] = "labels"
    labels: tuple[str, ...]
    """Lowest first where `ordered`."""
    ordered: bool = False
    positive: str | None = None
    """The positive label of a two-label scale."""

    answer_is_json: ClassVar[bool] = False
    lenient: ClassVar[bool] = False

    @model_validator(mode="after")
    def _is_a_scale(self) -> LabelScale:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels) or "" in self.labels:
            raise ValueError(f"a scale needs two different labels or more, got {', '.join(self.labels) or 'none'}")
        if self.positive is not None and (len(self.labels) != 2 or self.positive not in self.labels):
            raise ValueError(
                f"positive is {self.positive!r}: it must be one of two labels, got {self.labels}: name the positive "
                "one of two"
            )
        return self

    def fingerprint(self) -> str:
        """sha256 of the scale."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()
