"""Rows of the benchmark sets as published -> the rubric contract's fields: one pure function per form."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from medjudge.data.rows import Rejected, Row
from medjudge.tasks.contract import RowError
from medjudge.tasks.text import describe, describe_label, is_missing, whole_number

Values = Mapping[str, object]
Loader = Callable[[Values], Values | str]
"""A row of the original format -> the rubric contract's fields, or a few words that say why it takes no part.

Raises RowError for a row that is not of the format."""
RESPONSES, SOURCES = "response.jsonl", "source_info.jsonl"
"""The two files of RAGTruth as its authors publish it."""


def flow_heldout(row: Values) -> Values:
    """A row of Flow-Judge's held-out sets: lists of {name, content} and {score, description}, criteria, score."""
    inputs, output = row.get("inputs") or [], row.get("output")
    if not isinstance(inputs, Sequence) or isinstance(inputs, str) or not all(isinstance(i, Mapping) for i in inputs):
        raise RowError("inputs", describe(inputs), "a list of objects with name and content")
    named: dict[str, object] = {}
    for number, one in enumerate(inputs, start=1):
        name = str(one.get("name") or f"input {number}")
        named[name if name not in named else f"{name} {number}"] = one.get("content")
    return {
        "input": named or None,
        "output": output.get("content") if isinstance(output, Mapping) else output,
        "criteria": row.get("criteria"),
        "rubric": row.get("rubric"),
        "score": row.get("score"),
        "feedback": row.get("feedback"),
    }


def ragtruth(row: Values, task: Literal["QA", "Summary", "Data2txt"]) -> Values | str:
    """A RAGTruth response beside its source: score 1 where the annotators marked no span in it, else 0.

    Takes the authors' two files joined (`labels`, `source_info`), Flow AI's copy (`score`, `source_info` as JSON), and
    rows with `query`, `passages` and `hallucinated`.
    """
    if not is_missing(row.get("split")) and row.get("split") != "test":
        return "not of the test split"
    task_of_row = row.get("task_type")
    if not is_missing(task_of_row) and str(task_of_row).casefold() != task.casefold():
        return "of another task of RAGTruth"
    source = _from_json(row.get("source_info"))
    if task == "QA":
        given = source if isinstance(source, Mapping) else row
        inputs = {"Question": _first(given, "question", "query"), "Passages": _first(given, "passages")}
    elif is_missing(source):
        raise RowError("source_info", describe(source), "the text or the data that the response was made from")
    else:
        name = "Document" if task == "Summary" else "Data"
        inputs = {name: source if isinstance(source, str) else json.dumps(source, ensure_ascii=False)}
    return {
        "input": inputs,
        "output": row.get("response"),
        "score": _unmarked(row),
        "generator": row.get("model"),
    }


def join_ragtruth(responses: Iterable[Row | Rejected], sources: Iterable[Row | Rejected]) -> Iterator[Row | Rejected]:
    """Each response with the source that it was made from; the responses' places."""
    by_id: dict[str, Values] = {}
    for source in sources:
        if isinstance(source, Rejected):
            yield source
        else:
            by_id[str(source.values.get("source_id"))] = source.values
    for response in responses:
        if isinstance(response, Rejected):
            yield response
            continue
        source_row = by_id.get(str(response.values.get("source_id")))
        if source_row is None:
            yield Rejected(response.place, "source_id", f"got an id that {SOURCES} lacks, expected one of its rows")
        else:
            kept = {key: source_row.get(key) for key in ("task_type", "source", "source_info")}
            yield Row(response.place, {**response.values, **kept})


def _unmarked(row: Values) -> object:
    if not is_missing(row.get("score")):
        return row["score"]
    if isinstance(labels := _from_json(row.get("labels")), Sequence) and not isinstance(labels, str):
        return 0 if labels else 1
    marked = whole_number(row.get("hallucinated"))
    if marked not in (0, 1):
        raise RowError("labels", describe(row.get("labels")), "the list of marked spans, or `score`, or `hallucinated`")
    return 1 - marked


def halubench(row: Values, subset: str | None = None) -> Values | str:
    """A row of HaluBench: score 1 for PASS, 0 for FAIL. `subset` keeps one of its sources, spelt in any case.

    Takes the original (`passage`, `source_ds`, `label`), Flow AI's copies of its subsets (also `score`), and rows with
    `context` and `source`.
    """
    name = str(_first(row, "source_ds", "source", default="") or "")
    if subset is not None and name and _plain(name) != _plain(subset):
        return "of another subset of HaluBench"
    label = row.get("label")
    score = {"PASS": 1, "FAIL": 0}.get(str(label).strip().upper()) if not is_missing(label) else row.get("score")
    if score is None:
        raise RowError("label", describe_label(label), "PASS or FAIL")
    return {
        "input": {"Passage": _first(row, "passage", "context"), "Question": _first(row, "question")},
        "output": _first(row, "answer"),
        "score": score,
        "passage": _first(row, "passage", "context"),
        "subset": name or subset,
    }


def feedback_bench(row: Values, *, with_reference: bool = False) -> Values:
    """A row of Feedback-Bench (columns `orig_*`). The reference answer is left out, as in the published suite."""
    return {
        "input": {"Instruction": _first(row, "orig_instruction")},
        "reference": row.get("orig_reference_answer") if with_reference else None,
        "output": _first(row, "orig_response"),
        "criteria": _first(row, "orig_criteria"),
        "rubric": {str(n): row.get(f"orig_score{n}_description") for n in range(1, 6)},
        "score": row.get("orig_score"),
        "feedback": row.get("orig_feedback"),
    }


_SECTION = re.compile(r"^###\s*([^\n:]+):[ \t]*\n?", re.MULTILINE)
_RUBRIC_LINES = re.compile(r"^Score ([1-5]):[ \t]*(.*?)(?=^Score [1-5]:|\Z)", re.MULTILINE | re.DOTALL)


def prometheus(row: Values) -> Values:
    """A row of Prometheus's MT-Bench and Vicuna sets, with its reference answer; the score is the median of GPT-4's.

    Takes the original, whose `instruction` is a whole prompt in sections, and rows that have the sections as columns.
    """
    if isinstance(text := row.get("instruction"), str) and "###Response to evaluate" in text:
        row = {**row, **_sections(text)}
    scores = _first(row, "gpt4_scores", "gpt4_score")
    numbers = [whole_number(s) for s in scores] if isinstance(scores, Sequence) and not isinstance(scores, str) else []
    if not numbers or any(n is None for n in numbers):
        raise RowError("gpt4_score", describe(scores), "a list of scores")
    middle = statistics.median(n for n in numbers if n is not None)
    instruction, feedback = _first(row, "instruction"), row.get("gpt4_feedback")
    at = numbers.index(int(middle)) if middle in numbers else 0
    return {
        "input": {"Instruction": instruction},
        "reference": _first(row, "reference_answer", default=None),
        "output": _first(row, "response"),
        "criteria": _first(row, "criteria"),
        "rubric": {str(n): row.get(f"score{n}") for n in range(1, 6)},
        "score": middle,
        "feedback": feedback[at] if isinstance(feedback, Sequence) and len(feedback) == len(numbers) else None,
        "question": instruction if is_missing(row.get("idx")) else f"{row.get('benchmark') or ''} {row.get('idx')}",
        "generator": row.get("response_source"),
    }


def _sections(text: str) -> dict[str, str]:
    parts = _SECTION.split(text)
    sections = {name.strip().casefold(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    rubric = sections.get("score rubrics", "")
    criteria, _, lines = rubric.partition("\n")
    return {
        "instruction": sections.get("the instruction to evaluate", ""),
        "response": sections.get("response to evaluate", ""),
        "reference_answer": next((body for name, body in sections.items() if name.startswith("reference answer")), ""),
        "criteria": criteria.strip().removeprefix("[").removesuffix("]"),
        **{f"score{n}": description.strip() for n, description in _RUBRIC_LINES.findall(lines)},
    }


RATINGS = {"bad": 1, "could be improved": 2, "acceptable": 2, "excellent": 3}


def feedbackqa(row: Values) -> Values | str:
    """A row of FeedbackQA on three points: the raters' median, with "could be improved" and "acceptable" as one.

    Takes the original (`passage`, `rating`) and rows with `answer` and `ratings`.
    """
    passage = row.get("passage")
    nested = passage.get("reference") if isinstance(passage, Mapping) else None
    given = nested if isinstance(nested, Mapping) else row
    headers = given.get("section_headers")
    heading = (
        headers if isinstance(headers, str) or not isinstance(headers, Sequence) else " / ".join(map(str, headers))
    )
    words = _first(row, "ratings", "rating")
    rated = [RATINGS.get(str(w).strip().casefold()) for w in words] if isinstance(words, Sequence) else []
    if isinstance(words, str) or not rated or None in rated:
        raise RowError("rating", describe(words), "a list of Excellent, Acceptable, Could be Improved, Bad")
    middle = statistics.median(r for r in rated if r is not None)
    if middle != int(middle):
        return "no median on the scale: its two raters differ"
    return {
        "input": {
            "Question": _first(row, "question"),
            "Page": given.get("page_title"),
            "Section": heading,
        },
        "output": _first(given, "answer", "section_content"),
        "score": int(middle),
        "question": _first(row, "question"),
        "site": row.get("site") if nested is None else passage.get("source") if isinstance(passage, Mapping) else None,
    }


def own_fields(row: Values) -> Values:
    """A row that has the rubric contract's own fields."""
    return row


_NO_DEFAULT = object()


def _first(row: Values, *names: str, default: object = _NO_DEFAULT) -> object:
    """The first of these columns that holds something. Raises RowError without one, unless there is a default."""
    for name in names:
        if not is_missing(row.get(name)):
            return row[name]
    if default is not _NO_DEFAULT:
        return default
    raise RowError(names[0], "nothing", f"a value in {' or '.join(names)}")


def _from_json(value: object) -> object:
    """What a text that is JSON holds; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
