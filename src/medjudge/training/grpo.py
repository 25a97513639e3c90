"""GRPO through TRL's GRPOTrainer, on the contract's prompts, with rewards that are handed the case itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from transformers import PrinterCallback

from medjudge import artifacts
from medjudge.data.splits import seeded_sample
from medjudge.diagnostics.checks import observed
from medjudge.diagnostics.diagnose import RewardShape
from medjudge.diagnostics.preflight import as_taught, term_maxima
from medjudge.models.adapters import lora_config
from medjudge.models.load import check_context
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.rewards.composition import RewardPlan, ScoredRollout, rewardable
from medjudge.settings.model import ModelConfig
from medjudge.settings.training import GrpoConfig
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, encode_all, read_rollout
from medjudge.tasks.tokenizers import stop_token_ids
from medjudge.training.doctor_callback import DoctorWatch
from medjudge.training.group_resampling import Resampler, by_difficulty
from medjudge.training.grouped import GroupedGrpoTrainer
from medjudge.training.order import grpo_order
from medjudge.training.progress_callback import Watch, clean_history
from medjudge.training.totals import JudgeCounts, Totals
from medjudge.training.trl_adapter import ContractGrpoTrainer
from medjudge.training.trl_arguments import grpo_arguments


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
                self.asked, self.scored = completion_ids, self.score(case_id, completion_ids)
                if self.on_scored is not None:
                    self.on_scored(self.scored)
            # TRL would sum the terms that are there; a rollout without a total is to be left out instead.
            return [None if row.total is None else row.terms[term] for row in self.scored]

        reward.__name__ = term
        return reward


def rewarded_cases(recipe: Recipe, split: Sequence[Case], tokenizer: Any) -> tuple[tuple[Case, ...], RewardPlan, int]:
    """(the cases of a split that GRPO trains on, the rewards built for them, rated cases that no reward can pay).

    Reasons are those that targets hold. Raises DataError where no case can be rewarded.
    """
    rated = as_taught(recipe.contract, [case for case in split if case.gold is not None], tokenizer)
    plan = recipe.reward_plan(rated)
    can_earn = rewardable(plan, rated)
    return seeded_sample(can_earn, recipe.grpo.max_cases, recipe.seed), plan, len(rated) - len(can_earn)


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


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
    held_out: Callable[[Any], str] | None = None,
    pass_rates: Mapping[str, float] | None = None,
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """(trained model or PeftModel, training log, what the doctor saw). Resumes from the last whole checkpoint.

    cases: all have the gold that `plan` needs. held_out: judges held-out cases with a model, `1` or `0` each.
    pass_rates: case id -> share of right completions before training, for the doctor's `act` policy.
    """
    order, steps = grpo_order(len(cases), config, seed)
    is_acting = config.doctor.policy == "act"
    if is_acting and pass_rates:
        known = {i: pass_rates[case.case_id] for i, case in enumerate(cases) if case.case_id in pass_rates}
        order = by_difficulty(order, len(cases), known)
    encoded = encode_all(contract, cases, tokenizer, with_target=False)
    check_context(model, max(len(row.prompt_ids) for row in encoded) + contract.max_completion_tokens)
    checkpoint = artifacts.latest_checkpoint(work)
    doctor = DoctorWatch(
        RewardShape(term_maxima(plan), len(contract.labels)),
        config.doctor,
        console,
        held_out=held_out,
        checkpoint=checkpoint,
    )

    def look(batch: Sequence[ScoredRollout]) -> None:
        doctor.saw([observed(row, plan, group=i // config.group_size) for i, row in enumerate(batch)])

    rewarder = Rewarder(contract, cases, encoded, tokenizer, plan, on_scored=look)
    totals = Totals(checkpoint, JudgeCounts(work, plan.rewards))
    watch = Watch("grpo", console, ("reward", "frac_reward_zero_std", "completions/mean_length"))
    rows = [{"prompt": row.prompt_text, "case_id": case.case_id} for row, case in zip(encoded, cases, strict=True)]
    trainer_class: Callable[..., Any] = ContractGrpoTrainer
    if config.grouped:
        trainer_class = partial(ContractGroupedTrainer, on_stock=lambda line: console.print(f"  grpo: {line}"))
    trainer = trainer_class(
        model=model,
        reward_funcs=rewarder.functions(),
        args=grpo_arguments(
            config, model_config, work, max_tokens=contract.max_completion_tokens, steps=steps, seed=seed
        ),
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora) if config.tuning == "lora" else None,
        # In this order: the doctor may decide to save, and the watch marks a checkpoint as whole, with all files in it.
        callbacks=[doctor, totals, watch],
    )
    trainer.prompt_ids_by_text = {row.prompt_text: row.prompt_ids for row in encoded}
    trainer.remove_callback(PrinterCallback)
    doctor.trainer = totals.trainer = trainer
    trainer.before_rollouts = doctor.before_rollouts
    if is_acting and config.doctor.max_resamples:
        trainer.resampler = Resampler(
            rows,
            lambda case_ids, completion_ids: [row.total for row in rewarder.score(case_ids, completion_ids)],
            group_size=config.group_size,
            max_rounds=config.doctor.max_resamples,
            seed=seed,
        )
    try:
        if checkpoint is not None and (doctor.stopped_step is not None or step_of(checkpoint) >= steps):
            trainer.load_stopped(checkpoint, totals.loss)  # the training had ended before the run was cut off
        else:
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        watch.close()
    seconds = [entry["step_time"] for entry in trainer.state.log_history if "step_time" in entry]
    artifacts.write_json(work / artifacts.TIMINGS, seconds)
    return trainer.model, clean_history(trainer.state.log_history), doctor.report()
