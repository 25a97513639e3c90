"""Agreement of several experts against libraries, published numbers and loops."""

from __future__ import annotations

import math

import krippendorff
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from medjudge.metrics.agreement import gwet_ac, krippendorff_alpha
from medjudge.metrics.intervals import Estimate
from medjudge.metrics.rater_agreement import Ratings, rater_agreement


def ratings_of(table: NDArray[np.int64], n_labels: int, groups: NDArray[np.int64] | None = None) -> Ratings:
    case, rater = np.nonzero(table >= 0)
    names = tuple("abcdefgh"[: table.shape[1]])
    own = np.arange(len(table)) if groups is None else groups
    return Ratings(case, rater, table[case, rater], own, names, n_labels)


def measured(ratings: Ratings, ordered: bool = True) -> dict[str, Estimate]:
    rng = np.random.default_rng(0)
    return rater_agreement(ratings, ordered=ordered, level=0.95, n_resamples=200, rng=rng)


def drawn(share_missing: float, n_raters: int = 4, seed: int = 3) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 60)
    table = np.where(rng.random((60, n_raters)) < 0.7, truth[:, None], rng.integers(0, 4, (60, n_raters)))
    return np.asarray(np.where(rng.random(table.shape) < share_missing, -1, table))


def test_gaps_as_the_package_irrcac_has_them() -> None:
    """Values of irrCAC 0.4.4 on this table: CAC(..).gwet(), .fleiss(), .krippendorff(), identity and quadratic."""
    values = {name: one.value for name, one in measured(ratings_of(drawn(0.25), 4)).items()}
    expected = {"percent": 0.58333, "gwet_ac1": 0.44501, "fleiss_kappa": 0.44275, "gwet_ac2": 0.43895}
    expected |= {"alpha_nominal": 0.43078, "alpha_interval": 0.43328}
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_every_coefficient_by_a_library_or_a_loop(seed: int, missing: float) -> None:
    table = drawn(missing, seed=seed)
    found = {name: one.value for name, one in measured(ratings_of(table, 4)).items()}
    with_gaps = np.where(table < 0, np.nan, table.astype(float)).T
    for scale in ("nominal", "ordinal", "interval"):
        library = krippendorff.alpha(
            reliability_data=with_gaps, level_of_measurement=scale, value_domain=[0.0, 1.0, 2.0, 3.0]
        )
        assert found[f"alpha_{scale}"] == pytest.approx(library)
        assert found[f"alpha_{scale}"] == pytest.approx(krippendorff_alpha(table, 4, scale))
    assert found["gwet_ac1"] == pytest.approx(gwet_ac(table, 4))
    assert found["gwet_ac2"] == pytest.approx(gwet_ac(table, 4, "quadratic"))
    if not missing:
        assert found["fleiss_kappa"] == pytest.approx(fleiss_kappa(aggregate_raters(table)[0]))
    pairs = [
        cohen_kappa_score(table[both, a], table[both, b])
        for a in range(4)
        for b in range(a)
        if len(both := np.flatnonzero((table[:, a] >= 0) & (table[:, b] >= 0)))
    ]
    assert found["cohen_kappa"] == pytest.approx(np.mean(pairs))
    shares = []
    for row in table:
        own = row[row >= 0]
        if len(own) > 1:
            equal = [own[i] == own[j] for i in range(len(own)) for j in range(i)]
            shares.append(np.mean(equal))
    assert found["percent"] == pytest.approx(np.mean(shares))


def test_fleiss_published_example() -> None:
    """Ten subjects, 14 raters, five categories: kappa .210 (the worked example that goes with Fleiss 1971)."""
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    table = np.array([[label for label, n in enumerate(row) for _ in range(n)] for row in counts])
    case, rater = np.nonzero(table >= 0)
    ratings = Ratings(case, rater, table[case, rater], np.arange(10), tuple(map(str, range(14))), 5)
    found = measured(ratings, ordered=False)
    assert found["fleiss_kappa"].value == pytest.approx(0.210, abs=5e-4)
    assert found["percent"].value == pytest.approx(0.378, abs=5e-4)
    assert "cohen_kappa" not in found  # 91 pairs
    assert "alpha_ordinal" not in found


def test_edges() -> None:
    one_label = measured(ratings_of(np.zeros((8, 3), dtype=np.int64), 3))
    assert one_label["percent"].value == 1.0
    assert one_label["percent"].low == pytest.approx(8 / (8 + 1.96**2), abs=0.01)  # Wilson's, n = 8 groups
    assert math.isnan(one_label["fleiss_kappa"].value)
    assert math.isnan(one_label["alpha_nominal"].value)
    assert one_label["gwet_ac1"].value == 1.0
    single = measured(ratings_of(np.array([[0, -1], [-1, 1]]), 2), ordered=False)
    assert all(math.isnan(one.value) and one.n == 0 for one in single.values())


def test_groups_of_copies_count_as_one() -> None:
    """Each case five times over, as one group: the same values and the intervals of the single cases."""
    table = drawn(0.2)
    once = measured(ratings_of(table, 4))
    groups = np.repeat(np.arange(60), 5)
    copied = measured(ratings_of(np.repeat(table, 5, axis=0), 4, groups))
    for name in ("percent", "fleiss_kappa", "gwet_ac1", "cohen_kappa"):
        assert copied[name].value == pytest.approx(once[name].value)
        assert (copied[name].low, copied[name].high) == pytest.approx((once[name].low, once[name].high))


def test_intervals_cover() -> None:
    """Fleiss' kappa of three raters on 25 groups of 4: 95 % intervals hold the value of many rows in 95 % of sets."""
    rng = np.random.default_rng(8)

    def table(n_groups: int) -> NDArray[np.int64]:
        hard = rng.normal(size=n_groups).repeat(4)
        seen = hard[:, None] + 0.8 * rng.normal(size=(4 * n_groups, 1)) + rng.normal(size=(4 * n_groups, 3))
        return np.asarray((seen > 0).astype(np.int64))

    many = table(20_000)
    truth = fleiss_kappa(aggregate_raters(many)[0])
    hits = 0
    for _ in range(200):
        found = measured(ratings_of(table(25), 2, np.arange(25).repeat(4)), ordered=False)["fleiss_kappa"]
        hits += found.low <= truth <= found.high
    assert hits >= 0.9 * 200
