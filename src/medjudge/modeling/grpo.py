"""GRPO through TRL's GRPOTrainer, on the contract's prompts, with rewards that are handed the case itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from transformers import PrinterCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOTrainer

from medjudge import artifacts
from medjudge.config import GrpoConfig, ModelConfig
from medjudge.errors import ModelError
from medjudge.modeling.arguments import epoch_order, grpo_arguments, n_steps
from medjudge.modeling.load import check_context
from medjudge.modeling.progress import Watch, clean_history
from medjudge.modeling.resampling import Resampler, by_difficulty
from medjudge.modeling.sft import lora_config
from medjudge.modeling.watching import DoctorWatch
from medjudge.records import Case, Unparsed, Verdict
from medjudge.rewards.doctor import RewardShape
from medjudge.rewards.observation import Observed
from medjudge.rewards.rules import REWARDS, score, total_reward
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import decode, encode_all, stop_token_ids


class ContractGrpoTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL ships no types
    """TRL's trainer, sampling from the very prompt tokens that SFT trained on and evaluation uses."""

    prompt_ids_by_text: Mapping[str, list[int]]
    resampler: Resampler | None = None
    grad_norm: float | None = None
    """Of the last optimiser step, before clipping; transformers itself tells it only when it logs."""

    def load_stopped(self, checkpoint: Path) -> None:
        """Takes weights and log of a checkpoint and trains no further."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.grad_norm = float(norm)
        return norm

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rows = inputs
        return dict(super()._generate_and_score_completions(inputs))

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        drawn: tuple[Any, ...] = super()._generate(prompts)
        if self.resampler is None:
            return drawn
        return self.resampler.fill(self._rows, prompts, drawn, super()._generate, self.state.global_step)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int] | None], None, dict[str, Any]]:
        ids = [self.prompt_ids_by_text.get(text) for text in prompts]
        if None in ids:  # a KeyError would carry the prompt into the log
            raise ModelError("the trainer asks for a prompt that the contract did not render. Run again with --fresh.")
        return ids, None, {}


class Rewarder:
    """Judges rollouts and rewards each by its own case, found by its id, never by its place (published failure 3)."""

    def __init__(
        self,
        contract: TaskContract,
        cases: Sequence[Case],
        weights: Mapping[str, float],
        tokenizer: Any,
        group_size: int,
    ) -> None:
        """`cases`: all that training may meet."""
        self.contract, self.weights, self.tokenizer, self.group_size = contract, weights, tokenizer, group_size
        self.by_id = {case.case_id: case for case in cases}
        self.stop_ids = stop_token_ids(tokenizer)
        self.saw: Callable[[Sequence[Observed]], None] = lambda rollouts: None
        """Told of every batch that TRL asks rewards for."""

    def observe(self, case_ids: Sequence[str], completion_ids: Sequence[Sequence[int]]) -> list[Observed]:
        """The rollouts with what they earn, in their order; groups stand one after the other."""
        ended = {*self.stop_ids, self.tokenizer.pad_token_id}
        observed = []
        for i, (case_id, ids) in enumerate(zip(case_ids, completion_ids, strict=True)):
            case, text = self.by_id[case_id], decode(self.tokenizer, list(ids), self.stop_ids)
            judgement = self.contract.parse(case_id, text)
            paid = score(judgement, case, self.weights)
            observed.append(
                Observed(
                    case_id=case_id,
                    group=i // self.group_size,
                    text=text,
                    n_tokens=len(ids),
                    stopped=bool(ids) and ids[-1] in ended,
                    terms={n: None if (v := paid[n]) is None else weight * v for n, weight in self.weights.items()},
                    total=total_reward(paid, self.weights),
                    unparsed=judgement.reason if isinstance(judgement, Unparsed) else None,
                    correct=None
                    if case.gold is None
                    else isinstance(judgement, Verdict) and judgement.label == case.gold,
                )
            )
        return observed

    def totals(self, case_ids: Sequence[str], completion_ids: Sequence[Sequence[int]]) -> list[float | None]:
        """What the rollouts earn."""
        return [rollout.total for rollout in self.observe(case_ids, completion_ids)]

    def functions(self) -> list[Callable[..., list[float | None]]]:
        """One TRL reward function per component, before its weight."""
        latest: list[Observed] = []

        def component(name: str, is_first: bool) -> Callable[..., list[float | None]]:
            def reward(
                prompts: list[str],
                completions: list[str],
                completion_ids: list[list[int]],
                case_id: list[str],
                **_: object,
            ) -> list[float | None]:
                if is_first:  # TRL asks for every component of a batch before the next batch
                    latest[:] = self.observe(case_id, completion_ids)
                    self.saw(tuple(latest))
                weight = self.weights[name]
                return [None if (v := o.terms[name]) is None else v / weight for o in latest]

            reward.__name__ = name
            return reward

        return [component(name, i == 0) for i, name in enumerate(self.weights)]


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
    held_out: Callable[[Any], str] | None = None,
    pass_rates: Mapping[str, float] | None = None,
) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    """(trained model or PeftModel, training log, what the doctor saw). Resumes from the last whole checkpoint.

    cases: all have gold. held_out: judges held-out cases with a model, `1` or `0` each. pass_rates: case id -> share of
    right completions before training, for the doctor's `act` policy.
    """
    order, steps = grpo_order(len(cases), config, seed)
    is_acting = config.doctor.policy == "act"
    if is_acting and pass_rates:
        known = {i: pass_rates[case.case_id] for i, case in enumerate(cases) if case.case_id in pass_rates}
        order = by_difficulty(order, len(cases), known)
    encoded = encode_all(contract, cases, tokenizer, with_target=False)
    check_context(model, max(len(row.prompt_ids) for row in encoded) + contract.max_completion_tokens)
    checkpoint = artifacts.latest_checkpoint(work)
    rewarder = Rewarder(contract, cases, config.rewards, tokenizer, config.group_size)
    doctor = DoctorWatch(
        RewardShape(reward_maxima(config.rewards), len(contract.labels)),
        config.doctor,
        console,
        held_out=held_out,
        checkpoint=checkpoint,
    )
    rewarder.saw = doctor.saw
    watch = Watch("grpo", console, ("reward", "frac_reward_zero_std", "completions/mean_length"))
    rows = [{"prompt": row.prompt_text, "case_id": case.case_id} for row, case in zip(encoded, cases, strict=True)]
    trainer = ContractGrpoTrainer(
        model=model,
        reward_funcs=rewarder.functions(),
        args=grpo_arguments(
            config, model_config, work, max_tokens=contract.max_completion_tokens, steps=steps, seed=seed
        ),
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        processing_class=tokenizer,
        peft_config=lora_config(config.lora) if config.tuning == "lora" else None,
        callbacks=[doctor, watch],  # in this order: the watch marks a checkpoint as whole, with the doctor's file in it
    )
    trainer.prompt_ids_by_text = {row.prompt_text: row.prompt_ids for row in encoded}
    trainer.remove_callback(PrinterCallback)
    doctor.trainer = trainer
    if is_acting and config.doctor.max_resamples:
        trainer.resampler = Resampler(
            rows,
            rewarder.totals,
            group_size=config.group_size,
            max_rounds=config.doctor.max_resamples,
            seed=seed,
        )
    try:
        if doctor.stopped_step is None or checkpoint is None:
            trainer.train(resume_from_checkpoint=checkpoint)
        else:  # the doctor ended the training before the run was cut off
            trainer.load_stopped(checkpoint)
    finally:
        watch.close()
    return trainer.model, clean_history(trainer.state.log_history), doctor.report()


def reward_maxima(weights: Mapping[str, float]) -> dict[str, float]:
    """Component -> the most that it adds to the total."""
    return {
        name: weight * (REWARDS[name].maximum if weight > 0 else REWARDS[name].minimum)
        for name, weight in weights.items()
    }
