"""Every setting of a run: one frozen object per stage, read from a TOML recipe. No torch here.

A recipe is checked in full before anything heavy is imported: unknown keys are refused with the nearest valid name, and
`profile = "tiny"` lays the recipe's `[profiles.tiny]` over the rest before the check.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from medjudge.errors import ConfigError
from medjudge.names import file_name_trouble, model_name_trouble, shown
from medjudge.records import AdapterStep
from medjudge.rewards.settings import EmbeddingSettings, LlmSettings, RewardSettings
from medjudge.settings import EndpointSettings, Settings
from medjudge.tasks.catalog import TASKS, Task
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.presets import rubric_text

StageName = Literal["prepare", "base", "sft", "grpo", "merge", "evaluate", "report"]
STAGE_NAMES: tuple[StageName, ...] = ("prepare", "base", "sft", "grpo", "merge", "evaluate", "report")
MAX_DEPTH = 20
"""Of tables and lists within each other in a recipe."""
TINY_BASE = "builtin:tiny"
SCRATCH_BASE = "builtin:scratch"
VARIANT_JUDGE = "variant:"
"""`judge = "variant:NAME"`: the model that another variant of the recipe trains."""
DEMO_TASKS = ("mcq", "equivalence", "rubric", "appropriateness")
DEMO_RECIPE = Path(__file__).parent / "data" / "builtin" / "recipes" / "demo.toml"
SPLIT_SOURCES = ("train", "grpo", "validation", "test")
"""Splits that may have a source of their own."""
RESERVED_SPLITS = frozenset({"data", "inputs", "leakage", "lint", "manifest", "rejected"})
"""Files that the prepare stage writes beside the splits."""
RESERVED_VARIANTS = frozenset({*STAGE_NAMES, "compare", "commands.json", "preflight.json", "recipe.json"})
"""What lies in a run folder beside the variants' own folders."""


def _did_you_mean(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _check_multiple(whole_name: str, whole: int, part_name: str, part: int) -> None:
    if whole % part:
        raise ValueError(f"`{whole_name}` is {whole}, which is not a multiple of `{part_name}` = {part}")


def _split_name(name: str) -> str:
    if (why := file_name_trouble(name, RESERVED_SPLITS)) is not None:
        raise ValueError(f"a split cannot be called {shown(name)}: {why}")
    return name


def _run_name(name: str) -> str:
    if (why := file_name_trouble(name)) is not None:
        raise ValueError(f"a run or a variant cannot be called {shown(name)}: {why}")
    return name


SplitName = Annotated[str, AfterValidator(_split_name)]


class LeakageConfig(Settings):
    """What counts as a leak between two splits, and how much of it a run bears."""

    near_duplicate_threshold: float = Field(0.9, gt=0, le=1)
    """Jaccard similarity of word 5-shingles that each input field of two cases must reach to be near-duplicates.

    A changed word breaks five shingles: at 0.9, fields under about 100 words must agree almost word by word."""
    likeness_threshold: float = Field(0.85, gt=0, le=1)
    """Cosine of character 3-grams that the whole texts of two cases must reach to count as near-duplicates: it finds a
    typing error, a word more or less, missing accents. At 1 only accents and the order of options may differ."""
    max_share: float = Field(0.0, ge=0, le=1)
    """Share of the held-out cases that may leak before the run stops."""
    allow: tuple[Literal["exact", "normalised", "near_duplicate", "group", "conflict"], ...] = ()
    """Kinds of leak that are reported but do not stop the run."""


class DataConfig(Settings):
    """Where rows come from, how columns map onto the contract's fields, and how they are split."""

    source: str | None = None
    """One source that is split: a path, `hub:owner/name[:split]` or `builtin:NAME`."""
    train: str | None = None
    grpo: str | None = None
    validation: str | None = None
    test: str | None = None
    fields: Mapping[str, str] = Field(default_factory=dict)
    """Contract field -> column, where the names differ: `{condition = "topic"}`. A text with columns in braces makes a
    field of several, `{question = "{stem} ({site})"}`; a row in which one of them is empty does not have it."""
    values: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    """Contract field -> {value in the file -> value meant}: `{label = {PASS = "1", FAIL = "0"}}`."""
    where: Mapping[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Keep only rows whose column equals this value: `{exp_agrees = true}`. Rows left out are counted."""
    where_by_split: Mapping[str, Mapping[str, str | int | float | bool | None]] = Field(default_factory=dict)
    """As `where`, for one split's source, where a file holds several: `{train = {split = "train"}}`."""
    case_id: str | None = None
    """The column that holds a unique id; without it the id is a hash of the inputs."""
    group_by: tuple[str, ...] = ()
    """Columns (or contract fields) whose equal values keep cases on one side; default: the contract's group fields."""
    slices: tuple[str, ...] = ()
    """Columns to keep for slicing results, such as `generator`."""
    splits: Mapping[str, float | int | tuple[int, int]] = Field(
        default_factory=lambda: {"train": 0.7, "validation": 0.1, "test": 0.2}
    )
    """For one `source`: split name -> share (0.2), number of cases (400), or index range `[0, 1000)` after a shuffle.

    Index ranges are the published form: shuffle all rows with `seed`, then cut. They ignore groups."""
    stratify_by: str | None = None
    """A column, or `label`, whose shares each split keeps (as far as whole groups allow)."""
    seed: int = 42
    max_rows: int | None = Field(None, ge=1)
    """Use at most this many rows of each source, of those that `where` keeps."""
    bad_rows: Literal["refuse", "set_aside"] = "refuse"
    """`set_aside` writes bad rows' places and reasons into `rejected.jsonl` and goes on."""
    duplicates: Literal["keep", "drop", "refuse"] = "drop"
    """What to do with rows that repeat another row's inputs and label."""
    leakage: LeakageConfig = LeakageConfig()

    @model_validator(mode="after")
    def _one_form(self) -> DataConfig:
        by_split = [name for name in SPLIT_SOURCES if getattr(self, name)]
        if self.source and by_split:
            raise ValueError(f"got `source` and {by_split}: give one `source` to be split, or a source per split")
        names = [_split_name(name) for name in self.splits]
        if len({name.lower() for name in names}) < len(names):
            raise ValueError(
                "`splits` names two splits that differ in capitals only, which is one file on some systems"
            )
        kinds = {type(size) for size in self.splits.values()}
        if tuple in kinds and len(kinds) > 1:
            raise ValueError("`splits` mixes index ranges with shares or counts: use one form")
        shares = [size for size in self.splits.values() if isinstance(size, float)]
        if sum(shares) > 1 + 1e-9:
            raise ValueError(f"`splits` shares add up to {sum(shares):g}: at most 1")
        for name, size in self.splits.items():
            if isinstance(size, tuple):
                if not 0 <= size[0] < size[1]:
                    raise ValueError(f"`splits.{name}` is {list(size)}: expected [first, past_last], first < past_last")
            elif size <= 0:
                raise ValueError(f"`splits.{name}` is {size}: expected a share in (0, 1] or a positive number of cases")
            elif isinstance(size, float) and size > 1:
                raise ValueError(f"`splits.{name}` is {size}: a share is at most 1.0; write an integer for a count")
        unknown = sorted(set(self.where_by_split) - set(by_split))
        if unknown:
            raise ValueError(f"`where_by_split` names {', '.join(unknown)}, which have no source of their own here")
        return self


class ModelConfig(Settings):
    """The base model and how it is loaded."""

    base: str = TINY_BASE
    """A hub id, a local folder, or one of two that need no hub.

    `builtin:tiny` ships with medjudge: some million parameters that have read its fact base. `builtin:scratch` is as
    small and built from nothing by the base stage, on the training split's text."""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    gradient_checkpointing: bool = False
    quantization: Literal["none", "4bit", "8bit"] = "none"
    """QLoRA's base weights (needs the `quant` extra; on a CPU its bitsandbytes from 0.50 on, and patience).

    The merge is made in full precision, and says how far it is from the quantised model that was trained."""
    chat_template: str | None = None
    """A Jinja chat template, or `plain` for the built-in one; only for a tokenizer that has none."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, ...; None takes a GPU where there is one."""
    threads: int | None = Field(None, ge=1, exclude=True)  # excluded: no stage's inputs, and no reason to run it again
    """Threads of a CPU; None measures before each stage which number is fastest. OMP_NUM_THREADS says it, too."""


class LoraSettings(Settings):
    """LoRA's adapter shape (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    rslora: bool = False
    """Scale by alpha/sqrt(r) instead of alpha/r (Kalajdzievski 2023, arXiv:2312.03732)."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _names_or_all(cls, value: Any) -> Any:
        if value == "all-linear":
            return value
        if isinstance(value, str) or not value:
            raise ValueError(
                'expected a list of module names such as ["q_proj", "v_proj"], or "all-linear"; patterns are not read'
            )
        return value

    @property
    def scale(self) -> float:
        """What the adapter's product is multiplied by."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def step(self, learning_rate: float) -> AdapterStep:
        """The size of a step under Adam, to first order.

        Adam moves each weight by about the learning rate, whatever its gradient. The second matrix, which starts at
        zero, has r weights per output, so the output moves by learning_rate x scale x r. With alpha/r that does not
        depend on r (Hu et al. 2021, section 4.1); with alpha/sqrt(r) and a fixed alpha it grows as sqrt(r).
        """
        return AdapterStep(self.r, self.scale, learning_rate, size=learning_rate * self.scale * self.r)


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
    optimizer: str = "adamw_torch"
    """Any `optim` of transformers: `adamw_torch`, `paged_adamw_8bit`, ..."""
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
    completions_per_step: int = Field(16, ge=1)
    """Rows per optimiser step, over all devices and accumulation."""
    micro_batch: int = Field(8, ge=1)
    """Rows per forward pass; `completions_per_step` must be a multiple of it."""
    trl: Mapping[str, Any] = Field(default_factory=dict)
    """Any further `trl.SFTConfig` argument by its own name. It may not repeat a setting above."""

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
    """Cases that no gradient sees. Without this split nothing is measured, and hacking cannot be told from learning."""
    held_out_cases: int = Field(64, ge=0)
    """Cases of it, drawn by the seed; 0 measures nothing."""
    held_out_every: int = Field(20, ge=1)
    """Steps between two measurements. 64 short answers cost about as much as one step."""
    keep_completions: bool = True
    """Whether `doctor.json` and `preflight.json` hold the first characters of completions as evidence."""
    max_resamples: int = Field(2, ge=0)
    """For `act`: how often in one step groups without spread are drawn anew from other cases (dynamic sampling, Yu et
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
    split: SplitName = "train"
    tuning: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings()
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
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    mask_truncated_completions: bool = False
    use_vllm: bool = False
    rewards: Mapping[str, float] = Field(default_factory=lambda: {"correctness": 1.0, "format": 0.5})
    """Reward name -> weight; the sum of weighted rewards is what is optimised. A name may be a product of rewards:
    `"accuracy * embedding" = 1.0`. `rewards/composition.py` lists the names."""
    reward_gate: tuple[str, ...] = ()
    """Rewards that must be above 0 before anything is paid: `["schema"]`. What takes away is taken all the same."""
    reward_settings: RewardSettings = RewardSettings()
    preflight: PreflightConfig = PreflightConfig()
    doctor: DoctorConfig = DoctorConfig()
    trl: Mapping[str, Any] = Field(default_factory=dict)
    """Any further `trl.GRPOConfig` argument by its own name. It may not repeat a setting above."""

    @model_validator(mode="after")
    def _known_rewards(self) -> GrpoConfig:
        from medjudge.rewards.composition import KNOWN, check_composition, reward_names

        for name in [*reward_names(self.rewards), *self.reward_gate]:
            if name not in KNOWN:
                raise ValueError(f"unknown reward {name!r}{_did_you_mean(name, KNOWN)}; known: {', '.join(KNOWN)}")
        check_composition(self.rewards, self.reward_gate)
        if [*self.rewards] == ["balanced"] and self.scale_rewards == "group":
            raise ValueError(
                '`balanced` alone does nothing under `scale_rewards = "group"`: the cases of a group share their '
                'label, and its weight is divided out. Set `scale_rewards` to "batch" or "none"'
            )
        return self

    @model_validator(mode="after")
    def _fits_all_action(self) -> GrpoConfig:
        if self.algorithm != "all_action":
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
    """Largest difference that is borne. The merge is made and proven in float32, then stored in `model.dtype`."""


class EvaluateConfig(Settings):
    """Every named model on the same rows, greedy, with intervals and paired tests."""

    split: SplitName = "test"
    mode: Literal["generate", "labels"] = "generate"
    """`labels` writes no text: it takes the likeliest label and its probability from one forward pass per case. No row
    can be unparsed then; what stands before the label in the answer's form is given to the model."""
    models: tuple[str, ...] = ("base", "sft", "grpo")
    """Which of the run's models are compared; those that the run does not make are left out with a line."""
    extra_models: Mapping[str, str] = Field(default_factory=dict)
    """Further models by name: a folder, a hub id, or an endpoint as `openai:MODEL@URL`."""
    endpoint: EndpointSettings = EndpointSettings()
    """How the endpoints among the models are asked."""
    endpoints: Mapping[str, EndpointSettings] = Field(default_factory=dict)
    """Model name -> what differs for it: its limits, its prices."""
    calibrator: Literal["none", "temperature", "platt", "isotonic"] = "none"
    """Fits each model's confidences on `calibration_split` before its test confidences are reported, and saves the
    calibrator with the model. `isotonic` wants a thousand rows."""
    calibration_split: SplitName = "validation"
    max_cases: int | None = Field(None, ge=1)
    """Judge only so many cases of the split, drawn by the seed."""
    batch_tokens: int = Field(16384, ge=64)
    """Prompt and completion tokens per batch of generation."""
    reasoning: bool = False
    """Also compare the reasoning with the experts': embedding alignment, medical entities, citations, a judge's marks.
    Needs the `embeddings` extra."""
    embedding: EmbeddingSettings = EmbeddingSettings()
    """What the alignment of reasoning is measured with."""
    llm: LlmSettings = LlmSettings()
    """The judge that marks reasoning; without `judge` it is not marked."""
    entities: str = "builtin"
    """What finds medical entities: `builtin`, a list of the package's own terms, or `spacy:PIPELINE` (`en_core_sci_sm`,
    ...), installed by its own instructions."""
    probes: tuple[str, ...] = ()
    """Bias probes that every model is put to, as `medjudge probe` does: changes that must not move a fair judge. Names
    such as "swap" or "verbosity", or "all" that fit the task; each costs a pass over the cases."""
    samples: int = Field(0, ge=0)
    """Samples of each case for self-consistency; 0 draws none. In mode `generate` only."""
    sample_temperature: float = Field(1.0, gt=0)
    """Temperature of those samples."""
    probe_cases: int | None = Field(None, ge=1)
    """Probe and sample only so many of the cases, drawn by the seed."""
    baselines: bool = True
    """Majority, always-positive, chance and word counts, and where two texts are compared token F1, ROUGE-L, BLEU,
    chrF, TF-IDF cosine and, with the `embeddings` extra, embedding cosine; all fitted on the training split."""
    level: float = Field(0.95, gt=0.5, lt=1)
    n_resamples: int = Field(2000, ge=100)
    """Bootstrap resamples, drawn over groups."""
    seed: int = 42

    @field_validator("entities")
    @classmethod
    def _entities_are_known(cls, value: str) -> str:
        if value != "builtin" and not value.removeprefix("spacy:"):
            raise ValueError("`spacy:` names no pipeline: write spacy:en_core_sci_sm, for instance")
        if value != "builtin" and not value.startswith("spacy:"):
            raise ValueError(f"entities are found by `builtin` or `spacy:PIPELINE`, got {value!r}")
        return value

    @model_validator(mode="after")
    def _samples_are_drawn(self) -> EvaluateConfig:
        if self.samples == 1:
            raise ValueError("`samples` is 1, but a judge can only agree with itself in 2 samples or more")
        if self.samples and self.mode == "labels":
            raise ValueError(
                "`samples` are drawn from written answers, but `mode` is labels, which gives one answer: set it to 0"
            )
        return self

    @field_validator("extra_models")
    @classmethod
    def _extra_models_can_be_read(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, where in value.items():
            if (why := model_name_trouble(name)) is not None:
                raise ValueError(f"a model cannot be called {shown(name)}: {why}")
            if where.startswith("openai:"):
                from medjudge.inference.endpoint import parse_endpoint

                parse_endpoint(where)
        return value

    def endpoint_of(self, name: str) -> EndpointSettings:
        """How the endpoint that goes by this model name is asked."""
        differs = self.endpoints.get(name)
        update = {key: getattr(differs, key) for key in differs.model_fields_set} if differs is not None else {}
        return self.endpoint.model_copy(update=update)


class ReportConfig(Settings):
    """One self-contained HTML page and its pictures."""

    title: str | None = None
    max_disagreements: int = Field(50, ge=0)
    """Wrong or unparsed cases shown per model, by case id."""
    show_text: bool = False
    """Also show each of those cases' prompt and completion. They hold what a patient or an author wrote: the page then
    is as confidential as the rows are."""


class Recipe(Settings):
    """A whole run."""

    name: Annotated[str, AfterValidator(_run_name)]
    """The run folder is `runs/NAME`: letters, digits, `.`, `_` and `-`."""
    description: str = ""
    seed: int = 42
    runs_dir: Path = Path("runs")
    stages: tuple[StageName, ...] = STAGE_NAMES
    profile: str | None = None
    """Which of `[profiles.*]` lies over the rest."""
    task: Task
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    base: BaseConfig = BaseConfig()
    sft: SftConfig = SftConfig()
    grpo: GrpoConfig = GrpoConfig()
    merge: MergeConfig = MergeConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        if "prepare" not in self.stages:
            raise ValueError("`stages` lacks prepare: every stage reads its splits, and a leak would go unseen")
        if self.model.base == SCRATCH_BASE and "base" not in self.stages and len(self.stages) > 1:
            raise ValueError(f"`stages` lacks base, which makes {SCRATCH_BASE}: add it, or set model.base")
        learned = {getattr(self, stage).split for stage in ("sft", "grpo") if stage in self.stages}
        if "evaluate" in self.stages and self.evaluate.split in learned:
            raise ValueError(
                f"`evaluate.split` is {self.evaluate.split!r}, which the run trains on: name a held-out split"
            )
        if self.evaluate.calibrator != "none" and self.evaluate.calibration_split in (self.evaluate.split, *learned):
            raise ValueError(
                f"`evaluate.calibration_split` is {self.evaluate.calibration_split!r}, which the run trains on or "
                "reports: confidences are fitted on rows that are neither"
            )
        splits = [name for name in SPLIT_SOURCES if getattr(self.data, name)] or list(self.data.splits)
        if self.evaluate.calibrator != "none" and self.evaluate.calibration_split not in splits:
            raise ValueError(
                f"`evaluate.calibrator` is {self.evaluate.calibrator}, but the data have no split "
                f"{self.evaluate.calibration_split!r} (`evaluate.calibration_split`): they have {', '.join(splits)}"
            )
        made = {name for name in self.evaluate.models if name == "base" or name in self.stages}
        if "evaluate" in self.stages and (taken := sorted(made & set(self.evaluate.extra_models))):
            raise ValueError(
                f"`evaluate.extra_models` names {', '.join(taken)}, which the run makes itself: take another name"
            )
        unknown = sorted(set(self.evaluate.models) - {"base", "sft", "grpo"})
        if unknown:
            raise ValueError(
                f"`evaluate.models` names {', '.join(unknown)}; a run makes base, sft and grpo. "
                "Others go under `evaluate.extra_models`"
            )
        if "grpo" in self.stages and self.grpo.algorithm == "all_action" and self.task.closed_completions() is None:
            raise ValueError(
                f"`grpo.algorithm` is all_action, but the {self.task.kind} task here answers with more than its label: "
                "take a form of the task that answers with the label, or grpo"
            )
        if "evaluate" in self.stages and self.evaluate.mode == "labels" and self.task.label_frame() is None:
            raise ValueError(
                f"`evaluate.mode` is labels, but the {self.task.kind} task here reasons before its label: take generate"
            )
        if self.evaluate.probes:
            self._probes_fit()
        for stage in ("sft", "grpo"):
            if stage in self.stages and getattr(self, stage).tuning == "full":
                if self.model.quantization != "none":
                    raise ValueError(
                        f"`{stage}.tuning` is full, but `model.quantization` freezes the weights: use lora"
                    )
                if self.model.dtype == "float16":
                    raise ValueError(f"`{stage}.tuning` is full, which float16 cannot train: use bfloat16 or float32")
        return self

    def _probes_fit(self) -> None:
        from medjudge.data.probes import PROBES, probes_for

        fitting = probes_for(self.task)
        for name in self.evaluate.probes:
            if name != "all" and name not in PROBES:
                known = ", ".join(PROBES)
                raise ValueError(
                    f"`evaluate.probes`: unknown probe {name!r}{_did_you_mean(name, PROBES)}; known: {known}"
                )
            if name != "all" and name not in fitting:
                raise ValueError(
                    f"`evaluate.probes`: {name!r} does not fit the {self.task.kind} task, for which there are: "
                    f"{', '.join(fitting)}"
                )

    @property
    def run_dir(self) -> Path:
        """Where the run's artifacts lie."""
        return self.runs_dir / self.name

    @property
    def contract(self) -> TaskContract:
        """The task contract, under the name that stages use."""
        return self.task


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file with `section.key=value` overrides applied. Raises ConfigError.

    Order: the file, then `profile` and `stages`-like plain overrides that choose a profile, then the profile, then all
    overrides again, so that what is said on the command line always wins.
    """
    return recipe_from_tree(_read_toml(path), overrides, where=str(path))


def load_variants(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, dict[str, Recipe]]:
    """The recipe, and its variants by name, in order: each the recipe with `[variants.NAME]` laid over it.

    The command line wins over a variant too, but in a table that the variant replaces whole (`_replace = true`), which
    is its own. A variant's run folder lies in the recipe's. A profile takes a variant out with `variants.NAME = false`.
    Empty where the recipe has none.
    """
    return variants_from_tree(_read_toml(path), overrides, where=str(path))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise ConfigError(
            f"cannot read recipe {path}: {reason}. `medjudge init KIND` writes one to start from."
        ) from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        raise ConfigError(f"{path} is not valid TOML: {why}") from None


def demo_recipe(task: str, seed: int, runs_dir: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The shipped recipe for one task, `runs_dir/demo-TASK` unless `seed` is not its own. Raises ConfigError."""
    if task not in DEMO_TASKS:
        raise ConfigError(f"--task is {task!r}{_did_you_mean(task, DEMO_TASKS)}. Known: {', '.join(DEMO_TASKS)}.")
    profile = [] if task == "mcq" else [f"profile={task}"]
    shipped = load_recipe(DEMO_RECIPE, profile)
    recipe = load_recipe(DEMO_RECIPE, [*profile, f"seed={seed}", *overrides])
    name = recipe.name if recipe.seed == shipped.seed else f"{recipe.name}-seed{recipe.seed}"
    return recipe.model_copy(update={"name": name, "runs_dir": runs_dir})


def recipe_from_tree(tree: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """As `load_recipe`, from a parsed tree. `where` names it in messages."""
    return variants_from_tree(tree, overrides, where=where)[0]


def variants_from_tree(
    tree: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "recipe"
) -> tuple[Recipe, dict[str, Recipe]]:
    """As `load_variants`, from a parsed tree."""
    settings = [_parse_override(text) for text in overrides]
    try:
        merged: dict[str, Any] = json.loads(json.dumps(tree, default=str))
    except (RecursionError, ValueError):
        raise ConfigError(
            f"{where}: the recipe is nested too deeply, or holds a number of thousands of digits."
        ) from None
    profiles = merged.pop("profiles", {})
    _check_overlays(profiles, "profiles", where)
    profile = next((value for keys, value in reversed(settings) if keys == ["profile"]), merged.get("profile"))
    if profile is not None:
        if not isinstance(profile, str) or profile not in profiles:
            raise ConfigError(
                f"{where}: profile {shown(profile)} is not defined{_did_you_mean(str(profile), profiles)}. "
                f"The recipe has: {', '.join(profiles) or 'none'}."
            )
        _overlay(merged, profiles[profile])
    _make_room(merged, {tuple(keys) for keys, _ in settings})
    for keys, value in settings:
        _set(merged, keys, value)
    kind = merged.get("task", {}).get("kind") if isinstance(merged.get("task"), dict) else None
    if kind is not None and (not isinstance(kind, str) or kind not in TASKS):
        raise ConfigError(
            f"{where}: task.kind is {shown(kind)}{_did_you_mean(str(kind), TASKS)}. Known: {', '.join(TASKS)}."
        )
    overlays = merged.pop("variants", {})
    if isinstance(overlays, dict):
        overlays = {name: overlay for name, overlay in overlays.items() if overlay is not False}
    _check_overlays(overlays, "variants", where)
    recipe = _validate(merged, where=where)
    # Every profile must hold keys that exist, also those not in use: a typo there would wait for its day.
    for name, overlay in profiles.items():
        trial = json.loads(json.dumps(merged))
        _overlay(trial, overlay)
        trial.pop("variants", None)
        _validate(trial, where=f"{where} [profiles.{name}]")
    variants: dict[str, Recipe] = {}
    for name, overlay in overlays.items():
        if (why := file_name_trouble(name, RESERVED_VARIANTS)) is not None:
            raise ConfigError(f"{where}: a variant cannot be called {shown(name)}: {why}.")
        if name.lower() in {other.lower() for other in variants}:
            raise ConfigError(
                f"{where}: two variants are called {shown(name)} but for capitals: one folder on some systems."
            )
        trial = json.loads(json.dumps(merged))
        _overlay(trial, overlay)
        own = _replaced(overlay)
        for keys, value in settings:
            if not any(tuple(keys[: len(place)]) == place for place in own):
                _set(trial, keys, value)
        trial |= {"name": name, "runs_dir": str(recipe.run_dir)}
        _name_judges(trial, variants, where=f"{where} [variants.{name}]")
        variants[name] = _validate(trial, where=f"{where} [variants.{name}]")
    return recipe, variants


def _replaced(overlay: Mapping[str, Any], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of the tables that an overlay replaces whole."""
    tables = {(*at, key): value for key, value in overlay.items() if isinstance(value, Mapping)}
    inner = [place for key, value in tables.items() for place in _replaced(value, key)]
    return [*(key for key, value in tables.items() if value.get("_replace")), *inner]


def _check_overlays(overlays: Any, kind: str, where: str) -> None:
    if not isinstance(overlays, dict) or not all(isinstance(overlay, dict) for overlay in overlays.values()):
        raise ConfigError(f"{where}: `{kind}` must hold tables such as [{kind}.NAME.sft].")


def _name_judges(tree: dict[str, Any], earlier: Mapping[str, Recipe], *, where: str) -> None:
    """`judge = "variant:NAME"` becomes the folder of the model that an earlier variant trains."""
    places = (("grpo", "reward_settings", "llm"), ("evaluate", "llm"))
    for place in places:
        section: Any = tree
        for key in place:
            section = section.get(key, {}) if isinstance(section, dict) else {}
        judge = section.get("judge") if isinstance(section, dict) else None
        if not isinstance(judge, str) or not judge.startswith(VARIANT_JUDGE):
            continue
        name = judge.removeprefix(VARIANT_JUDGE)
        if name not in earlier:
            raise ConfigError(
                f"{where}: `{'.'.join(place)}.judge` is {judge!r}, but no variant before it has that name: "
                f"{', '.join(earlier) or 'it is the first'}."
            )
        section["judge"] = str(earlier[name].run_dir / "sft" / "model")


def _validate(tree: Mapping[str, Any], *, where: str) -> Recipe:
    _check_depth(tree, where)
    tree = _with_preset(tree, where)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: " + "\n  ".join(_explain(tree, item) for item in error.errors())) from None


def _check_depth(tree: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for tables or lists nested so deep that a recipe could be read but not written."""
    level: list[Any] = [tree]
    for _ in range(MAX_DEPTH):
        inner = [value.values() if isinstance(value, Mapping) else value for value in level]
        level = [value for values in inner for value in values if isinstance(value, Mapping | list | tuple)]
        if not level:
            return
    raise ConfigError(f"{where}: tables or lists are nested more than {MAX_DEPTH} deep. No setting needs that.")


def _with_preset(tree: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """`task.preset`, a rubric by name or its TOML file, becomes the scale, criteria and rubric that it stands for."""
    task = tree.get("task")
    if not isinstance(task, dict) or task.get("kind") != "rubric" or task.get("preset") is None:
        return tree
    if taken := [key for key in ("criteria", "rubric") if task.get(key) is not None]:
        raise ConfigError(f"{where}: `task.preset` and `task.{taken[0]}` both say what to judge: give one of the two.")
    rest = {key: value for key, value in task.items() if key != "preset"}
    return {**tree, "task": {**rest, **rubric_text(str(task["preset"])).task_settings()}}


def _explain(tree: Mapping[str, Any], item: Any) -> str:
    """One pydantic complaint as a sentence that names the key, the value and the nearest valid key."""
    loc = [str(part) for part in item["loc"] if part not in TASKS]
    key = ".".join(loc)
    if item["type"] == "extra_forbidden":
        known = _keys_at(loc[:-1], tree)
        return f"unknown key `{key}`{_did_you_mean(loc[-1], known)}. Known here: {', '.join(sorted(known))}."
    if item["type"] == "missing":
        return f"`{key}` is missing."
    if item["type"] == "union_tag_not_found":
        return f"`task.kind` is missing. Known: {', '.join(TASKS)}."
    message = item["msg"].removeprefix("Value error, ")
    value = item.get("input")
    is_said = isinstance(value, dict | list | tuple) or shown(value) in message
    got = "" if is_said else f" (got {shown(value)})"
    return f"`{key}`: {message[:1].lower()}{message[1:]}{got}." if key else f"{message}."


def _keys_at(loc: Sequence[str], tree: Mapping[str, Any]) -> list[str]:
    """Valid keys of the section at `loc`."""
    section: type[Settings] = Recipe
    for part in loc:
        if section is Recipe and part == "task":
            section = TASKS[str(tree["task"]["kind"])]
            continue
        if part not in section.model_fields:  # a name in a table of sections
            continue
        annotation = section.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)] if get_origin(annotation) else [annotation]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, Settings))
    keys = list(section.model_fields)
    return [*keys, "profiles"] if section is Recipe else keys


def _parse_override(text: str) -> tuple[list[str], Any]:
    """`section.key=value` -> its keys and its value, read as TOML where it is TOML, else as a plain string."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes section.key=value, got {text!r}")
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except (ValueError, RecursionError):
        value = raw.strip()
    return [part.strip() for part in key.split(".")], value


def _set(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for part in keys[:-1]:
        node = tree.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: `{part}` is a value, not a section")
        tree = node
    tree[keys[-1]] = value


def _make_room(tree: dict[str, Any], overridden: set[tuple[str, ...]]) -> None:
    """Drops the file's other form of naming rows where the command line names them in one of the two forms."""
    data = tree.get("data")
    by_split = {("data", name) for name in SPLIT_SOURCES}
    if not isinstance(data, dict) or (("data", "source") in overridden) == bool(by_split & overridden):
        return
    for name in ("source",) if by_split & overridden else SPLIT_SOURCES:
        data.pop(name, None)


def _overlay(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lays `over` onto `tree` in place: tables are merged key by key, anything else is replaced.

    `rewards`, `splits` and the like are one choice, not a set of keys, so a table that differs in full is written with
    `_replace = true` inside it.
    """
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict) and not value.get("_replace"):
            _overlay(tree[key], value)
        elif isinstance(value, Mapping):
            tree[key] = {k: v for k, v in value.items() if k != "_replace"}
        else:
            tree[key] = value
