"""Damaged and odd recipes, rows, verdict files and command lines: each must end well or with one clear error.

    python benchmarks/fuzz.py                          # 10,000 of each kind on two processes, under 15 minutes
    python benchmarks/fuzz.py --n 500 --only rows      # a look at one kind
    python benchmarks/fuzz.py --only rows --case 4711  # one input again, with its traceback

A failure is any exception that is not the project's own, an exit code other than 0, 1 or 2, a traceback on the console,
or an input that takes longer than 30 s of processor time. Each failure is printed with the input that reproduces it.
Nothing is trained, no network is reached (connections are refused inside the process), and everything is written below
a temporary folder.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import copy
import csv
import gzip
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

from medjudge import artifacts
from medjudge.cli import main as medjudge
from medjudge.errors import MedjudgeError
from medjudge.recipe import DEMO_RECIPE, recipe_from_tree, variants_from_tree
from medjudge.recipe import load_variants as load_recipe_file
from medjudge.runs.pipeline import active_stages
from medjudge.tasks.catalog import TASKS

LONGEST_S = 30
"""Processor time."""
LONGEST_WALL_S = 600
MOST_BYTES = 6 * 2**30
"""Address space of a process: an input that needs more than a few hundred megabytes is a failure."""
DEEPEST = 30
KINDS = ("recipes", "rows", "verdicts", "commands")
ODD_TEXTS = (
    "", " ", "\0", "a\0b", "e\u0301", "\u00e9", "\u202eabc", "\u00a0", "\u200b", "\ufeff", "\ud800", "x" * 20_000,
    "../x", "/", "~", ".", "NaN", "inf", "-1", "1.0", "0" * 40, "{a}", "{", "%s", "[red]", "[/]", "=", "builtin:",
    "builtin:nothing", "hub:", "openai:m", "'; --", "true", "None", "a\nb", "\u2028", "9" * 5000,
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 2**63, -(2**70), 0.5, 1.5, -0.0, 1e308, float("nan"), float("inf"), [], {},
    [[[]]], {"": {"": ""}}, [None], ["a", 1], [0, 10], *ODD_TEXTS,
)  # fmt: skip


# --- mutations --------------------------------------------------------------------------------------------------------


def mostly(rng: random.Random, usual: Any, *others: Any) -> Any:
    """The usual value nine times of ten, else one of the others."""
    return usual if rng.random() < 0.9 else rng.choice(others)


def rarely(rng: random.Random, usual: Any, *others: Any) -> Any:
    """As `mostly`, where a dozen such values come together and most inputs should still be measured."""
    return usual if rng.random() < 0.97 else rng.choice(others)


def odd(rng: random.Random) -> Any:
    """A value of any type."""
    if rng.random() < 0.02:
        value: Any = 1
        for _ in range(rng.choice((5, 300, 3000))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    # A copy: what a mutation does to this value must not reach the next input, which its number alone makes.
    return copy.deepcopy(rng.choice(ODD_VALUES))


def copied(value: Any) -> Any:
    """A deep copy; None of a value that is nested too deeply for one."""
    with contextlib.suppress(RecursionError):
        return copy.deepcopy(value)
    return None


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in nested objects and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*at, key)
        if len(at) < DEEPEST:
            yield from places(value, (*at, key))


def near(value: Any, rng: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value * 2, value / 2, -value))
    return f"{value}x" if isinstance(value, str) else value


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
        if action < 0.15:
            holder[key] = near(holder[key], rng)
        elif action < 0.55:
            holder[key] = odd(rng)
        elif action < 0.7:
            del holder[key]
        elif isinstance(holder, dict):
            holder[as_text(odd(rng))[:200] if action < 0.85 else f"{key}x"] = (
                odd(rng) if action < 0.92 else copied(holder[key])
            )
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
        return content.decode("utf-8", errors="replace").encode(rng.choice(("latin-1", "cp1252")), "replace")
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
            "model": {"base": "builtin:scratch"},
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
    tree = mutated(json.loads(json.dumps(rng.choice(TREES))), rng, rng.choice((0, 1, 1, 2, 3)))
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


SHAPES: tuple[Callable[[list[Any], list[dict[str, Any]]], Any], ...] = (
    lambda rows, _: rows,
    lambda rows, _: {"data": rows},
    lambda rows, _: {"rows": rows, "model": "m"},
    lambda rows, _: {"eval": {"results": {"samples": rows}}},
    lambda rows, _: {"a": rows, "b": rows},
    lambda _, objects: {key: [row.get(key) for row in objects] for row in objects for key in row},
    lambda _, objects: {key: {str(i): row.get(key) for i, row in enumerate(objects)} for row in objects for key in row},
    lambda _, objects: {f"r{i}": row for i, row in enumerate(objects)},
    lambda rows, _: "\n".join(as_json(row) for row in rows),
)
"""JSON files as programs write them: lists at some depth, columns side by side, records under their ids."""


def is_number(text: str) -> bool:
    """Whether a cell is a number with a point."""
    return text.replace(".", "", 1).isdecimal()


def table_bytes(rows: Sequence[Any], ending: str, rng: random.Random) -> bytes:
    """The rows in a format, written carelessly."""
    if ending in ("jsonl", "jsonl.gz"):
        content = "".join(as_json(row) + rng.choice(("\n", "\n", "\r\n", "\n\n")) for row in rows).encode()
        return gzip.compress(content, mtime=0) if ending.endswith("gz") else content
    objects = [row for row in rows if isinstance(row, dict)]
    if ending == "json":
        return as_json(rng.choice(SHAPES)(list(rows), objects)).encode()
    if ending == "eval":
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("header.json", "{}")
            for number, row in enumerate(rows):
                name = mostly(
                    rng, f"samples/{number}.json", "samples/", f"other/{number}.json", f"samples/{number % 2}"
                )
                archive.writestr(name, mostly(rng, as_json(row), "", "{", "[" * 3000))
        return sink.getvalue()
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
        point = mostly(rng, ".", ",")
        for row in objects:
            cells = [as_text(row.get(column, "")).replace("\0", "") for column in columns]
            cells = [cell.replace(".", point) if is_number(cell) else cell for cell in cells]
            writer.writerow(cells[: rng.choice(cut)] + rng.choice(more))
        text: str = head + out.getvalue()
        return text.encode("utf-8", "replace")
    if ending == "parquet":
        import pyarrow
        import pyarrow.parquet

        sink = io.BytesIO()
        deepest = max((len(place) for place in places(objects)), default=0)
        try:
            if deepest >= DEEPEST:  # pyarrow itself takes all memory over thousands of levels
                raise ValueError("nested too deeply")
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), sink)
        except Exception:  # mixed types in a column
            texts = [{str(key)[:99]: as_text(value)[:99] for key, value in row.items()} for row in objects]
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


ENDINGS = (*("jsonl", "json", "csv", "parquet", "xlsx") * 3, "jsonl.gz", "eval", "tsv", "txt", "")
TEXT_ENDINGS = ("jsonl", "json", "csv", "tsv")


def write_table(folder: Path, name: str, rows: Sequence[Any], rng: random.Random, *, changed: float = 0.7) -> Path:
    """A file of rows in some format, mostly with something wrong in it."""
    table = json.loads(json.dumps(list(rows)))
    if rng.random() < changed:
        table = mutated(table, rng)
        table = table if isinstance(table, list) else [table]
    ending = rng.choice(ENDINGS)
    content = table_bytes(table, ending, rng)
    if ending in TEXT_ENDINGS and rng.random() < 0.15:
        content = content.decode("utf-8", "replace").encode(rng.choice(("utf-16", "cp1252", "utf-8-sig")), "replace")
    return write_odd(folder / f"{name}.{ending}".rstrip("."), content, rng)


def fuzz_rows(rng: random.Random, folder: Path, note: Note) -> None:
    """One file of labelled rows, read, linted and compared with another."""
    from medjudge.commands.check_data import check_data, print_check

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
    """Verdicts of one or two judges on some cases, with their expert labels, in the ways that programs write them."""
    labels = ("no", "yes")
    names = rng.choice((("a",), ("a", "b"), (None,)))
    n = rng.choice((2, 6, 12))
    verdict = rng.choice(VERDICT_FORMS)
    more = mostly(
        rng,
        lambda: {},
        lambda: {"error": rng.choice((None, "timeout", {"code": 3}))},
        lambda: {"b_label": rng.choice(labels)},
        lambda: {"question": rng.choice(("Was? h\u00e4", "q"))},
    )
    return [
        {
            "id": f"c{i}",
            "label": verdict(rng, rng.choice(labels)),
            "gold": rng.choice(labels),
            "confidence": rng.random(),
            "generator": f"g{i % 2}",
            "group": f"q{i // 2}",
            **({"judge": name} if name else {}),
            **more(),
        }
        for name in names
        for i in range(n)
    ]


VERDICT_FORMS: tuple[Callable[[random.Random, str], Any], ...] = (
    *(lambda _, label: label,) * 6,
    lambda rng, _: rng.random(),
    lambda rng, _: rng.randint(0, 1),
    lambda _, label: label == "yes",
    lambda _, label: [label],
    lambda _, label: {"verdict": label, "why": "w\u00fcrde"},
    lambda rng, label: label.upper() if rng.random() < 0.5 else f" {label}\u00a0",
    lambda rng, label: rng.choice((label, None, "", "n/a", "long text " * 20)),
)


SAYS: Any = {"from_name": "q", "type": "choices", "value": {"choices": ["yes"]}}
PROGRAM_ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("inspect_ai", {
        "epoch": 1, "target": "t", "metadata": {}, "output": {"model": "m"},
        "scores": {"qa": {"value": "yes", "history": [{"value": "no"}, {"provenance": {}}]}, "expert": {"value": "no"}},
    }),
    ("lm_eval", {"doc_id": 1, "doc": {"choices": ["no", "yes"]}, "target": "1", "filter": "none",
                 "filtered_resps": [["-1.5", "False"], ["-0.5", "True"]], "arguments": {}}),
    ("promptfoo", {"promptIdx": 0, "testIdx": 0, "testCase": {"vars": {"gold": "yes"}}, "provider": {"id": "p"},
                   "gradingResult": {"pass": True, "score": 1, "componentResults": [{"metadata": {}}]}}),
    ("deepeval", {"name": "c", "actualOutput": "a", "metadata": {"gold": "yes"}, "order": 0,
                  "metricsData": [{"name": "m", "success": True, "score": 0.9, "error": None}]}),
    ("openai_batch", {"custom_id": "c0", "error": None, "response": {"status_code": 200, "body": {"choices": [
        {"message": {"content": "yes"}, "finish_reason": "stop",
         "logprobs": {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": []}]}}]}}}),
    ("alpaca_eval", {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1.2, "annotator": "j"}),
    ("mt_bench_pair", {"question_id": 1, "model_1": "a", "model_2": "b", "g1_winner": "model_1", "turn": 1,
                       "g2_winner": "tie", "judge": ["j", "p"]}),
    ("argilla", {"q.responses": ["yes", "no"], "q.responses.status": ["submitted", "draft"], "q.suggestion": "yes",
                 "q.suggestion.score": 0.5, "q.suggestion.agent": "j"}),
    ("label_studio", {"data": {}, "annotations": [{"result": [SAYS]}],
                      "predictions": [{"model_version": "j", "score": 0.5, "result": [SAYS]}]}),
    ("mlflow", {"trace_id": "t", "assessments": [
        {"name": "a", "source": {"source_type": "HUMAN"}, "feedback": {"value": "yes"}},
        {"name": "a", "source": {"source_type": "LLM_JUDGE"}, "feedback": {"value": "no", "error": None}}]}),
    ("helm", {"instance": {"id": "i"}, "annotations": {"s": {"juror": {"criterion": {"score": 1}}}}}),
    ("judge_bench", {"pair_id": "p", "label": "A>B", "response_A": "a", "response_B": "b", "judge_name": "j",
                     "judgments": [{"decision": "A>B"}, {"decision": "B>A"}]}),
    ("llmbar", {"input": "i", "output_1": "a", "output_2": "b", "label": 1,
                "results": [{"swap = False": {"winner": "1"}, "swap = True": {"winner": "2"}}]}),
    ("reward_bench", {"results": 1, "scores_chosen": 1.0, "scores_rejected": 0.5, "model": "m"}),
)  # fmt: skip
"""Name of a format -> a row as its program writes it."""


def program_rows(rng: random.Random) -> list[dict[str, Any]]:
    """Some rows of one program, each under an id of its own."""
    _, row = rng.choice(PROGRAM_ROWS)
    return [{"id": f"c{i}", **copy.deepcopy(row)} for i in range(rng.choice((2, 6)))]


def score_options(rng: random.Random, gold: str) -> dict[str, Any]:
    """What `medjudge score` may be asked, under the names of its options."""
    return {
        "labels": rarely(rng, "no,yes", "yes,no", "1,2,3", "", ",", "a", "no,no", "x" * 3000, "0,1", "No,NO,n\u00f6"),
        "map": rarely(
            rng, [], ["label=gold"], ["id=id", "gold=label"], ["x=y"], ["label="], ["judge=nothing"], ["="],
            ["error=error"], ["error="], ["error=confidence"], ["label=label.verdict"], ["label=label[0]"],
            ["id=id+generator"], ["id=id+"], ["group="], ["id="], ["confidence=label"], ["label=label[*].verdict"],
            [as_text(odd(rng))], [f"label={as_text(odd(rng))}"],
        ),
        "judge": rarely(rng, [], ["a=label"], ["a=label", "b=b_label"], ["b_label"], ["a=gold"], ["a=a", "a=b"],
                        ["=x"], ["majority=label"], [as_text(odd(rng))]),
        "gold": rarely(rng, None, "gold", "nothing", "label", gold),
        "gold_map": rarely(rng, [], ["gold=gold"], ["id=group"], ["id=id+generator"], ["gold="], ["x=y"]),
        "alias": rarely(rng, [], ["Y=yes"], ["x"], ["n/a="], ["0=no", "1=yes"], ["yes=no"], [f"{as_text(odd(rng))}="]),
        "threshold": rarely(rng, None, 0.5, 0.0, -1.0, 1e308, float("nan"), float("inf")),
        "gold_threshold": rarely(rng, None, 0.5, float("nan"), 2.0),
        "where": rarely(rng, [], ["generator=g1"], ["="], ["nothing=1"], ["generator="], ["generator=g1", "group=q0"]),
        "family": rarely(rng, [], ["a=x", "g1=x"], ["zz=x"]),
        "confidence_max": rarely(rng, 1.0, 100.0, 1e-9, float("nan"), float("inf")),
        "reference": rarely(rng, None, "a", "zz"),
        "positive": rarely(rng, None, "yes", "zz"),
        "format": rarely(rng, "auto", "rows", *(row[0] for row in PROGRAM_ROWS), "zz", ""),
        "min_read": rarely(rng, 0.5, 0.0, 1.0),
        "ordered": rng.random() < 0.2,
    }  # fmt: skip


def fuzz_verdicts(rng: random.Random, folder: Path, note: Note) -> None:
    """One set of verdict files, read, joined and, where that works, measured."""
    from medjudge.commands.score import ScoreOptions, label_scale, parse_judges, score
    from medjudge.data.sources import parse_options

    rows = verdict_rows(rng) if rng.random() < 0.7 else program_rows(rng)
    paths = [str(write_table(folder, "verdicts", rows, rng))]
    if rng.random() < 0.2:
        paths.append(f"b={write_table(folder, 'more', rows, rng)}")
    options = score_options(rng, str(write_table(folder, "gold", rows, rng, changed=0.4)))
    note.add("paths", paths)
    note.add("options", options)
    contract = label_scale(options["labels"], ordered=options["ordered"], positive=options["positive"])
    score(
        paths,
        contract,
        ScoreOptions(
            columns=parse_options(options["map"], "--map"),
            judges=parse_judges(options["judge"]),
            gold=options["gold"],
            gold_columns=parse_options(options["gold_map"], "--gold-map"),
            aliases=parse_options(options["alias"], "--alias"),
            threshold=options["threshold"],
            gold_threshold=options["gold_threshold"],
            where=options["where"],
            families=parse_options(options["family"], "--family"),
            confidence_max=options["confidence_max"],
            reference=options["reference"],
            format=options["format"],
            min_read=options["min_read"],
            n_resamples=100,
            seed=rng.choice((0, 42)),
        ),
        say=lambda line: None,
    )


# --- command lines ----------------------------------------------------------------------------------------------------


LINEAGE = {
    "stage": "merge", "kind": "merged", "base": "b", "weights_sha256": "ab", "base_revision": None,
    "ancestry": [{"stage": "base", "kind": "base", "name": "b", "weights_sha256": "cd"}],
    "merge": {"n_positions": 3, "max_logit_difference": 0.1, "share_unchanged_tokens": 0.5},
}  # fmt: skip
LEAKAGE = {
    "comparisons": [
        {"train": "a", "held_out": "b", "n_train": 2, "n_held_out": 2, "overlaps": {"exact": {"n_cases": 1}}}
    ],
    "summary_line": "Leakage: 1 of 2.",
}
PREFLIGHT = {
    "n_cases": 6, "n_at_maximum": 6, "maximum": 1.0, "n_prompts_cut": 1, "n_words_cut": 3, "n_snippets_cut": 0,
    "checks": [
        {"name": "gold", "status": "passed", "told": "6 of 6.", "causes": ["none"], "evidence": None},
        {"name": "policy", "status": "failed", "told": "0 of 6.", "causes": [], "evidence": None},
    ],
    "terms": [
        {"name": "accuracy", "weight": 1.0, "most": 1.0, "gold": 1.0, "shuffled": 0.0, "policy": None,
         "policy_sd": None, "groups_with_spread": None},
    ],
    "pass_rates": {"c1": 0.5}, "seconds": 0.1, "forced": True, "passed": False, "verdict": "failed, forced",
}  # fmt: skip
DOCTOR = {
    "policy": "warn", "n_steps": 2, "stopped_step": 2,
    "findings": [
        {"name": "kl", "title": "drift", "severity": "warning", "since_step": 1, "last_step": 2, "sentence": "So.",
         "advice": "Less.", "evidence": [{"case_id": "c1"}], "explained_by": None},
    ],
    "actions": [{"step": 1, "what": "lowered"}],
    "held_out": [{"step": 1, "n": 3, "accuracy": 0.5}],
    "series": {"step": [1, 2], "reward": [0.0, 0.5], "unparsed": [1.0, 0.5], "kl": [0.0, 0.1], "correct": [0.0, 1.0]},
}  # fmt: skip


def run_folder(folder: Path, rng: random.Random) -> Path:
    """What `evaluate` and a run leave behind, with something wrong in one of the files."""
    run = folder / "run"
    evaluated = run / rng.choice(("evaluate", "evaluate", "."))
    for name in ("prepare", "sft", "grpo"):
        (run / name).mkdir(parents=True)
    evaluated.mkdir(exist_ok=True)
    manifest = {
        "stage": "sft", "inputs": {}, "inputs_sha256": "x", "outputs": {}, "versions": {"python": "3"}, "seed": 1,
        "summary": {"n_prompts_shortened": 2, "n_cases": 3, "n_words_cut": 5}, "finished": "2026-01-01T00:00:00Z",
        "threads": {"n": 1, "n_processors": 2, "why": "asked", "calibration_s": {}}, "wall_s": 1.0, "sittings": 1,
    }  # fmt: skip
    results = {**RESULTS, "version": rng.choice((0, 2, "1", None))} if rng.random() < 0.05 else RESULTS
    files: dict[Path, Any] = {
        evaluated / artifacts.RESULTS: results,
        evaluated / artifacts.RECIPE: {"name": "x", "evaluate": {"split": "test"}},
        run / artifacts.RECIPE: {"name": "x", "report": {"title": "t"}},
        run / artifacts.COMMANDS: ["medjudge run x.toml"],
        run / "grpo" / artifacts.PREFLIGHT: PREFLIGHT,
        run / "grpo" / artifacts.DOCTOR: DOCTOR,
        run / "grpo" / artifacts.JUDGES: {"llm": {"marks": {"n": 1}}},
        run / "sft" / artifacts.HISTORY: [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}],
        run / "sft" / artifacts.MANIFEST: manifest,
        run / "grpo" / artifacts.MANIFEST: manifest,
        evaluated / artifacts.MANIFEST: manifest,
        run / "prepare" / artifacts.DATA: {
            "splits": {"test": {"n_cases": 2, "n_groups": 1}},
            "lint": {"test": {"a": 1}},
        },
        run / "prepare" / artifacts.LEAKAGE: {"findings": []},
        evaluated / artifacts.PROMPTS: {"case_id": "c1", "prompt": "p"},
        run / rng.choice((artifacts.SUITE, "notes.json")): {
            "models": ["a"],
            "mode": "generate",
            "sets": {},
            "notes": [],
        },
        run / rng.choice((artifacts.SUITE, artifacts.VARIANTS, f"compare/{artifacts.VARIANTS}")): {"variants": []},
    }
    broken = rng.sample(list(files), rng.choice((0, 1, 1, 2)))
    for path, value in files.items():
        if path.name in (artifacts.SUITE, artifacts.VARIANTS) and (path not in broken or rng.random() < 0.7):
            continue
        path.parent.mkdir(exist_ok=True)
        text = as_json(mutated(json.loads(json.dumps(value)), rng) if path in broken else value)
        if path in broken:
            path.unlink(missing_ok=True)
            write_odd(path, text.encode(), rng)
        elif not path.exists():
            path.write_text(text)
    row = {"case_id": "c1", "model": "a", "gold": "yes", "label": "no", "confidence": 0.5, "unparsed_reason": None}
    if rng.random() < 0.2:
        write_odd(evaluated / artifacts.VERDICTS, as_json(mutated(row, rng)).encode(), rng)
    else:
        (evaluated / artifacts.VERDICTS).write_text(json.dumps(row) + "\n")
    return run


def begun_run(folder: Path, rng: random.Random) -> list[str]:
    """A run whose rows are prepared, or half so, with some of its files damaged; and a command that goes on in it."""
    shutil.copytree(BEGUN, folder, dirs_exist_ok=True)
    run = folder / "runs" / "begun"
    if rng.random() < 0.4:  # cut off
        work = run / ".prepare.work"
        (run / "prepare").rename(work)
        manifest = json.loads((work / artifacts.MANIFEST).read_text())
        (work / artifacts.INPUTS).write_text(json.dumps(manifest["inputs"]))
        (work / artifacts.THREADS).write_text(json.dumps({"n": 1}))
        if rng.random() < 0.5:
            (work / artifacts.MANIFEST).unlink()
        checkpoint = work / artifacts.CHECKPOINTS / "checkpoint-1"
        checkpoint.mkdir(parents=True)
        (checkpoint.parent / artifacts.SITTINGS).write_text('[{"began": 1.0, "seconds": 2.0}]')
        (checkpoint.parent / artifacts.JUDGES).write_text('{"states": {}, "spent": {}}')
        (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
        (checkpoint / artifacts.TOTALS).write_text('{"loss": 1.0, "tokens": 3}')
        artifacts.mark_checkpoint_complete(checkpoint)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in rng.sample(files, rng.choice((1, 1, 2, 3))):
        content = path.read_bytes()
        with contextlib.suppress(ValueError, RecursionError):
            content = as_json(mutated(json.loads(content), rng)).encode() if rng.random() < 0.7 else content
        path.unlink()
        write_odd(path, damaged(content, rng) if rng.random() < 0.3 else content, rng)
    option = mostly(rng, [], ["--fresh"], ["--force"], ["--from", "sft"], ["--set", "seed=2"], ["--until", "sft"])
    until_prepare = ["run", "begun.toml", "--until", "prepare", *option]
    return rng.choice((until_prepare, until_prepare, ["run", "begun.toml", "--dry-run", *option],
                       ["report", "runs/begun"], ["preflight", "begun.toml"]))  # fmt: skip


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
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages }}"},
        "generation_config.json": {"temperature": 0.5},
    }
    for name in rng.sample(list(files), rng.randint(1, len(files))):
        write_odd(
            model / name, as_json(mutated(json.loads(json.dumps(files[name])), rng, rng.randint(0, 2))).encode(), rng
        )
    if rng.random() < 0.7:
        (model / "model.safetensors").write_bytes(damaged(b"\x08\0\0\0\0\0\0\0{}      ", rng))
    return model


def settings_of(rng: random.Random) -> list[str]:
    """`--set` options, mostly of settings that there are, mostly refused."""
    if rng.random() < 0.3:
        return []
    key = mostly(
        rng, rng.choice(SETTINGS), "model", "nothing.at_all", "model.threads.x", "", ".", "profile", "variants.a.seed"
    )
    value = odd(rng)
    return ["--set", f"{key}={rng.choice((as_json, as_text))(value)}"[:3000]]


def option_texts(options: Mapping[str, Any]) -> list[str]:
    """Options as they are typed."""
    texts = []
    for name, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            if each is True:
                texts.append(f"--{name}")
            elif each is not None and each is not False:
                texts += [f"--{name.replace('_', '-')}", str(each)]
    return texts


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
        "run": lambda: [
            recipe, *mostly(rng, ["--dry-run"], ["--help"]), *rng.choice(([], ["--from", rng.choice(("sft", "x"))])),
            *settings_of(rng),
        ],
        "demo": lambda: [
            "--task", rng.choice(("x", "", "MCQ", *ROWS)), *rng.choice(([], ["--force"], ["--fresh", "--force"])),
            *settings_of(rng), *rng.choice(([], ["--seed", rng.choice(("1", "x", "-1", "9" * 30))])), *out
        ],
        "preflight": lambda: [recipe, *settings_of(rng), *rng.choice(([], ["--force"]))],
        "begun": lambda: [],
        "evaluate": lambda: ["--data", rows, "--model", f"{name}={model}", *asked, *out],
        "calibrate": lambda: [model, "--data", rows, *asked, "--kind", rng.choice(("platt", "x"))],
        "probe": lambda: [
            "--data", rows, "--model", f"{name}={model}", "--samples", rng.choice(("0", "1", "x")), *asked, *out
        ],
        "score": lambda: [verdicts, *option_texts(score_options(rng, verdicts)), *out],
        "bench rubric": lambda: rng.choice((["--list"], ["--data", f"{name}={rows}", "--rubric", f"{name}={recipe}",
                                            "--model", f"m={model}", *out])),
        "export lm-eval": lambda: [str(folder / "tasks"), "--data", rows, *asked],
        "report": lambda: [
            str(mostly(rng, run_folder(folder, rng), folder, Path(rows))), *rng.choice(([], ["--show-text"]))
        ],
        "lineage": lambda: [model],
        "info": lambda: ["--nothing"],
    }  # fmt: skip
    weights = {"report": 4, "lineage": 3, "evaluate": 2, "check-data": 3, "run": 2, "score": 3, "demo": 2, "begun": 4}
    command = rng.choices(list(commands), [weights.get(one, 1) for one in commands])[0]
    arguments = begun_run(folder, rng) if command == "begun" else [*command.split(), *commands[command]()]
    if rng.random() < 0.25:  # an option or a value that nobody expects
        extra = rng.choice(
            ("--set", "--map", "--where", "--seed", "--nothing", "-x", "--gold", "--mode", "--max-cases", "--judge")
        )
        at = rng.randint(1, len(arguments))
        arguments[at : rng.choice((None, at))] = [extra, as_text(odd(rng))]
    return [argument.replace("\0", "").encode("utf-8", "replace").decode() for argument in arguments]


def fuzz_command(rng: random.Random, folder: Path, note: Note) -> bool:
    """One command line, run in this process as the console script runs it. Whether it was refused."""
    arguments = command_of(rng, folder)
    note.add("arguments", arguments)
    global DRAWS
    DRAWS = rng.random() < 0.1
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
    if "out of memory" in err.getvalue():
        raise AssertionError("out of memory")
    if code in (1, 2) and not (err.getvalue() + out.getvalue()).strip():
        raise AssertionError(f"exit code {code} without a word")
    return bool(code)


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


FUZZERS: dict[str, Callable[[random.Random, Path, Note], bool | None]] = {
    "recipes": fuzz_recipe,
    "rows": fuzz_rows,
    "verdicts": fuzz_verdicts,
    "commands": fuzz_command,
}
TREES = base_trees()
SETTINGS = sorted(
    {"model.threads", *(f"{part}.{key}" for part, keys in recipe_from_tree(TREES[0]).model_dump().items()
                        if isinstance(keys, dict) for key in keys)}
)  # fmt: skip
RESULTS: Any = {"version": 0}
DRAWS = True
"""Whether pictures are drawn, which takes most of an input's time."""
BEGUN = Path()
"""A run folder with prepared rows, its recipe and the rows."""


BEGUN_RECIPE = """
name = "begun"
[task]
kind = "mcq"
[data]
source = "rows.jsonl"
splits = { train = 0.5, test = 0.5 }
leakage.allow = ["near_duplicate"]
[model]
base = "builtin:scratch"
"""


def prepare_process() -> None:
    """Refuses connections, silences libraries, and makes one whole `results.json` to damage."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network here")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.create_connection = refuse  # type: ignore[assignment]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    global RESULTS, BEGUN
    from rich.console import Console

    from medjudge.commands.score import ScoreOptions, label_scale, score
    from medjudge.reporting.figures import Picture
    from medjudge.runs import pipeline

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in verdict_rows(random.Random(1))))
        with contextlib.suppress(MedjudgeError):
            RESULTS = score(
                [str(path)], label_scale("no,yes"), ScoreOptions(n_resamples=100, min_read=0.0)
            ).results.to_json()
    RESULTS["leakage"] = LEAKAGE
    for model in RESULTS["models"].values():
        model["lineage"] = LINEAGE if model["role"] == "model" else None
    kept = tempfile.TemporaryDirectory(prefix="fuzz-begun-")
    atexit.register(kept.cleanup)
    BEGUN = Path(kept.name)
    run_recipe = pipeline.run_recipe
    rows = [
        {**row, "id": f"{row['id']}-{i}", "question": f"{i} {row['question']}"} for row in ROWS["mcq"] for i in "abcd"
    ]
    (BEGUN / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (BEGUN / "begun.toml").write_text(BEGUN_RECIPE)
    with contextlib.chdir(BEGUN):
        run_recipe(load_recipe_file(Path("begun.toml"), [])[0], Console(file=io.StringIO()), last="prepare")

    def prepare_only(recipe: Any, console: Any, **options: Any) -> Path:
        """Nothing is trained here: what is checked before the first stage, and the first stage."""
        return run_recipe(recipe, console, **{**options, "first": None, "last": "prepare"})

    pipeline.run_recipe = prepare_only
    draw = Picture.png
    Picture.png = lambda self: draw(self) if DRAWS else b""  # type: ignore[method-assign]


def one(kind: str, index: int, seed: int, *, loud: bool = False) -> tuple[str, str]:
    """(`fine`, `refused` or `failed`, what to print) of one input."""
    rng = random.Random(f"{seed}:{kind}:{index}")
    note = Note()

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"longer than {LONGEST_S} s of processor time, or {LONGEST_WALL_S} s on the clock")

    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        # Processor time: on a busy machine the clock would blame an input for its neighbours.
        previous = {number: signal.signal(number, too_long) for number in (signal.SIGPROF, signal.SIGALRM)}
        signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
        signal.alarm(LONGEST_WALL_S)
        try:
            refused = FUZZERS[kind](rng, folder, note)
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
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
            for number, handler in previous.items():
                signal.signal(number, handler)
            for path in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    path.chmod(0o700)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
    return "refused" if refused else "fine", ""


def many(kind: str, indices: Sequence[int], seed: int, notes: Path) -> tuple[str, Counter[str], list[str]]:
    """(kind, how inputs ended, failures) of some inputs, in a prepared process. notes: where it says what it is at."""
    counts: Counter[str] = Counter()
    failures = []
    note = notes / str(os.getpid())
    for index in indices:
        note.write_text(f"--only {kind} --case {index} --seed {seed}")
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
    with tempfile.TemporaryDirectory(prefix="fuzz-notes-") as name:
        notes = Path(name)
        try:
            with ProcessPoolExecutor(arguments.processes, initializer=prepare_process) as pool:
                calls = ((kind, indices, arguments.seed, notes) for kind, indices in jobs)
                for kind, counts, failures in pool.map(many, *zip(*calls, strict=True)):
                    totals[kind] += counts
                    for text in failures:
                        place = "\n".join(line for line in text.splitlines() if line.lstrip().startswith("File"))[-300:]
                        seen[place] += 1
                        if seen[place] <= 2:  # the same line of code again and again says nothing new
                            print(text, end="\n\n", flush=True)
        except BrokenProcessPool:
            raise SystemExit(f"a process died at one of: {[note.read_text() for note in notes.iterdir()]}") from None
    for kind, counts in totals.items():
        print(f"{kind}: {dict(counts)}")
    n_failed = sum(counts["failed"] for counts in totals.values())
    n = sum(counts.total() for counts in totals.values())
    print(f"{n:,} inputs, {n_failed:,} failures, {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if n_failed else 0)


if __name__ == "__main__":
    main()
