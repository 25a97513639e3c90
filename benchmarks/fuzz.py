"""Damaged and odd recipes, rows, verdict files and command lines: each must end well or with one clear error.

    python benchmarks/fuzz.py                          # 10,000 of each kind on two processes, under 15 minutes
    python benchmarks/fuzz.py --n 500 --only rows      # a look at one kind
    python benchmarks/fuzz.py --only rows --case 4711  # one input again, with its traceback

A failure is any exception that is not the project's own, an exit code other than 0, 1 or 2, a traceback on the console,
or an input that takes longer than 30 s. Each failure is printed with the input that reproduces it. Nothing is trained,
no network is reached (connections are refused inside the process), and everything is written below a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import gzip
import io
import json
import logging
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

from medjudge import artifacts
from medjudge.cli import main as medjudge
from medjudge.config import DEMO_RECIPE, TASKS, recipe_from_tree, variants_from_tree
from medjudge.config import load_variants as load_recipe_file
from medjudge.errors import MedjudgeError
from medjudge.pipeline import active_stages

LONGEST_S = 30
DEEPEST = 30
KINDS = ("recipes", "rows", "verdicts", "commands")
ODD_TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "e\u0301",
    "\u00e9",
    "\u202eabc",
    "\u00a0",
    "\u200b",
    "\ufeff",
    "\ud800",
    "x" * 20_000,
    "../x",
    "/",
    "~",
    ".",
    "NaN",
    "inf",
    "-1",
    "1.0",
    "0" * 40,
    "{a}",
    "{",
    "%s",
    "[red]",
    "[/]",
    "=",
    "builtin:",
    "builtin:nothing",
    "hub:",
    "openai:m",
    "'; --",
    "true",
    "None",
    "a\nb",
    "\u2028",
    "9" * 5000,
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    2**63,
    -(2**70),
    0.5,
    1.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[[]]],
    {"": {"": ""}},
    [None],
    ["a", 1],
    [0, 10],
    *ODD_TEXTS,
)


# --- mutations --------------------------------------------------------------------------------------------------------


def mostly(rng: random.Random, usual: Any, *others: Any) -> Any:
    """The usual value nine times of ten, else one of the others."""
    return usual if rng.random() < 0.9 else rng.choice(others)


def odd(rng: random.Random) -> Any:
    """A value of any type."""
    if rng.random() < 0.02:
        value: Any = 1
        for _ in range(rng.choice((5, 300, 3000))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return rng.choice(ODD_VALUES)


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in nested objects and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*at, key)
        if len(at) < DEEPEST:
            yield from places(value, (*at, key))


def mutated(tree: Any, rng: random.Random, n: int | None = None) -> Any:
    """The tree with some values replaced, removed, renamed or added."""
    for _ in range(rng.randint(1, 3) if n is None else n):
        known = list(places(tree))
        if not known:
            return odd(rng)
        *above, key = rng.choice(known)
        holder = tree
        for part in above:
            holder = holder[part]
        action = rng.random()
        if action < 0.55:
            holder[key] = odd(rng)
        elif action < 0.7:
            del holder[key]
        elif isinstance(holder, dict):
            holder[as_text(odd(rng))[:200] if action < 0.85 else f"{key}x"] = odd(rng) if action < 0.92 else holder[key]
        else:
            holder.append(odd(rng))
    return tree


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes that were cut, flipped, doubled, emptied or written in another encoding."""
    action = rng.randrange(10)
    at = rng.randrange(len(content) + 1)
    if action == 0:
        return content[:at]
    if action == 1:
        changed = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if action == 2:
        return (
            content[:at]
            + rng.choice((b"\0", b"\xff\xfe", b'"', b"{", b"[" * 3000, b"\r", b",,", b"\x1a"))
            + content[at:]
        )
    if action == 3:
        return content.decode("utf-8", errors="replace").encode(
            rng.choice(("utf-16", "utf-8-sig", "utf-32")), "replace"
        )
    if action == 4:
        return content.decode("utf-8", errors="replace").encode("latin-1", "replace")
    if action == 5:
        return rng.choice((b"", b"\n", b"\0" * 64, b"null", b"[]", b"{}", b"PK\x03\x04", b"PAR1"))
    if action == 6:
        lines = content.splitlines(keepends=True)
        rng.shuffle(lines)
        return b"".join(lines)
    if action == 7:
        return content + content
    return content


def write_odd(path: Path, content: bytes, rng: random.Random) -> Path:
    """The content, possibly damaged, at the path; sometimes a folder or a dangling link instead, or nothing."""
    action = rng.random()
    if action < 0.02:
        path.mkdir()
    elif action < 0.03:
        path.symlink_to(path.parent / "nowhere")
    elif action > 0.01 and action < 0.04:
        return path
    else:
        path.write_bytes(damaged(content, rng) if rng.random() < 0.35 else content)
    return path


def as_json(value: Any) -> str:
    """JSON as careless programs write it: NaN, half surrogates escaped."""
    with contextlib.suppress(RecursionError, ValueError):
        return json.dumps(value)
    return "[" * 3000


def as_text(value: Any) -> str:
    """A value as somebody types it."""
    try:
        return str(value)[:3000]
    except RecursionError:
        return "[" * 3000


# --- recipes ----------------------------------------------------------------------------------------------------------


def base_trees() -> list[dict[str, Any]]:
    """Recipes that load."""
    import tomllib

    trees: list[dict[str, Any]] = [tomllib.loads(DEMO_RECIPE.read_text(encoding="utf-8"))]
    for kind in TASKS:
        tree = {
            "name": "fuzz",
            "task": {"kind": kind, "max_prompt_tokens": 200},
            "data": {"source": "rows.jsonl", "fields": {"question": "q"}, "splits": {"train": 0.6, "test": 0.4}},
            "model": {"base": "builtin:tiny"},
            "sft": {"epochs": 1, "lora": {"r": 4}, "trl": {"packing": False}},
            "grpo": {"rewards": {"accuracy": 1.0, "format": 0.5}, "doctor": {"policy": "warn"}},
            "evaluate": {"extra_models": {"a": "b"}, "endpoint": {"seed": 1}},
            "profiles": {"small": {"sft": {"epochs": 2}}},
            "variants": {"one": {"seed": 2}, "two": {"sft": {"epochs": 3}, "grpo": {"_replace": True}}},
        }
        with contextlib.suppress(MedjudgeError):
            recipe_from_tree(json.loads(json.dumps(tree)))
            trees.append(tree)
    return trees


def overrides_of(tree: Mapping[str, Any], rng: random.Random) -> list[str]:
    """Some `--set` texts, mostly of keys that the recipe has."""
    known = [".".join(str(part) for part in place) for place in places(tree)]
    texts = []
    for _ in range(rng.choice((0, 0, 1, 2))):
        key = rng.choice(known) if known and rng.random() < 0.7 else str(rng.choice(ODD_TEXTS))[:50]
        value = odd(rng)
        texts.append(f"{key}={as_json(value) if rng.random() < 0.5 else as_text(value)}"[: rng.choice((9, 3000))])
    return texts


def fuzz_recipe(rng: random.Random, folder: Path, note: Note) -> None:
    """One recipe, as a tree or as a file."""
    tree = mutated(json.loads(json.dumps(rng.choice(TREES))), rng)
    overrides = overrides_of(tree if isinstance(tree, dict) else {}, rng)
    note.add("overrides", overrides)
    if rng.random() < 0.5 and isinstance(tree, dict):
        note.add("tree", tree)
        recipe, variants = variants_from_tree(tree, overrides)
    else:
        import tomlkit

        try:
            text = tomlkit.dumps(tree)
        except Exception:  # what TOML cannot say
            text = "name = 'x'\na = " + as_json(tree)
        path = write_odd(folder / "recipe.toml", text.encode("utf-8", "replace"), rng)
        recipe, variants = load_recipe_file(path, overrides)
    for one in (recipe, *variants.values()):
        active_stages(one)
        artifacts.sha256_json(one.model_dump(mode="json"))


# --- rows -------------------------------------------------------------------------------------------------------------

ROWS: dict[str, list[dict[str, Any]]] = {
    "mcq": [
        {"question": f"Drug {i}?", "opa": "x", "opb": "y", "opc": "z", "opd": "w", "cop": "abcd"[i % 4], "id": f"q{i}"}
        for i in range(6)
    ],
    "equivalence": [
        {
            "question": f"What {i}?",
            "reference": "aspirin",
            "candidate": f"a{i}",
            "label": str(i % 2),
            "group": f"g{i % 3}",
        }
        for i in range(6)
    ],
    "rubric": [
        {
            "input": f"W {i}",
            "output": "ok",
            "criteria": "c",
            "rubric": "r",
            "reference": "r",
            "score": str(1 + i % 5),
            "generator": "m",
        }
        for i in range(6)
    ],
    "appropriateness": [
        {
            "condition": "Pain",
            "variant": f"v{i}",
            "procedure": "CT",
            "appropriateness": ("Usually Appropriate", "May Be Appropriate")[i % 2],
        }
        for i in range(6)
    ],
}


def table_bytes(rows: Sequence[Any], ending: str, rng: random.Random) -> bytes:
    """The rows in a format, written carelessly."""
    if ending in ("jsonl", "jsonl.gz"):
        content = "".join(as_json(row) + rng.choice(("\n", "\n", "\r\n", "\n\n")) for row in rows).encode()
        return gzip.compress(content, mtime=0) if ending.endswith("gz") else content
    if ending == "json":
        return as_json(rng.choice((list(rows), {"data": list(rows)}, {"rows": rows}))).encode()
    objects = [row for row in rows if isinstance(row, dict)]
    columns = list(dict.fromkeys(str(key) for row in objects for key in row))
    rng.shuffle(columns)
    if ending in ("csv", "tsv"):
        if columns and rng.random() < 0.1:
            columns.append(columns[0])
        out = io.StringIO()
        writer = csv.writer(out, delimiter=rng.choice(",;\t"), quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
        head = mostly(rng, "", "sep=;\n")
        is_ragged = rng.random() < 0.2
        cut, more = ((None, None, -1), ([], ["", ""])) if is_ragged else ((None,), ([],))
        writer.writerow(columns)
        for row in objects:
            cells = [as_text(row.get(column, "")).replace("\0", "") for column in columns]
            writer.writerow(cells[: rng.choice(cut)] + rng.choice(more))
        return (head + out.getvalue()).encode("utf-8", "replace")
    if ending == "parquet":
        import pyarrow
        import pyarrow.parquet

        sink = io.BytesIO()
        try:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), sink)
        except Exception:  # mixed types in a column
            texts = [{str(key)[:99]: repr(value)[:99] for key, value in row.items()} for row in objects]
            with contextlib.suppress(Exception):
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(texts), sink)
        return sink.getvalue()
    return _workbook(objects, columns)


def _workbook(objects: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
    try:
        import openpyxl
    except ImportError:
        return b"PK\x03\x04 no workbook"
    book = openpyxl.Workbook()
    sink = io.BytesIO()
    with contextlib.suppress(Exception):  # characters that a sheet cannot hold
        book.active.append(list(columns))
        for row in objects:
            cells = [row.get(column) for column in columns]
            book.active.append([cell if isinstance(cell, int | float) else as_text(cell) for cell in cells])
        book.save(sink)
    return sink.getvalue()


ENDINGS = (*("jsonl", "json", "csv", "parquet", "xlsx") * 3, "jsonl.gz", "tsv", "txt", "")


def write_table(folder: Path, name: str, rows: Sequence[Any], rng: random.Random, *, changed: float = 0.7) -> Path:
    """A file of rows in some format, mostly with something wrong in it."""
    copy = json.loads(json.dumps(list(rows)))
    if rng.random() < changed:
        copy = mutated(copy, rng)
        copy = copy if isinstance(copy, list) else [copy]
    ending = rng.choice(ENDINGS)
    return write_odd(folder / f"{name}.{ending}".rstrip("."), table_bytes(copy, ending, rng), rng)


def fuzz_rows(rng: random.Random, folder: Path, note: Note) -> None:
    """One file of labelled rows, read, linted and compared with another."""
    from medjudge.stages.check_data import check_data, print_check

    kind = rng.choice(tuple(ROWS))
    path = write_table(folder, "rows", ROWS[kind], rng)
    settings: dict[str, Any] = mostly(
        rng, {}, {"fields": {"question": "q"}}, {"slices": ["generator"]}, {"case_id": "id"}
    )
    settings = {**settings, "bad_rows": rng.choice(("refuse", "set_aside"))}
    if rng.random() < 0.2:
        settings = mutated(
            {**settings, "where": {"id": "q1"}, "group_by": ["group"], "values": {"label": {"1": "0"}}}, rng
        )
    note.add("task", kind)
    note.add("data", settings)
    recipe = recipe_from_tree({"name": "fuzz", "task": {"kind": kind}, "data": settings})
    against = write_table(folder, "held_out", ROWS[kind], rng, changed=0.3) if rng.random() < 0.3 else None
    where = mostly(rng, [], ["id=q1"], ["generator=m"], ["=", "a"])
    report = check_data(
        str(path),
        recipe.contract,
        recipe.data,
        against=str(against) if against else None,
        where=where,
        against_where=[],
    )
    from rich.console import Console

    print_check(report, Console(file=io.StringIO(), width=100))


# --- verdict files ----------------------------------------------------------------------------------------------------


def verdict_rows(rng: random.Random) -> list[dict[str, Any]]:
    """Verdicts of one or two judges on some cases, with their expert labels."""
    labels = ("no", "yes")
    names = rng.choice((("a",), ("a", "b"), (None,)))
    return [
        {
            "id": f"c{i}",
            "label": rng.choice(labels),
            "gold": rng.choice(labels),
            "confidence": rng.random(),
            "generator": f"g{i % 2}",
            "group": f"q{i // 2}",
            **({"judge": name} if name else {}),
        }
        for name in names
        for i in range(rng.choice((2, 6, 12)))
    ]


def fuzz_verdicts(rng: random.Random, folder: Path, note: Note) -> None:
    """One set of verdict files, read, joined and, where that works, measured."""
    from medjudge.stages.score import ScoreOptions, label_scale, parse_pairs, score

    rows = verdict_rows(rng)
    paths = [str(write_table(folder, "verdicts", rows, rng))]
    if rng.random() < 0.2:
        paths.append(f"b={write_table(folder, 'more', rows, rng)}")
    gold = mostly(rng, None, "gold", "nothing", str(write_table(folder, "gold", rows, rng, changed=0.4)))
    pairs = mostly(rng, [], ["label=gold"], ["id=id", "gold=label"], ["x=y"], ["label="], ["judge=nothing"], ["="])
    options = {
        "labels": mostly(rng, "no,yes", "yes,no", "1,2,3", "", ",", "a", "no,no", "x" * 3000),
        "map": pairs,
        "gold": gold,
        "alias": mostly(rng, [], ["Y=yes"], ["x"]),
        "where": mostly(rng, [], ["generator=g1"], ["="]),
        "family": mostly(rng, [], ["a=x", "g1=x"], ["zz=x"]),
        "confidence_max": mostly(rng, 1.0, 100.0, 1e-9),
        "reference": mostly(rng, None, "a", "zz"),
        "positive": mostly(rng, None, "yes", "zz"),
        "ordered": rng.random() < 0.2,
    }
    note.add("paths", paths)
    note.add("options", options)
    contract = label_scale(options["labels"], ordered=options["ordered"], positive=options["positive"])
    score(
        paths,
        contract,
        ScoreOptions(
            columns=parse_pairs(options["map"]),
            gold=gold,
            aliases=parse_pairs(options["alias"]),
            where=options["where"],
            families=parse_pairs(options["family"]),
            confidence_max=options["confidence_max"],
            reference=options["reference"],
            n_resamples=100,
            seed=rng.choice((0, 42)),
        ),
    )


# --- command lines ----------------------------------------------------------------------------------------------------


def run_folder(folder: Path, rng: random.Random) -> Path:
    """What `evaluate` and a run leave behind, with something wrong in one of the files."""
    run = folder / "run"
    evaluated = run / rng.choice(("evaluate", "evaluate", "."))
    for name in ("prepare", "sft", "grpo"):
        (run / name).mkdir(parents=True)
    evaluated.mkdir(exist_ok=True)
    files: dict[Path, Any] = {
        evaluated / artifacts.RESULTS: RESULTS,
        evaluated / artifacts.RECIPE: {"name": "x", "evaluate": {"split": "test"}},
        run / artifacts.RECIPE: {"name": "x", "report": {"title": "t"}},
        run / artifacts.COMMANDS: ["medjudge run x.toml"],
        run / "grpo" / artifacts.PREFLIGHT: {"checks": [], "terms": [], "verdict": "passed"},
        run / "grpo" / artifacts.DOCTOR: {"findings": [], "steps": [], "policy": "warn"},
        run / "sft" / artifacts.HISTORY: [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}],
        run / "prepare" / artifacts.DATA: {
            "splits": {"test": {"n_cases": 2, "n_groups": 1}},
            "lint": {"test": {"a": 1}},
        },
        run / rng.choice((artifacts.SUITE, "notes.json")): {
            "models": ["a"],
            "mode": "generate",
            "sets": {},
            "notes": [],
        },
    }
    broken = rng.sample(list(files), rng.choice((1, 1, 2)))
    for path, value in files.items():
        if path.name == artifacts.SUITE and path not in broken:
            continue
        text = as_json(mutated(json.loads(json.dumps(value)), rng) if path in broken else value)
        write_odd(path, text.encode(), rng) if path in broken else path.write_text(text)
    row = {"case_id": "c1", "model": "a", "gold": "yes", "label": "no", "confidence": 0.5, "unparsed_reason": None}
    write_odd(evaluated / artifacts.VERDICTS, as_json(mutated(row, rng, rng.randint(0, 1))).encode(), rng)
    return run


def model_folder(folder: Path, rng: random.Random) -> Path:
    """A folder that looks like a model's and is none."""
    model = folder / "model"
    model.mkdir()
    lineage = {
        "kind": "full", "stage": "sft", "weights_sha256": "0" * 64, "base": "b", "base_revision": None, "parent": None,
        "contract_sha256": None, "recipe_sha256": None, "data_sha256": None, "merge": None, "adapter": None,
        "ancestry": [{"stage": "base", "kind": "base", "name": "b", "weights_sha256": "1" * 64}],
    }  # fmt: skip
    files = {
        artifacts.LINEAGE: lineage,
        "config.json": {"model_type": "qwen3", "hidden_size": 8},
        "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "./nowhere"},
        artifacts.CALIBRATION: {"version": 1, "calibrators": {"generate": {"kind": "platt", "n": 3}}},
        artifacts.MANIFEST: {"stage": "sft", "inputs": {}, "inputs_sha256": "x", "outputs": {"config.json": {}}},
    }
    for name in rng.sample(list(files), rng.randint(1, len(files))):
        write_odd(
            model / name, as_json(mutated(json.loads(json.dumps(files[name])), rng, rng.randint(0, 2))).encode(), rng
        )
    if rng.random() < 0.7:
        (model / "model.safetensors").write_bytes(damaged(b"\x08\0\0\0\0\0\0\0{}      ", rng))
    return model


def command_of(rng: random.Random, folder: Path) -> list[str]:
    """A command that neither trains nor reaches a network."""
    kind = rng.choice(tuple(ROWS))
    rows = str(write_table(folder, "rows", ROWS[kind], rng, changed=0.5))
    verdicts = str(write_table(folder, "verdicts", verdict_rows(rng), rng, changed=0.5))
    out = [
        "--out",
        str(rng.choice((folder / "out", folder / "out" / "deep", folder, Path(rows), folder / ("n" * 300)))),
    ]
    model = str(rng.choice((folder / "none", model_folder(folder, rng), Path(rows), folder)))
    name = rng.choice(("m", "", "a\tb", "é", "x" * 200))
    recipe = str(
        write_odd(folder / "r.toml", f'name = "x"\n[task]\nkind = "{kind}"\n[data]\nsource = {rows!r}\n'.encode(), rng)
    )
    asked = mostly(rng, ["--task", kind], ["--task", "x"], ["--recipe", recipe], [])
    commands: dict[str, Callable[[], list[str]]] = {
        "init": lambda: [rng.choice((kind, "x", "")), *out],
        "check-data": lambda: [rows, *asked, *rng.choice(([], ["--against", rows], ["--where", "a"]))],
        "data build": lambda: [
            rng.choice((kind, "mcq", "x")), "--n", rng.choice(("5", "0", "-1", "x", "1e3")), "--seed",
            rng.choice(("1", "-5", "99999999999999999999", "x")), *out,
        ],
        "run": lambda: [recipe, rng.choice(("--dry-run", "--help")), "--from", rng.choice(("sft", "x", "prepare"))],
        "demo": lambda: ["--task", rng.choice(("x", "", "MCQ")), *out],
        "evaluate": lambda: ["--data", rows, "--model", f"{name}={model}", *asked, *out],
        "calibrate": lambda: [model, "--data", rows, *asked, "--kind", rng.choice(("platt", "x"))],
        "probe": lambda: [
            "--data", rows, "--model", f"{name}={model}", "--samples", rng.choice(("0", "1", "x")), *asked, *out
        ],
        "score": lambda: [
            verdicts, "--labels", rng.choice(("no,yes", "a")), *rng.choice(([], ["--gold", "gold"])), *out
        ],
        "bench rubric": lambda: rng.choice((["--list"], ["--data", f"{name}={rows}", "--rubric", f"{name}={recipe}",
                                            "--model", f"m={model}", *out])),
        "export lm-eval": lambda: [str(folder / "tasks"), "--data", rows, *asked],
        "report": lambda: [str(rng.choice((run_folder(folder, rng), folder, Path(rows))))],
        "lineage": lambda: [model],
        "info": lambda: ["--nothing"],
    }  # fmt: skip
    weights = {"report": 3, "lineage": 3, "evaluate": 2, "check-data": 3, "run": 2, "score": 2}
    command = rng.choices(list(commands), [weights.get(one, 1) for one in commands])[0]
    arguments = [*command.split(), *commands[command]()]
    if rng.random() < 0.25:  # an option or a value that nobody expects
        extra = rng.choice(
            ("--set", "--map", "--where", "--seed", "--nothing", "-x", "--gold", "--mode", "--max-cases")
        )
        arguments[rng.randint(1, len(arguments)) :] = [extra, as_text(odd(rng))]
    if command == "run" and not {"--dry-run", "--help"} & set(arguments):
        arguments.append("--dry-run")
    if command == "demo":
        arguments.append("--help")
    return [argument.replace("\0", "").encode("utf-8", "replace").decode() for argument in arguments]


def fuzz_command(rng: random.Random, folder: Path, note: Note) -> None:
    """One command line, run in this process as the console script runs it."""
    arguments = command_of(rng, folder)
    note.add("arguments", arguments)
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    argv, sys.argv = sys.argv, ["medjudge", *arguments]
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            medjudge()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
    if code not in (0, 1, 2, None):
        raise AssertionError(f"exit code {code}")
    if "Traceback" in out.getvalue() + err.getvalue():
        raise AssertionError("a traceback on the console")
    if code in (1, 2) and not (err.getvalue() + out.getvalue()).strip():
        raise AssertionError(f"exit code {code} without a word")


# --- running ----------------------------------------------------------------------------------------------------------


@dataclass
class Note:
    """What reproduces an input, as far as it is no file."""

    parts: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: Any) -> None:
        """Remembers one part."""
        self.parts[name] = value

    def text(self, folder: Path) -> str:
        """The parts and the heads of the files, cut to a readable length."""
        lines = [f"    {name}: {ascii(value)[:1500]}" for name, value in self.parts.items()]
        for path in sorted(folder.rglob("*"))[:12]:
            if path.is_file():
                lines.append(f"    {path.relative_to(folder)}: {path.read_bytes()[:300]!r}")
        return "\n".join(lines)


FUZZERS: dict[str, Callable[[random.Random, Path, Note], None]] = {
    "recipes": fuzz_recipe,
    "rows": fuzz_rows,
    "verdicts": fuzz_verdicts,
    "commands": fuzz_command,
}
TREES = base_trees()
RESULTS: Any = {"version": 0}


def prepare_process() -> None:
    """Refuses connections, silences libraries, and makes one whole `results.json` to damage."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network here")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.create_connection = refuse  # type: ignore[assignment]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    global RESULTS
    from medjudge.stages.score import ScoreOptions, label_scale, score

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in verdict_rows(random.Random(1))))
        with contextlib.suppress(MedjudgeError):
            RESULTS = score([str(path)], label_scale("no,yes"), ScoreOptions(n_resamples=100)).results.to_json()


def one(kind: str, index: int, seed: int, *, loud: bool = False) -> tuple[str, str]:
    """(`fine`, `refused` or `failed`, what to print) of one input."""
    rng = random.Random(f"{seed}:{kind}:{index}")
    note = Note()

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"longer than {LONGEST_S} s")

    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        previous = signal.signal(signal.SIGALRM, too_long)
        signal.alarm(LONGEST_S)
        try:
            FUZZERS[kind](rng, folder, note)
        except MedjudgeError as error:
            message = str(error)
            if message.strip() and "Traceback" not in message and len(message) < 20_000:
                return "refused", type(error).__name__
            return "failed", f"{kind} {index}: a message of {len(message):,} characters\n{note.text(folder)}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            lines = traceback.format_exception(error) if loud else traceback.format_tb(error.__traceback__)[-3:]
            head = f"{kind} {index} (seed {seed}): {type(error).__name__}: {ascii(str(error))[:200]}"
            return "failed", f"{head}\n{''.join(lines)}{note.text(folder)}"
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, previous)
            for path in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
    return "fine", ""


def many(kind: str, indices: Sequence[int], seed: int) -> tuple[str, Counter[str], list[str]]:
    """(kind, how inputs ended, failures) of some inputs, in a prepared process."""
    counts: Counter[str] = Counter()
    failures = []
    for index in indices:
        outcome, text = one(kind, index, seed)
        counts[outcome] += 1
        failures += [text] if outcome == "failed" else []
    return kind, counts, failures


def main() -> None:
    """Prints how inputs ended, and each failure; exits with 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas")
    parser.add_argument("--case", type=int, help="one input, with its whole traceback")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    kinds = [kind for kind in arguments.only.split(",") if kind in KINDS]
    if arguments.case is not None:
        prepare_process()
        print(*one(kinds[0], arguments.case, arguments.seed, loud=True), sep="\n")
        return
    started = time.monotonic()
    jobs = [(kind, range(low, min(low + 100, arguments.n))) for kind in kinds for low in range(0, arguments.n, 100)]
    totals: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    seen: Counter[str] = Counter()
    with ProcessPoolExecutor(arguments.processes, initializer=prepare_process) as pool:
        for kind, counts, failures in pool.map(many, *zip(*((k, r, arguments.seed) for k, r in jobs), strict=True)):
            totals[kind] += counts
            for text in failures:
                place = "\n".join(line for line in text.splitlines() if line.lstrip().startswith("File"))[-300:]
                seen[place] += 1
                if seen[place] <= 2:  # the same line of code again and again says nothing new
                    print(text, end="\n\n", flush=True)
    for kind, counts in totals.items():
        print(f"{kind}: {dict(counts)}")
    n_failed = sum(counts["failed"] for counts in totals.values())
    n = sum(counts.total() for counts in totals.values())
    print(f"{n:,} inputs, {n_failed:,} failures, {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if n_failed else 0)


if __name__ == "__main__":
    main()
