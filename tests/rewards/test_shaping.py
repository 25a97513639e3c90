"""Rewards that know the task, the class counts or a setting, by hand."""

from __future__ import annotations

import pytest

from medjudge.errors import ConfigError
from medjudge.rewards.composition import BatchReward, RewardContext, build_reward
from medjudge.rewards.shaping import repeated_share
from medjudge.settings.rewards import LengthSettings, RepetitionSettings, RewardSettings
from medjudge.tasks.appropriateness import LABELS, AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.rubric import RubricContract
from tests.rewards.rollouts import case, said, unread


def built(name: str, contract: TaskContract | None = None, golds: str = "", **settings: object) -> BatchReward:
    cases = [case(gold, case_id=str(i)) for i, gold in enumerate(golds)]
    return build_reward(name, RewardContext(contract or McqContract(), cases, RewardSettings(**settings)))


FIVE = RubricContract(points=5)


def test_ordinal_closeness_on_three_points() -> None:
    reward = built("ordinal", AppropriatenessContract())
    low, middle, high = (case(label) for label in LABELS)
    assert reward([said(LABELS[0], low), said(LABELS[1], low), said(LABELS[2], low)]) == [1.0, 0.5, 0.0]
    assert reward([said(LABELS[0], middle), said(LABELS[2], high), unread(high), said(LABELS[0], case(None))]) == [
        0.5,
        1.0,
        0.0,
        None,
    ]


def test_ordinal_closeness_on_five_points() -> None:
    reward = built("ordinal", FIVE)
    assert FIVE.labels == ("1", "2", "3", "4", "5")
    assert reward([said(label, case("2")) for label in FIVE.labels]) == [0.75, 1.0, 0.75, 0.5, 0.25]
    assert reward([said("1", case("5"))]) == [0.0]


def test_ordinal_needs_an_order() -> None:
    with pytest.raises(ConfigError, match="labels that lie on a scale, but those of task mcq have no order"):
        built("ordinal")


@pytest.mark.parametrize(
    ("label", "confidence", "earned"),
    [("A", 1.0, 0.0), ("A", 0.8, -0.04), ("A", 0.0, -1.0), ("B", 0.8, -0.64), ("B", 0.0, 0.0), ("B", None, -1.0)],
)
def test_brier(label: str, confidence: float | None, earned: float) -> None:
    assert built("brier")([said(label, case("A"), confidence=confidence)]) == [pytest.approx(earned)]


def test_brier_and_accuracy_are_greatest_for_the_likeliest_label_with_its_true_probability() -> None:
    # Right with probability .7 when it says p: accuracy pays .7, Brier takes .7 (1 - p)^2 + .3 p^2, least at p = .7.
    reward = built("brier")

    def expected(p: float) -> float:
        right, wrong = reward([said("A", case("A"), confidence=p), said("B", case("A"), confidence=p)])
        assert right is not None
        assert wrong is not None
        return 0.7 * (1 + right) + 0.3 * wrong

    assert max([i / 20 for i in range(21)], key=expected) == 0.7


def test_brier_edges() -> None:
    reward = built("brier", McqContract(target_confidence=0.9))
    assert reward([unread(case("A")), said("A", case(None), confidence=1.0)]) == [-1.0, None]
    assert reward.gold_tolerance == pytest.approx(0.01)
    with pytest.raises(ConfigError, match="task equivalence asks for none"):
        built("brier", EquivalenceContract())


@pytest.mark.parametrize(("n", "earned"), [(1, 0), (100, 0), (125, -0.5), (150, -1), (10_000, -1)])
def test_length_in_tokens(n: int, earned: float) -> None:
    reward = built("length", length=LengthSettings(target=100, fade=50))
    assert reward([said("A", case(), n_tokens=n)]) == [earned]


def test_length_in_words_falls_over_as_much_again() -> None:
    reward = built("length", length=LengthSettings(target=4, unit="words"))
    texts = ["", "a b c d", "a b c d e", "a b c d e f g h i"]
    assert reward([said("A", case(), text=text) for text in texts]) == [0, 0, -0.25, -1]


@pytest.mark.parametrize(
    ("text", "share"),
    [("", 0.0), ("a b", 0.0), ("a b c d", 0.0), ("a b a b a b", 0.6), ("no no no no no", 0.75)],
)
def test_repeated_share(text: str, share: float) -> None:
    # "a b a b a b" has the 2-grams ab ba ab ba ab: 2 of 5 are new. "no" five times: 1 of 4.
    assert repeated_share(text, 2) == pytest.approx(share)


def test_repetition_costs_what_lies_above_the_share_that_is_allowed() -> None:
    reward = built("repetition", repetition=RepetitionSettings(ngram=2, allowed=0.2))
    texts = ["a b c", "a b a b a b", "no " * 5000]
    assert reward([said("A", case(), text=text) for text in texts]) == [
        0.0,
        pytest.approx(-0.5),
        pytest.approx(-1, abs=1e-3),
    ]


def test_balanced_pays_every_class_the_same_over_the_training_split() -> None:
    golds = "AAAAAABBBC"  # 6, 3, 1 of 10 and no D: 10 / (3 x 6), 10 / (3 x 3), 10 / (3 x 1)
    reward = built("balanced", golds=golds)
    assert [reward.most(case(label)) for label in "ABC"] == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    cases = [case(gold) for gold in golds]
    paid = reward([said(about.gold or "", about) for about in cases])
    by_class = {label: sum(p or 0 for p, gold in zip(paid, golds, strict=True) if gold == label) for label in "ABC"}
    assert by_class == pytest.approx(dict.fromkeys("ABC", 10 / 3))
    for constant in "ABC":  # the balanced accuracy of one and the same answer is 1/3
        assert sum(p or 0 for p in reward([said(constant, about) for about in cases])) / 10 == pytest.approx(1 / 3)
    assert reward([unread(case("C")), said("A", case("C")), said("A", case(None))]) == [0.0, 0.0, None]
    assert (reward.minimum, reward.maximum) == (0.0, pytest.approx(10 / 3))
