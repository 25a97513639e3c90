"""Test runs of DeepEval: each metric of a test case is the verdict of a judge. A metric without a score failed."""

from __future__ import annotations

from typing import Any

from medjudge.data.rows import Row
from medjudge.data.verdict_formats.layout import (
    NO_VERDICT,
    Asked,
    Format,
    Layout,
    Values,
    added,
    gold_path,
    having,
    objects,
    or_none,
    unique,
)

VERDICT, METRIC, FAILED = "metricsData.success", "metricsData.name", "metricsData.error"


def _container(tree: Values) -> list[Any] | None:
    cases = [*objects(tree.get("testCases")), *objects(tree.get("conversationalTestCases"))]
    return cases if cases and any("metricsData" in case for case in cases) else None


def _read(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = []
    for row in rows:
        metrics = objects(row.values.get("metricsData"))
        if not metrics:
            laid.append(added(row, {NO_VERDICT: True, VERDICT: None, METRIC: "", FAILED: ""}))
        for metric in metrics:
            score = or_none(metric.get("score"))
            failed = metric.get("error") or ("no score" if score is None else "")
            verdict = score if asked.scores else metric.get("success")
            laid.append(
                added(
                    row, {VERDICT: None if failed else verdict, METRIC: metric.get("name") or "metric", FAILED: failed}
                )
            )
    columns = {
        "id": "name" if unique(rows, "name") else "order",
        "label": VERDICT,
        "judge": METRIC,
        "error": FAILED,
        "confidence": "",
        "generator": "",
    }
    if not unique(rows, columns["id"]):
        columns["id"] = "test case"
        at = {row.place: number for number, row in enumerate(rows, start=1)}
        laid = [added(row, {"test case": at[row.place]}) for row in laid]
    if path := gold_path(rows, ["metadata", "additionalMetadata"], asked, source):
        columns["gold"] = path
    same: dict[str, str] = {}
    if len(laid) <= len(rows):
        same = {"success": VERDICT, "metricsData[0].success": VERDICT, "metricsData.0.success": VERDICT}
    if same and asked.scores:
        same |= {"metricsData[0].score": VERDICT, "metricsData.0.score": VERDICT}
    return Layout(laid, columns, same, [], meaning="sides")


FORMAT = Format(
    "deepeval",
    "a test run of DeepEval",
    "medjudge score test_run.json --labels fail,pass [--gold metadata.NAME]",
    having("metricsData", one_of=("actualOutput", "turns", "input")),
    _read,
    _container,
)
