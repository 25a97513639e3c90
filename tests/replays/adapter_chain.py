"""Broken adapter chain: an adapter trained on base + SFT, loaded on the bare base, evaluates the base.

Published: the MedMCQA structured-JSON pipeline on Qwen3-0.6B (github.com/WeiL11/LongGraph_agents, `Fine-Tune/`).
What happened: GRPO merged the SFT adapter into the base in memory and trained a second adapter on the result. PEFT
wrote the base's name into that adapter, since the merged weights had no other, and the evaluation loaded it there. With
every reward at zero the adapter was still what it began as, so the table has the same four numbers twice: base 27.5,
98.5, 95.5, 28.8 and "GRPO" 27.5, 98.5, 95.5, 28.8 (accuracy, valid JSON, schema, accuracy on schema, in %).
What stops it here: an adapter carries the sha256 of its exact parent and loads on no other weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from medjudge.inference.local import LocalEngine
from medjudge.models import lineage
from medjudge.models.lineage import Lineage, ancestry_of, describe_parent, load_any, merge_adapter, weights_sha256
from medjudge.models.load import load_tokenizer
from medjudge.records import Case
from medjudge.settings.model import ModelConfig
from medjudge.tasks.appropriateness import AppropriatenessContract
from tests.models.small_models import save_adapter, save_base
from tests.replays.common import Guard, refusal

CPU = ModelConfig(device="cpu", dtype="float32")
CONTRACT = AppropriatenessContract(form="answer_only", instructions="terse", max_completion_tokens=12)
CASES = [Case(str(i), {"condition": "pain", "variant": f"adult {i}", "procedure": f"CT {i}"}) for i in range(12)]


def published_grpo_adapter(base: Path, sft_adapter: Path, out: Path) -> None:
    """As published: merge in memory, train a new adapter (all rewards are zero, so it stays as it began), save it."""
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), sft_adapter).merge_and_unload()
    settings = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    get_peft_model(merged, settings).save_pretrained(out)


def answers(model: Any, base: Path) -> list[str]:
    tokenizer = load_tokenizer(base)
    return [completion.text for completion in LocalEngine(model, tokenizer).generate(CONTRACT, CASES)]


def equal(one: list[str], other: list[str]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


def replay(folder: Path) -> list[str]:
    base = save_base(folder / "base")
    sft_adapter = save_adapter(folder / "sft-adapter", base)
    grpo = folder / "grpo-adapter"
    published_grpo_adapter(base, sft_adapter, grpo)
    named = Path(json.loads((grpo / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"])
    published = answers(AutoPeftModelForCausalLM.from_pretrained(grpo).merge_and_unload(), base)
    bare = answers(AutoModelForCausalLM.from_pretrained(base), base)

    sft = folder / "sft"
    prompts = [AutoTokenizer.from_pretrained(base)("Is a chest radiograph right?")["input_ids"]]
    merge_adapter(sft_adapter, sft, CPU, stage="sft", prompts=prompts, max_logit_difference=1e-3)
    chain = answers(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sft), grpo), base)
    assert (named, equal(published, bare)) == (base, len(CASES)), "the published chain does not evaluate the base"
    assert equal(published, chain) < len(CASES) / 2

    with_lineage(grpo, parent=sft)
    message = refusal(load_any, grpo, CPU, parent=base)
    hashes = {weights_sha256(sft): "<sha256 of base + SFT>", weights_sha256(base): "<sha256 of base>"}
    assert all(digest in message for digest in hashes), message
    for found, shown in {**hashes, f"{folder}/": ""}.items():
        message = message.replace(found, shown)
    model, _, _ = load_any(grpo, CPU)  # on the parent that it names itself
    assert answers(model, base) == chain
    return [
        f"published | the GRPO adapter, trained on base + SFT, names {named.name!r} as its base model",
        f"published | loaded there it gives the base's answer to {equal(published, bare)} of {len(CASES)} prompts, "
        f"that of base + SFT + GRPO to {equal(published, chain)}",
        f"medjudge  | {message}",
        f"medjudge  | on its own parent: {equal(chain, chain)} of {len(CASES)} answers are those of base + SFT + GRPO",
    ]


def with_lineage(adapter: Path, parent: Path) -> None:
    """What the grpo stage writes beside its adapter."""
    Lineage(
        kind="adapter",
        stage="grpo",
        weights_sha256=weights_sha256(adapter),
        base="builtin:scratch",
        parent=describe_parent(parent, str(parent), adapter),
        ancestry=ancestry_of(parent, str(parent)),
    ).write(adapter)


def _without_lineage(patch: pytest.MonkeyPatch) -> None:
    read = lineage.read_lineage
    patch.setattr(lineage, "read_lineage", lambda folder: None if folder.name == "grpo-adapter" else read(folder))


GUARDS = (
    Guard(
        "the adapter's lineage is not read, so no parent's hash is compared", _without_lineage, "nothing was refused"
    ),
)
