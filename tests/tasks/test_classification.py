"""Classification: what recipes may say, what rows may hold, what is asked, and what is read."""

from __future__ import annotations

from typing import Any

import pytest

from medjudge.data.sources import read_source
from medjudge.errors import ConfigError
from medjudge.models.contract import TrainedUnder, check_contract, read_contract, write_contract
from medjudge.models.scratch import build_tokenizer
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case, Completion, Rollout, Unparsed
from medjudge.rewards.composition import RewardContext, build_plan
from medjudge.settings.rewards import RewardSettings
from medjudge.tasks.classification import ClassificationContract
from medjudge.tasks.contract import RowError
from medjudge.tasks.encoding import encode_all, encode_labels
from tests.shared_data import require_shared, shared_tokenizer
from tests.tasks.parsing import assert_never_raises, label_of, reason_of

LABELS = ("no", "not enough information", "not at all", "supports")
ROW = {"claim": "Zinc cures colds.", "evidence": "It shortened them {by a day}.", "label": "Supports"}


def contract(**settings: Any) -> ClassificationContract:
    return ClassificationContract.model_validate({"labels": LABELS, "fields": ("claim", "evidence"), **settings})


def test_prompt_and_target() -> None:
    asked = contract(
        definitions={"no": "It speaks against it."}, question="Is it {so}?", titles={"evidence": "From the abstract"}
    )
    case = asked.read_case(ROW, "c")
    system, user = asked.messages(case)
    assert "Is it {so}?" in system["content"]
    assert "- no: It speaks against it.\n- not enough information\n- not at all\n- supports\n" in system["content"]
    assert "lowest" not in system["content"]
    assert user["content"] == "Claim: Zinc cures colds.\n\nFrom the abstract: It shortened them {by a day}."
    assert (case.gold, asked.target(case)) == ("supports", "<answer>supports</answer>")
    assert "from lowest to highest" in contract(ordered=True).messages(case)[0]["content"]
    assert "<think>" in contract(thinking=True).messages(case)[0]["content"]
    assert "Répondez" in contract(language="fr", instructions="terse").messages(case)[0]["content"]
    assert len(contract(system_prompt="").messages(case)) == 1


def test_it_says_of_itself_what_the_recipe_says() -> None:
    asked = contract(labels=("low", "high"), positive="high", ordered=True, optional=("evidence",))
    assert (asked.labels, asked.positive, asked.ordered) == (("low", "high"), "high", True)
    assert list(asked.fields) == ["claim", "evidence", "label", "reason"]
    assert asked.optional_fields == {"label", "reason", "evidence"}
    assert asked.group_fields == ("claim",)
    assert contract().positive is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": ["one"]}, "expected two or more"),
        ({"labels": ["Yes", "no", "ｙｅｓ"]}, "'Yes' and 'ｙｅｓ'"),
        ({"labels": ["a", "b  c"]}, "one line"),
        ({"labels": ["a", "</answer>"]}, "tags"),
        ({"fields": []}, "`fields` is empty"),
        ({"fields": ["label", "x"]}, "expert's label"),
        ({"fields": ["x", "x"]}, "twice"),
        ({"definitions": {"suports": "x"}}, "did you mean `supports`?"),
        ({"titles": {"claims": "x"}}, "did you mean `claim`?"),
        ({"positive": "supports"}, "for two labels"),
        ({"optional": ["claim", "evidence"]}, "names all fields"),
        ({"multiple": True}, "one label"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    tree = {"kind": "classification", "labels": LABELS, "fields": ["claim", "evidence"], **settings}
    with pytest.raises(ConfigError, match="`task") as caught:
        recipe_from_tree({"name": "x", "task": tree})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "value", "gold"),
    [
        (LABELS, " NOT enough\u00a0 information ", "not enough information"),
        (("0", "1"), 1.0, "1"),
        (("0", "1"), 0, "0"),
        (("false", "true"), True, "true"),
        (LABELS, None, None),
        (LABELS, float("nan"), None),
    ],
)
def test_gold(labels: tuple[str, ...], value: object, gold: str | None) -> None:
    assert contract(labels=labels).read_case({**ROW, "label": value}, "c").gold == gold


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"label": "suports"}, "label", "did you mean `supports`?"),
        ({"label": "Neutral"}, "label", "[data.values.label]"),
        ({"label": ["no", "supports"]}, "label", "got list of 2"),
        ({"evidence": ""}, "evidence", "got nothing"),
        ({"claim": None}, "claim", "got nothing"),
        ({"claim": True}, "claim", "expected text"),
    ],
)
def test_bad_rows(changes: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(RowError) as caught:
        contract().read_case({**ROW, **changes}, "c")
    assert caught.value.field == field
    assert words in str(caught.value)


def test_cells_with_several_texts_and_fields_that_a_row_lacks() -> None:
    asked = contract(optional=("evidence",))
    snippets = [{"pmid": "7", "text": "One."}, {"pmid": "8", "text": "Two."}]
    case = asked.read_case({**ROW, "evidence": snippets}, "c")
    assert case.inputs["evidence"] == "[7] One.\n[8] Two."
    assert asked.read_case({**ROW, "evidence": ["One.", "Two."]}, "c").inputs["evidence"] == "[1] One.\n[2] Two."
    bare = asked.read_case({**ROW, "evidence": []}, "c")
    assert asked.messages(bare)[1]["content"] == "Claim: Zinc cures colds."


@pytest.mark.parametrize("text", ["<answer>no</answer>", " <answer>\nNO </answer>\n", "<answer>ｎｏ</answer>"])
def test_parses(text: str) -> None:
    assert label_of(contract(), text) == "no"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("no", "format"),
        ("<answer>no</answer> indeed", "format"),
        ("<answer>no</answer><answer>no</answer>", "format"),
        ("<answer>nothing</answer>", "schema"),
        ("<answer></answer>", "schema"),
        ("<think>x</think><answer>no</answer>", "format"),
    ],
)
def test_refuses_with_a_reason(text: str, kind: str) -> None:
    assert reason_of(contract(), text)[0] == kind


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("not enough information", "not enough information"),
        ("**Supports.**", "supports"),
        ("There is no doubt. Label: not at all", "not at all"),
        ("Verdict: **not enough  information**, since ..", "not enough information"),
        ("<think>no</think><answer>supports</answer>", "supports"),
        ("<answer>supports", "supports"),
        ("There is no doubt about it.", None),
        ("<answer>no</answer> or <answer>supports</answer>", None),
        ("<answer>nope</answer> label: no", None),
        ("The answer is no. The label: supports", None),
    ],
)
def test_lenient_reading(text: str, label: str | None) -> None:
    judgement = contract(lenient=True).parse("c", text)
    assert (None if isinstance(judgement, Unparsed) else judgement.label) == label


def test_thinking_reads_what_it_writes() -> None:
    asked = contract(thinking=True)
    case = asked.read_case({**ROW, "reason": "A day less."}, "c")
    judgement = asked.parse("c", asked.target(case))
    assert not isinstance(judgement, Unparsed)
    assert (judgement.label, judgement.rationale) == ("supports", "A day less.")
    assert asked.closed_completions() is None
    assert asked.label_frame() is None


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("thinking", [False, True])
def test_never_raises(lenient: bool, thinking: bool) -> None:
    assert_never_raises(contract(lenient=lenient, thinking=thinking))


def _ids_of_labels(asked: ClassificationContract, tokenizer: Any) -> list[tuple[int, ...]]:
    case = asked.read_case(ROW, "c")
    [scored] = encode_labels(asked, encode_all(asked, [case], tokenizer, with_target=False), tokenizer)
    taught = encode_all(
        asked, [Case("c", case.inputs, gold=label) for label in asked.labels], tokenizer, with_target=True
    )
    for ids, row in zip(scored.labels, taught, strict=True):
        assert [*scored.forced, *ids] == row.completion_ids  # labels mode scores what SFT teaches, stop token and all
    return list(scored.labels)


@pytest.mark.parametrize("name", ["qwen3", "phi-4", "smollm2"])
def test_labels_that_begin_alike_are_told_apart_by_real_tokenizers(name: str) -> None:
    labels = _ids_of_labels(contract(max_completion_tokens=32), shared_tokenizer(name))
    assert labels[1][:4] == labels[2][:4]  # "<answer>not", and then apart
    assert len(set(labels)) == len(LABELS)


def test_labels_that_begin_alike_are_told_apart_by_our_tokenizer() -> None:
    asked = contract(labels=("a", "a b", "a b c"))
    texts = [turn["content"] for turn in asked.messages(asked.read_case({**ROW, "label": "a"}, "c"))]
    tokenizer = build_tokenizer([*texts, "<answer>a b c</answer>"] * 3, 400)
    case = asked.read_case({**ROW, "label": "a"}, "c")
    [scored] = encode_labels(asked, encode_all(asked, [case], tokenizer, with_target=False), tokenizer)
    assert len(set(scored.labels)) == 3


def test_the_ordinal_reward_counts_steps_only_where_labels_have_an_order() -> None:
    labels = ("mild", "moderate", "severe")
    asked = contract(labels=labels, ordered=True)
    case = asked.read_case({**ROW, "label": "mild"}, "c")
    plan = build_plan({"ordinal": 1.0}, (), RewardContext(asked, [case], RewardSettings(), 0, "cpu"))
    rollouts = [
        Rollout(case, asked.parse("c", text), Completion(text, 5, True))
        for text in (*(f"<answer>{label}</answer>" for label in labels), "mild")
    ]
    assert [one.total for one in plan.score(rollouts)] == [1, 0.5, 0, 0]
    with pytest.raises(ConfigError, match="no order"):
        build_plan({"ordinal": 1.0}, (), RewardContext(contract(), [case], RewardSettings(), 0, "cpu"))


def test_the_settings_travel_with_a_model(tmp_path: Any) -> None:
    own = contract(definitions={"no": "x"}, titles={"claim": "C"}, ordered=True)
    write_contract(tmp_path, own)
    assert read_contract(tmp_path) == own
    trained = TrainedUnder("judge", own, own.fingerprint())
    assert check_contract(trained, own) is None
    note = check_contract(trained, contract(definitions={"no": "y"}, titles={"claim": "C"}, fields=["claim"]))
    assert note is not None
    for name in ("definitions", "fields", "ordered"):
        assert name in note
    with pytest.raises(ConfigError, match="the labels no, not enough information"):
        check_contract(trained, contract(labels=LABELS[::-1], ordered=True))
    with pytest.raises(ConfigError, match="the answer form"):
        check_contract(trained, contract(thinking=True, ordered=True))


@pytest.mark.parametrize(
    ("place", "task", "data"),
    [
        (
            ("healthver_evidence", "healthver_evidence.jsonl"),
            {"labels": ["refutes", "not enough information", "supports"], "fields": ["claim", "evidence"]},
            {"values": {"label": {"Neutral": "not enough information"}}},
        ),
        (
            ("bioasq_evidence", "bioasq_evidence.jsonl.gz"),
            {"labels": ["no", "yes"], "positive": "yes", "fields": ["question", "snippets"]},
            {"fields": {"label": "exact_answer"}, "where": {"type": "yesno"}},
        ),
        (
            ("pubmedqa_labeled", "pubmedqa_labeled.jsonl"),
            {"labels": ["no", "maybe", "yes"], "ordered": True, "fields": ["question", "contexts"]},
            {"fields": {"label": "final_decision", "reason": "long_answer"}},
        ),
    ],
)
def test_real_rows(place: tuple[str, str], task: dict[str, Any], data: dict[str, Any]) -> None:
    path = require_shared("data", *place)
    recipe = recipe_from_tree({"name": "x", "task": {"kind": "classification", **task}, "data": data})
    table = read_source(str(path), recipe.contract, recipe.data)
    assert table.rejected == ()
    assert {case.gold for case in table.cases} == set(recipe.contract.labels)
