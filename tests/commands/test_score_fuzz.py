"""Whatever a file of verdicts holds and whatever is asked of it: numbers, or one message; never a traceback."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from medjudge.commands.score import ScoreOptions, label_scale, parse_judges, score
from medjudge.data.sources import parse_options
from medjudge.errors import ConfigError, DataError

CELLS: list[Any] = [
    *(
        "yes",
        "no",
        "YES",
        " no ",
        "y",
        "",
        " ",
        "0",
        "1",
        "1.0",
        "0,5",
        "3.5",
        "nan",
        "null",
        "true",
        "N/A",
        "-",
        "é",
        "e\u0301",
    ),
    *("\u200b", "\u00a0", "text " * 40, "1" * 400, "1e999", "inf", "-0", "[1]", "{}", "a,b;c", 'a"b', "a\nb", "=1+1"),
    *(None, True, False, 0, 1, 2, -1, 0.5, 1e308, float("nan"), float("inf"), 10**30, [], {}, ["yes"], ["yes", "no"]),
    *({"a": "yes"}, {"a": [{"b": "no"}]}, [["yes"]], [{"error": "x"}], {"error": {"code": 1}}, {"graderError": True}),
]
NAMES = [
    *("id", "case_id", "label", "verdict", "prediction", "gold", "gold_label", "model", "judge", "generator", "group"),
    *(
        "confidence",
        "error",
        "question",
        "prompt",
        "role",
        "slices",
        "a.b",
        "a+b",
        "",
        " ",
        "x[0]",
        "unparsed_reason",
        "é",
        "rater",
        "adjudicated",
    ),
]
PATHS = [
    *NAMES,
    "a",
    "a.0.b",
    "a[0].b",
    "a[*].b",
    "label.a",
    "nothing",
    "id+model",
    "+",
    ".",
    "[*]",
    "a..b",
    "label[0]",
    "gold,label",
    "gold,a,b",
    ",",
]
VALUES = ["", "yes", "no", "1", "a", "LABEL"]


def any_value(rng: random.Random) -> Any:
    return rng.choice(CELLS) if rng.random() < 0.35 else rng.choice(["yes", "no", "yes", "no", "maybe"])


def any_rows(rng: random.Random) -> list[Any]:
    names = rng.sample(NAMES, rng.randint(1, 7))
    if rng.random() < 0.8:
        names = list(dict.fromkeys(["id", "label", "gold", *names]))
    good = rng.random() < 0.7
    if good and rng.random() < 0.8:
        names = [name for name in names if name not in ("verdict", "prediction", "gold_label", "case_id", "error", "")]
    rows: list[Any] = []
    labels: list[Any] = [0.1, 0.6, 0.9, 2] if rng.random() < 0.1 else ["yes", "no"]
    several: list[Any] = [["yes", "no"], {"a": "yes", "b": "yes"}, ["no", "", "no"]] if rng.random() < 0.3 else []
    for i in range(rng.randint(0, 8)):
        row = {name: any_value(rng) for name in names if rng.random() < 0.95}
        if good:
            row |= {"id": i, "label": rng.choice(labels), "gold": rng.choice(["yes", "no", *several])}
            row["confidence"] = rng.choice([0.5, "0,9", None, "90%", 1])
        rows.append(row if good or rng.random() < 0.98 else rng.choice(CELLS))
    return rows


def any_file(rng: random.Random, folder: Path) -> str:
    rows = any_rows(rng)
    kind = rng.choice([*["jsonl", "json", "csv"] * 8, "tsv", "xlsx", "eval", "parquet"])
    path = folder / f"f{rng.randint(0, 3)}.{kind}"
    if kind in ("csv", "tsv"):
        mark, out = rng.choice([",", ";", "\t"]), io.StringIO()
        names = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
        writer = csv.writer(out, delimiter=mark)
        writer.writerows([names, *([row.get(name, "") for name in names] for row in rows if isinstance(row, dict))])
        text = rng.choice(["", "", f"sep={mark}\n"]) + out.getvalue()
    elif kind == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows)
    else:
        named = {str(at): row for at, row in enumerate(rows)}
        shapes = [
            rows,
            rows,
            {"data": rows},
            {"results": rows},
            {"a": {"b": rows}},
            {"results": rows, "b": rows},
            named,
        ]
        text = json.dumps(rng.choice(shapes))
    content = text.encode(rng.choice([*["utf-8"] * 6, "utf-8-sig", "utf-16", "cp1252"]), "replace")
    if rng.random() < 0.05:
        content = content[: rng.randint(0, len(content))] + bytes(rng.randrange(256) for _ in range(rng.randint(0, 6)))
    path.write_bytes(content)
    return str(path) if rng.random() < 0.8 else f"{rng.choice(['a', 'majority', 'b c'])}={path}"


def any_pairs(rng: random.Random, left: list[str], right: list[str], most: int) -> list[str]:
    names = rng.sample(left, min(len(left), rng.randint(0, most)))
    return [f"{name}{'=' if rng.random() < 0.97 else ''}{rng.choice(right)}" for name in names]


def any_options(rng: random.Random, folder: Path) -> dict[str, Any]:
    fields = ["id", "label", "gold", "confidence", "generator", "group", "judge", "error", "colour"]
    fields += ["rater", "adjudicated"]
    given: dict[str, Any] = {"n_resamples": 20}
    if rng.random() < 0.3:
        given["columns"] = parse_options(any_pairs(rng, fields, [*PATHS, ""], 3), "--map takes FIELD=COLUMN")
    if rng.random() < 0.2:
        given["judges"] = parse_judges(any_pairs(rng, ["a", "b"], PATHS, 2))
    if rng.random() < 0.2:
        given["gold"] = any_file(rng, folder).partition("=")[2] or rng.choice(PATHS)
        given["gold_columns"] = parse_options(any_pairs(rng, fields, PATHS, 2), "--gold-map takes FIELD=COLUMN")
    if rng.random() < 0.3:
        given["aliases"] = parse_options(
            any_pairs(rng, ["y", "maybe", "true", "é"], VALUES, 2), "--alias takes VALUE=LABEL"
        )
    if rng.random() < 0.1:
        given["where"] = any_pairs(rng, PATHS, VALUES, 2)
    if rng.random() < 0.2:
        given |= {"threshold": rng.choice([0.5, 0, float("nan")]), "gold_threshold": rng.choice([None, 1])}
    if rng.random() < 0.1:
        given["gold_rule"] = rng.choice(["majority", "adjudicated", "mean", "median"])
        given["gold_ties"] = rng.choice(["leave_out", "higher", "lower"])
    if rng.random() < 0.1:
        given["scores"] = rng.choice(["probability", "percent", "logit", "number"])
        given["threshold_rule"] = rng.choice([None, None, "youden", "sensitivity=0.95", "cost=5", "best", "cost=nan"])
        given["calibration_share"] = rng.choice([0.5, 0.05, 0.95])
    if rng.random() < 0.1:
        given["reference"] = rng.choice(["a", "f0"])
    return given


def one_try(seed: int, folder: Path) -> str:
    """Scores any files with any options. Returns the message, or "" where there were numbers."""
    rng = random.Random(seed)
    try:
        files = [any_file(rng, folder) for _ in range(rng.choice([1, 1, 1, 2]))]
        labels = rng.choice([*["no,yes"] * 20, "0,1", "a,b,c", "yes", "no,yes,maybe"])
        score(files, label_scale(labels, rng.random() < 0.3), ScoreOptions(**any_options(rng, folder)))
    except (DataError, ConfigError) as error:
        return str(error) or "a message without words"
    return ""


@pytest.mark.parametrize("block", range(8))
def test_numbers_or_one_message(tmp_path: Path, block: int) -> None:
    messages = [one_try(1000 * block + at, tmp_path) for at in range(70)]
    assert not all(messages)  # the generator makes files that can be read, too
    assert "a message without words" not in messages
    assert not any("text text" in message for message in messages)
