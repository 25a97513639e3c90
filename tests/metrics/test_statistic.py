"""A statistic with a function of its own: its value, rows and interval, and what is refused."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from medjudge.metrics.agreement import STATISTICS, agreement_estimates, agreement_statistics, statistic_n
from medjudge.metrics.classification import Outcomes, code_outcomes
from medjudge.metrics.intervals import clustered_wilson
from medjudge.metrics.statistic import Statistic
from medjudge.records import Case, Unparsed, Verdict

LABELS = ("low", "moderate", "high")


def outcomes_of(rows: list[tuple[str, str | None]], labels: tuple[str, ...] = LABELS, **settings: object) -> Outcomes:
    """rows: gold and verdict, None for an unreadable one; two rows a group."""
    cases = [Case(f"c{i}", {}, gold=gold, group=f"g{i // 2}") for i, (gold, _) in enumerate(rows)]
    judgements = [
        Unparsed(f"c{i}", "", "unreadable") if said is None else Verdict(f"c{i}", said)
        for i, (_, said) in enumerate(rows)
    ]
    return code_outcomes(cases, judgements, labels=labels, **settings)  # type: ignore[arg-type]


def random_rows(labels: tuple[str, ...], n: int = 60) -> list[tuple[str, str | None]]:
    rng = np.random.default_rng(3)
    return [(str(rng.choice(labels)), str(said) if (said := rng.choice([*labels, ""])) else None) for _ in range(n)]


def specificity_at_the_top(counts: np.ndarray) -> np.ndarray:
    others = counts[..., :-1, :]
    return 1 - others[..., counts.shape[-2] - 1].sum(-1) / others.sum((-2, -1))


def estimate_of(outcomes: Outcomes, statistic: Statistic, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(STATISTICS, "own", statistic)
    return agreement_estimates(outcomes, n_resamples=100, rng=np.random.default_rng(0))["own"]


def test_a_share_counts_its_own_rows_and_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(LABELS)
    outcomes = outcomes_of(rows, ordered=True)
    statistic = Statistic("own", "all", "ordered", low=0, proportion=True, from_counts=specificity_at_the_top)
    estimate = estimate_of(outcomes, statistic, monkeypatch)
    not_high = [(i, said != "high") for i, (gold, said) in enumerate(rows) if gold != "high"]
    by_hand = clustered_wilson([hit for _, hit in not_high], [i // 2 for i, _ in not_high], level=0.95)
    assert estimate == by_hand
    assert estimate.value == pytest.approx(agreement_statistics(outcomes)["own"])
    assert estimate.value != pytest.approx(agreement_statistics(outcomes)["accuracy"])
    assert estimate.n == statistic_n(outcomes, "own") == len(not_high) < len(rows)


def test_what_is_no_share_of_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def f1_of_the_top(counts: np.ndarray) -> np.ndarray:
        top = counts.shape[-2] - 1
        return 2 * counts[..., top, top] / (counts[..., top, :].sum(-1) + counts[..., :, top].sum(-1))

    outcomes = outcomes_of(random_rows(LABELS), ordered=True)
    with pytest.raises(ValueError, match=r"no share of rows\. Leave `proportion` out"):
        estimate_of(outcomes, Statistic("own", "all", low=0, proportion=True, from_counts=f1_of_the_top), monkeypatch)
    estimate = estimate_of(outcomes, Statistic("own", "all", low=0, from_counts=f1_of_the_top), monkeypatch)
    assert estimate.low < estimate.value < estimate.high
    assert "jackknife" in estimate.method


def test_sums_over_all_tables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = Statistic("own", from_counts=lambda counts: counts[..., 0, 0].sum() / counts.sum())
    with pytest.raises(ValueError, match=r"expected one value per table, .* Sum over the last two axes alone"):
        estimate_of(outcomes_of(random_rows(LABELS)), statistic, monkeypatch)


@pytest.mark.parametrize("positive", ["no", "yes"])
def test_the_positive_label_is_the_last(positive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sensitivity(counts: np.ndarray) -> np.ndarray:
        return counts[..., 1, 1] / counts[..., 1, :].sum(-1)

    outcomes = outcomes_of(random_rows(("no", "yes")), ("no", "yes"), positive=positive)
    statistic = Statistic("own", "all", "positive", low=0, proportion=True, from_counts=sensitivity)
    own = estimate_of(outcomes, statistic, monkeypatch)
    assert own == agreement_estimates(outcomes, n_resamples=100, rng=np.random.default_rng(0))["tpr"]


def test_what_is_undefined_is_nan_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    statistic = Statistic("own", "all", low=0, proportion=True, from_counts=specificity_at_the_top)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = estimate_of(outcomes_of([("high", "high"), ("high", None)]), statistic, monkeypatch)
    assert math.isnan(estimate.value)
    assert estimate.n == 0
