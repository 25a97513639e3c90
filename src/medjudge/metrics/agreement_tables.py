"""Agreement statistics of one judge from its tables, gold by answer: many tables at once, as resampling needs them.

Every function takes (..., K, K) tables of whole weights >= 0 and gives (...) values, nan where undefined. The sources
of the estimators stand beside the functions of `medjudge.metrics.agreement`, which compute the same from labels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Weights = Literal["identity", "linear", "quadratic"]
Scale = Literal["nominal", "ordinal", "interval"]


def all_rows_from_counts(counts: FloatArray, positive: int | None) -> dict[str, FloatArray]:
    """Of all rows; an unreadable answer is wrong. counts: (..., K, K + 2); positive: its code, or None."""
    n_labels = counts.shape[-2]
    hits = np.diagonal(counts[..., :n_labels], axis1=-2, axis2=-1)
    support, answered = counts.sum(-1), counts[..., :n_labels].sum(-2)
    n, unread = support.sum(-1), counts[..., n_labels:].sum((-2, -1))
    # nan for a label without gold rows; it is left out of the mean below, as scikit-learn does.
    recall = hits / support
    statistics = {"balanced_accuracy": np.where(support > 0, recall, 0.0).sum(-1) / (support > 0).sum(-1)}
    if positive is not None:
        statistics |= {"tpr": recall[..., positive], "tnr": recall[..., 1 - positive]}
        precision = hits / answered
        statistics |= {"ppv": precision[..., positive], "npv": precision[..., 1 - positive]}
    # Gorodkin's multi-class form, with unreadable answers as a label of their own that is never gold.
    spread_gold = n**2 - (support**2).sum(-1)
    spread_answers = n**2 - (answered**2).sum(-1) - unread**2
    scale = np.sqrt(spread_gold * spread_answers)
    statistics["mcc"] = _ratio(hits.sum(-1) * n - (support * answered).sum(-1), scale)
    return statistics


def ordered_from_table(table: FloatArray) -> dict[str, FloatArray]:
    """Statistics that labels on an ordinal scale have beside the nominal ones. table: (..., K, K), gold by answer."""
    n_labels = table.shape[-1]
    n = table.sum((-2, -1))
    gap = np.abs(np.subtract.outer(np.arange(n_labels), np.arange(n_labels)))
    return {
        "within_one": (table * (gap <= 1)).sum((-2, -1)) / n,
        "kappa_linear": kappa_from_table(table, agreement_weights(n_labels, "linear")),
        "kappa_quadratic": kappa_from_table(table, agreement_weights(n_labels, "quadratic")),
        "gwet_ac2": gwet_from_table(table, agreement_weights(n_labels, "quadratic")),
        "alpha_ordinal": alpha_from_table(table, "ordinal"),
        "alpha_interval": alpha_from_table(table, "interval"),
        "spearman": _spearman_from_table(table),
        "kendall_tau_b": _kendall_from_table(table),
        **_icc_from_table(table),
    }


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """numerator / denominator, nan where the denominator is not above zero."""
    # Compared before dividing: 0 / 0 and a denominator that rounding made negative both mean undefined.
    positive = denominator > 0
    return np.asarray(np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan))


def agreement_weights(n_labels: int, weights: Weights) -> FloatArray:
    """(K, K): 1 for equal labels, falling to 0 for the ends of the scale (`identity`: 0 for all that differ)."""
    if weights == "identity":
        return np.eye(n_labels)
    gap = np.abs(np.subtract.outer(np.arange(n_labels), np.arange(n_labels))) / max(n_labels - 1, 1)
    return np.asarray(1.0 - gap ** (1 if weights == "linear" else 2))


def kappa_from_table(table: FloatArray, weights: FloatArray) -> FloatArray:
    """Cohen's kappa; weights: (K, K) of agreement. nan where no disagreement is expected."""
    n = table.sum((-2, -1))
    expected = np.einsum("...i,...j,ij->...", table.sum(-1), table.sum(-2), 1 - weights)
    observed = np.einsum("...ij,ij->...", table, 1 - weights)
    return 1 - _ratio(observed * n, expected)


def gwet_from_table(table: FloatArray, weights: FloatArray) -> FloatArray:
    """Gwet's AC of two raters; weights: (K, K) of agreement."""
    n = table.sum((-2, -1))
    share = (table.sum(-1) + table.sum(-2)) / (2 * n[..., None])
    agreed = np.einsum("...ij,ij->...", table, weights) / n
    return gwet_from_shares(agreed, share, weights)


def gwet_from_shares(agreed: FloatArray, share: FloatArray, weights: FloatArray) -> FloatArray:
    """(agreed - chance) / (1 - chance); share: (..., K) of all ratings that each label has."""
    n_labels = share.shape[-1]
    if n_labels < 2:
        return np.full_like(agreed, np.nan)
    chance = weights.sum() / (n_labels * (n_labels - 1)) * (share * (1 - share)).sum(-1)
    return np.asarray((agreed - chance) / (1 - chance))


def alpha_from_table(table: FloatArray, scale: Scale) -> FloatArray:
    """Krippendorff's alpha of two raters without gaps. nan where all ratings are one label."""
    margin = table.sum(-1) + table.sum(-2)
    n = margin.sum(-1)
    if scale == "nominal":
        distance = np.broadcast_to(1.0 - np.eye(table.shape[-1]), table.shape)
    else:
        # The ordinal distance of two labels is the distance of their mid-ranks.
        place = _mid_ranks(margin) if scale == "ordinal" else np.arange(table.shape[-1], dtype=np.float64)
        distance = (place[..., :, None] - place[..., None, :]) ** 2
    # Each case gives two ordered pairs of ratings.
    observed = 2 * (table * distance).sum((-2, -1))
    expected = np.einsum("...i,...j,...ij->...", margin, margin, distance)
    # n - 1: chance pairs are drawn without replacement, which sets alpha apart from Scott's pi in small samples.
    return 1 - _ratio((n - 1) * observed, expected)


def _mid_ranks(margin: FloatArray) -> FloatArray:
    """(..., K) ranks of labels with these counts, ties at their middle, around a mean of exactly zero."""
    # Around zero, so that covariances need no mean taken off, which would cost digits.
    return np.asarray(np.cumsum(margin, axis=-1) - (margin + margin.sum(-1, keepdims=True)) / 2)


def _spearman_from_table(table: FloatArray) -> FloatArray:
    rows, columns = table.sum(-1), table.sum(-2)
    x, y = _mid_ranks(rows), _mid_ranks(columns)
    scale = np.sqrt((rows * x**2).sum(-1) * (columns * y**2).sum(-1))
    return _ratio(np.einsum("...ij,...i,...j->...", table, x, y), scale)


def _kendall_from_table(table: FloatArray) -> FloatArray:
    n = table.sum((-2, -1))
    # below[i, j]: rows with a higher gold label than i and the answer j.
    below = np.cumsum(table[..., ::-1, :], axis=-2)[..., ::-1, :] - table
    lower = np.cumsum(below, axis=-1) - below
    higher = below.sum(-1, keepdims=True) - lower - below
    concordance = (table * (higher - lower)).sum((-2, -1))
    scale = np.sqrt((n**2 - (table.sum(-1) ** 2).sum(-1)) * (n**2 - (table.sum(-2) ** 2).sum(-1)))
    return _ratio(2 * concordance, scale)


def _icc_from_table(table: FloatArray) -> dict[str, FloatArray]:
    """The ICCs of two raters: positions of gold and verdict."""
    position = np.arange(table.shape[-1], dtype=np.float64)
    n = table.sum((-2, -1))
    # Mean and difference of two ratings carry all sums of squares: no loop over cases is needed.
    total, gap = np.add.outer(position, position), np.subtract.outer(position, position)
    sums = {
        name: np.einsum("...ij,ij->...", table, values)
        for name, values in {"t": total, "tt": total**2, "g": gap, "gg": gap**2}.items()
    }
    # All scaled by 2n, so that whole counts stay whole and a case without variance gives an exact zero.
    between = n * sums["tt"] - sums["t"] ** 2
    within = n * sums["gg"]
    raters = sums["g"] ** 2
    return icc_from_squares(between, within, raters, n, 2)


def icc_from_squares(
    between: FloatArray, within: FloatArray, raters: FloatArray, n: FloatArray, k: int
) -> dict[str, FloatArray]:
    """ICCs from sums of squares between cases, within cases and between raters (one common scale for all three)."""
    # nan spreads from here: with one case there is no variance between cases.
    n = np.where(n >= 2, n, np.nan)
    cases_ms, within_ms, raters_ms = between / (n - 1), within / (n * (k - 1)), raters / (k - 1)
    error_ms = (within - raters) / ((n - 1) * (k - 1))
    return {
        "icc_1_1": _ratio(cases_ms - within_ms, cases_ms + (k - 1) * within_ms),
        "icc_2_1": _ratio(cases_ms - error_ms, cases_ms + (k - 1) * error_ms + k * (raters_ms - error_ms) / n),
        "icc_3_1": _ratio(cases_ms - error_ms, cases_ms + (k - 1) * error_ms),
    }
