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
from medjudge.records import Case
from medjudge.rewards.composition import RewardPlan, ScoredRollout
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, encode_all, read_rollout, stop_token_ids


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


class Rewarder:
    """The plan as TRL's reward functions, one per term so that each is logged by its name.

    Each rollout is decoded and parsed by the contract and meets its own case, found by its id, never by its position in
    a batch (published failure 3). A batch is read and scored once, at the first term that TRL asks for.
    """

    def __init__(
        self,
        contract: TaskContract,
        cases: Sequence[Case],
        encoded: Sequence[Encoded],
        tokenizer: Any,
        plan: RewardPlan,
        on_scored: Callable[[list[ScoredRollout]], None] | None = None,
    ) -> None:
        """`encoded`: the cases' prompts, in their order. `on_scored` is shown each batch of scored rollouts once."""
        self.contract, self.tokenizer, self.plan, self.on_scored = contract, tokenizer, plan, on_scored
        self.by_id = {case.case_id: (case, row) for case, row in zip(cases, encoded, strict=True)}
        self.stop_ids = stop_token_ids(tokenizer)
        self.asked: object = None
        self.scored: list[ScoredRollout] = []

    def functions(self) -> list[Callable[..., list[float | None]]]:
        """One function per term, in the order of the plan's weights."""
        return [self._function(term.name) for term in self.plan.terms]

    def score(self, case_ids: Sequence[str], completion_ids: Sequence[Sequence[int]]) -> list[ScoredRollout]:
        """The rollouts of one batch, scored."""
        rollouts = []
        for case_id, ids in zip(case_ids, completion_ids, strict=True):
            case, prompt = self.by_id[case_id]
            rollouts.append(read_rollout(self.contract, case, list(ids), self.tokenizer, self.stop_ids, prompt=prompt))
        return self.plan.score(rollouts)

    def _function(self, term: str) -> Callable[..., list[float | None]]:
        def reward(
            prompts: list[str],
            completions: list[str],
            completion_ids: list[list[int]],
            case_id: list[str],
            **_: object,
        ) -> list[float | None]:
            if completion_ids is not self.asked:  # TRL hands the same list to every term of a batch
                self.asked, self.scored = completion_ids, self.score(case_id, completion_ids)
                if self.on_scored is not None:
                    self.on_scored(self.scored)
            # TRL would sum the terms that are there; a rollout without a total is to be left out instead.
            return [None if row.total is None else row.terms[term] for row in self.scored]

        reward.__name__ = term
        return reward


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
    plan: RewardPlan,
    model: Any,
    tokenizer: Any,
    config: GrpoConfig,
    model_config: ModelConfig,
    work: Path,
    *,
    seed: int,
    console: Console,
) -> tuple[Any, list[dict[str, Any]]]:
    """(trained model or PeftModel, training log). Resumes from the last whole checkpoint.

    `cases` all have the gold that the plan's rewards need.
    """
    order, steps = grpo_order(len(cases), config, seed)
    encoded = encode_all(contract, cases, tokenizer, with_target=False)
    check_context(model, max(len(row.prompt_ids) for row in encoded) + contract.max_completion_tokens)
    watch = Watch("grpo", console, ("reward", "frac_reward_zero_std", "completions/mean_length"))
    trainer_class: Callable[..., Any] = ContractGrpoTrainer
    if config.grouped:
        trainer_class = partial(ContractGroupedTrainer, on_stock=lambda line: console.print(f"  grpo: {line}"))
    trainer = trainer_class(
        model=model,
        reward_funcs=Rewarder(contract, cases, encoded, tokenizer, plan).functions(),
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
