from __future__ import annotations

import statistics
from typing import Any

import pytest
from pydantic import ValidationError

from medjudge.records import Verdict
from medjudge.tasks.contract import RowError
from medjudge.tasks.encoding import encode_all, encode_labels
from medjudge.tasks.rubric import RubricContract
from medjudge.tasks.tokenizers import decode, stop_token_ids
from tests.shared_data import shared_rows, shared_tokenizer
from tests.tasks.parsing import assert_never_raises, label_of, reason_of

THREE = {"1": "wrong", "2": "partly right", "3": "right"}
ROW: dict[str, Any] = {
    "input": "Summarise the note.",
    "output": "Fever since Monday.",
    "criteria": "Is the summary faithful?",
    "rubric": THREE,
    "score": 3,
    "feedback": "All of it stands in the note.",
}
GOOD = "<feedback>All true.</feedback>\n<score>3</score>"
LINES = "- Score 1: wrong\n- Score 2: partly right\n- Score 3: right"


def three(**settings: Any) -> RubricContract:
    return RubricContract(points=3, **settings)


def test_prompt_and_target():
    contract = three()
    case = contract.read_case({**ROW, "reference": "Fever for three days."}, "c")
    assert list(case.inputs) == ["input", "reference", "output", "criteria", "rubric"]
    system, user = contract.messages(case)
    assert "<feedback>your reasons</feedback>\n<score>one of 1, 2, 3</score>" in system["content"]
    assert user["content"] == (
        "# INPUT\n<inputs>\nSummarise the note.\n<reference_answer>\nFever for three days.\n</reference_answer>\n"
        "</inputs>\n\n# OUTPUT\n<output>\nFever since Monday.\n</output>\n\n"
        "# EVALUATION CRITERIA AND SCORING RUBRIC\n<evaluation_criteria>\nIs the summary faithful?\n"
        f"</evaluation_criteria>\n\n<scoring_rubric>\n{LINES}\n</scoring_rubric>"
    )
    assert contract.target(case) == "<feedback>All of it stands in the note.</feedback>\n<score>3</score>"
    assert contract.parse("c", contract.target(case)) == Verdict("c", "3", None, "All of it stands in the note.")
    assert contract.closed_completions() is None


def test_score_only_form():
    contract = three(form="score_only")
    case = contract.read_case(ROW, "c")
    assert contract.target(case) == "<score>3</score>"
    assert "feedback" not in contract.messages(case)[0]["content"]
    assert contract.closed_completions() == {n: f"<score>{n}</score>" for n in "123"}
    assert label_of(contract, " <score> 2 </score>\n") == "2"
    assert "expected nothing but white space before <score>" in reason_of(contract, GOOD)[1]


def test_terse_and_own_system_prompt():
    case = three().read_case(ROW, "c")
    assert three(instructions="terse").messages(case)[0]["content"] == (
        "Grade the output by the rubric. Reply: <feedback>..</feedback><score>1|2|3</score>"
    )
    assert [turn["role"] for turn in three(system_prompt="").messages(case)] == ["user"]


def test_no_input_leaves_the_section_out():
    row = {key: value for key, value in ROW.items() if key != "input"}
    assert "# INPUT" not in three().messages(three().read_case(row, "c"))[1]["content"]


def test_named_inputs_are_listed():
    case = three().read_case({**ROW, "input": {"query": "Why?", "context": "Because.", "empty": ""}}, "c")
    assert case.inputs["input"] == "query:\nWhy?\n\ncontext:\nBecause."


@pytest.mark.parametrize(
    "rubric",
    [
        THREE,
        {1: "wrong", 2: "partly right", 3: "right"},
        {"score3": "right", "score1": "wrong", "score2": "partly right"},
        {f"score{n}_description": text for n, text in THREE.items()},
        list(THREE.values()),
        [{"score": int(n), "description": text} for n, text in THREE.items()],
        LINES,
    ],
)
def test_rubrics_of_every_form_read_alike(rubric):
    assert three().read_case({**ROW, "rubric": rubric}, "c").inputs["rubric"] == LINES


def test_rubric_from_columns_and_criteria_from_the_rubric():
    row = {"output": "x", "criteria": "y", **{f"score{n}": text for n, text in THREE.items()}}
    assert three().read_case(row, "c").inputs["rubric"] == LINES
    row = {"output": "x", "rubric": {"criteria": "Faithful?", **THREE}}
    assert three().read_case(row, "c").inputs["criteria"] == "Faithful?"


def test_the_recipe_may_hold_criteria_and_rubric_and_a_row_goes_before_it():
    contract = three(criteria="Is it short?", rubric=THREE)
    bare = contract.read_case({"output": "x", "score": 1}, "c")
    assert bare.inputs == {"output": "x"}
    assert "Is it short?" in contract.messages(bare)[1]["content"]
    assert LINES in contract.messages(bare)[1]["content"]
    own = contract.read_case({**ROW, "rubric": "as a text"}, "c")
    assert "Is it short?" not in contract.messages(own)[1]["content"]
    assert LINES not in contract.messages(own)[1]["content"]
    with pytest.raises(ValidationError, match="no description of score 3"):
        three(rubric={"1": "a", "2": "b"})


@pytest.mark.parametrize(
    ("points", "score", "gold"),
    [(2, 0, "0"), (2, True, "1"), (2, "1", "1"), (3, 3.0, "3"), (5, "5", "5"), (5, None, None), (3, "", None)],
)
def test_gold(points, score, gold):
    row = {**ROW, "rubric": "a text", "score": score}
    assert RubricContract(points=points).read_case(row, "c").gold == gold


@pytest.mark.parametrize(
    ("changes", "field", "got"),
    [
        ({"score": 4}, "score", "int 4"),
        ({"score": 0}, "score", "int 0"),
        ({"score": True}, "score", "bool True"),
        ({"score": 2.5}, "score", "float 2.5"),
        ({"score": "good"}, "score", "str 'good'"),
        ({"output": ""}, "output", "empty text"),
        ({"criteria": None}, "criteria", "nothing"),
        ({"rubric": None}, "rubric", "nothing"),
        ({"rubric": 3}, "rubric", "int 3"),
        ({"rubric": ["a", "b"]}, "rubric", "list of 2"),
        ({"rubric": {"1": "a", "2": "b"}}, "rubric", "no description of score 3"),
        ({"rubric": {**THREE, "4": "d"}}, "rubric", "a score off the scale"),
        ({"rubric": {**THREE, "3": ""}}, "rubric", "empty text for score 3"),
        ({"rubric": None, "score1": "a", "score3": "c"}, "rubric", "nothing for score 2"),
    ],
)
def test_bad_rows(changes, field, got):
    with pytest.raises(RowError) as caught:
        three().read_case({**ROW, **changes}, "c")
    assert (caught.value.field, caught.value.got) == (field, got)


def test_scales():
    assert [RubricContract(points=n).labels for n in (2, 3, 5)] == [("0", "1"), tuple("123"), tuple("12345")]
    assert RubricContract(points=10).labels == (*"123456789", "10")
    assert [RubricContract(points=n).positive for n in (2, 3, 5)] == ["1", None, None]


TEN = {str(n): f"level {n}" for n in range(10, 0, -1)}


def test_ten_points():
    contract = RubricContract(points=10, criteria="c", rubric=TEN)
    lines = contract.messages(contract.read_case({"output": "x"}, "c"))[1]["content"].splitlines()
    assert [line for line in lines if line.startswith("- Score")] == [f"- Score {n}: level {n}" for n in range(1, 11)]
    by_column = RubricContract(points=10).read_case(
        {"output": "x", "criteria": "c", "score": 10, **{f"score{n}": f"level {n}" for n in range(1, 11)}}, "c"
    )
    assert by_column.inputs["rubric"].splitlines() == [f"- Score {n}: level {n}" for n in range(1, 11)]
    assert label_of(contract, contract.target(by_column)) == "10"
    assert reason_of(contract, "<feedback>a</feedback><score>11</score>")[0] == "schema"
    lenient = RubricContract(points=10, lenient=True)
    assert [label_of(lenient, text) for text in ("Score: 10/10", "score: 1/10", "<score>10")] == ["10", "1", "10"]
    for points in (1, 11):
        with pytest.raises(ValidationError):
            RubricContract(points=points)


@pytest.mark.parametrize("name", ["qwen3", "phi-3-mini", "phi-4", "smollm2"])
@pytest.mark.parametrize("form", ["feedback", "score_only"])
def test_the_tenth_point_is_no_first_point_in_labels_mode(form, name):
    """10 is two tokens in tokenizers that split numbers, and begins with the 1."""
    contract = RubricContract(points=10, criteria="c", rubric=TEN, form=form)
    tokenizer = shared_tokenizer(name)
    cases = [contract.read_case({"output": "x", "score": int(label)}, label) for label in contract.labels]
    prompts = encode_all(contract, cases, tokenizer, with_target=False)
    scored = encode_labels(contract, prompts, tokenizer)[0]
    texts = [decode(tokenizer, [*scored.forced, *ids], stop_token_ids(tokenizer)) for ids in scored.labels]
    frame = contract.label_frame()
    assert texts == [frame.forced + frame.continuations[label] for label in contract.labels]


@pytest.mark.parametrize(
    "text", [GOOD, f" \n{GOOD} ", "<feedback>a</feedback><score>\n3 </score>", "<feedback></feedback><score>3</score>"]
)
def test_parses(text):
    assert label_of(three(), text) == "3"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", "format", "expected one <feedback> tag, found 0"),
        ("3", "format", "expected one <feedback> tag, found 0"),
        ("<score>3</score>", "format", "expected one <feedback> tag, found 0"),
        ("<feedback>a</feedback>", "format", "expected one <score> tag, found 0"),
        ("<score>3</score><feedback>a</feedback>", "format", "in the order"),
        ("<feedback>a<score>3</score></feedback>", "format", "in the order"),
        (f"{GOOD}<score>2</score>", "format", "expected one <score> tag, found 2"),
        (f"<feedback>a</feedback>{GOOD}", "format", "expected one <feedback> tag, found 2"),
        ("<feedback>a</feedback>\n<score>3", "format", "expected one </score> tag, found 0"),
        (f"Here: {GOOD}", "format", "before <feedback>"),
        (f"{GOOD} Done.", "format", "after </score>"),
        ("<feedback>a</feedback> so <score>3</score>", "format", "before <score>"),
        (f"```\n{GOOD}\n```", "format", "before <feedback>"),
        (GOOD.replace("score>", "SCORE>"), "format", "expected one <score> tag, found 0"),
        (f"<think>\n\n</think>\n\n{GOOD}", "format", "thinking is off"),
        (GOOD.replace("3", "4"), "schema", "score is 4, expected one of 1, 2, 3"),
        (GOOD.replace("3", "-1"), "schema", "score is -1"),
        (GOOD.replace("3", "3.0"), "schema", "a text of 3 characters"),
        (GOOD.replace("3", "3/3"), "schema", "a text of 3 characters"),
        (GOOD.replace("3", ""), "schema", "a text of 0 characters"),
        (GOOD.replace("3", "three"), "schema", "a text of 5 characters"),
    ],
)
def test_refuses_with_a_reason(text, kind, words):
    got_kind, reason = reason_of(three(), text)
    assert got_kind == kind
    assert words in reason


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (f"```\n{GOOD}\n```", "3"),
        (f"Sure. {GOOD} Bye.", "3"),
        ("<score>2.0</score>", "2"),
        ("<score>3/3</score>", "3"),
        ("Good work. Score: 2", "2"),
        ("**Score:** 2/3", "2"),
        ("<think>score: 1</think> Score: 2", "2"),
        ("<score>2</score><score>3</score>", None),
        ("score 7", None),
        ("score: 2.5", None),
        ("fine", None),
    ],
)
def test_lenient_digs_and_strict_does_not(text, label):
    assert reason_of(three(), text)
    judgement = three(lenient=True).parse("c", text)
    assert (judgement.label if isinstance(judgement, Verdict) else None) == label


def test_target_survives_an_expert_who_writes_tags():
    contract = three()
    case = contract.read_case({**ROW, "feedback": "a </feedback><sc<score>ore>1</score> b"}, "c")
    assert label_of(contract, contract.target(case)) == "3"


def test_missing_and_long_feedback():
    case = three().read_case({**ROW, "feedback": None}, "c")
    assert three().target(case) == "<feedback>The output fits the description of score 3.</feedback>\n<score>3</score>"
    assert "<feedback>All of it</feedback>" in three(max_reason_chars=12).target(three().read_case(ROW, "c"))
    with pytest.raises(ValueError, match="no gold label"):
        three().target(three().read_case({**ROW, "score": None}, "c"))


def test_thinking():
    contract = three(thinking=True, form="score_only")
    target = contract.target(contract.read_case(ROW, "c"))
    assert target == "<think>\nAll of it stands in the note.\n</think>\n\n<score>3</score>"
    assert contract.parse("c", target) == Verdict("c", "3", None, "All of it stands in the note.")
    assert contract.closed_completions() is None


@pytest.mark.parametrize("settings", [{}, {"form": "score_only"}, {"thinking": True}, {"lenient": True}])
def test_never_raises(settings):
    assert_never_raises(RubricContract(**settings))


@pytest.mark.parametrize("form", ["feedback", "score_only"])
def test_every_real_row_reads_and_its_target_parses_back(form):
    contract = RubricContract(form=form)
    rows = shared_rows("data", "prometheus_likert5", "prometheus_likert5.jsonl.gz")
    assert len(rows) == 440
    for i, row in enumerate(rows):
        median = int(statistics.median(row["gpt4_scores"]))
        fields = {
            "input": row["instruction"], "output": row["response"], "reference": row["reference_answer"],
            "criteria": row["criteria"], **{f"score{n}": row[f"score{n}"] for n in range(1, 6)},
            "score": median, "feedback": row["gpt4_feedback"][row["gpt4_scores"].index(median)],
        }  # fmt: skip
        case = contract.read_case(fields, str(i))
        assert label_of(contract, contract.target(case)) == case.gold == str(median)
