"""Similarity of generated and gold reasoning by sentence embeddings, as a reward and as a metric.

Each sentence meets the most similar one of the other text (greedy matching, as BERTScore does with tokens: Zhang et al.
2020, arXiv:1904.09675, eq. 2 to 4). The mean over generated sentences is the precision, over gold sentences the recall,
and F1 their harmonic mean: what is added without need costs precision, what is left out costs recall, so length is not
free. Texts of one field are alike to begin with, so the similarity b of reasons that belong to other cases is measured
and taken off: (similarity - b) / (1 - b), at least 0. Another case's reason earns about 0, the expert's own words 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medjudge.errors import ConfigError
from medjudge.inference.embeddings import Embedder, FloatArray, embedder
from medjudge.records import Case, Rollout, Verdict
from medjudge.rewards.composition import RewardContext
from medjudge.settings.rewards import EmbeddingSettings
from medjudge.tasks.citations import without_unseen

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
    with_reason = [case for case in cases if case.reason]
    rng = np.random.default_rng(seed)
    pairs: list[tuple[str, str]] = []
    for i in rng.permutation(len(with_reason))[:N_BASELINE_PAIRS]:
        one, other = with_reason[i], with_reason[rng.integers(len(with_reason))]
        if (one.group or one.case_id) != (other.group or other.case_id):
            pairs.append((str(one.reason), str(other.reason)))
    values = [pick(alignment) for alignment in align_all(pairs, embed) if alignment is not None]
    if not values:
        raise ConfigError(
            f"the similarity of unrelated reasons cannot be measured: {len(with_reason)} of {len(cases)} cases have "
            "reasons, "
            "and no two of different groups were drawn. Set `grpo.reward_settings.embedding.baseline`, such as 0.3."
        )
    baseline = float(np.mean(values))
    if baseline > 0.95:
        raise ConfigError(
            f"reasons of different groups are alike (mean similarity {baseline:.2f}): similarity to the expert's "
            "reasons says nothing about a case here. Take another reward."
        )
    return baseline


def _rationale(rollout: Rollout) -> str:
    return rollout.judgement.rationale if isinstance(rollout.judgement, Verdict) else ""


# --- the model --------------------------------------------------------------------------------------------------------
