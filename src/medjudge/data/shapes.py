"""Rows in files that are no plain list of rows: JSON of other programs, spreadsheets, frames of pandas."""

from __future__ import annotations

import datetime
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medjudge.data.paths import listed
from medjudge.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

ZSTD = 93
"""The number of Zstandard as a method of zip archives."""
LARGEST_SAMPLE = 256 * 2**20
MOST_UNPACKED = 2 * 2**30
"""Bytes: a small archive may unpack to more than a machine holds."""


def rows_of_tree(tree: Mapping[str, Any], name: str, notes: list[str]) -> list[Any]:
    """The rows of a JSON object: a list of objects in it, columns side by side, or records under their ids.

    Adds to `notes` what was taken for the rows. Raises DataError where there is none, or more than one choice.
    """
    lists = dict(_lists_of_objects(tree))
    if len(lists) == 1:
        path, rows = next(iter(lists.items()))
        notes.append(f"{name}: the {len(rows):,} entries of {path!r} are its rows.")
        return rows
    if lists:
        choices = ", ".join(f"{path} ({len(rows):,})" for path, rows in lists.items())
        raise DataError(
            f"{name}: it holds several lists of rows, expected one: {choices}. Save the one you mean as a file of rows."
        )
    if (columns := _columns(tree)) is not None:
        n = max(len(column) for column in columns.values())
        notes.append(f"{name}: {len(columns)} columns of {n:,} values are read as rows.")
        constant = {key: value for key, value in tree.items() if isinstance(value, str | int | float | bool)}
        return [constant | {key: column[i] for key, column in columns.items()} for i in range(n)]
    if len(tree) > 1 and all(isinstance(value, Mapping) and value for value in tree.values()):
        shared = set.intersection(*(set(value) for value in tree.values()))
        if shared:
            notes.append(f"{name}: {len(tree):,} records under their ids are read as rows.")
            return [{"id": key, **value} for key, value in tree.items()]
    raise DataError(
        f'{name}: got an object with keys {listed(tree)}, expected a list of objects, {{"data": [...]}} or '
        '{"results": [...]}, columns of one length, or records under their ids. Save the rows as one of these.'
    )


def _lists_of_objects(tree: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            yield path, value
        elif isinstance(value, Mapping) and depth < 2:
            yield from _lists_of_objects(value, f"{path}.", depth + 1)


def _columns(tree: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """The columns of `{"a": [..], "b": [..]}` or of pandas' `{"a": {"0": ..}, "b": {"0": ..}}`; else None."""
    columns = {key: value for key, value in tree.items() if isinstance(value, list)}
    if len(columns) > 1 and len({len(column) for column in columns.values()}) == 1 and next(iter(columns.values())):
        return columns
    inner = list(tree.values())
    if inner and all(isinstance(value, Mapping) and value for value in inner):
        keys = list(inner[0])
        if all(key.isdecimal() for key in keys) and all(list(value) == keys for value in inner):
            return {key: list(value.values()) for key, value in tree.items()}
    return None


def sheet_rows(path: Path, notes: list[str] | None) -> Iterator[tuple[str, list[Any]]]:
    """The filled rows of the first sheet of an Excel file, the header first: where each stands, and its cells.

    Formulas count by the values that were last saved. notes: None refuses a file of several sheets. Raises DataError.
    """
    import openpyxl

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        names = book.sheetnames
        sheet = book[names[0]]
        rows = [list(row) for row in sheet.iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # a damaged archive fails in many ways inside the library; all mean the same to the user
        raise DataError(
            f"{path}: not a readable Excel file ({type(error).__name__}), expected a whole one. Save it again, or as "
            "CSV."
        ) from None
    if len(names) > 1 and notes is None:
        raise DataError(
            f"{path} has {len(names)} sheets, expected one. Save the one that holds the rows as a file of its own."
        )
    if len(names) > 1 and notes is not None:
        notes.append(f"{path}: the first of {len(names)} sheets is read ({names[0]!r}).")
    width = max(map(len, rows), default=0)
    for number, row in enumerate(rows, start=1):
        cells = [*map(_cell, row), *[None] * (width - len(row))]
        if any(cell is not None for cell in cells):
            yield f"row {number}", cells


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.strip() else None
    return value.isoformat() if isinstance(value, datetime.datetime | datetime.date | datetime.time) else value


def archived_objects(path: Path) -> Iterator[tuple[str, Any]]:
    """The samples of an evaluation log of inspect_ai, a zip with one JSON object for each, and where each stands.

    Entries are stored, deflated or packed with Zstandard. What a program records of its own course is left out.
    Raises DataError for another archive, one that is damaged, or one that unpacks to more than `MOST_UNPACKED` bytes.
    """
    again = "Write it as JSON: inspect log convert --to json."
    left = MOST_UNPACKED
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(
                (entry for entry in archive.infolist() if entry.filename.startswith("samples/") and not entry.is_dir()),
                key=lambda entry: entry.filename,
            )
            if not entries:
                raise DataError(
                    f"{path}: an archive without samples. Expected an evaluation log of inspect_ai. Name a file of one "
                    "that ended."
                )
            for entry in entries:
                packed = _zstd_stream(path, entry) if entry.compress_type == ZSTD else archive.open(entry)
                with packed as stream:
                    # One byte more than is allowed shows that there is more; what the directory states is not trusted.
                    text = stream.read(min(left, LARGEST_SAMPLE) + 1)
                left -= len(text)
                if left < 0 or len(text) > LARGEST_SAMPLE:
                    raise DataError(
                        f"{path}: it unpacks to more than {LARGEST_SAMPLE >> 20} MiB a sample, or "
                        f"{MOST_UNPACKED >> 30} GiB in all, expected a log of verdicts. Take fewer samples."
                    )
                value = json.loads(text)
                if isinstance(value, dict):
                    value = {key: inner for key, inner in value.items() if key not in ("events", "attachments")}
                yield f"{path}:{entry.filename}", value
    # OSError: a damaged directory points outside of the file. ArrowInvalid is a ValueError.
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, RuntimeError, OSError) as error:
        raise DataError(
            f"{path}: not a readable archive ({type(error).__name__}), expected an evaluation log of inspect_ai. "
            f"{again}"
        ) from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}: a sample in it is broken JSON, expected a whole log. {again}") from None


def _zstd_stream(path: Path, entry: zipfile.ZipInfo) -> Any:
    """A stream of an entry that is packed with Zstandard, which Python's `zipfile` reads from 3.14 on."""
    import pyarrow

    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
        if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
            raise zipfile.BadZipFile("no local header")
        # The lengths of the name and the extra field stand in the last four bytes of the local header.
        file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
        packed = file.read(entry.compress_size)
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(io.BytesIO(packed), mode="r"), "zstd")


def frame_rows(frame: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    """The rows of a pandas frame, missing values of any kind as None. An index that has a name is a column.

    Raises DataError for two columns of one name.
    """
    if any(part is not None and part not in frame.columns for part in frame.index.names):
        frame = frame.reset_index()
    columns = [str(column) for column in frame.columns]
    if len(set(columns)) < len(columns):
        twice = sorted({column for column in columns if columns.count(column) > 1})
        raise DataError(f"{name}: expected each column name once, got twice: {listed(twice)}. Rename one.")
    rows = frame.to_dict("records")
    return [dict(zip(columns, map(_plain_value, row.values()), strict=True)) for row in rows]


def _plain_value(value: Any) -> Any:
    """A cell of a frame as JSON would hold it."""
    if isinstance(value, str | bool | int | dict | list) or value is None:
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        return value.tolist()
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
