"""Rows of every format become cases; bad rows are named by place and field, and no message shows text of a row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.shared_data import require_shared

from medjudge.data import rows as rows_module
from medjudge.data.rows import builtin_names, source_files
from medjudge.data.sources import parse_fields, parse_where, plain, read_source
from medjudge.errors import ConfigError, DataError
from medjudge.settings.data import DataConfig
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract

TASK = EquivalenceContract(language="fr")
ROWS: list[dict[str, Any]] = [
    {"question": "Quel vaccin ?", "reference": "ROR", "candidate": "Le ROR", "label": 1, "generator": "a"},
    {"question": "Quel vaccin ?", "reference": "ROR", "candidate": "BCG", "label": 0, "generator": "b"},
    {"question": "Quelle dose ?", "reference": "5 mg", "candidate": '5\nmg, "oui"', "label": 1, "generator": "a"},
]


def json_lines(path: Path, rows: list[dict[str, Any]], *, end: str = "\n", bom: bool = False) -> Path:
    text = end.join(json.dumps(row, ensure_ascii=False) for row in rows) + end
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    return path


def with_csv(path: Path, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    import csv

    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def with_gzip(path: Path, plain_path: Path) -> Path:
    path.write_bytes(gzip.compress(plain_path.read_bytes()))
    return path


def with_parquet(path: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def with_datasets(path: Path, *, splits: int = 0) -> Path:
    import datasets

    dataset = datasets.Dataset.from_list(ROWS)
    saved = datasets.DatasetDict({f"part{i}": dataset for i in range(splits)}) if splits else dataset
    saved.save_to_disk(str(path))
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


FORMATS = {
    "jsonl": lambda d: json_lines(d / "r.jsonl", ROWS),
    "jsonl with BOM": lambda d: json_lines(d / "r.jsonl", ROWS, bom=True),
    "jsonl with CRLF": lambda d: json_lines(d / "r.jsonl", ROWS, end="\r\n"),
    "jsonl with blank lines": lambda d: json_lines(d / "r.jsonl", ROWS, end="\n\n"),
    "jsonl.gz": lambda d: with_gzip(d / "r.jsonl.gz", json_lines(d / "r.jsonl", ROWS)),
    "json": lambda d: written(d / "r.json", json.dumps(ROWS)),
    "json with data": lambda d: written(d / "r.json", json.dumps({"data": ROWS, "version": 1})),
    "csv": lambda d: with_csv(d / "r.csv"),
    "csv with BOM and semicolons": lambda d: with_csv(d / "r.csv", ";", "utf-8-sig"),
    "csv.gz": lambda d: with_gzip(d / "r.csv.gz", with_csv(d / "r.csv")),
    "tsv": lambda d: with_csv(d / "r.tsv", "\t"),
    "parquet": lambda d: with_parquet(d / "r.parquet"),
    "datasets folder": lambda d: with_datasets(d / "saved"),
    "datasets folder with one split": lambda d: with_datasets(d / "saved", splits=1),
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_cases(form: str, tmp_path: Path) -> None:
    source = FORMATS[form](tmp_path)
    table = read_source(str(source), TASK, DataConfig(slices=("generator",)))
    assert [dict(case.inputs) for case in table.cases] == [
        {name: row[name] for name in ("question", "reference", "candidate")} for row in ROWS
    ]
    assert [case.gold for case in table.cases] == ["1", "0", "1"]
    assert [case.slices["generator"] for case in table.cases] == ["a", "b", "a"]
    assert (table.n_rows, table.n_filtered, table.n_duplicates, table.rejected) == (3, 0, 0, ())
    # The id is made of the inputs, so that it is the same whatever the format.
    assert [case.case_id for case in table.cases] == [
        case.case_id for case in read_source(str(json_lines(tmp_path / "x.jsonl", ROWS)), TASK).cases
    ]


def test_groups_are_hashes_of_normalised_values(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[1], "question": "  quel VACCIN?"}, ROWS[2]]
    groups = [case.group for case in read_source(str(json_lines(tmp_path / "r.jsonl", rows)), TASK).cases]
    assert groups[0] == groups[1] != groups[2]
    assert all(len(group) == 12 and int(group, 16) >= 0 for group in groups)


def test_group_by_column_field_and_missing_value(tmp_path: Path) -> None:
    rows = [
        {**row, "patient": patient, "q": row["question"]} for row, patient in zip(ROWS, ["p1", None, None], strict=True)
    ]
    source = str(json_lines(tmp_path / "r.jsonl", rows))
    by_patient = [case.group for case in read_source(source, TASK, DataConfig(group_by=("patient",))).cases]
    assert len(set(by_patient)) == 3  # two rows without a patient are not one patient
    by_both = [case.group for case in read_source(source, TASK, DataConfig(group_by=("question", "generator"))).cases]
    assert len(set(by_both)) == 3
    for row in rows:
        del row["question"]
    mapped = read_source(
        str(json_lines(tmp_path / "m.jsonl", rows)), TASK, DataConfig(fields={"question": "q"}, group_by=("question",))
    )
    assert len({case.group for case in mapped.cases}) == 2


def test_fields_values_and_nested_columns(tmp_path: Path) -> None:
    rows = [
        {"stem": "Which ?", "options": {"A": "x", "B": "y", "C": "z", "D": "w"}, "key": ["second", "b"]},
        {"stem": "What ?", "options": {"A": "x", "B": "y", "C": "z", "D": "w"}, "key": ["first", "a"]},
    ]
    fields = {"question": "stem", "cop": "key.0"} | {f"op{letter.lower()}": f"options.{letter}" for letter in "ABCD"}
    table = read_source(
        str(json_lines(tmp_path / "r.jsonl", rows)),
        McqContract(),
        DataConfig(fields=fields, values={"cop": {"first": "A", "second": "B"}}),
    )
    assert [case.gold for case in table.cases] == ["B", "A"]
    assert table.cases[0].inputs["opd"] == "w"


def test_a_field_of_several_columns(tmp_path: Path) -> None:
    rows = [
        {"stem": "Which ?", "site": {"name": "knee"}, "answer": "a", "output": "b", "why": "near"},
        {"stem": "Which ?", "site": {"name": "hip"}, "answer": "a", "output": "b", "why": None},
        {"stem": "Which ?", "site": {"name": "hip"}, "answer": "a", "output": "c"},
    ]
    fields = {"question": "{stem} ({site.name})", "reference": "answer", "candidate": "output", "reason": "So: {why}."}
    table = read_source(
        str(json_lines(tmp_path / "r.jsonl", rows)), TASK, DataConfig(fields=fields, group_by=("question",))
    )
    assert [case.inputs["question"] for case in table.cases] == ["Which ? (knee)", "Which ? (hip)", "Which ? (hip)"]
    assert [case.reason for case in table.cases] == ["So: near.", None, None]
    knee, *hips = (case.group for case in table.cases)
    assert knee not in hips
    assert len(set(hips)) == 1


def test_a_column_that_is_named_with_braces(tmp_path: Path) -> None:
    rows = [{"{stem}": "Which ?", "reference": "a", "candidate": "b"}]
    table = read_source(str(json_lines(tmp_path / "r.jsonl", rows)), TASK, DataConfig(fields={"question": "{stem}"}))
    assert table.cases[0].inputs["question"] == "Which ?"


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({"split": "train"}, 2),
        ({"agrees": True}, 1),
        ({"agrees": "true"}, 1),
        ({"n": 3}, 2),
        ({"n": "3"}, 2),
        ({"n": 3.0, "split": "train"}, 1),
        ({"agrees": None}, 1),
        ({}, 3),
    ],
)
def test_where_compares_as_text(where: dict[str, Any], kept: int, tmp_path: Path) -> None:
    extra = [
        {"split": "train", "agrees": True, "n": 3},
        {"split": "train", "agrees": False, "n": 4},
        {"split": "eval", "agrees": None, "n": 3.0},
    ]
    source = json_lines(tmp_path / "r.jsonl", [row | more for row, more in zip(ROWS, extra, strict=True)])
    table = read_source(str(source), TASK, DataConfig(where=where))
    assert (len(table.cases), table.n_filtered) == (kept, 3 - kept)


def test_max_rows_counts_rows_that_pass_where(tmp_path: Path) -> None:
    source = str(json_lines(tmp_path / "r.jsonl", ROWS))
    assert [case.gold for case in read_source(source, TASK, DataConfig(max_rows=2)).cases] == ["1", "0"]
    assert [
        case.gold for case in read_source(source, TASK, DataConfig(max_rows=1, where={"generator": "b"})).cases
    ] == ["0"]


def test_ids_of_repeated_inputs_get_numbers(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[0], "label": 0}, ROWS[0]]
    source = str(json_lines(tmp_path / "r.jsonl", rows))
    dropped = read_source(source, TASK)
    base = dropped.cases[0].case_id
    assert len(base) == 16
    assert [case.case_id for case in dropped.cases] == [base, f"{base}-2"]  # the label differs: no duplicate
    assert dropped.n_duplicates == 1
    kept = read_source(source, TASK, DataConfig(duplicates="keep"))
    assert [case.case_id for case in kept.cases] == [base, f"{base}-2", f"{base}-3"]
    assert kept.n_duplicates == 1
    with pytest.raises(DataError, match=r"1 of 3 rows repeat .*r\.jsonl:3 repeats .*r\.jsonl:1"):
        read_source(source, TASK, DataConfig(duplicates="refuse"))


def test_case_id_column(tmp_path: Path) -> None:
    rows = [{**row, "id": 10 + n} for n, row in enumerate(ROWS)]
    source = str(json_lines(tmp_path / "r.jsonl", rows))
    assert [case.case_id for case in read_source(source, TASK, DataConfig(case_id="id")).cases] == ["10", "11", "12"]
    rows[2]["id"] = 10
    with pytest.raises(DataError, match=r"column 'id' should name each case once, but 2 rows share 1 ids"):
        read_source(str(json_lines(tmp_path / "r.jsonl", rows)), TASK, DataConfig(case_id="id"))
    rows[2]["id"] = None
    with pytest.raises(DataError, match=r"r\.jsonl:3: field 'id': got nothing, expected a case id"):
        read_source(str(json_lines(tmp_path / "r.jsonl", rows)), TASK, DataConfig(case_id="id"))


def test_bad_rows_are_refused_by_place_and_field_without_their_text(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[1], "label": 7, "candidate": "SECRET"}, {**ROWS[2], "candidate": None}]
    source = json_lines(tmp_path / "r.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read_source(str(source), TASK)
    message = str(caught.value)
    assert "2 of 3 rows cannot be used" in message
    assert f"{source}:2: field 'label': got int 7" in message
    assert f"{source}:3: field 'candidate': got nothing" in message
    assert 'data.bad_rows = "set_aside"' in message
    assert "SECRET" not in message


def test_bad_rows_are_set_aside(tmp_path: Path) -> None:
    source = tmp_path / "r.jsonl"
    lines = [
        json.dumps(ROWS[0]).encode(),
        b"{broken",
        json.dumps(ROWS[1]).encode(),
        b'["list"]',
        b'{"question": "\xe9"}',
    ]
    lines += [
        b'{"question": "\\ud800", "reference": "a", "candidate": "b"}',
        json.dumps({**ROWS[2], "label": "x"}).encode(),
    ]
    source.write_bytes(b"\n".join(lines))
    table = read_source(str(source), TASK, DataConfig(bad_rows="set_aside"))
    assert len(table.cases) == 2
    assert table.n_rows == 7
    assert [bad.place.rpartition(":")[2] for bad in table.rejected] == ["2", "4", "5", "6", "7"]
    reasons = [bad.reason for bad in table.rejected]
    assert "broken JSON" in reasons[0]
    assert "got list" in reasons[1]
    assert "not UTF-8 (0xe9" in reasons[2]
    assert "surrogate" in reasons[3]
    assert table.rejected[4].field == "label"


def test_many_bad_rows_are_counted_and_five_shown(tmp_path: Path) -> None:
    source = json_lines(tmp_path / "r.jsonl", [ROWS[0]] + [{**ROWS[1], "label": 7 + n} for n in range(9)])
    with pytest.raises(DataError, match=r"9 of 10 rows") as caught:
        read_source(str(source), TASK)
    assert str(caught.value).count("field 'label'") == 5
    assert "and 4 more" in str(caught.value)


def test_a_source_of_bad_rows_alone_is_an_error_even_when_set_aside(tmp_path: Path) -> None:
    source = json_lines(tmp_path / "r.jsonl", [{**ROWS[0], "label": 9}])
    with pytest.raises(DataError, match="No row can be used"):
        read_source(str(source), TASK, DataConfig(bad_rows="set_aside"))


def test_a_missing_column_is_one_error_with_the_nearest_name(tmp_path: Path) -> None:
    rows = [{"Question": r["question"], "reference": r["reference"], "candidat": r["candidate"]} for r in ROWS]
    with pytest.raises(DataError) as caught:
        read_source(str(json_lines(tmp_path / "r.jsonl", rows)), TASK, DataConfig(bad_rows="set_aside"))
    message = str(caught.value)
    assert "no column 'question' for field 'question' (did you mean `Question`?)" in message
    assert "no column 'candidate' for field 'candidate' (did you mean `candidat`?)" in message
    assert "[data.fields]" in message
    assert "--set data.fields.question=COLUMN" in message
    assert "rows cannot be used" not in message


@pytest.mark.parametrize(
    "options",
    [
        {"where": {"generatr": "a"}},
        {"group_by": ("generatr",)},
        {"slices": ("generatr",)},
        {"case_id": "generatr"},
        {"fields": {"label": "generatr"}},
        {"fields": {"reason": "{generatr}: {question}"}},
    ],
)
def test_every_option_that_names_a_column_is_checked(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'generatr'.*did you mean `generator`"):
        read_source(str(json_lines(tmp_path / "r.jsonl", ROWS)), TASK, DataConfig(**options))


@pytest.mark.parametrize("options", [{"fields": {"canditate": "x"}}, {"values": {"lable": {"a": "1"}}}])
def test_unknown_contract_fields_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not have \(did you mean `(candidate|label)`\?\)"):
        read_source(str(json_lines(tmp_path / "r.jsonl", ROWS)), TASK, DataConfig(**options))


def test_rows_without_labels_are_cases_without_gold(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "label"} for row in ROWS]
    assert [case.gold for case in read_source(str(json_lines(tmp_path / "r.jsonl", rows)), TASK).cases] == [None] * 3


def test_where_that_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`where` \(generator\) keeps none of its 3 rows"):
        read_source(str(json_lines(tmp_path / "r.jsonl", ROWS)), TASK, DataConfig(where={"generator": "z"}))


BROKEN = {
    "missing.jsonl": (None, r"does not exist"),
    "empty.jsonl": (b"", r"is empty"),
    "blank.jsonl": (b"\n\n", r"it holds no rows"),
    "utf16.jsonl": ("{}".encode("utf-16"), r"got UTF-16"),
    "not.jsonl.gz": (b"plain text", r"damaged gzip"),
    "cut.jsonl.gz": (gzip.compress(b'{"question": 1}\n' * 500)[:-20], r"damaged gzip"),
    "empty.jsonl.gz": (gzip.compress(b""), r"is empty"),
    "object.json": (b'{"rows": []}', r"got an object with keys \['rows'\], expected a list"),
    "empty.json": (b"[]", r"empty list"),
    "number.json": (b"3", r"got int"),
    "lines.json": (b'{"a": 1}\n{"a": 2}\n', r":2: broken JSON .*name it \.jsonl"),
    "latin1.json": (b'[\n{"a": "\xe9"}]', r":2: got bytes that are not UTF-8 \(0xe9\)"),
    "latin1.csv": (b"a,b\n1,2\n3,\xe9\n", r":3: got bytes that are not UTF-8"),
    "header.csv": (b"question,reference\n", r"a header and no rows"),
    "twice.csv": (b"a,a\n1,2\n", r"name each column once"),
    "quote.csv": (b'a,b\n1,"never closed\n', r"broken CSV"),
    "noise.parquet": (b"PAR1 nothing", r"not a readable parquet"),
    "rows.xlsx": (b"PK", r"not a readable Excel file"),
    "rows.xls": (b"PK", r"unknown kind of file '\.xls'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_end_in_one_message(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_source(str(path), TASK)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    json_lines(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(DataError, match=r"did you mean `rows\.jsonl`"):
        read_source(str(tmp_path / "row.jsonl"), TASK)


def test_csv_rows_of_another_width_and_quoted_newlines(tmp_path: Path) -> None:
    text = 'question,reference,candidate,label\n"two\nlines",b,c,1\nq,r\nq,r,c,0\n'
    table = read_source(str(written(tmp_path / "r.csv", text)), TASK, DataConfig(bad_rows="set_aside"))
    assert table.cases[0].inputs["question"] == "two\nlines"
    assert [case.gold for case in table.cases] == ["1", "0"]
    # The first record takes lines 2 and 3, so the short one stands in line 4.
    assert [str(bad) for bad in table.rejected] == [
        f"{tmp_path / 'r.csv'}:4: got 2 columns, expected 4 as in the header"
    ]


def test_csv_takes_fields_beyond_the_modules_own_limit(tmp_path: Path) -> None:
    source = written(tmp_path / "r.csv", f"question,reference,candidate,label\n{'x ' * 100_000},b,c,1\n")
    assert len(read_source(str(source), TASK).cases[0].inputs["question"]) == 199_999


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without a saved data set"):
        read_source(str(tmp_path), TASK)
    both = with_datasets(tmp_path / "both", splits=2)
    with pytest.raises(DataError, match=r"holds 2 splits.*both/part0"):
        read_source(str(both), TASK)
    assert len(read_source(str(both / "part1"), TASK).cases) == 3
    assert len(source_files(str(both / "part1"))) == 3  # the rows, dataset_info.json and state.json
    (tmp_path / "half").mkdir()
    written(tmp_path / "half" / "state.json", "{}")
    with pytest.raises(DataError, match="not a readable folder"):
        read_source(str(tmp_path / "half"), TASK)


def test_hub_sources_go_through_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str | None]] = []
    dataset = datasets.Dataset.from_list(ROWS)

    def load_dataset(name: str, split: str | None = None, trust_remote_code: bool = True) -> Any:
        asked.append((name, split))
        if name == "owner/gone":
            raise datasets.exceptions.DatasetNotFoundError("Dataset 'owner/gone' doesn't exist on the Hub")
        both = datasets.DatasetDict({"train": dataset, "test": dataset})
        return both[split] if split else both if name == "owner/two" else datasets.DatasetDict({"train": dataset})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(read_source("hub:owner/two:test", TASK).cases) == 3
    assert len(read_source("hub:owner/one", TASK).cases) == 3
    assert asked == [("owner/two", "test"), ("owner/one", None)]
    with pytest.raises(DataError, match=r"has 2 splits. Name one: hub:owner/two:train, hub:owner/two:test"):
        read_source("hub:owner/two", TASK)
    with pytest.raises(DataError, match=r"cannot load hub:owner/gone .*DatasetNotFoundError"):
        read_source("hub:owner/gone", TASK)
    with pytest.raises(DataError, match=r"expected `hub:owner/name"):
        read_source("hub:", TASK)
    assert source_files("hub:owner/two") == ()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("Failed to parse string: 'Mrs Example, 1951' as a scalar"), "cannot be read as rows (ValueError)"),
        (ValueError("Unknown split \"tst\". Should be one of ['train', 'test']."), "no such split, but train, test (V"),
        (ConnectionError("Couldn't reach 'Mrs Example' on the Hub (OfflineModeIsEnabled)"), "set to work offline"),
        (ConnectionError("Couldn't reach 'Mrs Example' on the Hub (LocalEntryNotFoundError)"), "cannot be reached"),
        (FileNotFoundError("Dataset 'Mrs Example' is a gated dataset on the Hub."), "it is gated, and this account"),
    ],
)
def test_what_a_library_says_of_a_hub_set_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    import datasets

    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as caught:
        read_source("hub:owner/set:tst", TASK)
    assert words in str(caught.value)
    assert "Example" not in str(caught.value)


def test_builtin_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    json_lines(tmp_path / "plain.jsonl", ROWS)
    (tmp_path / "deep").mkdir()
    with_gzip(tmp_path / "deep" / "packed.jsonl.gz", tmp_path / "plain.jsonl")
    monkeypatch.setattr(rows_module, "BUILTIN_DIR", tmp_path)
    monkeypatch.setattr(rows_module, "GENERATORS", {})
    assert builtin_names() == ["deep/packed", "plain"]
    assert len(read_source("builtin:plain", TASK).cases) == len(read_source("builtin:deep/packed", TASK).cases) == 3
    with pytest.raises(DataError, match=r"did you mean `plain`.*built-in data sets: deep/packed, plain"):
        read_source("builtin:plan", TASK)
    with pytest.raises(DataError, match="does not exist"):
        read_source("builtin:../data/plain", TASK)


def test_parse_pairs() -> None:
    assert parse_fields(["condition=topic", "label = y"]) == {"condition": "topic", "label": "y"}
    assert parse_where(["split=train"]) == {"split": "train"}
    for bad in (["condition"], ["=x"], ["a=1", "a=2"], ["a="]):
        with pytest.raises(ConfigError, match="--map takes field=column"):
            parse_fields(bad)


def test_plain_is_one_text_per_value() -> None:
    values = [None, float("nan"), True, 3, 3.0, 2.5, " x ", [1], {"b": 1, "a": 2}]
    assert [plain(v) for v in values] == ["", "", "true", "3", "3", "2.5", "x", "[1]", '{"a": 2, "b": 1}']


def test_real_rows_french_judge() -> None:
    source = str(require_shared("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl"))
    train = read_source(source, TASK, DataConfig(where={"split": "train"}))
    held_out = read_source(source, TASK, DataConfig(where={"split": "eval"}, slices=("generator",)))
    assert (len(train.cases), len(held_out.cases), train.n_rows) == (508, 300, 808)
    assert sum(case.gold == "1" for case in train.cases) == 208
    assert len({case.slices["generator"] for case in held_out.cases}) == 5


def test_real_rows_acr() -> None:
    source = str(require_shared("data", "acr_appropriateness", "acr_appropriateness.jsonl.gz"))
    with pytest.raises(DataError, match="no column 'condition' for field 'condition'"):
        read_source(source, AppropriatenessContract())
    table = read_source(source, AppropriatenessContract(), DataConfig(fields={"condition": "topic"}))
    assert len(table.cases) == 6285
    assert sum(case.gold == "May Be Appropriate" for case in table.cases) == 1547


def test_real_rows_medmcqa_counts_from_one() -> None:
    source = str(require_shared("data", "medmcqa_train", "medmcqa_train.jsonl"))
    with pytest.raises(DataError, match=r"650 of 3187 rows cannot be used"):  # D is 4, which 0-3 does not hold
        read_source(source, McqContract())
    table = read_source(source, McqContract(first_index=1))
    assert [sum(case.gold == letter for case in table.cases) for letter in "ABCD"] == [897, 848, 792, 650]
