"""Which modules an adapter may go to is known before anything is trained, from the model's configuration alone."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from peft import get_peft_model
from rich.console import Console
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3MoeConfig

from medjudge.commands.plan import print_plan
from medjudge.errors import ConfigError
from medjudge.models.adapters import adapter_parameters, check_targets, lora_config, skeleton
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.runs.pipeline import run_recipe
from medjudge.settings.model import LoraSettings
from tests.models.random_models import random_model
from tests.models.small_models import save_base
from tests.small_runs import small_tree, write_rows

TIED = "tie_word_embeddings = true"
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS: dict[str, Any] = {
    "tied": LlamaConfig(**SMALL, vocab_size=96, tie_word_embeddings=True),
    "untied": LlamaConfig(**SMALL, vocab_size=96, tie_word_embeddings=False),
    "conv": GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4),
    "experts": Qwen3MoeConfig(**SMALL, vocab_size=96, moe_intermediate_size=16, num_experts=4, head_dim=8),
}


def shape(name: str, folder: Path) -> Any:
    CONFIGS[name].save_pretrained(folder)
    return skeleton(folder)


def lora(*targets: str) -> LoraSettings:
    return LoraSettings(r=4, target_modules=targets or "all-linear")


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        ("tied", "lm_head", TIED),
        ("tied", "embed_tokens", TIED),
        ("tied", "model.embed_tokens", TIED),
        ("conv", "wte", TIED),
        ("conv", "lm_head", TIED),
        ("untied", "lm_head", "the output layer of"),
        ("untied", "qproj", r"names `qproj` \(did you mean `q_proj`\?\), which is no module of .*gate_proj, k_proj"),
        ("untied", "attention", "names `attention`, which is no module"),
        ("untied", ".*_proj", "not as patterns"),
        ("conv", "q_proj", "Expected one of its linear layers: c_attn, c_fc, c_proj"),
        ("untied", "self_attn", r"is a LlamaAttention, which LoRA has no layer for.*: k_proj, o_proj, q_proj, v_proj"),
        ("untied", "input_layernorm", r"is a LlamaRMSNorm, which LoRA has no layer for.*Take it out of the list"),
        ("experts", "experts", "is a Qwen3MoeExperts, which LoRA has no layer for"),
    ],
)
def test_a_target_that_cannot_be_adapted_is_refused(tmp_path: Path, model: str, target: str, message: str) -> None:
    good = "c_attn" if model == "conv" else "q_proj"
    for targets in ((target,), (good, target)):
        with pytest.raises(ConfigError, match=re.compile(rf"`sft.lora.target_modules` .*{message}", re.DOTALL)):
            check_targets(
                shape(model, tmp_path),
                lora(*targets),
                "sft.lora.target_modules",
                name="the base",
                head_is_read_directly=True,
            )


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # PEFT on GPT-2's own kind of linear layer
@pytest.mark.parametrize(
    ("model", "targets"),
    [
        ("tied", ()),
        ("tied", ("q_proj", "v_proj")),
        ("tied", ("self_attn.q_proj",)),
        ("tied", ("model.layers.0.mlp.down_proj",)),
        ("untied", ("embed_tokens", "q_proj")),
        ("conv", ()),
        ("conv", ("c_attn",)),
        ("experts", ("q_proj", "v_proj")),
    ],
)
def test_what_is_let_through_is_what_peft_adapts(tmp_path: Path, model: str, targets: tuple[str, ...]) -> None:
    bare = shape(model, tmp_path)
    check_targets(bare, lora(*targets), "sft.lora.target_modules", name="the base", head_is_read_directly=True)
    real: Any = AutoModelForCausalLM.from_config(CONFIGS[model])
    adapted = get_peft_model(real, lora_config(lora(*targets)))
    assert adapter_parameters(bare, lora(*targets)) == adapted.get_nb_trainable_parameters()[0] > 0
    assert not [name for name, _ in bare.named_parameters() if "lora" in name]  # the skeleton is left as it was


def test_what_peft_alone_knows_is_refused_in_its_words(tmp_path: Path) -> None:
    """Its layer for experts that are one tensor takes no dropout."""
    with pytest.raises(ConfigError, match=r"`sft.lora` with target_modules all-linear is refused by PEFT.*dropout"):
        check_targets(
            shape("experts", tmp_path), lora(), "sft.lora.target_modules", name="", head_is_read_directly=True
        )


def test_an_untied_head_can_be_adapted_where_nothing_reads_its_weight_directly(tmp_path: Path) -> None:
    check_targets(shape("untied", tmp_path), lora("lm_head"), "x", name="the base", head_is_read_directly=False)


def test_parameters_by_hand(tmp_path: Path) -> None:
    """r x (in + out) for each of two layers: q_proj is 32 x 32, down_proj 48 x 32; the embedding has 96 rows of 32."""
    bare = shape("untied", tmp_path)
    assert adapter_parameters(bare, lora("q_proj", "down_proj")) == 4 * 2 * (32 + 32) + 4 * 2 * (48 + 32)
    assert adapter_parameters(bare, lora("embed_tokens")) == 4 * (96 + 32)


@pytest.mark.parametrize("value", ["q_proj", ".*proj", "ALL-LINEAR", []])
def test_a_pattern_a_bare_name_and_an_empty_list_are_refused_in_words(tmp_path: Path, value: Any) -> None:
    tree = small_tree(tmp_path / "rows.jsonl", tmp_path)
    tree["grpo"]["lora"]["target_modules"] = value
    with pytest.raises(ConfigError, match=r'`grpo.lora.target_modules`: expected a list .*\["q_proj", "v_proj"\]'):
        recipe_from_tree(tree)


def small_recipe(folder: Path, base: str, stage: str, targets: list[str]) -> Recipe:
    tree = small_tree(write_rows(folder / "rows.jsonl", n_variants=20), folder / "runs")
    tree["model"]["base"] = base
    tree["sft"] |= {"tuning": "lora", "lora": {"r": 4}}
    tree[stage]["lora"] = {"r": 4, "target_modules": targets}
    return recipe_from_tree(tree)


@pytest.mark.parametrize("stage", ["sft", "grpo"])
@pytest.mark.parametrize("base", ["builtin:scratch", "folder"])
def test_dry_run_and_run_refuse_before_the_first_stage(tmp_path: Path, base: str, stage: str) -> None:
    """A base that is built by the run, and a folder."""
    if base == "folder":
        base = str(save_base(tmp_path / "model"))
    recipe = small_recipe(tmp_path, base, stage, ["q_proj", "lm_head"])
    console = Console(file=io.StringIO(), width=200)
    message = rf"`{stage}.lora.target_modules` names `lm_head`, but .* has `{TIED}`"
    with pytest.raises(ConfigError, match=message):
        print_plan(recipe, console, first=None, last=None)
    with pytest.raises(ConfigError, match=message):
        run_recipe(recipe, console)
    assert not (recipe.run_dir / "prepare").exists()


def test_a_stage_looks_at_the_model_that_it_starts_from(tmp_path: Path) -> None:
    """Where the base was not here when the run began, its stage still refuses before it trains."""
    from medjudge.training.adapter_check import check_adapters

    folder = tmp_path / "llama"
    random_model("llama").save_pretrained(folder)
    recipe = small_recipe(tmp_path, "some-owner/some-model", "sft", ["c_attn"])
    check_adapters(recipe, recipe.stages)
    with pytest.raises(ConfigError, match=r"names `c_attn`, which is no module of some-owner/some-model"):
        check_adapters(recipe, ("sft",), skeleton(folder))
