"""The cells of one file of verdicts as values: facts of a case, and what each judge said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from medjudge.data.cells import LONGEST_VALUE, N_VALUES, Scale, Values, id_text, number, shown_id, tidy
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
KINDS = ("format", "schema", "truncated", "refused", "failed", "tied")
MIN_READ = 0.5
"""Share of the filled cells of a judge that must be labels, unless `--min-read` says otherwise."""
MIN_ANSWERED = 0.1
"""Share of the rows of a judge that must hold a verdict, unless `--min-read` is lower."""
MIN_PARTNERS = 0.2
"""Share of the verdicts of a judge that must be on cases with experts, or of these that must have a verdict."""
N_SHOWN = 5
OF_VERDICT = ("label", "confidence", "completion", "reason", "kind", "error", "repeat")
"""Fields that may differ between two verdicts of one judge on one case."""
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
    paths: Sequence[str] = ()
    """Where verdicts stand."""
    given: dict[str, dict[str, list[Judgement]]] = field(default_factory=dict)
    """Judge -> case -> its verdicts on it, in the order of the file."""
    values: dict[str, Values] = field(default_factory=dict)
    completions: dict[tuple[str, str], str] = field(default_factory=dict)
    baselines: set[str] = field(default_factory=set)
    _first: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    """(judge, case, which repeat) -> the row that has it."""
    _equal: dict[str, tuple[Row, Row, str]] = field(default_factory=dict)
    """Judge -> two rows that are the same."""
    _asked_again: set[str] = field(default_factory=set)
    """Judges that gave a case two verdicts that differ, and nothing else in the rows differs."""

    def add(self, row: Row, case_id: str, who: str, path: str) -> None:
        """Takes the verdict of one judge in a row. Raises DataError for a second one that is no repeat."""
        key = (who, case_id, self.reader.text(row, "repeat"))
        first = self._first.setdefault(key, row)
        judgements = self.given.setdefault(who, {}).setdefault(case_id, [])
        if first is not row:
            if "rater" in self.reader.columns:  # a row for each expert repeats the judge's one verdict
                if self.scale.read(self.reader.at(row, path)) != label_of(judgements[-1]):
                    raise self._second(row, first, case_id, who)
                return
            self._check_repeat(row, first, case_id, who)
        values = self.values.get(who) or self.values.setdefault(who, Values(self.scale))
        failed = "error" in self.reader.columns and says_failed(self.reader.cell(row, "error"))
        cell = None if failed else self.reader.at(row, path)
        label = values.add(cell)
        if label is not None:
            score = number(cell) if self.scale.scores else None
            judgements.append(Verdict(case_id, label, self.reader.confidence(row), score=score))
        else:
            judgements.append(self._unparsed(row, case_id, cell, failed=failed))
        if "completion" in self.reader.columns and (text := self.reader.cell(row, "completion")):
            self.completions.setdefault((who, case_id), str(text))
        if row.values.get(ROLE) == BASELINE:
            self.baselines.add(who)

    def joined(self) -> dict[str, dict[str, Judgement]]:
        """Judge -> case -> its verdict; of several what most say. Raises DataError for rows that stand twice."""
        for who, (row, first, case_id) in self._equal.items():
            if who not in self._asked_again:
                raise DataError(
                    f"{row.place}: judge {who!r} has a second verdict for case {shown_id(case_id)}, expected one. The "
                    f"row is the same as {first.place}: remove one of them. If the judge was asked several times, name "
                    "a column that counts the times: --map repeat=COLUMN."
                )
        return {
            who: {case_id: joined(answers) for case_id, answers in by_case.items()}
            for who, by_case in self.given.items()
        }

    def repeats(self) -> dict[str, dict[str, tuple[str | None, ...]]]:
        """Judge -> case -> its labels (None: no verdict), for judges that have several verdicts on a case."""
        return {
            who: {
                case_id: tuple(one.label if isinstance(one, Verdict) else None for one in answers)
                for case_id, answers in by_case.items()
                if len(answers) > 1
            }
            for who, by_case in self.given.items()
            if any(len(answers) > 1 for answers in by_case.values())
        }

    def _check_repeat(self, row: Row, first: Row, case_id: str, who: str) -> None:
        """Takes a second row of one case as a repeat if nothing but the verdict differs. Raises DataError else."""
        if "repeat" in self.reader.columns and not self.table.format:
            raise DataError(
                f"{row.place}: judge {who!r} has a second verdict for case {shown_id(case_id)} with the same "
                f"{self.reader.columns['repeat']!r} as {first.place}, expected another. Map a column that counts the "
                "times: --map repeat=COLUMN."
            )
        if row.values == first.values:
            self._equal.setdefault(who, (row, first, case_id))
            return
        of_verdict = {*self.paths, *(self.reader.columns.get(name, "") for name in OF_VERDICT)}
        rest, before = ({k: v for k, v in one.values.items() if k not in of_verdict} for one in (row, first))
        if rest != before:
            raise self._second(row, first, case_id, who)
        self._asked_again.add(who)

    def _unparsed(self, row: Row, case_id: str, cell: object, *, failed: bool) -> Unparsed:
        kind = self.reader.text(row, "kind")
        if failed:
            return Unparsed(case_id, "", "the judge failed", kind="failed")
        if not self.scale.is_empty(cell):
            known = kind if kind in ("schema", "truncated") else "schema"
            return Unparsed(case_id, "", "the label is not one of the scale", kind=known)  # type: ignore[arg-type]
        # Nothing is there to be unreadable: the judge gave no verdict, for whatever reason.
        known = kind if kind in KINDS else "format" if is_own(self.table) else self.scale.failure(cell)
        reason = plain(self.reader.cell(row, "reason"))
        if not reason or (
            len(reason.split()) > 1 and not is_own(self.table)
        ):  # what others write may be text of a case
            reason = "the judge refused" if known == "refused" else "no label was given"
        return Unparsed(case_id, "", reason, kind=known)  # type: ignore[arg-type]

    def _second(self, row: Row, first: Row, case_id: str, who: str) -> DataError:
        """That a judge has two verdicts on a case, with the columns that tell the two rows apart."""
        taken = {self.reader.columns.get(name) for name in ("id", "label", "gold", "confidence")}
        apart = [
            name
            for name in self.table.present
            if name not in taken and _is_short(a := row.values.get(name)) and _is_short(b := first.values.get(name))
            if a != b
        ][:N_SHOWN]
        message = f"{row.place}: judge {who!r} has a second verdict for case {shown_id(case_id)}, expected one."
        if not apart:
            return DataError(
                f"{message} The rows differ in longer texts. If several columns together name a case, join them: --map "
                "id=COLUMN+COLUMN. If the judge was asked several times, name a column that counts them: --map "
                "repeat=COLUMN."
            )
        path, name = self.reader.columns.get("id", "id"), apart[0]
        where = " or ".join(f"--where {name}={value}" for value in self._choices(name, row, first))
        return DataError(
            f"{message} The two rows differ in: {', '.join(apart)}. If one of these selects rows: "
            f"{where}. If it belongs to the case's name: --map id={path}+{name},group={path}. If it names the "
            f"judge: --map judge={name}. If it counts how often the judge was asked: --map repeat={name}."
        )

    def _choices(self, name: str, row: Row, first: Row) -> list[str]:
        """What a column says in two rows, as far as it can be shown; else VALUE."""
        values = {plain(other.values.get(name)) for other in self.table.rows}
        shown = [plain(first.values.get(name)), plain(row.values.get(name))]
        few = len(values) <= N_VALUES and all(0 < len(v) <= LONGEST_VALUE and " " not in v for v in values)
        return shown if few else ["VALUE"]

    def check(self, judges: Mapping[str, str], min_read: float = MIN_READ) -> None:
        """Raises DataError for a judge of whose values none, or hardly any, is a label, or only part of a scale.

        min_read: the share of filled cells that must be labels.
        """
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
            mostly_read = values.n_read > 0 and values.n_read >= min_read * values.n_filled
            if mostly_read and values.n_read < (needed := min(min_read, MIN_ANSWERED)) * values.n:
                raise DataError(
                    f"{self.table.source}: {at} holds a verdict in {values.n_read:,} of {values.n:,} rows, expected at "
                    f"least {needed:.0%}: the judge failed on nearly every case, and of the others a rate would say "
                    f"nothing. Found: {values.describe()}. Name another column, or measure all the same with "
                    "--min-read 0."
                )
            if mostly_read and not values.looks_like_scores and not values.holds_other_names:
                continue
            others = [] if values.n_read else label_columns(self.table, self.scale, set(self.reader.columns.values()))
            hint = f" Labels stand in: {', '.join(others)}." if others else ""
            raise DataError(
                f"{self.table.source}: {values.n_read:,} of {values.n_filled:,} values in {at} are a label "
                f"({_labels(self.scale)}): too few, or only some of the scale, to count the others as wrong. Found: "
                f"{values.describe()}. {values.proposal(path)}.{hint}{_all_the_same(values, min_read)}"
            )


def label_of(judgement: Judgement) -> str | None:
    """The label of a judgement, None of one without."""
    return judgement.label if isinstance(judgement, Verdict) else None


def joined(answers: Sequence[Judgement]) -> Judgement:
    """One verdict of several on a case: what most of those that could be read say; `Unparsed` where they tie.

    Its confidence is the mean of those who say so, its score the mean of all.
    """
    if len(answers) == 1:
        return answers[0]
    verdicts = [one for one in answers if isinstance(one, Verdict)]
    votes = Counter(one.label for one in verdicts).most_common(2)
    if not votes:
        return answers[0]
    case_id = answers[0].case_id
    if len(votes) == 2 and votes[0][1] == votes[1][1]:
        return Unparsed(case_id, "", "its verdicts on the case tie", kind="tied")
    label = votes[0][0]
    stated = [one.confidence for one in verdicts if one.label == label and one.confidence is not None]
    scores = [one.score for one in verdicts if one.score is not None]
    confidence, score = (sum(found) / len(found) if found else None for found in (stated, scores))
    return Verdict(case_id, label, confidence, score=score)


def _all_the_same(values: Values, min_read: float) -> str:
    """The option that counts what is unread as wrong, where that can be meant: not of scores or of other names."""
    if not values.n_read or values.looks_like_scores or values.holds_other_names:
        return ""
    return f" To count the others as wrong: --min-read {values.n_read / values.n_filled:.2g}."


def _is_short(value: object) -> bool:
    return not isinstance(value, dict | list) and len(plain(value)) <= LONGEST_VALUE


def _labels(scale: Scale) -> str:
    return ", ".join(scale.labels)
