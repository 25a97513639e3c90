import math
import time

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from medjudge.errors import DataError
from medjudge.metrics.intervals import (
    BOOTSTRAP,
    WILSON,
    bootstrap_interval,
    percentile_interval,
    resample_sums,
    wilson_interval,
)


def test_a_resample_draws_as_many_groups_as_there_are():
    sums = resample_sums(np.ones((7, 1)), 50, np.random.default_rng(0))
    assert (sums == 7).all()


def test_equal_to_resampling_rows_group_by_group():
    # Group totals 1, 10, 100, 1000: every resampled sum spells out how often each group was drawn.
    sums = resample_sums(np.array([[1.0], [10.0], [100.0], [1000.0]]), 400, np.random.default_rng(3))
    digits = [[int(d) for d in f"{int(s):04d}"] for s in sums[:, 0]]
    assert all(sum(row) == 4 for row in digits)
    # Each group is drawn once per resample on average, with multinomial variance 4 * 1/4 * 3/4
    counts = np.array(digits)
    assert counts.mean(0) == pytest.approx(np.ones(4), abs=0.15)
    assert counts.var(0) == pytest.approx(np.full(4, 0.75), abs=0.15)


def test_the_same_seed_gives_the_same_draws_and_chunks_do_not_matter(monkeypatch):
    table = np.random.default_rng(1).random((30, 2, 3))
    first = resample_sums(table, 100, np.random.default_rng(5))
    assert np.array_equal(first, resample_sums(table, 100, np.random.default_rng(5)))
    assert not np.array_equal(first, resample_sums(table, 100, np.random.default_rng(6)))
    monkeypatch.setattr("medjudge.metrics.intervals._CHUNK_ENTRIES", 70)
    assert np.allclose(first, resample_sums(table, 100, np.random.default_rng(5)))


def test_percentile_interval_by_hand():
    # 0..100: the central 90 % runs from 5 to 95
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5, 95))


def test_percentile_interval_with_undefined_draws():
    draws = np.arange(101.0)
    draws[:5] = math.nan  # 96 of 101 are defined: 95.05 %
    assert percentile_interval(draws, 0.9) == pytest.approx((5 + 4.75, 100 - 4.75))
    draws[:6] = math.nan
    assert all(math.isnan(end) for end in percentile_interval(draws, 0.9))


def test_an_interval_names_its_method():
    draws = np.linspace(0, 1, 101)
    assert bootstrap_interval(0.5, draws, level=0.9, n_groups=9, proportion=True).method == BOOTSTRAP
    # 0 of 10: the bootstrap would give [0, 0]. Wilson's upper end is z^2 / (n + z^2), z = 1.96: 3.84 / 13.84
    low, high, method = bootstrap_interval(0.0, np.zeros(100), level=0.95, n_groups=10, proportion=True)
    assert (low, high) == pytest.approx((0, 1.959964**2 / (10 + 1.959964**2)))
    assert method == WILSON
    assert math.isnan(bootstrap_interval(0.5, draws, level=0.9, n_groups=1, proportion=True).low)
    assert math.isnan(bootstrap_interval(0.0, np.zeros(100), level=0.9, n_groups=9, proportion=False).low)
    assert math.isnan(bootstrap_interval(math.nan, draws, level=0.9, n_groups=9, proportion=False).low)


def test_wilson_against_statsmodels():
    for count, n in [(0, 5), (3, 7), (50, 50), (26, 100)]:
        assert wilson_interval(count, n, level=0.95) == pytest.approx(proportion_confint(count, n, method="wilson"))
    assert all(math.isnan(end) for end in wilson_interval(0, 0, level=0.95))


def test_nothing_to_resample():
    with pytest.raises(DataError, match="no groups"):
        resample_sums(np.zeros((0, 2)), 10, np.random.default_rng(0))


def test_coverage_on_grouped_rows():
    """400 sets of 80 groups of 5 rows alike: resampling groups covers about 95 %, resampling rows far less."""
    rng = np.random.default_rng(11)
    covered = covered_by_rows = 0
    for _ in range(400):
        rate = np.clip(rng.normal(0.6, 0.25, 80), 0, 1)
        hits = rng.binomial(5, rate)
        truth = 0.6 - 0.0058 + 0.0007  # mean of the clipped normal: clipping at 1 costs more than at 0 gains
        groups = np.stack([hits, np.full(80, 5)], axis=1)
        drawn = resample_sums(groups, 400, rng)
        low, high = percentile_interval(drawn[:, 0] / drawn[:, 1], 0.95)
        covered += low <= truth <= high
        low, high = wilson_interval(int(hits.sum()), 400, level=0.95)
        covered_by_rows += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.975
    assert covered_by_rows < covered


def test_thousands_of_resamples_of_thousands_of_rows_are_quick():
    table = np.random.default_rng(0).random((5000, 4, 6))
    start = time.perf_counter()
    resample_sums(table, 2000, np.random.default_rng(0))
    assert time.perf_counter() - start < 5  # about 0.3 s alone on a core; the bound is for a busy machine
