"""The benchmark's sets in their original formats: what each loader makes of a row, and what it leaves out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.shared_data import require_shared

from medjudge.data.benchmark_rows import feedback_bench, feedbackqa, flow_heldout, halubench, prometheus, ragtruth
from medjudge.data.benchmarks import PUBLISHED_SUITE, SETS, choose_sets, read_benchmark, set_contract
from medjudge.errors import ConfigError, DataError
from medjudge.tasks.contract import RowError
from medjudge.tasks.presets import presets
from medjudge.tasks.rubric import RubricContract

FLOW = {
    "id": "a1",
    "inputs": [{"name": "query", "content": "Where?"}, {"name": "query", "content": "When?"}],
    "output": {"name": "reply", "content": "Here, now."},
    "criteria": "Is it complete?",
    "rubric": [{"score": 0, "description": "no"}, {"score": 1, "description": "yes"}],
    "feedback": "Both are answered.",
    "score": 1,
}
RESPONSE = {
    "id": "1",
    "source_id": "9",
    "model": "gpt-4-0613",
    "temperature": 0.7,
    "labels": [{"start": 0, "end": 4, "text": "Gaza", "label_type": "Evident Baseless Info"}],
    "split": "test",
    "quality": "good",
    "response": "Gaza is included.",
}
SECTIONS = """###Task Description:
Write feedback, then a score.

###The instruction to evaluate:
Rephrase it.

###Response to evaluate:
A limerick.

###Reference Answer (Score 5):
A better limerick.

###Score Rubrics:
[Is it a limerick?]
Score 1: No.
Score 2: Hardly.
Score 3: In part.
Score 4: Nearly.
Score 5: Yes.

###Feedback: """


def case_of(row: dict[str, Any], points: int, **settings: Any) -> Any:
    return RubricContract(points=points, **settings).read_case(row, "c")


def test_flow_judges_heldout_rows() -> None:
    row = flow_heldout(FLOW)
    case = case_of(dict(row), 2)
    assert case.inputs == {
        "input": "query:\nWhere?\n\nquery 2:\nWhen?",
        "output": "Here, now.",
        "criteria": "Is it complete?",
        "rubric": "- Score 0: no\n- Score 1: yes",
    }
    assert (case.gold, case.reason) == ("1", "Both are answered.")
    assert flow_heldout({**FLOW, "inputs": []})["input"] is None
    with pytest.raises(RowError, match="a list of objects with name and content"):
        flow_heldout({**FLOW, "inputs": "Where?"})


@pytest.mark.parametrize(
    ("row", "task", "inputs", "score"),
    [
        (
            {**RESPONSE, "task_type": "QA", "source_info": {"question": "Who?", "passages": "passage 1: They."}},
            "QA",
            {"Question": "Who?", "Passages": "passage 1: They."},
            0,
        ),
        (
            {**RESPONSE, "task_type": "Summary", "source_info": "A text.", "labels": []},
            "Summary",
            {"Document": "A text."},
            1,
        ),
        (
            {**RESPONSE, "task_type": "Data2txt", "source_info": {"name": "Café", "stars": 3.0}, "labels": []},
            "Data2txt",
            {"Data": '{"name": "Café", "stars": 3.0}'},
            1,
        ),
        # Flow AI's copy: the source as JSON text, the score given.
        (
            {"response": "x", "score": 1, "source_info": '{"question": "Who?", "passages": "They."}'},
            "QA",
            {"Question": "Who?", "Passages": "They."},
            1,
        ),
        (
            {"response": "x", "query": "Who?", "passages": "They.", "hallucinated": 1},
            "QA",
            {"Question": "Who?", "Passages": "They."},
            0,
        ),
    ],
)
def test_ragtruth_rows(row: dict[str, Any], task: Any, inputs: dict[str, str], score: int) -> None:
    found = ragtruth(row, task)
    assert isinstance(found, dict)
    assert (found["input"], found["score"]) == (inputs, score)


def test_what_of_ragtruth_takes_no_part() -> None:
    assert ragtruth({**RESPONSE, "split": "train"}, "QA") == "not of the test split"
    assert ragtruth({**RESPONSE, "task_type": "Summary"}, "QA") == "of another task of RAGTruth"
    with pytest.raises(RowError, match="the list of marked spans"):
        ragtruth({"response": "x", "query": "Who?", "passages": "They."}, "QA")
    with pytest.raises(RowError, match="the text or the data"):
        ragtruth({"response": "x", "score": 1}, "Summary")


def test_ragtruths_own_two_files_are_joined(tmp_path: Path) -> None:
    responses = [
        RESPONSE,
        {**RESPONSE, "id": "2", "labels": [], "response": "Israel."},
        {**RESPONSE, "id": "3", "split": "train"},
        {**RESPONSE, "id": "4", "source_id": "none"},
        {**RESPONSE, "id": "5", "source_id": "10"},
    ]
    sources = [
        {"source_id": "9", "task_type": "QA", "source_info": {"question": "Who?", "passages": "They."}},
        {"source_id": "10", "task_type": "Summary", "source_info": "A text."},
    ]
    for name, rows in {"response.jsonl": responses, "source_info.jsonl": sources}.items():
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    one = choose_sets([], {"ragtruth-qa": str(tmp_path)})[0]
    found = read_benchmark(one, set_contract(one, RubricContract(), None))
    assert [(case.gold, case.slices["generator"]) for case in found.table.cases] == [
        ("0", "gpt-4-0613"),
        ("1", "gpt-4-0613"),
    ]
    assert found.left_out == {"not of the test split": 1, "of another task of RAGTruth": 1}
    assert [bad.place for bad in found.table.rejected] == [f"{tmp_path}/response.jsonl:4"]
    assert len({case.group for case in found.table.cases}) == 1  # two answers to one question are resampled together


def test_halubench_rows() -> None:
    row = {"id": "1", "passage": "P", "question": "Q", "answer": "A", "label": "FAIL", "source_ds": "pubmedQA"}
    assert halubench(row) == {
        "input": {"Passage": "P", "Question": "Q"},
        "output": "A",
        "score": 0,
        "passage": "P",
        "subset": "pubmedQA",
    }
    assert halubench(row, "PubMedQA") == halubench(row)
    assert halubench(row, "covidQA") == "of another subset of HaluBench"
    copy = {"passage": "P", "question": "Q", "answer": "A", "label": None, "source_ds": None, "score": 1}
    assert halubench(copy, "covidQA") == {**dict(halubench(row)), "score": 1, "subset": "covidQA"}  # type: ignore[arg-type]
    with pytest.raises(RowError, match="PASS or FAIL"):
        halubench({**row, "label": "MAYBE"})


def test_feedback_bench_rows() -> None:
    row = {
        "orig_instruction": "I",
        "orig_response": "R",
        "orig_reference_answer": "Ref",
        "orig_criteria": "C",
        "orig_score": "4",
        "orig_feedback": "F",
        **{f"orig_score{n}_description": f"d{n}" for n in range(1, 6)},
    }
    case = case_of(dict(feedback_bench(row)), 5)
    assert (case.gold, case.inputs["input"], "reference" in case.inputs) == ("4", "Instruction:\nI", False)
    assert case_of(dict(feedback_bench(row, with_reference=True)), 5).inputs["reference"] == "Ref"


def test_prometheus_rows_in_sections() -> None:
    row = {"instruction": SECTIONS, "gpt4_score": [3, 2, 3], "gpt4_feedback": ["a", "b", "c"], "response_source": "m"}
    found = prometheus(row)
    case = case_of(dict(found), 5)
    assert case.inputs == {
        "input": "Instruction:\nRephrase it.",
        "reference": "A better limerick.",
        "output": "A limerick.",
        "criteria": "Is it a limerick?",
        "rubric": "- Score 1: No.\n- Score 2: Hardly.\n- Score 3: In part.\n- Score 4: Nearly.\n- Score 5: Yes.",
    }
    assert (case.gold, case.reason, found["generator"]) == ("3", "a", "m")
    with pytest.raises(RowError, match="a list of scores"):
        prometheus({**row, "gpt4_score": 3})


def test_feedbackqa_rows() -> None:
    reference = {"page_title": "T", "section_headers": ["H1", "H2"], "section_content": "Wash hands."}
    row = {"question": "Q?", "passage": {"source": "WHO", "reference": reference}, "rating": ["Bad", "Bad"]}
    found = feedbackqa(row)
    assert isinstance(found, dict)
    assert found["input"] == {"Question": "Q?", "Page": "T", "Section": "H1 / H2"}
    assert (found["output"], found["score"], found["site"]) == ("Wash hands.", 1, "WHO")
    assert feedbackqa({**row, "rating": ["Excellent", "Acceptable", "Bad"]})["score"] == 2  # type: ignore[index]
    assert feedbackqa({**row, "rating": ["Could be Improved", "Acceptable"]})["score"] == 2  # type: ignore[index]
    assert feedbackqa({**row, "rating": ["Excellent", "Acceptable"]}) == "no median on the scale: its two raters differ"
    with pytest.raises(RowError, match="a list of Excellent"):
        feedbackqa({**row, "rating": ["Fine"]})


def test_every_set_has_a_rubric_or_rows_that_bring_one() -> None:
    assert len(PUBLISHED_SUITE) == 10
    for name, one in SETS.items():
        assert one.preset is None or presets()[one.preset].points == one.points, name
        assert one.hub is None or one.hub.count(":") == 1


def test_sets_are_chosen_by_name() -> None:
    assert [one.name for one in choose_sets([], {})] == list(PUBLISHED_SUITE)
    assert [one.name for one in choose_sets([], {"halubench": "h.jsonl"})] == ["halubench"]
    both = choose_sets(["published", "halubench"], {"halubench": "h.jsonl"})
    assert [one.name for one in both] == [*PUBLISHED_SUITE, "halubench"]
    own = choose_sets(["mine", "flow-3"], {"mine": "m.jsonl"}, ["mine"])
    assert [(one.name, one.is_own) for one in own] == [("flow-3", False), ("mine", True)]
    for only, copies, message in (
        (["flow-4"], {}, "no set 'flow-4' in the benchmark. Sets: flow-binary"),
        (["feedbackqa"], {}, "--data feedbackqa=PATH"),
        (["flow-3"], {"halubench": "h"}, "--data names halubench, which --only leaves out"),
    ):
        with pytest.raises(ConfigError, match=message):
            choose_sets(only, copies)


def test_a_set_comes_from_the_hub_unless_a_copy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, split: str | None = None, trust_remote_code: bool = True) -> list[dict[str, Any]]:
        asked.append((name, split))
        return [FLOW, {**FLOW, "score": 0}, {**FLOW, "score": 7}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    one = choose_sets(["flow-binary"], {})[0]
    found = read_benchmark(one, set_contract(one, RubricContract(), None))
    assert asked == [("flowaicom/Flow-Judge-v0.1-binary-heldout", "test")]
    assert [case.gold for case in found.table.cases] == ["1", "0"]
    assert [str(bad) for bad in found.table.rejected] == [
        "hub:flowaicom/Flow-Judge-v0.1-binary-heldout:test:row 3: field 'score': got int 7, expected one of 0, 1"
    ]


def test_rows_of_the_wrong_kind_are_told_without_their_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"passage": "secret text", "question": "Q", "answer": "A", "label": "MAYBE"}) + "\n")

    def read(name: str, source: Path) -> None:
        one = choose_sets([], {name: str(source)})[0]
        read_benchmark(one, set_contract(one, RubricContract(), None))

    with pytest.raises(DataError) as error:
        read("halubench", path)
    assert "field 'label': got str 'MAYBE', expected PASS or FAIL" in str(error.value)
    assert "secret" not in str(error.value)
    with pytest.raises(DataError, match="give a local copy, `medjudge bench rubric --data halubench=PATH`"):
        read("halubench", tmp_path / "none.jsonl")
    path.write_text(json.dumps({"passage": "p", "question": "Q", "answer": "A", "label": "PASS", "source_ds": "DROP"}))
    with pytest.raises(
        DataError, match=r"no row of it belongs to halubench-covidqa. Left out: of another subset .*\(1\)"
    ):
        read("halubench-covidqa", path)


@pytest.mark.parametrize(
    ("name", "file", "gold", "left_out", "n_groups"),
    [
        ("ragtruth-qa", "ragtruth_qa_test/ragtruth_qa_test.jsonl", {"1": 512, "0": 112}, 0, 111),
        ("halubench", "halubench_sample/halubench_sample.jsonl", {"1": 112, "0": 86}, 0, 184),
        ("halubench-pubmedqa", "halubench_sample/halubench_sample.jsonl", {"1": 20, "0": 21}, 157, 41),
        (
            "prometheus-likert",
            "prometheus_likert5/prometheus_likert5.jsonl.gz",
            {"4": 196, "5": 127, "2": 44, "3": 41, "1": 32},
            0,
            110,
        ),
        ("feedbackqa", "feedbackqa_health/feedbackqa_health.jsonl.gz", {"1": 905, "2": 870, "3": 796}, 567, 1015),
    ],
)
def test_real_rows(name: str, file: str, gold: dict[str, int], left_out: int, n_groups: int) -> None:
    path = str(require_shared("data", *file.split("/")))
    one = choose_sets([name], {name: path})[0]
    contract = set_contract(one, RubricContract(), None)
    found = read_benchmark(one, contract)
    assert Counter(case.gold for case in found.table.cases) == gold
    assert sum(found.left_out.values()) == left_out
    assert found.table.rejected == ()
    assert len({case.group for case in found.table.cases}) == n_groups
    assert all(len(contract.messages(case)) == 2 for case in found.table.cases[:20])
