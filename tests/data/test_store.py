"""Splits come back as they were written, and a damaged one says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medjudge.data.store import read_split, write_split
from medjudge.errors import DataError
from medjudge.records import Case

CASES = (
    Case(
        "a",
        {"question": "Où ?\u2028Là\u0085\r\n", "evidence": "☢ 0.1-1mSv"},
        "1",
        "parce que",
        "g1",
        {"generator": "x"},
    ),
    Case("b", {"question": "?"}),
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_split(path, CASES)
    assert read_split(path) == CASES
    write_split(path, iter(CASES[:1]))
    assert read_split(path) == CASES[:1]
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]  # nothing temporary is left


def test_half_a_surrogate_pair_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    cases = (Case("c", {"question": "\ud800 and text"}),)
    write_split(path, cases)
    assert read_split(path) == cases


def test_an_empty_split(tmp_path: Path) -> None:
    write_split(tmp_path / "test.jsonl", [])
    assert read_split(tmp_path / "test.jsonl") == ()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_split(path, CASES)

    def broken() -> Iterator[Case]:
        yield CASES[0]
        raise OSError("the source broke off")

    with pytest.raises(OSError, match="broke off"):
        write_split(path, broken())
    assert read_split(path) == CASES
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize(
    "content", [b"{", b'{"case_id": "a"}\n', b'{"case_id": "a", "inputs": {}, "odd": 1}\n', b"\xff\n", b"3\n"]
)
def test_damage(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        read_split(path)


def test_a_missing_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Run the prepare stage first"):
        read_split(tmp_path / "test.jsonl")
