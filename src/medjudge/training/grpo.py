"""GRPO through TRL's GRPOTrainer, on the contract's prompts, with rewards that are handed the case itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback

from medjudge import artifacts
from medjudge.diagnostics.checks import observed
from medjudge.diagnostics.diagnose import RewardShape
from medjudge.diagnostics.preflight import term_maxima
from medjudge.models.adapters import lora_config
from medjudge.models.load import check_context
from medjudge.records import Case
from medjudge.rewards.composition import RewardPlan, ScoredRollout
from medjudge.settings.training import GrpoConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, read_rollout
from medjudge.tasks.tokenizers import stop_token_ids
from medjudge.training.doctor_callback import DoctorWatch
from medjudge.training.group_resampling import Resampler, by_difficulty
from medjudge.training.grouped import GroupedGrpoTrainer
from medjudge.training.job import Beside, RewardedRows, Trained, TrainingJob
from medjudge.training.order import grpo_order, twins_together
from medjudge.training.progress_callback import Watch, clean_history
from medjudge.training.totals import JudgeCounts, Totals
from medjudge.training.trl_adapter import ContractGrpoTrainer
from medjudge.training.trl_arguments import grpo_arguments

log = logging.getLogger(__name__)


class ContractGroupedTrainer(GroupedGrpoTrainer, ContractGrpoTrainer):
    """TRL's trainer with our prompts, each read once per group."""


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
                # Compared by identity: two batches may hold equal completions, and their cases would differ.
                self.asked, self.scored = completion_ids, self.score(case_id, completion_ids)
                if self.on_scored is not None:
                    self.on_scored(self.scored)
            # TRL would sum the terms that are there; a rollout without a total is to be left out instead.
            return [None if row.total is None else row.terms[term] for row in self.scored]

        # TRL logs a reward by the name of its function.
        reward.__name__ = term
        return reward


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def train_grpo(job: TrainingJob, config: GrpoConfig, rows: RewardedRows, beside: Beside) -> Trained:
    """Trains while the doctor watches. Resumes from the last whole checkpoint of the job."""
    order, steps = _order(config, rows, beside, job.seed)
    # Before the trainer is made: a prompt that cannot fit stops here and not in the first long step.
    longest = max(len(row.prompt_ids) for row in rows.encoded)
    check_context(job.model, longest + job.contract.max_completion_tokens)
    checkpoint = artifacts.latest_checkpoint(job.work)
    shape = RewardShape(term_maxima(rows.plan), len(job.contract.labels))
    doctor = DoctorWatch(shape, config.doctor, held_out=beside.held_out, checkpoint=checkpoint)

    def look(batch: Sequence[ScoredRollout]) -> None:
        # TRL repeats each prompt group_size times, neighbours in the batch.
        doctor.saw([observed(row, rows.plan, group=i // config.group_size) for i, row in enumerate(batch)])

    rewarder = Rewarder(job.contract, rows.cases, rows.encoded, job.tokenizer, rows.plan, on_scored=look)
    totals = Totals(checkpoint, JudgeCounts(job.work, rows.plan.rewards))
    watch = Watch("grpo", ("reward", "frac_reward_zero_std", "completions/mean_length"))
    # In this order: the doctor may decide to save, and the watch marks a checkpoint as whole, with all files in it.
    trainer = _trainer(job, config, rows, rewarder, (order, steps), [doctor, totals, watch])
    doctor.trainer = totals.trainer = trainer
    trainer.before_rollouts = doctor.before_rollouts
    try:
        if checkpoint is not None and (doctor.stopped_step is not None or step_of(checkpoint) >= steps):
            trainer.load_stopped(checkpoint, totals.loss)  # the training had ended before the run was cut off
        else:
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        watch.close()
    # Kept apart from the history: times differ from run to run, and the history is compared between runs.
    seconds = [entry["step_time"] for entry in trainer.state.log_history if "step_time" in entry]
    # One writer: several processes share the folder.
    if trainer.is_world_process_zero():
        artifacts.write_json(job.work / artifacts.TIMINGS, seconds)
    return Trained(trainer.model, clean_history(trainer.state.log_history), doctor.report())


def _order(config: GrpoConfig, rows: RewardedRows, beside: Beside, seed: int) -> tuple[list[int], int]:
    """(case numbers in the order of training, optimiser steps): easy cases first where the doctor may act."""
    order, steps = grpo_order(len(rows.cases), config, seed)
    if config.doctor.policy == "act" and beside.pass_rates:
        rates = beside.pass_rates
        known = {i: rates[case.case_id] for i, case in enumerate(rows.cases) if case.case_id in rates}
        order = by_difficulty(order, len(rows.cases), known)
    return twins_together(order, [case.case_id for case in rows.cases]), steps


def _trainer(
    job: TrainingJob,
    config: GrpoConfig,
    rows: RewardedRows,
    rewarder: Rewarder,
    order_and_steps: tuple[Sequence[int], int],
    callbacks: Sequence[Any],
) -> Any:
    order, steps = order_and_steps
    prompts = [
        {"prompt": row.prompt_text, "case_id": case.case_id} for row, case in zip(rows.encoded, rows.cases, strict=True)
    ]
    trainer_class: Callable[..., Any] = ContractGrpoTrainer
    if config.grouped:
        trainer_class = partial(ContractGroupedTrainer, on_stock=lambda line: log.info("grpo: %s", line))
    max_tokens = job.contract.max_completion_tokens
    trainer = trainer_class(
        model=job.model,
        reward_funcs=rewarder.functions(),
        args=grpo_arguments(config, job.model_config, job.work, max_tokens=max_tokens, steps=steps, seed=job.seed),
        # The order is ours, written out row by row (TRL's own shuffling is off): a resumed run goes on at the same row.
        train_dataset=Dataset.from_list([prompts[i] for i in order]),
        processing_class=job.tokenizer,
        peft_config=lora_config(config.lora) if config.tuning == "lora" else None,
        callbacks=list(callbacks),
    )
    if config.grouped:
        trainer.use_packed(job.model_config)
    # TRL passes prompts as text. The ids are looked up, not tokenised again: a second tokenisation may differ.
    trainer.prompt_ids_by_text = {row.prompt_text: row.prompt_ids for row in rows.encoded}
    # It prints whole log entries; the watch shows the few numbers that matter.
    trainer.remove_callback(PrinterCallback)
    if config.doctor.policy == "act" and config.doctor.max_resamples:
        trainer.resampler = Resampler(
            prompts,
            lambda case_ids, completion_ids: [row.total for row in rewarder.score(case_ids, completion_ids)],
            group_size=config.group_size,
            max_rounds=config.doctor.max_resamples,
            seed=job.seed,
        )
    return trainer
