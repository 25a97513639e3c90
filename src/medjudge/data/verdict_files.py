"""Verdicts and expert labels from any program's files: columns mapped onto a few fields, joined by case id.

Formats are those of `data.rows`; `data.columns` settles what stands for what, `data.cells.Scale` what a cell means. A
verdict that is not on the scale becomes `Unparsed`, unless hardly any value is: then the reading stops, as it does for
an expert label that is not, because a wrong truth is worse than none. No message carries text of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medjudge.data.cells import LONGEST_VALUE, Scale, id_key, shown_id
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
    load_table,
    model_field,
    no_column,
    repeated_texts,
    settle_columns,
)
from medjudge.data.rater_cells import with_rating
from medjudge.data.sources import plain
from medjudge.data.verdict_cells import MIN_READ, N_SHOWN, ROLE, Answers, Facts, Reader
from medjudge.data.verdict_formats.layout import NO_VERDICT, meanings
from medjudge.errors import ConfigError, DataError
from medjudge.records import Case, Judgement

GOLD_FIELDS = ("id", "gold", "generator", "group", "rater", "adjudicated")
OF_CASES = ("gold", "generator", "group", "rater", "adjudicated")
"""Fields that people add to files of other programs."""


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
    min_read: float = MIN_READ
    """Share of a judge's filled cells that must be labels."""


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
    repeats: Mapping[str, Mapping[str, tuple[str | None, ...]]] = field(default_factory=dict)
    """Judge -> case -> its labels where it has several verdicts on one case (None: no verdict)."""


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
    is_named: bool = False,
    gold: Scale | None = None,
) -> VerdictFile:
    """Verdicts of one or several judges.

    judge: the name where no column holds one, and that of the only judge where is_named. gold: the scale of the
    experts' column, where it is another. Several verdicts of one judge on one case are joined: what most say.
    Raises DataError for a file or columns that cannot be used, verdicts of which hardly any is a label, an expert label
    off the scale, a confidence out of range, or two verdicts of one judge on one case.
    """
    reading = reading or Reading()
    table = source if isinstance(source, Table) else load_table(source)
    columns, notes = _verdict_columns(table, scale, reading)
    scale, gold = _as_meant(scale, table), _as_meant(gold or scale, table)
    if is_named and table.format and "judge" in columns and len(_texts(table, columns["judge"])) < 2:
        del columns["judge"]
    reader = Reader(table, columns, gold, reading.confidence_max)
    ids = _ids(table, reader, "--map")
    groups = Groups()
    if "group" not in columns and reading.columns.get("group") != "":
        groups = repeated_texts(table, ids, {*columns.values(), *reading.judges.values()}, reading.group_fields)
    judges = dict(reading.judges) or {judge: columns["label"]}
    answers = Answers(table, scale, reader, tuple(judges.values()))
    facts: dict[str, Facts] = {}
    for at, (row, case_id) in enumerate(zip(table.rows, ids, strict=True)):
        for name, path in judges.items() if NO_VERDICT not in row.values else ():
            answers.add(row, case_id, (reader.text(row, "judge") if "judge" in columns else "") or name, path)
        now = reader.facts(row, reading.inputs)
        now = replace(now, group=groups.keys[at]) if groups.keys else now
        before = facts.get(case_id)
        joined = with_rating if "rater" in columns and before is not None else merged
        facts[case_id] = joined(case_id, before, now, row.place)  # type: ignore[arg-type]
    reader.check_gold()
    answers.check(judges, reading.min_read)
    judgements = answers.joined()
    _check_failures(table, reader, judges, reading)
    own_name = None if "judge" in columns or reading.judges else judge
    first = _columns_line(table, columns, groups, own_name, reading.judges)
    by_judge = [f"Verdicts of {who}: {values.describe()}." for who, values in answers.values.items()]
    truth = [f"Expert labels: {reader.gold_values.describe()}."] if "gold" in columns else []
    return VerdictFile(
        {who: list(by_case.values()) for who, by_case in judgements.items()},
        facts,
        answers.completions,
        columns,
        len(table.rows),
        frozenset(answers.baselines),
        _dropped(table, reader, set(facts)),
        is_own(table) and ROLE not in table.present,
        bool(groups.keys),
        (
            *table.notes,
            first,
            *by_judge[:N_SHOWN],
            *truth,
            *notes,
            *groups.notes,
            *chosen_by(table, columns, reading.judges),
        ),
        answers.repeats(),
    )


def read_gold(
    source: str | Rows | Table,
    scale: Scale,
    *,
    columns: Mapping[str, str] | None = None,
    inputs: Sequence[str] = (),
    group_fields: Sequence[str] = (),
    ids: Sequence[str] = (),
) -> GoldFile:
    """Expert labels by case id. Cells without a label are cases that no expert rated.

    ids: what the files of verdicts call the case, for a file that has neither of the usual names. columns: field of
    `GOLD_FIELDS` or of `inputs` -> path. inputs: fields of the task that are kept where the file has them;
    group_fields: those of them that make a group where no column names one. Raises as `read_verdicts`.
    """
    table = source if isinstance(source, Table) else load_table(source)
    known = {name: FIELDS[name] for name in GOLD_FIELDS} | {name: (name,) for name in inputs}
    known["rater"] = ("rater",)  # in a file of verdicts it may name the judge, here it cannot
    known["id"] = (*FIELDS["id"], *ids)
    mapped = columns or {}
    if table.format:
        kept = {name: path for name, path in table.columns.items() if name in GOLD_FIELDS and path}
        # Verdicts in the file that is named as the experts' are the experts'.
        if "gold" not in kept and table.columns.get("label"):
            kept["gold"] = table.columns["label"]
        mapped = {**kept, **{name: table.same.get(path, path) for name, path in mapped.items()}}
    scale = _as_meant(scale, table)
    settled = settle_columns(table, known, mapped, "--gold-map")
    for needed in ("id", "gold"):
        if needed not in settled:
            raise no_column(table, needed, settled, scale if needed == "gold" else None, "--gold-map")
    reader = Reader(table, settled, scale, 1.0)
    ids = _ids(table, reader, "--gold-map")
    groups = Groups()
    if "group" not in settled and mapped.get("group") != "":
        own = {settled[name] for name in ("id", "gold", "generator") if name in settled}
        fields = [settled.get(name, name) for name in group_fields]
        groups = repeated_texts(table, ids, own, fields)
    facts: dict[str, Facts] = {}
    for at, (row, case_id) in enumerate(zip(table.rows, ids, strict=True)):
        # A log has a row for each of several judges, and the experts' label in each of them.
        if case_id in facts and table.format and "rater" not in settled:
            facts[case_id] = merged(case_id, facts[case_id], reader.facts(row, inputs), row.place)
            continue
        now = reader.facts(row, inputs)
        if case_id in facts:
            if "rater" not in settled:
                raise DataError(
                    f"{row.place}: case {shown_id(case_id)} occurs twice, expected one row per case. If several "
                    "experts rated it, name the column that names them: --gold-map rater=COLUMN. Else remove one of "
                    "the rows, or, if several columns together name a case, join them: --gold-map id=COLUMN+COLUMN."
                )
            now = with_rating(case_id, facts[case_id], now, row.place)
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
    for name in ("gold", "generator", "group", "ratings", "adjudicated"):
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
        before.ratings or now.ratings,
        before.adjudicated or now.adjudicated,
        before.numbers or now.numbers,
    )


def one_writing(files: Mapping[str, VerdictFile], expert: GoldFile | None) -> tuple[dict[str, VerdictFile], list[str]]:
    """The files with ids that differ from those of an earlier file in case or leading zeros alone written as there,
    and a sentence on each file where that was so. Within a file such ids stay apart: there they name different cases.
    """
    known = {id_key(case_id): case_id for case_id in expert.facts} if expert is not None else {}
    # Where two ids of one file differ in case or zeros alone, they mean different cases, and folding would merge them.
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
        repeats={
            who: {new.get(case_id, case_id): labels for case_id, labels in by_case.items()}
            for who, by_case in file.repeats.items()
        },
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
            ratings=known.ratings,
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


def _verdict_columns(table: Table, scale: Scale, reading: Reading) -> tuple[dict[str, str], list[str]]:
    """Field -> path of a file of verdicts, and what is to be said of it."""
    mapped = table.means(reading.columns)
    if reading.judges:
        for name in OF_ONE_JUDGE:
            if mapped.get(name):
                raise ConfigError(
                    f"--map {name}={mapped[name]}: with --judge each judge has a column of verdicts, and one column "
                    f"of {name!r} cannot be of them all. Leave it out, or score one column with --map label=COLUMN."
                )
            mapped[name] = ""
    # Of another program's file the columns are known, and names are looked for only where it has none of its own.
    names = FIELDS if not table.format else {name: FIELDS[name] if name in OF_CASES else () for name in FIELDS}
    settled = settle_columns(table, names, mapped)
    if reading.judges:
        by_column = {f"the verdicts of {who}": path for who, path in reading.judges.items()}
        fields = {name: path for name, path in settled.items() if path}
        settle_columns(table, dict.fromkeys([*by_column, *fields], ()), {**fields, **by_column}, "--judge")
    elif "label" not in settled:
        raise no_column(table, "label", settled, scale)
    if "id" not in settled and reading.ids_needed:
        raise no_column(table, "id", settled)
    notes: list[str] = []
    if not table.format and MODEL in table.present and not {MODEL} & set(settled.values()) and "judge" not in settled:
        open_ = "judge" not in mapped and not reading.judges
        stands_for, note = model_field(table, settled, judge_open=open_)
        if stands_for is None or stands_for not in reading.columns:
            notes += [note] if note else []
            settled |= {stands_for: MODEL} if stands_for is not None else {}
    return settled, notes


def _as_meant(scale: Scale, table: Table) -> Scale:
    """The scale with what the program that wrote a file writes for its labels; what was said by hand comes first."""
    words = {value.casefold() for value in scale.aliases}
    meant = {word: label for word, label in meanings(table.meaning, scale.labels).items() if word not in words}
    return replace(scale, aliases={**meant, **scale.aliases}) if meant else scale


def _texts(table: Table, path: str) -> set[str]:
    return {plain(row.values.get(path)) for row in table.rows} - {""}


def _ids(table: Table, reader: Reader, option: str) -> list[str]:
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


def _check_failures(table: Table, reader: Reader, judges: Mapping[str, str], reading: Reading) -> None:
    """Raises DataError where rows say that a judge failed, hold a verdict all the same, and no option decides."""
    if (
        table.format
        or "error" in reading.columns
        or not any(isinstance(value, dict | list) for row in table.rows[:N_SHOWN] for value in row.values.values())
    ):
        return
    filled = [any(plain(reader.at(row, path)) for path in judges.values()) for row in table.rows]
    failures = failure_paths(table, filled)
    if not failures:
        return
    path, n = max(failures.items(), key=lambda item: item[1])
    raise DataError(
        f"{table.source}: {n:,} rows with a verdict say in {path} that something failed; the verdict of a judge that "
        f"failed is none. Say so with --map error={path}, or take all verdicts as they stand with --map error=."
    )


def _dropped(table: Table, reader: Reader, kept: set[str]) -> frozenset[str]:
    # A case of which another row is kept was not left out.
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
