"""Results of promptfoo: whether an answer passed its assertions. A grader that failed gave no verdict."""

from __future__ import annotations

from typing import Any

from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    Asked,
    Format,
    Layout,
    Values,
    added,
    get,
    gold_path,
    having,
    items,
    objects,
    or_none,
    unique,
)

PASSED, FAILED, CASE, SYSTEM = "grade", "grader failed", "test", "provider tested"


def _container(tree: Values) -> list[Any] | None:
    rows = get(tree, "results.results")
    return rows if isinstance(rows, list) and "evalId" in tree else None


def _failure(row: Row) -> str:
    """Why there is no grade, in a word; empty where there is one."""
    grading = items(row.values.get("gradingResult"))
    parts = [grading, *objects(grading.get("componentResults"))]
    if any(get(part, "metadata.graderError") for part in parts):
        return "graderError"
    # failureReason 2: the test ended in an error before anything was graded.
    if not grading or row.values.get("failureReason") == 2 or get(row.values, "response.error"):
        return "error"
    return ""


def _read(rows: list[Row], asked: Asked, source: str) -> Layout:
    systems = [plain(get(row.values, "provider.label") or get(row.values, "provider.id")) for row in rows]
    prompts = {plain(row.values.get("promptIdx")) for row in rows}
    said = "gradingResult.score" if asked.scores else "gradingResult.pass"
    laid = []
    by_description = unique(rows, "testCase.description")
    for row, system in zip(rows, systems, strict=True):
        test = plain(get(row.values, "testCase.description") if by_description else row.values.get("testIdx"))
        parts = [test]
        if not by_description:
            parts += [system] if len(set(systems)) > 1 else []
            parts += [f"prompt {plain(row.values.get('promptIdx'))}"] if len(prompts) > 1 else []
        failure = _failure(row)
        computed = {
            PASSED: None if failure else or_none(get(row.values, said)),
            FAILED: failure,
            CASE: "|".join(parts),
            SYSTEM: system,
        }
        laid.append(added(row, computed))
    columns = {"id": CASE, "label": PASSED, "error": FAILED, "generator": SYSTEM, "judge": "", "confidence": ""}
    if not by_description and len(set(systems)) * len(prompts) > 1:
        columns["group"] = "testIdx"
    if len({row.values[CASE] for row in laid}) < len(laid):
        columns["repeat"] = "evaluation"
        met: dict[object, int] = {}
        for at, row in enumerate(laid):
            met[row.values[CASE]] = met.get(row.values[CASE], 0) + 1
            laid[at] = added(row, {"evaluation": met[row.values[CASE]]})
    if path := gold_path(rows, ["vars", "testCase.vars", "testCase.metadata"], asked, source):
        columns["gold"] = path
    same = {said: PASSED, "success": PASSED, "testCase.description": CASE if by_description else "testCase.description"}
    return Layout(laid, columns, same, [], meaning="sides")


FORMAT = Format(
    "promptfoo",
    "results of promptfoo",
    "medjudge score results.json --labels fail,pass [--gold vars.NAME]",
    having("testCase", "gradingResult", "provider", "promptIdx"),
    _read,
    _container,
)
