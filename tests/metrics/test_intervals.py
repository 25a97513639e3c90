import math

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.proportion import proportion_confint

from medjudge.errors import DataError
from medjudge.metrics.intervals import (
    BOOTSTRAP,
    WILSON,
    _jackknife_blocks,
    bca_interval,
    bootstrap_interval,
    bootstrap_rows,
    bootstrap_sums,
    clustered_wilson,
    design_effect,
    expanded_interval,
    jackknife_interval,
    leave_one_out,
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


def mean_of(sums):
    return {"mean": sums[..., 0] / sums[..., 1]}


def test_bca_against_scipy():
    """A skewed mean of 40 groups of one row, 60,000 resamples each: two programs within their Monte-Carlo error."""
    x = np.random.default_rng(0).exponential(1, 40)
    found = bootstrap_sums(
        np.stack([x, np.ones(40)], 1), mean_of, n_resamples=60_000, rng=np.random.default_rng(1), method="bca"
    )["mean"]
    theirs = scipy.stats.bootstrap(
        (x,), np.mean, n_resamples=60_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    assert found.method == "BCa bootstrap over groups"
    percentile = bootstrap_sums(
        np.stack([x, np.ones(40)], 1), mean_of, n_resamples=60_000, rng=np.random.default_rng(1), method="percentile"
    )["mean"]
    assert found.low > percentile.low + 0.01  # skewness pushes both ends up
    assert found.high > percentile.high + 0.02


def test_bca_without_bias_or_skewness_is_the_percentile_interval():
    draws = np.arange(-500.0, 501.0)
    assert bca_interval(0.0, draws, np.array([-1.0, 0.0, 1.0]), 0.9) == pytest.approx(percentile_interval(draws, 0.9))
    # all draws below the value: the bias is held at one draw in two, and the upper ends win
    low, high = bca_interval(1000.0, draws, np.array([-1.0, 0.0, 1.0]), 0.9)
    assert low > 400
    assert high == pytest.approx(500)
    assert all(math.isnan(end) for end in bca_interval(math.nan, draws, np.zeros(3), 0.9))


def test_expanded_by_hand():
    # 10 groups: t(.975, 9) = 2.262, times sqrt(10/9) = 2.384; normal tail .00856
    draws = np.linspace(0, 1, 100_001)
    low, high = expanded_interval(draws, 0.95, 10)
    assert (low, high) == pytest.approx((0.00856, 1 - 0.00856), abs=2e-5)
    assert expanded_interval(draws, 0.95, 10**6) == pytest.approx((0.025, 0.975), abs=1e-5)
    assert all(math.isnan(end) for end in expanded_interval(draws, 0.95, 1))


def test_jackknife_of_a_mean_is_the_t_interval():
    """On a scale that is nearly straight where the values lie, the classic t interval of a mean."""
    x = np.random.default_rng(3).normal(0, 0.01, 12)
    without = leave_one_out(np.stack([x, np.ones(12)], 1), mean_of)["mean"]
    found = jackknife_interval(float(x.mean()), without, 0.95, -1.0)
    expected = scipy.stats.t.interval(0.95, 11, loc=x.mean(), scale=x.std(ddof=1) / math.sqrt(12))
    assert found == pytest.approx(expected, rel=0.001)


@pytest.mark.parametrize(("lowest", "value"), [(0.0, 0.9), (-1.0, 0.9), (-math.inf, 0.9), (-1.0, -0.9), (0.0, 0.02)])
def test_jackknife_stays_within_the_statistics_own_ends(lowest, value):
    without = value + 0.015 * np.array([-1, 0.2, 0.3, 0.2, 0.3])
    low, high = jackknife_interval(value, without, 0.95, lowest)
    assert lowest < low < value < high < 1


def test_jackknife_says_nothing_at_an_end_or_without_spread():
    some = np.array([0.8, 0.9, 0.85])
    for value, without in [(1.0, some), (0.9, np.array([0.8, 1.0])), (0.9, np.array([0.8, math.nan])), (0.9, some[:1])]:
        assert all(math.isnan(end) for end in jackknife_interval(value, without, 0.95, 0.0))
    assert math.isnan(jackknife_interval(0.5, np.full(4, 0.5), 0.95, 0.0)[0])


def test_many_groups_are_left_out_in_blocks():
    """2,000 groups in 500 blocks: the same standard error as one by one, but for chance."""
    x = np.random.default_rng(0).normal(0, 1, 2000)
    sums = np.stack([x, np.ones(2000)], 1)
    without = leave_one_out(sums, mean_of)["mean"]
    assert len(without) == 500
    # every block leaves out four of the groups, and all blocks together leave out each group once
    assert (2000 * x.mean() - 1996 * without).sum() == pytest.approx(x.sum())
    error = math.sqrt(499 / 500 * ((without - without.mean()) ** 2).sum())
    assert error == pytest.approx(x.std() / math.sqrt(2000), rel=0.1)


@pytest.mark.parametrize("n_groups", [501, 750, 2000])
def test_the_order_of_groups_does_not_matter(n_groups):
    """Sorted by their mean, as a file may be: blocks of neighbours would be blocks of like groups."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, n_groups)
    sums = np.stack([x, rng.integers(1, 4, n_groups)], 1)
    orders = [np.argsort(x), np.argsort(-x), np.argsort(sums[:, 1], kind="stable"), rng.permutation(n_groups)]
    errors = []
    for order in orders:
        without = np.sort(leave_one_out(sums[order], mean_of)["mean"])
        errors.append(math.sqrt(((without - without.mean()) ** 2).sum()))
    assert errors == pytest.approx([errors[0]] * len(errors))
    ratio = sums[:, 0].sum() / sums[:, 1].sum()
    linearised = math.sqrt(((sums[:, 0] - ratio * sums[:, 1]) ** 2).sum()) / sums[:, 1].sum()
    assert errors[0] == pytest.approx(linearised, rel=0.15)


def test_blocks_are_not_made_of_neighbours():
    """What a statistic of weighted rows leaves out, too: its groups come in the order of a file."""
    block = _jackknife_blocks(1500)
    assert (np.bincount(block) == 3).all()
    assert np.mean(block[1:] == block[:-1]) < 0.01
    assert _jackknife_blocks(500).tolist() == list(range(500))


def test_rows_and_sums_are_resampled_alike():
    """A mean, by sums over groups and by weighted rows, from the same state of the generator."""
    rng = np.random.default_rng(4)
    groups, x = np.repeat(np.arange(20), 3), rng.normal(0, 1, 60)
    sums = np.zeros((20, 2))
    np.add.at(sums, groups, np.stack([x, np.ones(60)], 1))
    for method in ("percentile", "expanded", "bca"):
        by_sums = bootstrap_sums(sums, mean_of, n_resamples=200, rng=np.random.default_rng(5), method=method)["mean"]
        by_rows = bootstrap_rows(
            lambda w: w @ x / w.sum(1), groups, n_resamples=200, rng=np.random.default_rng(5), method=method
        )
        assert (by_sums.low, by_sums.high) == pytest.approx((by_rows.low, by_rows.high))
    assert math.isnan(bootstrap_rows(lambda w: w @ x, np.zeros(60), rng=rng).low)
    assert math.isnan(bootstrap_sums(sums[:1], mean_of, rng=rng)["mean"].low)


def test_design_effect_by_hand():
    # Four groups of two equal rows: 1 1 1 1 0 0 0 0. Eight rows carry what four do: deff = (8 - 1) / 8 * 2 * 4/3 = 7/3
    assert design_effect([1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3]) == pytest.approx(7 / 3)
    assert design_effect([1, 0, 1, 0], [0, 1, 2, 3]) == pytest.approx(1)
    assert design_effect([1, 0, 1, 0], [0, 0, 1, 1]) == 1  # less than independent counts as independent
    assert design_effect([1, 1], [0, 1]) == design_effect([], []) == design_effect([1, 0], [0, 0]) == 1


def test_wilson_over_groups():
    one = clustered_wilson([1, 1, 1, 0], level=0.95)
    assert (one.value, one.low, one.high) == pytest.approx((0.75, *proportion_confint(3, 4, method="wilson")))
    assert clustered_wilson([1, 1, 1, 0], [0, 1, 2, 3], level=0.95) == one
    # The eight rows above: 8 / (7/3), times (1.960 / t(.975, 3) = 3.182)^2 = 1.300 effective rows
    grouped = clustered_wilson([1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 2, 2, 3, 3], level=0.95)
    effective = 24 / 7 * (1.959964 / 3.182446) ** 2
    assert (grouped.low, grouped.high) == pytest.approx(proportion_confint(effective / 2, effective, method="wilson"))
    perfect = clustered_wilson([1] * 8, [0, 0, 1, 1, 2, 2, 3, 3], level=0.95)
    assert (perfect.low, perfect.high) == pytest.approx(proportion_confint(4, 4, method="wilson"))
    assert math.isnan(clustered_wilson([1, 0], [0, 0], level=0.95).low)
    assert math.isnan(clustered_wilson([], level=0.95).value)


def test_wilson_on_five_hundred_counts():
    """statsmodels' door, SciPy's own interval, and the score equation solved by its formula; none and all included."""
    rng = np.random.default_rng(0)
    for _ in range(500):
        n = int(rng.choice([1, 2, 7, 40, 900]))
        count, level = int(rng.integers(0, n + 1)), float(rng.choice([0.8, 0.9, 0.95, 0.99]))
        z = scipy.stats.norm.ppf((1 + level) / 2)
        p = count / n
        centre, reach = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        by_hand = (max((centre - reach) / (1 + z**2 / n), 0.0), min((centre + reach) / (1 + z**2 / n), 1.0))
        theirs = scipy.stats.binomtest(count, n).proportion_ci(level, method="wilson")
        found = wilson_interval(count, n, level=level)
        assert found == pytest.approx(by_hand, abs=1e-12)
        assert found == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def slow_bca(value, draws, jackknife, level):
    """Efron's interval from its words: bias from the draws below, acceleration from the jackknife, end by end."""
    kept = [d for d in draws if not math.isnan(d)]
    without = [v for v in jackknife if not math.isnan(v)]
    below = sum(d < value - 1e-9 for d in kept) + sum(abs(d - value) <= 1e-9 for d in kept) / 2
    share = min(max(below / len(kept), 0.5 / len(kept)), 1 - 0.5 / len(kept))
    bias = scipy.stats.norm.ppf(share)
    middle = sum(without) / len(without)
    cubes, squares = sum((middle - v) ** 3 for v in without), sum((middle - v) ** 2 for v in without)
    acceleration = cubes / (6 * squares**1.5) if squares else 0.0
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + scipy.stats.norm.ppf(tail)
        ends.append(np.quantile(kept, scipy.stats.norm.cdf(bias + z / (1 - acceleration * z))))
    return tuple(ends)


def test_bca_on_five_hundred_samples():
    """Skewed, tied, and some draws undefined."""
    rng = np.random.default_rng(0)
    for seed in range(500):
        x = np.round(rng.exponential(1, int(rng.integers(5, 30))), int(rng.integers(0, 4)))
        draws = rng.choice(x, (200, len(x))).mean(1)
        draws[rng.random(200) < rng.choice([0.0, 0.02])] = math.nan
        without = (x.sum() - x) / (len(x) - 1)
        level = float(rng.choice([0.8, 0.95]))
        found = bca_interval(float(x.mean()), draws, without, level)
        assert found == pytest.approx(slow_bca(float(x.mean()), draws, without, level), abs=1e-9), seed


def test_bias_corrected_jackknife_is_centred_on_the_pseudo_values():
    # On -log(1 - x): value .5 gives .6931; leaving one out gives values whose pseudo-values' mean is the centre.
    without = np.array([0.4, 0.5, 0.55, 0.52])
    moved = -np.log1p(-np.append(without, 0.5))
    centre = 4 * moved[-1] - 3 * moved[:-1].mean()
    low, high = jackknife_interval(0.5, without, 0.95, -math.inf, corrected=True)
    assert (-math.log1p(-low) - math.log1p(-high)) / 2 == pytest.approx(centre)
    plain = jackknife_interval(0.5, without, 0.95, -math.inf)
    assert -math.log1p(-high) + math.log1p(-low) == pytest.approx(-math.log1p(-plain[1]) + math.log1p(-plain[0]))
