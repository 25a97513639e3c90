"""The contract beside the weights, and the one rule for asking under another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import get_peft_model

from medjudge import artifacts
from medjudge.errors import ConfigError, ModelError, RunError
from medjudge.models.adapters import lora_config
from medjudge.models.contract import (
    TrainedUnder,
    agreed_contract,
    check_contract,
    read_contract,
    trained_under,
    write_contract,
)
from medjudge.models.lineage import copy_model, merge_adapter
from medjudge.models.load import load_tokenizer, load_weights
from medjudge.recipe import recipe_from_tree
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.classification import ClassificationContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.marks import ReasoningContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.pairwise import PairwiseContract
from medjudge.tasks.rubric import RubricContract
from medjudge.training.save import Origin, save_trained
from tests.models.small_models import save_base
from tests.small_runs import small_tree

EVERY_TASK: list[TaskContract] = [
    McqContract(instructions="terse", target_confidence=0.7),
    McqContract(thinking=True),
    EquivalenceContract(language="fr", max_prompt_tokens=99),
    RubricContract(points=2, criteria="kind?", rubric={"0": "no", "1": "yes"}),
    RubricContract(points=3, form="score_only", criteria="kind?", rubric="1 no, 2 so, 3 yes"),
    AppropriatenessContract(form="answer_only", system_prompt=""),
    AppropriatenessContract(),
    ReasoningContract(instructions="terse"),
    ClassificationContract.model_validate({"labels": ["no", "yes"], "fields": ["claim"], "positive": "yes"}),
    PairwiseContract(ties=False, criteria="Is it right?"),
]


def trained(contract: TaskContract) -> TrainedUnder:
    return TrainedUnder("m", contract, contract.fingerprint())


@pytest.mark.parametrize("contract", EVERY_TASK, ids=lambda c: f"{c.kind}-{c.fingerprint()[:6]}")
def test_a_contract_is_read_as_it_was_written_and_agrees_with_itself(tmp_path: Path, contract: TaskContract) -> None:
    write_contract(tmp_path, contract)
    again = read_contract(tmp_path)
    assert again == contract
    assert check_contract(trained(contract), contract) is None
    assert check_contract(trained(contract), contract.model_copy(update={"max_prompt_tokens": 1234})) is not None


def test_a_folder_without_one_says_what_its_lineage_does(tmp_path: Path) -> None:
    assert read_contract(tmp_path) is None
    with pytest.raises(ModelError, match=r"without config\.json .* such as RUN/sft/model"):  # that of a stage
        trained_under(str(tmp_path))
    artifacts.write_json(tmp_path / "config.json", {})
    assert trained_under(str(tmp_path)) == TrainedUnder(str(tmp_path))
    artifacts.write_json(tmp_path / artifacts.LINEAGE, {"contract_sha256": "a" * 64})
    assert trained_under(str(tmp_path)).fingerprint == "a" * 64
    assert trained_under("openai:m@http://localhost:1/v1").fingerprint is None


def test_a_damaged_file_and_one_of_another_wording_are_refused(tmp_path: Path) -> None:
    write_contract(tmp_path, EquivalenceContract())
    path = tmp_path / artifacts.CONTRACT
    tree = artifacts.read_json(path)
    artifacts.write_json(path, {**tree, "fingerprint": "0" * 64})
    with pytest.raises(ModelError, match=r"fingerprint 0{16}, but its settings come to"):
        read_contract(tmp_path)
    artifacts.write_json(path, {**tree, "settings": {**tree["settings"], "colour": 1}})
    with pytest.raises(RunError, match="settings that this version does not know"):
        read_contract(tmp_path)
    for other in ([], {"name": "of another program"}, {**tree, "kind": ["mcq"]}, {**tree, "version": 9}):
        artifacts.write_json(path, other)
        with pytest.raises(RunError, match="not a contract of this version"):
            read_contract(tmp_path)


KIND = RubricContract(criteria="kind?", rubric="a text", points=5)


@pytest.mark.parametrize(
    ("own", "asked", "message"),
    [
        (McqContract(), EquivalenceContract(), "m was trained for the task mcq, but is asked for equivalence"),
        (KIND, KIND.model_copy(update={"points": 3}), "the labels 1, 2, 3, 4, 5, but is asked for 1, 2, 3: expected"),
        (
            KIND,
            KIND.model_copy(update={"form": "score_only", "instructions": "terse"}),
            "the answer form `task.form = feedback`, but is asked for `task.form = score_only`",
        ),
        (
            EquivalenceContract(),
            EquivalenceContract(thinking=True),
            "the answer form `task.thinking = false`, but is asked for `task.thinking = true`",
        ),
        (
            AppropriatenessContract(),
            AppropriatenessContract(form="answer_only"),
            "the answer form `task.form = reasoning`, but is asked for `task.form = answer_only`",
        ),
    ],
)
def test_another_kind_other_labels_and_another_form_are_refused(
    own: TaskContract, asked: TaskContract, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_contract(trained(own), asked)
    assert message in str(refused.value)
    assert "expected" in str(refused.value)
    assert "asked as it was trained" in str(refused.value)


@pytest.mark.parametrize(
    ("own", "asked", "names"),
    [
        (McqContract(), McqContract(reason_first=True), "reason_first (asked: true, trained: false)"),
        (McqContract(first_index=1), McqContract(), None),  # how rows are read is not what is asked
        (McqContract(thinking=True), McqContract(lenient=True), "thinking (asked: false, trained: true), lenient"),
        (EquivalenceContract(), EquivalenceContract(system_prompt="word " * 9), "system_prompt (texts differ)"),
        (EquivalenceContract(), EquivalenceContract(system_prompt=""), 'system_prompt (asked: "", trained: none)'),
        (
            EquivalenceContract(instructions="terse"),
            EquivalenceContract(max_prompt_tokens=300),
            "max_prompt_tokens (asked: 300, trained: 2048), instructions (asked: published, trained: terse)",
        ),
    ],
)
def test_other_settings_are_allowed_and_named(own: TaskContract, asked: TaskContract, names: str | None) -> None:
    sentence = check_contract(trained(own), asked)
    assert (sentence is None) == (names is None)
    if names is not None:
        assert sentence is not None
        assert names in sentence
        assert sentence.startswith("m is asked under other settings than it was trained under: ")


def test_a_benchmark_asks_on_another_scale_and_nothing_else() -> None:
    other = RubricContract(points=2, criteria="faithful?", rubric={"0": "no", "1": "yes"})
    sentence = check_contract(trained(KIND), other, any_scale=True)
    assert sentence is not None
    assert (
        "points (asked: 2, trained: 5), criteria (asked: faithful?, trained: kind?), rubric (texts differ)" in sentence
    )
    with pytest.raises(ConfigError, match=r"the answer form `task\.form = feedback`"):
        check_contract(trained(KIND), other.model_copy(update={"form": "score_only"}), any_scale=True)
    with pytest.raises(ConfigError, match="the labels"):
        check_contract(trained(KIND), other)


def test_a_folder_of_an_earlier_version_is_held_to_its_fingerprint() -> None:
    old = TrainedUnder("m", None, EquivalenceContract().fingerprint())
    assert check_contract(old, EquivalenceContract()) is None
    with pytest.raises(ConfigError, match=r"holds no contract\.json .* expected the same contract"):
        check_contract(old, EquivalenceContract(instructions="terse"))
    assert "holds no contract.json" in (check_contract(old, KIND, any_scale=True) or "")


@pytest.mark.parametrize(
    ("others", "kind", "expected"),
    [
        ([], None, EquivalenceContract()),
        ([TrainedUnder("openai")], None, EquivalenceContract()),
        ([trained(McqContract())], "equivalence", EquivalenceContract()),
        ([trained(EquivalenceContract(language="fr"))], "equivalence", None),
        ([trained(McqContract())], None, r"different contracts \(kind\)"),
        ([trained(EquivalenceContract(language="fr"))], None, r"contracts \(language \(first: en, second: fr\)\)"),
    ],
)
def test_the_contracts_of_several_models_must_agree(
    others: list[TrainedUnder], kind: str | None, expected: Any
) -> None:
    models = [trained(EquivalenceContract()), *others]
    if isinstance(expected, str):
        with pytest.raises(ConfigError, match=expected):
            agreed_contract(models, kind)
    else:
        assert agreed_contract(models, kind) == expected
    assert agreed_contract([TrainedUnder("openai")]) is None


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_every_folder_that_training_and_merging_write_holds_it(tmp_path: Path, tuning: str) -> None:
    recipe = recipe_from_tree(small_tree(tmp_path / "rows.jsonl", tmp_path / "runs"))
    start = save_base(tmp_path / "base")
    tokenizer = load_tokenizer(start)
    model = load_weights(start, recipe.model, tokenizer)
    if tuning == "lora":
        model = get_peft_model(model, lora_config(recipe.sft.lora))
    out = tmp_path / "out"
    origin = Origin("sft", recipe, start, str(start), tmp_path / "run" / "sft", "0" * 64)
    save_trained(model, tokenizer, out, origin, proof=[[3, 4, 5]])
    folders = [out / artifacts.ADAPTER, out / artifacts.MODEL] if tuning == "lora" else [out / artifacts.MODEL]
    copy_model(out / artifacts.MODEL, tmp_path / "copy")
    for folder in (*folders, tmp_path / "copy"):
        assert read_contract(folder) == recipe.contract, folder
    # An adapter of an earlier version has none, and neither has its merge.
    if tuning == "lora":
        (out / artifacts.ADAPTER / artifacts.CONTRACT).unlink()
        merged = tmp_path / "merged"
        merge_adapter(
            out / artifacts.ADAPTER, merged, recipe.model, stage="merge", prompts=[[3]], max_logit_difference=0.1
        )
        assert read_contract(merged) is None
        assert trained_under(str(merged)).fingerprint == recipe.contract.fingerprint()
