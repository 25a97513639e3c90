"""Whether a rate depends on a factor, by permutation, whatever way the factor lies in groups of rows.

A group's rows resemble each other, so a row may change places only with a row of its own group, and a group only with
another group. Both carry information: within a group its rows' levels are compared, between groups the groups' totals.
The two comparisons are added as in the analysis of incomplete blocks, each with the weight that its noise leaves it
(Yates 1940, doi:10.1111/j.1469-1809.1940.tb02237.x, the recovery of inter-block information).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_DRAWN = 20_000_000
"""Groups drawn at most for one test, over all resamples: from 2,000 groups on there are fewer resamples than 9,999."""
MIN_RESAMPLES = 999
FIRST_LOOK = 1999
"""Draws after which a test ends whose p is then far from any claim, above `FAR`: further ones would decide nothing.
Source: Besag & Clifford (1991), doi:10.1093/biomet/78.2.301."""
FAR = 0.2
_CHUNK_ENTRIES = 2_000_000
_MAX_LISTED = 256
"""Ways to spread a group's hits over its levels that are listed; of more, they are drawn group by group."""
_MAX_COUNTED = 200
"""Rows of a group up to which drawing them one by one is faster than level by level."""
_DRAWS_PER_TABLE_ENTRY = 10
"""Groups that are shuffled in the time of one entry of a random table."""


@dataclass(frozen=True, slots=True)
class Permuted:
    """A permutation test of k - 1 contrasts."""

    statistic: float
    """A score statistic, by its permutation covariance; near chi-square with k - 1 degrees of freedom for many rows."""
    p: float
    within: bool
    """Whether rows were permuted within groups: some group holds several levels and both outcomes."""
    between: bool
    """Whether groups were permuted: groups differ in the share that the levels have of them."""


def intraclass_correlation(hits: FloatArray, block: IntArray) -> float:
    """The analysis-of-variance estimate of the correlation of two rows of a group, in [0, 1]; 0 where it has none.

    hits, block: (n,). Source: Donner (1986), doi:10.2307/1403259, section 2.
    """
    size = np.bincount(block).astype(np.float64)
    n, n_groups = len(hits), len(size)
    if n_groups < 2 or n == n_groups:
        return 0.0
    mean = np.bincount(block, weights=hits) / size
    between = float((size * (mean - hits.mean()) ** 2).sum()) / (n_groups - 1)
    within = float(((hits - mean[block]) ** 2).sum()) / (n - n_groups)
    # The mean group size that unequal groups are worth: Donner's n0.
    typical = (n - float((size**2).sum()) / n) / (n_groups - 1)
    spread = between + (typical - 1) * within
    return float(np.clip((between - within) / spread, 0, 1)) if spread > 0 else 0.0


def permutation_test(
    hits: FloatArray,
    cells: FloatArray,
    hit_cells: FloatArray,
    block: IntArray,
    *,
    n_resamples: int,
    rng: np.random.Generator,
) -> Permuted:
    """Whether the share of hits is the same at all k levels.

    hits, block: (n,) 0 or 1, and group codes; cells, hit_cells: (n_groups, k) rows and hits per group and level.
    Exact where groups are of one size or hold one size of every level; where sizes differ, a group's total enters
    divided by the standard deviation that its size gives it. At least `MIN_RESAMPLES` draws, at most `n_resamples`.
    """
    # A draw takes time by groups: of many groups fewer are drawn, but enough for a p of .001.
    n_resamples = int(np.clip(MAX_DRAWN // len(cells), min(MIN_RESAMPLES, n_resamples), n_resamples))
    inside, inside_covariance, noise = _within(cells, hit_cells)
    design, residual = _between(hits, cells, block)
    spread = float(residual @ residual) / max(len(residual) - 1, 1)
    covariance = np.zeros((cells.shape[1],) * 2)
    scores = np.zeros(cells.shape[1])
    within, between = noise > 0, spread > 1e-12 and float(np.abs(design).max()) > 1e-9
    if within:
        scores, covariance = scores + inside / noise, covariance + inside_covariance / noise**2
    if between:
        scores, covariance = scores + design.T @ residual / spread, covariance + design.T @ design / spread
    if not within and not between:
        return Permuted(0.0, 1.0, False, False)
    root = _inverse_root(covariance)
    seen = float(((scores @ root) ** 2).sum())
    n_drawn = n_as_large = 0
    # Two rounds: a p that is far from any claim after the first is not drawn further.
    for n in (min(FIRST_LOOK, n_resamples), max(n_resamples - FIRST_LOOK, 0)):
        draws = np.zeros((n, cells.shape[1]))
        if within:
            draws += (_drawn_within(cells, hit_cells, n, rng) - _expected(cells, hit_cells).sum(0)) / noise
        if between:
            draws += _drawn_between(design, residual, n, rng) / spread
        drawn = ((draws @ root) ** 2).sum(1)
        # Equal tables summed in another order differ in the last digits: they count as equal.
        n_as_large += int((drawn >= seen * (1 - 1e-9) - 1e-12).sum())
        n_drawn += n
        if n_as_large > FAR * n_drawn or n_drawn == n_resamples:
            break
    return Permuted(seen, (1 + n_as_large) / (1 + n_drawn), within, between)


def _inverse_root(covariance: FloatArray) -> FloatArray:
    """R with R R' the pseudo-inverse: |scores R|^2 is the score statistic."""
    values, vectors = np.linalg.eigh(covariance)
    # k levels have k - 1 contrasts, so one eigenvalue is zero up to rounding.
    kept = values > 1e-9 * max(values.max(), 1e-300)
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))


def _expected(cells: FloatArray, hit_cells: FloatArray) -> FloatArray:
    """(n_groups, k) hits that each level would have if a group's hits were spread by rows alone."""
    return np.asarray(cells * (hit_cells.sum(1) / cells.sum(1))[:, None])


def _within(cells: FloatArray, hit_cells: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """(k,) hits less those expected within groups, their (k, k) covariance, and the variance of a row in its group."""
    size, total = cells.sum(1), hit_cells.sum(1)
    mixed = (cells > 0).sum(1) > 1
    varied = total * (size - total) / size
    noise = float(varied[mixed].sum()) / max(float((size[mixed] - 1).sum()), 1.0)
    scale = np.where(mixed, varied / np.maximum(size - 1, 1), 0.0)
    covariance = np.diag(scale @ cells) - (cells * (scale / size)[:, None]).T @ cells
    return (hit_cells - _expected(cells, hit_cells)).sum(0), covariance, noise


def _between(hits: FloatArray, cells: FloatArray, block: IntArray) -> tuple[FloatArray, FloatArray]:
    """(n_groups, k) centred shares that the levels have of a group, and (n_groups,) centred standardised totals."""
    size = cells.sum(1)
    # A rate of 0 or 1 never comes here; the scale of `deviation` cancels out in the statistic.
    deviation = np.sqrt(size * (1 + (size - 1) * intraclass_correlation(hits, block)))
    weight = size / deviation
    total = np.bincount(block, weights=hits) / deviation
    residual = total - weight * (weight @ total) / (weight @ weight)
    design = cells / deviation[:, None]
    design = design - np.outer(weight, weight @ design) / (weight @ weight)
    return design - design.mean(0), residual - residual.mean()


def _drawn_between(design: FloatArray, residual: FloatArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """(n_resamples, k) scores with the groups' residuals permuted.

    Where many groups are alike, only how many of each kind meet which residual is drawn: a table with fixed margins.
    """
    values, of_value = np.unique(residual.round(12), return_inverse=True)
    kinds, of_kind = np.unique(design.round(12), axis=0, return_inverse=True)
    if len(values) * len(kinds) * _DRAWS_PER_TABLE_ENTRY < len(residual):
        sizes = np.bincount(of_kind.ravel()), np.bincount(of_value.ravel())
        return np.asarray(np.einsum("rst,sk,t->rk", _drawn_tables(*sizes, n_resamples, rng), kinds, values))
    drawn = np.empty((n_resamples, design.shape[1]))
    step = max(1, _CHUNK_ENTRIES // len(residual))
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        drawn[start : start + n] = rng.permuted(np.tile(residual, (n, 1)), axis=1) @ design
    return drawn


def _drawn_tables(rows: IntArray, columns: IntArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """(n_resamples, rows, columns) random tables with these sums, entry by entry from the hypergeometric."""
    tables = np.zeros((n_resamples, len(rows), len(columns)))
    columns_left = np.tile(columns, (n_resamples, 1))
    for row, size in enumerate(rows.tolist()):
        to_place = np.full(n_resamples, size)
        others = columns_left.sum(1)
        for column in range(len(columns)):
            others -= columns_left[:, column]
            placed = rng.hypergeometric(columns_left[:, column], others, to_place)
            tables[:, row, column] = placed
            to_place -= placed
        columns_left -= tables[:, row].astype(np.int64)
    return tables


def _drawn_within(cells: FloatArray, hit_cells: FloatArray, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """(n_resamples, k) hits of each level with every group's hits dealt anew among its rows.

    Groups with the same rows per level and as many hits are drawn together: a few multinomial draws serve any number.
    """
    kinds, count = np.unique(np.column_stack([cells, hit_cells.sum(1)]).astype(np.int64), axis=0, return_counts=True)
    drawn = np.zeros((n_resamples, cells.shape[1]))
    for kind, n_groups in zip(kinds, count.tolist(), strict=True):
        sizes, n_hits = kind[:-1], int(kind[-1])
        held = np.flatnonzero(sizes)
        if len(held) == 1 or n_hits in (0, int(sizes.sum())):
            drawn += n_groups * sizes * (n_hits / sizes.sum())
        elif math.prod((sizes[held] + 1).tolist()) <= min(_MAX_LISTED, 16 * n_groups):
            ways = np.array(list(_ways(sizes[held].tolist(), n_hits)))
            chance = np.array([math.prod(map(math.comb, sizes[held].tolist(), way)) for way in ways.tolist()], float)
            drawn[:, held] += rng.multinomial(n_groups, chance / chance.sum(), size=n_resamples) @ ways
        else:
            for _ in range(n_groups):
                drawn[:, held] += rng.multivariate_hypergeometric(
                    sizes[held],
                    n_hits,
                    size=n_resamples,
                    method="count" if sizes.sum() <= _MAX_COUNTED else "marginals",
                )
    return drawn


def _ways(sizes: list[int], n_hits: int) -> Iterator[tuple[int, ...]]:
    """All ways to spread `n_hits` over levels of these sizes."""
    return (way for way in itertools.product(*(range(size + 1) for size in sizes)) if sum(way) == n_hits)
