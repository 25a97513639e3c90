import numpy as np
import pytest

from medjudge.errors import DataError
from medjudge.metrics.baselines import (
    BASELINES,
    always_positive,
    chance,
    chance_accuracy,
    majority,
    trivial_baselines,
    word_counts,
)
from medjudge.metrics.classification import classification_metrics, code_outcomes
from medjudge.records import Case

LABELS = ("0", "1")
TRAIN = [
    Case(f"t{i}", {"q": f"fever cough {word}", "note": "seen today"}, gold=gold)
    for i, (word, gold) in enumerate([("severe", "1"), ("severe pain", "1"), ("mild", "0"), ("mild pain", "0")] * 3)
]
HELD_OUT = [Case("h0", {"q": "severe"}, gold="1"), Case("h1", {"q": "mild"}, gold="0"), Case("h2", {"q": "mild"})]


def labels_of(judgements):
    return [judgement.label for judgement in judgements]


def test_majority_takes_the_training_labels_and_the_first_of_equals():
    assert labels_of(majority([*TRAIN, Case("x", {}, gold="1")], HELD_OUT, labels=LABELS)) == ["1"] * 3
    assert labels_of(majority(TRAIN, HELD_OUT, labels=LABELS)) == ["0"] * 3
    assert labels_of(majority(TRAIN, HELD_OUT, labels=("1", "0"))) == ["1"] * 3


def test_always_positive_f1_is_2p_over_1_plus_p():
    cases = [Case(str(i), {}, gold="1" if i < 3 else "0") for i in range(10)]
    outcomes = code_outcomes(cases, always_positive(cases, positive="1"), labels=LABELS, positive="1")
    assert classification_metrics(outcomes)["f1_positive"] == pytest.approx(2 * 0.3 / 1.3)


def test_chance_is_seeded_uniform_and_has_the_stated_accuracy():
    cases = [Case(str(i), {}, gold="a") for i in range(20_000)]  # imbalance does not matter
    labels = ("a", "b", "c", "d")
    drawn = chance(cases, labels=labels, rng=np.random.default_rng(1))
    assert drawn == chance(cases, labels=labels, rng=np.random.default_rng(1))
    accuracy = classification_metrics(code_outcomes(cases, drawn, labels=labels))["accuracy"]
    assert chance_accuracy(labels) == 0.25
    assert accuracy == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 20_000) ** 0.5)


def test_word_counts_learns_from_training_rows_only():
    answers = word_counts(TRAIN, HELD_OUT)
    assert labels_of(answers) == ["1", "0", "0"]
    assert all(0.5 <= answer.confidence <= 1 for answer in answers)
    # A held-out case is judged alike whatever stands beside it: nothing is fitted on held-out rows.
    assert word_counts(TRAIN, HELD_OUT[:1]) == answers[:1]


def test_word_counts_with_words_that_never_recur():
    train = [Case("a", {"q": "alpha"}, gold="0"), Case("b", {"q": "beta"}, gold="1")]
    assert labels_of(word_counts(train, [Case("c", {"q": "beta"})])) == ["1"]
    assert word_counts(train, []) == []


def test_every_baseline_answers_every_case():
    baselines = trivial_baselines(TRAIN, HELD_OUT, labels=LABELS, positive="1", rng=np.random.default_rng(0))
    assert set(baselines.judgements) == set(BASELINES)
    assert not baselines.skipped
    for answers in baselines.judgements.values():
        assert [answer.case_id for answer in answers] == ["h0", "h1", "h2"]


@pytest.mark.parametrize(
    ("train", "skipped"),
    [
        ([], {"majority", "word_counts"}),
        ([Case("x", {"q": "y"})], {"majority", "word_counts"}),
        ([Case("x", {"q": "fever"}, gold="1")] * 3, {"word_counts"}),  # one label
        ([Case("x", {"q": "?!"}, gold="1"), Case("y", {"q": ""}, gold="0")], {"word_counts"}),  # no words
    ],
)
def test_a_baseline_that_cannot_be_made_is_left_out_with_its_reason(train, skipped):
    baselines = trivial_baselines(train, HELD_OUT, labels=LABELS, positive=None, rng=np.random.default_rng(0))
    assert set(baselines.skipped) == skipped
    assert all("baseline needs" in reason for reason in baselines.skipped.values())
    assert "always_positive" not in baselines.judgements


def test_no_labels():
    with pytest.raises(DataError, match="empty label set"):
        chance_accuracy(())
