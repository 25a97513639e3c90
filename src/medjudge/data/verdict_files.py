"""Verdicts and expert labels from any program's files: columns mapped onto a few fields, joined by case id.

Formats are those of `data.rows`; `data.columns` settles what stands for what, `data.cells.Scale` what a cell means. A
verdict that is not on the scale becomes `Unparsed`, unless hardly any value is: then the reading stops, as it does for
an expert label that is not, because a wrong truth is worse than none. No message carries text of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from medjudge.data.cells import LONGEST_VALUE, Scale, Values, id_key, id_text, number, shown_id, tidy
from medjudge.data.columns import (
    FIELDS,
    MODEL,
    OF_ONE_JUDGE,
    Groups,
    Rows,
    Table,
    chosen_by,
    failure_paths,
    is_own,
    label_columns,
    load_table,
    model_field,
    no_column,
    repeated_texts,
    says_failed,
    settle_columns,
)
from medjudge.data.paths import MISSING, look_up, parts_of
from medjudge.data.rows import Row
from medjudge.data.sources import plain
from medjudge.errors import ConfigError, DataError
from medjudge.records import Case, Judgement, Unparsed, Verdict

GOLD_FIELDS = ("id", "gold", "generator", "group")
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


@dataclass(frozen=True, slots=True)
class Reading:
    """How files of verdicts are read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of `FIELDS` -> path, or "" for none; `a+b` joins several."""
    judges: Mapping[str, str] = field(default_factory=dict)
    """Judge -> the path of its verdicts, where a file has several such columns."""
    inputs: Sequence[str] = ()
    """Fields of the task that are kept where the file has them."""
    group_fields: Sequence[str] = ()
    """Those of them that make a question."""
    confidence_max: float = 1.0
    """What stands for certainty (1, or 100 for per cent)."""
    ids_needed: bool = True
    """Whether every row needs an id; else row numbers stand for ids where no column has them."""


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
    baselines: frozenset[str] = frozenset()
    """Judges that the file itself calls baselines."""
    dropped: frozenset[str] = frozenset()
    """Cases of which `where` leaves no row."""
    own_without_role: bool = False
    """Whether this program wrote it before it said which judges are baselines."""
    groups_guessed: bool = False
    """Whether groups are repeated texts, not a column that names them."""
    read_as: tuple[str, ...] = ()
    """What was taken for what, with the values found, as sentences."""


@dataclass(frozen=True, slots=True)
class GoldFile:
    """One file of expert labels."""

    facts: dict[str, Facts]
    columns: dict[str, str]
    dropped: frozenset[str] = frozenset()
    """Cases that `where` leaves out."""
    read_as: tuple[str, ...] = ()


def read_verdicts(
    source: str | Rows | Table,
    scale: Scale,
    reading: Reading | None = None,
    *,
    judge: str = "judge",
    gold: Scale | None = None,
) -> VerdictFile:
    """Verdicts of one or several judges.

    judge: the name where no column holds one. gold: the scale of the experts' column, where it is another.
    Raises DataError for a file or columns that cannot be used, verdicts of which hardly any is a label, an expert label
    off the scale, a confidence out of range, or two verdicts of one judge on one case.
    """
    reading = reading or Reading()
    table = source if isinstance(source, Table) else load_table(source)
    columns, notes = _verdict_columns(table, scale, reading)
    reader = _Reader(table, columns, gold or scale, reading.confidence_max)
    ids = _ids(table, reader, "--map")
    groups = Groups()
    if "group" not in columns and reading.columns.get("group") != "":
        groups = repeated_texts(table, ids, {*columns.values(), *reading.judges.values()}, reading.group_fields)
    judges = dict(reading.judges) or {judge: columns["label"]}
    answers = _Answers(table, scale, reader)
    facts: dict[str, Facts] = {}
    for at, (row, case_id) in enumerate(zip(table.rows, ids, strict=True)):
        for name, path in judges.items():
            answers.add(row, case_id, (reader.text(row, "judge") if "judge" in columns else "") or name, path)
        now = reader.facts(row, reading.inputs)
        now = replace(now, group=groups.keys[at]) if groups.keys else now
        facts[case_id] = merged(case_id, facts.get(case_id), now, row.place)
    reader.check_gold()
    answers.check(judges)
    _check_failures(table, reader, judges, reading)
    own_name = None if "judge" in columns or reading.judges else judge
    first = _columns_line(table, columns, groups, own_name, reading.judges)
    found = [f"Verdicts of {who}: {values.describe()}." for who, values in answers.values.items()]
    truth = [f"Expert labels: {reader.gold_values.describe()}."] if "gold" in columns else []
    return VerdictFile(
        {who: list(said.values()) for who, said in answers.judgements.items()},
        facts,
        answers.completions,
        columns,
        len(table.rows),
        frozenset(answers.baselines),
        _dropped(table, reader, set(facts)),
        is_own(table) and ROLE not in table.present,
        bool(groups.keys),
        (
            first,
            *found[:N_SHOWN],
            *truth,
            *table.notes,
            *notes,
            *groups.notes,
            *chosen_by(table, columns, reading.judges),
        ),
    )


def read_gold(
    source: str | Rows | Table,
    scale: Scale,
    *,
    columns: Mapping[str, str] | None = None,
    inputs: Sequence[str] = (),
    group_fields: Sequence[str] = (),
) -> GoldFile:
    """Expert labels by case id. Cells without a label are cases that no expert rated.

    columns: field of `GOLD_FIELDS` or of `inputs` -> path. inputs: fields of the task that are kept where the file has
    them; group_fields: those of them that make a group where no column names one. Raises as `read_verdicts`.
    """
    table = source if isinstance(source, Table) else load_table(source)
    known = {name: FIELDS[name] for name in GOLD_FIELDS} | {name: (name,) for name in inputs}
    mapped = columns or {}
    settled = settle_columns(table, known, mapped, "--gold-map")
    for needed in ("id", "gold"):
        if needed not in settled:
            raise no_column(table, needed, settled, scale if needed == "gold" else None, "--gold-map")
    reader = _Reader(table, settled, scale, 1.0)
    ids = _ids(table, reader, "--gold-map")
    groups = Groups()
    if "group" not in settled and mapped.get("group") != "":
        own = {settled[name] for name in ("id", "gold", "generator") if name in settled}
        fields = [settled.get(name, name) for name in group_fields]
        groups = repeated_texts(table, ids, own, fields)
    facts: dict[str, Facts] = {}
    for at, (row, case_id) in enumerate(zip(table.rows, ids, strict=True)):
        if case_id in facts:
            raise DataError(
                f"{row.place}: case {shown_id(case_id)} occurs twice, expected one row per case. Remove one of the "
                "rows, or, if several columns together name a case, join them: --gold-map id=COLUMN+COLUMN."
            )
        now = reader.facts(row, inputs)
        facts[case_id] = replace(now, group=groups.keys[at]) if groups.keys else now
    reader.check_gold()
    first = _columns_line(table, {k: v for k, v in settled.items() if k in GOLD_FIELDS}, groups, None, {}, gold=True)
    counts = f"Expert labels: {reader.gold_values.describe()}."
    notes = (*table.notes, *groups.notes, *chosen_by(table, settled, {}))
    return GoldFile(facts, settled, _dropped(table, reader, set(facts)), (first, counts, *notes))


def merged(case_id: str, before: Facts | None, now: Facts, place: str) -> Facts:
    """What two rows say of one case. Raises DataError where they differ."""
    if before is None:
        return now
    if before == now:
        return before
    for name in ("gold", "generator", "group"):
        old, new = getattr(before, name), getattr(now, name)
        if old and new and old != new:
            raise DataError(
                f"{place}: case {shown_id(case_id)} has another {name} than in an earlier row or file, expected the "
                "same. Rows are joined by case id: check that ids mean the same in all files."
            )
    return Facts(
        before.gold if before.gold is not None else now.gold,
        before.generator or now.generator,
        before.group or now.group,
        before.inputs or now.inputs,
        before.parts or now.parts,
    )


def one_writing(files: Mapping[str, VerdictFile], expert: GoldFile | None) -> tuple[dict[str, VerdictFile], list[str]]:
    """The files with ids that differ from those of an earlier file in case or leading zeros alone written as there,
    and a sentence on each file where that was so. Within a file such ids stay apart: there they name different cases.
    """
    known = {id_key(case_id): case_id for case_id in expert.facts} if expert is not None else {}
    is_open = expert is None or len(known) == len(expert.facts)
    same: dict[str, VerdictFile] = {}
    sentences = []
    for path, file in files.items():
        keys = {id_key(case_id): case_id for case_id in file.facts}
        is_open = is_open and len(keys) == len(file.facts)
        new = {old: known[key] for key, old in keys.items() if known.get(key, old) != old} if is_open else {}
        same[path] = _respelt(file, new) if new else file
        if new:
            sentences.append(
                f"{path}: {len(new):,} of {len(keys):,} case ids are joined with ids that differ from them in upper "
                "and lower case or in leading zeros."
            )
        known = {**keys, **known}
    return same, sentences


def _respelt(file: VerdictFile, new: Mapping[str, str]) -> VerdictFile:
    return replace(
        file,
        judgements={
            who: [replace(one, case_id=new.get(one.case_id, one.case_id)) for one in answers]
            for who, answers in file.judgements.items()
        },
        facts={new.get(case_id, case_id): facts for case_id, facts in file.facts.items()},
        completions={(who, new.get(case_id, case_id)): text for (who, case_id), text in file.completions.items()},
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


def judge_name(path: str) -> str:
    """What a file's judge is called where no column says it: the file's name without its endings."""
    return Path(path).name.split(".")[0] or path


@dataclass(frozen=True)
class _Reader:
    """Cells of one file as values."""

    table: Table
    columns: Mapping[str, str]
    gold_scale: Scale
    confidence_max: float

    @cached_property
    def gold_values(self) -> Values:
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
        gold = self.gold_values.add(self.cell(row, "gold")) if "gold" in self.columns else None
        kept: Mapping[str, str] = _NOTHING
        for name in inputs:
            if text := plain(self.at(row, self.columns.get(name, name))):
                kept = {**kept, name: text}
        return Facts(gold, self.text(row, "generator"), self.text(row, "group"), kept, self.id_parts(row))

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
        found = None if value is None else value / (100 if text.endswith("%") else self.confidence_max)
        if found is None or not 0 <= found <= 1:
            raise DataError(
                f"{row.place}: column {self.columns['confidence']!r} holds no confidence between 0 and "
                f"{self.confidence_max:g}. Name its highest value with --confidence-max, map another column, or read "
                "none: --map confidence=."
            )
        return found


@dataclass
class _Answers:
    """The verdicts of one file, as its rows come."""

    table: Table
    scale: Scale
    reader: _Reader
    judgements: dict[str, dict[str, Judgement]] = field(default_factory=dict)
    values: dict[str, Values] = field(default_factory=dict)
    completions: dict[tuple[str, str], str] = field(default_factory=dict)
    baselines: set[str] = field(default_factory=set)

    def add(self, row: Row, case_id: str, who: str, path: str) -> None:
        """Takes the verdict of one judge in a row."""
        said = self.judgements.setdefault(who, {})
        if case_id in said:
            raise self._second(row, case_id, who)
        values = self.values.get(who) or self.values.setdefault(who, Values(self.scale))
        failed = "error" in self.reader.columns and says_failed(self.reader.cell(row, "error"))
        cell = None if failed else self.reader.at(row, path)
        label = values.add(cell)
        if label is not None:
            said[case_id] = Verdict(case_id, label, self.reader.confidence(row))
        else:
            said[case_id] = self._unparsed(row, case_id, failed=failed, is_empty=self.scale.is_empty(cell))
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


def _verdict_columns(table: Table, scale: Scale, reading: Reading) -> tuple[dict[str, str], list[str]]:
    """Field -> path of a file of verdicts, and what is to be said of it."""
    mapped = dict(reading.columns)
    if reading.judges:
        for name in OF_ONE_JUDGE:
            if mapped.get(name):
                raise ConfigError(
                    f"--map {name}={mapped[name]}: with --judge each judge has a column of verdicts, and one column "
                    f"of {name!r} cannot be of them all. Leave it out, or score one column with --map label=COLUMN."
                )
            mapped[name] = ""
    settled = settle_columns(table, FIELDS, mapped)
    if reading.judges:
        by_column = {f"the verdicts of {who}": path for who, path in reading.judges.items()}
        fields = {name: path for name, path in settled.items() if path}
        settle_columns(table, dict.fromkeys([*by_column, *fields], ()), {**fields, **by_column}, "--judge")
    elif "label" not in settled:
        raise no_column(table, "label", settled, scale)
    if "id" not in settled and reading.ids_needed:
        raise no_column(table, "id", settled)
    notes: list[str] = []
    if MODEL in table.present and not {MODEL} & set(settled.values()) and "judge" not in settled:
        open_ = "judge" not in mapped and not reading.judges
        stands_for, note = model_field(table, settled, judge_open=open_)
        if stands_for is None or stands_for not in reading.columns:
            notes += [note] if note else []
            settled |= {stands_for: MODEL} if stands_for is not None else {}
    return settled, notes


def _ids(table: Table, reader: _Reader, option: str) -> list[str]:
    """Case ids, row by row; row numbers where no column holds them. Raises DataError where a row has none."""
    if "id" not in reader.columns:
        return [f"row {number}" for number in range(1, len(table.rows) + 1)]
    ids = [reader.text(row, "id") for row in table.rows]
    blank = [row for row, case_id in zip(table.rows, ids, strict=True) if not case_id]
    if blank:
        shown = ", ".join(row.place for row in blank[:3])
        used = set(reader.columns.values())
        choices = [name for name in table.present if name not in used and _selects(table, name)][:N_SHOWN]
        hint = f" Columns that may tell rows apart: {', '.join(choices)}." if choices else ""
        raise DataError(
            f"{table.source}: {len(blank):,} of {len(table.rows):,} rows hold no case id in column "
            f"{reader.columns['id']!r} ({shown}), expected one in each. Fill them in, keep the rows that have one with "
            f"--where COLUMN=VALUE, or name another column: {option} id=COLUMN.{hint}"
        )
    return ids


def _selects(table: Table, name: str) -> bool:
    """Whether a column holds two to ten short values: one that rows can be chosen by."""
    values: set[str] = set()
    for row in table.rows:
        cell = row.values.get(name)
        if isinstance(cell, dict | list) or len(values) > 10:
            return False
        if (text := plain(cell)) and (len(text) <= LONGEST_VALUE):
            values.add(text)
    return 1 < len(values) <= 10


def _is_short(value: object) -> bool:
    return not isinstance(value, dict | list) and len(plain(value)) <= LONGEST_VALUE


def _check_failures(table: Table, reader: _Reader, judges: Mapping[str, str], reading: Reading) -> None:
    """Raises DataError where rows say that a judge failed, hold a verdict all the same, and nobody said what counts."""
    if "error" in reading.columns or not any(
        isinstance(value, dict | list) for row in table.rows[:N_SHOWN] for value in row.values.values()
    ):
        return
    filled = [any(plain(reader.at(row, path)) for path in judges.values()) for row in table.rows]
    found = failure_paths(table, filled)
    if not found:
        return
    path, n = max(found.items(), key=lambda item: item[1])
    raise DataError(
        f"{table.source}: {n:,} rows with a verdict say in {path} that something failed; the verdict of a judge that "
        f"failed is none. Say so with --map error={path}, or take all verdicts as they stand with --map error=."
    )


def _dropped(table: Table, reader: _Reader, kept: set[str]) -> frozenset[str]:
    ids = {reader.text(row, "id") for row in table.dropped} if "id" in reader.columns else set()
    return frozenset(ids - kept - {""})


def _columns_line(
    table: Table,
    columns: Mapping[str, str],
    groups: Groups,
    own_name: str | None,
    judges: Mapping[str, str],
    *,
    gold: bool = False,
) -> str:
    """`file read as: verdict = .., gold = .., group = .., judge = ..`."""
    parts = {} if gold else {"verdict": columns.get("label") or ", ".join(f"{p} ({who})" for who, p in judges.items())}
    parts["gold"] = columns.get("gold", "none in this file")
    parts["id"] = columns.get("id", "row numbers")
    group = columns.get("group", "each case alone")
    parts["group"] = f"{groups.column} ({groups.n:,} different)" if groups.keys else group
    if not gold:
        parts["judge"] = columns.get("judge") or (f"{own_name!r}" if own_name else "as named")
    parts |= {name: path for name, path in columns.items() if name in ("generator", "confidence", "error")}
    shown = ", ".join(f"{name} = {path}" for name, path in parts.items())
    left_out = f", {len(table.dropped):,} left out by --where" if table.dropped else ""
    n_rows = f"{len(table.rows):,} row{'' if len(table.rows) == 1 else 's'}"
    return f"{table.source} read as: {shown}; {n_rows}{left_out}."


def _labels(scale: Scale) -> str:
    return ", ".join(scale.labels)
