"""The rubric-judge benchmark: its sets by name, and for each a pure function from its original rows to our fields.

The sets of the published suite are those that Flow AI's evaluation of Flow-Judge-v0.1 reports; the others have the same
form or belong to the same families. No row is shipped: sets come from the hub, or from a copy that the user names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from medjudge.data.benchmark_rows import (
    RESPONSES,
    SOURCES,
    Loader,
    feedback_bench,
    feedbackqa,
    flow_heldout,
    halubench,
    join_ragtruth,
    own_fields,
    prometheus,
    ragtruth,
)
from medjudge.data.rows import HUB, Rejected, Row, iter_rows
from medjudge.data.sources import CaseTable, cases_of
from medjudge.errors import ConfigError, DataError
from medjudge.settings.data import DataConfig
from medjudge.tasks.contract import RowError, TaskContract
from medjudge.tasks.presets import rubric_text
from medjudge.tasks.rubric import RubricContract

PUBLISHED = "published"
"""Stands for all sets of the published suite where sets are chosen by name."""


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
        data = DataConfig(
            group_by=one.benchmark.group_by, slices=one.benchmark.slices, bad_rows="set_aside", duplicates="keep"
        )
        table = cases_of(rows, one.source, contract, data)
    except DataError:
        if left_out:
            why = ", ".join(f"{reason} ({count:,})" for reason, count in left_out.items())
            raise DataError(
                f"{one.source}: no row of it belongs to {one.name}. Left out: {why}. Name the file of this set: "
                f"--data {one.name}=PATH."
            ) from None
        raise
    return BenchmarkRows(table, dict(left_out))


def _loaded(rows: Iterable[Row | Rejected], load: Loader, left_out: Counter[str]) -> Iterator[Row | Rejected]:
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        try:
            loaded = load(row.values)
        except RowError as error:
            yield Rejected(row.place, error.field, f"got {error.got}, expected {error.expected}")
            continue
        if isinstance(loaded, str):
            left_out[loaded] += 1
        else:
            yield Row(row.place, loaded)


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
                f"--rubric {one.name}={named} has {text.points} points, but the set is rated on "
                f"{one.benchmark.points}. Name a rubric of so many points, or leave --rubric out."
            )
        settings = text.task_settings()
    return RubricContract.model_validate({**base.model_dump(), **settings})
