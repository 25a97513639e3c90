"""Files of medical benchmarks: runs of HELM and MedHELM with jurors, and the meta-evaluation of HealthBench."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    Asked,
    Format,
    Layout,
    Values,
    added,
    entries,
    get,
    gold_path,
    has,
    having,
    items,
    majority,
    or_none,
    tied_experts,
)

SCORE, JUROR, CRITERION, FAILED = "juror's score", "juror", "criterion", "failure"
PHYSICIANS, MET = "physicians' majority", "grader's verdict"


def _container(tree: Values) -> list[Any] | None:
    rows = tree.get("request_states")
    return rows if isinstance(rows, list) and any(has(row, "instance") for row in rows) else None


def _scores(row: Row) -> list[tuple[str, str, Any]]:
    """(juror, criterion, score) of everything that jurors said of one answer."""
    found = []
    for scenario in items(row.values.get("annotations")).values():
        for juror, by_criterion in items(scenario).items():
            for criterion, said in items(by_criterion).items():
                if isinstance(said, dict) and "score" in said:
                    found.append((juror, criterion, said["score"]))
    return found


def _read_helm(rows: list[Row], asked: Asked, source: str) -> Layout:
    said = [(row, *one) for row in rows for one in _scores(row)]
    criteria = list(dict.fromkeys(criterion for _, _, criterion, _ in said))
    laid = []
    for row, juror, criterion, score in said:
        value = or_none(score)
        computed = {SCORE: value, JUROR: juror, CRITERION: criterion, FAILED: "" if value is not None else "no score"}
        laid.append(added(row, computed))
    columns = {"id": "instance.id", "label": SCORE, "judge": JUROR, "error": FAILED, "confidence": ""}
    notes = []
    if len(criteria) > 1:
        columns |= {"id": f"instance.id+{CRITERION}", "group": "instance.id"}
        notes.append(f"{source}: each criterion of an answer is a case: {', '.join(criteria[:8])}.")
    # One instance may be asked several times, as it stands and disturbed; each is answered anew.
    if any(has(row.values, "train_trial_index") for row in rows):
        columns["repeat"] = "train_trial_index"
    if path := gold_path(laid, ["", "instance", "instance.extra_data"], asked, source):
        columns["gold"] = path
    return Layout(laid, columns, {}, notes)


def _is_helm(rows: Sequence[Values]) -> str:
    if not any(_scores(Row("", row)) for row in rows):
        return ""
    return having("instance.id", "annotations")(rows) and "request states with an instance and jurors' scores"


def _read_healthbench(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid, n_tied = [], 0
    for row in rows:
        vote, tied = majority(entries(row.values.get("binary_labels")))
        n_tied += tied
        said = next((get(row.values, path) for path in _VERDICTS if has(row.values, path)), None)
        case = "|".join(plain(row.values.get(part)) for part in ("prompt_id", "completion_id", "rubric"))
        laid.append(added(row, {PHYSICIANS: vote, MET: or_none(said), "prompt, completion and rubric": case}))
    columns = {
        "id": "prompt, completion and rubric",
        "gold": PHYSICIANS if any(has(row.values, "binary_labels") for row in rows) else "",
        "confidence": "",
        "error": "",
        "generator": "",
    }
    names = [plain(row.values.get("completion_id")) for row in rows]
    if all(names) and len(set(names)) == len(names):
        columns["id"] = "completion_id"
    if any(row.values.get("prompt_id") for row in rows):
        columns["group"] = "prompt_id"
    columns["label"] = MET if any(has(row.values, path) for row in rows for path in _VERDICTS) else ""
    same = {"binary_labels": PHYSICIANS, **dict.fromkeys(_VERDICTS, MET)}
    return Layout(laid, columns, same, tied_experts(n_tied, len(rows)), meaning="sides")


def _is_healthbench(rows: Sequence[Values]) -> str:
    labels = having("binary_labels", one_of=("anonymized_physician_ids", "rubric"))
    replies = having(one_of=_VERDICTS[:2])
    named = having(one_of=("completion_id", "prompt_id"))
    return labels(rows) or (named(rows) and replies(rows))


_VERDICTS = ("grading_response.criteria_met", "grader_response.criteria_met", "criteria_met")
"""Where a grader's reply stands, if it was put beside the physicians' labels."""

HELM = Format(
    "helm",
    "a run of HELM or MedHELM with jurors",
    "medjudge score scenario_state.json --labels 1,2,3,4,5 --ordered --gold gold.csv",
    _is_helm,
    _read_helm,
    _container,
)
HEALTHBENCH = Format(
    "healthbench",
    "HealthBench's meta-evaluation",
    "medjudge score grader.jsonl --labels false,true --gold meta.jsonl",
    _is_healthbench,
    _read_healthbench,
)
