from __future__ import annotations

import json
from typing import Literal

import pytest
from pydantic import ValidationError

from medjudge.records import Case, Verdict
from medjudge.tasks.contract import RowError
from medjudge.tasks.mcq import McqContract
from tests.shared_data import shared_rows
from tests.tasks.parsing import assert_never_raises, label_of, reason_of

ROW = {
    "question": "Which vitamin prevents scurvy?",
    "opa": "Vitamin A",
    "opb": "Vitamin B1",
    "opc": "Vitamin C",
    "opd": "Vitamin D",
    "cop": 2,
    "exp": "Ans. is 'c' i.e., Vitamin C. Collagen needs ascorbic acid.",
}
GOOD = '{"predicted_category": "C", "confidence": 0.7, "reason": "ascorbic acid"}'


def read(**changes: object) -> Case:
    return McqContract().read_case({**ROW, **changes}, "c")


def test_prompt_and_target_are_the_published_form():
    contract, case = McqContract(), read()
    system, user = contract.messages(case)
    assert '{"predicted_category": "<A|B|C|D>", "confidence": <0-1>, "reason": "' in system["content"]
    assert user["content"] == (
        "Question: Which vitamin prevents scurvy?\nA) Vitamin A\nB) Vitamin B1\nC) Vitamin C\nD) Vitamin D"
    )
    assert contract.target(case) == (
        '{"predicted_category": "C", "confidence": 0.95, "reason": "Vitamin C. Collagen needs ascorbic acid."}'
    )
    assert contract.parse("c", contract.target(case)) == Verdict(
        "c", "C", 0.95, "Vitamin C. Collagen needs ascorbic acid."
    )


def test_terse_and_own_system_prompt():
    assert len(McqContract(instructions="terse").messages(read())[0]["content"]) < 120
    assert McqContract(system_prompt="Choose.").messages(read())[0]["content"] == "Choose."
    assert [turn["role"] for turn in McqContract(system_prompt="").messages(read())] == ["user"]
    prints = {McqContract(**s).fingerprint() for s in ({}, {"instructions": "terse"}, {"system_prompt": "Choose."})}
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("first_index", "cop", "gold"),
    [(0, 0, "A"), (0, 3, "D"), (1, 1, "A"), (1, 4, "D"), (0, "2", "C"), (0, 2.0, "C"), (0, "b", "B"), (1, " D ", "D"),
     (0, None, None), (0, "", None), (0, float("nan"), None)],
)  # fmt: skip
def test_gold(first_index, cop, gold):
    assert McqContract(first_index=first_index).read_case({**ROW, "cop": cop}, "c").gold == gold


@pytest.mark.parametrize(
    ("changes", "field", "got"),
    [
        ({"cop": 4}, "cop", "int 4"),
        ({"cop": -1}, "cop", "int -1"),
        ({"cop": True}, "cop", "bool True"),
        ({"cop": 1.5}, "cop", "float 1.5"),
        ({"cop": "E"}, "cop", "str 'E'"),
        ({"cop": [1]}, "cop", "list of 1"),
        ({"cop": 10**400}, "cop", "int out of any range"),
        ({"question": ""}, "question", "empty text"),
        ({"question": None}, "question", "nothing"),
        ({"question": 7}, "question", "int 7"),
        ({"question": "half \ud800"}, "question", "str of 6 characters with half a surrogate pair"),
        ({"opd": "  "}, "opd", "empty text"),
        ({"opb": True}, "opb", "bool True"),
        ({"exp": ["x"]}, "exp", "list of 1"),
    ],
)
def test_bad_rows_name_the_field_and_never_its_text(changes, field, got):
    with pytest.raises(RowError) as caught:
        read(**changes)
    assert (caught.value.field, caught.value.got) == (field, got)


def test_missing_field_and_wrong_base_are_explained():
    with pytest.raises(RowError, match="no such field"):
        McqContract().read_case({k: v for k, v in ROW.items() if k != "opa"}, "c")
    with pytest.raises(RowError, match="first_index = 1"):
        read(cop=4)


def test_numbers_as_options_are_text():
    assert read(opa=5, opb=7.5).inputs["opa"] == "5"


@pytest.mark.parametrize(
    ("exp", "reason"),
    [
        ("Ans. is 'b' i.e., Neutrophil", "Neutrophil"),
        ("Ans. (a.) Stomach", "Stomach"),
        ("Answer-A. Tumour", "Tumour"),
        ("ANSWER: (A) HPV 16", "HPV 16"),
        ("Answer: d) AFP", "AFP"),
        ("Ans. is `c' i.e., 21 days", "21 days"),
        ("Ans. B i.e. Ulcer", "Ulcer"),
        ("Ans: b (IgE) Robbins", "(IgE) Robbins"),
        ("Ans. A tumour of the lung", "Ans. A tumour of the lung"),  # an article, not a letter
        ("Ans- Coagulative necrosis", "Ans- Coagulative necrosis"),
        ("It binds.\nAnswer: (A)", "It binds."),
        ("Ans. is 'c'", "The answer is Vitamin C."),
        (None, "The answer is Vitamin C."),
        ("line\n one\t two", "line one two"),
    ],
)
def test_reason_loses_the_stated_answer(exp, reason):
    assert json.loads(McqContract().target(read(exp=exp)))["reason"] == reason


def test_reason_is_cut_at_a_word_boundary():
    def reason(text: str, **settings: object) -> str:
        return json.loads(McqContract(**settings).target(read(exp=text)))["reason"]

    assert reason("one two three", max_reason_chars=7) == "one two"
    assert reason("one two three", max_reason_chars=8) == "one two"
    assert reason("one two three", max_reason_chars=6) == "one"
    assert reason("one two three", max_reason_words=2) == "one two"
    assert reason("unbreakable", max_reason_chars=4) == "unbr"
    assert len(reason("word " * 100)) <= 250
    assert reason("word " * 100, max_reason_chars=None) == ("word " * 100).strip()
    assert reason("", missing_reason="{letter}: {option}") == "C: Vitamin C"


def test_target_needs_a_gold_label():
    with pytest.raises(ValueError, match="no gold label"):
        McqContract().target(read(cop=None))


@pytest.mark.parametrize("confidence", [-0.1, 1.1])
def test_target_confidence_is_a_probability(confidence):
    with pytest.raises(ValidationError):
        McqContract(target_confidence=confidence)


@pytest.mark.parametrize("text", [GOOD, f"  \n{GOOD}\n ", GOOD.replace("0.7", "1"), GOOD.replace("0.7", "0")])
def test_parses(text):
    assert label_of(McqContract(), text) == "C"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", "format", "empty"),
        ("C", "format", "not one JSON object"),
        ("The answer is C", "format", "not one JSON object"),
        (GOOD + " I hope this helps", "format", "Extra data"),
        (GOOD + GOOD, "format", "Extra data"),
        ("Sure: " + GOOD, "format", "not one JSON object"),
        (f"```json\n{GOOD}\n```", "format", "not one JSON object"),
        (GOOD[:-1], "format", "not one JSON object"),
        (GOOD.replace("0.7", "NaN"), "format", "a number that JSON does not have"),
        (GOOD.replace("0.7", "-Infinity"), "format", "a number that JSON does not have"),
        (f"<think>\n\n</think>\n\n{GOOD}", "format", "thinking is off"),
        ("[" * 100_000, "format", "nested too deeply"),
        (GOOD.replace("0.7", "9" * 5000), "format", "too long"),
        ("[]", "schema", "found list"),
        ('"C"', "schema", "found str"),
        ("null", "schema", "found NoneType"),
        ("{}", "schema", "lacks predicted_category, confidence, reason"),
        ('{"predicted_category": "C", "confidence": 0.5}', "schema", "lacks reason"),
        (GOOD.replace('"C"', '"E"'), "schema", "predicted_category"),
        (GOOD.replace('"C"', '"c"'), "schema", "predicted_category"),
        (GOOD.replace('"C"', '"C)"'), "schema", "predicted_category"),
        (GOOD.replace('"C"', '["C"]'), "schema", "predicted_category"),
        (GOOD.replace('"C"', "2"), "schema", "predicted_category"),
        (GOOD.replace("0.7", "true"), "schema", "confidence is bool True"),
        (GOOD.replace("0.7", '"0.7"'), "schema", "confidence"),
        (GOOD.replace("0.7", "1.01"), "schema", "confidence"),
        (GOOD.replace("0.7", "-0.01"), "schema", "confidence"),
        (GOOD.replace("0.7", "1e999"), "schema", "confidence"),
        (GOOD.replace("0.7", "null"), "schema", "confidence"),
        (GOOD.replace('"ascorbic acid"', '""'), "schema", "reason"),
        (GOOD.replace('"ascorbic acid"', '"  "'), "schema", "reason"),
        (GOOD.replace('"ascorbic acid"', "null"), "schema", "reason"),
        (GOOD.replace('"ascorbic acid"', '["x"]'), "schema", "reason"),
        (GOOD[:-1] + ', "note": 1}', "schema", "1 key(s) beside"),
        (GOOD[:-1] + ', "confidence": 0.1}', "schema", "repeats a key"),
    ],
)
def test_refuses_with_a_reason(text, kind, words):
    got_kind, reason = reason_of(McqContract(), text)
    assert got_kind == kind
    assert words in reason


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (f"```json\n{GOOD}\n```", "C"),
        (f"Sure! {GOOD} I hope this helps.", "C"),
        (f"<think>\nmaybe {{A}}\n</think>\n\n{GOOD}", "C"),
        ('{"predicted_category": "b"}', "B"),
        ("(d)", "D"),
        ("The correct answer is B.", "B"),
        ("Answer: **C**, because it is an acid", "C"),
        ("Option A is wrong, so the answer is B", None),
        ("A patient with scurvy", None),
        ("The answer is a matter of collagen", None),
        ("The answer is (c).", "C"),
        ("", None),
    ],
)
def test_lenient_digs_and_strict_does_not(text, label):
    assert reason_of(McqContract(), text)
    judgement = McqContract(lenient=True).parse("c", text)
    assert (judgement.label if isinstance(judgement, Verdict) else None) == label


def test_thinking_block_is_required_once_and_taken_off():
    contract = McqContract(thinking=True)
    target = contract.target(read())
    assert target.startswith("<think>\nVitamin C. Collagen needs ascorbic acid.\n</think>\n\n{")
    assert label_of(contract, target) == "C"
    assert label_of(contract, f"<think></think>{GOOD}") == "C"
    for bad in (GOOD, f"<think>\n{GOOD}", f"<think>a</think><think>b</think>{GOOD}", f"x<think>a</think>{GOOD}"):
        assert reason_of(contract, bad)[0] == "format"


def test_a_half_surrogate_in_json_does_not_reach_the_files():
    verdict = McqContract().parse("c", GOOD.replace("ascorbic", "\\ud800"))
    assert isinstance(verdict, Verdict)
    verdict.rationale.encode("utf-8")


@pytest.mark.parametrize("settings", [{}, {"thinking": True}, {"lenient": True}])
def test_never_raises(settings):
    assert_never_raises(McqContract(**settings))


@pytest.mark.parametrize("thinking", [False, True])
def test_every_real_row_reads_and_its_target_parses_back(thinking):
    contract = McqContract(first_index=1, thinking=thinking)
    rows = shared_rows("data", "medmcqa_train", "medmcqa_train.jsonl")
    assert len(rows) == 3187
    for i, row in enumerate(rows):
        case = contract.read_case(row, str(i))
        assert case.gold == row["answer"]
        assert label_of(contract, contract.target(case)) == row["answer"]


@pytest.mark.parametrize("instructions", ["published", "terse"])
def test_the_reason_may_stand_first_in_instruction_and_answer(instructions: Literal["published", "terse"]) -> None:
    contract = McqContract(instructions=instructions, reason_first=True)
    case = contract.read_case(ROW, "c")
    system = contract.messages(case)[0]["content"]
    assert system.index('"reason"') < system.index('"predicted_category"') < system.index('"confidence"')
    assert system.count("{") == system.count("}") == 1
    target = contract.target(case)
    assert list(json.loads(target)) == ["reason", "predicted_category", "confidence"]
    verdict = contract.parse("c", target)
    assert isinstance(verdict, Verdict)
    assert verdict == McqContract().parse("c", McqContract().target(case))
    assert contract.label_frame() is None
