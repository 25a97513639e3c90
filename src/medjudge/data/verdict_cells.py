"""The cells of one file of verdicts as values: facts of a case, and what each judge said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from medjudge.data.cells import LONGEST_VALUE, Scale, Values, id_text, number, shown_id, tidy
from medjudge.data.columns import (
    Table,
    is_own,
    label_columns,
    says_failed,
)
from medjudge.data.paths import MISSING, look_up, parts_of, rating_columns
from medjudge.data.ratings import entries
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.errors import DataError
from medjudge.records import Judgement, Unparsed, Verdict

ROLE, BASELINE = "role", "baseline"
KINDS = ("format", "schema", "truncated", "refused", "failed")
MIN_READ = 0.2
"""Share of the filled cells of a judge that must be labels."""
N_SHOWN = 5
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row says of its case, whatever the judge said."""

    gold: str | None = None
    generator: str = ""
    group: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    """Column -> value of what joins to the case's id, such as the criterion in `id+criterion`, but the group's."""
    ratings: Mapping[str, str] = field(default_factory=dict)
    """Rater -> label, where the row or the rows of the case have several experts' labels."""
    adjudicated: str | None = None
    """The label that was settled on where experts differed."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Rater -> its label as a number, where experts gave numbers; one that is nobody's in particular under ""."""


@dataclass(frozen=True)
class Reader:
    """Cells of one file as values."""

    table: Table
    columns: Mapping[str, str]
    gold_scale: Scale
    confidence_max: float

    @cached_property
    def gold_values(self) -> Values:
        """What was read from the experts' column so far."""
        return Values(self.gold_scale)

    @cached_property
    def _parts(self) -> dict[str, list[str]]:
        return {name: parts_of(path, self.table.present) for name, path in self.columns.items()}

    def at(self, row: Row, path: str) -> object:
        """The cell at a path, None where the row has none; the entry of a list of one."""
        values = row.values
        cell = values[path] if path in values else look_up(values, path)
        while isinstance(cell, list) and len(cell) == 1:
            cell = cell[0]
        return None if cell is MISSING else cell

    def cell(self, row: Row, name: str) -> object:
        """The cell of a field."""
        return self.at(row, self.columns[name]) if name in self.columns else None

    def text(self, row: Row, name: str) -> str:
        """The cell of a field as an id; of joined columns their texts, unless all are empty."""
        parts = self._parts.get(name)
        if parts is None:
            return ""
        if len(parts) == 1:
            return id_text(self.at(row, parts[0]))
        texts = [id_text(self.at(row, part)) for part in parts]
        return "|".join(texts) if any(texts) else ""

    def facts(self, row: Row, inputs: Sequence[str]) -> Facts:
        """What the row says of its case."""
        gold, ratings, numbers = self._gold(row)
        texts: Mapping[str, str] = _NOTHING
        for name in inputs:
            if text := plain(self.at(row, self.columns.get(name, name))):
                texts = {**texts, name: text}
        settled = self.gold_values.add(self.cell(row, "adjudicated")) if "adjudicated" in self.columns else None
        return Facts(
            gold,
            self.text(row, "generator"),
            self.text(row, "group"),
            texts,
            self.id_parts(row),
            ratings,
            settled,
            numbers,
        )

    def _gold(self, row: Row) -> tuple[str | None, Mapping[str, str], Mapping[str, float]]:
        """The one label of the row, or the labels of several experts, and the numbers that labels were."""
        if "gold" not in self.columns:
            return None, _NOTHING, {}
        cells = self._rating_cells(row)
        labels = {rater: self.gold_values.add(cell) for rater, cell in cells.items()}
        numbers = {rater: value for rater, cell in cells.items() if (value := number(cell)) is not None}
        if "" in cells:
            return labels[""], _NOTHING, numbers
        return None, {rater: label for rater, label in labels.items() if label is not None}, numbers

    def _rating_cells(self, row: Row) -> dict[str, object]:
        """Rater -> the cell of its label; one label that is nobody's in particular stands under ""."""
        path = self.columns["gold"]
        columns = rating_columns(path, self.table.present)
        if len(columns) > 1:
            return {column: self.at(row, column) for column in columns}
        cell = self.cell(row, "gold")
        if "rater" not in self.columns:
            return entries(cell) or {"": cell}
        rater = self.text(row, "rater")
        if not rater:
            raise DataError(
                f"{row.place}: column {self.columns['rater']!r} names no rater, expected one in each row. Fill it in, "
                "or read no raters: --gold-map rater=."
            )
        return {rater: cell}

    def id_parts(self, row: Row) -> Mapping[str, str]:
        """What the columns say that together name the case, but those of its group; nothing where one column does."""
        parts = self._parts.get("id", ())
        if len(parts) < 2:
            return _NOTHING
        group = self._parts.get("group", ())
        return {part: id_text(self.at(row, part)) for part in parts if part not in group}

    def check_gold(self) -> None:
        """Raises DataError where a value of the experts' column is no label."""
        values = self.gold_values.settle()
        if not values.n_unread:
            return
        taken = set(self.columns.values())
        others = [] if values.n_read else label_columns(self.table, self.gold_scale, taken)
        hint = f" Labels stand in: {', '.join(others)}." if others else ""
        raise DataError(
            f"{self.table.source}: {values.n_unread:,} of {values.n_filled:,} values in column "
            f"{self.columns['gold']!r} are no expert label, expected {_labels(self.gold_scale)}. Found: "
            f"{values.describe()}. {values.proposal(self.columns['gold'], '--gold-threshold')}.{hint}"
        )

    def confidence(self, row: Row) -> float | None:
        """The confidence in [0, 1]. Raises DataError for any other."""
        if "confidence" not in self.columns:
            return None
        cell = self.cell(row, "confidence")
        if type(cell) is float and 0 <= cell <= self.confidence_max:
            return cell / self.confidence_max
        text = tidy(plain(cell))
        if not text or text.casefold() in ("nan", "null", "<na>"):
            return None
        value = number(text.removesuffix("%"))
        confidence = None if value is None else value / (100 if text.endswith("%") else self.confidence_max)
        if confidence is None or not 0 <= confidence <= 1:
            raise DataError(
                f"{row.place}: column {self.columns['confidence']!r} holds no confidence between 0 and "
                f"{self.confidence_max:g}. Name its highest value with --confidence-max, map another column, or read "
                "none: --map confidence=."
            )
        return confidence


@dataclass
class Answers:
    """The verdicts of one file, as its rows come."""

    table: Table
    scale: Scale
    reader: Reader
    judgements: dict[str, dict[str, Judgement]] = field(default_factory=dict)
    values: dict[str, Values] = field(default_factory=dict)
    completions: dict[tuple[str, str], str] = field(default_factory=dict)
    baselines: set[str] = field(default_factory=set)

    def add(self, row: Row, case_id: str, who: str, path: str) -> None:
        """Takes the verdict of one judge in a row."""
        judgements = self.judgements.setdefault(who, {})
        if (first := judgements.get(case_id)) is not None:
            # A row for each expert repeats the judge's one verdict.
            if "rater" in self.reader.columns and self.scale.read(self.reader.at(row, path)) == label_of(first):
                return
            raise self._second(row, case_id, who)
        values = self.values.get(who) or self.values.setdefault(who, Values(self.scale))
        failed = "error" in self.reader.columns and says_failed(self.reader.cell(row, "error"))
        cell = None if failed else self.reader.at(row, path)
        label = values.add(cell)
        if label is not None:
            score = number(cell) if self.scale.scores else None
            judgements[case_id] = Verdict(case_id, label, self.reader.confidence(row), score=score)
        else:
            judgements[case_id] = self._unparsed(row, case_id, failed=failed, is_empty=self.scale.is_empty(cell))
        if "completion" in self.reader.columns and (text := self.reader.cell(row, "completion")):
            self.completions[who, case_id] = str(text)
        if row.values.get(ROLE) == BASELINE:
            self.baselines.add(who)

    def _unparsed(self, row: Row, case_id: str, *, failed: bool, is_empty: bool) -> Unparsed:
        if failed:
            return Unparsed(case_id, "", "the judge failed", kind="failed")
        if not is_empty:
            return Unparsed(case_id, "", "the label is not one of the scale", kind="schema")
        kind = self.reader.text(row, "kind")
        reason = plain(self.reader.cell(row, "reason"))
        if not reason or (
            len(reason.split()) > 1 and not is_own(self.table)
        ):  # what others write may be text of a case
            reason = "no label was given"
        return Unparsed(case_id, "", reason, kind=kind if kind in KINDS else "format")  # type: ignore[arg-type]

    def _second(self, row: Row, case_id: str, who: str) -> DataError:
        """That a judge has two verdicts on a case, with the columns that tell the two rows apart."""
        ids = ((other, self.reader.text(other, "id")) for other in self.table.rows)
        first = next((other for other, one in ids if one == case_id and other is not row), row)
        taken = {self.reader.columns.get(name) for name in ("id", "label", "gold", "confidence")}
        apart = [
            name
            for name in self.table.present
            if name not in taken and _is_short(a := row.values.get(name)) and _is_short(b := first.values.get(name))
            if a != b
        ][:N_SHOWN]
        message = f"{row.place}: judge {who!r} has a second verdict for case {shown_id(case_id)}, expected one."
        if row.values == first.values and row is not first:
            return DataError(f"{message} The row is the same as {first.place}: remove one of them.")
        if not apart:
            return DataError(
                f"{message} If several columns together name a case, join them: --map id=COLUMN+COLUMN. Several "
                "ratings of one case by one judge are not read yet: keep one."
            )
        path, name = self.reader.columns.get("id", "id"), apart[0]
        return DataError(
            f"{message} The two rows differ in: {', '.join(apart)}. If one of these selects rows: --where "
            f"{name}=VALUE. If it belongs to the case's name: --map id={path}+{name},group={path}. If it names the "
            f"judge: --map judge={name}."
        )

    def check(self, judges: Mapping[str, str]) -> None:
        """Raises DataError for a judge of whose values none, or nearly none, is a label, or only part of a scale."""
        for who, values in self.values.items():
            values.settle()
            path = judges.get(who) or self.reader.columns.get("label", "")
            at = f"column {path!r}" + (f" (judge {who!r})" if len(self.values) > 1 else "")
            if not values.n_filled:
                others = label_columns(self.table, self.scale, {path, *self.reader.columns.values()})
                hint = f" Labels stand in: {', '.join(others)}." if others else ""
                raise DataError(
                    f"{self.table.source}: {at} holds no verdict in any of {values.n:,} rows, expected "
                    f"{_labels(self.scale)}. Name another column, or leave this judge out.{hint}"
                )
            mostly_read = values.n_read >= MIN_READ * values.n_filled
            if mostly_read and not values.looks_like_scores and not values.holds_other_names:
                continue
            others = [] if values.n_read else label_columns(self.table, self.scale, set(self.reader.columns.values()))
            hint = f" Labels stand in: {', '.join(others)}." if others else ""
            raise DataError(
                f"{self.table.source}: {values.n_read:,} of {values.n_filled:,} values in {at} are a label "
                f"({_labels(self.scale)}): too few, or only some of the scale, to count the others as wrong. Found: "
                f"{values.describe()}. {values.proposal(path)}.{hint}"
            )


def label_of(judgement: Judgement) -> str | None:
    """The label of a judgement, None of one without."""
    return judgement.label if isinstance(judgement, Verdict) else None


def _is_short(value: object) -> bool:
    return not isinstance(value, dict | list) and len(plain(value)) <= LONGEST_VALUE


def _labels(scale: Scale) -> str:
    return ", ".join(scale.labels)
