"""Pairs of answers: what rows may hold, both orders of each, what is asked and what is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medjudge.data.sources import read_source
from medjudge.data.splits import seeded_sample, split_cases
from medjudge.errors import ConfigError
from medjudge.recipe import recipe_from_tree
from medjudge.records import Unparsed
from medjudge.settings.data import DataConfig
from medjudge.tasks.contract import RowError
from medjudge.tasks.pairwise import PairwiseContract, pair_id, swapped, twin_id
from tests.tasks.parsing import assert_never_raises, label_of, reason_of

ROW: dict[str, Any] = {
    "question": "Which nerve?",
    "reference": "The axillary nerve {C5}.",
    "answer_a": "Axillary nerve.",
    "answer_b": "Radial nerve.",
    "label": "A",
    "reason": "Answer A names it; response B (a trap) does not.",
}


def test_prompt_and_target() -> None:
    contract = PairwiseContract()
    case = contract.read_case(ROW, "c")
    system, user = contract.messages(case)
    assert "held against the reference" in system["content"]
    assert "- tie:" in system["content"]
    assert user["content"] == (
        "Question: Which nerve?\n\nReference answer: The axillary nerve {C5}.\n\nAnswer A: Axillary nerve.\n\n"
        "Answer B: Radial nerve."
    )
    assert contract.target(case) == "<answer>A</answer>"
    assert contract.closed_completions() == {label: f"<answer>{label}</answer>" for label in ("A", "B", "tie")}
    bare = contract.read_case({**ROW, "reference": None}, "c")
    assert "reference" not in json.dumps(contract.messages(bare)).lower()
    strict = PairwiseContract(ties=False, criteria="Kindness counts.", language="fr")
    assert strict.labels == ("A", "B")
    assert "tie" not in strict.messages(case)[0]["content"]
    assert "Kindness counts." in strict.messages(case)[0]["content"]
    assert "Réponse A : Axillary nerve." in strict.messages(case)[1]["content"]
    terse = PairwiseContract(instructions="terse", thinking=True).messages(case)[0]["content"]
    assert terse == "Which answer is better? Reply: <think>your reasons</think><answer>A|B|tie</answer>"


@pytest.mark.parametrize(
    ("value", "gold"),
    [("A", "A"), (" b ", "B"), ("TIE", "tie"), ("model_b", "B"), ("tie (bothbad)", "tie"), (None, None), ("", None)],
)
def test_gold(value: object, gold: str | None) -> None:
    assert PairwiseContract().read_case({**ROW, "label": value}, "c").gold == gold


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"label": 1}, "label"),
        ({"label": "C"}, "label"),
        ({"answer_b": ""}, "answer_b"),
        ({"question": None}, "question"),
    ],
)
def test_bad_rows(changes: dict[str, object], field: str) -> None:
    with pytest.raises(RowError) as caught:
        PairwiseContract().read_case({**ROW, **changes}, "c")
    assert caught.value.field == field
    with pytest.raises(RowError, match="one of A, B;"):
        PairwiseContract(ties=False).read_case({**ROW, "label": "tie"}, "c")


def test_a_swap_turns_all_that_has_a_side_and_twice_is_none() -> None:
    contract = PairwiseContract()
    case = contract.read_case(ROW, "c")
    first, second = contract.presentations(
        type(case)(
            **{
                **{name: getattr(case, name) for name in case.__dataclass_fields__},
                "slices": {"system_a": "x", "system_b": "y", "grade_a": "1", "year": "2"},
                "ratings": {"one": "A", "two": "tie"},
            }
        )
    )
    assert first.inputs == case.inputs
    assert (second.case_id, second.gold) == ("c~swapped", "B")
    assert (second.inputs["answer_a"], second.inputs["answer_b"]) == ("Radial nerve.", "Axillary nerve.")
    assert second.slices == {"system_a": "y", "system_b": "x", "grade_a": "1", "year": "2", "order": "swapped"}
    assert second.ratings == {"one": "B", "two": "tie"}
    assert second.reason == "Answer B names it; response A (a trap) does not."
    back = swapped(second)
    assert (back.inputs, back.gold, back.reason) == (case.inputs, case.gold, case.reason)
    assert (pair_id(second.case_id), twin_id(second.case_id), twin_id("c")) == ("c", "c", "c~swapped")


@pytest.mark.parametrize(
    ("text", "label"),
    [("<answer>A</answer>", "A"), ("\n<answer> TIE </answer>", "tie"), ("<answer>b</answer>", "B")],
)
def test_parses(text: str, label: str) -> None:
    assert label_of(PairwiseContract(), text) == label


@pytest.mark.parametrize(("text", "kind"), [("A", "format"), ("<answer>C</answer>", "schema"), ("", "format")])
def test_refuses_with_a_reason(text: str, kind: str) -> None:
    assert reason_of(PairwiseContract(), text)[0] == kind


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("[[A]]", "A"),
        ("Answer A is long, answer B is right. Verdict: B", None),  # "Answer A" may be the verdict or a name
        ("**tie**", "tie"),
        ("I like both.", None),
    ],
)
def test_lenient_reading(text: str, label: str | None) -> None:
    judgement = PairwiseContract(lenient=True).parse("c", text)
    assert (None if isinstance(judgement, Unparsed) else judgement.label) == label


def test_never_raises() -> None:
    assert_never_raises(PairwiseContract(lenient=True))


def write_rows(path: Path, n: int = 30) -> str:
    rows = [
        {**ROW, "question": f"Which nerve of {i}?", "answer_a": f"nerve {i}", "label": ("A", "B", "tie")[i % 3]}
        for i in range(n)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_a_source_gives_both_orders_which_splits_and_samples_keep_together(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl")
    table = read_source(source, PairwiseContract(), DataConfig())
    assert (table.n_rows, len(table.cases)) == (30, 60)
    golds = [case.gold for case in table.cases]
    assert golds.count("A") == golds.count("B") == golds.count("tie") == 20  # no place is right more often

    def pairs(cases: Any) -> set[int]:
        ids = [pair_id(case.case_id) for case in cases]
        return {ids.count(one) for one in ids}

    assert pairs(seeded_sample(table.cases, 11, 1)) == {2}
    assert len(seeded_sample(table.cases, 11, 1)) == 10
    for sizes in ({"train": 0.5, "test": 0.5}, {"train": (0, 20), "test": (20, 60)}):
        for part in split_cases(table.cases, splits=sizes, seed=3).values():
            assert pairs(part) == {2}
    as_given = read_source(source, PairwiseContract(orders="as_given"), DataConfig())
    assert [case.case_id for case in as_given.cases] == [case.case_id for case in table.cases[::2]]


@pytest.mark.parametrize(
    ("task", "grpo", "words"),
    [
        ({}, {"algorithm": "all_action"}, "draws nothing"),
        ({}, {"prompts_per_step": 5, "group_size": 16}, "make it even"),
    ],
)
def test_the_reward_of_both_orders_needs_both_in_a_step(task: dict[str, Any], grpo: dict[str, Any], words: str) -> None:
    tree = {"kind": "pairwise", **task}
    with pytest.raises(ConfigError, match=words):
        recipe_from_tree({"name": "x", "task": tree, "grpo": {"rewards": {"consistent": 1.0}, **grpo}})
