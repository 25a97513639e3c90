"""The rubric-judge benchmark: its sets by name, and for each a pure function from its original rows to our fields.

The sets of the published suite are those that Flow AI's evaluation of Flow-Judge-v0.1 reports; the others have the same
form or belong to the same families. No row is shipped: sets come from the hub, or from a copy that the user names.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from medjudge.data.rows import HUB, Rejected, Row, iter_rows
from medjudge.data.sources import CaseTable, cases_of
from medjudge.errors import ConfigError, DataError
from medjudge.tasks.contract import RowError, TaskContract
from medjudge.tasks.presets import rubric_text
from medjudge.tasks.rubric import RubricContract
from medjudge.tasks.text import describe, describe_label, is_missing, whole_number

Values = Mapping[str, object]
Loader = Callable[[Values], Values | str]
"""A row of the original format -> the rubric contract's fields, or a few words that say why it takes no part.

Raises RowError for a row that is not of the format."""

PUBLISHED = "published"
"""Stands for all sets of the published suite where sets are chosen by name."""
RESPONSES, SOURCES = "response.jsonl", "source_info.jsonl"
"""The two files of RAGTruth as its authors publish it."""


@dataclass(frozen=True, slots=True)
class BenchmarkSet:
    """One named set."""

    title: str
    points: Literal[2, 3, 5]
    load: Loader
    preset: str | None
    """The rubric by its name in `tasks/presets.toml`; None where each row brings its own."""
    hub: str | None
    """`owner/name:split`; None where no copy on the hub is known that can be read without its own code."""
    licence: str
    n_rows: int | None
    """Rows as published."""
    is_published: bool = False
    """Whether the set belongs to the published suite."""
    group_by: tuple[str, ...] = ()
    """What the loader gives that makes a group, where it is not the whole task input."""
    slices: tuple[str, ...] = ()

    @property
    def source(self) -> str | None:
        """Where the rows come from unless the user names a copy."""
        return None if self.hub is None else HUB + self.hub


@dataclass(frozen=True, slots=True)
class Chosen:
    """A set as a command chose it."""

    name: str
    benchmark: BenchmarkSet
    source: str
    is_own: bool = False
    """Whether the set is the user's own and not one of `SETS`."""


@dataclass(frozen=True, slots=True)
class BenchmarkRows:
    """What one source gave."""

    table: CaseTable
    left_out: Mapping[str, int]
    """Why rows of the file take no part -> how many."""


def read_benchmark(one: Chosen, contract: TaskContract) -> BenchmarkRows:
    """The cases of a set. Rows that cannot be used are set aside with place and reason; repeated rows are kept, so
    that n is that of the published set. Raises DataError where nothing is left."""
    left_out: Counter[str] = Counter()
    rows = _loaded(_original_rows(one.name, one.source), one.benchmark.load, left_out)
    try:
        table = cases_of(
            rows,
            one.source,
            contract,
            group_by=one.benchmark.group_by,
            slices=one.benchmark.slices,
            bad_rows="set_aside",
            duplicates="keep",
        )
    except DataError:
        if left_out:
            why = ", ".join(f"{reason} ({count:,})" for reason, count in left_out.items())
            raise DataError(f"{one.source}: no row of it belongs to {one.name}. Left out: {why}.") from None
        raise
    return BenchmarkRows(table, dict(left_out))


def _loaded(rows: Iterable[Row | Rejected], load: Loader, left_out: Counter[str]) -> Iterator[Row | Rejected]:
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        try:
            found = load(row.values)
        except RowError as error:
            yield Rejected(row.place, error.field, f"got {error.got}, expected {error.expected}")
            continue
        if isinstance(found, str):
            left_out[found] += 1
        else:
            yield Row(row.place, found)


def _original_rows(name: str, source: str) -> Iterator[Row | Rejected]:
    folder = Path(source).expanduser()
    if (folder / RESPONSES).is_file() and (folder / SOURCES).is_file():
        return join_ragtruth(iter_rows(str(folder / RESPONSES)), iter_rows(str(folder / SOURCES)))
    try:
        return _checked(name, iter_rows(source))
    except DataError as error:
        raise _with_advice(name, error) from None


def _checked(name: str, rows: Iterator[Row | Rejected]) -> Iterator[Row | Rejected]:
    try:
        yield from rows
    except DataError as error:
        raise _with_advice(name, error) from None


def _with_advice(name: str, error: DataError) -> DataError:
    return DataError(f"{error}\nSet {name}: {_local_copy(name)}; or leave it out.")


def _local_copy(name: str) -> str:
    bench, export = f"medjudge bench rubric --data {name}=PATH", f"medjudge export lm-eval --bench {name}=PATH"
    return f"give a local copy, `{bench}` or `{export}`"


# --- loaders ----------------------------------------------------------------------------------------------------------


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
    found = row.get("task_type")
    if not is_missing(found) and str(found).casefold() != task.casefold():
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
        found = by_id.get(str(response.values.get("source_id")))
        if found is None:
            yield Rejected(response.place, "source_id", f"got an id that {SOURCES} lacks, expected one of its rows")
        else:
            kept = {key: found.get(key) for key in ("task_type", "source", "source_info")}
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
    found = {name.strip().casefold(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
    rubric = found.get("score rubrics", "")
    criteria, _, lines = rubric.partition("\n")
    return {
        "instruction": found.get("the instruction to evaluate", ""),
        "response": found.get("response to evaluate", ""),
        "reference_answer": next((body for name, body in found.items() if name.startswith("reference answer")), ""),
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


# --- the suite --------------------------------------------------------------------------------------------------------

_NONCOMMERCIAL = "CC BY-NC 2.0"
_HALUBENCH = "PatronusAI/HaluBench:test"


def _flow(title: str, points: Literal[2, 3, 5], hub: str, n_rows: int) -> BenchmarkSet:
    return BenchmarkSet(title, points, flow_heldout, None, f"flowaicom/{hub}:test", "Apache-2.0", n_rows, True)


def _ragtruth(title: str, task: Literal["QA", "Summary", "Data2txt"], preset: str, split: str) -> BenchmarkSet:
    load = partial(ragtruth, task=task)
    return BenchmarkSet(
        title, 2, load, preset, f"flowaicom/RAGTruth_test:{split}", "MIT", 900, True, slices=("generator",)
    )


def _halubench(subset: str, n_rows: int | None, hub: str = _HALUBENCH, is_published: bool = False) -> BenchmarkSet:
    load = partial(halubench, subset=subset)
    return BenchmarkSet(
        f"HaluBench, {subset}", 2, load, "faithfulness_binary", hub, _NONCOMMERCIAL, n_rows, is_published, ("passage",)
    )


SETS: dict[str, BenchmarkSet] = {
    "flow-binary": _flow("Flow-Judge held-out, pass or fail", 2, "Flow-Judge-v0.1-binary-heldout", 316),
    "flow-3": _flow("Flow-Judge held-out, three points", 3, "Flow-Judge-v0.1-3-likert-heldout", 300),
    "flow-5": _flow("Flow-Judge held-out, five points", 5, "Flow-Judge-v0.1-5-likert-heldout", 274),
    "ragtruth-qa": _ragtruth("RAGTruth, question answering", "QA", "passage_faithfulness_binary", "qa"),
    "ragtruth-summary": _ragtruth("RAGTruth, summarisation", "Summary", "summary_faithfulness_binary", "summarization"),
    "ragtruth-data2txt": _ragtruth(
        "RAGTruth, data to text", "Data2txt", "data_to_text_faithfulness_binary", "data2txt"
    ),
    "halubench-halueval": _halubench("HaluEval", 10000, "flowaicom/HaluEval:test", True),
    "halubench-covidqa": _halubench("covidQA", 1000, "flowaicom/covid_qa:test", True),
    "halubench-pubmedqa": _halubench("pubmedQA", 1000, "flowaicom/PubMedQA:test", True),
    "feedback-bench": BenchmarkSet(
        "Feedback-Bench", 5, feedback_bench, None, "flowaicom/Feedback-Bench:test", "Apache-2.0", 1000, True
    ),
    "feedback-bench-reference": BenchmarkSet(
        "Feedback-Bench, reference answer shown",
        5,
        partial(feedback_bench, with_reference=True),
        None,
        "flowaicom/Feedback-Bench:test",
        "Apache-2.0",
        1000,
    ),
    "halubench": BenchmarkSet(
        "HaluBench, all subsets",
        2,
        halubench,
        "faithfulness_binary",
        _HALUBENCH,
        _NONCOMMERCIAL,
        14900,
        group_by=("passage",),
        slices=("subset",),
    ),
    "halubench-drop": _halubench("DROP", 1000),
    "halubench-financebench": _halubench("FinanceBench", 1000),
    "halubench-ragtruth": _halubench("RAGTruth", 900),
    "prometheus-likert": BenchmarkSet(
        "Prometheus: MT-Bench and Vicuna, rated by GPT-4",
        5,
        prometheus,
        None,
        None,
        "Apache-2.0",
        640,
        group_by=("question",),
        slices=("generator",),
    ),
    "feedbackqa": BenchmarkSet(
        "FeedbackQA, public-health questions, rated by people",
        3,
        feedbackqa,
        "answer_quality_3point",
        None,
        "none stated",
        None,
        group_by=("question",),
        slices=("site",),
    ),
}
"""In the order of the tables; the published suite first."""

PUBLISHED_SUITE: tuple[str, ...] = tuple(name for name, one in SETS.items() if one.is_published)


def choose_sets(only: Sequence[str], copies: Mapping[str, str], own: Iterable[str] = ()) -> list[Chosen]:
    """The sets that a command names, in the order of `SETS`, the user's own last.

    only: names, `published` for the published suite; nothing means the sets of `copies`, or else the published suite.
    copies: set -> local copy. own: names among `copies` that may be sets of the user's own. Raises ConfigError.
    """
    own = set(own)
    wanted = list(only) or list(copies) or [PUBLISHED]
    names = [name for one in wanted for name in (PUBLISHED_SUITE if one == PUBLISHED else (one,))]
    for name in dict.fromkeys([*names, *copies]):
        if name not in SETS and name not in own:
            raise ConfigError(
                f"no set {name!r} in the benchmark. Sets: {', '.join(SETS)}. Rows of your own, in the rubric task's "
                f"fields, take part in `medjudge bench rubric` with --data {name}=PATH and --rubric {name}=FILE."
            )
        if name in own and name not in SETS and name not in copies:
            raise ConfigError(f"the set {name!r} is your own: say where its rows are, --data {name}=PATH.")
    if unused := [name for name in copies if name not in names]:
        raise ConfigError(f"--data names {', '.join(unused)}, which --only leaves out: name it in both, or in neither.")
    chosen = []
    for name in [*(name for name in SETS if name in names), *(name for name in dict.fromkeys(names) if name in own)]:
        if name in SETS:
            benchmark = SETS[name]
            source = copies.get(name) or benchmark.source
            if source is None:
                raise ConfigError(
                    f"the set {name!r} has no copy on the hub that can be read as it is: {_local_copy(name)}."
                )
            chosen.append(Chosen(name, benchmark, source))
        else:
            benchmark = BenchmarkSet(name, 5, own_fields, None, None, "your own", None)
            chosen.append(Chosen(name, benchmark, copies[name], is_own=True))
    return chosen


def set_contract(one: Chosen, base: RubricContract, rubric: str | None) -> RubricContract:
    """The contract of a set: its scale and rubric, and the base's form, wording and limits."""
    named = rubric or one.benchmark.preset
    settings: dict[str, Any] = {"points": one.benchmark.points, "criteria": None, "rubric": None}
    if named is not None:
        text = rubric_text(named)
        if not one.is_own and text.points != one.benchmark.points:
            raise ConfigError(
                f"--rubric {one.name}={named} has {text.points} points, but the set is rated on {one.benchmark.points}."
            )
        settings = text.task_settings()
    return RubricContract.model_validate({**base.model_dump(), **settings})
