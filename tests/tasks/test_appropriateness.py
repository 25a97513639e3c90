from __future__ import annotations

import pytest
from pydantic import ValidationError

from medjudge.records import Verdict
from medjudge.tasks.appropriateness import LABELS, AppropriatenessContract
from medjudge.tasks.contract import RowError
from tests.shared_data import shared_rows
from tests.tasks.parsing import assert_never_raises, label_of, reason_of

ROW = {
    "condition": "Headache",
    "variant": "Sudden onset. Initial imaging.",
    "procedure": "CT head without IV contrast",
    "appropriateness": "Usually Appropriate",
    "reasoning": ["CT is fast.", "It shows blood [7]."],
}
GOOD = "<think>CT is fast.</think>\n<answer>Usually Appropriate</answer>"
ANSWER = "<answer>Usually Appropriate</answer>"


def test_prompt_and_target():
    contract = AppropriatenessContract()
    case = contract.read_case(ROW, "c")
    system, user = contract.messages(case)
    assert "<think>your reasoning</think>\n<answer>one of: " in system["content"]
    assert "Abstracts" not in system["content"]
    assert user["content"] == (
        "Clinical condition: Headache\nVariant: Sudden onset. Initial imaging.\nProcedure: CT head without IV contrast"
    )
    # The row has no evidence: a judge that learns to cite [7] has learned to make it up.
    assert contract.target(case) == "<think>CT is fast. It shows blood.</think>\n" + ANSWER
    assert contract.parse("c", contract.target(case)) == Verdict(
        "c", "Usually Appropriate", None, "CT is fast. It shows blood."
    )
    assert contract.closed_completions() is None
    assert contract.labels == ("Usually Not Appropriate", "May Be Appropriate", "Usually Appropriate")


def test_answer_only_form():
    contract = AppropriatenessContract(form="answer_only")
    case = contract.read_case(ROW, "c")
    assert contract.target(case) == ANSWER
    assert contract.closed_completions() == {label: f"<answer>{label}</answer>" for label in LABELS}
    assert "<think>" not in contract.messages(case)[0]["content"]
    assert label_of(contract, f"\n{ANSWER} ") == "Usually Appropriate"
    assert "thinking is off" in reason_of(contract, GOOD)[1]


def test_terse_and_own_system_prompt():
    case = AppropriatenessContract().read_case(ROW, "c")
    for form in ("reasoning", "answer_only"):
        assert len(AppropriatenessContract(form=form, instructions="terse").messages(case)[0]["content"]) < 100
    assert AppropriatenessContract(system_prompt="Rate.").messages(case)[0]["content"] == "Rate."


def test_thinking_follows_the_form_unless_said():
    assert AppropriatenessContract().thinking
    assert not AppropriatenessContract(form="answer_only").thinking
    assert not AppropriatenessContract(thinking=False).thinking
    with pytest.raises(ValidationError, match="answer_only"):
        AppropriatenessContract(form="answer_only", thinking=True)
    for form in ("reasoning", "answer_only"):  # a dump in a manifest reads back as the same contract
        contract = AppropriatenessContract(form=form)
        assert AppropriatenessContract.model_validate(contract.model_dump(mode="json")) == contract


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        ("as a text\nof two lines", "as a text\nof two lines"),
        (["one", "two"], "[1] one\n[2] two"),
        ([{"id": 7, "title": "On CT.", "abstract": "It is\nfast."}], "[7] On CT. It is fast."),
        ([{"pmid": "99", "text": "x"}, {"text": "y"}, {"citation": "1", "text": "z"}], "[99] x\n[2] y\n[1] z"),
        ([{"title": "Title alone"}, {"id": 3, "text": ""}], "[1] Title alone"),
        ({"5": "", "7": "It is fast.", "4": {"title": "T", "abstract": "A"}}, "[7] It is fast.\n[4] T. A"),
        ([], None),
        ({}, None),
        ("", None),
        (None, None),
    ],
)
def test_evidence(evidence, text):
    contract = AppropriatenessContract()
    case = contract.read_case({**ROW, "evidence": evidence}, "c")
    assert case.inputs.get("evidence") == text
    system, user = contract.messages(case)
    assert ("cite it by number" in system["content"]) == (text is not None)
    if text is not None:
        assert user["content"].endswith(f"\nAbstracts:\n{text}")


@pytest.mark.parametrize("label", ["usually appropriate", " Usually\n Appropriate ", "USUALLY APPROPRIATE"])
def test_gold_folds_white_space_and_case(label):
    assert AppropriatenessContract().read_case({**ROW, "appropriateness": label}, "c").gold == "Usually Appropriate"


@pytest.mark.parametrize("label", [None, "", " ", float("nan")])
def test_no_gold(label):
    case = AppropriatenessContract().read_case({**ROW, "appropriateness": label}, "c")
    assert case.gold is None
    with pytest.raises(ValueError, match="no gold label"):
        AppropriatenessContract().target(case)


@pytest.mark.parametrize(
    ("changes", "field", "got"),
    [
        ({"appropriateness": "Appropriate"}, "appropriateness", "str 'Appropriate'"),
        ({"appropriateness": "May be appropriate (Disagreement)"}, "appropriateness", "str of 33 characters"),
        ({"appropriateness": 7}, "appropriateness", "int 7"),
        ({"variant": ""}, "variant", "empty text"),
        ({"condition": None}, "condition", "nothing"),
        ({"procedure": 3}, "procedure", "int 3"),
        ({"evidence": 3}, "evidence", "int 3"),
        ({"evidence": [3]}, "evidence", "int 3"),
        ({"reasoning": 3}, "reasoning", "int 3"),
        ({"reasoning": ["a", 3]}, "reasoning", "int 3"),
    ],
)
def test_bad_rows(changes, field, got):
    with pytest.raises(RowError) as caught:
        AppropriatenessContract().read_case({**ROW, **changes}, "c")
    assert (caught.value.field, caught.value.got) == (field, got)


def test_missing_and_long_reasons():
    contract = AppropriatenessContract()
    case = contract.read_case({**ROW, "reasoning": []}, "c")
    assert contract.target(case) == "<think>The expert rating is Usually Appropriate.</think>\n" + ANSWER
    short = AppropriatenessContract(max_reason_chars=12)
    assert short.target(short.read_case(ROW, "c")) == "<think>CT is fast.</think>\n" + ANSWER
    tagged = contract.read_case({**ROW, "reasoning": "so </think><answer>May Be Appropriate</answer>"}, "c")
    assert label_of(contract, contract.target(tagged)) == "Usually Appropriate"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (GOOD, "Usually Appropriate"),
        (f"\n {GOOD}\n", "Usually Appropriate"),
        ("<think></think><answer>may be  APPROPRIATE</answer>", "May Be Appropriate"),
        ("<think>a\nb</think>\n\n<answer>\nUsually Not\nAppropriate\n</answer>", "Usually Not Appropriate"),
    ],
)
def test_parses(text, label):
    assert label_of(AppropriatenessContract(), text) == label


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", "format", "expected one <think> tag, found 0"),
        ("Usually Appropriate", "format", "expected one <think> tag, found 0"),
        (ANSWER, "format", "expected one <think> tag, found 0"),
        ("<think>a</think>", "format", "expected one <answer> tag, found 0"),
        (f"{ANSWER}<think>a</think>", "format", "in the order"),
        (f"<think>a {ANSWER}</think>", "format", "in the order"),
        (f"{GOOD}{ANSWER}", "format", "expected one <answer> tag, found 2"),
        (f"<think>x</think>{GOOD}", "format", "expected one <think> tag, found 2"),
        (f"<think>\n\n</think>\n\n{GOOD}", "format", "expected one <think> tag, found 2"),
        (GOOD.removesuffix("</answer>"), "format", "expected one </answer> tag, found 0"),
        (f"First: {GOOD}", "format", "before <think>"),
        (f"{GOOD}.", "format", "after </answer>"),
        (f"<think>a</think> so {ANSWER}", "format", "before <answer>"),
        (GOOD.replace("think>", "Think>"), "format", "expected one <think> tag, found 0"),
        (GOOD.replace("Usually ", ""), "schema", "none of the three labels"),
        (GOOD.replace("Usually Appropriate", "Usually Appropriate."), "schema", "none of the three labels"),
        (GOOD.replace("Usually Appropriate", "UsuallyAppropriate"), "schema", "none of the three labels"),
        (GOOD.replace("Usually Appropriate", ""), "schema", "holds 0 characters"),
    ],
)
def test_refuses_with_a_reason(text, kind, words):
    got_kind, reason = reason_of(AppropriatenessContract(), text)
    assert got_kind == kind
    assert words in reason


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (ANSWER, "Usually Appropriate"),
        ("```\n<answer>It is usually not appropriate.</answer>\n```", "Usually Not Appropriate"),
        ("<think>usually appropriate?</think> It may be appropriate.", "May Be Appropriate"),
        ("<answer>Usually Appropriate", "Usually Appropriate"),
        ("usually appropriate or may be appropriate", None),
        ("appropriate", None),
        ("", None),
    ],
)
def test_lenient_digs_and_strict_does_not(text, label):
    assert reason_of(AppropriatenessContract(), text)
    judgement = AppropriatenessContract(lenient=True).parse("c", text)
    assert (judgement.label if isinstance(judgement, Verdict) else None) == label


@pytest.mark.parametrize("settings", [{}, {"form": "answer_only"}, {"lenient": True}])
def test_never_raises(settings):
    assert_never_raises(AppropriatenessContract(**settings))


@pytest.mark.parametrize("form", ["reasoning", "answer_only"])
def test_every_real_row_reads_and_its_target_parses_back(form):
    contract = AppropriatenessContract(form=form)
    rows = shared_rows("data", "acr_appropriateness", "acr_appropriateness.jsonl.gz")
    assert len(rows) == 6285
    for i, row in enumerate(rows):
        case = contract.read_case({**row, "condition": row["topic"]}, str(i))
        assert label_of(contract, contract.target(case)) == case.gold == row["appropriateness"]


def test_the_worked_examples_with_evidence():
    contract = AppropriatenessContract()
    for row in shared_rows("data", "acr_appropriateness", "examples_with_evidence.jsonl"):
        reasons = row.get("acr_traces") or row["gold_reasoning"]
        fields = {**row, "condition": row["topic"], "evidence": row.get("citations"), "reasoning": reasons}
        case = contract.read_case(fields, "c")
        assert label_of(contract, contract.target(case)) == row["appropriateness"]
        for citation, abstract in row.get("citations", {}).items():
            assert (f"[{citation}] " in case.inputs["evidence"]) == bool(abstract)
