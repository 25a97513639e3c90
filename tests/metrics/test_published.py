"""The published scheme beside ours: by hand, at its edges, and against the harness's own arithmetic."""

from __future__ import annotations

import pytest

from medjudge.metrics.published import honest_values, last_score, published_values
from medjudge.metrics.summary import AnalysisOptions, summarise
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.tasks.rubric import RubricContract

BINARY = RubricContract(points=2, criteria="c", rubric={"0": "no", "1": "yes"})
FIVE = RubricContract(points=5, criteria="c", rubric={str(n): "d" for n in range(1, 6)})


def honest(contract: RubricContract, gold: list[str], said: list[str | None]) -> dict[str, float | None]:
    cases = [Case(f"c{i}", {"output": "o"}, g) for i, g in enumerate(gold)]
    judgements: list[Judgement] = [
        Unparsed(case.case_id, "", "r") if label is None else Verdict(case.case_id, label)
        for case, label in zip(cases, said, strict=True)
    ]
    results = summarise(
        cases, {"m": judgements}, contract=contract, split="s", options=AnalysisOptions(n_resamples=100)
    )
    return {name: metric.value for name, metric in honest_values("m", results).items()}


def test_both_ways_by_hand() -> None:
    gold = ["1", "1", "1", "1", "0", "0", "0", "0", "0", "0"]
    said = ["1", "1", None, "0", "0", "0", "0", "0", "1", None]
    # Dropped: 2 of 10. Of the 8 left: TP 2, FN 1, FP 1, TN 4.
    found = published_values(gold, said, BINARY.labels)
    assert (found.n, found.n_dropped, found.is_zeroed) == (10, 2, False)
    assert found.metrics["accuracy"] == pytest.approx(6 / 8)
    assert found.metrics["precision"] == pytest.approx(2 / 3)
    assert found.metrics["recall"] == pytest.approx(2 / 3)
    assert found.metrics["f1"] == pytest.approx(2 / 3)
    # Of all 10, the unreadable positive is missed: recall 2/4, precision 2/3, F1 2*2 / (2*2 + 1 + 2).
    ours = honest(BINARY, gold, said)
    assert ours["accuracy"] == pytest.approx(6 / 10)
    assert ours["precision"] == pytest.approx(2 / 3)
    assert ours["recall"] == pytest.approx(2 / 4)
    assert ours["f1"] == pytest.approx(4 / 7)


def test_one_more_dropped_and_the_scheme_writes_zero() -> None:
    gold, said = ["1"] * 10, ["1"] * 7 + [None] * 3
    found = published_values(gold, list(said), BINARY.labels)
    assert found.is_zeroed
    assert set(found.metrics.values()) == {0.0}
    assert honest(BINARY, gold, list(said))["accuracy"] == pytest.approx(0.7)
    assert published_values(["1"], [None], BINARY.labels).is_zeroed


def test_scales_are_macro_averaged_and_correlated() -> None:
    gold, said = ["1", "2", "3", "4", "5", "5"], ["1", "3", "3", "4", "4", "5"]
    found = published_values(gold, list(said), FIVE.labels).metrics
    # F1 of 1..5: 1, 0, 2/3, 2/3, 2/3.
    assert found["f1"] == pytest.approx((1 + 0 + 3 * 2 / 3) / 5)
    ours = honest(FIVE, gold, list(said))
    assert ours["f1"] == pytest.approx(found["f1"])
    for name in ("pearson", "spearman", "kendall"):
        assert ours[name] == pytest.approx(found[name])
    # A label that nobody gave or said: 0 in the published average, no part of ours.
    few = (["1", "2", "1", "2"], ["1", "2", "2", "2"])
    assert published_values(few[0], list(few[1]), FIVE.labels).metrics["f1"] == pytest.approx((2 / 3 + 4 / 5) / 5)
    assert honest(FIVE, few[0], list(few[1]))["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_a_constant_side_has_no_correlation() -> None:
    found = published_values(["1", "2", "3"], ["4", "4", "4"], FIVE.labels)
    assert found.metrics["pearson"] is None
    assert found.metrics["accuracy"] == 0.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<feedback>f</feedback>\n<score>4</score>", "4"),
        ("<score>2</score> or rather <score> 3 </score>!", "3"),  # the last one counts, wherever it stands
        ("<score>9</score>", None),
        ("<score>3</score> <score>9</score>", None),
        ("score: 4", None),
        ("<score>4.0</score>", None),
    ],
)
def test_the_score_that_the_scheme_reads(text: str, score: str | None) -> None:
    assert last_score(text, FIVE.labels) == score
