"""Annotations of traces in Langfuse, Phoenix and MLflow: people and models annotate one trace, under a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.data.verdict_formats.layout import (
    NO_VERDICT,
    Asked,
    Format,
    Layout,
    Values,
    added,
    get,
    has,
    having,
    items,
    majority,
    objects,
    or_none,
    tied_experts,
)
from medjudge.errors import DataError

VALUE, NAME, TRACE, FAILED, EXPERTS = (
    "annotation's value",
    "annotation's name",
    "trace",
    "failure",
    "experts' annotation",
)


@dataclass(frozen=True, slots=True)
class _Note:
    """One annotation."""

    trace: str
    name: str
    value: Any
    by_person: bool
    failed: str = ""
    row: Row | None = None
    who: str = ""


def _joined(notes: Sequence[_Note], asked: Asked, source: str) -> Layout:
    """Models' annotations beside people's on the same trace, under the same name or the only one that people used.

    Raises DataError where people used several names and none of them is that of a model.
    """
    people = [note for note in notes if note.by_person]
    models = [note for note in notes if not note.by_person and note.row is not None]
    names = list(dict.fromkeys(note.name for note in people))
    gold_of: dict[str, str | None] = {}
    more: list[str] = []
    judges = list(dict.fromkeys(note.name for note in models))
    # The only name that people used is every judge's truth, unless a judge has that name itself.
    only = names[0] if len(names) == 1 and names[0] not in judges else None
    for judge in judges:
        gold_of[judge] = asked.gold if asked.gold in names else judge if judge in names else only
    if people and not asked.gold_elsewhere and asked.gold is None and None in gold_of.values():
        if all(name is None for name in gold_of.values()):
            raise DataError(
                f"{source}: people annotated {', '.join(names[:8])}, models {', '.join(list(gold_of)[:8])}: which "
                "belong together is not said. Name the people's: "
                f"{' or '.join(f'--gold {name}' for name in names[:3])}."
            )
        left_out = [name for name, gold in gold_of.items() if gold is None]
        models = [note for note in models if gold_of[note.name] is not None]
        more = [f"{source}: left out, for people did not annotate it: {', '.join(left_out[:8])}."]
    votes: dict[tuple[str, str], list[Any]] = {}
    for note in people:
        votes.setdefault((note.trace, note.name), []).append(note.value)
    truths, n_tied = {}, 0
    for key, given in votes.items():
        truths[key], tied = majority(given)
        n_tied += tied
    several = len({gold_of[note.name] for note in models} - {None}) > 1
    met: dict[tuple[str, str], int] = {}
    laid = []
    for note in models:
        who = f"{note.name} ({note.who})" if note.who else note.name
        met[note.trace, who] = met.get((note.trace, who), 0) + 1
        computed = {
            VALUE: None if note.failed else note.value,
            NAME: who,
            # Under several names one trace holds several questions, and so several cases.
            TRACE: f"{note.trace}|{note.name}" if several else note.trace,
            FAILED: note.failed,
            EXPERTS: truths.get((note.trace, gold_of[note.name] or "")),
            "time": met[note.trace, who],
        }
        if note.row is not None:
            laid.append(added(note.row, computed))
    judged = {(note.trace, gold_of[note.name]) for note in models}
    for note in people:
        # What people annotated and no model did is a case that the models left out.
        if note.row is None or note.name not in gold_of.values() or (note.trace, note.name) in judged:
            continue
        judged.add((note.trace, note.name))
        names_of = [judge for judge, gold in gold_of.items() if gold == note.name]
        for judge in names_of if several else names_of[:1]:
            computed = {TRACE: f"{note.trace}|{judge}" if several else note.trace, NO_VERDICT: True}
            laid.append(added(note.row, {**computed, EXPERTS: truths[note.trace, note.name]}))
    columns = {
        "id": TRACE,
        "label": VALUE,
        "judge": NAME,
        "error": FAILED,
        "repeat": "time",
        "confidence": "",
        "reason": "",
        "generator": "",
    }
    if people and not asked.gold_elsewhere:
        columns["gold"] = EXPERTS
    same = dict.fromkeys(names, EXPERTS)
    return Layout(laid, columns, same, [*more, *tied_experts(n_tied, len(votes))], meaning="sides")


def _read_langfuse(rows: list[Row], asked: Asked, source: str) -> Layout:
    notes = []
    for row in rows:
        values = row.values
        kind = plain(values.get("dataType")).upper()
        value: Any = or_none(values.get("value"))
        if kind == "CATEGORICAL" or (value is None and values.get("stringValue")):
            value = values.get("stringValue") or value
        elif kind == "BOOLEAN" and plain(value) in ("0", "1", "0.0", "1.0"):
            value = plain(value).startswith("1")
        at = "observationId" if values.get("observationId") else "traceId"
        place = plain(values.get(at) or values.get("sessionId") or values.get("datasetRunId"))
        by_person = plain(values.get("source")).upper() == "ANNOTATION"
        failed = "" if value is not None else "no value"
        notes.append(_Note(place, plain(values.get("name")), value, by_person, failed, row))
    return _joined(notes, asked, source)


def _read_phoenix(rows: list[Row], asked: Asked, source: str) -> Layout:
    notes = []
    for row in rows:
        values = row.values
        # A frame of the client has the columns `result.label` and `result.score`.
        label = get(values, "label", get(values, "result.label"))
        score = or_none(get(values, "score", get(values, "result.score")))
        value = score if asked.scores or label is None else label
        trace = plain(values.get("span_id") or values.get("context.span_id") or values.get("trace_id"))
        by_person = plain(values.get("annotator_kind")).upper() == "HUMAN"
        name = plain(values.get("name") or values.get("annotation_name"))
        notes.append(_Note(trace, name, value, by_person, "" if value is not None else "no label", row))
    return _joined(notes, asked, source)


def _assessments(row: Row) -> Iterator[_Note]:
    values = row.values
    trace = plain(get(values, "trace_id") or get(values, "info.trace_id") or get(values, "request_id"))
    for one in objects(get(values, "assessments") or get(values, "info.assessments")):
        source = items(one.get("source"))
        feedback, expected = items(one.get("feedback")), items(one.get("expectation"))
        by_person = plain(source.get("source_type")).upper() == "HUMAN" or bool(expected)
        value = or_none((expected or feedback).get("value"))
        failed = "error" if feedback.get("error") or one.get("error") else ("" if value is not None else "no value")
        if one.get("valid", True) is not False:
            yield _Note(trace, plain(one.get("name") or one.get("assessment_name")), value, by_person, failed, row)


def _read_mlflow(rows: list[Row], asked: Asked, source: str) -> Layout:
    return _joined([note for row in rows for note in _assessments(row)], asked, source)


def _is_mlflow(rows: Sequence[Values]) -> str:
    for path in ("assessments", "info.assessments"):
        if any(has(one, "source.source_type") for row in rows for one in objects(get(row, path))):
            return f"its rows have {path} with a source"
    return ""


def _where(column: str, known: set[str], *paths: str) -> Callable[[Sequence[Values]], str]:
    """A `recognise` that also looks at the values of one column."""
    by_keys = having(*paths)

    def recognise(rows: Sequence[Values]) -> str:
        if not all(plain(row.get(column)).upper() in known for row in rows):
            return ""
        return by_keys(rows)

    return recognise


def _is_phoenix(rows: Sequence[Values]) -> str:
    if not having("annotator_kind", one_of=("label", "result.label", "score", "result.score"))(rows):
        return ""
    return _where("annotator_kind", {"HUMAN", "LLM", "CODE"}, "annotator_kind")(rows)


LANGFUSE = Format(
    "langfuse",
    "scores of Langfuse",
    "medjudge score scores.json --labels no,yes",
    _where("source", {"ANNOTATION", "API", "EVAL"}, "name", "source", "dataType", "value"),
    _read_langfuse,
)
PHOENIX = Format(
    "phoenix",
    "annotations of Phoenix",
    "medjudge score annotations.jsonl --labels no,yes",
    _is_phoenix,
    _read_phoenix,
)
MLFLOW = Format(
    "mlflow",
    "traces of MLflow with assessments",
    "medjudge score traces.json --labels no,yes",
    _is_mlflow,
    _read_mlflow,
)
