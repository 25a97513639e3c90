import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from medjudge.errors import DataError
from medjudge.metrics.claims import claim_of, decide
from medjudge.metrics.probes import attack_rate, consistency_result, flip_rate, probe_result, self_consistency
from medjudge.metrics.sentences import consistency_statement, flip_statement
from medjudge.records import Unparsed, Verdict

RNG = np.random.default_rng


def answers(labels):
    return {
        str(i): Unparsed(str(i), "", "none") if label is None else Verdict(str(i), label)
        for i, label in enumerate(labels)
    }


def same(n, labels="01"):
    return {str(i): {x: x for x in labels} for i in range(n)}


def test_flips_by_hand():
    before, after = answers(["0", "0", "1", "1", None, "1"]), answers(["1", "0", "0", "1", "1", None])
    found = flip_rate(before, after, same(6), {}, positive="1", n_resamples=50, rng=RNG(0))
    assert (found.n, found.n_unreadable, found.n_became_unreadable) == (4, 2, 1)
    assert found.flips.value == 0.5
    assert (found.flips.low, found.flips.high) == pytest.approx(proportion_confint(2, 4, method="wilson"))
    assert found.to_positive.value == 0  # one up, one down
    assert found.matrix == {"0": {"0": 1, "1": 1}, "1": {"0": 1, "1": 1}}


def test_a_label_that_moves_with_its_option_is_no_flip():
    before, after = answers(["A", "B"]), answers(["B", "B"])
    moved = {"A": "B", "B": "C"}
    found = flip_rate(before, after, {"0": moved, "1": moved}, {}, n_resamples=50, rng=RNG(0))
    assert found.flips.value == 0.5
    assert found.matrix == {"B": {"B": 1}, "C": {"B": 1}}
    assert found.to_positive is None


def test_only_probed_cases_count_and_groups_widen():
    n = 40
    before, after = answers(["0"] * n), answers(["1"] * 20 + ["0"] * 20)
    expected = {key: value for key, value in same(n).items() if int(key) < 30}
    apart = flip_rate(before, after, expected, {}, positive="1", rng=RNG(0))
    together = flip_rate(before, after, expected, {str(i): f"g{i // 5}" for i in range(n)}, positive="1", rng=RNG(0))
    assert apart.n == 30
    assert apart.flips.value == together.flips.value == pytest.approx(20 / 30)
    assert apart.to_positive.value == pytest.approx(20 / 30)
    assert together.flips.high - together.flips.low > 1.5 * (apart.flips.high - apart.flips.low)


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match="changed no case"):
        flip_rate({}, {}, {}, {}, rng=RNG(0))
    with pytest.raises(DataError, match="'1' was not answered"):
        flip_rate(answers(["0", "0"]), answers(["0"]), same(2), {}, rng=RNG(0))
    nothing = flip_rate(answers([None]), answers(["0"]), same(1), {}, positive="1", rng=RNG(0))
    assert (nothing.n, nothing.n_unreadable, nothing.n_became_unreadable) == (0, 1, 0)
    assert math.isnan(nothing.flips.value)


def test_self_consistency_by_hand():
    #                 two of three pairs differ   all agree    unreadable agrees with nothing
    samples = np.array([[0, 0, 1], [1, 1, 1], [1, -1, -1], [-1, -1, -1]])
    found = self_consistency(samples, np.arange(4), np.array([0, 1, 0, 1]), n_resamples=100, rng=RNG(0))
    assert (found.n, found.k, found.n_unparsed) == (4, 3, 5)
    assert found.agreement.value == pytest.approx((1 / 3 + 1 + 0 + 0) / 4)
    assert found.unanimous.value == 0.25
    assert (
        found.majority_accuracy.value == 0.5
    )  # 0 and 1 right; the third is one readable sample, wrong; the fourth none
    assert found.single_accuracy.value == pytest.approx((2 / 3 + 1 + 0 + 0) / 4)
    assert self_consistency(samples, np.arange(4), rng=RNG(0)).majority_accuracy is None
    ties = self_consistency(np.array([[1, 0], [0, 1]]), np.arange(2), np.array([0, 0]), rng=RNG(0))
    assert ties.majority_accuracy.value == 1  # the first label of equals


@pytest.mark.parametrize("samples", [np.zeros((3, 1), int), np.zeros((0, 2), int), np.zeros(3, int)])
def test_self_consistency_needs_two_samples(samples):
    with pytest.raises(DataError, match="two samples or more"):
        self_consistency(samples, np.arange(len(samples)), rng=RNG(0))


def test_all_unreadable():
    found = self_consistency(np.full((3, 2), -1), np.arange(3), np.zeros(3, int), n_resamples=20, rng=RNG(0))
    assert (found.agreement.value, found.unanimous.value, found.majority_accuracy.value) == (0, 0, 0)


def as_result(found):
    return probe_result(found, title="padding", change="two sentences", n_cases=200)


def claim_on(found):
    (claim,) = decide([claim_of("probe", ("judge",), "padding", found.shift_test)], 0.95)
    return claim


def test_flips_in_words():
    before, after = answers(["0"] * 100 + ["1"]), answers(["1"] * 10 + ["0"] * 90 + [None])
    found = as_result(flip_rate(before, after, same(101), {}, positive="1", rng=RNG(0)))
    low, high = proportion_confint(10, 100, method="wilson")
    assert flip_statement("judge", found) == (
        f"judge under 'padding': 10.0 % ({100 * low:.1f} to {100 * high:.1f}) of 100 verdicts changed; 1 answer became "
        "unreadable."
    )
    assert found.shift_test.p == pytest.approx(2**-9)  # ten cases, all one way
    assert "changed, towards positive by +10.0 points on balance (p = .002); 1" in flip_statement(
        "judge", found, claim_on(found)
    )
    assert (found.n_probed, found.n_unchanged) == (101, 99)
    back = flip_rate(answers(["1"] * 10 + ["0"] * 90), answers(["0"] * 100), same(100), {}, positive="1", rng=RNG(0))
    back = as_result(back)
    assert "away from positive by 10.0 points" in flip_statement("judge", back, claim_on(back))
    even = flip_rate(answers(["0", "1"] * 20), answers(["1", "0"] * 20), same(40), {}, positive="1", rng=RNG(0))
    even = as_result(even)
    assert "on balance" not in flip_statement("judge", even, claim_on(even))
    nothing = flip_rate(answers(["0"]), answers([None]), same(1), {}, rng=RNG(0))
    assert flip_statement("judge", as_result(nothing)) == (
        "judge under 'padding': no case was answered readably both times; 1 answer became unreadable."
    )
    stuck = flip_rate(answers(["0"] * 9), answers(["0"] * 9), same(9), {}, positive="1", rng=RNG(0))
    assert "all being '0' before and after: where a judge gives one answer only" in flip_statement(
        "judge", as_result(stuck)
    )


def test_self_consistency_in_words():
    # Three of four cases agree throughout; the fourth's two samples differ: pairs that differ 1 / 4.
    found = self_consistency(np.array([[0, 0], [1, 1], [0, 0], [0, 1]]), np.arange(4), rng=RNG(0))
    sentence = consistency_statement("judge", consistency_result(found, temperature=0.7))
    assert sentence.startswith("judge, sampled 2 times at temperature 0.7, contradicts itself in 25.0 %")
    assert sentence.endswith("n = 4; all 2 agree on 75.0 % of the cases.")


def test_an_attack_by_hand():
    """Four cases with another label than the attacker's: two reach it, one goes elsewhere; rewording moves one."""
    labels = {"a": "1", "b": "1", "c": "1", "d": "1", "e": "3", "f": "1"}
    given = {"a": "3", "b": "3", "c": "2", "d": "1", "e": "3"}
    before = {case_id: Verdict(case_id, label) for case_id, label in labels.items()}
    after = {case_id: Verdict(case_id, label) for case_id, label in given.items()} | {"f": Unparsed("f", "", "no")}
    moved = {"a": False, "b": True, "c": False, "d": False, "e": True}
    found = attack_rate(
        before, after, dict.fromkeys(labels, "3"), {}, beside=("rewording", moved), rng=np.random.default_rng(0)
    )
    assert (found.to_attacker.value, found.to_attacker.n) == (0.5, 4)  # e had the label already, f is unreadable
    assert found.to_other.value == 0.25
    assert found.beside == "rewording"
    assert found.beyond is not None
    assert found.beyond.value == 0.25  # 1, 0, 0, 0
    assert found.beyond_test is not None
    alone = attack_rate(before, after, dict.fromkeys(labels, "3"), {}, rng=np.random.default_rng(0))
    assert (alone.beside, alone.beyond, alone.beyond_test) == (None, None, None)
    assert attack_rate(before, after, {"e": "3"}, {}, rng=np.random.default_rng(0)).to_attacker.value is None
