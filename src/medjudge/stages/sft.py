"""Teach the base model the task and the answer format: `medjudge run RECIPE --from sft --until sft`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from medjudge import artifacts
from medjudge.data.store import read_split
from medjudge.diagnostics.preflight import as_taught, check_gold, require_earnable
from medjudge.models.adapters import skeleton
from medjudge.models.lineage import Lineage
from medjudge.models.load import count_parameters, load_tokenizer, load_weights, quiet_libraries
from medjudge.models.merge_proof import proof_sentences
from medjudge.recipe import Recipe
from medjudge.runs.model_paths import start_of
from medjudge.runs.run_dir import RunDir
from medjudge.training.adapter_check import check_adapters
from medjudge.training.save import proof_prompts, save_trained
from medjudge.training.sft import train_sft


def run(recipe: Recipe, out_dir: Path, run_dir: Path, console: Console) -> dict[str, Any]:
    """Fine-tunes on the experts' answers. Writes `model/` (whole weights), with LoRA also `adapter/`, and the log."""
    quiet_libraries()
    train = read_split(run_dir / "prepare" / f"{recipe.sft.split}{artifacts.SPLIT_SUFFIX}")
    validation_path = run_dir / "prepare" / f"validation{artifacts.SPLIT_SUFFIX}"
    validation = read_split(validation_path) if validation_path.exists() else ()
    start, name = start_of("sft", recipe, run_dir)
    tokenizer = load_tokenizer(start, recipe.model.chat_template)
    rated = [case for case in train if case.gold is not None]
    taught = as_taught(recipe.contract, rated, tokenizer)
    preflight = check_gold(recipe.contract, taught, tokenizer, recipe.reward_plan(taught))
    if "grpo" in recipe.stages:  # what no answer can earn is better known before SFT than after it
        require_earnable(replace(preflight, forced=RunDir(run_dir).allows_failed_preflight))
    if line := preflight.shortened_line(recipe.contract.max_prompt_tokens):
        console.print(f"          {line}")
    is_lora = recipe.sft.tuning == "lora"
    if is_lora:
        check_adapters(recipe, ("sft",), skeleton(start))
    model = load_weights(start, recipe.model, tokenizer, quantize=is_lora, train_all=not is_lora)
    model, history = train_sft(
        recipe.contract,
        train,
        validation,
        model,
        tokenizer,
        recipe.sft,
        recipe.model,
        out_dir,
        seed=recipe.seed,
        console=console,
    )
    trainable, total = count_parameters(model)
    lineage: Lineage = save_trained(
        "sft",
        model,
        tokenizer,
        recipe,
        start,
        name,
        out_dir,
        run_dir,
        merge_now=True,
        prompts=proof_prompts(recipe, train, tokenizer),
    )
    for sentence in proof_sentences(lineage.merge or {}):
        console.print(f"          {escape(sentence)}")
    artifacts.write_json(out_dir / artifacts.HISTORY, history)
    return {
        "n_cases": len(rated),
        "n_prompts_shortened": preflight.n_prompts_cut,
        "n_words_cut": preflight.n_words_cut,
        "n_snippets_cut": preflight.n_snippets_cut,
        "trainable_parameters": trainable,
        "parameters": total,
        "weights_sha256": lineage.weights_sha256,
        "parent_sha256": lineage.parent.weights_sha256 if lineage.parent else None,
        "merge": dict(lineage.merge) if lineage.merge else None,
    }
