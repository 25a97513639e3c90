import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from medjudge.errors import DataError
from medjudge.metrics.classification import (
    classification_metrics,
    code_outcomes,
    confusion_counts,
    count_options,
    group_counts,
    metric_n,
    metrics_from_counts,
    per_class_metrics,
)
from medjudge.records import Case, Unparsed, Verdict


def make_cases(gold, groups=None):
    groups = groups or [""] * len(gold)
    return [
        Case(f"c{i}", {"q": "x"}, gold=g, group=group) for i, (g, group) in enumerate(zip(gold, groups, strict=True))
    ]


def make_judgements(predicted):
    """`None`: unreadable content; `"!"`: unreadable form; anything else is a label."""
    return [
        Unparsed(f"c{i}", "??", "no answer", kind="schema" if p is None else "format")
        if p in (None, "!")
        else Verdict(f"c{i}", p)
        for i, p in enumerate(predicted)
    ]


def outcomes_of(gold, predicted, labels=("a", "b", "c"), groups=None, **options):
    return code_outcomes(make_cases(gold, groups), make_judgements(predicted), labels=labels, **options)


def test_metrics_by_hand():
    #  gold       a  a  a  b  b  c
    #  judge      a  a  b  b  -  !      "-" content unreadable, "!" not JSON
    outcomes = outcomes_of("aaabbc", ["a", "a", "b", "b", None, "!"], ordered=True, answer_is_json=True)
    metrics = classification_metrics(outcomes)
    assert metrics["accuracy"] == pytest.approx(3 / 6)
    assert metrics["valid_json_rate"] == pytest.approx(5 / 6)
    assert metrics["schema_pass_rate"] == pytest.approx(4 / 6)
    assert metrics["accuracy_on_schema"] == pytest.approx(3 / 4)
    # F1 = 2 hits / (gold + given): a 2*2/(3+2) = .8, b 2*1/(2+2) = .5, c 0/(1+0) = 0
    assert metrics["macro_f1"] == pytest.approx((0.8 + 0.5 + 0) / 3)
    assert metrics["weighted_f1"] == pytest.approx((3 * 0.8 + 2 * 0.5 + 0) / 6)
    # Read rows: gold 0 0 0 1, judge 0 0 1 1: r = (4*1 - 1*2) / sqrt((4*1 - 1) (4*2 - 4)) = 2 / sqrt(12)
    assert metrics["pearson"] == pytest.approx(2 / 12**0.5)
    assert metric_n(outcomes, "pearson") == 4
    assert metric_n(outcomes, "accuracy_on_schema") == 4
    assert metric_n(outcomes, "accuracy") == 6
    assert confusion_counts(outcomes).tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]]
    per_class = per_class_metrics(outcomes)
    assert per_class["a"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert np.isnan(per_class["c"]["precision"])  # never given
    assert per_class["c"]["f1"] == 0


def test_positive_f1_by_hand():
    # 2 hits on "1", 3 gold, 4 given: 2*2/(3+4)
    outcomes = outcomes_of("11100", ["1", "1", None, "1", "1"], labels=("0", "1"), positive="1")
    metrics = classification_metrics(outcomes)
    assert metrics["f1_positive"] == pytest.approx(4 / 7)
    assert "pearson" not in metrics
    assert "valid_json_rate" not in metrics


def random_case(seed):
    rng = np.random.default_rng(seed)
    labels = tuple("abcde"[: rng.integers(2, 6)])
    n = int(rng.integers(1, 40))
    share_none = rng.choice([0.0, 0.3, 1.0], p=[0.4, 0.5, 0.1])
    gold = rng.choice(labels[: rng.integers(1, len(labels) + 1)], n)  # often fewer labels than there could be
    right = rng.random(n) < rng.random()
    said = np.where(right, gold, rng.choice(labels, n))
    unread = rng.random(n) < share_none
    predicted = [(None if rng.random() < 0.5 else "!") if u else str(s) for u, s in zip(unread, said, strict=True)]
    groups = [f"g{g}" for g in rng.integers(0, 8, n)]
    positive = labels[-1] if len(labels) == 2 else None
    return (
        outcomes_of(
            [str(g) for g in gold],
            predicted,
            labels=labels,
            groups=groups,
            ordered=True,
            answer_is_json=True,
            positive=positive,
        ),
        [str(g) for g in gold],
        predicted,
        labels,
    )


@pytest.mark.parametrize("block", range(4))
def test_equal_to_scikit_learn_and_scipy_on_random_cases(block):
    """From the labels themselves, None as a class of its own; and the tables give the same as the labels."""
    for seed in range(50 * block, 50 * block + 50):
        outcomes, gold, predicted, labels = random_case(seed)
        metrics = classification_metrics(outcomes)
        said = [p if p in labels else "none" for p in predicted]
        assert metrics["accuracy"] == pytest.approx(accuracy_score(gold, said))
        occurring = sorted(set(gold) | (set(said) - {"none"}))
        for average in ("macro", "weighted"):
            expected = f1_score(gold, said, labels=occurring, average=average, zero_division=0)
            assert metrics[f"{average}_f1"] == pytest.approx(expected)
        expected_counts = confusion_matrix(gold, said, labels=[*labels, "none"])[:-1]
        assert confusion_counts(outcomes).tolist() == expected_counts.tolist()
        precision, recall, f1, support = precision_recall_fscore_support(
            gold, said, labels=list(labels), average=None, zero_division=0
        )
        for i, label in enumerate(labels):
            row = {key: np.nan_to_num(value) for key, value in per_class_metrics(outcomes)[label].items()}
            assert row == pytest.approx(
                {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": support[i]}
            )
        read = [(labels.index(g), labels.index(s)) for g, s in zip(gold, said, strict=True) if s != "none"]
        x, y = [g for g, _ in read], [s for _, s in read]
        if len(set(x)) > 1 and len(set(y)) > 1:
            assert metrics["pearson"] == pytest.approx(pearsonr(x, y).statistic)
        else:
            assert np.isnan(metrics["pearson"])

        counted = metrics_from_counts(group_counts(outcomes).sum(0), **count_options(outcomes))
        assert list(counted) == list(metrics)
        for name, value in metrics.items():
            assert float(counted[name]) == pytest.approx(value, nan_ok=True), (seed, name)


def test_all_unparsed_counts_as_wrong_without_a_warning():
    metrics = classification_metrics(outcomes_of("ab", ["!", "!"], ordered=True, answer_is_json=True))
    assert metrics["accuracy"] == metrics["valid_json_rate"] == metrics["schema_pass_rate"] == metrics["macro_f1"] == 0
    assert np.isnan(metrics["accuracy_on_schema"])
    assert np.isnan(metrics["pearson"])


def test_one_class():
    metrics = classification_metrics(outcomes_of("aa", ["a", "a"], ordered=True))
    assert metrics["accuracy"] == metrics["macro_f1"] == 1  # labels that nowhere occur enter no average
    assert np.isnan(metrics["pearson"])


def test_joins_by_id_and_counts_what_finds_no_partner():
    cases = [Case("x", {}, gold="a"), Case("y", {}, gold="b"), Case("z", {}, gold=None)]
    answers = [Verdict("y", "b"), Verdict("z", "a"), Verdict("stranger", "a")]
    outcomes = code_outcomes(cases, answers, labels=("a", "b"))
    assert outcomes.case_ids == ("y",)
    assert outcomes.correct.tolist() == [True]
    assert outcomes.n_missing == 1
    assert outcomes.n_unmatched == 2


@pytest.mark.parametrize(
    ("cases", "judgements", "message"),
    [
        ([], [], "none of 0 cases"),
        ([Case("x", {}, gold=None)], [Verdict("x", "a")], "none of 1 cases"),
        ([Case("x", {}, gold="q")], [], "'q' is not one of"),
        ([Case("x", {}, gold="a"), Case("x", {}, gold="a")], [], "occurs twice"),
        ([Case("x", {}, gold="a")], [Verdict("x", "a"), Verdict("x", "b")], "two judgements"),
        ([Case("x", {}, gold="a")], [Verdict("x", "q")], "judged 'q'"),
    ],
)
def test_refuses_what_cannot_be_joined(cases, judgements, message):
    with pytest.raises(DataError, match=message):
        code_outcomes(cases, judgements, labels=("a", "b"))


@pytest.mark.parametrize("function", [classification_metrics, per_class_metrics, confusion_counts])
def test_no_rows_is_an_error(function):
    outcomes = code_outcomes([Case("x", {}, gold="a")], [], labels=("a", "b"))
    with pytest.raises(DataError, match="nothing to measure"):
        function(outcomes)
