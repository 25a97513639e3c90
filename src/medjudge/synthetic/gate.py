"""The built-in sets as `medjudge.synthetic.surface` measures them, and how much their surface may give away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medjudge.synthetic.sets import GENERATORS
from medjudge.synthetic.surface import Embed, SurfaceRow, measure, measure_choice

AIMS: dict[str, float] = {
    "mcq": 0.35,
    "mcq-fr": 0.35,
    "equivalence": 0.75,
    "equivalence-fr": 0.75,
    "rubric": 0.45,
    "rubric-3": 0.62,
    "rubric-2": 0.75,
    "appropriateness": 0.62,
    "appropriateness-bare": 0.62,
    "pairwise": 0.45,
    "pairwise-fr": 0.45,
}
"""Set -> accuracy at balanced labels that no surface baseline should exceed."""
FIELDS: dict[str, tuple[str, ...]] = {
    "equivalence": ("candidate", "reference", "question"),
    "rubric": ("output", "reference", "input"),
    "appropriateness": ("procedure", "variant", "condition", "evidence"),
    "pairwise": ("answer_a", "answer_b", "reference", "question"),
}
LABELS = {"equivalence": "label", "rubric": "score", "appropriateness": "appropriateness", "pairwise": "label"}
OPTIONS = ("opa", "opb", "opc", "opd")


def measure_set(name: str, n: int, seed: int, embed: Embed | None = None) -> dict[str, float]:
    """Baseline -> accuracy at balanced labels on `n` rows of the built-in set `name`."""
    drawn = GENERATORS[name]
    rows: list[Mapping[str, Any]] = list(drawn.rows(n, seed))
    groups = ["/".join(str(row[column]) for column in drawn.group_by) for row in rows]
    if drawn.kind == "mcq":
        return measure_choice(rows, [row["cop"] for row in rows], groups, OPTIONS, embed=embed)
    fields = [field for field in FIELDS[drawn.kind] if field in rows[0]]
    made = [
        SurfaceRow({field: _text(row[field]) for field in fields}, str(row[LABELS[drawn.kind]]), group)
        for row, group in zip(rows, groups, strict=True)
    ]
    if drawn.kind == "pairwise":
        sides = (("answer_a", "reference"), ("answer_b", "reference"), ("answer_a", "answer_b"))
        return measure(made, sides, embed)
    return measure(made, ((fields[0], fields[1]),) if drawn.kind != "appropriateness" else (), embed)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{one['title']}. {one['text']}" for one in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
