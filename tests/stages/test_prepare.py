"""Rows on disk become split files, lint, leakage and provenance; leaks and impossible recipes stop the run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.shared_data import require_shared

from medjudge import artifacts
from medjudge.data.leakage import NOTHING_FOUND, LeakageReport
from medjudge.data.store import read_split
from medjudge.errors import ConfigError, DataError
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import StageContext
from medjudge.stages.prepare import prepare_splits, run


def rows(n: int, *, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Two candidates per question, one right and one wrong."""
    return [
        {"question": f"Question {i // 2} ?", "reference": f"R{i}", "candidate": f"C{i}", "label": i % 2, **more}
        for i in range(first, first + n)
    ]


def source(path: Path, lines: list[Any]) -> str:
    path.write_text(
        "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    return str(path)


def recipe(data: dict[str, Any], **more: Any) -> Recipe:
    tree = {"name": "t", "stages": ["prepare"], "task": {"kind": "equivalence", "language": "fr"}, "data": data}
    return recipe_from_tree({**tree, **more})


def prepared(data: dict[str, Any], out_dir: Path, **more: Any) -> dict[str, Any]:
    out_dir.mkdir(exist_ok=True)
    return run(StageContext(recipe(data, **more), out_dir, RunDir(out_dir), Console(file=io.StringIO())))


def test_one_source_is_split_and_described(tmp_path: Path) -> None:
    path = source(tmp_path / "r.jsonl", rows(100))
    out = tmp_path / "out"
    summary = prepared({"source": path}, out)
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["train.jsonl", "validation.jsonl", "test.jsonl", artifacts.LINT, artifacts.LEAKAGE, artifacts.DATA]
    )
    assert artifacts.read_json(out / artifacts.DATA) == summary
    sizes = {name: part["n_cases"] for name, part in summary["splits"].items()}
    assert sizes == {"train": 70, "validation": 10, "test": 20}
    assert sizes == {name: len(read_split(out / f"{name}.jsonl")) for name in sizes}
    assert summary["splits"]["test"]["n_groups"] == 10
    assert summary["splits"]["test"]["labels"]["1"] == {"n": 10, "share": 0.5}
    assert summary["n_unused"] == 0
    assert summary["seed"] == 42
    told = summary["sources"]["all"]
    assert (told["n_rows"], told["n_filtered"], told["n_duplicates"], told["n_rejected"]) == (100, 0, 0, 0)
    assert told["files"] == {path: artifacts.sha256_file(Path(path))}
    report = LeakageReport.from_json(artifacts.read_json(out / artifacts.LEAKAGE))
    assert [(c.train, c.held_out) for c in report.comparisons] == [("train", "validation"), ("train", "test")]
    assert report.n_leaks == 0
    assert summary["leakage"] == report.summary_line
    assert set(artifacts.read_json(out / artifacts.LINT)) == set(sizes)


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    data = {"source": source(tmp_path / "r.jsonl", rows(60)), "stratify_by": "label"}
    for name in ("one", "two"):
        prepared(data, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    planned = prepare_splits(recipe(data))
    assert planned == {name: read_split(tmp_path / "one" / f"{name}.jsonl") for name in planned}


def test_a_source_per_split(tmp_path: Path) -> None:
    data = {
        "train": source(tmp_path / "a.jsonl", rows(20)),
        "grpo": source(tmp_path / "b.jsonl", rows(10)),
        "test": source(tmp_path / "c.jsonl", rows(10, first=50)),
    }
    summary = prepared(data, tmp_path / "out")
    assert {name: part["n_cases"] for name, part in summary["splits"].items()} == {"train": 20, "grpo": 10, "test": 10}
    # GRPO may go on with cases of SFT: told, not refused.
    assert "train vs grpo: 10 of 10 held-out cases overlap (allowed here)" in summary["leakage"]


def test_a_leak_stops_the_run_unless_it_is_allowed(tmp_path: Path) -> None:
    data = {
        "train": source(tmp_path / "a.jsonl", rows(20)),
        "test": source(tmp_path / "b.jsonl", rows(10, first=16)),  # 4 of 10 stand in train
    }
    with pytest.raises(DataError, match=r"4 of 10 cases of 'test' \(40.0%\) leak from 'train'"):
        prepared(data, tmp_path / "out")
    assert not (tmp_path / "out" / "train.jsonl").exists()
    assert not (tmp_path / "out" / artifacts.DATA).exists()
    allowed = {**data, "leakage": {"allow": ["exact", "group"]}}
    assert "4 of 10 held-out cases leak (40.0%): exact 4" in prepared(allowed, tmp_path / "allowed")["leakage"]
    assert prepared({**data, "leakage": {"max_share": 0.4}}, tmp_path / "borne")["splits"]["test"]["n_cases"] == 10


def test_a_split_that_a_stage_learns_from_counts_as_training(tmp_path: Path) -> None:
    data = {"source": source(tmp_path / "r.jsonl", rows(40)), "splits": {"teach": [0, 20], "test": [20, 40]}}
    with pytest.raises(DataError, match="leak from 'teach'"):
        prepared(data, tmp_path / "out", sft={"split": "teach"})


def test_bad_rows_are_set_aside_into_a_file(tmp_path: Path) -> None:
    bad = {**rows(1, first=90)[0], "label": 7, "candidate": "SECRET"}
    path = source(tmp_path / "r.jsonl", [*rows(40), bad, "{broken\n"])
    with pytest.raises(DataError, match=r"2 of 42 rows cannot be used"):
        prepared({"source": path}, tmp_path / "refused")
    assert list((tmp_path / "refused").iterdir()) == []
    summary = prepared({"source": path, "bad_rows": "set_aside"}, tmp_path / "out")
    assert summary["sources"]["all"]["n_rejected"] == 2
    text = (tmp_path / "out" / artifacts.REJECTED).read_text(encoding="utf-8")
    rejected = [json.loads(line) for line in text.splitlines()]
    assert [(r["place"], r["field"]) for r in rejected] == [(f"{path}:41", "label"), (f"{path}:42", "")]
    assert "SECRET" not in text


def test_stratification_by_a_column_that_is_no_slice(tmp_path: Path) -> None:
    lines = [{**row, "site": "x" if i % 20 < 2 else "y"} for i, row in enumerate(rows(200))]
    data = {"source": source(tmp_path / "r.jsonl", lines), "stratify_by": "site"}
    prepared(data, tmp_path / "out")
    sites = [case.slices["site"] for case in read_split(tmp_path / "out" / "test.jsonl")]
    assert (sites.count("x"), len(sites)) == (4, 40)


@pytest.mark.parametrize(
    ("data", "more", "error", "message"),
    [
        ({}, {}, ConfigError, "names no rows: set `data.source`"),
        ({"source": "gone.jsonl"}, {}, DataError, "gone.jsonl does not exist"),
        (
            {"source": "gone.jsonl"},
            {"stages": ["prepare", "base", "sft"], "sft": {"split": "trian"}},
            ConfigError,
            "`sft.split` is 'trian'",
        ),
        (
            {"train": "gone.jsonl"},
            {"stages": ["prepare", "base", "evaluate"]},
            ConfigError,
            "`evaluate.split` is 'test', but the data give train",
        ),
    ],
)
def test_recipes_that_cannot_be_prepared(
    data: dict[str, Any], more: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        prepared(data, tmp_path / "out", **more)
    assert list((tmp_path / "out").iterdir()) == []


def test_one_label_in_train(tmp_path: Path) -> None:
    path = source(tmp_path / "r.jsonl", [{**row, "label": 1} for row in rows(20)])
    with pytest.raises(DataError, match=r"split 'train' has only the label '1'"):
        prepared({"source": path}, tmp_path / "out")


def test_real_rows_acr(tmp_path: Path) -> None:
    path = str(require_shared("data", "acr_appropriateness", "acr_appropriateness.jsonl.gz"))
    summary = prepared(
        {"source": path, "fields": {"condition": "topic"}, "group_by": ["variant"]},
        tmp_path / "out",
        task={"kind": "appropriateness", "form": "answer_only"},
    )
    assert summary["splits"]["test"]["n_cases"] >= 1200
    assert sum(part["n_groups"] for part in summary["splits"].values()) == 671
    assert NOTHING_FOUND in summary["leakage"]


def test_real_rows_french_judge_stops_as_published_and_runs_cut_by_question(tmp_path: Path) -> None:
    path = str(require_shared("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl"))
    published = {"source": path, "duplicates": "keep", "splits": {"train": [0, 500], "test": [500, 800]}}
    with pytest.raises(DataError, match=r"Found: exact \d+, \d+ with the same label; .*group"):
        prepared(published, tmp_path / "published")
    summary = prepared({"source": path, "stratify_by": "label"}, tmp_path / "clean")
    assert sum(part["n_cases"] for part in summary["splits"].values()) == 608
    assert summary["sources"]["all"]["n_duplicates"] == 200
    assert summary["leakage"].count(NOTHING_FOUND) == 1
