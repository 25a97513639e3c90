"""Files of graders that score answers: prometheus-eval and BiGGen, Ragas, CJE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medjudge.data.cells import number
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    GOLD_NAMES,
    Asked,
    Format,
    Layout,
    Values,
    added,
    finite,
    gold_path,
    having,
    items,
    objects,
    or_none,
    unique,
)
from medjudge.errors import DataError

SCORE, METRIC, FAILED, CASE, TRUTH = "score", "metric", "failure", "case", "target"
RAGAS_FIELDS = frozenset(
    [
        "user_input",
        "response",
        "reference",
        "retrieved_contexts",
        "reference_contexts",
        "rubrics",
        "multi_responses",
        "id",
    ]
)


def _read_prometheus(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    for row in rows:
        score = or_none(row.values.get("score"))
        # A list holds the scores of repeated gradings.
        for at, one in enumerate(score if isinstance(score, list) else [score], start=1):
            value = None if finite(one) is not None and float(finite(one) or 0) < 0 else or_none(one)
            laid.append(added(row, {"grade": value, FAILED: "" if value is not None else "no score", "grading": at}))
    columns = {"id": "id", "label": "grade", "error": FAILED, "repeat": "grading", "confidence": ""}
    if any(row.values.get("eval_model_name") for row in rows):
        columns["judge"] = "eval_model_name"
    if any(row.values.get("response_model_name") for row in rows):
        columns["generator"] = "response_model_name"
    ids = {(plain(row.values.get("id")), plain(row.values.get("eval_model_name"))) for row in rows}
    if len(ids) < len(rows):
        columns |= {"id": "id+response_model_name", "group": "id"}
    if path := gold_path(rows, [""], asked, source):
        columns["gold"] = path
    return Layout(laid, columns, {SCORE: "grade"}, [])


def _metrics(rows: Sequence[Values]) -> list[str]:
    """The columns of Ragas that are metrics: numbers, and no label of a person."""
    names = dict.fromkeys(key for row in rows for key in row)
    return [
        name
        for name in names
        if name not in RAGAS_FIELDS
        and not GOLD_NAMES.fullmatch(name)
        and any(finite(row.get(name)) is not None for row in rows)
        and all(row.get(name) is None or isinstance(row.get(name), bool) or _is_amount(row.get(name)) for row in rows)
    ]


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) or number(value) is not None or plain(value).casefold() == "nan"


def _is_ragas(rows: Sequence[Values]) -> str:
    by_keys = having("user_input", "response")(rows)
    metrics = _metrics(rows)
    return f"{by_keys}, and the metrics {', '.join(metrics[:4])}" if by_keys and metrics else ""


def _read_ragas(rows: list[Row], asked: Asked, source: str) -> Layout:
    names = [name for name in _metrics([row.values for row in rows]) if name != asked.gold]
    ids = "id" if unique(rows, "id") else ""
    laid = []
    for at, row in enumerate(rows, start=1):
        for name in names:
            value = finite(row.values.get(name))
            laid.append(
                added(
                    row,
                    {SCORE: value, METRIC: name, FAILED: "" if value is not None else "no score", CASE: f"row {at}"},
                )
            )
    columns = {"id": ids or CASE, "label": SCORE, "judge": METRIC, "error": FAILED, "confidence": ""}
    if path := gold_path(rows, [""], asked, source):
        columns["gold"] = path
    same = {names[0]: SCORE} if len(names) == 1 else {}
    return Layout(laid, columns, same, [])


def _container_ragas(tree: Values) -> list[Any] | None:
    known = {
        key: objects(value) for key, value in tree.items() if isinstance(value, list) and _is_annotated(objects(value))
    }
    if not known or len(known) < len(tree):
        return None
    return [{METRIC: name, **row} for name, rows in known.items() for row in rows]


def _is_annotated(rows: Sequence[Values]) -> str:
    return having("metric_input", "metric_output", "is_accepted")(rows)


def _read_annotated(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    for at, row in enumerate(rows, start=1):
        values = row.values
        # Where the person accepted what the metric gave, that is the label; else it is what was put in its place.
        target = values.get("target", values.get("edited_output"))
        truth = values.get("metric_output") if values.get("is_accepted") and target is None else target
        laid.append(added(row, {TRUTH: or_none(truth), SCORE: or_none(values.get("metric_output")), CASE: f"row {at}"}))
    columns = {"id": CASE, "label": SCORE, "gold": TRUTH, "confidence": "", "error": ""}
    if len({plain(row.values.get(METRIC)) for row in rows} - {""}) > 0:
        columns["judge"] = METRIC
    return Layout(laid, columns, {"metric_output": SCORE}, [], meaning="sides")


def _read_cje(rows: list[Row], asked: Asked, source: str) -> Layout:
    several = any(items(row.values).get("draw_idx") is not None for row in rows) and not unique(rows, "prompt_id")
    laid = []
    for row in rows:
        score = finite(row.values.get("judge_score"))
        parts = [plain(row.values.get("prompt_id")), plain(row.values.get("draw_idx"))]
        computed = {SCORE: score, FAILED: "" if score is not None else "no score", CASE: "|".join(parts)}
        laid.append(added(row, computed))
    columns = {
        # Draws of one prompt are different answers to it, and so different cases.
        "id": CASE if several else "prompt_id",
        "label": SCORE,
        "gold": "oracle_label",
        "error": FAILED,
        "confidence": "",
    }
    if several:
        columns["group"] = "prompt_id"
    if len(asked.labels) == 2 and not asked.scores:
        found = [score for row in laid if (score := finite(row.values[SCORE])) is not None]
        if any(0 < score < 1 for score in found):
            raise DataError(
                f"{source}: judge_score and oracle_label of CJE are scores from 0 to 1, expected labels. Say from "
                "where on they are the positive label: --threshold 0.5 --gold-threshold 0.5."
            )
    return Layout(laid, columns, {"judge_score": SCORE}, [])


PROMETHEUS = Format(
    "prometheus",
    "grades of prometheus-eval or BiGGen",
    "medjudge score evals.json --labels 1,2,3,4,5 --ordered [--gold COLUMN]",
    having("score_rubric", "response", "score", one_of=("feedback", "eval_model_name")),
    _read_prometheus,
)
RAGAS = Format(
    "ragas",
    "scores of Ragas",
    "medjudge score scores.jsonl --labels no,yes --threshold 0.5 [--gold COLUMN]",
    _is_ragas,
    _read_ragas,
)
RAGAS_ANNOTATED = Format(
    "ragas_annotated",
    "annotated metrics of Ragas",
    "medjudge score annotated.json --labels 0,1",
    _is_annotated,
    _read_annotated,
    _container_ragas,
)
CJE = Format(
    "cje",
    "draws of CJE",
    "medjudge score draws.jsonl --labels 0,1 --threshold 0.5 --gold-threshold 0.5",
    having("prompt_id", "judge_score", one_of=("oracle_label", "draw_idx", "response")),
    _read_cje,
)
