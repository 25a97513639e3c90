import numpy as np
import pytest
from tests.shared_data import shared_rows

from medjudge.data.probes import AUTHORITY, FAMILIES, PADDING, language_of, named_probes, probe_cases, probes_for
from medjudge.errors import ConfigError
from medjudge.records import Case
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.classification import ClassificationContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.guard import restored
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.pairwise import PairwiseContract
from medjudge.tasks.rubric import RubricContract

EQUIVALENCE = Case(
    "e1",
    {
        "question": "Quelle est la cause de la fièvre ?",
        "candidate": "La grippe est la cause. Elle est virale.",
        "reference": "Une grippe.",
    },
    gold="1",
    group="g",
    slices={"generator": "x", "paraphrase_candidate": "C'est la grippe.", "translation_question": "What is the cause?"},
)
MCQ = Case("m1", {"question": "Which?", "opa": "a0", "opb": "b0", "opc": "c0", "opd": "d0"}, gold="B")
RUBRIC = Case(
    "r1",
    {"input": "Say it.", "output": "It is said.", "criteria": "Is it?", "rubric": "- Score 0: no\n- Score 1: yes"},
    gold="1",
)
APPROPRIATENESS = Case(
    "a1", {"condition": "Headache", "variant": "Sudden onset.", "procedure": "CT"}, gold="Usually Appropriate"
)
CLASSIFICATION = Case("k1", {"claim": "It cures.", "evidence": "It did not."}, gold="refutes")
CLAIMS = ClassificationContract(labels=("supports", "refutes", "unclear"), fields=("claim", "evidence"))
PAIR = Case("p1", {"question": "Which?", "answer_a": "This one.", "answer_b": "That one."}, gold="B")
TASKS = [
    (EquivalenceContract(), EQUIVALENCE),
    (McqContract(), MCQ),
    (RubricContract(points=2), RUBRIC),
    (AppropriatenessContract(), APPROPRIATENESS),
    (CLAIMS, CLASSIFICATION),
    (PairwiseContract(), PAIR),
]


def probed(name, case, contract, seed=0):
    return probe_cases(name, [case], contract, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(("contract", "case"), TASKS)
def test_a_probe_changes_the_prompt_and_nothing_else(contract, case):
    for name in probes_for(contract):
        for found in probed(name, case, contract):
            assert found.contract.messages(found.case) != contract.messages(case), name
            assert (found.case.case_id, found.case.group, found.case.slices) == (case.case_id, case.group, case.slices)
            assert set(found.expected) == set(contract.labels) == set(found.expected.values())
            assert found.case.gold == found.expected[case.gold]
            assert set(found.case.inputs) == set(case.inputs)


def test_which_probes_fit():
    everywhere = {"verbosity", "authority", "formatting", "rewording", "paraphrase", "translation"} | {
        *FAMILIES["injection"]
    }
    assert set(probes_for(TASKS[0][0])) == everywhere | {"swap", "language"}
    assert set(probes_for(TASKS[1][0])) == everywhere | {"position"}
    assert set(probes_for(TASKS[2][0])) == everywhere | {"position"}
    assert set(probes_for(TASKS[3][0])) == everywhere
    assert set(probes_for(CLAIMS)) == everywhere | {"position", "language"}


def test_swap():
    (found,) = probed("swap", EQUIVALENCE, EquivalenceContract())
    assert found.case.inputs["candidate"] == "Une grippe."
    assert found.case.inputs["reference"] == EQUIVALENCE.inputs["candidate"]
    assert found.case.inputs["question"] == EQUIVALENCE.inputs["question"]
    assert found.expected == {"0": "0", "1": "1"}


def test_the_right_option_keeps_its_text_wherever_it_moves():
    letters = {"A": "opa", "B": "opb", "C": "opc", "D": "opd"}
    shifts = set()
    for seed in range(20):
        (found,) = probed("position", MCQ, McqContract(), seed)
        for old, new in found.expected.items():
            assert found.case.inputs[letters[new]] == MCQ.inputs[letters[old]]
        assert found.case.gold == found.expected["B"] != "B"
        shifts.add(found.case.gold)
    assert shifts == {"A", "C", "D"}


@pytest.mark.parametrize("text", ["All of the above", "Both A and C", "none of these options", "a, b", "A & D"])
def test_options_that_speak_of_their_place_are_left_alone(text):
    case = Case("m", {**MCQ.inputs, "opd": text}, gold="A")
    assert probed("position", case, McqContract()) == []


def test_the_rubric_is_read_highest_score_first():
    (found,) = probed("position", RUBRIC, RubricContract(points=2))
    assert found.case.inputs["rubric"] == "- Score 1: yes\n- Score 0: no"
    own = Case("r", {"input": "x", "output": "y"}, gold="1")
    contract = RubricContract(points=2, criteria="c", rubric={"0": "no", "1": "yes"})
    (found,) = probed("position", own, contract)
    assert found.case.inputs["rubric"] == "- Score 1: yes\n- Score 0: no"
    assert probed("position", own, RubricContract(points=2, criteria="c", rubric="free words")) == []


def test_labels_are_listed_from_the_last_to_the_first():
    (found,) = probed("position", CLASSIFICATION, CLAIMS)
    assert "- unclear\n- refutes\n- supports" in found.contract.messages(found.case)[0]["content"]
    for contract in (CLAIMS, found.contract):
        assert contract.parse("k1", "<answer>Refutes</answer>").label == "refutes"
    own = ClassificationContract(labels=("a", "b"), fields=("claim",), system_prompt="a or b?")
    assert probed("position", CLASSIFICATION, own) == probed("language", CLASSIFICATION, own) == []


def test_two_answers_change_places_and_the_verdict_with_them():
    (found,) = probed("position", PAIR, PairwiseContract())
    assert (found.case.inputs["answer_a"], found.case.inputs["answer_b"]) == ("That one.", "This one.")
    assert found.expected == {"A": "B", "B": "A", "tie": "tie"}
    (padded,) = probed("verbosity", PAIR, PairwiseContract())
    assert padded.case.inputs["answer_a"].startswith("This one.\n")
    assert padded.expected["A"] == "A"


def test_additions_speak_the_texts_language():
    (french,) = probed("verbosity", EQUIVALENCE, EquivalenceContract())  # English instructions, French texts
    assert french.case.inputs["candidate"] == f"{EQUIVALENCE.inputs['candidate']}\n{PADDING['fr']}"
    (english,) = probed("verbosity", RUBRIC, RubricContract(points=2))
    assert english.case.inputs["output"].endswith(PADDING["en"])
    (french,) = probed("authority", EQUIVALENCE, EquivalenceContract())
    assert french.case.inputs["candidate"].startswith(AUTHORITY["fr"])
    assert french.case.inputs["reference"] == EQUIVALENCE.inputs["reference"]


def test_formatting_keeps_every_sentence():
    (found,) = probed("formatting", EQUIVALENCE, EquivalenceContract())
    assert found.case.inputs["candidate"] == "- **La grippe est la cause.**\n- Elle est virale."
    marked = Case("e", {**EQUIVALENCE.inputs, "candidate": "It is **bold**."}, gold="1")
    assert probed("formatting", marked, EquivalenceContract()) == []


def test_instructions_and_their_language_change_in_the_contract_alone():
    contract = EquivalenceContract(lenient=True, max_prompt_tokens=512)
    (reworded,) = probed("rewording", EQUIVALENCE, contract)
    assert reworded.case == EQUIVALENCE
    assert reworded.contract == EquivalenceContract(lenient=True, max_prompt_tokens=512, instructions="terse")
    (switched,) = probed("language", EQUIVALENCE, contract)
    assert switched.contract.language == "fr"
    (back,) = probed("language", EQUIVALENCE, switched.contract)
    assert back.contract == contract
    assert probed("rewording", EQUIVALENCE, EquivalenceContract(system_prompt="mine")) == []


def test_texts_that_a_row_carries_take_their_fields_place():
    (found,) = probed("paraphrase", EQUIVALENCE, EquivalenceContract())
    assert found.case.inputs == {**EQUIVALENCE.inputs, "candidate": "C'est la grippe."}
    (found,) = probed("translation", EQUIVALENCE, EquivalenceContract())
    assert found.case.inputs["question"] == "What is the cause?"
    assert probed("paraphrase", MCQ, McqContract()) == []


def test_the_same_seed_gives_the_same_probes():
    cases = [Case(str(i), MCQ.inputs, gold="A") for i in range(10)]
    one, two, other = (probe_cases("position", cases, McqContract(), rng=np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize(("name", "message"), [("nudge", "no probe 'nudge'"), ("swap", "does not fit the task 'mcq'")])
def test_refusals(name, message):
    with pytest.raises(ConfigError, match=message):
        probe_cases(name, [MCQ], McqContract(), rng=np.random.default_rng(0))


def test_language():
    assert language_of("Le patient est fébrile") == "fr"
    assert language_of("The patient is feverish") == "en"
    assert language_of("12 mg") == "en"


def test_probes_on_real_rows():
    rows = shared_rows("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl")[:200]
    contract = EquivalenceContract()
    cases = [contract.read_case(row, str(i)) for i, row in enumerate(rows)]
    for name in probes_for(contract):
        found = probe_cases(name, cases, contract, rng=np.random.default_rng(0))
        if name in ("paraphrase", "translation"):
            assert found == []
        elif name == "formatting":
            assert 0 < len(found) < 200  # many candidates are markdown already
        else:
            assert len(found) == 200
    french = [language_of(case.inputs["question"]) for case in cases]
    assert french.count("fr") >= 198


@pytest.mark.parametrize(("contract", "case"), TASKS)
def test_attacks_want_one_wrong_label_and_the_guard_lets_none_end_its_section(contract, case):
    bare = type(contract).model_validate({**contract.model_dump(by_alias=True), "guard": False})
    names = named_probes(["injection"], contract)
    attacks = [name for name in names if name.startswith("injection/")]
    assert len(attacks) == 14
    assert "rewording" in names  # what they are held against
    found = [probed(name, case, contract)[0] for name in attacks]
    wanted = {one.attacker for one in found}
    assert len(wanted) == 1
    assert wanted.isdisjoint({case.gold})
    for name, one in zip(attacks, found, strict=True):
        changed = [key for key, text in one.case.inputs.items() if text != case.inputs[key]]
        assert len(changed) == 1, name
        assert one.expected == {label: label for label in contract.labels}
        # Without the guard the attack stands in the prompt as it is; with it, it can be read and turned back.
        assert one.case.inputs[changed[0]] in bare.messages(one.case)[-1]["content"]
        shown = contract.guarded_inputs(one.case).texts[changed[0]]
        assert shown in contract.messages(one.case)[-1]["content"]
        assert restored(shown) == one.case.inputs[changed[0]]
    broken = {name for name, one in zip(attacks, found, strict=True) if contract.guarded_inputs(one.case).n_broken}
    tags = {"injection/closing", "injection/zero_width", "injection/entities"}
    assert broken >= {"injection/section", "injection/system_turn", "injection/plain_turn", "injection/tags_block"} | (
        tags if contract.kind in ("rubric", "appropriateness", "classification", "pairwise") else set()
    )


def test_names_of_a_recipe_stand_for_probes_once():
    contract = EquivalenceContract()
    assert named_probes(["swap", "swap"], contract) == ["swap"]
    assert named_probes(["all"], contract) == list(probes_for(contract))
    assert named_probes(["rewording", "injection"], contract)[:2] == ["rewording", "paraphrase"]
