"""Annotation tools, traces and graders as `score` reads them: hand-made files of six cases, and what they must give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.commands.format_files import (
    GOLD,
    RIGHT,
    SAID,
    accuracy,
    by_case,
    gold_of,
    read,
    refusal,
    said,
    unanswered,
    write_json,
    write_lines,
)

# --- annotation tools -------------------------------------------------------------------------------------------------


def test_argilla(tmp_path: Path) -> None:
    others = ("yes", "no", "no", "no", "yes", "no")  # a second person, who differs on case 2
    records = [
        {"id": f"c{i}", "status": "completed", "question": f"q{i}", "same.suggestion": SAID[i]}
        | {"same.responses": [GOLD[i], others[i], "yes"], "same.responses.users": ["u1", "u2", "u3"]}
        | {"same.responses.status": ["submitted", "submitted", "discarded"]}
        | {"same.suggestion.score": 0.8, "same.suggestion.agent": "gpt"}
        for i in range(6)
    ]
    path = write_json(tmp_path / "records.json", records)
    scored = read(path)
    assert said(scored, "gpt") == by_case(SAID)
    assert gold_of(scored) == by_case(("yes", "no", None, "no", "yes", "no"), missing="") | {"c2": None}
    assert accuracy(scored, "gpt") == 3 / 5
    assert any("On 1 of 6 cases the experts tie" in line for line in scored.results.read_as)
    # A second question must be told from the first.
    two = [
        {**one, "good.suggestion": "yes", "good.responses": ["no"], "good.responses.status": ["submitted"]}
        for one in records
    ]
    path = write_json(tmp_path / "two.json", two)
    assert "--gold same or --gold good" in refusal(path)
    assert gold_of(read(path, gold="good.responses"))["c0"] == "no"


def choice(value: str | None) -> list[dict[str, Any]]:
    return [] if value is None else [{"from_name": "same", "type": "choices", "value": {"choices": [value]}}]


def test_label_studio(tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [
        {
            "id": i,
            "data": {"question": f"q{i}"},
            "annotations": [
                {"id": 1, "completed_by": 1, "result": choice(GOLD[i]), "was_cancelled": False},
                {"id": 2, "completed_by": 2, "result": choice("yes"), "was_cancelled": True},
            ],
            "predictions": [{"model_version": "gpt", "score": 0.8, "result": choice(SAID[i])}],
        }
        for i in range(6)
    ]
    path = write_json(tmp_path / "project.json", tasks)
    scored = read(path)
    assert said(scored, "gpt") == by_case(SAID, "")
    assert accuracy(scored, "gpt") == RIGHT
    scored = read(write_json(tmp_path / "part.json", [*tasks, {**tasks[0], "id": 9, "predictions": []}]))
    assert unanswered(scored, "gpt") == {"failed": 1, "absent": 1}
    # One that an editor marked as the truth outweighs the other.
    for task in tasks:
        task["annotations"][1] |= {"was_cancelled": False, "ground_truth": True, "result": choice("no")}
        task["predictions"].append({"model_version": "other", "result": choice("no")})
    scored = read(write_json(tmp_path / "two.json", tasks))
    assert set(gold_of(scored).values()) == {"no"}
    assert accuracy(scored, "other") == 1.0


# --- traces -----------------------------------------------------------------------------------------------------------


def note(kind: str, i: int, value: str | None, name: str = "same") -> dict[str, Any]:
    """A score of Langfuse."""
    base = {"id": f"{kind}{i}", "traceId": f"c{i}", "observationId": None, "name": name, "source": kind}
    return {**base, "dataType": "CATEGORICAL", "value": None, "stringValue": value}


def test_langfuse(tmp_path: Path) -> None:
    rows = [note("ANNOTATION", i, GOLD[i]) for i in range(6)] + [note("EVAL", i, SAID[i]) for i in range(6)]
    scored = read(write_json(tmp_path / "scores.json", {"data": rows, "meta": {"page": 1}}))
    assert said(scored, "same") == by_case(SAID)
    assert accuracy(scored, "same") == RIGHT
    # A trace that people annotated and the judge did not is one that the judge left out; other names are said.
    rows += [note("ANNOTATION", 9, "yes"), note("EVAL", 0, "yes", "toxic")]
    scored = read(write_json(tmp_path / "more.json", {"data": rows}))
    assert unanswered(scored, "same") == {"failed": 1, "absent": 1}
    assert accuracy(scored, "same") == 3 / 7
    assert any("people did not annotate it: toxic" in line for line in scored.results.read_as)
    del rows[-2:]
    # Numbers 0 and 1 of a yes/no score; the only name of the experts is theirs whatever the judge's is called.
    for row in rows:
        row["dataType"] = "BOOLEAN"
        row["value"] = None if row["stringValue"] is None else float(row["stringValue"] == "yes")
        row["name"] = "judge" if row["source"] == "EVAL" else "clinician"
    scored = read(write_lines(tmp_path / "scores.jsonl", rows))
    assert accuracy(scored, "judge") == RIGHT
    rows += [note("ANNOTATION", i, "no", "other") for i in range(6)]
    path = write_lines(tmp_path / "more.jsonl", rows)
    assert "--gold clinician or --gold other" in refusal(path)
    assert accuracy(read(path, gold="clinician"), "judge") == RIGHT


def test_phoenix(tmp_path: Path) -> None:
    rows = [
        {"span_id": f"c{i}", "name": "same", "annotator_kind": kind, "label": label, "score": None, "explanation": "-"}
        for i in range(6)
        for kind, label in (("HUMAN", GOLD[i]), ("LLM", SAID[i]))
    ]
    scored = read(write_lines(tmp_path / "annotations.jsonl", rows))
    assert said(scored, "same") == by_case(SAID)
    assert accuracy(scored, "same") == RIGHT
    # As the client's frame has it, in CSV.
    names = {"span_id": "context.span_id", "name": "annotation_name", "label": "result.label", "score": "result.score"}
    pd.DataFrame(rows).rename(columns=names).to_csv(tmp_path / "frame.csv", index=False)
    assert accuracy(read(str(tmp_path / "frame.csv")), "same") == RIGHT


def test_mlflow(tmp_path: Path) -> None:
    def assessed(i: int) -> dict[str, Any]:
        feedback = {"value": SAID[i]} if SAID[i] else {"value": None, "error": {"error_code": "X"}}
        judge = {"name": "same", "source": {"source_type": "LLM_JUDGE", "source_id": "gpt"}, "feedback": feedback}
        person = {"name": "same", "source": {"source_type": "HUMAN", "source_id": "a"}, "feedback": {"value": GOLD[i]}}
        return {"info": {"trace_id": f"c{i}", "assessments": [judge, person]}, "data": {}}

    scored = read(write_json(tmp_path / "traces.json", {"traces": [assessed(i) for i in range(6)]}))
    assert said(scored, "same") == by_case(SAID)
    assert accuracy(scored, "same") == RIGHT


# --- medical benchmarks -----------------------------------------------------------------------------------------------


def test_helm_jurors_and_criteria(tmp_path: Path) -> None:
    # Juror a says 5 on every criterion; b says 1 on accuracy and nothing on clarity of the first answer.
    def state(i: int) -> dict[str, Any]:
        b = {
            "accuracy": {"score": 1, "explanation": "-"},
            "clarity": {"score": None if i == 0 else 5, "explanation": "-"},
        }
        a = {name: {"score": 5, "explanation": "[redacted]"} for name in b}
        return {
            "instance": {"id": f"id{i}", "input": {"text": f"q{i}"}, "references": []},
            "result": {"completions": [{"text": "-"}]},
            "annotations": {"scenario": {"prompt_text": "-", "a": a, "b": b}},
        }

    tree = {"adapter_spec": {"name": "x"}, "request_states": [state(i) for i in range(3)], "other": [{"k": 1}]}
    gold = [
        {"instance.id": f"id{i}", "criterion": name, "gold": 5} for i in range(3) for name in ("accuracy", "clarity")
    ]
    mapped = {"id": "instance.id+criterion", "group": "instance.id"}
    scored = read(
        write_json(tmp_path / "scenario_state.json", tree),
        "1,2,3,4,5",
        ordered=True,
        gold=write_lines(tmp_path / "g.jsonl", gold),
        gold_columns=mapped,
    )
    assert (accuracy(scored, "a"), accuracy(scored, "b")) == (1.0, 2 / 6)
    assert unanswered(scored, "b") == {"failed": 1}
    assert (scored.results.n_cases, scored.results.n_groups) == (6, 3)


def test_healthbench_meta_evaluation(tmp_path: Path) -> None:
    met = {"yes": True, "no": False, None: None}
    meta = [
        {"prompt_id": f"p{i // 2}", "completion_id": f"c{i}", "rubric": "r", "completion": "-"}
        | {"binary_labels": [met[GOLD[i]], met[GOLD[i]], not met[GOLD[i]]], "anonymized_physician_ids": ["a", "b", "c"]}
        for i in range(6)
    ]
    gold = write_lines(tmp_path / "meta.jsonl", meta)
    replies = [{"completion_id": f"c{i}", "grading_response": {"criteria_met": met[SAID[i]]}} for i in range(6)]
    columns = {"id": "completion_id", "label": "grading_response.criteria_met"}
    path = write_lines(tmp_path / "grader.jsonl", replies)
    mapped = {"id": "completion_id", "gold": "binary_labels", "group": "prompt_id"}
    for gold_columns in ({}, mapped):
        scored = read(f"g={path}", "false,true", gold=gold, columns=columns, gold_columns=gold_columns)
        assert accuracy(scored, "g") == RIGHT
        assert scored.results.n_groups == 3
    assert accuracy(read(f"g={path}", "false,true", gold=gold), "g") == RIGHT
    # The reply beside the physicians' labels needs no second file.
    both = [{**row, "grading_response": {"criteria_met": met[SAID[i]]}} for i, row in enumerate(meta)]
    assert accuracy(read(f"g={write_lines(tmp_path / 'both.jsonl', both)}", "no,yes"), "g") == RIGHT


# --- graders ----------------------------------------------------------------------------------------------------------


def test_prometheus(tmp_path: Path) -> None:
    point = {"yes": 5, "no": 2, None: None}
    records: dict[str, dict[str, Any]] = {
        f"c{i}": {"id": f"c{i}", "input": f"q{i}", "score_rubric": {"criteria": "-"}, "response": "-", "feedback": "-"}
        | {"score": point[SAID[i]], "human_score": point[GOLD[i]]}
        | {"eval_model_name": "p", "response_model_name": ("m1", "m2")[i % 2]}
        for i in range(6)
    }
    scored = read(write_json(tmp_path / "evals.json", records), "1,2,3,4,5", ordered=True)
    assert said(scored, "p") == by_case(("5", "2", "2", "2", "2", None))
    assert accuracy(scored, "p") == RIGHT
    assert scored.cases[0].slices["generator"] == "m1"
    # Repeated gradings: 5, 5, 2 is 5; a grade of -1 is none.
    records["c0"]["score"] = [5, 5, 2]
    records["c1"]["score"] = -1
    scored = read(write_json(tmp_path / "evals.json", records), "1,2,3,4,5", ordered=True)
    assert (said(scored, "p")["c0"], said(scored, "p")["c1"]) == ("5", "(failed)")


def test_ragas_scores_need_a_threshold(tmp_path: Path) -> None:
    rows = [
        {
            "user_input": f"q{i}",
            "response": "-",
            "retrieved_contexts": ["-"],
            "faithfulness": {"yes": 0.9, "no": 0.31}.get(SAID[i] or "", math.nan),
        }
        | {"expert": GOLD[i]}
        for i in range(6)
    ]
    path = write_lines(tmp_path / "s.jsonl", rows)
    assert "--threshold" in refusal(path)
    scored = read(path, threshold=0.5)
    assert accuracy(scored, "faithfulness") == RIGHT
    assert unanswered(scored, "faithfulness") == {"failed": 1}


def test_ragas_annotations(tmp_path: Path) -> None:
    # Accepted outputs are the label; of the others the person gave another.
    number = {"yes": 1, "no": 0}
    rows = [
        {"metric_input": {"q": i}, "metric_output": number[GOLD[i]] if i < 4 else 1 - number[GOLD[i]]}
        | {"is_accepted": i < 4, "target": None if i < 4 else number[GOLD[i]]}
        for i in range(6)
    ]
    scored = read(write_json(tmp_path / "a.json", {"correctness": rows}), "0,1")
    assert accuracy(scored, "correctness") == 4 / 6


def test_cje_draws(tmp_path: Path) -> None:
    # Two draws of each of three prompts; the oracle looked at four of the six.
    score, truth = (0.9, 0.2, 0.7, 0.6, 0.1, None), (0.8, 0.1, 0.2, None, None, 0.9)
    rows = [
        {"prompt_id": f"p{i // 2}", "response": "-", "judge_score": score[i], "draw_idx": i % 2}
        | ({} if truth[i] is None else {"oracle_label": truth[i]})
        for i in range(6)
    ]
    path = write_lines(tmp_path / "draws.jsonl", rows)
    assert "--threshold 0.5 --gold-threshold 0.5" in refusal(path, "0,1")
    scored = read(f"j={path}", "0,1", threshold=0.5, gold_threshold=0.5)
    assert (scored.results.n_cases, scored.results.n_without_gold, scored.results.n_groups) == (4, 2, 3)
    assert accuracy(scored, "j") == 2 / 4  # p0|0, p0|1 right, p1|0 wrong, p2|1 without a score


def test_excel(tmp_path: Path) -> None:
    rows = [{"case": f"c{i}", "question": f"q{i}", "expert": GOLD[i], "verdict": SAID[i]} for i in range(6)]
    path = tmp_path / "v.xlsx"
    pd.DataFrame(rows).to_excel(path, index=False)
    scored = read(str(path), columns={"id": "case"}, gold="expert")
    assert said(scored, "v") == by_case(SAID)
    assert accuracy(scored, "v") == pytest.approx(RIGHT)
