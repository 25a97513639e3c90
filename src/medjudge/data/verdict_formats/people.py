"""Exports of annotation tools, Argilla and Label Studio: a model suggests, people answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medjudge.data.cells import number
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    NO_VERDICT,
    Asked,
    Format,
    Layout,
    Values,
    added,
    entries,
    get,
    has,
    having,
    items,
    majority,
    objects,
    tied_experts,
    unique,
)
from medjudge.errors import DataError

PEOPLE_SAY, EACH = "experts' majority", "experts' answers"
SAID, SURE, WHO = "prediction", "prediction's score", "model_version"


def _questions(rows: Sequence[Values]) -> list[str]:
    ends = (".responses", ".suggestion")
    names = dict.fromkeys(key.removesuffix(ends[0]) for row in rows for key in row if key.endswith(ends[0]))
    return [name for name in names if any(f"{name}{ends[1]}" in row for row in rows)]


def _is_argilla(rows: Sequence[Values]) -> str:
    names = _questions(rows)
    if not names or not any(
        f"{names[0]}.responses.status" in row or f"{names[0]}.responses.users" in row for row in rows
    ):
        return ""
    return f"its rows have {names[0]}.suggestion and {names[0]}.responses"


def _one_question(names: list[str], asked: Asked, source: str, ends: Sequence[str] = ("",)) -> str:
    """The question that is scored. Raises DataError where there are several."""
    if asked.gold is not None:
        named = [name for name in names if asked.gold in {name, *(f"{name}{end}" for end in ends)}]
        if named:
            return named[0]
    if len(names) == 1:
        return names[0]
    if not names:
        raise DataError(
            f"{source}: no question has both a model's answer and a person's. Expected one: read the file as plain "
            "rows with --format rows, and name columns with --map and --gold."
        )
    raise DataError(
        f"{source}: {' and '.join(names)} may each be the question that is scored. Name one: "
        f"{' or '.join(f'--gold {name}' for name in names)}."
    )


def _read_argilla(rows: list[Row], asked: Asked, source: str) -> Layout:
    name = _one_question(_questions([row.values for row in rows]), asked, source, (".responses", ".suggestion"))
    laid, n_tied = [], 0
    for row in rows:
        given = entries(row.values.get(f"{name}.responses"))
        states = entries(row.values.get(f"{name}.responses.status")) or ["submitted"] * len(given)
        # A draft is not sent yet, and a discarded answer is none.
        kept = [one for one, state in zip(given, states, strict=False) if state == "submitted"]
        vote, tied = majority(kept)
        n_tied += tied
        laid.append(added(row, {PEOPLE_SAY: vote, EACH: kept}))
    columns = {
        "id": "id" if any(row.values.get("id") for row in rows) else "_server_id",
        "label": f"{name}.suggestion",
        "gold": PEOPLE_SAY,
        "error": "",
    }
    if any(f"{name}.suggestion.agent" in row.values for row in rows):
        columns["judge"] = f"{name}.suggestion.agent"
    scores = [number(score) for row in rows if (score := row.values.get(f"{name}.suggestion.score")) is not None]
    if scores and all(score is not None and 0 <= score <= 1 for score in scores):
        columns["confidence"] = f"{name}.suggestion.score"
    same = {name: PEOPLE_SAY, f"{name}.responses": PEOPLE_SAY}
    return Layout(laid, columns, same, tied_experts(n_tied, len(rows)))


def _answer(result: Values) -> Any:
    """What one result of Label Studio says: a choice, several, a rating or the better of two."""
    value = items(result.get("value"))
    chosen = value.get("choices")
    if isinstance(chosen, list):
        return chosen[0] if len(chosen) == 1 else chosen or None
    for key in ("rating", "selected", "text", "number"):
        if key in value:
            found = value[key]
            return {"left": "A", "right": "B"}.get(str(found), found) if key == "selected" else found
    return None


def _answers(given: object) -> dict[str, Any]:
    """Question -> answer of one annotation or prediction."""
    return {plain(one.get("from_name")): _answer(one) for one in objects(given) if _answer(one) is not None}


def _read_studio(rows: list[Row], asked: Asked, source: str) -> Layout:
    asked_of: dict[str, dict[str, None]] = {"annotations": {}, "predictions": {}}
    for row in rows:
        for kind, names in asked_of.items():
            for one in objects(row.values.get(kind)):
                names |= dict.fromkeys(_answers(one.get("result")))
    both = [name for name in asked_of["predictions"] if name in asked_of["annotations"] or asked.gold_elsewhere]
    name = _one_question(both, asked, source)
    laid, n_tied = [], 0
    pairs = False
    for row in rows:
        people = [one for one in objects(row.values.get("annotations")) if not one.get("was_cancelled")]
        # One that an editor marked as the truth outweighs the others.
        truths = [one for one in people if one.get("ground_truth")] or people
        given = [_answers(one.get("result")).get(name) for one in truths]
        vote, tied = majority(given)
        n_tied += tied
        predictions: list[Mapping[str, Any]] = objects(row.values.get("predictions"))
        if not predictions:
            laid.append(added(row, {NO_VERDICT: True, SAID: None, SURE: None, WHO: "", PEOPLE_SAY: vote, EACH: given}))
        for one in predictions:
            results = objects(one.get("result"))
            pairs |= any(result.get("type") == "pairwise" for result in results)
            sure = number(one.get("score"))
            computed = {
                SAID: _answers(results).get(name),
                SURE: sure if sure is not None and 0 <= sure <= 1 else None,
                WHO: one.get("model_version"),
                PEOPLE_SAY: vote,
                EACH: given,
            }
            laid.append(added(row, computed))
    versions = {plain(row.values[WHO]) for row in laid} - {""}
    columns = {
        "id": "id" if unique(rows, "id") else "data.id",
        "label": SAID,
        "gold": PEOPLE_SAY,
        "confidence": SURE,
        "error": "",
        "kind": "",
    }
    if versions:
        columns["judge"] = WHO
    same = {name: PEOPLE_SAY}
    return Layout(laid, columns, same, tied_experts(n_tied, len(rows)), meaning="pair" if pairs else "")


def _is_studio(rows: Sequence[Values]) -> str:
    if not any(has(one, "result") for row in rows for one in objects(get(row, "annotations"))):
        return ""
    return having("data", "annotations", "predictions")(rows)


ARGILLA = Format(
    "argilla",
    "records of Argilla",
    "medjudge score records.json --labels no,yes",
    _is_argilla,
    _read_argilla,
)
LABEL_STUDIO = Format(
    "label_studio",
    "an export of Label Studio",
    "medjudge score project.json --labels no,yes",
    _is_studio,
    _read_studio,
)
