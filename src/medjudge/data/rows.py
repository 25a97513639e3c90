"""Rows of a source, one by one, each with the place where a person finds it again.

A source is a path (`.jsonl`, `.json`, `.csv`, `.tsv`, each also with `.gz`; `.xlsx`; `.parquet`; a folder saved by
`datasets`),
`hub:owner/name[:split]`, or `builtin:NAME`: a set drawn on the fly (`synthetic.sets`) or stored in `builtin/`.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge.data.shapes import archived_objects, rows_of_tree, sheet_rows
from medjudge.errors import DataError, did_you_mean
from medjudge.files import BUILTIN_DIR
from medjudge.network import hub_access
from medjudge.synthetic.sets import GENERATORS, GeneratedSet

HUB, BUILTIN = "hub:", "builtin:"
TABLES = ("facts", "imaging", "wordings")
"""Folders in `BUILTIN_DIR` that hold what sets are drawn from, and no sets."""
FORMATS = ".jsonl, .json, .csv, .tsv (each also with .gz), .xlsx, .parquet, or a folder saved by `datasets`"
_BOM, _UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
_WINDOWS = "{}: it is not UTF-8 and is read as Windows-1252: check letters with accents."
_SEPARATOR = re.compile(r"(?i)sep=(.|\\t)")
_SPLITS = re.compile(r"(?i)unknown split.*one of \[([^\]]*)\]", re.DOTALL)
_SPLIT = re.compile(r"'([\w.-]{1,40})'")
_QUOTED = re.compile(r'"[^"]*"')
_ZIP = b"PK\x03\x04"
Unpack = Callable[[Mapping[str, Any]], "list[Any] | None"]
"""The rows of a JSON object whose layout is known, None for any other."""
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


def iter_rows(source: str, notes: list[str] | None = None, unpack: Unpack | None = None) -> Iterator[Row | Rejected]:
    """The rows of `source` in order; a row that cannot be decoded comes as `Rejected`.

    JSON lines are streamed; other formats are read as their libraries read them. notes: where given, text that is no
    UTF-8 and JSON that is no list of rows are read as far as possible, and a sentence for each is added to it;
    without it they are refused, and a file of another ending is one of the formats that it begins as. unpack: asked
    first for the rows of a JSON object. Raises DataError for a source that is missing, empty, damaged or of an unknown
    format.
    """
    if source.startswith(HUB):
        return _hub_rows(source)
    if drawn := _drawn_set(source):
        return _drawn_rows(source, drawn)
    path = source_path(source)
    if path.is_dir():
        return _saved_rows(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes). Expected rows: {FORMATS}. Write it again.")
    match _format(path) if notes is None else _content(path):
        case ".jsonl" | ".ndjson":
            return _json_lines(path, notes, unpack)
        case ".json":
            return _json_rows(path, notes, unpack)
        case ".csv" | ".tsv":
            return _csv_rows(path, notes)
        case ".xlsx" | ".xlsm":
            return _table_rows(path, sheet_rows(path, notes))
        case ".parquet":
            return _parquet_rows(path)
        case ".eval" if notes is not None:
            return (_object_row(value, place, escapes=True) for place, value in archived_objects(path))
    raise DataError(f"{path}: unknown kind of file {path.suffix!r}. Expected {FORMATS}. Save the rows as one of these.")


def source_path(source: str) -> Path:
    """The file or folder of a local source or a stored `builtin:` one. Raises DataError if it does not exist."""
    if source.startswith(BUILTIN):
        return _builtin_path(source.removeprefix(BUILTIN))
    path = Path(source).expanduser()
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f"{source} does not exist{did_you_mean(path.name, beside)}. Give a path ({FORMATS}), "
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
    paths = (p.relative_to(BUILTIN_DIR) for p in BUILTIN_DIR.rglob("*.jsonl*"))
    stored = (path.as_posix() for path in paths if path.parts[0] not in TABLES)
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
            f"{BUILTIN}{name} does not exist{did_you_mean(name, known)}. "
            f"Name one of the built-in data sets: {', '.join(known) or 'none'}."
        )
    plain = BUILTIN_DIR / f"{name}.jsonl"
    return plain if plain.exists() else BUILTIN_DIR / f"{name}.jsonl.gz"


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else suffixes[-1] if suffixes else ""


def _content(path: Path) -> str:
    """The format of a file whose ending does not settle it, by how it begins: an archive of a log, or JSON."""
    ending = _format(path)
    if ending in (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xlsx", ".xlsm", ".parquet"):
        return ending
    lines = _lines(path)
    start = next(lines, b"")
    lines.close()
    if start.startswith(_ZIP):
        return ".eval"
    return ".json" if start.removeprefix(_BOM).lstrip()[:1] in (b"{", b"[") else ending


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(path: Path) -> Generator[bytes, None, None]:
    """The lines of a file, unzipped. Raises DataError if it cannot be read or its gzip stream is damaged."""
    try:
        with _open(path) as file:
            yield from file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: damaged gzip file ({type(error).__name__}), expected a whole one. Copy it again from its source."
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or type(error).__name__}. Expected a file that this account may "
            "read: change its permissions, or copy it."
        ) from None


def _json_lines(path: Path, notes: list[str] | None, unpack: Unpack | None = None) -> Iterator[Row | Rejected]:
    n_lines = 0
    lines = _lines(path)
    for n_lines, raw in enumerate(lines, start=1):
        place = f"{path}:{n_lines}"
        if n_lines == 1:
            if notes is not None and (raw.startswith(_UTF16) or raw.removeprefix(_BOM).lstrip()[:1] == b"["):
                lines.close()
                yield from _json_rows(path, notes, unpack)
                return
            _refuse_utf16(path, raw)
            raw = raw.removeprefix(_BOM)
        if notes is not None and not raw.isascii():
            raw = _as_utf8(raw, path, notes)
        if raw.strip():
            yield _json_row(raw, place)
    if n_lines == 0:
        raise DataError(f"{path} is empty. Expected one JSON object per line. Write it again.")


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


def _json_rows(path: Path, notes: list[str] | None, unpack: Unpack | None = None) -> Iterator[Row | Rejected]:
    text = _text(path, notes)
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data"
        if lines and notes is not None:
            notes.append(f"{path}: it holds a JSON object per line and is read so.")
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    yield _json_row(line.encode("utf-8", "surrogatepass"), f"{path}:{number}")
            return
        hint = "It looks like JSON lines: name it .jsonl." if lines else "Correct the file there."
        raise DataError(f"{path}:{error.lineno}: broken JSON (column {error.colno}: {error.msg}). {hint}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: JSON that cannot be read ({type(error).__name__}). Expected rows of plain objects: write them "
            "again."
        ) from None
    rows = unpack(tree) if unpack is not None and isinstance(tree, dict) else None
    if rows is None:
        rows = tree.get("data") if isinstance(tree, dict) else tree
    if not isinstance(rows, list) and isinstance(tree, dict) and notes is not None:
        rows = rows_of_tree(tree, str(path), notes)
    if not isinstance(rows, list):
        got = f"an object with keys {sorted(tree)[:8]}" if isinstance(tree, dict) else type(tree).__name__
        raise DataError(f'{path}: got {got}, expected a list of objects or {{"data": [...]}}.')
    if not rows:
        raise DataError(f"{path}: got an empty list, expected rows. Write it again.")
    escapes = "\\ud" in text or "\\uD" in text
    for index, value in enumerate(rows, start=1):
        yield _object_row(value, f"{path}:row {index}", escapes=escapes)


def _csv_rows(path: Path, notes: list[str] | None) -> Iterator[Row | Rejected]:
    csv.field_size_limit(LONGEST_CSV_FIELD)
    text = _text(path, notes)
    first, _, rest = text.partition("\n")
    n_skipped = 0
    if named := _SEPARATOR.fullmatch(first.strip().strip('"')):  # a line that Excel writes and reads
        text, delimiter, n_skipped = rest, named[1].replace("\\t", "\t"), 1
    else:
        # Spreadsheets write `;` where the comma is the decimal sign. The header tells: outside of quotes a column name
        # rarely holds either.
        delimiter = max(",;\t|", key=_QUOTED.sub("", first).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def lines() -> Iterator[tuple[str, list[Any]]]:
        line = n_skipped + 1
        try:
            for cells in reader:
                # An empty cell is all that CSV has for "no value".
                yield str(line), [cell if cell and not cell.isspace() else None for cell in cells]
                line = n_skipped + reader.line_num + 1
        except csv.Error as error:
            at = n_skipped + reader.line_num
            raise DataError(
                f"{path}:{at}: broken CSV ({error}), expected a header and rows of as many cells. Check the quotes "
                "from there back."
            ) from None

    return _table_rows(path, lines())


def _table_rows(path: Path, lines: Iterator[tuple[str, list[Any]]]) -> Iterator[Row | Rejected]:
    """Rows under a header, which comes first; each with its place in the file. Columns without a name are left out."""
    place, names = next(lines, ("1", []))
    header = [str(name).strip() if name is not None else "" for name in names]
    while header and not header[-1]:
        header.pop()
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice or not header:
        got = f"twice: {', '.join(map(repr, twice))}" if twice else "none"
        raise DataError(f"{path}:{place}: the header must name each column once, got {got}. Rename them in the file.")
    n_rows = 0
    for place, cells in lines:
        if cells.count(None) == len(cells):
            continue
        n_rows += 1
        while len(cells) > len(header) and cells[-1] is None:
            cells.pop()
        if len(cells) != len(header):
            yield Rejected(f"{path}:{place}", "", f"got {len(cells)} columns, expected {len(header)} as in the header")
            continue
        yield Row(f"{path}:{place}", {name: cell for name, cell in zip(header, cells, strict=True) if name})
    if not n_rows:
        raise DataError(f"{path}: got a header and no rows, expected a row per case. Write it again.")


def _parquet_rows(path: Path) -> Iterator[Row | Rejected]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if not file.metadata.num_rows:
                raise DataError(f"{path}: got a parquet file with no rows, expected a row per case. Write it again.")
            batches = (row for batch in file.iter_batches() for row in batch.to_pylist())
            for index, values in enumerate(batches, start=1):
                yield Row(f"{path}:row {index}", values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable parquet file ({type(error).__name__}), expected a whole one. Copy or write it "
            "again."
        ) from None


def _saved_rows(path: Path) -> Iterator[Row | Rejected]:
    import datasets

    if not any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
        raise DataError(f"{path} is a folder without a saved data set (no state.json). Name a file in it: {FORMATS}.")
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:  # a damaged folder fails in many ways inside the library; all mean the same to the user
        raise DataError(
            f"{path}: not a readable folder of `datasets` ({type(error).__name__}), expected a whole one. Write it "
            "again with `save_to_disk`."
        ) from None
    if isinstance(saved, datasets.DatasetDict):
        if len(saved) != 1:
            folders = ", ".join(str(path / name) for name in saved)
            raise DataError(f"{path} holds {len(saved)} splits, expected one. Name it as the source: {folders}.")
        saved = next(iter(saved.values()))
    return _dataset_rows(saved, str(path))


def _hub_rows(source: str) -> Iterator[Row | Rejected]:
    import datasets

    name, _, split = source.removeprefix(HUB).partition(":")
    if not name:
        raise DataError(f"got {source!r}, expected `hub:owner/name[:split]`. Write the name as the hub shows it.")
    try:
        with hub_access():
            loaded = datasets.load_dataset(name, split=split or None, trust_remote_code=False)
    except Exception as error:  # network, missing set, missing split, gated access, rows that cannot be read
        raise DataError(
            f"cannot load {source} from the hub: {_hub_trouble(error)} ({type(error).__name__}). Expected a data set "
            "that this account may read. Check the name and the split, log in if it is gated, or download it and give "
            "the path."
        ) from None
    if isinstance(loaded, Mapping):
        if len(loaded) != 1:
            choices = ", ".join(f"{HUB}{name}:{part}" for part in loaded)
            raise DataError(f"{source} has {len(loaded)} splits, expected one. Name it: {choices}.")
        loaded = next(iter(loaded.values()))
    return _dataset_rows(loaded, source)


def _hub_trouble(error: Exception) -> str:
    """What went wrong at the hub, in words of our own: those of the library may quote a row that it could not read."""
    kind, text = type(error).__name__, str(error)
    if splits := _SPLITS.search(text):
        return f"it has no such split, but {', '.join(_SPLIT.findall(splits[1])[:20])}"
    if "gated" in text.lower() or kind == "GatedRepoError":
        return "it is gated, and this account has no access"
    if kind in ("DatasetNotFoundError", "RepositoryNotFoundError"):
        return "it does not exist, or not for this account"
    if "Config name is missing" in text:
        return "it has several configurations, of which none can be named here"
    if kind == "OfflineModeIsEnabled" or "OfflineModeIsEnabled" in text:
        return "the libraries are set to work offline (HF_HUB_OFFLINE)"
    if "Connect" in kind or "Timeout" in kind:
        return "the hub cannot be reached"
    return "its files cannot be read as rows"


def _dataset_rows(dataset: Any, source: str) -> Iterator[Row | Rejected]:
    index = 0
    for index, values in enumerate(dataset, start=1):
        yield Row(f"{source}:row {index}", values)
    if not index:
        raise DataError(f"{source}: got a data set with no rows, expected a row per case. Name another split.")


def _text(path: Path, notes: list[str] | None) -> str:
    """The whole file as text. notes: where given, UTF-16 and Windows-1252 are read too, and said.

    Raises DataError, with the line, where it cannot be decoded.
    """
    raw = b"".join(_lines(path))
    if notes is not None and raw.startswith(_UTF16):
        try:
            text = raw.decode("utf-16")
        except UnicodeDecodeError:
            raise DataError(f"{path}: damaged UTF-16, expected UTF-8. Save the file again as UTF-8.") from None
        notes.append(f"{path}: read as UTF-16.")
        return text
    _refuse_utf16(path, raw)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if notes is not None:
            try:
                text = raw.decode("cp1252")
            except UnicodeDecodeError:
                pass
            else:
                notes.append(_WINDOWS.format(path))
                return text
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: got bytes that are not UTF-8 (0x{raw[error.start]:02x}), expected UTF-8. "
            f"Convert the file, for example with `iconv -f latin1 -t utf-8`."
        ) from None


def _as_utf8(raw: bytes, path: Path, notes: list[str]) -> bytes:
    """A line in UTF-8, from Windows-1252 where it is no UTF-8; as it is where it is neither."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        with contextlib.suppress(UnicodeDecodeError):
            raw = raw.decode("cp1252").encode("utf-8")
            if (note := _WINDOWS.format(path)) not in notes:
                notes.append(note)
    return raw


def _refuse_utf16(path: Path, raw: bytes) -> None:
    if raw.startswith(_UTF16):
        raise DataError(f"{path}: got UTF-16, expected UTF-8. Convert the file with `iconv -f utf-16 -t utf-8`.")
