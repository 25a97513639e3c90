"""How often a judge changes its mind where it should not: flip rates of bias probes, and self-consistency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medjudge.metrics.intervals import Estimate
from medjudge.records import Judgement

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FlipResult:
    """A judge's answers to cases and to the same cases changed by a probe."""

    n: int
    """Cases answered readably both times."""
    n_unreadable: int
    """Cases answered unreadably at least once: no flip, but shown."""
    n_became_unreadable: int
    """Of those, readable before the change only."""
    flips: Estimate
    """Share of the n whose label is not the one expected, with an interval over groups."""
    to_positive: Estimate | None
    """Share that went from not positive to positive, less the share that went back; None without a positive label."""
    matrix: dict[str, dict[str, int]]
    """Expected label -> label given -> count."""


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """k samples of one judge on each case."""

    n: int
    k: int
    n_unparsed: int
    """Samples that held no verdict."""
    agreement: Estimate
    """Probability that two samples of one case agree (an unreadable one agrees with none), mean over cases."""
    unanimous: Estimate
    """Share of cases in which all k samples agree."""
    majority_accuracy: Estimate | None
    """Accuracy of the majority label (first in label order of equals, unreadable if no verdict); None without gold."""
    single_accuracy: Estimate | None
    """Mean accuracy of one sample; None without gold."""


def flip_rate(
    before: Mapping[str, Judgement],
    after: Mapping[str, Judgement],
    expected: Mapping[str, Mapping[str, str]],
    groups: Mapping[str, str],
    *,
    positive: str | None = None,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> FlipResult:
    """All mappings by case id; expected: label before -> label that a fair judge gives after. Takes ids of `expected`.

    Raises DataError if an id lacks an answer.
    """
    raise NotImplementedError


def self_consistency(
    samples: IntArray,
    groups: IntArray,
    gold: IntArray | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> SelfConsistency:
    """samples: (n, k) label codes, -1 unreadable; groups: (n,); gold: (n,) codes. Raises DataError for k < 2 or n =
    0."""
    raise NotImplementedError
