"""Files of OpenAI's programs: batch output (also of vLLM's `run-batch`), logs of `evals`, results of the Evals API."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medjudge.data.cells import Scale, tidy
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    N_LOOKED_AT,
    Asked,
    Format,
    Layout,
    Values,
    added,
    entries,
    finite,
    get,
    gold_path,
    has,
    having,
    items,
    objects,
    or_none,
)
from medjudge.errors import DataError
from medjudge.records import Verdict

VERDICT, PROBABILITY, FAILED, KIND, REASON = "verdict in the answer", "its probability", "failure", "kind", "reason"
TEXT, CHOICE, MODEL = "response.body.choices.message.content", "choice", "response.body.model"


def _read_batch(rows: list[Row], asked: Asked, source: str) -> Layout:
    scale = Scale(asked.labels)
    laid = []
    models: dict[str, None] = {}
    for row in rows:
        body = items(get(row.values, "response.body"))
        models.setdefault(plain(body.get("model")))
        status = finite(get(row.values, "response.status_code"))
        choices = objects(body.get("choices"))
        if row.values.get("error") or (status is not None and status >= 400) or not choices:
            laid.append(added(row, {VERDICT: None, FAILED: "error", CHOICE: 0, KIND: "failed"}))
            continue
        for at, choice in enumerate(choices):
            laid.append(added(row, {FAILED: "", CHOICE: at, **_answer(choice, asked, scale)}))
    columns = {
        "id": "custom_id",
        "label": VERDICT,
        "confidence": PROBABILITY,
        "error": FAILED,
        "kind": KIND,
        "reason": REASON,
        "completion": TEXT,
        "repeat": CHOICE,
    }
    # A file of one request per case and model holds several judges.
    if len(models) > 1:
        columns["judge"] = MODEL
    how = "the task's own parser" if asked.contract is not None else "the whole answer is the label"
    note = f"{source}: verdicts are read from the answers ({how})."
    return Layout(laid, columns, {TEXT: VERDICT, "response.body.choices[0].message.content": VERDICT}, [note])


def _answer(choice: Values, asked: Asked, scale: Scale) -> dict[str, object]:
    """The verdict in one answer, or why there is none."""
    text = plain(get(choice, "message.content"))
    finish = plain(choice.get("finish_reason"))
    found: dict[str, object] = {TEXT: text, VERDICT: None, PROBABILITY: None, KIND: "format", REASON: ""}
    if get(choice, "message.refusal") or finish == "content_filter":
        return {**found, KIND: "refused", REASON: "refused"}
    if not text.strip():
        return {**found, KIND: "truncated" if finish == "length" else "failed", REASON: "empty"}
    if asked.contract is not None:
        judgement = asked.contract.parse("", text)
        if not isinstance(judgement, Verdict):
            return {**found, KIND: "truncated" if finish == "length" else judgement.kind, REASON: "unreadable"}
        stated = judgement.confidence
        likely = _probability(choice, judgement.label, scale)
        return {**found, VERDICT: judgement.label, PROBABILITY: stated if likely is None else likely}
    label = scale.read(text)
    if label is None:
        # An answer that is no label stays in the column, so that its values can be counted and shown.
        return {**found, VERDICT: text, KIND: "truncated" if finish == "length" else "schema"}
    return {**found, VERDICT: label, PROBABILITY: _probability(choice, label, scale)}


def _probability(choice: Values, label: str, scale: Scale) -> float | None:
    """The label's share of the probability of all labels, at the first token that is one; None where it is unknown."""
    for token in objects(get(choice, "logprobs.content")):
        if scale.read(tidy(plain(token.get("token")))) != label:
            continue
        shares: dict[str, float] = {}
        for other in [*objects(token.get("top_logprobs"))] or [token]:
            named = scale.read(tidy(plain(other.get("token"))))
            value = finite(other.get("logprob"))
            if named is not None and value is not None and value <= 0:
                shares[named] = shares.get(named, 0.0) + math.exp(value)
        # Of one token alone it is not known how likely the other labels were.
        return shares[label] / sum(shares.values()) if len(shares) > 1 and shares.get(label) else None
    return None


def _is_log(rows: Sequence[Values]) -> str:
    if not any(has(row, "spec.eval_name") or has(row, "spec.run_id") for row in rows):
        return ""
    events = [row for row in rows[:N_LOOKED_AT] if not has(row, "spec") and not has(row, "final_report")]
    return having("sample_id", "type", "data")(events) and "a line with spec, then events with sample_id, type and data"


def _read_log(rows: list[Row], asked: Asked, source: str) -> Layout:
    by_type: dict[str, list[Row]] = {}
    for row in rows:
        data = row.values.get("data")
        if row.values.get("type") == "match" and has(data, "picked"):
            by_type.setdefault("data.picked", []).append(row)
        elif row.values.get("type") == "metrics" and has(data, "choice"):
            by_type.setdefault("data.choice", []).append(row)
    if not by_type:
        raise DataError(
            f"{source}: a log of OpenAI evals without events that hold a verdict: expected type match with "
            "data.picked, or type metrics with data.choice. Read it as plain rows: --format rows."
        )
    if len(by_type) > 1:
        shown = " or ".join(f"--format rows --map id=sample_id,label={path}" for path in by_type)
        raise DataError(f"{source}: it holds verdicts in {' and in '.join(by_type)}. Say which: {shown}.")
    label, kept = next(iter(by_type.items()))
    scorable = label
    if asked.scores and any(has(row.values, "data.score") for row in kept):
        scorable = "data.score"
    columns = {"id": "sample_id", "label": scorable, "judge": "", "generator": "", "confidence": "", "error": ""}
    if label == "data.picked" and asked.gold is None and not asked.gold_elsewhere:
        columns["gold"] = "data.expected"
    # The events of one sample are told apart by their number: a second answer is a repeat.
    if any(has(row.values, "event_id") for row in kept):
        columns["repeat"] = "event_id"
    return Layout(kept, columns, {label: scorable}, [])


def _read_api(rows: list[Row], asked: Asked, source: str) -> Layout:
    laid = [
        added(
            row,
            {
                VERDICT: or_none(result.get("score" if asked.scores else "passed")),
                "results.name": result.get("name") or result.get("type"),
                FAILED: "error" if get(result, "sample.error") or result.get("status") == "error" else "",
            },
        )
        for row in rows
        for result in objects(row.values.get("results"))
    ]
    id_ = "datasource_item_id" if any(has(row.values, "datasource_item_id") for row in rows) else "id"
    columns = {"id": id_, "label": VERDICT, "judge": "results.name", "error": FAILED, "confidence": ""}
    if path := gold_path(rows, ["datasource_item", "datasource_item.item"], asked, source):
        columns["gold"] = path
    return Layout(laid, columns, {"results[0].passed": VERDICT}, [], meaning="sides")


def _is_api(rows: Sequence[Values]) -> str:
    if not all(any(has(one, "passed") for one in objects(row.get("results"))) for row in rows):
        return ""
    return having("results", one_of=("datasource_item", "datasource_item_id", "run_id"))(rows)


def _is_batch(rows: Sequence[Values]) -> str:
    if not any(entries(get(row, "response.body.choices")) for row in rows):
        return ""
    return having("custom_id", "response")(rows)


BATCH = Format(
    "openai_batch",
    "batch output of OpenAI or vLLM",
    "medjudge score output.jsonl --labels no,yes --gold gold.csv",
    _is_batch,
    _read_batch,
)
EVALS_LOG = Format(
    "openai_evals",
    "a log of OpenAI evals",
    "medjudge score log.jsonl --labels no,yes",
    _is_log,
    _read_log,
)
EVALS_API = Format(
    "openai_evals_api",
    "output items of OpenAI's Evals API",
    "medjudge score items.jsonl --labels fail,pass [--gold datasource_item.NAME]",
    _is_api,
    _read_api,
)
