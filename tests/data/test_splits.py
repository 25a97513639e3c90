"""Splits: whole groups, exact sizes where groups allow, the same for the same seed, and the published permutation."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from tests.shared_data import require_shared

from medjudge.data.sources import read_source
from medjudge.data.splits import split_cases
from medjudge.errors import DataError
from medjudge.records import Case
from medjudge.settings.data import DataConfig
from medjudge.tasks.appropriateness import AppropriatenessContract


def singles(n: int, *, share_positive: float = 0.5) -> list[Case]:
    return [Case(f"c{i}", {"q": str(i)}, "1" if i < n * share_positive else "0", group=f"g{i}") for i in range(n)]


def grouped(sizes: list[int]) -> list[Case]:
    return [
        Case(f"c{g}-{i}", {"q": f"{g} {i}"}, str(i % 2), group=f"g{g}")
        for g, size in enumerate(sizes)
        for i in range(size)
    ]


def ids(part: tuple[Case, ...]) -> list[str]:
    return [case.case_id for case in part]


@pytest.mark.parametrize(
    ("n", "splits", "expected"),
    [
        (10, {"one": 0.7, "validation": 0.1, "test": 0.2}, [7, 1, 2]),
        (11, {"one": 0.7, "validation": 0.1, "test": 0.2}, [8, 1, 2]),  # 7.7, 1.1, 2.2: the spare one goes to 7.7
        (10, {"one": 0.5, "test": 0.2}, [5, 2]),  # three cases are left out
        (10, {"one": 6, "test": 4}, [6, 4]),
        (10, {"one": 0.5, "test": 3}, [5, 3]),
        (3, {"one": 2, "test": 1}, [2, 1]),
        (10, {"one": 1.0}, [10]),
    ],
)
def test_sizes_by_share_and_count(n: int, splits: dict[str, float], expected: list[int]) -> None:
    for seed in range(5):
        dealt = split_cases(singles(n), splits=splits, seed=seed)
        assert [len(part) for part in dealt.values()] == expected
        assert list(dealt) == list(splits)
        together = [case_id for part in dealt.values() for case_id in ids(part)]
        assert len(set(together)) == len(together)


def test_groups_stay_whole_and_sizes_come_near() -> None:
    sizes = [random.Random(1).randint(1, 30) for _ in range(120)]
    cases = grouped(sizes)
    for seed in range(5):
        dealt = split_cases(cases, splits={"train": 0.7, "validation": 0.1, "test": 0.2}, seed=seed)
        groups = [{case.group for case in part} for part in dealt.values()]
        assert sum(map(len, groups)) == 120 == len(set.union(*groups))
        for part, share in zip(dealt.values(), (0.7, 0.1, 0.2), strict=True):
            assert len(part) == pytest.approx(share * len(cases), abs=2)


def test_same_seed_same_splits_whatever_the_order_of_rows() -> None:
    cases = grouped([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9])
    shuffled = random.Random(7).sample(cases, len(cases))
    splits = {"train": 0.6, "test": 0.4}
    first = split_cases(cases, splits=splits, seed=3, stratify_by="label")
    again = split_cases(shuffled, splits=splits, seed=3, stratify_by="label")
    assert {name: set(ids(part)) for name, part in first.items()} == {
        name: set(ids(part)) for name, part in again.items()
    }
    position = {case.case_id: n for n, case in enumerate(shuffled)}
    assert all([position[i] for i in ids(part)] == sorted(position[i] for i in ids(part)) for part in again.values())
    others = [set(ids(split_cases(cases, splits=splits, seed=seed)["test"])) for seed in range(8)]
    assert len({frozenset(other) for other in others}) > 3


def test_cases_without_a_group_are_their_own() -> None:
    cases = [Case(f"c{i}", {"q": str(i)}, str(i % 2)) for i in range(10)]
    dealt = split_cases(cases, splits={"train": 0.8, "test": 0.2}, seed=0)
    assert [len(part) for part in dealt.values()] == [8, 2]


@pytest.mark.parametrize("stratify_by", ["label", "site"])
def test_stratification_keeps_shares(stratify_by: str) -> None:
    cases = [
        Case(f"c{i}", {"q": str(i)}, "1" if i % 10 == 0 else "0", group=f"g{i}", slices={"site": str(int(i % 10 == 0))})
        for i in range(200)
    ]
    dealt = split_cases(cases, splits={"train": 0.8, "test": 0.2}, seed=1, stratify_by=stratify_by)
    # 20 of 200 are rare: 16 of 160 and 4 of 40.
    assert [Counter(case.gold for case in part)["1"] for part in dealt.values()] == [16, 4]
    assert [len(part) for part in dealt.values()] == [160, 40]


def test_ranges_are_the_permutation_of_datasets_shuffle() -> None:
    import datasets

    cases = singles(1700)
    splits = {"train": (0, 1000), "validation": (1000, 1500), "test": (1500, 1700)}
    dealt = split_cases(cases, splits=splits, seed=42)
    shuffled = datasets.Dataset.from_dict({"id": [case.case_id for case in cases]}).shuffle(seed=42)
    for name, (first, past_last) in splits.items():
        assert ids(dealt[name]) == shuffled.select(range(first, past_last))["id"]


@pytest.mark.parametrize(
    ("cases", "splits", "message"),
    [
        (singles(10), {"train": 0.9, "test": 0.01}, r"`splits.test` is 0.01 of 10 cases, which is none"),
        (singles(10), {"train": 8, "test": 3}, r"asks for 11 cases .* but there are 10"),
        (singles(10), {"train": 0.8, "test": 4}, r"asks for 12 cases"),
        (singles(10), {"train": (0, 5), "test": (5, 11)}, r"`splits.test` is \[5, 11\], but there are 10"),
        (singles(10), {"train": (0, 6), "test": (5, 9)}, r"overlap"),
        (singles(10), {}, r"names no split"),
        ([], {"train": (0, 1)}, r"there are 0 cases"),
        ([], {"train": 0.5}, r"which is none"),
        (singles(10, share_positive=0), {"train": 0.8, "test": 0.2}, r"split 'train' has only the label '0'"),
        (grouped([10]), {"train": 0.8, "test": 0.2}, r"split 'test' has no cases, expected at least one"),
        ([Case(f"c{i}", {"q": str(i)}) for i in range(4)], {"train": 0.5, "test": 0.5}, r"no label at all in 2 cases"),
    ],
)
def test_splits_that_cannot_be(cases: list[Case], splits: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_cases(cases, splits=splits, seed=0)  # type: ignore[arg-type]


def test_train_and_grpo_may_share_a_range() -> None:
    dealt = split_cases(singles(20), splits={"train": (0, 10), "grpo": (0, 10), "test": (10, 20)}, seed=0)
    assert dealt["train"] == dealt["grpo"]


def test_real_rows_acr_by_variant() -> None:
    source = str(require_shared("data", "acr_appropriateness", "acr_appropriateness.jsonl.gz"))
    cases = read_source(source, AppropriatenessContract(), DataConfig(fields={"condition": "topic"})).cases
    for stratify_by in (None, "label"):
        dealt = split_cases(
            cases, splits={"train": 0.7, "validation": 0.1, "test": 0.2}, seed=42, stratify_by=stratify_by
        )
        assert [len(part) for part in dealt.values()] == pytest.approx([4400, 628, 1257], abs=3)
        groups = [{case.group for case in part} for part in dealt.values()]
        assert not groups[0] & groups[2]
        assert not groups[0] & groups[1]
        shares = [sum(c.gold == "Usually Appropriate" for c in part) / len(part) for part in dealt.values()]
        assert shares == pytest.approx([1373 / 6285] * 3, abs=0.06 if stratify_by is None else 0.01)
