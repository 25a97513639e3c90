"""When to ask a person instead: risk against coverage, and thresholds that come with a finite-sample guarantee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError
from medjudge.metrics.intervals import Estimate, clustered_wilson
from medjudge.metrics.reliability import checked

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

_N_COVERAGES = 50
"""Thresholds that are proposed, at equal steps of the share accepted."""
_PROPOSING_SHARE = 0.2
"""Share of the groups that propose thresholds; of .2, .3 and .4 it lost the least coverage."""


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Selective error at each coverage; arrays are (n_points,), one point per distinct confidence, highest first."""

    threshold: FloatArray
    """Verdicts with a confidence of at least this are kept."""
    coverage: FloatArray
    risk: FloatArray
    """Share wrong among those kept."""
    aurc: float
    """Area under the curve, the mean of the risk over coverages 1/n .. 1; ties in every order, on average."""
    excess_aurc: float
    """AURC less that of a judge whose errors are exactly its least confident verdicts."""


@dataclass(frozen=True, slots=True)
class SelectiveRule:
    """Accept a verdict where its confidence is above `threshold`; a guarantee on what is accepted."""

    threshold: float | None
    """Confidence above which a verdict is accepted; -1 accepts all; None: no threshold keeps the promise."""
    max_error: float
    delta: float | None
    """The promise fails for at most this share of calibration sets; None where it holds on average."""
    promise: str
    """In words, what is guaranteed."""
    method: Literal["learn-then-test", "conformal risk control"]
    n: int
    """Independent rows (or groups) that it was chosen on."""
    coverage: float
    """Share accepted on those rows."""
    error: float
    """The controlled error on those rows, each row counted once: share wrong of the accepted (learn-then-test; nan
    where none is accepted), or share accepted and wrong of all (conformal risk control)."""

    def accepts(self, confidence: ArrayLike) -> BoolArray:
        """(n,) which verdicts are accepted; nan never is, and nothing is without a threshold."""
        given = np.asarray(confidence, dtype=np.float64)
        return np.zeros(given.shape, dtype=bool) if self.threshold is None else np.asarray(given > self.threshold)


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """The selective error at every coverage. Equal confidences are accepted together.

    Without a row the arrays are empty and the areas nan.
    Source: Geifman & El-Yaniv (2017), arXiv:1705.08500; excess AURC: Geifman, Uziel & El-Yaniv (2019),
    arXiv:1805.08206.
    """
    given, right = checked(confidence, correct)
    if not len(given):
        empty = np.zeros(0)
        return RiskCoverage(empty, empty, empty, float("nan"), float("nan"))
    values, code = np.unique(-given, return_inverse=True)
    kept = np.cumsum(np.bincount(code))
    wrong = np.cumsum(np.bincount(code, weights=1 - right))
    n, n_wrong = len(given), int(wrong[-1])
    aurc = float(aurc_of_weights(given, right)(np.ones((1, n)))[0])
    # The best order puts every right verdict before the first wrong one; its mean risk has this closed form.
    harmonic = _harmonic(n)
    best = (n_wrong - (n - n_wrong) * (harmonic[n] - harmonic[n - n_wrong])) / n
    return RiskCoverage(-values, kept / n, wrong / kept, aurc, max(aurc - float(best), 0.0))


def aurc_of_weights(confidence: FloatArray, correct: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """(m, n) whole row weights -> (m,) AURC of the weighted rows.

    In a block of c equal confidences with e errors, after C rows with E errors, the mean over all orders of the block
    of sum_i errors(C + i) / (C + i) is e + (E - e C / c) (H(C + c) - H(C)) with H the harmonic numbers.
    """
    _, code = np.unique(-confidence, return_inverse=True)
    order = np.argsort(code, kind="stable")
    # Rows of equal confidence form one block, whose order is not the judge's choice.
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    wrong = (1 - correct)[order]

    in_order = bool((np.diff(order) == 1).all())
    distinct = len(starts) == len(order)

    def aurc(weights: FloatArray) -> FloatArray:
        by_confidence = weights if in_order else weights[:, order]
        if distinct:
            count, errors, share = by_confidence, by_confidence * wrong, wrong
        else:
            count = np.add.reduceat(by_confidence, starts, axis=1)
            errors = np.add.reduceat(by_confidence * wrong, starts, axis=1)
            share = np.divide(errors, count, out=np.zeros_like(count), where=count > 0)
        kept = np.cumsum(count, axis=1)
        total = kept[:, -1]
        span = np.diff(_harmonic(int(total.max()))[kept.astype(np.int64)], prepend=0.0, axis=1)
        errors_before = np.cumsum(errors, axis=1) - errors
        span *= errors_before - share * (kept - count)
        return np.asarray((errors.sum(1) + span.sum(1)) / total)

    return aurc


def _harmonic(n: int) -> FloatArray:
    """(n + 1,) harmonic numbers H(0) .. H(n)."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


def selective_threshold(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    max_error: float,
    delta: float = 0.1,
    groups: ArrayLike | None = None,
    rng: np.random.Generator,
) -> SelectiveRule:
    """A low threshold at which at most `max_error` of the *accepted* verdicts are wrong, surely but for `delta`.

    The error among accepted verdicts does not fall monotonically with the threshold (raising it can remove more right
    verdicts than wrong ones), so conformal risk control, which needs a monotone loss, does not apply. Instead a fifth
    of the groups, drawn by `rng`, proposes thresholds, strictest that is likely to pass first; the others test them in
    that order, each at level `delta`, until one fails; the last that passed is taken. Because the order was fixed
    before the testing rows were looked at, the chance of any false promise is at most `delta`.
    confidence: (n,), nan is never accepted. groups: (n,) codes, None for independent rows, which are tested by the
    exact binomial; groups of several rows by a betting test of their sums, in which every row counts once, and the
    promise is then for the rows of new groups that are no larger than the largest here. Raises DataError for shares
    outside (0, 1) or no rows.
    Source: Angelopoulos et al. (2021), Learn then Test, arXiv:2110.01052 (fixed-sequence testing, its order from a
    split); Waudby-Smith & Ramdas (2024), doi:10.1093/jrsssb/qkad009 (betting); selective error: Geifman &
    El-Yaniv (2017), arXiv:1705.08500.
    """
    given, right = _for_threshold(confidence, correct, max_error)
    if not 0 < delta < 1:
        raise DataError(f"`delta` is the share of sets for which the promise may fail: got {delta:g}, not in (0, 1).")
    code = np.arange(len(given)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups = int(code.max()) + 1
    # By whole groups: rows of one group on both sides would let the proposing rows see the testing ones.
    order = rng.permutation(n_groups)
    n_proposing = max(1, int(_PROPOSING_SHARE * n_groups))
    proposing = np.isin(code, order[:n_proposing])
    threshold = None
    for mark in _proposed(given[proposing], right[proposing], int((~proposing).sum()), max_error):
        accepted = (given > mark) & ~proposing
        if n_groups == len(given):  # the number wrong is binomial, and the exact test is the stronger one
            passes = _binomial_passes(int((1 - right[accepted]).sum()), int(accepted.sum()), max_error, delta)
        else:
            excess = np.bincount(code, weights=accepted * (1 - right - max_error), minlength=n_groups)
            scaled = excess[order[n_proposing:]] / np.bincount(code).max() + max_error
            passes = _betting_passes(scaled, max_error, delta)
        # Fixed-sequence testing: after the first failure nothing may be tested any more.
        if not passes:
            break
        threshold = max(float(mark), -1.0)
    accepted = np.zeros(len(given), dtype=bool) if threshold is None else given > threshold
    return SelectiveRule(
        threshold=threshold,
        max_error=max_error,
        delta=delta,
        promise=(
            f"of the verdicts accepted, at most {100 * max_error:g} % are wrong; this fails for at most "
            f"{100 * delta:g} % of calibration sets" + _of_new_groups(np.bincount(code))
        ),
        method="learn-then-test",
        n=n_groups,
        coverage=float(accepted.mean()),
        error=float(1 - right[accepted].mean()) if accepted.any() else float("nan"),
    )


def _proposed(confidence: FloatArray, correct: FloatArray, n_testing: int, max_error: float) -> FloatArray:
    """Thresholds to be tested, in order: from the likeliest to pass on `n_testing` rows to looser ones."""
    from scipy.stats import binom

    n = len(confidence)
    descending = np.sort(confidence)[::-1]
    ranks = np.arange(1, _N_COVERAGES + 1) * n // _N_COVERAGES
    marks = np.where(ranks >= n, -1.0, descending[np.minimum(ranks, n - 1)])
    above = confidence > marks[:, None]
    kept, wrong = above.sum(1), (above * (1 - correct)).sum(1)
    expected = np.round(kept / n * n_testing)
    # Half an error and one row are added, so that no wrong among few rows is not taken for no error at all.
    p = binom.cdf(np.round((wrong + 0.5) / (kept + 1) * expected), expected, max_error)
    return np.asarray(marks[int(p.argmin()) :])


def _binomial_passes(n_wrong: int, n: int, max_error: float, delta: float) -> bool:
    """Whether an error rate above `max_error` would give so few wrong with probability at most `delta`."""
    from scipy.stats import binom

    return n > 0 and bool(binom.cdf(n_wrong, n, max_error) <= delta)


def _betting_passes(values: FloatArray, mean: float, delta: float) -> bool:
    """Whether independent values in [0, 1] show, at level `delta`, that their expectation is below `mean`.

    A gambler bets on it one value after another, as much as the spread so far advises; if the expectation were `mean`
    or more, a capital of 1 would reach 1 / delta with probability at most `delta`.
    """
    if not len(values):
        return False
    t = np.arange(1, len(values) + 1)
    centre = (0.5 + np.cumsum(values)) / (1 + t)
    spread = (0.25 + np.cumsum((values - centre) ** 2)) / (1 + t)
    before = np.concatenate([[0.25], spread[:-1]])  # a bet may look back only
    bet = np.minimum(0.9 / (1 - mean), np.sqrt(2 * np.log(1 / delta) / (len(values) * before)))
    return bool(np.cumsum(np.log1p(bet * (mean - values))).max() >= np.log(1 / delta))


def risk_control_threshold(
    confidence: ArrayLike, correct: ArrayLike, *, max_error: float, groups: ArrayLike | None = None
) -> SelectiveRule:
    """The lowest threshold at which at most `max_error` of *all* verdicts are accepted and wrong, on average over sets.

    A group of m verdicts of which w are accepted and wrong has the loss w - max_error m, which falls as the threshold
    rises and is at most (1 - max_error) M, M the largest group: what conformal risk control needs. The threshold is
    the lowest at which the losses of the groups here plus one such largest loss are at most 0. A new group then has an
    expected loss of at most 0, that is E[w] <= max_error E[m]: over many new groups the accepted and wrong are at most
    that share of all verdicts, each counted once, however unequal the groups. For single rows it is the usual rule:
    n / (n + 1) times the loss seen plus 1 / (n + 1) is at most max_error.
    confidence: (n,), nan is never accepted but counts as a verdict. groups: (n,) codes, None for independent rows; new
    groups are taken to hold no more verdicts than the largest here. No threshold where the losses of accepting nothing
    do not outweigh one largest group. Raises DataError for a share outside (0, 1) or no rows.
    Source: Angelopoulos et al. (2022), Conformal Risk Control, arXiv:2208.02814, Theorem 1.
    """
    given, right = _for_threshold(confidence, correct, max_error)
    code = np.arange(len(given)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(code)
    wrong = 1 - right
    order = np.argsort(-given, kind="stable")
    values, first = np.unique(-given[order], return_index=True)  # highest confidence first
    # Wrong when all above a value are accepted: the sum before its first row.
    before = np.concatenate([[0.0], np.cumsum(wrong[order])])
    # The added term is the worst that one more group could do: the finite-sample part of the promise.
    budget = max_error * len(given) - (1 - max_error) * sizes.max() + 1e-9
    threshold: float | None = None
    if budget >= 0:
        candidates = [*(-values), -1.0]  # accept above each confidence, or all
        losses = [*before[first], wrong[given >= 0].sum()]
        threshold = 1.0
        for candidate, loss in zip(candidates, losses, strict=True):
            if loss > budget:
                break
            threshold = max(float(candidate), -1.0)
    accepted = np.zeros(len(given), dtype=bool) if threshold is None else given > threshold
    return SelectiveRule(
        threshold=threshold,
        max_error=max_error,
        delta=None,
        promise=(
            f"of all verdicts, at most {100 * max_error:g} % are accepted and wrong, on average over calibration sets"
            + _of_new_groups(sizes)
        ),
        method="conformal risk control",
        n=len(sizes),
        coverage=float(accepted.mean()),
        error=float(wrong[accepted].sum() / len(given)),
    )


def _of_new_groups(sizes: IntArray) -> str:
    """What a promise adds where rows come in groups: whose new rows it is for."""
    return f", for new groups like these of at most {sizes.max():,} verdicts" if sizes.max() > 1 else ""


def abstention_rates(
    accepted: ArrayLike, by: Sequence[str], groups: ArrayLike | None = None, *, level: float = 0.95
) -> dict[str, Estimate]:
    """Share not accepted, per value of `by` (gold label, generator), with Wilson intervals and groups' design effect.

    accepted, by, groups: (n,). Values in order of their names.
    """
    left, names = ~np.asarray(accepted, dtype=bool), np.asarray(by, dtype=str)
    code = None if groups is None else np.asarray(groups)
    return {
        str(name): clustered_wilson(left[names == name], None if code is None else code[names == name], level=level)
        for name in np.unique(names)
    }


def _for_threshold(confidence: ArrayLike, correct: ArrayLike, max_error: float) -> tuple[FloatArray, FloatArray]:
    """Checked confidences, with -2 for a missing one: below every threshold."""
    if not 0 < max_error < 1:
        raise DataError(f"a wanted error rate lies between 0 and 1, got {max_error:g}.")
    given = np.asarray(confidence, dtype=np.float64)
    if not len(given):
        raise DataError("a threshold needs verdicts of known correctness to be chosen on, got none.")
    missing = np.isnan(given)
    given, right = checked(np.where(missing, 0.0, given), correct)
    return np.where(missing, -2.0, given), right
