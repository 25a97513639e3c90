from __future__ import annotations

import pytest

from medjudge.records import Verdict
from medjudge.tasks.contract import RowError
from medjudge.tasks.equivalence import EquivalenceContract
from tests.shared_data import require_shared, shared_rows
from tests.tasks.parsing import assert_never_raises, label_of, reason_of

ROW = {"question": "Quel germe ?", "reference": "Le pneumocoque", "candidate": "S. pneumoniae {gram +}", "label": 1}


def test_prompt_and_target_are_the_published_form():
    contract = EquivalenceContract()
    case = contract.read_case(ROW, "c")
    system, user = contract.messages(case)
    assert system["content"].endswith("Return only the score (0 or 1).\n")
    assert user["content"] == (
        "Question : Quel germe ?, Ground truth answer : Le pneumocoque, candidate answer : S. pneumoniae {gram +}"
    )
    assert contract.target(case) == "1"
    assert contract.closed_completions() == {"0": "0", "1": "1"}
    assert (contract.labels, contract.positive) == (("0", "1"), "1")


def test_the_published_prompt_to_the_letter():
    published = require_shared("data", "fr_oeqa_judge", "prompt.txt").read_text(encoding="utf-8")
    contract = EquivalenceContract()
    assert contract.messages(contract.read_case(ROW, "c"))[0]["content"].strip() == published.strip()


def test_french_terse_and_own_instructions():
    def system(**settings: object) -> str:
        contract = EquivalenceContract(**settings)
        return contract.messages(contract.read_case(ROW, "c"))[0]["content"]

    assert "Répondez uniquement par le score (0 ou 1)." in system(language="fr")
    assert len(system(instructions="terse")) < 100
    assert len(system(instructions="terse", language="fr")) < 100
    assert system(system_prompt="0 ou 1 ?", language="fr") == "0 ou 1 ?"
    french = EquivalenceContract(language="fr")
    assert "Réponse de référence : Le pneumocoque" in french.messages(french.read_case(ROW, "c"))[1]["content"]


@pytest.mark.parametrize(
    ("label", "gold"),
    [(0, "0"), (1, "1"), ("0", "0"), ("1", "1"), (True, "1"), (False, "0"), (1.0, "1"), (None, None), ("", None)],
)
def test_gold(label, gold):
    assert EquivalenceContract().read_case({**ROW, "label": label}, "c").gold == gold


@pytest.mark.parametrize(
    ("changes", "field", "got"),
    [
        ({"label": 2}, "label", "int 2"),
        ({"label": "oui"}, "label", "str 'oui'"),
        ({"label": 0.5}, "label", "float 0.5"),
        ({"label": "a text much longer than any label could be"}, "label", "str of 42 characters"),
        ({"candidate": ""}, "candidate", "empty text"),
        ({"reference": None}, "reference", "nothing"),
        ({"question": ["q"]}, "question", "list of 1"),
    ],
)
def test_bad_rows(changes, field, got):
    with pytest.raises(RowError) as caught:
        EquivalenceContract().read_case({**ROW, **changes}, "c")
    assert (caught.value.field, caught.value.got) == (field, got)


@pytest.mark.parametrize("text", ["1", " 1", "1\n", "\t1 "])
def test_parses(text):
    assert label_of(EquivalenceContract(), text) == "1"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", "format", "found 0 characters"),
        ("2", "schema", "off the scale"),
        ("-1", "schema", "off the scale"),
        ("10", "schema", "off the scale"),
        ("1.", "format", "found 2 characters"),
        ("1.0", "format", "found 3 characters"),
        ("0 1", "format", "found 3 characters"),
        ("Score: 1", "format", "found 8 characters"),
        ("\uff11", "format", "found 1 characters"),  # a full-width 1 is another character
        ("```\n1\n```", "format", "expected 0 or 1"),
        ("<think>\n\n</think>\n\n1", "format", "thinking is off"),
        ("1</think>", "format", "expected 0 or 1"),
    ],
)
def test_refuses_with_a_reason(text, kind, words):
    got_kind, reason = reason_of(EquivalenceContract(), text)
    assert got_kind == kind
    assert words in reason


@pytest.mark.parametrize(
    ("text", "label"),
    [("Score: 1", "1"), ("The score is 0.", "0"), ("```\n1\n```", "1"), ("```1```", "1"), ("<think>0?</think>1", "1"),
     ("1/1", None), ("0 or 1", None), ("10 mg", None), ("0.5", None), ("2", None), ("yes", None)],
)  # fmt: skip
def test_lenient_digs_and_strict_does_not(text, label):
    assert reason_of(EquivalenceContract(), text)
    judgement = EquivalenceContract(lenient=True).parse("c", text)
    assert (judgement.label if isinstance(judgement, Verdict) else None) == label


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("text", "end"),
    [("<think>compare the two", "it does not end"), ("<think>compare</think>\n", "no answer follows it")],
)
def test_a_thought_without_an_answer_names_no_setting(lenient, text, end):
    judgement = EquivalenceContract(lenient=lenient).parse("c", text)
    assert judgement.reason == f"thinking is off, but a <think> block stands first, and {end}"


def test_thinking():
    contract = EquivalenceContract(thinking=True)
    case = contract.read_case({**ROW, "reason": "Same </think> germ."}, "c")
    assert contract.target(case) == "<think>\nSame  germ.\n</think>\n\n1"
    assert contract.parse("c", contract.target(case)) == Verdict("c", "1", None, "Same  germ.")
    assert contract.target(contract.read_case(ROW, "c")) == "<think>\n\n</think>\n\n1"
    assert contract.closed_completions() is None
    assert "expected one <think> tag, found 0" in reason_of(contract, "1")[1]


@pytest.mark.parametrize("settings", [{}, {"thinking": True}, {"lenient": True}])
def test_never_raises(settings):
    assert_never_raises(EquivalenceContract(**settings))


@pytest.mark.parametrize("settings", [{}, {"language": "fr", "thinking": True}])
def test_every_real_row_reads_and_its_target_parses_back(settings):
    contract = EquivalenceContract(**settings)
    rows = shared_rows("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl")
    assert len(rows) == 808
    for i, row in enumerate(rows):
        case = contract.read_case(row, str(i))
        assert label_of(contract, contract.target(case)) == case.gold == str(row["label"])
