"""Verdicts and expert labels from any program's files: columns mapped onto a few fields, joined by case id.

Formats are those of `data.rows`. A label that is not on the scale becomes `Unparsed`; an expert label that is not stops
the reading, because a wrong truth is worse than none. No message carries text of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medjudge.data.rows import Rejected, Row, iter_rows
from medjudge.data.sources import Plain, plain
from medjudge.data.text import normalise, short_hash
from medjudge.errors import ConfigError, DataError
from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.tasks.text import describe_label

FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("case_id", "id"),
    "label": ("label", "verdict", "prediction"),
    "gold": ("gold", "gold_label"),
    "confidence": ("confidence",),
    "generator": ("generator", "slices.generator"),
    "group": ("group",),
    "judge": ("judge", "model"),
    "reason": ("unparsed_reason",),
    "kind": ("unparsed_kind",),
    "completion": ("completion",),
}
"""Field -> the column names looked for where none is mapped; the first that a file has."""
GOLD_FIELDS = ("id", "gold", "generator", "group")
N_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """How a cell becomes a label."""

    labels: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    """What other programs write -> the label that it means."""

    def read(self, cell: object) -> str | None:
        """The label of a cell: as written, by an alias, in another case, or as an equal number; else None."""
        text = plain(cell)
        text = self.aliases.get(text, text)
        if text in self.labels:
            return text
        found = [label for label in self.labels if label.casefold() == text.casefold() or _same_number(label, text)]
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row says of its case, whatever the judge said."""

    gold: str | None = None
    generator: str = ""
    group: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    """Column -> value of what joins to the case's id, such as the criterion in `id+criterion`, but the group's."""


@dataclass(frozen=True, slots=True)
class VerdictFile:
    """One file of verdicts."""

    judgements: dict[str, list[Judgement]]
    """Judge -> its judgements in the order of the file."""
    facts: dict[str, Facts]
    """Case id -> what the rows say of the case."""
    completions: dict[tuple[str, str], str]
    """(judge, case id) -> the text that was judged from, where the file has it."""
    columns: dict[str, str]
    """Field -> the column that it was read from."""
    n_rows: int


@dataclass(frozen=True, slots=True)
class GoldFile:
    """One file of expert labels."""

    facts: dict[str, Facts]
    columns: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows that are kept, and the columns that stand for the fields."""

    rows: list[Row]
    columns: dict[str, str]


def read_verdicts(
    source: str,
    scale: Scale,
    *,
    columns: Mapping[str, str] | None = None,
    judge: str = "judge",
    where: Mapping[str, Plain] | None = None,
    confidence_max: float = 1.0,
    ids_needed: bool = True,
) -> VerdictFile:
    """Verdicts of one or several judges.

    columns: field of `FIELDS` -> column; `a+b` joins several. judge: the name where no column holds one.
    confidence_max: what stands for certainty (1, or 100 for per cent). ids_needed: whether row numbers may stand for
    ids. Raises DataError for a file or columns that cannot be used, an expert label off the scale, a confidence out of
    range, or two verdicts of one judge on one case.
    """
    table = _table(source, FIELDS, columns or {}, where or {})
    if "label" not in table.columns:
        raise _no_column(source, "label", table.rows)
    if "id" not in table.columns and ids_needed:
        raise _no_column(source, "id", table.rows)
    reader = _Reader(source, scale, table.columns, confidence_max)
    judgements: dict[str, dict[str, Judgement]] = {}
    completions: dict[tuple[str, str], str] = {}
    facts: dict[str, Facts] = {}
    for number, row in enumerate(table.rows, 1):
        case_id = reader.text(row, "id") or f"row {number}"
        who = reader.text(row, "judge") or judge
        if case_id in judgements.setdefault(who, {}):
            raise DataError(
                f"{row.place}: judge {who!r} has a second verdict for case {case_id!r}, expected one. If several "
                "columns together name a case, join them: --map id=COLUMN+COLUMN."
            )
        judgements[who][case_id] = reader.judgement(row, case_id)
        if text := reader.cell(row, "completion"):
            completions[who, case_id] = str(text)
        facts[case_id] = merged(case_id, facts.get(case_id), reader.facts(row), row.place)
    return VerdictFile(
        {who: list(said.values()) for who, said in judgements.items()},
        facts,
        completions,
        table.columns,
        len(table.rows),
    )


def read_gold(
    source: str,
    scale: Scale,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, Plain] | None = None,
    inputs: Sequence[str] = (),
    group_fields: Sequence[str] = (),
) -> GoldFile:
    """Expert labels by case id. Cells without a label are cases that no expert rated.

    columns: field of `GOLD_FIELDS` or of `inputs` -> column. inputs: fields of the task that are kept where the file
    has them; group_fields: those of them that make a group where no column names one. Raises as `read_verdicts`.
    """
    known = {name: FIELDS[name] for name in GOLD_FIELDS} | {name: (name,) for name in inputs}
    table = _table(source, known, columns or {}, where or {})
    for needed in ("id", "gold"):
        if needed not in table.columns:
            raise _no_column(source, needed, table.rows)
    reader = _Reader(source, scale, table.columns, 1.0)
    facts: dict[str, Facts] = {}
    for row in table.rows:
        case_id = reader.text(row, "id")
        if not case_id:
            raise DataError(f"{row.place}: got no case id in column {table.columns['id']!r}, expected one per row.")
        if case_id in facts:
            raise DataError(
                f"{row.place}: case {case_id!r} occurs twice, expected one row per case. If several columns together "
                "name a case, join them: --gold-map id=COLUMN+COLUMN."
            )
        texts = {name: text for name in inputs if (text := reader.text(row, name))}
        found = replace(reader.facts(row), inputs=texts)
        normal = [normalise(texts.get(name, "")) for name in group_fields]
        facts[case_id] = found if found.group or not any(normal) else replace(found, group=short_hash(normal))
    return GoldFile(facts, table.columns)


def merged(case_id: str, before: Facts | None, now: Facts, place: str) -> Facts:
    """What two rows say of one case. Raises DataError where they differ."""
    if before is None:
        return now
    for name in ("gold", "generator", "group"):
        old, new = getattr(before, name), getattr(now, name)
        if old and new and old != new:
            raise DataError(
                f"{place}: case {case_id!r} has another {name} than in an earlier row or file, expected the same. "
                "Rows are joined by case id: check that ids mean the same in all files."
            )
    return Facts(
        before.gold if before.gold is not None else now.gold,
        before.generator or now.generator,
        before.group or now.group,
        before.inputs or now.inputs,
        before.parts or now.parts,
    )


def to_cases(facts: Mapping[str, Facts]) -> list[Case]:
    """The facts as cases, in their order."""
    return [
        Case(
            case_id,
            dict(known.inputs),
            gold=known.gold,
            group=known.group,
            slices={**known.parts, **({"generator": known.generator} if known.generator else {})},
        )
        for case_id, known in facts.items()
    ]


def slice_names(cases: Sequence[Case]) -> tuple[str, ...]:
    """The slices of which a table can be made: several values, and on average two cases or more of each."""
    values: dict[str, set[str]] = {}
    for case in cases:
        for name, value in case.slices.items():
            values.setdefault(name, set()).add(value)
    return tuple(name for name, found in values.items() if 2 <= len(found) <= len(cases) / 2)


def verdict_line(
    judge: str, case: Case, judgement: Judgement | None, completion: str | None = None
) -> dict[str, Any] | None:
    """One line of `verdicts.jsonl`; None where the judge said nothing of the case."""
    if judgement is None:
        return None
    verdict = judgement if isinstance(judgement, Verdict) else None
    unparsed = judgement if isinstance(judgement, Unparsed) else None
    return {
        "model": judge,
        "case_id": case.case_id,
        "group": case.group,
        "gold": case.gold,
        "label": verdict.label if verdict else None,
        "confidence": verdict.confidence if verdict else None,
        "correct": verdict is not None and case.gold is not None and verdict.label == case.gold,
        "unparsed_reason": unparsed.reason if unparsed else None,
        "unparsed_kind": unparsed.kind if unparsed else None,
        "completion": completion,
        "slices": dict(case.slices),
    }


@dataclass(frozen=True, slots=True)
class _Reader:
    """Cells of one file as values."""

    source: str
    scale: Scale
    columns: Mapping[str, str]
    confidence_max: float

    def cell(self, row: Row, name: str) -> object:
        column = self.columns.get(name)
        return None if column is None else _value(row.values, column)

    def text(self, row: Row, name: str) -> str:
        return plain(self.cell(row, name))

    def facts(self, row: Row) -> Facts:
        cell = self.cell(row, "gold")
        gold = None
        if plain(cell):
            gold = self.scale.read(cell)
            if gold is None:
                raise DataError(
                    f"{row.place}: got {describe_label(cell)} as expert label in column {self.columns['gold']!r}, "
                    f"expected one of {', '.join(map(repr, self.scale.labels))}. Name the labels with --labels, or "
                    "say what a value means with --alias VALUE=LABEL."
                )
        return Facts(gold, self.text(row, "generator"), self.text(row, "group"), parts=self.parts(row))

    def parts(self, row: Row) -> dict[str, str]:
        """What the columns say that together name the case; nothing where one column does."""
        names = self.columns.get("id", "").split("+")
        if len(names) < 2:
            return {}
        group = self.columns.get("group", "").split("+")
        return {name: plain(_value(row.values, name)) for name in names if name not in group}

    def judgement(self, row: Row, case_id: str) -> Judgement:
        cell = self.cell(row, "label")
        label = self.scale.read(cell)
        if label is not None:
            return Verdict(case_id, label, self.confidence(row))
        if not plain(cell):
            kind = self.text(row, "kind")
            return Unparsed(
                case_id,
                "",
                self.text(row, "reason") or "no label was given",
                kind=kind if kind in ("format", "schema", "truncated", "refused", "failed") else "format",  # type: ignore[arg-type]
            )
        return Unparsed(case_id, "", "the label is not one of the scale", kind="schema")

    def confidence(self, row: Row) -> float | None:
        text = self.text(row, "confidence")
        if not text:
            return None
        try:
            value = float(text.removesuffix("%").strip()) / (100 if text.endswith("%") else self.confidence_max)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1:
            raise DataError(
                f"{row.place}: column {self.columns['confidence']!r} holds no confidence between 0 and "
                f"{self.confidence_max:g}. Name its highest value with --confidence-max, or map another column."
            )
        return value


def _table(
    source: str, known: Mapping[str, tuple[str, ...]], mapped: Mapping[str, str], where: Mapping[str, Plain]
) -> _Table:
    for name in mapped:
        if name not in known:
            raise ConfigError(f"no field is called {name!r}: expected one of {', '.join(known)}.")
    rows: list[Row] = []
    bad: list[Rejected] = []
    for row in iter_rows(source):
        if isinstance(row, Rejected):
            bad.append(row)
        elif all(plain(_value(row.values, column)) == plain(want) for column, want in where.items()):
            rows.append(row)
    if bad:
        shown = "\n".join(f"  {one}" for one in bad[:N_SHOWN])
        raise DataError(f"{source}: {len(bad)} rows cannot be read:\n{shown}\nCorrect them: a verdict file is not cut.")
    if not rows:
        raise DataError(f"{source}: no row is left to read. Check the values that --where compares with.")
    present = {name for row in rows for name in row.values}
    columns = {}
    for name, candidates in known.items():
        if name in mapped:
            _check_column(source, name, mapped[name], present)
            columns[name] = mapped[name]
        elif found := next((c for c in candidates if c.split(".")[0] in present), None):
            columns[name] = found
    return _Table(rows, columns)


def _check_column(source: str, name: str, column: str, present: Iterable[str]) -> None:
    parts = [column] if column in present else column.split("+")
    for part in parts:
        if part not in present and part.split(".")[0] not in present:
            raise DataError(
                f"{source}: no column {part!r} for field {name!r}. Columns there: {', '.join(sorted(present))}."
            )


def _no_column(source: str, name: str, rows: Sequence[Row]) -> DataError:
    present = sorted({column for row in rows for column in row.values})
    looked = " or ".join(repr(candidate) for candidate in FIELDS[name])
    return DataError(
        f"{source}: no column {looked} for field {name!r}. Name it with --map {name}=COLUMN (or --gold-map for the "
        f"file of expert labels). Columns there: {', '.join(present)}."
    )


def _value(values: Mapping[str, object], column: str) -> object:
    """The cell of a column; `a.b` reaches into an object, `a+b` joins the texts of two columns."""
    if column in values:
        return values[column]
    if "+" in column:
        return "|".join(plain(_value(values, part)) for part in column.split("+"))
    if "." in column:
        first, _, rest = column.partition(".")
        inner = values.get(first)
        return _value(inner, rest) if isinstance(inner, Mapping) else None
    return None


def _same_number(label: str, text: str) -> bool:
    try:
        return float(label) == float(text)
    except ValueError:
        return False


def judge_name(path: str) -> str:
    """What a file's judge is called where no column says it: the file's name without its endings."""
    return Path(path).name.split(".")[0] or path
