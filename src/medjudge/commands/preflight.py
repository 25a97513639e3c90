"""`medjudge preflight RECIPE`: can the rewards be earned, and by the right answers only? Trains nothing.

Takes the splits of the run folder where they are those of the recipe, else makes them in memory. The policy is what
GRPO would start from; where it does not exist yet, the base stands in, or the sample is left out, and a line says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge import artifacts
from medjudge.diagnostics.checks import PolicySample
from medjudge.diagnostics.preflight import Preflight, PreflightOptions, run_preflight
from medjudge.errors import ConfigError, MedjudgeError
from medjudge.inference.loader import LoadSettings, load_on_transformers
from medjudge.models.load import load_tokenizer, quiet_libraries
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.reporting.diagnostics import print_preflight
from medjudge.runs.model_paths import base_folder, start_of, training_split
from medjudge.runs.pipeline import stage_inputs
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import training_stages
from medjudge.settings.model import SCRATCH_BASE
from medjudge.stages.prepare import prepare_splits
from medjudge.training.job import RewardedRows
from medjudge.training.policy_sample import draw_sample


def preflight(recipe: Recipe, console: Console, *, force: bool = False) -> Preflight:
    """Proves, prints, and leaves `preflight.json` in the run folder; `force` is recorded there."""
    quiet_libraries()
    if not any(stage.by_rewards for stage in training_stages(recipe.stages)):
        raise ConfigError("`stages` has no grpo: without it there is no reward to prove. Add grpo to `stages`.")
    started = time.monotonic()
    run_dir = RunDir(recipe.run_dir)
    splits = _splits(recipe, run_dir)
    if recipe.grpo.split not in splits:
        raise ConfigError(
            f"`grpo.split` is {recipe.grpo.split!r}, but the data have: {', '.join(splits)}. Name one of these."
        )
    folder, policy, is_start = _policy(recipe, run_dir)
    if folder is not None:
        artifacts.check_outputs(folder)
    tokenizer = load_tokenizer(folder, recipe.model.chat_template) if folder else _tokenizer(recipe, splits)
    rows = RewardedRows.of_split(recipe, splits[recipe.grpo.split], tokenizer)
    cases = rows.cases
    console.print(f"[bold]pre-flight[/] of {recipe.name}: {len(cases):,} rows of split {recipe.grpo.split!r}\n")
    sample: PolicySample | str = policy if folder is None else "`grpo.preflight.prompts` is 0"
    context = None
    if folder is not None and recipe.grpo.preflight.prompts:
        engine, _ = load_on_transformers(folder, LoadSettings(recipe.model))
        context = getattr(engine.model.config.get_text_config(), "max_position_embeddings", None)
        sample = draw_sample(recipe, cases, engine.model, tokenizer, policy, is_start=is_start)
    options = PreflightOptions(
        sample=sample,
        seed=recipe.seed,
        max_cut_share=recipe.grpo.preflight.max_cut_share,
        context_tokens=context,
    )
    result = run_preflight(recipe.contract, cases, tokenizer, rows.plan, options, answers=rows.answers)
    if not recipe.grpo.doctor.keep_completions:
        result = result.without_text()
    result = replace(result, seconds=round(time.monotonic() - started, 2), forced=force and not result.passed)
    print_preflight(result, console)
    with run_dir.lock():
        artifacts.write_json(run_dir.path / artifacts.PREFLIGHT, result.to_json())
    return result


def _splits(recipe: Recipe, run_dir: RunDir) -> Mapping[str, Sequence[Case]]:
    if run_dir.is_current("prepare", stage_inputs("prepare", recipe, run_dir))[0]:
        return {recipe.grpo.split: run_dir.split(recipe.grpo.split).read()}
    return prepare_splits(recipe)


def _policy(recipe: Recipe, run_dir: RunDir) -> tuple[Path | None, str, bool]:
    """(weights or None, what they are or why there are none, whether GRPO starts from them)."""
    last = "sft" if "sft" in recipe.stages else "base" if recipe.model.base == SCRATCH_BASE else None
    try:
        folder, _ = start_of("grpo", recipe, run_dir.path)
        if last is None:
            return folder, "the base model", True
        is_current = run_dir.is_current(last, stage_inputs(last, recipe, run_dir))[0]
        made = "" if is_current else ", made under other settings"
        return folder, f"the {last} model{made}", is_current
    except MedjudgeError:
        pass
    try:
        return base_folder(recipe, run_dir.path), "the base model, since sft has not run", False
    except MedjudgeError:
        return None, "neither sft nor base has run", False


def _tokenizer(recipe: Recipe, splits: Mapping[str, Sequence[Case]]) -> Any:
    """The tokenizer that the base stage will build; a base that is not at hand is an error in its own words."""
    if recipe.model.base != SCRATCH_BASE:
        return load_tokenizer(base_folder(recipe, recipe.run_dir), recipe.model.chat_template)
    from medjudge.models.scratch import build_tokenizer, format_texts, plain_texts

    split = training_split(recipe)
    train = splits[split] if split in splits else prepare_splits(recipe)[split]
    return build_tokenizer([*plain_texts(train), *format_texts(recipe.contract, train)], recipe.base.vocab_size)
