"""`medjudge run --dry-run`: what a run would do and cost, before it does it.

Answers in a few seconds: torch is imported only where an adapter's shape or a model from the hub is asked about.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from medjudge import artifacts
from medjudge.commands.estimate import Estimate, StageWork, estimate
from medjudge.commands.model_shape import (
    ModelShape,
    base_folder,
    is_on_cpu,
    known_shape,
    memory_words,
    model_without_weights,
)
from medjudge.data.ratings import RatedView, one_view_each
from medjudge.errors import ConfigError, MedjudgeError
from medjudge.models.gguf_header import read_header
from medjudge.models.sources import local_model
from medjudge.names import TRAINING_STAGES
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.runs.pipeline import RESUMES, active_stages, resume_words, stage_inputs
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import STAGES
from medjudge.settings.model import SCRATCH_BASE
from medjudge.settings.training import GrpoConfig, SftConfig

SAMPLE = 400
"""Cases of a split whose tokens are counted."""
MAX_LABELS = 6
"""Labels of a split whose shares are shown."""
SAMPLE_OF_VARIANTS = 100
"""The same where variants read their rows in several ways: each way has its own."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a split's prompts and targets, over its first cases."""

    mean_prompt: float
    max_prompt: int
    mean_target: float
    max_target: int
    n_looked_at: int
    n_cut: int
    n_words_cut: int
    n_snippets_cut: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a recipe, read and tokenised."""

    splits: Mapping[str, Sequence[Case]]
    tokenizer: Any
    source: str
    """Where the tokenizer is from, or why there is none."""
    lengths: Mapping[str, Lengths]
    n_sample: int
    """Cases of each split that were tokenised."""


def print_plans(recipes: Iterable[Recipe], console: Console, *, first: str | None, last: str | None) -> None:
    """The plan of each recipe. Variants of one recipe that read the same rows in the same way read them once."""
    keyed = [(_reads(recipe), recipe) for recipe in recipes]
    n_sample = SAMPLE if len({key for key, _ in keyed}) < 2 else SAMPLE_OF_VARIANTS
    known: dict[str, _Rows] = {}
    for key, recipe in keyed:
        if key not in known:
            known[key] = _rows(recipe, n_sample)
        print_plan(recipe, console, first=first, last=last, rows=known[key])


def _reads(recipe: Recipe) -> str:
    """What decides how a recipe's rows are read and tokenised."""
    tree = recipe.model_dump(mode="json")
    decides = [tree[key] for key in ("task", "data", "model", "base", "stages")]
    return artifacts.sha256_json([*decides, [tree[stage]["split"] for stage in (*TRAINING_STAGES, "evaluate")]])


def _rows(recipe: Recipe, n_sample: int) -> _Rows:
    from medjudge.stages.prepare import prepare_splits

    splits = prepare_splits(recipe)
    tokenizer, source = _tokenizer(recipe, splits)
    lengths: dict[str, Lengths] = {}
    if tokenizer is not None:
        lengths = {name: _lengths(recipe, cases[:n_sample], tokenizer) for name, cases in splits.items()}
    return _Rows(splits, tokenizer, source, lengths, n_sample)


def print_plan(
    recipe: Recipe, console: Console, *, first: str | None, last: str | None, rows: _Rows | None = None
) -> None:
    """Prints rows per split, steps, tokens, parameters, memory, time, and which stages would run. Writes nothing."""
    names = active_stages(recipe, first, last)
    rows = rows or _rows(recipe, SAMPLE)
    splits, source, lengths = rows.splits, rows.source, rows.lengths
    console.print(f"[bold]{recipe.name}[/]  {recipe.description}".rstrip())
    console.print(
        f"task {recipe.task.kind}, base {recipe.model.base}, seed {recipe.seed}, run folder {recipe.run_dir}\n"
    )
    console.print(_split_table(recipe, splits, lengths))
    console.print(f"[dim]token counts: {source}, of the first {rows.n_sample} cases of each split[/]")
    if (line := _cut_line(lengths)) is not None:
        console.print(line)
    console.print()
    table, works = _training_table(recipe, rows, names)
    console.print(table)
    for line in _adapter_lines(recipe, names):
        console.print(f"[dim]{line}[/]")
    console.print()
    _print_stages(recipe, names, works, console)


def _tokenizer(recipe: Recipe, splits: Mapping[str, Sequence[Case]]) -> tuple[Any, str]:
    """(tokenizer, where it is from); a base that is still to be built gets the tokenizer that it will have."""
    if recipe.model.base == SCRATCH_BASE:
        from medjudge.models.scratch import build_tokenizer, format_texts, plain_texts
        from medjudge.runs.model_paths import training_split

        train = splits[training_split(recipe)]
        texts = [*plain_texts(train), *format_texts(recipe.contract, train)]
        return build_tokenizer(texts, recipe.base.vocab_size), "the tokenizer that the base stage builds"
    from medjudge.models.load import fit_tokenizer, load_tokenizer, quiet_libraries

    quiet_libraries()
    source = f"the tokenizer of {recipe.model.base}"
    try:
        local = local_model(recipe.model.base, recipe.model.revision)
        if local.gguf is not None and local.folder is None:  # read off the file: a plan converts nothing
            from medjudge.models.gguf import read_tokenizer

            return fit_tokenizer(read_tokenizer(read_header(local.gguf)), recipe.model.chat_template), source
        folder = local.folder if local.gguf is not None and local.folder is not None else base_folder(recipe)
        return load_tokenizer(folder, recipe.model.chat_template), source
    except MedjudgeError as error:
        return None, f"not known: {error}"


def _lengths(recipe: Recipe, cases: Sequence[Case], tokenizer: Any) -> Lengths:
    """Tokens of these cases, and what the limits take off their prompts."""
    from medjudge.tasks.encoding import encode_all

    encoded = encode_all(recipe.contract, cases, tokenizer, with_target=True)
    prompts = [len(row.prompt_ids) for row in encoded]
    targets = [len(row.completion_ids) for row in encoded if row.completion_ids]
    cut = [row for row in encoded if row.n_words_cut]
    return Lengths(
        sum(prompts) / max(1, len(prompts)),
        max(prompts, default=0),
        sum(targets) / max(1, len(targets)),
        max(targets, default=0),
        len(encoded),
        len(cut),
        sum(row.n_words_cut for row in cut),
        sum(row.n_snippets_cut for row in cut),
    )


def _shares(counts: Mapping[str, int], n: int) -> str:
    """Label and share, in the labels' order: those that occur, of many the commonest; how many labels are not named."""
    commonest = sorted((label for label in counts if counts[label]), key=lambda label: -counts[label])[:MAX_LABELS]
    shares = [f"{label} {counts[label] / n:.0%}" for label in counts if label in commonest]
    n_others = len(counts) - len(shares)
    return ", ".join([*shares, *([f"{n_others} other labels"] if n_others > 1 else [])]) or "none"


def _cut_line(lengths: Mapping[str, Lengths]) -> str | None:
    """What the limits take off the prompts of a sample of each split; None where they take off nothing."""
    n_cut = sum(split.n_cut for split in lengths.values())
    if not n_cut:
        return None
    n_looked_at = sum(split.n_looked_at for split in lengths.values())
    snippets, words = (
        sum(getattr(split, key) for split in lengths.values()) for key in ("n_snippets_cut", "n_words_cut")
    )
    evidence = f"{snippets:,} snippets of evidence, " if snippets else ""
    return f"shortened prompts: {n_cut:,} of {n_looked_at:,} looked at; {evidence}{words:,} words are not shown"


def _table(title: str, columns: Sequence[str], left: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right")
    return table


def _split_table(recipe: Recipe, splits: Mapping[str, Sequence[Case]], lengths: Mapping[str, Lengths]) -> Table:
    columns = ("split", "cases", "groups", "labels", "prompt", "target")
    table = _table("Rows, and tokens of prompts and targets (mean / longest)", columns, ("split", "labels"))
    for name, cases in splits.items():
        counts: dict[str, int] = {label: sum(c.gold == label for c in cases) for label in recipe.contract.labels}
        labels = _shares(counts, len(cases))
        prompt = target = "not known"
        if name in lengths and cases:
            split = lengths[name]
            prompt = f"{split.mean_prompt:.0f} / {split.max_prompt}"
            target = f"{split.mean_target:.0f} / {split.max_target}"
        table.add_row(name, f"{len(cases):,}", f"{len({c.group for c in cases}):,}", labels, prompt, target)
    return table


def _training_table(recipe: Recipe, rows: _Rows, names: Sequence[str]) -> tuple[Table, list[StageWork]]:
    """(the table of both trainings, what each stage computes as far as it is known)."""
    columns = (
        "stage",
        "prompts\na step",
        "completions\na step",
        "steps",
        "tokens",
        "trained\nparameters",
        "memory\nabout",
    )
    table = _table("Training", columns, ("stage",))
    shape, model, error = _sizes(recipe, rows.tokenizer, names)
    for stage in TRAINING_STAGES:
        if stage in names:
            table.add_row(stage, *_training_row(recipe, stage, rows, shape, model, error))
    works = []
    if shape is not None and rows.lengths:
        works = stage_works(recipe, rows.splits, rows.lengths, shape, names)
    return table, works


def _sizes(recipe: Recipe, tokenizer: Any, names: Sequence[str]) -> tuple[ModelShape | None, Any, str | None]:
    """(the model's shape, the model without weights where an adapter's size is read off it, why there is none)."""
    adapters = [
        config.lora
        for stage in TRAINING_STAGES
        if stage in names and (config := getattr(recipe, stage)).tuning == "lora"
    ]
    shape = known_shape(recipe, tokenizer)
    # An adapter on all linear layers fits any model; names of layers are looked for in the model itself.
    if shape is not None and (
        not adapters or (shape.linear_width and all(lora.target_modules == "all-linear" for lora in adapters))
    ):
        return shape, None, None
    model, error = model_without_weights(recipe, tokenizer)
    if model is None:
        return None, None, error
    from medjudge.training.adapter_check import check_adapters

    check_adapters(recipe, names, model)
    config = model.config.get_text_config()
    n_all = sum(p.numel() for p in model.parameters())
    return ModelShape(n_all, config.hidden_size, config.num_hidden_layers, config.vocab_size), model, error


def _training_row(
    recipe: Recipe, stage: str, rows: _Rows, shape: ModelShape | None, model: Any, error: str | None
) -> tuple[str, ...]:
    """The cells of one training, after its name."""
    config = getattr(recipe, stage)
    if config.split not in rows.splits:
        raise ConfigError(
            f"`{stage}.split` is {config.split!r}, but the data have: {', '.join(rows.splits)}. Name one of these."
        )
    cases = [c for c in rows.splits[config.split] if c.gold is not None or (c.ratings and config.ratings != "gold")]
    per_step, completions, steps = _steps(recipe, stage, cases)
    tokens = memory = "not known"
    trained = error or "not known"
    split = rows.lengths.get(config.split)
    if split is not None:
        tokens = f"{steps * completions * (split.mean_prompt + split.mean_target):,.0f}"
    if shape is not None:
        n_trained = _n_trained(config, shape, model)
        trained = (
            f"all {n_trained:,}" if n_trained == shape.n_parameters else f"{n_trained:,} of {shape.n_parameters:,}"
        )
        if split is not None:
            limit = split.max_target if stage == "sft" else recipe.contract.max_completion_tokens
            memory = memory_words(recipe, stage, shape, n_trained, split.max_prompt + limit)
    return f"{per_step:,}", f"{completions:,}", f"{steps:,}", tokens, trained, memory


def _n_trained(config: SftConfig | GrpoConfig, shape: ModelShape, model: Any) -> int:
    """Parameters that a training changes. model: without weights; None where the adapter is on all linear layers."""
    if config.tuning == "full":
        return shape.n_parameters
    if model is None:
        return config.lora.r * shape.linear_width
    from medjudge.models.adapters import adapter_parameters

    return adapter_parameters(model, config.lora)


def _steps(recipe: Recipe, stage: str, cases: Sequence[Case]) -> tuple[int, int, int]:
    """(prompts a step, completions a step, steps) of a training."""
    from medjudge.training.order import grpo_order, n_steps

    if stage == "sft":
        views = one_view_each(cases) if recipe.sft.ratings == "each" else [RatedView(c, c.case_id, 1) for c in cases]
        rows = sum(view.n for view in views)
        if recipe.sft.class_balance == "oversample":
            counts: Counter[str | None] = Counter()
            for view in views:
                counts[view.case.gold] += view.n
            rows = len(counts) * max(counts.values(), default=0)
        per_step = recipe.sft.completions_per_step
        return per_step, per_step, n_steps(rows, recipe.sft.epochs, per_step, recipe.sft.max_steps)
    per_step, completions = recipe.grpo.prompts_per_step, recipe.grpo.completions_per_step
    if recipe.grpo.algorithm == "all_action":  # which reads each prompt once, labels included
        completions = per_step
    n_cases = min(len(cases), recipe.grpo.max_cases or len(cases))
    return per_step, completions, grpo_order(n_cases, recipe.grpo, recipe.seed)[1] if n_cases else 0


def stage_works(
    recipe: Recipe,
    splits: Mapping[str, Sequence[Case]],
    lengths: Mapping[str, Lengths],
    shape: ModelShape,
    names: Sequence[str],
) -> list[StageWork]:
    """What the stages compute: tokens that are trained on, read, and written. Of prompts that are known only."""
    limit = recipe.contract.max_completion_tokens
    n_cases = sum(len(cases) for cases in splits.values())
    works = []
    for name in names:
        work = StageWork(name, shape.n_parameters, shape.n_layers, n_cases=n_cases, limit=limit)
        if name == "base":
            work = _base_work(work, recipe, splits, lengths)
        elif name in ("sft", "grpo"):
            work = _training_work(work, recipe, splits, lengths)
        elif name == "evaluate" and recipe.evaluate.split in lengths:
            work = _evaluation_work(work, recipe, splits, lengths)
        works.append(work)
    return works


def _base_work(
    work: StageWork, recipe: Recipe, splits: Mapping[str, Sequence[Case]], lengths: Mapping[str, Lengths]
) -> StageWork:
    from medjudge.runs.model_paths import training_split

    name = training_split(recipe)
    tokens = len(splits[name]) * recipe.base.epochs
    if recipe.base.max_steps >= 0:
        tokens = recipe.base.max_steps * recipe.base.batch_size
    return replace(work, trained=tokens * (lengths[name].mean_prompt + lengths[name].mean_target))


def _training_work(
    work: StageWork, recipe: Recipe, splits: Mapping[str, Sequence[Case]], lengths: Mapping[str, Lengths]
) -> StageWork:
    config = recipe.sft if work.name == "sft" else recipe.grpo
    split = lengths[config.split]
    per_step, completions, steps = _steps(recipe, work.name, [c for c in splits[config.split] if c.gold is not None])
    if work.name == "sft" or recipe.grpo.algorithm == "all_action":
        return replace(work, trained=steps * completions * (split.mean_prompt + split.mean_target))
    # A prompt is computed once for its group. Answers are as long as targets once SFT has taught them, longer before.
    prompts, written = steps * per_step * split.mean_prompt, steps * completions * split.mean_target
    written_most = steps * completions * (split.mean_target + work.limit) / 2
    return replace(
        work,
        trained=prompts + written,
        trained_most=prompts + written_most,
        read=prompts,
        written=written,
        written_most=written_most,
        n_writings=steps,
    )


def _evaluation_work(
    work: StageWork, recipe: Recipe, splits: Mapping[str, Sequence[Case]], lengths: Mapping[str, Lengths]
) -> StageWork:
    config, split = recipe.evaluate, lengths[recipe.evaluate.split]
    n_cases = min(len(splits[config.split]), config.max_cases or len(splits[config.split]))
    n_trained = sum(name in recipe.stages for name in config.models if name != "base")
    n = n_cases * (n_trained + ("base" in config.models))
    writes = config.mode == "generate"
    per_batch = max(1.0, config.batch_tokens / (split.mean_prompt + work.limit))
    return replace(
        work,
        read=n * split.mean_prompt,
        written=n * split.mean_target * writes,
        # A base that was not taught the format may write to the limit.
        written_most=(n_cases * n_trained * split.mean_target + (n - n_cases * n_trained) * work.limit) * writes,
        n_writings=math.ceil(n / per_batch) * writes,
    )


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


def _print_stages(recipe: Recipe, names: Sequence[str], works: Sequence[StageWork], console: Console) -> None:
    """What each stage would do, how long that takes, and why."""
    table = Table(
        title="Stages", title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False
    )
    run_dir = RunDir(recipe.run_dir)
    reasons: list[str] = []
    running: list[str] = []
    verdicts: dict[str, str] = {}
    for name in names:
        try:
            current, why = run_dir.is_current(name, stage_inputs(name, recipe, run_dir)) if not running else (False, "")
        except ConfigError as error:
            current, why = False, str(error)
        verdicts[name] = "[dim]skip[/]" if current else "run"
        if not current:
            running.append(name)
            why = resume_words(run_dir.work(name), _last_marked(run_dir.work(name))) if why == RESUMES else why
            reasons += [f"{name}: {why}"] if why else []
    times = estimate([work for work in works if work.name in running], recipe) if works and is_on_cpu(recipe) else None
    for name in names:
        table.add_row(name, verdicts[name], times.of(name) if times and name in running else "", STAGES[name].title)
    console.print(table)
    for reason in reasons:
        console.print(f"[dim]{reason}[/]")
    _print_time(times, running, names, recipe, console)


def _print_time(
    times: Estimate | None, running: Sequence[str], names: Sequence[str], recipe: Recipe, console: Console
) -> None:
    console.print()
    if not running:
        console.print(f"Nothing to do: all of it is made. `medjudge report {recipe.run_dir}` shows it again.")
    elif times is not None:
        console.print(times.sentence)
    else:
        why = "measured for CPUs only" if not is_on_cpu(recipe) else "the base is not at hand"
        console.print(f"time: not estimated ({why}); while a stage runs, its line of progress says what is left.")


def _last_marked(work: Path) -> Path | None:
    """The last checkpoint that is marked as whole; nothing is removed."""
    marked = [
        path.parent for path in (work / artifacts.CHECKPOINTS).glob(f"checkpoint-*/{artifacts.CHECKPOINT_COMPLETE}")
    ]
    return max(marked, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
