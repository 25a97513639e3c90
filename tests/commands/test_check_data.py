"""`check-data`: what it finds, when it says no, and what a person sees."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medjudge.commands.check_data import CheckReport, check_data, print_check
from medjudge.errors import DataError
from medjudge.settings.data import DataConfig
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from tests.shared_data import require_shared

TASK = EquivalenceContract(language="fr")


def row(n: int, **more: Any) -> dict[str, Any]:
    return {"question": f"Question {n} ?", "reference": "R", "candidate": f"C{n}.", "label": n % 2, "part": "a", **more}


def source(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def rendered(report: CheckReport, width: int = 120) -> str:
    console = Console(file=io.StringIO(), record=True, width=width)
    print_check(report, console)
    return console.export_text()


def test_sound_rows(tmp_path: Path) -> None:
    report = check_data(source(tmp_path / "r.jsonl", [row(n) for n in range(10)]), TASK, DataConfig())
    assert report.ok
    assert report.leakage is None
    text = rendered(report)
    assert "r.jsonl: 10 rows read, 10 cases, 10 groups" in text
    assert "nothing for lint to say" in text
    assert text.rstrip().endswith("OK: no bad row; leaks were not looked for (--against PATH does)")


def test_bad_rows_are_all_listed_even_where_the_recipe_refuses(tmp_path: Path) -> None:
    lines = [row(0), row(1)] + [row(n, label=9, candidate="SECRET [red]") for n in range(2, 12)]
    path = source(tmp_path / "r.jsonl", lines)
    report = check_data(path, TASK, DataConfig(bad_rows="refuse", duplicates="refuse"))
    assert not report.ok
    assert report.n_bad_rows == 10
    text = rendered(report, width=60)
    assert all(f"{path}:{line}: field 'label': got int 9" in text for line in range(3, 13))
    assert "NOT OK: 10 bad rows" in text
    assert "SECRET" not in text


def test_leaks_against_another_file(tmp_path: Path) -> None:
    train = source(tmp_path / "train.jsonl", [row(n) for n in range(10)])
    test = source(tmp_path / "test.jsonl", [row(n, label=0) for n in range(8, 12)])
    report = check_data(train, TASK, DataConfig(), against=test)
    assert not report.ok
    assert report.n_leaks == 2
    text = rendered(report)
    assert "Held-out cases of test.jsonl that occur in train.jsonl" in text
    lines = [[cell.strip() for cell in line.split("│")] for line in text.splitlines()]
    cells = {line[1]: line[2:7] for line in lines if len(line) > 7}
    assert cells["exact"] == ["2", "50.0%", "1", "1", "2"]
    assert cells["conflict"] == ["1", "25.0%", "0", "1", "1"]
    assert cells["near-duplicate"] == ["0", "0.0%", "0", "0", "0"]
    assert "candidate 2, question 2, reference 4" in text
    assert "NOT OK: 2 of 4 held-out cases leak (50.0%)" in text


def test_allowed_kinds_and_shares(tmp_path: Path) -> None:
    train = source(tmp_path / "train.jsonl", [row(n) for n in range(10)])
    test = source(tmp_path / "test.jsonl", [row(n) for n in range(8, 12)])
    allowed = DataConfig.model_validate({"leakage": {"allow": ["exact", "group"]}})
    report = check_data(train, TASK, allowed, against=test)
    assert report.ok
    assert "exact (allowed)" in rendered(report)
    assert "OK: no bad row; no exact, normalised or near-duplicate case" in rendered(report)
    borne = check_data(train, TASK, DataConfig.model_validate({"leakage": {"max_share": 0.5}}), against=test)
    assert borne.ok
    assert "OK: no bad row; 2 of 4 held-out cases leak (50.0%, within data.leakage.max_share)" in rendered(borne)


def test_two_parts_of_one_file(tmp_path: Path) -> None:
    lines = [row(n) for n in range(10)] + [row(n, part="b") for n in range(9, 14)]
    path = source(tmp_path / "r.jsonl", lines)
    report = check_data(path, TASK, DataConfig(), against=path, where=["part=a"], against_where=["part=b"])
    assert report.n_leaks == 1
    assert report.rows.name == "r.jsonl [part=a]"
    assert report.against is not None
    assert report.against.name == "r.jsonl [part=b]"
    whole = check_data(path, TASK, DataConfig(), against=path)
    assert whole.n_leaks == 14


def test_unreadable_sources_raise(tmp_path: Path) -> None:
    good = source(tmp_path / "r.jsonl", [row(0), row(1)])
    for path, against in ((str(tmp_path / "gone.jsonl"), None), (good, str(tmp_path / "gone.jsonl"))):
        with pytest.raises(DataError, match="does not exist"):
            check_data(path, TASK, DataConfig(), against=against)


def test_real_rows_the_french_judges_leak() -> None:
    path = str(require_shared("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl"))
    report = check_data(
        path, TASK, DataConfig(slices=("generator",)), against=path, where=["split=train"], against_where=["split=eval"]
    )
    assert not report.ok
    text = rendered(report)
    assert "fr_oeqa_judge.jsonl [split=train]: 808 rows read, 508 cases, 300 left out by where" in text
    assert "│ exact          │   200 │ 66.7% │        200 │           0 │" in text
    assert "│ group          │   205 │ 68.3% │" in text
    assert "question 205" in text
    assert "NOT OK: 205 of 300 held-out cases leak (68.3%)" in text
    clean = check_data(
        path, TASK, DataConfig(), against=path, where=["split=train"], against_where=["question_in_train=false"]
    )
    assert clean.ok


def test_real_rows_an_index_that_counts_from_one() -> None:
    path = str(require_shared("data", "medmcqa_train", "medmcqa_train.jsonl"))
    report = check_data(path, McqContract(), DataConfig(max_rows=300))
    assert not report.ok
    text = rendered(report, width=160)
    assert "first_index = 1" in text  # the bad rows say it: 4 is no index from 0
    assert "A is never the answer" in text  # and so does lint
    assert check_data(path, McqContract(first_index=1), DataConfig(max_rows=300)).ok
