"""A threshold that makes two labels of scores, chosen by a named rule on rows that are not reported."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from medjudge.errors import ConfigError, DataError

RuleName = Literal["youden", "sensitivity", "specificity", "cost"]
FORMS = "youden, sensitivity=0.95, specificity=0.9 or cost=5"


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """What a threshold is chosen for."""

    name: RuleName
    value: float = math.nan
    """Of `sensitivity` and `specificity` the least wanted, in (0, 1]; of `cost` what a missed positive costs, above 0,
    where a false alarm costs 1."""

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """`youden`, `sensitivity=0.95`, `specificity=0.9`, `cost=5`. Raises ConfigError for anything else."""
        name, equals, number = (part.strip() for part in text.partition("="))
        try:
            value = float(number) if equals else math.nan
        except ValueError:
            value = math.inf
        in_range = {
            "youden": not equals,
            "sensitivity": 0 < value <= 1,
            "specificity": 0 < value <= 1,
            "cost": 0 < value < math.inf,
        }
        if name not in get_args(RuleName) or not in_range[name]:
            raise ConfigError(f"got threshold rule {text!r}, expected {FORMS}. Write one of these.")
        return cls(name, value)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """As `parse` takes it."""
        return self.name if math.isnan(self.value) else f"{self.name}={self.value:g}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A threshold, and what it did on the rows that chose it."""

    threshold: float
    """Scores from here on are positive."""
    sensitivity: float
    specificity: float
    n: int
    n_positive: int


def choose_threshold(scores: ArrayLike, positive: ArrayLike, rule: ThresholdRule) -> Chosen:
    """The threshold that a rule chooses among the scores that occur.

    scores: (n,) finite numbers; positive: (n,) bool. `youden`: the greatest sensitivity + specificity - 1 (Youden 1950,
    doi:10.1002/1097-0142(1950)3:1<32::AID-CNCR2820030106>3.0.CO;2-3). `sensitivity=s`: the highest threshold with a
    sensitivity of s or more. `specificity=s`: the lowest with a specificity of s or more; above all scores if none has.
    `cost=c`: the least c x missed positives + false alarms. Of equally good thresholds the lowest, which misses least.
    Raises DataError where all rows are positive, or none is.
    """
    x, is_positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    n_positive, n_negative = int(is_positive.sum()), int((~is_positive).sum())
    if not n_positive or not n_negative:
        raise DataError(
            f"a threshold is to be chosen on {len(x):,} rows of which {n_positive:,} are positive, expected positive "
            "and negative ones. Give more rows to the part that chooses, or a threshold."
        )
    # Above all scores nothing is positive: the one candidate that is not itself a score.
    candidates = np.append(np.unique(x), np.nextafter(x.max(), np.inf))
    hits = n_positive - np.searchsorted(np.sort(x[is_positive]), candidates)
    alarms = n_negative - np.searchsorted(np.sort(x[~is_positive]), candidates)
    sensitivity, specificity = hits / n_positive, 1 - alarms / n_negative
    if rule.name == "youden":
        # In whole numbers: sums of two shares that are equal may differ by rounding.
        best = int(np.argmax(hits * n_negative - alarms * n_positive))
    elif rule.name == "cost":
        best = int(np.argmin(rule.value * (n_positive - hits) + alarms))
    elif rule.name == "sensitivity":
        best = int(np.flatnonzero(hits >= rule.value * n_positive - 1e-9)[-1])
    else:
        best = int(np.flatnonzero(n_negative - alarms >= rule.value * n_negative - 1e-9)[0])
    return Chosen(float(candidates[best]), float(sensitivity[best]), float(specificity[best]), len(x), n_positive)
