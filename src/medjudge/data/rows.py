"""Rows of a source, one by one, each with the place where a person finds it again.

A source is a path (`.jsonl`, `.json`, `.csv`, `.tsv`, each also with `.gz`; `.parquet`; a folder saved by `datasets`),
`hub:owner/name[:split]`, or `builtin:NAME`: a set drawn on the fly (`generators.catalog`) or stored in `builtin/`.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge.data.generators.catalog import GENERATORS, GeneratedSet
from medjudge.errors import DataError
from medjudge.network import hub_access

HUB, BUILTIN = "hub:", "builtin:"
BUILTIN_DIR = Path(__file__).parent / "builtin"
TABLES = ("facts", "imaging")
"""Folders in `BUILTIN_DIR` that hold what sets are drawn from, and no sets."""
FORMATS = ".jsonl, .json, .csv, .tsv (each also with .gz), .parquet, or a folder saved by `datasets`"
LONGEST_CSV_FIELD = 2**31 - 1
"""Characters. The `csv` module's own limit of 131,072 is shorter than some discharge letters."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as its file has it."""

    place: str
    """`file:line`, or `file:row N` (from 1) where the format has no lines."""
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used. Carries no text of the row."""

    place: str
    field: str
    """The contract's field name; empty where the row as a whole cannot be read."""
    reason: str

    def __str__(self) -> str:
        """`file:line: field 'cop': got int 7, expected 0-3`."""
        return f"{self.place}: " + (f"field {self.field!r}: " if self.field else "") + self.reason


def iter_rows(source: str) -> Iterator[Row | Rejected]:
    """The rows of `source` in order; a row that cannot be decoded comes as `Rejected`.

    JSON lines are streamed; other formats are read as their libraries read them. Raises DataError for a source that is
    missing, empty, damaged or of an unknown format.
    """
    if source.startswith(HUB):
        return _hub_rows(source)
    if drawn := _drawn_set(source):
        return _drawn_rows(source, drawn)
    path = source_path(source)
    if path.is_dir():
        return _saved_rows(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Expected rows: {FORMATS}.")
    match _format(path):
        case ".jsonl" | ".ndjson":
            return _json_lines(path)
        case ".json":
            return _json_rows(path)
        case ".csv" | ".tsv":
            return _csv_rows(path)
        case ".parquet":
            return _parquet_rows(path)
    raise DataError(f"{path}: unknown kind of file {path.suffix!r}. Expected {FORMATS}.")


def source_path(source: str) -> Path:
    """The file or folder of a local source or a stored `builtin:` one. Raises DataError if it does not exist."""
    if source.startswith(BUILTIN):
        return _builtin_path(source.removeprefix(BUILTIN))
    path = Path(source).expanduser()
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{source} does not exist{_nearest(path.name, beside)}. Give a path ({FORMATS}), "
            f"`hub:owner/name[:split]` or `builtin:NAME`; relative paths start at {Path.cwd()}."
        )
    return path


def source_files(source: str) -> tuple[Path, ...]:
    """The local files that `source` is made of, sorted; none for a hub data set. Raises DataError if it is missing.

    A set that is drawn on the fly is made of its facts or tables and of the program text that draws from them.
    """
    if source.startswith(HUB):
        return ()
    if drawn := _drawn_set(source):
        return tuple(sorted(drawn.made_of()))
    path = source_path(source)
    return tuple(sorted(p for p in path.rglob("*") if p.is_file())) if path.is_dir() else (path,)


def builtin_names() -> list[str]:
    """What can stand after `builtin:`, sorted."""
    found = (p.relative_to(BUILTIN_DIR) for p in BUILTIN_DIR.rglob("*.jsonl*"))
    stored = (path.as_posix() for path in found if path.parts[0] not in TABLES)
    return sorted({*(name.removesuffix(".gz").removesuffix(".jsonl") for name in stored), *GENERATORS})


def _drawn_set(source: str) -> GeneratedSet | None:
    return GENERATORS.get(source.removeprefix(BUILTIN)) if source.startswith(BUILTIN) else None


def _drawn_rows(source: str, drawn: GeneratedSet) -> Iterator[Row | Rejected]:
    for number, values in enumerate(drawn.rows(), start=1):
        yield Row(f"{source}:{number}", values)


def _builtin_path(name: str) -> Path:
    known = builtin_names()
    if name not in known:
        raise DataError(
            f"{BUILTIN}{name} does not exist{_nearest(name, known)}. Built-in data sets: {', '.join(known) or 'none'}."
        )
    plain = BUILTIN_DIR / f"{name}.jsonl"
    return plain if plain.exists() else BUILTIN_DIR / f"{name}.jsonl.gz"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, unzipped. Raises DataError if it cannot be read or its gzip stream is damaged."""
    try:
        with _open(path) as file:
            yield from file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({type(error).__name__}). Copy it again from its source.") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or type(error).__name__}.") from None


def _json_lines(path: Path) -> Iterator[Row | Rejected]:
    n_lines = 0
    for n_lines, raw in enumerate(_lines(path), start=1):
        place = f"{path}:{n_lines}"
        if n_lines == 1:
            _refuse_utf16(path, raw)
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if raw.strip():
            yield _json_row(raw, place)
    if n_lines == 0:
        raise DataError(f"{path} is empty. Expected one JSON object per line.")


def _json_row(raw: bytes, place: str) -> Row | Rejected:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        return Rejected(place, "", f"got bytes that are not UTF-8 (0x{byte:02x} at byte {error.start}), expected UTF-8")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return Rejected(place, "", f"got broken JSON (column {error.colno}: {error.msg}), expected one JSON object")
    except (ValueError, RecursionError) as error:
        return Rejected(place, "", f"got JSON that cannot be read ({type(error).__name__}), expected one JSON object")
    return _object_row(value, place, escapes="\\ud" in text or "\\uD" in text)


def _object_row(value: object, place: str, *, escapes: bool) -> Row | Rejected:
    """A decoded value as a row. `escapes`: whether its text may hold half of a surrogate pair, which is no text."""
    if not isinstance(value, dict):
        return Rejected(place, "", f"got {type(value).__name__}, expected a JSON object")
    if escapes:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Rejected(place, "", "got half of a surrogate pair (\\ud800-\\udfff), expected whole characters")
    return Row(place, value)


def _json_rows(path: Path) -> Iterator[Row | Rejected]:
    text = _text(path)
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data"
        hint = "It looks like JSON lines: name it .jsonl." if lines else "Correct the file there."
        raise DataError(f"{path}:{error.lineno}: broken JSON (column {error.colno}: {error.msg}). {hint}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: JSON that cannot be read ({type(error).__name__}).") from None
    rows = tree.get("data") if isinstance(tree, dict) else tree
    if not isinstance(rows, list):
        got = f"an object with keys {sorted(tree)[:8]}" if isinstance(tree, dict) else type(tree).__name__
        raise DataError(f'{path}: got {got}, expected a list of objects or {{"data": [...]}}.')
    if not rows:
        raise DataError(f"{path}: got an empty list, expected rows.")
    escapes = "\\ud" in text or "\\uD" in text
    for index, value in enumerate(rows, start=1):
        yield _object_row(value, f"{path}:row {index}", escapes=escapes)


def _csv_rows(path: Path) -> Iterator[Row | Rejected]:
    csv.field_size_limit(LONGEST_CSV_FIELD)
    text = _text(path)
    # Spreadsheets write `;` where the comma is the decimal sign. The header tells: column names rarely hold either.
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header) or not any(header):
            raise DataError(f"{path}:1: the header must name each column once, got {len(header)} names: {header}.")
        first_line = reader.line_num + 1
        n_rows = 0
        for cells in reader:
            place, first_line = f"{path}:{first_line}", reader.line_num + 1
            if not any(cells):
                continue
            n_rows += 1
            if len(cells) != len(header):
                yield Rejected(place, "", f"got {len(cells)} columns, expected {len(header)} as in the header")
                continue
            # An empty cell is all that CSV has for "no value".
            yield Row(place, {name: cell or None for name, cell in zip(header, cells, strict=True) if name})
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: broken CSV ({error}). Check the quotes from there back.") from None
    if not n_rows:
        raise DataError(f"{path}: got a header and no rows.")


def _parquet_rows(path: Path) -> Iterator[Row | Rejected]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise DataError(f"{path}: got a parquet file with no rows.")
            batches = (row for batch in file.iter_batches() for row in batch.to_pylist())
            for index, values in enumerate(batches, start=1):
                yield Row(f"{path}:row {index}", values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({type(error).__name__}).") from None


def _saved_rows(path: Path) -> Iterator[Row | Rejected]:
    import datasets

    if not any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        raise DataError(f"{path} is a folder without a saved data set (no state.json). Name a file in it: {FORMATS}.")
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:  # a damaged folder fails in many ways inside the library; all mean the same to the user
        raise DataError(f"{path}: not a readable folder of `datasets` ({type(error).__name__}).") from None
    if isinstance(saved, datasets.DatasetDict):
        if len(saved) != 1:
            folders = ", ".join(str(path / name) for name in saved)
            raise DataError(f"{path} holds {len(saved)} splits. Name one of them as the source: {folders}.")
        saved = next(iter(saved.values()))
    return _dataset_rows(saved, str(path))


def _hub_rows(source: str) -> Iterator[Row | Rejected]:
    import datasets

    name, _, split = source.removeprefix(HUB).partition(":")
    if not name:
        raise DataError(f"got {source!r}, expected `hub:owner/name[:split]`.")
    try:
        with hub_access():
            loaded = datasets.load_dataset(name, split=split or None, trust_remote_code=False)
    except (
        Exception
    ) as error:  # network, missing set, missing split, gated access: one message, with the library's word
        said = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"cannot load {source} from the hub: {type(error).__name__}: {said} "
            f"Check the name and the split, log in if it is gated, or download it and give the path."
        ) from None
    if isinstance(loaded, Mapping):
        if len(loaded) != 1:
            choices = ", ".join(f"{HUB}{name}:{part}" for part in loaded)
            raise DataError(f"{source} has {len(loaded)} splits. Name one: {choices}.")
        loaded = next(iter(loaded.values()))
    return _dataset_rows(loaded, source)


def _dataset_rows(dataset: Any, source: str) -> Iterator[Row | Rejected]:
    index = 0
    for index, values in enumerate(dataset, start=1):
        yield Row(f"{source}:row {index}", values)
    if not index:
        raise DataError(f"{source}: got a data set with no rows.")


def _text(path: Path) -> str:
    """The whole file as text. Raises DataError, with the line, where it is not UTF-8."""
    raw = b"".join(_lines(path))
    _refuse_utf16(path, raw)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: got bytes that are not UTF-8 (0x{raw[error.start]:02x}), expected UTF-8. "
            f"Convert the file, for example with `iconv -f latin1 -t utf-8`."
        ) from None


def _refuse_utf16(path: Path, raw: bytes) -> None:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: got UTF-16, expected UTF-8. Convert the file with `iconv -f utf-16 -t utf-8`.")
