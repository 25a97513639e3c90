"""`medjudge run --dry-run`: what a run would do and cost, before it does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from medjudge import artifacts
from medjudge.config import SCRATCH_BASE, LoraSettings, Recipe
from medjudge.errors import ConfigError, MedjudgeError
from medjudge.pipeline import STAGES, active_stages, stage_inputs
from medjudge.records import Case

SAMPLE = 400
"""Cases of a split whose tokens are counted."""


def print_plan(recipe: Recipe, console: Console, *, first: str | None, last: str | None) -> None:
    """Prints rows per split, steps, tokens, parameters, memory, and which stages would run. Writes nothing."""
    from medjudge.modeling.load import quiet_libraries
    from medjudge.stages.prepare import prepare_splits

    quiet_libraries()
    names = active_stages(recipe, first, last)
    splits: Mapping[str, Sequence[Case]] = prepare_splits(recipe)
    tokenizer, source = _tokenizer(recipe, splits)
    console.print(f"[bold]{recipe.name}[/]  {recipe.description}".rstrip())
    console.print(
        f"task {recipe.task.kind}  base {recipe.model.base}  seed {recipe.seed}  run folder {recipe.run_dir}\n"
    )
    console.print(_split_table(recipe, splits, tokenizer))
    console.print(f"[dim]token counts: {source}[/]")
    if tokenizer is not None and (line := _cut_line(recipe, splits, tokenizer)) is not None:
        console.print(line)
    console.print()
    console.print(_training_table(recipe, splits, tokenizer, names))
    for line in _adapter_lines(recipe, names):
        console.print(f"[dim]{line}[/]")
    console.print()
    console.print(_stage_table(recipe, names))


def _tokenizer(recipe: Recipe, splits: Mapping[str, Sequence[Case]]) -> tuple[Any, str]:
    """(tokenizer, where it is from); a base that is still to be built gets the tokenizer that it will have."""
    from medjudge.modeling.load import load_tokenizer, resolve

    if recipe.model.base != SCRATCH_BASE:
        try:
            folder = resolve(recipe.model.base, recipe.model.revision)
        except MedjudgeError as error:
            return None, f"not known: {error}"
        return load_tokenizer(folder, recipe.model.chat_template), f"the tokenizer of {recipe.model.base}"
    from medjudge.modeling.chain import training_split
    from medjudge.modeling.tiny import build_tokenizer
    from medjudge.stages.base import format_texts, plain_texts

    train = splits[training_split(recipe)]
    texts = [*plain_texts(train), *format_texts(recipe.contract, train)]
    return build_tokenizer(texts, recipe.base.vocab_size), "the tokenizer that the base stage builds from these rows"


def _lengths(recipe: Recipe, cases: Sequence[Case], tokenizer: Any) -> tuple[float, int, float, int]:
    """(mean prompt, longest prompt, mean target, longest target) in tokens, over the first `SAMPLE` cases."""
    from medjudge.tasks.encoding import encode_all

    encoded = encode_all(recipe.contract, cases[:SAMPLE], tokenizer, with_target=True)
    prompts = [len(e.prompt_ids) for e in encoded]
    targets = [len(e.completion_ids) for e in encoded if e.completion_ids]
    return (
        sum(prompts) / len(prompts),
        max(prompts),
        sum(targets) / len(targets) if targets else 0.0,
        max(targets, default=0),
    )


def _cut_line(recipe: Recipe, splits: Mapping[str, Sequence[Case]], tokenizer: Any) -> str | None:
    """What the limits take off the prompts of a sample of each split; None where they take off nothing."""
    from medjudge.tasks.encoding import encode_all

    cases = [case for split in splits.values() for case in split[:SAMPLE]]
    encoded = encode_all(recipe.contract, cases, tokenizer, with_target=False)
    cut = [row for row in encoded if row.n_words_cut]
    if not cut:
        return None
    snippets, words = sum(row.n_snippets_cut for row in cut), sum(row.n_words_cut for row in cut)
    evidence = f"{snippets:,} snippets of evidence, " if snippets else ""
    return f"shortened prompts: {len(cut):,} of {len(cases):,} looked at; {evidence}{words:,} words are not shown"


def _split_table(recipe: Recipe, splits: Mapping[str, Sequence[Case]], tokenizer: Any) -> Table:
    table = Table(title="Rows", title_justify="left", box=None, padding=(0, 2))
    for column in ("split", "cases", "groups", "labels", "prompt tokens (mean/max)", "target tokens (mean/max)"):
        table.add_column(column, justify="left" if column in ("split", "labels") else "right")
    for name, cases in splits.items():
        counts: dict[str, int] = {label: sum(c.gold == label for c in cases) for label in recipe.contract.labels}
        labels = "  ".join(f"{label} {count / max(1, len(cases)):.0%}" for label, count in counts.items())
        prompt = target = "not known"
        if tokenizer is not None and cases:
            mean_prompt, max_prompt, mean_target, max_target = _lengths(recipe, cases, tokenizer)
            prompt, target = f"{mean_prompt:.0f} / {max_prompt}", f"{mean_target:.0f} / {max_target}"
        table.add_row(name, f"{len(cases):,}", f"{len({c.group for c in cases}):,}", labels, prompt, target)
    return table


def _training_table(
    recipe: Recipe, splits: Mapping[str, Sequence[Case]], tokenizer: Any, names: Sequence[str]
) -> Table:
    from medjudge.modeling.arguments import n_steps
    from medjudge.modeling.grpo import grpo_order

    table = Table(title="Training", title_justify="left", box=None, padding=(0, 2))
    for column in ("stage", "prompts/step", "completions/step", "steps", "tokens", "trainable", "memory"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    model, error = _meta_model(recipe, tokenizer)
    for stage in ("sft", "grpo"):
        if stage not in names:
            continue
        config = recipe.sft if stage == "sft" else recipe.grpo
        if config.split not in splits:
            raise ConfigError(f"`{stage}.split` is {config.split!r}, but the data have: {', '.join(splits)}.")
        cases = [c for c in splits[config.split] if c.gold is not None]
        if stage == "sft":
            per_step = completions = recipe.sft.completions_per_step
            rows = len(cases)
            if recipe.sft.class_balance == "oversample":
                counts = Counter(c.gold for c in cases)
                rows = len(counts) * max(counts.values())
            steps = n_steps(rows, recipe.sft.epochs, per_step, recipe.sft.max_steps)
        else:
            per_step, completions = recipe.grpo.prompts_per_step, recipe.grpo.completions_per_step
            if recipe.grpo.algorithm == "all_action":  # which reads each prompt once, labels included
                completions = per_step
            n_cases = min(len(cases), recipe.grpo.max_cases or len(cases))
            steps = grpo_order(n_cases, recipe.grpo, recipe.seed)[1]
        tokens = memory = "not known"
        width = 0.0
        if tokenizer is not None:
            mean_prompt, max_prompt, mean_target, max_target = _lengths(recipe, cases, tokenizer)
            limit = max_target if stage == "sft" else recipe.contract.max_completion_tokens
            tokens = f"{steps * completions * (mean_prompt + mean_target):,.0f}"
            width = max_prompt + limit
        trainable = error or "not known"
        if model is not None:
            n_all = sum(p.numel() for p in model.parameters())
            n_trainable = n_all if config.tuning == "full" else _lora_parameters(model, config.lora)
            trainable = f"{n_trainable:,} of {n_all:,}"
            if width:
                has_reference = (
                    stage == "grpo"
                    and config.tuning == "full"
                    and recipe.grpo.kl_coef > 0
                    and recipe.grpo.algorithm == "grpo"
                )
                memory = _memory(model, n_all, n_trainable, config.micro_batch, width, recipe, has_reference)
        table.add_row(stage, f"{per_step:,}", f"{completions:,}", f"{steps:,}", tokens, trainable, memory)
    return table


def _adapter_lines(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """What each adapter's rank comes to: a sweep over r at fixed alpha may sweep the learning rate too."""
    lines = []
    for stage in ("sft", "grpo"):
        config = getattr(recipe, stage)
        if stage in names and config.tuning == "lora":
            step, root = config.lora.step(config.learning_rate), "sqrt(r)" if config.lora.rslora else "r"
            lines.append(
                f"{stage} adapter: rank {step.r}, scale {step.scale:.3g} (alpha / {root}), "
                f"step {step.size:.3g} (learning rate x scale x rank)"
            )
    return lines


def _meta_model(recipe: Recipe, tokenizer: Any) -> tuple[Any, str | None]:
    """(the model without weights, why not)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from medjudge.modeling.load import refuse_own_code, resolve

    with torch.device("meta"):
        if recipe.model.base == SCRATCH_BASE:
            from medjudge.modeling.tiny import build_model

            return build_model(recipe.base, tokenizer, recipe.seed), None
        try:
            folder = resolve(recipe.model.base, recipe.model.revision)
        except MedjudgeError:
            return None, "base not at hand"
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError) as error:
            refuse_own_code(folder, error)
            return None, "base not at hand"
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False), None


def _lora_parameters(model: Any, lora: LoraSettings) -> int:
    """r x (in + out) for every adapted linear layer."""
    import torch

    head = model.get_output_embeddings()
    total = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head:
            wanted = lora.target_modules == "all-linear" or name.rpartition(".")[2] in lora.target_modules
            total += lora.r * (module.in_features + module.out_features) if wanted else 0
    return total


def _memory(
    model: Any, n_all: int, n_trainable: int, rows: int, width: float, recipe: Recipe, has_reference: bool
) -> str:
    """Weights, gradients, AdamW states and activations of one micro-batch: a planning figure, not a measurement.

    Activations per layer and token: about 34 hidden sizes of 2 bytes without checkpointing (Korthikanti et al. 2022,
    arXiv:2205.05198, table 2, the part that is linear in length), 2 hidden sizes with it; logits are chunked by TRL.
    """
    config = model.config
    bytes_each = 4 if recipe.model.dtype in ("auto", "float32") and _on_cpu(recipe) else 2
    quantised = {"none": bytes_each, "8bit": 1, "4bit": 0.55}[recipe.model.quantization]
    weights = n_all * (quantised if n_trainable < n_all else bytes_each) * (2 if has_reference else 1)
    states = n_trainable * (bytes_each + 8)
    per_token = (4 if recipe.model.gradient_checkpointing else 17 * bytes_each) * config.hidden_size
    activations = (
        rows * width * per_token * config.num_hidden_layers + rows * width * config.vocab_size * bytes_each * 0.1
    )
    return f"about {(weights + states + activations) / 2**30:.1f} GiB"


def _on_cpu(recipe: Recipe) -> bool:
    from medjudge.modeling.load import pick_device

    return pick_device(recipe.model.device).type == "cpu"


def _stage_table(recipe: Recipe, names: Sequence[str]) -> Table:
    table = Table(title="Stages", title_justify="left", box=None, padding=(0, 2), show_header=False)
    run_dir = artifacts.RunDir(recipe.run_dir)
    stale = False
    for name in names:
        try:
            current, why = run_dir.is_current(name, stage_inputs(name, recipe, run_dir)) if not stale else (False, "")
        except ConfigError:
            current, why = False, ""
        stale = stale or not current
        verdict = "[dim]skip[/]" if current else "run"
        table.add_row(name, verdict, f"[dim]{why or 'an earlier stage runs'}[/]", STAGES[name].title)
    return table
