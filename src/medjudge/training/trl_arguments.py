"""Our settings as TRL's and transformers' arguments. With `trl_adapter.py`, what an upgrade of theirs touches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from trl import GRPOConfig, SFTConfig

from medjudge import artifacts
from medjudge.errors import ConfigError
from medjudge.machine import pick_device
from medjudge.models.load import pick_dtype
from medjudge.recipe import Recipe
from medjudge.settings.model import ModelConfig
from medjudge.settings.training import BaseConfig, GrpoConfig, SftConfig, TrainingConfig
from medjudge.training.order import epoch_order as epoch_order
from medjudge.training.order import length_grouped_order as length_grouped_order
from medjudge.training.order import n_steps as n_steps
from medjudge.training.trl_adapter import limit_to_one_device


def _common(config: TrainingConfig, model: ModelConfig, work: Path, *, steps: int, seed: int) -> dict[str, Any]:
    device = pick_device(model.device)
    dtype = pick_dtype(model.dtype, device)
    return {
        "output_dir": str(work / artifacts.CHECKPOINTS),
        "max_steps": steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler,
        "lr_scheduler_kwargs": dict(config.lr_scheduler_args) or None,
        "warmup_steps": config.warmup_steps or math.ceil(steps * config.warmup_ratio),
        "weight_decay": config.weight_decay,
        "adam_beta1": config.adam_beta1,
        "adam_beta2": config.adam_beta2,
        "max_grad_norm": config.max_grad_norm,
        "optim": config.optimizer,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        # Two, so that one is whole when the machine stops while the other is written.
        "save_total_limit": 2,
        "logging_steps": config.logging_steps,
        # transformers would write the last finite loss in the place of nan, and the doctor would never see it.
        "logging_nan_inf_filter": False,
        # Completions hold text of cases: nothing goes to a tracker.
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
        "use_cpu": device.type == "cpu",
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "activation_checkpointing": model.gradient_checkpointing,
        # Rows are tokenised already; worker processes would only copy them.
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": device.type == "cuda",
    }


def base_arguments(config: BaseConfig, model: ModelConfig, work: Path, *, steps: int, seed: int) -> TrainingArguments:
    """Arguments of language-model training from nothing."""
    return limit_to_one_device(
        TrainingArguments(
            **_common(config, model, work, steps=steps, seed=seed),
            per_device_train_batch_size=config.batch_size,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
        )
    )


def sft_arguments(
    config: SftConfig, model: ModelConfig, work: Path, *, steps: int, eval_steps: int | None, seed: int
) -> SFTConfig:
    """TRL's arguments for rows that are tokenised and labelled already. Raises ConfigError if TRL refuses them."""
    ours = {
        **_common(config, model, work, steps=steps, seed=seed),
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": config.completions_per_step // config.micro_batch,
        "per_device_eval_batch_size": config.micro_batch,
        "eval_strategy": "no" if eval_steps is None else "steps",
        "eval_steps": eval_steps,
        # The order of rows is ours (`order.py`), so that a resumed run sees the rows that it would have seen.
        "train_sampling_strategy": "sequential",
        # Lengths are settled by the contract; TRL would cut off the end, where the label stands.
        "max_length": None,
        "packing": False,
    }
    return _build(SFTConfig, "sft", ours, config.trl)


def grpo_arguments(
    config: GrpoConfig, model: ModelConfig, work: Path, *, max_tokens: int, steps: int, seed: int
) -> GRPOConfig:
    """TRL's arguments for one generation batch per optimiser step. Raises ConfigError if TRL refuses them."""
    ours = {
        **_common(config, model, work, steps=steps, seed=seed),
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": config.completions_per_step // config.micro_batch,
        "steps_per_generation": config.completions_per_step // config.micro_batch,
        "num_generations": config.group_size,
        "num_iterations": config.num_iterations,
        # As for SFT: `order.py` has laid out all epochs.
        "shuffle_dataset": False,
        "remove_unused_columns": False,
        "max_completion_length": max_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "min_p": config.min_p,
        "repetition_penalty": config.repetition_penalty,
        "beta": config.kl_coef,
        "epsilon": config.epsilon,
        "epsilon_high": config.epsilon_high,
        "loss_type": config.loss_type,
        "scale_rewards": config.scale_rewards,
        "importance_sampling_level": config.importance_sampling_level,
        "mask_truncated_completions": config.mask_truncated_completions,
        "reward_weights": list(config.rewards.values()),
        "use_vllm": config.use_vllm,
    }
    return _build(GRPOConfig, "grpo", ours, config.trl)


def all_action_arguments(
    config: GrpoConfig, model: ModelConfig, work: Path, *, steps: int, seed: int
) -> TrainingArguments:
    """Arguments of all-action training: each optimiser step takes `prompts_per_step` prompts, in equal parts."""
    per_step = config.prompts_per_step
    # The largest equal parts: a smaller last part would weigh its prompts more.
    micro_batch = max(n for n in range(1, min(per_step, config.micro_batch) + 1) if per_step % n == 0)
    return limit_to_one_device(
        TrainingArguments(
            **_common(config, model, work, steps=steps, seed=seed),
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=per_step // micro_batch,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
        )
    )


def check_arguments(recipe: Recipe) -> None:
    """Builds the trainers' arguments once, so that what TRL refuses is refused before the first stage runs."""
    for stage in TRAINING_STAGES:
        if stage in recipe.stages:
            _arguments(stage, recipe)


def settings_in_force(stage: str, recipe: Recipe) -> dict[str, Any]:
    """TRL's own settings that change gradients and that the recipe leaves to TRL, with the values in force.

    Their defaults differ between versions of TRL, so the same recipe can train otherwise after an upgrade:
    `use_bias_correction_kl`, for one, is True in 1.16 and was False when it was added.
    Empty for a training without TRL.
    """
    arguments = _arguments(stage, recipe)
    names = GRADIENT_SETTINGS.get(type(arguments), ())
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


def _arguments(stage: str, recipe: Recipe) -> TrainingArguments | None:
    """The arguments of a stage's trainer, but for the number of steps; None of a training without such a trainer."""
    build = _BUILDERS.get(getattr(getattr(recipe, stage), "algorithm", stage))
    return None if build is None else build(recipe)


_BUILDERS: dict[str, Callable[[Recipe], Any]] = {
    "sft": lambda recipe: sft_arguments(
        recipe.sft, recipe.model, recipe.run_dir, steps=1, eval_steps=None, seed=recipe.seed
    ),
    "grpo": lambda recipe: grpo_arguments(
        recipe.grpo, recipe.model, recipe.run_dir, max_tokens=1, steps=1, seed=recipe.seed
    ),
    "all_action": lambda recipe: all_action_arguments(
        recipe.grpo, recipe.model, recipe.run_dir, steps=1, seed=recipe.seed
    ),
}
"""Training -> its arguments: of a stage with several algorithms by that of the recipe."""
TRAINING_STAGES = ("sft", "grpo")
GRADIENT_SETTINGS: dict[type, tuple[str, ...]] = {
    GRPOConfig: (
        "use_bias_correction_kl",
        "delta",
        "multi_objective_aggregation",
        "off_policy_mask_threshold",
        "top_entropy_quantile",
        "entropy_coef",
        "use_adaptive_entropy",
        "sync_ref_model",
        "disable_dropout",
        "cast_lm_head_to_fp32",
        "vllm_importance_sampling_correction",
        "vllm_importance_sampling_mode",
    ),
    SFTConfig: ("loss_type", "completion_only_loss", "padding_free", "router_aux_loss_coef"),
}
"""Read off the losses of TRL 1.16; one that another version does not have is left out."""


def _build(kind: Any, section: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Any:
    if repeated := sorted(set(ours) & set(theirs)):
        raise ConfigError(
            f"`{section}.trl` repeats what the recipe sets elsewhere: {', '.join(repeated)}. Remove it there."
        )
    if leaking := sorted(set(theirs) & _LEAKING):
        raise ConfigError(
            f"`{section}.trl` sets {', '.join(leaking)}, which would print or upload prompts and "
            "completions. Remove it there."
        )
    try:
        arguments = kind(**ours, **theirs)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"TRL refuses the {section} settings: {error}. Change the setting that it names, or take it out of "
            f"`{section}.trl`."
        ) from None
    return limit_to_one_device(arguments)


_LEAKING = frozenset({"log_completions", "log_completions_hub_repo", "push_to_hub", "hub_model_id"})
