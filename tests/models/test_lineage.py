"""An adapter meets its exact parent or nothing; a merge says what the adapter said."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from medjudge import artifacts
from medjudge.commands.lineage import print_lineage
from medjudge.errors import LineageError, ModelError
from medjudge.models import lineage as lineage_module
from medjudge.models.lineage import (
    compare_logits,
    load_any,
    merge_adapter,
    proof_logits,
    read_lineage,
    recorded_sha256,
    weights_sha256,
)
from medjudge.models.load import count_parameters, load_tokenizer, load_weights
from medjudge.models.merge_proof import proof_sentences
from medjudge.settings.model import LoraSettings, ModelConfig
from tests.models.small_models import SHAPE, save_adapter, save_base
from tests.small_runs import small_tree, write_rows

CPU = ModelConfig(dtype="float32", device="cpu")
PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [200, 201, 202, 203, 204]]


def test_adapter_on_base_plus_sft_is_refused_on_the_bare_base(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    sft_adapter = save_adapter(tmp_path / "sft-adapter", base)
    sft = tmp_path / "sft"
    merge_adapter(sft_adapter, sft, CPU, stage="sft", prompts=PROMPTS, max_logit_difference=1e-3)
    grpo = save_adapter(tmp_path / "grpo-adapter", sft, seed=2)

    load_any(grpo, CPU)  # on its own parent
    with pytest.raises(LineageError) as refusal:
        load_any(grpo, CPU, parent=base)
    assert weights_sha256(sft) in str(refusal.value)
    assert weights_sha256(base) in str(refusal.value)


def test_parent_that_was_trained_further_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    save_base(base, seed=7)
    with pytest.raises(LineageError, match="was trained on weights"):
        load_any(adapter, CPU)


def test_merged_model_answers_as_adapter_did_and_loads_in_plain_libraries(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    lineage = merge_adapter(adapter, tmp_path / "m", CPU, stage="merge", prompts=PROMPTS, max_logit_difference=1e-3)
    assert lineage.merge is not None
    assert lineage.merge["max_logit_difference"] < 1e-4
    assert lineage.merge["share_unchanged_tokens"] == 1.0

    plain_adapter = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    plain_merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    proof = compare_logits(proof_logits(plain_adapter, PROMPTS), proof_logits(plain_merged, PROMPTS))
    assert proof["max_logit_difference"] < 1e-4
    bare = compare_logits(
        proof_logits(AutoModelForCausalLM.from_pretrained(base), PROMPTS), proof_logits(plain_merged, PROMPTS)
    )
    assert bare["max_logit_difference"] > 0.01  # the adapter does change something, so the proof proves something
    assert AutoTokenizer.from_pretrained(tmp_path / "m").eos_token == "<|end|>"


def test_merge_that_changes_logits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    # A merge that forgets the adapter: the published fault, and what a wrong `unload` does.
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self: self.unload(), raising=False)
    with pytest.raises(LineageError, match="changed logits by up to"):
        merge_adapter(adapter, tmp_path / "m", CPU, stage="merge", prompts=PROMPTS, max_logit_difference=1e-3)


def coarse(model: Any) -> Any:
    """Stands in for a quantised parent: each row of each inner linear layer holds fifteen values."""
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.weight"):
            step = parameter.data.abs().amax(dim=1, keepdim=True) / 7
            parameter.data = (parameter.data / step).round() * step
    return model


def test_a_merge_says_how_far_it_is_from_the_quantised_model_that_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_base(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", base)
    whole = lineage_module.load_weights

    def load(folder: Path, config: ModelConfig, tokenizer: Any, *, quantize: bool = False) -> Any:
        model = whole(folder, config.model_copy(update={"quantization": "none"}), tokenizer)
        return coarse(model) if quantize and config.quantization == "4bit" else model

    monkeypatch.setattr(lineage_module, "load_weights", load)
    quantised = CPU.model_copy(update={"quantization": "4bit"})
    settings: dict[str, Any] = {"stage": "merge", "prompts": PROMPTS, "max_logit_difference": 1e-3}
    merge = merge_adapter(adapter, tmp_path / "m", quantised, **settings).merge
    assert merge is not None
    assert merge["max_logit_difference"] < 1e-4  # against the full-precision parent
    trained = PeftModel.from_pretrained(coarse(AutoModelForCausalLM.from_pretrained(base)), adapter)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    by_hand = compare_logits(proof_logits(trained, PROMPTS), proof_logits(merged, PROMPTS))
    assert merge["trained_as"] == "4bit weights, float32"
    assert merge["trained_max_logit_difference"] == pytest.approx(by_hand["max_logit_difference"], rel=1e-4)
    assert merge["trained_max_logit_difference"] > 0.01
    assert merge["trained_share_unchanged_tokens"] == by_hand["share_unchanged_tokens"]
    kept = read_lineage(tmp_path / "m")
    assert kept is not None
    assert kept.merge == merge
    out = io.StringIO()
    assert print_lineage(tmp_path / "m", Console(file=out, width=300))
    assert "from the model that was trained (4bit weights, float32): logits differ by at most" in out.getvalue()


def test_a_merge_that_is_exactly_what_was_trained_speaks_of_no_other_model(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    merge = merge_adapter(adapter, tmp_path / "m", CPU, stage="merge", prompts=PROMPTS, max_logit_difference=1e-3).merge
    assert merge is not None
    assert not [key for key in merge if key.startswith(("trained", "stored"))]
    assert len(proof_sentences(merge)) == 1


def test_a_merge_of_16_bit_weights_says_what_each_rounding_changed(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    short = CPU.model_copy(update={"dtype": "bfloat16"})
    merge = merge_adapter(
        adapter, tmp_path / "m", short, stage="merge", prompts=PROMPTS, max_logit_difference=1e-3
    ).merge
    assert merge is not None
    assert 1e-3 < merge["stored_max_logit_difference"] < 0.5
    assert 0 < merge["trained_max_logit_difference"] < 0.5
    assert [line.partition(":")[0] for line in proof_sentences(merge)] == [
        "merge proven",
        "stored in bfloat16",
        "from the model that was trained (bfloat16 weights)",
    ]


def test_a_merge_where_quantised_weights_cannot_be_loaded_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    whole = lineage_module.load_weights

    def load(folder: Path, config: ModelConfig, tokenizer: Any, *, quantize: bool = False) -> Any:
        if quantize:
            raise ModelError("bitsandbytes is not installed")
        return whole(folder, config, tokenizer)

    monkeypatch.setattr(lineage_module, "load_weights", load)
    merge = merge_adapter(
        adapter,
        tmp_path / "m",
        CPU.model_copy(update={"quantization": "8bit"}),
        stage="merge",
        prompts=PROMPTS,
        max_logit_difference=1e-3,
    ).merge
    assert merge is not None
    assert proof_sentences(merge)[1] == (
        "from the model that was trained (8bit weights, float32): not measured, bitsandbytes is not installed"
    )


def test_bitsandbytes_weights_are_what_a_merge_is_compared_with(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="quantised weights need the `quant` extra")
    wide = SHAPE.model_copy(
        update={"hidden_size": 128, "intermediate_size": 256}
    )  # rows of 32 are too short for blocks
    base = save_base(tmp_path / "base", shape=wide)
    adapter = save_adapter(tmp_path / "adapter", base)
    quantised = CPU.model_copy(update={"quantization": "4bit"})
    merge = merge_adapter(
        adapter, tmp_path / "m", quantised, stage="merge", prompts=PROMPTS, max_logit_difference=1e-3
    ).merge
    assert merge is not None
    assert merge["max_logit_difference"] < 1e-4
    assert merge["trained_max_logit_difference"] > 1e-3
    assert 0 <= merge["trained_share_unchanged_tokens"] < 1
    tokenizer = load_tokenizer(base)
    quantised_base = load_weights(base, quantised, tokenizer, quantize=True)
    assert count_parameters(quantised_base)[1] == count_parameters(load_weights(base, CPU, tokenizer))[1]


def test_the_words_of_a_proof() -> None:
    merge = {
        "dtype": "float32",
        "n_positions": 7404,
        "max_logit_difference": 3.3e-5,
        "share_unchanged_tokens": 1.0,
        "trained_as": "4bit weights, float32",
        "trained_max_logit_difference": 6.9,
        "trained_share_unchanged_tokens": (7404 - 2179) / 7404,
    }
    assert proof_sentences(merge) == [
        "merge proven: logits differ by at most 3.3e-05 from those of the full-precision parent with its adapter; "
        "100.0% of 7,404 next-token choices are the same",
        "from the model that was trained (4bit weights, float32): logits differ by at most 6.9; 70.6% of 7,404 "
        "next-token choices are the same",
    ]


def test_run_folder_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    base = save_base(tmp_path / "run" / "base")
    save_adapter(tmp_path / "run" / "adapter", base)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    _, _, lineage = load_any(tmp_path / "elsewhere" / "adapter", CPU)
    assert lineage is not None


def test_lineage_round_trips_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    lineage = read_lineage(adapter)
    assert lineage is not None
    replace(lineage, stage="grpo").write(adapter)
    again = read_lineage(adapter)
    assert again == replace(lineage, stage="grpo")
    stepped = replace(lineage, adapter=LoraSettings(r=4, alpha=8).step(1e-4))
    stepped.write(adapter)
    assert read_lineage(adapter) == stepped
    tree = artifacts.read_json(adapter / artifacts.LINEAGE)
    del tree["adapter"]  # as an earlier version wrote it
    artifacts.write_json(adapter / artifacts.LINEAGE, tree)
    assert read_lineage(adapter) == lineage
    artifacts.write_json(adapter / artifacts.LINEAGE, {"kind": "adapter"})
    with pytest.raises(LineageError, match="expected a lineage file of this version"):
        read_lineage(adapter)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "without config.json"),
        ({"config.json": "{}"}, "cannot load a tokenizer"),
        ({"config.json": "not json"}, "cannot load a tokenizer"),
    ],
)
def test_unreadable_model_folders_say_what_is_missing(tmp_path: Path, content: dict[str, str], message: str) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=message):
        load_any(tmp_path, CPU)


def test_cut_off_weights_are_a_clear_error(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LineageError, match="changed or swapped after training"):
        load_any(base, CPU)
    (base / artifacts.LINEAGE).unlink()  # as a folder from elsewhere
    with pytest.raises(ModelError, match="cannot load a model"):
        load_any(base, CPU)


def test_another_scale_of_the_same_adapter_weights_is_another_adapter(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    config = artifacts.read_json(adapter / "adapter_config.json")
    artifacts.write_json(adapter / "adapter_config.json", {**config, "lora_alpha": 64})
    with pytest.raises(LineageError, match="changed or swapped"):
        load_any(adapter, CPU)


HASHED_RUN = """
import json, sys
from pathlib import Path
from rich.console import Console
from medjudge import artifacts
from medjudge.recipe import recipe_from_tree
from medjudge.runs.pipeline import NOT_INPUTS, run_recipe

recipe = recipe_from_tree(json.loads(sys.argv[1]))
run_dir = run_recipe(recipe, Console(quiet=True), last="merge")
hashes = {}
for stage in ("sft", "grpo", "merge"):
    outputs = artifacts.read_json(run_dir / stage / artifacts.MANIFEST)["outputs"]
    hashes |= {f"{stage}/{p}": o["sha256"] for p, o in outputs.items() if Path(p).name not in NOT_INPUTS}
    summary = artifacts.read_json(run_dir / stage / artifacts.MANIFEST)["summary"]
    hashes[stage] = summary["weights_sha256"]
print(json.dumps(hashes))
"""


def test_no_hash_of_a_run_hangs_on_the_seed_of_pythons_hashes(tmp_path: Path) -> None:
    """Adapters of both stages and both ways of naming targets, their merges and lineages, each byte of them."""
    tree = small_tree(write_rows(tmp_path / "rows.jsonl", n_variants=12), tmp_path / "runs")
    tree["model"]["base"] = str(save_base(tmp_path / "base"))
    tree["sft"] |= {"tuning": "lora", "max_steps": 1, "lora": {"r": 2}}
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"]
    tree["grpo"] |= {
        "max_steps": 1,
        "lora": {"r": 2, "target_modules": names},
        "preflight": {"prompts": 0, "max_cut_share": 1},
    }
    tree["grpo"]["rewards"] = {"accuracy": 1.0}
    hashes = []
    for seed in ("1", "2"):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", HASHED_RUN, json.dumps(tree)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        hashes.append(json.loads(done.stdout.strip().splitlines()[-1]))
    assert hashes[0] == hashes[1]
    assert {"sft/adapter/adapter_config.json", "grpo/adapter/adapter_config.json", "merge/model/lineage.json"} <= set(
        hashes[0]
    )


def rewrite_config(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def test_order_of_targets_and_who_wrote_them_make_no_other_adapter(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    targets = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    digest = weights_sha256(adapter)
    rewrite_config(adapter, target_modules=sorted(targets, reverse=True), peft_version="0.1")
    assert weights_sha256(adapter) == digest
    load_any(adapter, CPU)
    rewrite_config(adapter, target_modules=sorted(targets)[1:])
    assert weights_sha256(adapter) != digest
    with pytest.raises(LineageError, match="were changed or swapped"):
        load_any(adapter, CPU)


def test_an_adapter_of_an_earlier_version_still_loads(tmp_path: Path) -> None:
    """Its digest took the config as PEFT had written it, worked out here anew."""
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    rewrite_config(
        adapter, target_modules=["v_proj", "q_proj", "up_proj", "o_proj", "k_proj", "gate_proj", "down_proj"]
    )
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    for key in ("base_model_name_or_path", "revision", "inference_mode"):
        config.pop(key, None)
    of_config = hashlib.sha256(json.dumps(config, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
    of_weights = hashlib.sha256((adapter / "adapter_model.safetensors").read_bytes()).hexdigest()
    text = f"adapter_config.json\0{of_config}\nadapter_model.safetensors\0{of_weights}\n"
    older = hashlib.sha256(text.encode()).hexdigest()
    lineage = read_lineage(adapter)
    assert lineage is not None
    replace(lineage, weights_sha256=older).write(adapter)
    assert older != weights_sha256(adapter)
    assert load_any(adapter, CPU)[2] is not None
    assert recorded_sha256(adapter) == older
    assert print_lineage(adapter, Console(quiet=True))
    merged = merge_adapter(adapter, tmp_path / "m", CPU, stage="merge", prompts=PROMPTS, max_logit_difference=1e-3)
    assert merged.merge is not None
    assert merged.merge["adapter_sha256"] == older
    rewrite_config(adapter, lora_alpha=99)
    with pytest.raises(LineageError, match="were changed or swapped"):
        load_any(adapter, CPU)
    assert not print_lineage(adapter, Console(quiet=True))


def test_merge_that_is_not_finite_proves_nothing() -> None:
    good, bad = [torch.zeros(2, 3)], [torch.tensor([[0.0, 0.0, 0.0], [0.0, float("nan"), 0.0]])]
    assert compare_logits(good, bad)["max_logit_difference"] == float("inf")
    assert compare_logits(good, good)["max_logit_difference"] == 0.0


def test_same_weights_have_the_same_digest_wherever_they_lie(tmp_path: Path) -> None:
    a, b = save_base(tmp_path / "a"), save_base(tmp_path / "b")
    assert weights_sha256(a) == weights_sha256(b)
    assert weights_sha256(save_base(tmp_path / "c", seed=5)) != weights_sha256(a)


def test_loaded_model_stops_where_targets_end(tmp_path: Path) -> None:
    model, tokenizer, _ = load_any(save_base(tmp_path / "base"), CPU)
    assert model.generation_config.eos_token_id[0] == tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.dtype == torch.float32
