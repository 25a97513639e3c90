"""GRPO through TRL's GRPOTrainer, on the contract's prompts, with rewards that are handed the case itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from transformers import PrinterCallback
from trl import GRPOTrainer

from medjudge import artifacts
from medjudge.config import GrpoConfig, ModelConfig
from medjudge.errors import ModelError
from medjudge.modeling.arguments import epoch_order, grpo_arguments, n_steps
from medjudge.modeling.grouped import GroupedGrpoTrainer
from medjudge.modeling.load import check_context
from medjudge.modeling.progress import Watch, clean_history
from medjudge.modeling.sft import lora_config
from medjudge.records import Case, Judgement
from medjudge.rewards.rules import REWARDS
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import decode, encode_all, stop_token_ids


class ContractGrpoTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL ships no types
    """TRL's trainer, sampling from the very prompt tokens that SFT trained on and evaluation uses."""

    prompt_ids_by_text: Mapping[str, list[int]]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int] | None], None, dict[str, Any]]:
        ids = [self.prompt_ids_by_text.get(text) for text in prompts]
        if None in ids:  # a KeyError would carry the prompt into the log
            raise ModelError("the trainer asks for a prompt that the contract did not render. Run again with --fresh.")
        return ids, None, {}


class ContractGroupedTrainer(GroupedGrpoTrainer, ContractGrpoTrainer):
    """The same with each prompt read once per group."""


def reward_functions(
    contract: TaskContract, cases: Sequence[Case], names: Sequence[str], tokenizer: Any
) -> list[Callable[..., list[float | None]]]:
    """One TRL reward function per component; each rollout is decoded and parsed by the contract and meets its own case.

    The case is found by its id, never by its position in a batch (published failure 3).
    """
    by_id = {case.case_id: case for case in cases}
    stop_ids = stop_token_ids(tokenizer)

    def judge(case_id: str, completion_ids: Sequence[int]) -> Judgement:
        return contract.parse(case_id, decode(tokenizer, list(completion_ids), stop_ids))

    def component(name: str) -> Callable[..., list[float | None]]:
        def reward(
            prompts: list[str],
            completions: list[str],
            completion_ids: list[list[int]],
            case_id: list[str],
            **_: object,
        ) -> list[float | None]:
            return [
                REWARDS[name].function(judge(one_id, ids), by_id[one_id])
                for one_id, ids in zip(case_id, completion_ids, strict=True)
            ]

        reward.__name__ = name
        return reward

    return [component(name) for name in names]


def grpo_order(n_cases: int, config: GrpoConfig, seed: int) -> tuple[list[int], int]:
    """(case numbers in the order of training, optimiser steps).

    A batch of prompts is used for `num_iterations` optimiser steps, so each prompt counts as often.
    """
    per_batch, reuse = config.prompts_per_step, config.num_iterations
    if config.max_steps >= 0:
        n_batches, steps = math.ceil(config.max_steps / reuse), config.max_steps
    else:
        n_batches = n_steps(n_cases, config.epochs, per_batch, -1, drop_last=True)
        steps = n_batches * reuse
    return epoch_order(n_cases, n_batches * per_batch / n_cases, seed), steps


def train_grpo(
    contract: TaskContract,
    cases: Sequence[Case],
    model: Any,
    tokenizer: Any,
    config: GrpoConfig,
    model_config: ModelConfig,
    work: Path,
    *,
    seed: int,
    console: Console,
) -> tuple[Any, list[dict[str, Any]]]:
    """(trained model or PeftModel, training log). `cases` all have gold. Resumes from the last whole checkpoint."""
    order, steps = grpo_order(len(cases), config, seed)
    encoded = encode_all(contract, cases, tokenizer, with_target=False)
    check_context(model, max(len(row.prompt_ids) for row in encoded) + contract.max_completion_tokens)
    watch = Watch("grpo", console, ("reward", "frac_reward_zero_std", "completions/mean_length"))
    trainer_class: Callable[..., Any] = ContractGrpoTrainer
    if config.grouped:
        trainer_class = partial(ContractGroupedTrainer, on_stock=lambda line: console.print(f"  grpo: {line}"))
    trainer = trainer_class(
        model=model,
        reward_funcs=reward_functions(contract, cases, list(config.rewards), tokenizer),
        args=grpo_arguments(
            config, model_config, work, max_tokens=contract.max_completion_tokens, steps=steps, seed=seed
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": encoded[i].prompt_text, "case_id": cases[i].case_id} for i in order]
        ),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora) if config.tuning == "lora" else None,
        callbacks=[watch],
    )
    trainer.prompt_ids_by_text = {row.prompt_text: row.prompt_ids for row in encoded}
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train(resume_from_checkpoint=artifacts.latest_checkpoint(work))
    finally:
        watch.close()
    return trainer.model, clean_history(trainer.state.log_history)
