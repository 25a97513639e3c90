"""Rows become cases: columns mapped onto the contract's fields, bad rows named, ids and groups given."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from medjudge.data.paths import MISSING, look_up
from medjudge.data.ratings import GoldRule, entries, is_tied
from medjudge.data.rows import Rejected, Row, iter_rows
from medjudge.errors import ConfigError, DataError, did_you_mean
from medjudge.records import Case
from medjudge.settings.data import DataConfig
from medjudge.tasks.contract import RowError, TaskContract
from medjudge.tasks.normalise import normalise, short_hash

N_SHOWN = 5
"""Bad rows that a message lists; the others are counted."""

Plain = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class CaseTable:
    """What one source gave."""

    cases: tuple[Case, ...]
    """In the order of the source; of a task that presents a row in several ways, one after the other."""
    rejected: tuple[Rejected, ...]
    n_rows: int
    """Rows read, whether or not they became cases."""
    n_filtered: int
    """Rows left out by `where`."""
    n_duplicates: int
    """Rows that repeat an earlier row's inputs and label; among `cases` only where duplicates are kept."""
    n_tied: int = 0
    """Cases that several experts rated and whose ratings give no label."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A row that became a case, before ids and duplicates are settled."""

    place: str
    case: Case
    key: str
    """The inputs in canonical JSON."""
    adjudicated: str | None = None
    """The label that was settled on where experts differed."""


def read_source(
    source: str, contract: TaskContract, data: DataConfig | None = None, *, where: Mapping[str, Plain] | None = None
) -> CaseTable:
    """The cases of `source` under `contract`: `cases_of` over its rows. `where`: takes the place of that in `data`."""
    data = data or DataConfig()
    slices = dict.fromkeys(data.slices)
    if data.source and data.stratify_by not in (None, "label"):
        slices[str(data.stratify_by)] = None
    where = data.where if where is None else where
    return cases_of(iter_rows(source), source, contract, data.model_copy(update={"where": where, "slices": (*slices,)}))


def cases_of(rows: Iterable[Row | Rejected], source: str, contract: TaskContract, data: DataConfig) -> CaseTable:
    """The cases that `rows` describe under `contract`; `source` names them in messages.

    Of `data`, how rows are read counts: `fields`, `values`, `where`, `case_id`, `group_by`, `slices`, `raters`,
    `rater`, `adjudicated`, `gold_rule`, `gold_ties`, `max_rows`, `bad_rows` and `duplicates`. A column is named as in
    the file; `options.A` and `scores.0` reach into a column that holds an object or a list. `where` keeps the rows
    whose columns equal its values (as text: `true`, `3`, `train`).

    A case's id is the column `case_id`, or 16 hex digits of sha256 over the inputs, with `-2`, `-3`, ... where
    inputs repeat. Its group is a hash over the normalised values of `group_by` (columns or contract fields), of the
    contract's `group_fields` where none is named, and the case's own where all of these are empty.

    Several experts' labels are `Case.ratings`: of the columns `raters`, of a list in the gold column (its places are
    the raters), or of the rows of one case that a column `rater` tells apart. The label is then what `gold_rule` makes
    of them, none at a tie.

    Raises DataError for a source, a column or, with `bad_rows="refuse"`, rows that cannot be used; ConfigError for a
    field that the contract does not know. No message carries text of a row.
    """
    columns = _columns_by_field(contract, data.fields, data.values)
    asked = {*data.where, *data.slices, *data.raters}
    asked |= {name for name in (data.case_id, data.rater, data.adjudicated) if name}
    asked |= {name for name in data.group_by if name not in columns}
    asked |= {name for column in columns.values() for name in _named(column)}
    wanted = {*columns.values(), *asked}
    seen: set[str] = set()
    present: set[str] = set()
    read: list[_Read] = []
    rejected: list[Rejected] = []
    n_rows = n_filtered = 0
    for row in rows:
        n_rows += 1
        if isinstance(row, Rejected):
            rejected.append(row)
            continue
        present.update(row.values)
        seen.update(name for name in wanted - seen if _has(row.values, name))
        if not all(_same(_value(row.values, column), want) for column, want in data.where.items()):
            n_filtered += 1
            continue
        try:
            read.append(_read_row(row, contract, columns, data))
        except RowError as error:
            rejected.append(_rejected(row, error, columns))
        # Rows that `where` leaves out do not count: `max_rows` is how many are used.
        if data.max_rows is not None and n_rows - n_filtered >= data.max_rows:
            break
    if present:
        _check_columns(source, contract, columns, data.fields, wanted, seen, present)
    if rejected and (data.bad_rows == "refuse" or not read):
        raise DataError(_describe(source, rejected, n_rows))
    if not read:
        kept = (
            f"`where` ({', '.join(data.where)}) keeps none of its {n_rows} rows" if n_filtered else "it holds no rows"
        )
        raise DataError(f"{source}: {kept}. Expected at least one case. Check the values that `where` compares with.")
    if data.rater is not None:
        read = _one_case_each(source, read)
    read = _with_gold(read, gold_rule(contract, data))
    kept_rows, n_duplicates = _settle_duplicates(source, read, data.duplicates)
    settled = _settle_ids(source, kept_rows, data.case_id)
    n_tied = sum(map(is_tied, settled))
    cases = tuple(shown for case in settled for shown in contract.presentations(case))
    return CaseTable(cases, tuple(rejected), n_rows, n_filtered, n_duplicates, n_tied=n_tied)


def gold_rule(contract: TaskContract, data: DataConfig) -> GoldRule:
    """How the ratings of a case of these rows become its label. Raises ConfigError where the labels have no order."""
    rule = data.gold_rule or ("majority" if data.adjudicated is None else "adjudicated")
    return GoldRule(contract.labels, rule, data.gold_ties, contract.ordered)


def _one_case_each(source: str, read: Sequence[_Read]) -> list[_Read]:
    """Rows of one case, a row per rater, put together. Raises DataError where a rater gave a case two labels."""
    cases: dict[tuple[str, str], _Read] = {}
    for row in read:
        place = (row.key, row.case.case_id)
        if (first := cases.get(place)) is None:
            cases[place] = row
            continue
        for rater, label in row.case.ratings.items():
            if first.case.ratings.get(rater, label) != label:
                raise DataError(
                    f"{source}: {row.place}: a rater has a second label for the case of {first.place}, expected one "
                    "label of each rater for each case. Keep one of the rows, or name another column in `data.rater`."
                )
        together = replace(first.case, ratings={**first.case.ratings, **row.case.ratings})
        cases[place] = replace(first, case=together, adjudicated=first.adjudicated or row.adjudicated)
    return list(cases.values())


def _with_gold(read: Sequence[_Read], rule: GoldRule) -> list[_Read]:
    """The rows with the label that the rule makes of their ratings; rows without ratings as they are."""
    return [
        replace(row, case=replace(row.case, gold=rule.gold(row.case.ratings, row.adjudicated)))
        if row.case.ratings or row.adjudicated is not None
        else row
        for row in read
    ]


def _rejected(row: Row, error: RowError, columns: Mapping[str, str]) -> Rejected:
    """A row that the contract refuses, with the column that the field was read from where it has another name."""
    via = columns.get(error.field, error.field)
    note = "" if via == error.field else f" (column {via!r})"
    return Rejected(row.place, error.field, f"got {error.got}, expected {error.expected}{note}")


def parse_fields(pairs: Iterable[str]) -> dict[str, str]:
    """`["condition=topic"]` -> `{"condition": "topic"}`, as `--map` takes it. Raises ConfigError."""
    form = "--map takes field=column"
    parsed = _parse_pairs(pairs, form)
    if empty := [name for name, column in parsed.items() if not column]:
        raise ConfigError(f"{form}; got no column for {empty[0]!r}. Name it after the `=`.")
    return parsed


def parse_where(pairs: Iterable[str]) -> dict[str, Plain]:
    """`["split=train"]` -> `{"split": "train"}`, as `--where` takes it; `column=` is no value. Raises ConfigError."""
    return dict(_parse_pairs(pairs, "--where takes column=value"))


def parse_options(pairs: Iterable[str], form: str) -> dict[str, str]:
    """`["id=uid,label=pred"]` -> `{"id": "uid", "label": "pred"}`: several pairs may stand in one, apart by commas.

    form: what the option takes, for the message. Nothing after `=` is an empty text. Raises ConfigError.
    """
    return _parse_pairs((part for pair in pairs for part in re.split(r",(?=[^=,]+=)", pair)), form)


def _parse_pairs(pairs: Iterable[str], form: str) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals) or name in parsed:
            raise ConfigError(
                f"{form}, each name once; got {pair!r}. Write it in that form, and leave a second one out."
            )
        parsed[name] = value
    return parsed


def plain(value: object) -> str:
    """A cell as text, the same for every format: `true`, `3` (also for 3.0), `""` for no value, JSON for what nests."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value).strip()


def _same(value: object, want: Plain) -> bool:
    got, wanted = plain(value), plain(want)
    either_bool = isinstance(value, bool) or isinstance(want, bool)
    return got.casefold() == wanted.casefold() if either_bool else got == wanted


def _columns_by_field(
    contract: TaskContract, fields: Mapping[str, str], values: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Contract field -> column, or text that names columns, for every field of the contract.

    Raises ConfigError for a field that it lacks.
    """
    known = dict.fromkeys([*contract.fields, contract.gold_field, *([contract.reason_field or contract.gold_field])])
    for section, names in (("data.fields", fields), ("data.values", values)):
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"`{section}` names {name!r}, which task {contract.kind!r} does not have"
                    f"{did_you_mean(name, known)}. Expected one of its fields: {', '.join(known)}. Name one of these."
                )
    return {name: fields.get(name, name) for name in known}


_NAMED = re.compile(r"\{([^{}]+)\}")


def _named(column: str) -> tuple[str, ...]:
    """The columns that a text names in braces."""
    return tuple(_NAMED.findall(column))


def _cell(values: Mapping[str, object], column: str) -> object:
    """The cell of a column, or the text with the columns that it names put in: None where one of them is empty."""
    cell = look_up(values, column)
    if cell is not MISSING or not (names := _named(column)):
        return cell
    parts = {name: plain(_value(values, name)) for name in names}
    return _NAMED.sub(lambda match: parts[match[1]], column) if all(parts.values()) else None


def _value(values: Mapping[str, object], column: str) -> object:
    """The cell of a column, None where the row has none."""
    cell = _cell(values, column)
    return None if cell is MISSING else cell


def _has(values: Mapping[str, object], column: str) -> bool:
    return look_up(values, column) is not MISSING


def _read_row(row: Row, contract: TaskContract, columns: Mapping[str, str], data: DataConfig) -> _Read:
    """Raises RowError where the contract or the id column cannot be read."""
    cells = {field: _cell(row.values, column) for field, column in columns.items()}
    cells = {field: cell for field, cell in cells.items() if cell is not MISSING}
    for field, replacements in data.values.items():
        if field in cells:
            cells[field] = replacements.get(plain(cells[field]), cells[field])
    named = ""
    if data.case_id is not None:
        named = plain(_value(row.values, data.case_id))
        if not named:
            raise RowError(data.case_id, "nothing", "a case id")
    case, adjudicated = _read_ratings(row, contract, cells, named, data) or (contract.read_case(cells, named), None)
    # Canonical JSON: the same inputs give the same id whatever the file's format or its order of columns.
    key = json.dumps(dict(case.inputs), ensure_ascii=False, sort_keys=True)
    keep = {column: plain(_value(row.values, column)) for column in data.slices}
    group = _group(row, case, contract, columns, data.group_by, key)
    return _Read(row.place, replace(case, group=group, slices=keep), key, adjudicated)


def _read_ratings(
    row: Row, contract: TaskContract, cells: Mapping[str, object], named: str, data: DataConfig
) -> tuple[Case, str | None] | None:
    """The case with its ratings, and the adjudicated label; None where the row has one plain label.

    Each rating is read by the contract, as the only label of the row would be.
    """
    gold = contract.gold_field
    replacements = data.values.get(gold, {})
    if data.raters:
        given = {rater: _value(row.values, rater) for rater in data.raters}
    elif data.rater is not None:
        rater = plain(_value(row.values, data.rater))
        if not rater:
            raise RowError(data.rater, "nothing", "the name of a rater")
        given = {rater: cells.get(gold)}
    else:
        # Of lists alone: an object may be one expert's whole answer, such as three marks.
        given = entries(cell) if isinstance(cell := cells.get(gold), list) else {}
    if not given and data.adjudicated is None:
        return None
    without = {name: cell for name, cell in cells.items() if name != gold}

    def label(cell: object) -> str | None:
        return contract.read_case({**without, gold: replacements.get(plain(cell), cell)}, named).gold

    read = {rater: label(cell) for rater, cell in given.items()}
    ratings = {rater: one for rater, one in read.items() if one is not None}
    settled = None if data.adjudicated is None else label(_value(row.values, data.adjudicated))
    return replace(contract.read_case(without, named), ratings=ratings), settled


def _group(
    row: Row, case: Case, contract: TaskContract, columns: Mapping[str, str], group_by: Sequence[str], key: str
) -> str:
    if group_by:
        texts = [
            plain(_value(row.values, name if _has(row.values, name) else columns.get(name, name))) for name in group_by
        ]
    else:
        texts = [case.inputs.get(name, "") for name in contract.group_fields]
    normal = [normalise(text) for text in texts]
    # Rows that all lack a patient id are not one patient.
    return short_hash(normal) if any(normal) else short_hash(["alone", key])


def _check_columns(
    source: str,
    contract: TaskContract,
    columns: Mapping[str, str],
    mapped: Mapping[str, str],
    asked: set[str],
    seen: set[str],
    present: set[str],
) -> None:
    """Raises one DataError for all columns that no row has."""
    tolerated = {contract.gold_field, contract.reason_field, *contract.optional_fields} - set(mapped)
    named = {field: _named(column) or (column,) for field, column in columns.items()}
    needed = [field for field, column in columns.items() if column not in seen and field not in tolerated]
    gone = {name: field for field in needed for name in named[field] if name not in seen}
    others = sorted(asked - seen - set(columns.values()) - {name for names in named.values() for name in names})
    if not gone and not others:
        return
    problems = [
        f"no column {column!r} for field {field!r}{did_you_mean(column, present)}" for column, field in gone.items()
    ]
    problems += [f"no column {column!r}{did_you_mean(column, present)}" for column in others]
    example = next(iter(gone.values()), contract.gold_field)
    raise DataError(
        f"{source}: {'; '.join(problems)}. Columns there: {', '.join(sorted(present))}. "
        f"Name the right column of a field: `--map {example}=COLUMN` on the command line "
        f'(`medjudge run` and `preflight`: `--set data.fields.{example}=COLUMN`), {example} = "COLUMN" under '
        f'`[data.fields]` in a recipe, or fields={{"{example}": "COLUMN"}} of `load_cases` in Python.'
    )


def _describe(source: str, rejected: Sequence[Rejected], n_rows: int) -> str:
    lines = [f"  {bad}" for bad in rejected[:N_SHOWN]]
    if len(rejected) > N_SHOWN:
        lines.append(f"  ... and {len(rejected) - N_SHOWN} more")
    advice = (
        'Correct them, or set `data.bad_rows = "set_aside"` to go on without them; rejected.jsonl then lists them.'
        if len(rejected) < n_rows
        else "No row can be used: check that the task and the field mapping fit this file."
    )
    return "\n".join([f"{source}: {len(rejected)} of {n_rows} rows cannot be used:", *lines, advice])


def _settle_duplicates(
    source: str, read: Sequence[_Read], duplicates: Literal["keep", "drop", "refuse"]
) -> tuple[list[_Read], int]:
    """The rows to keep, and how many repeat an earlier one."""
    first: dict[tuple[str, str | None, tuple[tuple[str, str], ...]], _Read] = {}
    repeats: list[tuple[_Read, _Read]] = []
    kept: list[_Read] = []
    for row in read:
        original = first.setdefault((row.key, row.case.gold, tuple(row.case.ratings.items())), row)
        if original is not row:
            repeats.append((row, original))
        if original is row or duplicates == "keep":
            kept.append(row)
    if repeats and duplicates == "refuse":
        shown = "; ".join(f"{again.place} repeats {earlier.place}" for again, earlier in repeats[:N_SHOWN])
        raise DataError(
            f"{source}: {len(repeats)} of {len(read)} rows repeat another row's inputs and label, expected each once: "
            f"{shown}. "
            f'Remove them, or set `data.duplicates` to "drop" or "keep".'
        )
    return kept, len(repeats)


def _settle_ids(source: str, rows: Sequence[_Read], case_id: str | None) -> list[Case]:
    if case_id is not None:
        counts = Counter(row.case.case_id for row in rows)
        if len(counts) < len(rows):
            repeated = [row.place for row in rows if counts[row.case.case_id] > 1]
            raise DataError(
                f"{source}: column {case_id!r} should name each case once, but {len(repeated)} rows share "
                f"{sum(n > 1 for n in counts.values())} ids: {', '.join(repeated[:N_SHOWN])}. Expected an id for each: "
                "name another column in `data.case_id`, or none: ids are then made from the inputs."
            )
        return [row.case for row in rows]
    seen: Counter[str] = Counter()
    cases = []
    for row in rows:
        base = hashlib.sha256(row.key.encode()).hexdigest()[:16]
        seen[base] += 1
        cases.append(replace(row.case, case_id=base if seen[base] == 1 else f"{base}-{seen[base]}"))
    return cases
