"""`builtin:scratch`: a Qwen3-shaped model with its own byte-level BPE, built from nothing on the training text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, Qwen3ForCausalLM, Trainer, set_seed

from medjudge import artifacts
from medjudge.errors import DataError
from medjudge.models.load import fit_stop_tokens
from medjudge.models.scratch import END_OF_TEXT, shape_of
from medjudge.settings.model import ModelConfig
from medjudge.settings.training import BaseConfig
from medjudge.training.order import length_grouped_order, n_epochs, n_steps
from medjudge.training.progress_callback import Watch, clean_history
from medjudge.training.totals import Totals
from medjudge.training.trl_arguments import base_arguments


def build_model(config: BaseConfig, tokenizer: Any, seed: int) -> Any:
    """A Qwen3-shaped model with random weights, tied embeddings, float32."""
    set_seed(seed)
    shape = shape_of(config, len(tokenizer))
    shape.eos_token_id, shape.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = Qwen3ForCausalLM(shape)
    fit_stop_tokens(model, tokenizer)
    return model


def train_language_model(
    texts: Sequence[str],
    model: Any,
    tokenizer: Any,
    config: BaseConfig,
    model_config: ModelConfig,
    work: Path,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Trains `model` in place on plain text, every token carrying loss. Returns the training log.

    Resumes from the last whole checkpoint in `work`.
    """
    pieces = [
        ids[start : start + config.max_tokens]
        for ids in tokenizer([text + END_OF_TEXT for text in texts], add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), config.max_tokens)
    ]
    if not pieces:
        raise DataError(
            "the training split has no text to build `builtin:scratch` from, expected its questions. Check "
            "`[data.fields]`, "
            "or set `model.base` to another model."
        )
    epochs = n_epochs(len(pieces), config.epochs, config.batch_size, config.max_steps)
    order = length_grouped_order([len(ids) for ids in pieces], epochs, config.batch_size, seed)
    steps = n_steps(len(pieces), config.epochs, config.batch_size, config.max_steps)
    checkpoint = artifacts.latest_checkpoint(work)
    watch, totals = Watch("base", ("loss",)), Totals(checkpoint)
    trainer = Trainer(
        model=model,
        args=base_arguments(config, model_config, work, steps=steps, seed=seed),
        train_dataset=Dataset.from_dict({"input_ids": [pieces[i] for i in order]}),
        data_collator=_causal_collator(tokenizer),
        callbacks=[totals, watch],
    )
    totals.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        watch.close()
    return clean_history(trainer.state.log_history)


def _causal_collator(tokenizer: Any) -> Any:
    def collator(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        # Padding on the right: with it on the left, positions would start in the pads during training only.
        width = max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        labels = torch.full((len(rows), width), -100)
        for i, row in enumerate(rows):
            ids = torch.tensor(row["input_ids"])
            input_ids[i, : len(ids)] = ids
            labels[i, : len(ids)] = ids
        return {"input_ids": input_ids, "attention_mask": (labels != -100).long(), "labels": labels}

    return collator
