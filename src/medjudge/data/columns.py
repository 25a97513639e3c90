"""Which column of a file stands for which field: as mapped, else by name, and never one column for two fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medjudge.data.cells import LONGEST_VALUE, MOST_BLANKS, N_VALUES, Scale, id_text, tidy
from medjudge.data.paths import MISSING, leaves, listed, look_up, parts_of, rating_columns, why_missing
from medjudge.data.rows import Rejected, Row, iter_rows
from medjudge.data.sources import Plain, plain
from medjudge.data.verdict_formats.catalog import AUTO, PLAIN, laid_out, unpacked
from medjudge.data.verdict_formats.layout import Asked, Layout, Meaning
from medjudge.errors import ConfigError, DataError
from medjudge.tasks.normalise import normalise, short_hash

FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("case_id", "id"),
    "label": ("label", "verdict", "prediction"),
    "gold": ("gold", "gold_label"),
    "rater": (),
    "confidence": ("confidence",),
    "generator": ("generator", "slices.generator"),
    "group": ("group",),
    "judge": ("judge",),
    "adjudicated": ("adjudicated",),
    "error": ("error", "grader_error", "graderError"),
    "reason": ("unparsed_reason",),
    "kind": ("unparsed_kind",),
    "completion": ("completion",),
    "repeat": ("repeat",),
}
"""Field -> the column names looked for where none is mapped; the first that a file has and no other field takes."""
ONE_OF = ("label", "gold")
"""Fields that are not guessed at: where a file has two of the names, one must be mapped."""
OF_ONE_JUDGE = ("confidence", "reason", "kind", "completion", "judge", "label")
"""Fields of one judge: where several columns hold verdicts, their judge would be unclear."""
QUESTIONS = ("question", "question_id", "prompt", "prompt_id", "query", "instruction", "input", "stem")
"""Names of columns with what several answers may share."""
FAILED = ("error", "gradererror", "grader_error")
"""Keys at any depth, in lower case, that say that a judge failed, where they hold something."""
MODEL = "model"
N_SHOWN = 5
N_LOOKED_AT = 200
"""Rows that are looked at to propose a column."""
MIN_TEXT = 20
"""Mean characters from which a column is taken for texts."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that are in memory, under a name for messages."""

    name: str
    rows: Sequence[Mapping[str, object]]


@dataclass(slots=True)
class Table:
    """The rows of one source that `where` keeps."""

    source: str
    rows: list[Row]
    dropped: list[Row] = field(default_factory=list)
    """Rows that `where` leaves out."""
    notes: list[str] = field(default_factory=list)
    """How the file was read, where it was not as it should be."""
    present: dict[str, None] = field(default_factory=dict)
    """The columns, in their order."""
    where: tuple[str, ...] = ()
    """The paths by which rows were kept."""
    format: str = ""
    """The program that wrote the file, where its layout is known; "" for plain rows."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field -> column, as that program means it; "" where it has none."""
    same: Mapping[str, str] = field(default_factory=dict)
    """A path that one may name -> the column that holds it whole."""
    meaning: Meaning = ""

    def means(self, mapped: Mapping[str, str]) -> dict[str, str]:
        """`mapped` in the columns of this file, with those that its program means for what is not mapped."""
        return {**self.columns, **{name: self.same.get(path, path) for name, path in mapped.items()}}


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups that no column names: repeated texts."""

    column: str = ""
    keys: Sequence[str] = ()
    """Per row; empty where there are none."""
    n: int = 0
    notes: tuple[str, ...] = ()


def load_table(
    source: str | Rows,
    where: Mapping[str, Plain] | None = None,
    asked: Asked | None = None,
    form: str = PLAIN,
    named: tuple[str, str] = ("label", ""),
) -> Table:
    """The rows of a source. where: path -> value; a condition on a path that no row has is left to `check_where`.

    asked, form: what is wanted of a file of another program, and whose file it is (`auto`: as its rows tell). named:
    (field, path): who names another column of verdicts or labels than the program's own reads the file as plain rows.
    Raises DataError for a source or a row that cannot be read, a file of two possible readings, or if no row is kept.
    """
    name = source if isinstance(source, str) else source.name
    notes: list[str] = []
    rows: list[Row] = []
    bad: list[Rejected] = []
    unpack = unpacked if asked is not None and form != PLAIN else None
    for row in _in_memory(source) if isinstance(source, Rows) else iter_rows(source, notes, unpack):
        (bad if isinstance(row, Rejected) else rows).append(row)  # type: ignore[arg-type]
    # Verdicts are the data that are measured: a row left out quietly would change every figure.
    if bad:
        shown = "\n".join(f"  {one}" for one in bad[:N_SHOWN])
        what = "1 row" if len(bad) == 1 else f"{len(bad):,} rows"
        raise DataError(
            f"{name}: {what} cannot be read, expected whole rows:\n{shown}\nCorrect the file: no row is left out of "
            "verdicts."
        )
    if not rows:
        raise DataError(f"{name}: it holds no rows. Expected one row per verdict: name another file.")
    known_as, layout = _layout(rows, name, asked, form, named)
    rows = layout.rows
    present: dict[str, None] = {}
    for row in rows:
        if row.values.keys() - present.keys():
            present |= dict.fromkeys(map(str, row.values))
    known = {path: want for path, want in (where or {}).items() if has_path(rows, present, path)}
    kept_rows, dropped = rows, []
    if known:
        kept_rows = [row for row in rows if _passes(row, known)]
        dropped = [row for row in rows if not _passes(row, known)]
    if not kept_rows:
        there = "; ".join(f"{path}: {_values_there(rows, path)}" for path in known)
        raise DataError(
            f"{name}: --where keeps none of {len(rows):,} rows. Values there: {there}. Expected at least one row: take "
            "one of them."
        )
    return Table(
        name,
        kept_rows,
        dropped,
        [*layout.notes, *notes],
        present,
        tuple(known),
        known_as,
        layout.columns,
        layout.same,
        layout.meaning,
    )


def _layout(rows: list[Row], name: str, asked: Asked | None, form: str, named: tuple[str, str]) -> tuple[str, Layout]:
    """(the program whose file it is, its layout); ("", the rows as they are) for plain rows."""
    plainly = Layout(rows, {})
    if asked is None or form == PLAIN:
        return "", plainly
    what, path = named
    try:
        laid = laid_out(rows, asked, name, form)
    except DataError:
        # Who says where the verdicts stand needs no other reading.
        if form == AUTO and path:
            return "", plainly
        raise
    if laid is None:
        return "", plainly
    one, layout = laid
    if form == AUTO and path and layout.same.get(path, path) != layout.columns.get(what):
        return "", plainly
    return one.name, layout


def _in_memory(source: Rows) -> Iterator[Row]:
    for number, values in enumerate(source.rows, start=1):
        yield Row(f"{source.name}:row {number}", values)


def has_path(rows: Sequence[Row], present: Mapping[str, None], path: str) -> bool:
    """Whether any row has `path`."""
    if path in present:
        return True
    return any(sign in path for sign in ".[") and any(look_up(row.values, path) is not MISSING for row in rows)


def _passes(row: Row, where: Mapping[str, Plain]) -> bool:
    for path, want in where.items():
        cell = look_up(row.values, path)
        got, wanted = id_text(None if cell is MISSING else cell), id_text(want)
        if got != wanted and not (isinstance(cell, bool) and got == wanted.casefold()):
            return False
    return True


def chosen_by(table: Table, columns: Mapping[str, str], judges: Mapping[str, str]) -> list[str]:
    """A note for each condition of `where` on a column of verdicts or expert labels: such rows are no fair sample."""
    of = dict.fromkeys([columns.get("label"), *judges.values()], "verdict") | {columns.get("gold"): "expert label"}
    return [
        f"--where {path}: rows are kept by their {of[path]}. Numbers hold for such rows, not for the judge at large."
        for path in table.where
        if path in of and table.dropped
    ]


def _values_there(rows: Sequence[Row], path: str) -> str:
    values = {tidy(plain(cell)) for row in rows if (cell := look_up(row.values, path)) is not MISSING}
    closed = len(values) <= N_VALUES and all(
        len(value) <= LONGEST_VALUE and value.count(" ") <= MOST_BLANKS for value in values
    )
    return ", ".join(repr(value) for value in sorted(values)) if closed else f"{len(values):,} different"


def check_where(tables: Sequence[Table], where: Mapping[str, Plain]) -> None:
    """Raises DataError for a condition on a path that none of the tables has."""
    for path in where:
        if any(has_path([*table.rows, *table.dropped], table.present, path) for table in tables):
            continue
        rows = [row.values for table in tables for row in (*table.rows, *table.dropped)]
        sources = ", ".join(table.source for table in tables)
        raise DataError(
            f"{sources}: --where {path}=..: {why_missing(path, rows)}. Expected a column of these rows: name another."
        )


def settle_columns(
    table: Table, known: Mapping[str, tuple[str, ...]], mapped: Mapping[str, str], option: str = "--map"
) -> dict[str, str]:
    """Field -> path, as mapped or by name. A field that is mapped to "" has none.

    Raises ConfigError for an unknown field, DataError for a path that no row has, one column for two fields, or two
    names for a field that is not guessed at.
    """
    for name in mapped:
        if name not in known:
            raise ConfigError(f"no field is called {name!r}: expected one of {', '.join(known)}. Name one of these.")
    values = [row.values for row in table.rows]
    columns: dict[str, str] = {}
    for name, path in mapped.items():
        if not path:
            continue
        for part in rating_columns(path, table.present) if name == "gold" else parts_of(path, table.present):
            if why := why_missing(part, values, name):
                raise DataError(f"{table.source}: {why}.")
        if other := next((other for other, column in columns.items() if column == path), None):
            raise DataError(
                f"{table.source}: column {path!r} is mapped to two fields, {other!r} and {name!r}: expected one column "
                f"for each. Map one of them to another column with {option}, or leave it out."
            )
        columns[name] = path
    for name, candidates in known.items():
        if name in mapped:
            continue
        taken = set(columns.values())
        there = [path for path in candidates if path not in taken and has_path(table.rows, table.present, path)]
        if name in ONE_OF and len(there) > 1:
            raise DataError(
                f"{table.source}: columns {', '.join(map(repr, there))} may each stand for field {name!r}, expected "
                f"one. Name it: {option} {name}={there[0]}, or {option} {name}={there[1]}."
            )
        if there:
            columns[name] = there[0]
    return columns


def no_column(
    table: Table, name: str, columns: Mapping[str, str], scale: Scale | None = None, option: str = "--map"
) -> DataError:
    """That no column stands for `name`, with the columns there are and those that hold labels."""
    looked = " or ".join(repr(candidate) for candidate in FIELDS[name])
    taken = ", ".join(f"{path!r} for {field_!r}" for field_, path in columns.items() if path in FIELDS[name])
    note = f" ({taken} is taken)" if taken else ""
    hint = label_columns(table, scale, set(columns.values())) if scale is not None else []
    holding = f" Labels stand in: {', '.join(hint)}." if hint else ""
    return DataError(
        f"{table.source}: no column {looked}{note} for field {name!r}. Name it with {option} {name}=COLUMN."
        f"{holding} Columns there: {listed(table.present)}."
    )


def label_columns(table: Table, scale: Scale, taken: set[str]) -> list[str]:
    """Paths whose values are mostly labels, looked for in the first rows."""
    filled: Counter[str] = Counter()
    read: Counter[str] = Counter()
    for row in table.rows[:N_LOOKED_AT]:
        for path, cell in leaves(row.values):
            if not scale.is_empty(cell):
                filled[path] += 1
                read[path] += scale.read(cell) is not None
    # 0.8: a column of verdicts has unreadable ones, too.
    return [path for path in filled if path not in taken and read[path] >= 0.8 * filled[path] and len(path) < 80][:8]


def model_field(table: Table, columns: Mapping[str, str], *, judge_open: bool) -> tuple[str | None, str]:
    """What `model` names, the judge or who wrote what was judged, and a sentence about it; None where it is not used.

    It is the judge in verdicts that this program wrote, and where each case has one verdict of several models on one
    and the same truth. It is the generator where each case has one row. judge_open: False where the judge was said.
    """
    rows = table.rows
    if judge_open and is_own(table):
        return "judge", ""
    # In files of other programs `model` is as often the judged system as the judge, so the rows decide.
    names = [id_text(row.values.get(MODEL)) for row in rows]
    if len(set(names) - {""}) < 2:
        say = "--map judge=model, or --map generator=model."
        return None, f"Column 'model' holds one value and is not used. If it names the judge or who was judged: {say}"
    ids = [_id(row, columns["id"], table) for row in rows] if "id" in columns else []
    if len(set(ids)) == len(ids):
        if "generator" in columns:
            return None, ""
        return "generator", (
            "Column 'model' is read as who wrote what was judged, for each case has one row. If it names the judge: "
            "--map judge=model."
        )
    golds: dict[str, set[str]] = {}
    for row, case_id in zip(rows, ids, strict=True):
        gold = look_up(row.values, columns["gold"]) if "gold" in columns else None
        golds.setdefault(case_id, set()).add(id_text(None if gold is MISSING else gold))
    one_truth = all(len(found) == 1 for found in golds.values())
    if judge_open and one_truth and len(set(zip(ids, names, strict=True))) == len(ids):
        return "judge", (
            "Column 'model' is read as the judge, for cases have one row per model. If it says who wrote what was "
            f"judged: --map generator=model,id={columns['id']}+model,group={columns['id']}."
        )
    return None, ""


def is_own(table: Table) -> bool:
    """Whether this program wrote the file."""
    return {MODEL, "case_id", "unparsed_reason"} <= table.present.keys()


def _id(row: Row, path: str, table: Table) -> str:
    """The id of a row; parts that are joined are all empty or none."""
    cells = [look_up(row.values, part) for part in parts_of(path, table.present)]
    texts = [id_text(None if cell is MISSING else cell) for cell in cells]
    return "|".join(texts) if any(texts) else ""


def failure_paths(table: Table, is_filled: Sequence[bool]) -> dict[str, int]:
    """Paths inside of rows that say that a judge failed -> rows where they do although there is a verdict."""
    counts: Counter[str] = Counter()
    for row, filled in zip(table.rows, is_filled, strict=True):
        if filled:
            nested = {key: value for key, value in row.values.items() if isinstance(value, dict | list)}
            counts.update(set(_failures(nested, "", 0)))
    return dict(counts)


def _failures(node: Any, path: str, depth: int) -> Iterator[str]:
    # Logs nest requests in requests; no program writes the failure of a verdict deeper than this.
    if depth > 8:
        return
    if isinstance(node, dict):
        for key, value in node.items():
            inner = f"{path}.{key}" if path else str(key)
            if str(key).casefold() in FAILED and depth and says_failed(value):
                yield inner
            elif isinstance(value, dict | list):
                yield from _failures(value, inner, depth + 1)
    elif isinstance(node, list):
        for entry in node:
            yield from _failures(entry, f"{path}[*]", depth + 1)


def says_failed(value: object) -> bool:
    """Whether a cell of an error column says that there was one: a text, an object, true; a number says nothing."""
    if isinstance(value, list):
        return any(says_failed(entry) for entry in value)
    if isinstance(value, bool | dict):
        return bool(value)
    return isinstance(value, str) and tidy(value).casefold() not in ("", "false", "0", "no", "none", "nan", "null")


def repeated_texts(table: Table, ids: Sequence[str], taken: set[str], fields: Sequence[str] = ()) -> Groups:
    """Groups by a text that several cases share, where no column names groups.

    fields: columns of the task that make a question; else columns called as in `QUESTIONS`. A column of a few texts
    for many cases is a form of words and no group: a note says so, as it does of other columns with repeated texts.
    """
    n_cases = len(set(ids))
    for path in _question_paths(table, taken, fields):
        parts = path.split("\0")
        texts = [_text(row, parts) for row in table.rows]
        by_id: dict[str, str] = {}
        if any(by_id.setdefault(case_id, text) != text for case_id, text in zip(ids, texts, strict=True)):
            continue  # judges were shown different texts: it does not name the case
        n = len({text for text in by_id.values() if text})
        if not 1 < n < sum(1 for text in by_id.values() if text):
            continue
        name = "+".join(parts)
        # A handful of texts for very many cases is an instruction, and groups of it would make intervals absurdly wide.
        if n < 10 and n_cases > 10 * n:
            return Groups(
                notes=(
                    f"Column {name!r} holds {n} different texts for {n_cases:,} cases and is not taken as groups. If "
                    f"cases with one text belong together: --map group={name}.",
                )
            )
        hashes = {text: short_hash([text]) if text else "" for text in set(texts)}
        return Groups(name, [hashes[text] for text in texts], n)
    return Groups(notes=tuple(_other_texts(table, n_cases, taken)))


def _question_paths(table: Table, taken: set[str], fields: Sequence[str]) -> Iterator[str]:
    there = [name for name in fields if name in table.present and name not in taken]
    if fields and len(there) == len(fields):
        yield "\0".join(there)
    first = table.rows[:N_SHOWN]
    for name in QUESTIONS:
        nested = any(isinstance(row.values.get(name), dict | list) for row in first)
        if name in table.present and name not in taken and not nested:
            yield name
    inside = {key for row in first for key, value in row.values.items() if isinstance(value, Mapping)}
    for name in QUESTIONS:
        for outer in sorted(map(str, inside)):
            path = f"{outer}.{name}"
            if path not in taken and has_path(table.rows[:N_LOOKED_AT], table.present, path):
                yield path


def _text(row: Row, paths: Sequence[str]) -> str:
    cells = [look_up(row.values, path) for path in paths]
    texts = ["" if cell is MISSING else normalise(plain(cell)) for cell in cells]
    return "\n".join(texts) if any(texts) else ""


def _other_texts(table: Table, n_cases: int, taken: set[str]) -> Iterator[str]:
    """A note on each column of texts of which many are met again."""
    for name in table.present:
        first = [value for row in table.rows[:50] if isinstance(value := row.values.get(name), str)]
        if name in taken or len(first) < 10 or sum(map(len, first)) < MIN_TEXT * len(first):
            continue
        n = len({row.values.get(name) for row in table.rows if isinstance(row.values.get(name), str)})
        if 10 <= n <= 0.8 * n_cases and len(name) < 80:
            yield (
                f"Column {name!r} holds {n:,} different texts for {n_cases:,} cases, and each case counts as a group "
                f"of its own. If cases with one text belong together: --map group={name}."
            )
