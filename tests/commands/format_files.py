"""Six hand-made cases as files of other programs hold them, and what `score` reads in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medjudge.commands.score import Scored, ScoreOptions, label_scale, score
from medjudge.errors import MedjudgeError
from medjudge.records import Verdict

N = 6
GOLD = ("yes", "no", "yes", "no", "yes", "no")
SAID = ("yes", "no", "no", "no", "no", None)
"""Right on cases 0, 1 and 3, wrong on 2 and 4, and no verdict on 5: three of six."""
RIGHT = 3 / 6


def write_json(path: Path, tree: Any) -> str:
    path.write_text(json.dumps(tree), encoding="utf-8")
    return str(path)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def read(source: str | list[str], labels: str = "no,yes", *, ordered: bool = False, **given: Any) -> Scored:
    """What `medjudge score` makes of files."""
    paths = [source] if isinstance(source, str) else source
    scale = given.pop("scale", None) or label_scale(labels, ordered)
    return score(paths, scale, ScoreOptions(**{"n_resamples": 20, **given}))


def refusal(source: str | list[str], labels: str = "no,yes", **given: Any) -> str:
    with pytest.raises(MedjudgeError) as error:
        read(source, labels, **given)
    return str(error.value)


def said(scored: Scored, judge: str) -> dict[str, str]:
    """Case -> label, or the kind of what is missing."""
    return {one.case_id: one.label if isinstance(one, Verdict) else f"({one.kind})" for one in scored.judgements[judge]}


def by_case(labels: Mapping[str, str] | tuple[str | None, ...], prefix: str = "c", missing: str = "(failed)") -> Any:
    """The six labels under case ids c0 to c5."""
    return {f"{prefix}{i}": label or missing for i, label in enumerate(labels)}


def gold_of(scored: Scored) -> dict[str, str | None]:
    return {case.case_id: case.gold for case in scored.cases}


def accuracy(scored: Scored, judge: str) -> float:
    value = scored.results.models[judge].metrics["accuracy"].value
    assert value is not None
    return value


def unanswered(scored: Scored, judge: str) -> dict[str, int]:
    return dict(scored.results.models[judge].unanswered)
