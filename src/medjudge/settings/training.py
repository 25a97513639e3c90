"""Sections `[base]`, `[sft]`, `[grpo]` and `[merge]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from medjudge.settings.base import Settings, SplitName
from medjudge.settings.model import LoraSettings
from medjudge.settings.rewards import RewardSettings


def _check_multiple(whole_name: str, whole: int, part_name: str, part: int) -> None:
    if whole % part:
        raise ValueError(
            f"`{whole_name}` is {whole}, which is not a multiple of `{part_name}` = {part}: change one of the two"
        )


class TrainingConfig(Settings):
    """What SFT, GRPO and the base stage share."""

    learning_rate: float = Field(2e-4, gt=0)
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_min_lr"] = "cosine"
    lr_scheduler_args: Mapping[str, float] = Field(default_factory=dict)
    """Passed to the scheduler: `{min_lr_rate = 0.1}`."""
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    warmup_steps: int = Field(0, ge=0)
    """Takes the place of `warmup_ratio` where it is not 0."""
    weight_decay: float = Field(0.0, ge=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    optimizer: str = "adamw_torch_fused"
    """Any `optim` of transformers: `adamw_torch_fused`, `paged_adamw_8bit`, ..."""
    max_steps: int = Field(-1, ge=-1)
    """Optimiser steps, 1 or more; takes the place of `epochs` where it is not -1."""
    save_steps: int = Field(50, ge=1)
    """Optimiser steps between checkpoints: what a cut-off run may have to do again."""
    logging_steps: int = Field(5, ge=1)

    @field_validator("max_steps")
    @classmethod
    def _some_steps(cls, value: int) -> int:
        if value == 0:
            raise ValueError("0 steps train nothing: give 1 or more, or -1 to go by `epochs`")
        return value


class BaseConfig(TrainingConfig):
    """The base stage: a Qwen3-shaped model built from nothing on the training split's text."""

    vocab_size: int = Field(4096, ge=300)
    hidden_size: int = Field(256, ge=16)
    n_layers: int = Field(4, ge=1)
    n_heads: int = Field(4, ge=1)
    intermediate_size: int = Field(768, ge=16)
    max_position_embeddings: int = Field(2048, ge=64)
    learning_rate: float = Field(1e-3, gt=0)
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(32, ge=1)
    """Rows of text per optimiser step."""
    max_tokens: int = Field(256, ge=16)
    """Text is cut into pieces of at most this many tokens."""
    save_steps: int = Field(100, ge=1)


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on the experts' answers in our format, loss on completion tokens only."""

    split: SplitName = "train"
    tuning: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    epochs: float = Field(3.0, gt=0)
    class_balance: Literal["none", "oversample"] = "none"
    """`oversample` repeats rows of rarer labels until every label is seen equally often: for skewed labels.

    An epoch is then longer: number of labels times rows of the commonest."""
    ratings: Literal["gold", "each", "drawn"] = "gold"
    """What is taught where several experts rated a case. `gold`: the one label that `data.gold_rule` makes. `each`:
    every rating is a row, so labels are targets in proportion and a case counts as often as it was rated. `drawn`: a
    case is one row per epoch, its ratings take turns as target: the expected loss over raters, all cases counting
    alike. Both also teach cases on which experts tie."""
    completions_per_step: int = Field(16, ge=1)
    """Rows per optimiser step, over all devices and accumulation."""
    micro_batch: int = Field(8, ge=1)
    """Rows per forward pass; `completions_per_step` must be a multiple of it."""
    trl: Mapping[str, Any] = Field(default_factory=dict)
    """Any further `trl.SFTConfig` argument by its own name. It may not repeat a setting above."""

    @model_validator(mode="after")
    def _one_target_each(self) -> SftConfig:
        if self.ratings == "drawn" and self.class_balance != "none":
            raise ValueError(
                "`ratings` is drawn, where a case has another label in each epoch, and `class_balance` is "
                f"{self.class_balance}, which repeats cases by their label: set one of the two to its default"
            )
        return self

    @model_validator(mode="after")
    def _whole_batches(self) -> SftConfig:
        _check_multiple("completions_per_step", self.completions_per_step, "micro_batch", self.micro_batch)
        return self


class PreflightConfig(Settings):
    """What is proven before the first step: gold answers, shuffled ones, broken ones, a sample of the policy."""

    prompts: int = Field(16, ge=0)
    """Prompts of the policy sample, `group_size` completions each, drawn by the seed; 0 draws none.

    More cost seconds, and give the doctor's `act` policy more pass rates to order cases by."""
    max_cut_share: float = Field(0.5, ge=0, le=1)
    """Share of the prompts that may lose words to `task.max_prompt_tokens` before the pre-flight fails."""


class DoctorConfig(Settings):
    """What is watched while GRPO trains, and what is done when something is found: docs/doctor.md."""

    policy: Literal["warn", "stop", "act"] = "warn"
    """`warn` says it; `stop` also saves and ends the training at a severe finding; `act` also drops groups without
    spread for fresh ones, raises the temperature where no group differs, and takes cases in order of difficulty."""
    window_steps: int = Field(5, ge=2)
    """Steps that a finding is drawn from, at least."""
    window_groups: int = Field(32, ge=1)
    """Groups that those steps hold, at least: of 32 groups none differs by chance only where hardly any does."""
    held_out_split: SplitName = "validation"
    """Cases that no gradient sees. Without this split nothing is measured, and reward hacking looks like learning."""
    held_out_cases: int = Field(64, ge=0)
    """Cases of it, drawn by the seed; 0 measures nothing."""
    held_out_every: int = Field(20, ge=1)
    """Steps between two measurements. 64 short answers cost about as much as one step."""
    keep_completions: bool = True
    """Whether `doctor.json` and `preflight.json` hold the first characters of completions as evidence."""
    max_resamples: int = Field(2, ge=0)
    """For `act`: how often in one step zero-variance groups are resampled from other cases (dynamic sampling, Yu et
    al. 2025, arXiv:2503.14476, there without a bound)."""
    max_temperature: float = Field(1.5, gt=0)
    """For `act`: where raising the temperature ends."""


class GrpoConfig(TrainingConfig):
    """Group-relative policy optimisation (Shao et al. 2024, arXiv:2402.03300) on rule rewards."""

    algorithm: Literal["grpo", "all_action"] = "grpo"
    """`all_action` sums over the label set instead of sampling, where the label is all that is answered. It uses no
    `group_size`, clipping or sampling but `temperature`; `micro_batch` then counts prompts."""
    label_policy: Literal["with_leak", "renormalised"] = "with_leak"
    """For `all_action`: probability outside the label set earns an unreadable answer's reward, or is left out."""
    ratings: Literal["gold", "expected"] = "gold"
    """What rewards compare with where several experts rated a case: the one label of `data.gold_rule`, or, for
    `all_action`, every rating: the reward of a label is then its mean over the raters, also where they tie."""
    split: SplitName = "train"
    tuning: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
    # A twentieth of SFT's: the policy starts from a judge that works already.
    learning_rate: float = Field(1e-5, gt=0)
    epochs: float = Field(1.0, gt=0)
    group_size: int = Field(8, ge=2)
    """Completions per prompt (G). An advantage is a difference within the group, so at least 2."""
    prompts_per_step: int = Field(8, ge=1)
    """Distinct prompts per optimiser step; completions per step are this times `group_size`."""
    micro_batch: int = Field(16, ge=1)
    """Completions per forward pass; `prompts_per_step * group_size` must be a multiple of it."""
    grouped: bool = True
    """Read each prompt once per group, in rollouts and in the gradient: same losses, several times the speed where
    prompts are long. A model that it does not suit is left to stock TRL, with a line that says why; false always is.

    Cheapest with whole groups in a forward pass (`micro_batch` a multiple of `group_size`)."""
    max_cases: int | None = Field(None, ge=1)
    """Use only so many cases of the split, drawn by the seed."""
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    """0 keeps every token."""
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    kl_coef: float = Field(0.02, ge=0)
    """Pull toward the reference policy, TRL's `beta`. At 0 no reference policy is loaded."""
    epsilon: float = Field(0.2, gt=0)
    epsilon_high: float | None = Field(None, gt=0)
    num_iterations: int = Field(1, ge=1)
    # dapo, TRL's own default: a mean over tokens, not over completions (Yu et al. 2025).
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    mask_truncated_completions: bool = False
    use_vllm: bool = False
    rewards: Mapping[str, float] = Field(default_factory=lambda: {"correctness": 1.0, "format": 0.5})
    """Reward name -> weight; the sum of weighted rewards is what is optimised. A name may be a product of rewards:
    `"accuracy * embedding" = 1.0`. docs/rewards.md lists the names, and a recipe is checked against them."""
    reward_gate: tuple[str, ...] = ()
    """Rewards that must be above 0 before anything is paid: `["schema"]`. What takes away is taken all the same."""
    reward_settings: RewardSettings = RewardSettings()
    preflight: PreflightConfig = PreflightConfig()
    doctor: DoctorConfig = DoctorConfig()
    trl: Mapping[str, Any] = Field(default_factory=dict)
    """Any further `trl.GRPOConfig` argument by its own name. It may not repeat a setting above."""

    @model_validator(mode="after")
    def _balanced_can_pay(self) -> GrpoConfig:
        if [*self.rewards] == ["balanced"] and self.scale_rewards == "group":
            raise ValueError(
                '`balanced` alone does nothing under `scale_rewards = "group"`: the cases of a group share their '
                'label, and its weight is divided out. Set `scale_rewards` to "batch" or "none"'
            )
        return self

    @model_validator(mode="after")
    def _fits_all_action(self) -> GrpoConfig:
        if self.algorithm != "all_action":
            if self.ratings == "expected":
                raise ValueError(
                    "`ratings` is expected, which sums rewards over raters for every label: set `algorithm` to "
                    '"all_action", or `ratings` to "gold"'
                )
            return self
        if self.num_iterations != 1:
            raise ValueError(
                f"`num_iterations` is {self.num_iterations}, but all_action has no samples to use again: set 1"
            )
        if self.scale_rewards == "batch":
            raise ValueError("`scale_rewards` is batch, which all_action does not have: take group or none")
        if self.trl:
            raise ValueError("`trl` holds arguments of TRL's trainer, which all_action does not use: remove them")
        return self

    @model_validator(mode="after")
    def _whole_batches(self) -> GrpoConfig:
        if self.algorithm == "all_action":
            return self
        _check_multiple("prompts_per_step * group_size", self.completions_per_step, "micro_batch", self.micro_batch)
        # A checkpoint between two uses of one batch could not be resumed exactly: the batch is not in it.
        _check_multiple("save_steps", self.save_steps, "num_iterations", self.num_iterations)
        return self

    @property
    def completions_per_step(self) -> int:
        """Completions per optimiser step."""
        return self.prompts_per_step * self.group_size


class MergeConfig(Settings):
    """Adapter and parent become one model, proven by logits."""

    proof_prompts: int = Field(8, ge=1)
    """Prompts of the training split on which logits before and after are compared, at their last 64 positions."""
    max_logit_difference: float = Field(1e-3, gt=0)
    """Largest difference allowed. The merge is made and proven in float32, then stored in `model.dtype`."""
