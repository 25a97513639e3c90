"""Samples of lm-eval: answers that were generated, or options that were chosen by their log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from medjudge.data.cells import Scale, tidy
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    Asked,
    Format,
    Layout,
    added,
    entries,
    finite,
    get,
    having,
    items,
)

ANSWER, CHOSEN, TARGET, REPEAT = "filtered_resps", "likeliest option", "target option", "response"
PROBABILITY = "its probability"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _read(rows: list[Row], asked: Asked, source: str) -> Layout:
    columns = {"id": "doc_id", "gold": "target", "generator": "", "judge": "", "error": ""}
    choices = [_log_probs(row) for row in rows]
    if all(found is not None for found in choices):
        named = _option_names(rows, choices, asked)
        laid = [
            _chosen(row, found, names)
            for row, found, names in zip(rows, choices, named, strict=True)
            if found is not None
        ]
        note = (
            f"{source}: the verdict is the option with the highest log-likelihood, its confidence the share of its "
            "probability among the options."
        )
        columns |= {"label": CHOSEN, "gold": TARGET, "confidence": PROBABILITY}
        return Layout(laid, columns, {"target": TARGET}, [note])
    laid = []
    for row in rows:
        answers = entries(row.values.get(ANSWER))
        several = answers[0] if len(answers) == 1 and isinstance(answers[0], list) else answers
        laid += [added(row, {"answer": answer, REPEAT: at}) for at, answer in enumerate(several or [None], start=1)]
    columns |= {"label": "answer", "repeat": REPEAT, "confidence": ""}
    return Layout(laid, columns, {ANSWER: "answer"}, [])


def _log_probs(row: Row) -> list[float] | None:
    """The log-likelihood of each option, None where the row is no choice."""
    pairs = entries(row.values.get(ANSWER))
    if len(pairs) < 2 or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return None
    if not all(isinstance(pair[1], bool) or plain(pair[1]).casefold() in ("true", "false") for pair in pairs):
        return None
    # A likelihood that overflowed is written as `-inf`, and never the largest.
    values = [-math.inf if (value := finite(pair[0])) is None else value for pair in pairs]
    return values if any(value > -math.inf for value in values) else [math.nan for _ in values]


def _option_names(rows: list[Row], choices: Sequence[Any], asked: Asked) -> list[list[str]]:
    """Per row what its options are called on the scale that was asked for: by text, by letter, or by number."""
    by_text = [_texts_of(row, len(found or ())) for row, found in zip(rows, choices, strict=True)]
    scale = Scale(asked.labels)
    if all(names and all(scale.read(name) is not None for name in names) for names in by_text):
        return by_text
    if all(label.upper() in LETTERS for label in asked.labels):
        return [[LETTERS[at] if at < len(LETTERS) else "" for at in range(len(names))] for names in by_text]
    return [[str(at) for at in range(len(names))] for names in by_text]


def _texts_of(row: Row, n: int) -> list[str]:
    """The texts of the options: as the document lists them, else as they were continued with."""
    for path in ("doc.choices", "doc.choices.text", "doc.options"):
        found = get(row.values, path)
        if isinstance(found, list) and len(found) == n:
            return [tidy(plain(text)) for text in found]
    arguments = row.values.get("arguments")
    ends = [get(one, "arg_1", "") for one in items(arguments).values()] or [
        pair[1] for pair in entries(arguments) if isinstance(pair, list) and len(pair) == 2
    ]
    return [tidy(plain(text)) for text in ends] if len(ends) == n else [""] * n


def _chosen(row: Row, log_probs: list[float], names: list[str]) -> Row:
    target = tidy(plain(row.values.get("target")))
    gold: str | None = target
    if target.isdecimal() and len(target) < 4 and target not in names:
        gold = names[int(target)] if int(target) < len(names) else None
    elif target not in names and target.upper() in LETTERS and len(target) == 1:
        at = LETTERS.index(target.upper())
        gold = names[at] if at < len(names) else None
    elif target not in names and target in (by_text := _texts_of(row, len(names))):
        gold = names[by_text.index(target)]
    if math.isnan(log_probs[0]):
        return added(row, {CHOSEN: None, PROBABILITY: None, TARGET: gold})
    best = max(range(len(log_probs)), key=log_probs.__getitem__)
    weights = [math.exp(value - log_probs[best]) for value in log_probs]
    # Two options that are equally likely are no choice.
    verdict = names[best] if sum(weight == 1.0 for weight in weights) == 1 else None
    return added(row, {CHOSEN: verdict, PROBABILITY: weights[best] / sum(weights) if verdict else None, TARGET: gold})


FORMAT = Format(
    "lm_eval",
    "samples of lm-eval",
    "medjudge score samples_TASK_DATE.jsonl --labels no,yes [--where filter=NAME]",
    having("doc_id", "doc", "target", ANSWER),
    _read,
)
