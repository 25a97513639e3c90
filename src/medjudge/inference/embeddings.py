"""Texts as vectors, for the embedding-cosine baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medjudge.errors import ConfigError


def sentence_embedder(model: str) -> Callable[[Sequence[str]], NDArray[np.float64]]:
    """Texts -> (n, d) vectors by a sentence-transformers model, a folder or a hub id.

    Raises ConfigError without the extra `embeddings`.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ConfigError(
            "embedding cosine needs the extra `embeddings`: pip install 'medjudge[embeddings]', or leave it out."
        ) from None
    encoder = SentenceTransformer(model)
    return lambda texts: np.asarray(encoder.encode(list(texts)), dtype=np.float64)
