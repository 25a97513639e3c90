"""The one place where a model that is to be asked is loaded: a folder, a hub id, `vllm:` of either, or an endpoint.

Evaluation, benchmark, calibration, probes, the Python face and the reward judge all come here. No torch before a local
model is loaded: judging through an endpoint needs none.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medjudge import artifacts
from medjudge.inference.endpoint import EndpointClient
from medjudge.inference.endpoint_engine import EndpointEngine
from medjudge.inference.protocol import Engine
from medjudge.records import Case, Completion, LabelScores
from medjudge.settings.base import EndpointSettings
from medjudge.settings.endpoint import is_endpoint, parse_endpoint
from medjudge.settings.engine import EngineName, is_vllm, local_name
from medjudge.settings.model import ModelConfig
from medjudge.tasks.contract import TaskContract

if TYPE_CHECKING:
    from medjudge.inference.local import LocalEngine
    from medjudge.models.lineage import Lineage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How models are loaded and asked. An endpoint reads `endpoint` alone."""

    model: ModelConfig = field(default_factory=ModelConfig)
    engine: EngineName = "transformers"
    """Of models that do not name theirs by `vllm:`."""
    batch_tokens: int = 16384
    """Prompt and completion tokens per batch, under transformers."""
    seed: int = 42
    parent: str | None = None
    """The weights that adapters are loaded on; they must be those that the adapter was trained on."""
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)


class LoadedWhenAsked:
    """An `Engine` by its name. Weights are loaded at the first question, and let go by `close`."""

    def __init__(self, where: str, settings: LoadSettings) -> None:
        """Raises ConfigError at once for an endpoint without its key and for an engine that is not installed."""
        self.where, self.settings = where, settings
        self.on_progress: Callable[[int], None] = lambda n: None
        self.on_load: Callable[[Any], None] = lambda tokenizer: None
        """Called with the tokenizer of a local model once it is loaded."""
        self.client: EndpointClient | None = None
        """Of an endpoint: its counts and its record."""
        self.uses_vllm = not is_endpoint(where) and (is_vllm(where) or settings.engine == "vllm")
        self._lineage: dict[str, Any] | None = None
        self._engine: Engine | None = None
        if is_endpoint(where):
            self.client = EndpointClient(parse_endpoint(where), settings.endpoint)
            self._engine = EndpointEngine(self.client)
        elif self.uses_vllm:
            from medjudge.inference.vllm import import_vllm

            import_vllm()

    @property
    def lineage(self) -> dict[str, Any] | None:
        """Of a model folder, once it is loaded, what weights it holds; of an endpoint what can be known of it."""
        return self.client.record() if self.client is not None else self._lineage

    @property
    def usage(self) -> dict[str, Any] | None:
        """Calls, cost and latency of an endpoint."""
        return None if self.client is None else self.client.usage.to_json(self.client.settings)

    def generate(self, contract: TaskContract, cases: Sequence[Case]) -> list[Completion]:
        """As `Engine.generate`. Raises ModelError or LineageError where the model cannot be loaded."""
        # Nothing asked, nothing loaded: a stored evaluation is read without torch.
        return self.load().generate(contract, cases) if cases else []

    def label_logprobs(self, contract: TaskContract, cases: Sequence[Case]) -> Sequence[LabelScores | Completion]:
        """As `Engine.label_logprobs`."""
        return self.load().label_logprobs(contract, cases) if cases else []

    def sample(
        self, contract: TaskContract, cases: Sequence[Case], n_per_case: int, *, temperature: float, seed: int
    ) -> list[list[Completion]]:
        """As `Engine.sample`."""
        return self.load().sample(contract, cases, n_per_case, temperature=temperature, seed=seed) if cases else []

    def load(self) -> Engine:
        """The engine, its weights loaded."""
        if self._engine is None:
            self._engine = self._load()
        self._engine.on_progress = self.on_progress
        return self._engine

    def close(self) -> None:
        """Lets the weights go, before another model's are loaded."""
        if self.client is None and self._engine is not None:
            self._engine = None
            gc.collect()  # a model's modules refer to each other, and hold a GPU's memory until they are collected

    def _load(self) -> Engine:
        from medjudge.models.load import quiet_libraries, resolve

        quiet_libraries()
        folder = resolve(local_name(self.where))
        is_adapter = (folder / "adapter_config.json").exists()
        # One `--base` serves all models of a command; those with whole weights take none.
        parent = self.settings.parent if is_adapter else None
        engine: Any
        if self.uses_vllm:
            from medjudge.inference.vllm import VllmEngine
            from medjudge.models.lineage import locate

            located = locate(folder, parent=parent)
            engine, lineage = VllmEngine(located, self.settings.model, seed=self.settings.seed), located.lineage
        else:
            engine, lineage = load_on_transformers(folder, self.settings, parent=parent)
        if is_adapter and lineage is None:
            log.warning("%s: this adapter has no %s, so its parent is not checked", self.where, artifacts.LINEAGE)
        self._lineage = None if lineage is None else lineage.to_json()
        self.on_load(engine.tokenizer)
        loaded: Engine = engine
        return loaded


def load_on_transformers(
    folder: Path, settings: LoadSettings, *, parent: str | None = None
) -> tuple[LocalEngine, Lineage | None]:
    """A model folder in the precision in which this machine answers fastest, and its lineage.

    parent: the weights that an adapter is loaded on, where not those that it names. Raises ModelError or LineageError.
    """
    from medjudge.inference.local import LocalEngine, fit_for_inference
    from medjudge.models.lineage import load_any

    model, tokenizer, lineage = load_any(folder, settings.model, parent=parent)
    return LocalEngine(fit_for_inference(model), tokenizer, batch_tokens=settings.batch_tokens), lineage
