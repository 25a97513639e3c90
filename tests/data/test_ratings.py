"""Several experts' ratings of a case: rules, ties, and how rows of training data hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from medjudge.data.ratings import GoldRule, one_view_each, with_some_label
from medjudge.data.sources import read_source
from medjudge.data.store import Split
from medjudge.errors import ConfigError, DataError
from medjudge.records import Case
from medjudge.settings.data import DataConfig
from medjudge.settings.training import GrpoConfig, SftConfig
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.training.sft import TaughtRows, in_turn

FIVE = ("1", "2", "3", "4", "5")


def named(*labels: str) -> dict[str, str]:
    return {f"r{place}": label for place, label in enumerate(labels)}


@pytest.mark.parametrize(
    ("rule", "ratings", "left_out", "higher", "lower"),
    [
        ("majority", ("1", "1", "5"), "1", "1", "1"),
        ("majority", ("1", "5"), None, "5", "1"),
        ("majority", ("5", "1", "3"), None, "5", "1"),
        ("majority", ("4", "4", "2", "2", "1"), None, "4", "2"),
        ("mean", ("1", "1", "5"), "2", "2", "2"),  # 7/3
        ("mean", ("1", "2"), None, "2", "1"),  # 1.5
        ("mean", ("2", "3", "3", "4", "4", "5"), None, "4", "3"),  # 3.5
        ("median", ("1", "1", "5"), "1", "1", "1"),
        ("median", ("1", "3"), "2", "2", "2"),  # between the two, a label that nobody gave
        ("median", ("1", "2", "3", "5"), None, "3", "2"),
        ("majority", (), None, None, None),
    ],
)
def test_rules_by_hand(
    rule: Any, ratings: tuple[str, ...], left_out: str | None, higher: str | None, lower: str | None
) -> None:
    for ties, expected in (("leave_out", left_out), ("higher", higher), ("lower", lower)):
        assert GoldRule(FIVE, rule, ties).gold(named(*ratings)) == expected  # type: ignore[arg-type]


def test_the_adjudicated_label_stands_where_there_is_one() -> None:
    rule = GoldRule(FIVE, "adjudicated", "higher")
    assert rule.gold(named("1", "5"), "3") == "3"
    assert rule.gold(named("4", "4")) == "4"
    assert rule.gold(named("4", "5")) is None  # nobody settled it, and a side is not for this rule to take


def test_positions_want_an_order() -> None:
    with pytest.raises(ConfigError, match="labels on a scale"):
        GoldRule(("red", "green", "blue"), "median", ordered=False)
    assert GoldRule(("no", "yes"), "mean", ordered=False).gold(named("yes", "no", "yes")) == "yes"


BASE = {"question": "q", "reference": "a", "candidate": "b"}


def read(tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> Any:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_source(str(path), EquivalenceContract(), DataConfig(**settings))


def test_three_forms_give_the_same_cases(tmp_path: Path) -> None:
    votes = {"q1": (1, 1, 0), "q2": (0, 0, 0), "q3": (1, 0, None)}
    texts = {name: {**BASE, "question": name} for name in votes}
    names = ("ann", "bob", "cleo")
    columns = [{**texts[q], **dict(zip(names, three, strict=True))} for q, three in votes.items()]
    rows = [
        {**texts[q], "who": who, "label": label}
        for who, place in zip(names, range(3), strict=True)
        for q, three in votes.items()
        if (label := three[place]) is not None
    ]
    of_columns = read(tmp_path, columns, raters=names)
    of_rows = read(tmp_path, rows, rater="who")
    assert [(c.gold, c.ratings, c.group) for c in of_columns.cases] == [
        (c.gold, c.ratings, c.group) for c in of_rows.cases
    ]
    assert [c.gold for c in of_columns.cases] == ["1", "0", None]
    assert of_columns.cases[2].ratings == {"ann": "1", "bob": "0"}
    assert of_columns.n_tied == of_rows.n_tied == 1
    lists = read(tmp_path, [{**texts[q], "label": list(three)} for q, three in votes.items()], gold_ties="higher")
    assert [c.gold for c in lists.cases] == ["1", "0", "1"]
    assert lists.cases[0].ratings == {"1": "1", "2": "1", "3": "0"}
    # Each rating goes through the contract and the mapping of values.
    words = read(
        tmp_path,
        [{**BASE, "ann": "yes", "bob": "no", "cleo": "yes", "final": "no"}],
        raters=names,
        adjudicated="final",
        values={"label": {"yes": "1", "no": "0"}},
    )
    assert (words.cases[0].gold, words.cases[0].ratings["ann"]) == ("0", "1")


def test_what_is_wrong_with_ratings_is_named(tmp_path: Path) -> None:
    twice = [{**BASE, "who": "ann", "label": 1}, {**BASE, "who": "ann", "label": 0}]
    with pytest.raises(DataError, match=r"rows.jsonl:2: a rater has a second label for the case of .*rows.jsonl:1"):
        read(tmp_path, twice, rater="who")
    with pytest.raises(DataError, match="got nothing, expected the name of a rater"):
        read(tmp_path, [{**BASE, "who": "", "label": 1}], rater="who")
    with pytest.raises(DataError, match="no column 'dora'"):
        read(tmp_path, [{**BASE, "ann": 1}], raters=("ann", "dora"))
    with pytest.raises(DataError, match="expected 0 or 1"):
        read(tmp_path, [{**BASE, "ann": 1, "bob": 7}], raters=("ann", "bob"))
    with pytest.raises(ValidationError, match="got `raters` and `rater`"):
        DataConfig(raters=("a",), rater="b")
    with pytest.raises(ValidationError, match="name the column of that label"):
        DataConfig(gold_rule="adjudicated")


def test_splits_keep_ratings_and_are_as_before_without(tmp_path: Path) -> None:
    cases = [Case("a", {"q": "x"}, None, ratings={"r": "1", "s": "0"}), Case("b", {"q": "y"}, "1")]
    split = Split.of(tmp_path, "train")
    split.write(cases)
    assert list(split.read()) == cases
    lines = [json.loads(line) for line in split.path.read_text().splitlines()]
    assert ["ratings" in line for line in lines] == [True, False]


TAUGHT = [
    Case("a", {}, "1", ratings={"r": "1", "s": "1", "t": "0"}),
    Case("b", {}, None, ratings={"r": "1", "s": "0"}),
    Case("c", {}, "0", ratings={"r": "0", "s": "0"}),
    Case("d", {}, "1"),
    Case("e", {}),
]


def test_views_hold_every_rating_once() -> None:
    views = one_view_each(TAUGHT)
    assert [(view.case_id, view.case.gold, view.n) for view in views] == [
        ("a", "1", 2),
        ("a", "0", 1),
        ("b", "1", 1),
        ("b", "0", 1),
        ("c", "0", 2),
        ("d", "1", 1),
    ]
    assert len({view.case.case_id for view in views}) == len(views)
    assert with_some_label(TAUGHT[1], ("0", "1")).gold == "0"


def test_every_rating_is_a_target_or_they_take_turns() -> None:
    views = one_view_each(TAUGHT)
    rows: Any = [(view.case, f"row {view.case_id}{view.case.gold}") for view in views]
    each = TaughtRows.of_ratings(views, rows, "each")
    encoded: list[Any] = [row for _, row in each.train]
    assert encoded == ["row a1", "row a1", "row a0", "row b1", "row b0", "row c0", "row c0", "row d1"]
    drawn = TaughtRows.of_ratings(views, rows, "drawn")
    assert drawn.turns == ((0, 1, 2), (3, 4), (5, 6), (7,))
    # Six epochs: each of a's three rows is taught twice, each of b's two three times, and every case six times.
    order = in_turn([0, 1, 2, 3] * 6, drawn.turns, seed=1)
    assert [order.count(place) for place in range(8)] == [2, 2, 2, 3, 3, 3, 3, 6]
    firsts = [in_turn([1], drawn.turns, seed)[0] for seed in range(200)]
    assert 60 < firsts.count(3) < 140  # which rating comes first is drawn


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="has another label in each epoch"):
        SftConfig(ratings="drawn", class_balance="oversample")
    with pytest.raises(ValidationError, match="set `algorithm` to"):
        GrpoConfig(ratings="expected")
    assert GrpoConfig(ratings="expected", algorithm="all_action").ratings == "expected"


def test_rows_that_differ_in_a_rating_are_no_duplicates(tmp_path: Path) -> None:
    rows = [{**BASE, "a": 1, "b": 1, "c": 0}, {**BASE, "a": 1, "b": 0, "c": 1}, {**BASE, "a": 1, "b": 1, "c": 0}]
    table = read(tmp_path, rows, raters=("a", "b", "c"))
    assert (len(table.cases), table.n_duplicates) == (2, 1)
