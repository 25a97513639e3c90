"""Supervised fine-tuning through TRL's SFTTrainer, on rows that the contract rendered and tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from rich.console import Console
from transformers import PrinterCallback
from trl import SFTTrainer

from medjudge import artifacts
from medjudge.data.splits import seeded_sample
from medjudge.errors import DataError
from medjudge.models.adapters import lora_config
from medjudge.models.load import check_context
from medjudge.records import Case
from medjudge.settings.model import ModelConfig
from medjudge.settings.training import SftConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import encode_all
from medjudge.training.order import length_grouped_order, n_epochs, n_steps
from medjudge.training.progress_callback import Watch, clean_history
from medjudge.training.totals import Totals
from medjudge.training.trl_adapter import head_on_labels_only
from medjudge.training.trl_arguments import sft_arguments

EVAL_CASES = 256
"""Validation cases whose loss is watched, drawn by the seed."""


def tokenised_rows(contract: TaskContract, cases: Sequence[Case], tokenizer: Any) -> list[dict[str, list[int]]]:
    """`input_ids` and `labels` (-100 on the prompt) of each case with a gold label."""
    rated = [case for case in cases if case.gold is not None]
    rows = []
    for encoded in encode_all(contract, rated, tokenizer, with_target=True):
        completion_ids = encoded.completion_ids or []
        labels = [-100] * len(encoded.prompt_ids) + completion_ids
        rows.append({"input_ids": [*encoded.prompt_ids, *completion_ids], "labels": labels})
    return rows


def oversampled(cases: Sequence[Case], seed: int) -> list[Case]:
    """The cases with gold, those of rarer labels repeated (whole rounds, then a seeded draw) to equal counts."""
    rng = np.random.default_rng([seed, 2])
    by_label: dict[str, list[Case]] = {}
    for case in cases:
        if case.gold is not None:
            by_label.setdefault(case.gold, []).append(case)
    most = max((len(group) for group in by_label.values()), default=0)
    chosen: list[Case] = []
    for group in by_label.values():
        rounds, rest = divmod(most, len(group))
        chosen += group * rounds + [group[i] for i in sorted(rng.choice(len(group), rest, replace=False))]
    return chosen


def train_sft(
    contract: TaskContract,
    train: Sequence[Case],
    validation: Sequence[Case],
    model: Any,
    tokenizer: Any,
    config: SftConfig,
    model_config: ModelConfig,
    work: Path,
    *,
    seed: int,
    console: Console,
) -> tuple[Any, list[dict[str, Any]]]:
    """(trained model or PeftModel, training log). Resumes from the last whole checkpoint in `work`."""
    if config.class_balance == "oversample":
        train = oversampled(train, seed)
    rows = tokenised_rows(contract, train, tokenizer)
    if not rows:
        raise DataError(f"split {config.split!r} has no case with a gold label: SFT has nothing to learn from.")
    check_context(model, max(len(row["input_ids"]) for row in rows))
    epochs = n_epochs(len(rows), config.epochs, config.completions_per_step, config.max_steps)
    order = length_grouped_order([len(row["input_ids"]) for row in rows], epochs, config.micro_batch, seed)
    steps = n_steps(len(rows), config.epochs, config.completions_per_step, config.max_steps)
    held_out = tokenised_rows(contract, seeded_sample(validation, EVAL_CASES, seed), tokenizer)
    eval_steps = max(1, steps // max(1, min(10, round(epochs)))) if held_out else None
    checkpoint = artifacts.latest_checkpoint(work)
    watch, totals = Watch("sft", console, ("loss", "eval_loss")), Totals(checkpoint)
    trainer = SFTTrainer(
        model=model,
        args=sft_arguments(config, model_config, work, steps=steps, eval_steps=eval_steps, seed=seed),
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        processing_class=tokenizer,
        peft_config=lora_config(config.lora) if config.tuning == "lora" else None,
        callbacks=[totals, watch],
    )
    totals.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    try:
        with head_on_labels_only():
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        watch.close()
    return trainer.model, clean_history(trainer.state.log_history)
