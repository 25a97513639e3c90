"""Where a value stands in a row: `column`, `a.b` in an object, `a.0.b`, `a[0].b` and `a[*].b` in a list, `a+b` joined.

A key that itself holds dots is found too: the longest key that an object has comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from medjudge.errors import did_you_mean

MISSING: Final = object()
"""What a path leads to where a row does not have it."""
LONGEST_NAME = 48
"""Characters of a key that a message shows: longer ones may be text of a case."""
N_NAMES = 30
_INDEX = re.compile(r"\[(\d+|\*)\]")
_MAX_DEPTH = 8


def look_up(values: Mapping[str, object], path: str) -> object:
    """The value at `path`, or MISSING. `[*]` gives the list of what every entry has."""
    if path in values:
        return values[path]
    steps = _steps(path)
    return _walk(values, steps) if len(steps) > 1 else MISSING


@lru_cache(maxsize=4096)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(_INDEX.sub(r".\1", path).split("."))


def _walk(node: object, steps: tuple[str, ...]) -> object:
    if not steps:
        return node
    if isinstance(node, Mapping):
        for n in range(len(steps), 0, -1):
            key = ".".join(steps[:n])
            if key in node and (value := _walk(node[key], steps[n:])) is not MISSING:
                return value
        return MISSING
    if isinstance(node, list):
        if steps[0] == "*":
            reached = [value for entry in node if (value := _walk(entry, steps[1:])) is not MISSING]
            return reached or MISSING
        if steps[0].isdecimal() and int(steps[0]) < len(node):
            return _walk(node[int(steps[0])], steps[1:])
    return MISSING


def parts_of(path: str, present: Iterable[str]) -> list[str]:
    """The paths that `a+b` joins; a column that is really called so is one."""
    return [path] if path in present or "+" not in path else [part.strip() for part in path.split("+")]


def rating_columns(path: str, present: Iterable[str]) -> list[str]:
    """The columns of several experts that `a,b,c` names; a column that is really called so is one."""
    return [path] if path in present or "," not in path else [part.strip() for part in path.split(",")]


def why_missing(path: str, rows: Sequence[Mapping[str, object]], field: str = "") -> str | None:
    """None if a row has `path`; else what is there instead, in words that show keys and no values."""
    if any(look_up(row, path) is not MISSING for row in rows):
        return None
    steps = _steps(path)
    for n in range(len(steps) - 1, 0, -1):
        start = ".".join(steps[:n])
        inside = [value for row in rows if (value := look_up(row, start)) not in (MISSING, None)]
        if not inside:
            continue
        keys = dict.fromkeys(str(key) for value in inside if isinstance(value, Mapping) for key in value)
        if keys:
            hint = did_you_mean(path, [f"{start}.{key}" for key in _short(keys)])
            return f"no row has {path}{hint}; {start} has: {listed(keys)}"
        longest = max((len(value) for value in inside if isinstance(value, list)), default=0)
        if longest:
            return f"no row has {path}; {start} is a list of up to {longest}: name an entry, {start}[0]"
        return f"no row has {path}; {start} holds plain values and nothing inside"
    present = dict.fromkeys(key for row in rows for key in row)
    hint = did_you_mean(path, _short(present))
    for_field = f" for field {field!r}" if field else ""
    return f"no column {path!r}{for_field}{hint}. Columns there: {listed(present)}"


def _short(names: Iterable[str]) -> list[str]:
    """Those that a message may repeat: a long key may be text of a case."""
    return [name for name in names if len(name) <= LONGEST_NAME]


def listed(names: Iterable[str]) -> str:
    """Names for a message; long ones are counted, for a key may be text of a case."""
    known = list(dict.fromkeys(names))
    shown = [name for name in known if 0 < len(name) <= LONGEST_NAME][:N_NAMES]
    more = len(known) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more and shown else f"{more} long names" if more else "")


def leaves(value: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """(path, value) of everything in a row that is no object; of a list its first entry."""
    if isinstance(value, Mapping) and depth < _MAX_DEPTH:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and value and depth < _MAX_DEPTH:
        yield from leaves(value[0], f"{path}[0]", depth + 1)
    elif path:
        yield path, value
