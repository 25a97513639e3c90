"""What people really feed a tool: each ends with one clear message, exit code 1 or 2, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from medjudge.cli import main
from medjudge.errors import ConfigError
from medjudge.recipe import load_recipe, variants_from_tree
from tests.models.small_models import save_base
from tests.small_runs import small_tree, write_rows, write_toml

GOOD = {"topic": "Pain", "variant": "adult, acute", "procedure": "CT", "appropriateness": "Usually Appropriate"}
PATIENT = "Jane Roe 1951"
"""A text that no message may repeat."""


def rows_file(folder: Path, text: str | bytes, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def recipe_over(folder: Path, rows: Path | str, **over: object) -> Path:
    return write_toml(folder / "r.toml", small_tree(Path(str(rows)), folder / "runs", **over))


def data_case(text: str | bytes, name: str = "rows.jsonl") -> Callable[[Path], list[str]]:
    return lambda folder: ["run", str(recipe_over(folder, rows_file(folder, text, name)))]


def check_case(text: str | bytes, *arguments: str, name: str = "rows.jsonl") -> Callable[[Path], list[str]]:
    return lambda folder: ["check-data", str(rows_file(folder, text, name)), *arguments]


def recipe_case(text: str | bytes) -> Callable[[Path], list[str]]:
    return lambda folder: ["run", str(rows_file(folder, text, "r.toml"))]


def set_case(*settings: str) -> Callable[[Path], list[str]]:
    def arguments(folder: Path) -> list[str]:
        toml = recipe_over(folder, write_rows(folder / "rows.jsonl"))
        return ["run", str(toml), *(part for setting in settings for part in ("--set", setting))]

    return arguments


def model_case(name: str, content: bytes | None) -> Callable[[Path], list[str]]:
    def arguments(folder: Path) -> list[str]:
        model = folder / "model"
        if content is not None:
            model.mkdir()
            (model / name).write_bytes(content)
        rows = write_rows(folder / "rows.jsonl")
        return [
            *("evaluate", "--task", "appropriateness", "--map", "condition=topic"),
            *("--data", str(rows), "--model", f"m={model}", "--out", str(folder / "out")),
        ]

    return arguments


def evaluate_case(*arguments: str) -> Callable[[Path], list[str]]:
    return lambda folder: ["evaluate", "--data", str(write_rows(folder / "rows.jsonl")), *arguments]


MAP = ("--task", "appropriateness", "--map", "condition=topic")
MANY = [
    GOOD | {"variant": f"v{i}", "appropriateness": ["Usually Appropriate", "May Be Appropriate"][i % 2]}
    for i in range(20)
]

CASES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    # rows
    "broken JSON line": (data_case(lines(GOOD) + '{"topic": "' + PATIENT), r"rows\.jsonl:2.*JSON"),
    "a line that is a list": (data_case(lines(GOOD) + "[1, 2]\n"), r"rows\.jsonl:2.*object"),
    "a line that is a number": (data_case("7\n"), r"rows\.jsonl:1"),
    "not UTF-8": (data_case(lines(GOOD).encode() + b'{"topic": "\xff\xfe"}\n'), r"UTF-8"),
    "UTF-16": (data_case(lines(GOOD).encode("utf-16")), r"UTF-8|JSON"),
    "empty file": (data_case(""), r"empty|no rows"),
    "blank lines only": (data_case("\n\n\n"), r"empty|no rows"),
    "missing file": (lambda f: ["run", str(recipe_over(f, f / "none.jsonl"))], r"none\.jsonl does not exist"),
    "a folder that is no data set": (lambda f: ["run", str(recipe_over(f, f))], r"folder|data set"),
    "unknown file ending": (data_case(lines(GOOD), "rows.xyz"), r"\.xyz|rows\.xyz"),
    "gzip that is cut off": (data_case(gzip.compress(lines(*MANY).encode())[:60], "rows.jsonl.gz"), r"gz|damaged|cut"),
    "gzip that is none": (data_case(lines(GOOD), "rows.jsonl.gz"), r"gzip|gz"),
    "parquet that is none": (data_case(b"PAR1 no", "rows.parquet"), r"parquet"),
    "JSON that is no list": (data_case('{"a": 1}', "rows.json"), r"rows\.json"),
    "CSV without the columns": (data_case("a,b\n1,2\n", "rows.csv"), r"topic"),
    "missing column everywhere": (data_case(lines({"topic": "a", "variant": "b", "procedure_": "c"})), r"procedure"),
    "missing field in one row": (data_case(lines(*MANY, {"topic": "a", "variant": PATIENT})), r":21.*procedure"),
    "empty field": (data_case(lines(*MANY, GOOD | {"procedure": "  "})), r":21.*procedure"),
    "number for a text": (data_case(lines(*MANY, GOOD | {"procedure": 7})), r":21.*procedure.*int 7"),
    "label off the scale": (data_case(lines(*MANY, GOOD | {"appropriateness": "Perhaps"})), r":21.*Perhaps.*one of"),
    "label of another type": (data_case(lines(*MANY, GOOD | {"appropriateness": 4})), r":21.*int 4"),
    "one class only": (data_case(lines(*[GOOD | {"variant": f"v{i}"} for i in range(20)])), r"label"),
    "no labels at all": (
        data_case(lines(*[{**GOOD, "variant": f"v{i}", "appropriateness": None} for i in range(20)])),
        r"label",
    ),
    "fewer rows than splits": (data_case(lines(GOOD)), r"split|cases"),
    "unknown builtin data set": (set_case("data.source=builtin:nothing"), r"builtin:nothing does not exist"),
    "source and split sources": (set_case("data.source=b.jsonl", "data.train=a.jsonl"), r"one `source` to be split"),
    "no source": (
        lambda f: [
            "run",
            str(write_toml(f / "r.toml", {"name": "x", "task": {"kind": "mcq"}, "runs_dir": str(f / "runs")})),
        ],
        r"names no rows",
    ),
    "filter that leaves nothing": (set_case("data.where={topic = 'Elsewhere'}"), r"where|no rows"),
    "repeated ids": (set_case("data.case_id=topic"), r"topic|repeat|twice"),
    "leak between files": (
        lambda f: [
            "run",
            str(
                recipe_over(
                    f,
                    "",
                    data={
                        "train": str(write_rows(f / "a.jsonl")),
                        "test": str(write_rows(f / "b.jsonl")),
                        "fields": {"condition": "topic"},
                    },
                    stages=["prepare"],
                )
            ),
        ],
        r"leak",
    ),
    # recipes and overrides
    "missing recipe": (lambda f: ["run", str(f / "none.toml")], r"cannot read recipe"),
    "recipe that is no TOML": (recipe_case("name = = 1"), r"not valid TOML"),
    "recipe that is not UTF-8": (recipe_case(b'name = "\xff"'), r"not UTF-8"),
    "empty recipe": (recipe_case(""), r"`name` is missing"),
    "unknown section": (recipe_case('name = "x"\n[task]\nkind = "mcq"\n[traning]\n'), r"unknown key `traning`"),
    "unknown task": (recipe_case('name = "x"\n[task]\nkind = "triage"\n'), r"task\.kind is 'triage'"),
    "unknown key by --set": (set_case("sft.learning_rte=1e-3"), r"did you mean `learning_rate`"),
    "text for a number": (set_case("sft.epochs=many"), r"`sft\.epochs`"),
    "batch that does not divide": (set_case("sft.micro_batch=3"), r"multiple"),
    "split that does not exist": (set_case("sft.split=trian"), r"`sft\.split` is 'trian'"),
    "unknown reward": (set_case("grpo.rewards={acuracy = 1}"), r"did you mean `accuracy`"),
    "unknown stage": (lambda f: [*set_case()(f), "--from", "grop"], r"no stage is called 'grop'"),
    "stage before its inputs": (lambda f: [*set_case()(f), "--from", "grpo"], r"stage prepare has not run"),
    "stages in the wrong order": (lambda f: [*set_case()(f), "--from", "grpo", "--until", "sft"], r"holds no stage"),
    "base model that is nowhere": (
        set_case("model.base=./no-such-folder"),
        r"neither a model folder, nor a \.gguf file, nor a hub id",
    ),
    "too few prompts for a step": (
        set_case("grpo.max_cases=2", "grpo.max_steps=-1"),
        r"expected enough for one step|prompts",
    ),
    # check-data, evaluate, report, lineage, init
    "check-data without a task": (check_case(lines(GOOD)), r"--task"),
    "check-data with a bad map": (
        check_case(lines(GOOD), "--task", "appropriateness", "--map", "topic"),
        r"FIELD=COLUMN|field=column|=",
    ),
    "check-data of an unknown field": (check_case(lines(GOOD), *MAP, "--map", "organ=topic"), r"organ"),
    "evaluate on labels that are missing": (
        lambda f: [
            "evaluate",
            "--data",
            str(rows_file(f, lines({k: v for k, v in GOOD.items() if k != "appropriateness"}))),
            *MAP,
            "--model",
            f"m={save_base(f / 'model')}",
            "--out",
            str(f / "out"),
        ],
        r"gold label|appropriateness",
    ),
    "model folder that is missing": (model_case("", None), r"neither a model folder, nor a \.gguf file, nor a hub id"),
    "model folder without config": (model_case("notes.txt", b"x"), r"without config\.json"),
    "model folder with a broken config": (model_case("config.json", b"{"), r"cannot load"),
    "model without a name": (evaluate_case(*MAP, "--model", "folder", "--out", "o"), r"NAME=PATH_OR_ID"),
    "model named twice": (evaluate_case(*MAP, "--model", "a=x", "--model", "a=y", "--out", "o"), r"twice"),
    "evaluate into a folder with files": (
        lambda f: [*evaluate_case(*MAP, "--model", f"m={save_base(f / 'model')}")(f), "--out", str(f)],
        r"not an empty folder",
    ),
    "report of no run": (lambda f: ["report", str(f)], r"holds no results\.json"),
    "lineage of no model": (lambda f: ["lineage", str(f)], r"no lineage\.json"),
    "lineage of nothing": (lambda f: ["lineage", str(f / "none")], r"not a folder"),
    "init of an unknown task": (
        lambda f: ["init", "triage", "--out", str(f / "t.toml")],
        r"no task is called 'triage'",
    ),
    "init over a file": (
        lambda f: ["init", "mcq", "--out", str(rows_file(f, "x", "t.toml"))],
        r"nothing is overwritten",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_ends_with_one_message_and_leaves_nothing_half(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build, message = CASES[name]
    arguments = build(tmp_path)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(sys, "argv", ["medjudge", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    errors = " ".join(capsys.readouterr().err.split())
    assert end.value.code in (1, 2)
    assert errors.startswith("error:"), errors
    assert errors.count("error:") == 1
    assert re.search(message, errors), errors
    assert "Traceback" not in errors
    assert PATIENT not in errors
    left = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    # What may stay: the run's lock, recipe and commands, and finished stages or hidden work folders to resume from.
    for path in left:
        inside = path.relative_to(tmp_path).parts
        assert inside[0] == "runs", path
        hidden_or_whole = inside[2].startswith(".") or inside[2] in ("recipe.json", "commands.json")
        assert hidden_or_whole or (tmp_path.joinpath(*inside[:3]) / "manifest.json").exists(), path
    assert not (tmp_path / "out").exists()


NAMES = ["../x", "a/b", "a\\b", "", "CON", "nul.txt", "x" * 65, "a\0b", ".x", "-x", "x.", "é", "a b", "a\n"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["run", "split", "sft.split", "held-out split", "variant"])
def test_a_name_that_becomes_a_file_is_checked(place: str, name: str, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "rows.jsonl", tmp_path / "runs")
    if place == "run":
        tree["name"] = name
    elif place == "split":
        tree["data"]["splits"] |= {name: 0.0001}
    elif place == "sft.split":
        tree["sft"]["split"] = name
    elif place == "held-out split":
        tree["grpo"]["doctor"] = {"held_out_split": name}
    else:
        tree["variants"] = {name: {"seed": 2}}
    with pytest.raises(ConfigError, match="cannot be called"):
        variants_from_tree(tree)


@pytest.mark.parametrize("name", ["manifest", "leakage", "lint", "rejected", "data", "inputs", "Manifest"])
def test_a_split_is_not_called_as_a_file_of_its_stage(name: str, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "rows.jsonl", tmp_path / "runs")
    tree["data"]["splits"] |= {name: 0.0001}
    with pytest.raises(ConfigError, match="the name of a file or folder that medjudge itself writes"):
        variants_from_tree(tree)


@pytest.mark.parametrize("name", ["compare", "sft", "prepare", "recipe.json", "Evaluate"])
def test_a_variant_is_not_called_as_what_lies_beside_it(name: str, tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "rows.jsonl", tmp_path / "runs", variants={name: {"seed": 2}})
    with pytest.raises(ConfigError, match="the name of a file or folder that medjudge itself writes"):
        variants_from_tree(tree)


def test_names_that_differ_in_capitals_only_and_models_named_twice(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "rows.jsonl", tmp_path / "runs")
    for over, message in (
        ({"data": {"source": "x", "splits": {"train": 0.5, "Train": 0.1, "test": 0.2}}}, "differ in capitals only"),
        ({"variants": {"a": {}, "A": {}}}, "except for capitals"),
        ({"evaluate": {"extra_models": {"sft": "x"}}}, "names sft, which the run makes itself"),
        ({"evaluate": {"extra_models": {" ": "x"}}}, "it is empty"),
        ({"evaluate": {"extra_models": {"a\x1b[2J": "x"}}}, "cannot be printed"),
    ):
        with pytest.raises(ConfigError, match=message):
            variants_from_tree(tree | over)


def test_a_message_repeats_no_value_of_any_length(tmp_path: Path) -> None:
    tree = small_tree(tmp_path / "rows.jsonl", tmp_path / "runs")
    for over in ({"name": "x" * 50_000}, {"task": {"kind": "x" * 50_000}}, {"profile": "x" * 50_000}):
        with pytest.raises(ConfigError) as refused:
            variants_from_tree(tree | over)
        assert len(str(refused.value)) < 1500


@pytest.mark.parametrize("text", ["[sft.trl.a" + ".a" * 90 + "]", "sft.trl.a = " + "[" * 90 + "]" * 90])
def test_a_recipe_nested_too_deep_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(f'name = "deep"\n{text}\n')
    with pytest.raises(ConfigError, match="nested more than 20 deep"):
        load_recipe(path)
