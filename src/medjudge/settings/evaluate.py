"""Sections `[evaluate]` and `[report]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator, model_validator

from medjudge.names import model_name_trouble, shown
from medjudge.settings.base import EndpointSettings, Settings, SplitName
from medjudge.settings.engine import EngineName
from medjudge.settings.rewards import EmbeddingSettings, LlmSettings


class EvaluateConfig(Settings):
    """Every named model on the same rows, greedy, with intervals and paired tests."""

    split: SplitName = "test"
    mode: Literal["generate", "labels"] = "generate"
    """`labels` writes no text: it takes the likeliest label and its probability from one forward pass per case. No row
    can be unparsed then; what stands before the label in the answer's form is given to the model."""
    # Left out of what is written where it is the default: it makes no stage of an earlier version stale.
    engine: EngineName = Field("transformers", exclude_if=lambda value: value == "transformers")
    """What local models are asked by: `vllm` needs its package and a GPU, and is faster on many cases. A model that is
    named as `vllm:DIR` is asked by it whatever stands here."""
    models: tuple[str, ...] = ("base", "sft", "grpo")
    """Which of the run's models are compared; those that the run does not make are left out with a line."""
    extra_models: Mapping[str, str] = Field(default_factory=dict)
    """Further models by name: a folder, a hub id, `vllm:` of either, or an endpoint as `openai:MODEL@URL`."""
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
    """What the alignment of reasoning is measured with, and what baselines on embeddings are made of."""
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
    """Majority, always-positive, chance, a model of words, overlaps and lengths and, with the `embeddings` extra, two
    models of sentence embeddings; where two texts are compared, the words that they share. Fitted on the training
    split."""
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
                from medjudge.settings.endpoint import parse_endpoint

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
