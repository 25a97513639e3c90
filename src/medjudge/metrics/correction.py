"""The true pass rate from a judge that errs in known ways: a judge's own pass rate is biased, and can be mended.

Two estimators. Rogan-Gladen turns the judged rate round with the judge's TPR and TNR; it needs them to be the same on
the new rows. Prediction-powered inference adds the judge's mean error on labelled rows; it needs the labelled rows to
be a random sample of the same population, and nothing about the judge.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from medjudge.metrics.intervals import Estimate


def rogan_gladen(
    judged: ArrayLike,
    labelled_judged: ArrayLike,
    labelled_gold: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    labelled_groups: ArrayLike | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    rng: np.random.Generator | None = None,
) -> Estimate:
    """(judged rate + TNR - 1) / (TPR + TNR - 1), clipped to [0, 1].

    judged: (N,) bool, the judge on rows without gold; labelled_judged, labelled_gold: (n,) bool on rows with gold.
    Independent rows: Lang & Reiczigel's interval. With groups: a bootstrap over groups of both sets, which needs `rng`.
    nan where the labelled rows lack a class or TPR + TNR <= 1: such a judge carries no information.
    Source: Rogan & Gladen (1978), doi:10.1093/oxfordjournals.aje.a112510; Lang & Reiczigel (2014),
    doi:10.1016/j.prevetmed.2013.09.015.
    """
    raise NotImplementedError


def prediction_powered_rate(
    judged: ArrayLike,
    labelled_judged: ArrayLike,
    labelled_gold: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    labelled_groups: ArrayLike | None = None,
    tuning: Literal["tuned", "plain"] = "tuned",
    level: float = 0.95,
) -> Estimate:
    """mean(gold) on labelled rows + lambda (mean(judged) on the others - mean(judged) on labelled rows).

    judged: (N,), labelled_judged, labelled_gold: (n,); bool or numbers. `plain`: lambda = 1 (PPI). `tuned`: the lambda
    with the smallest variance (PPI++), so that the interval is asymptotically never wider than that of the labelled
    rows alone. groups: variances are summed over groups. nan ends with fewer than two independent labelled rows.
    Source: Angelopoulos et al. (2023), arXiv:2301.09633; PPI++: Angelopoulos, Duchi & Zrnic (2023), arXiv:2311.01453.
    """
    raise NotImplementedError


def gold_rate(gold: ArrayLike, groups: ArrayLike | None = None, *, level: float = 0.95) -> Estimate:
    """The pass rate of the labelled rows alone: what the two corrections are to be compared with."""
    raise NotImplementedError
