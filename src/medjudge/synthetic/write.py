"""Writes a built-in set as JSON lines: what `medjudge data build NAME --n --seed --out` runs."""

from __future__ import annotations

from pathlib import Path

from medjudge import artifacts
from medjudge.errors import ConfigError, DataError, did_you_mean
from medjudge.synthetic.sets import GENERATORS, SEED


def write_rows(name: str, n: int | None = None, seed: int = SEED, out: Path | None = None) -> Path:
    """Draws `n` rows of the built-in set `name` and writes them to `out`, whole or not at all; returns the path.

    n: default the set's own. out: default `NAME.jsonl` in the current folder; its folder must exist. The same name, n
    and seed give the same bytes. Raises ConfigError for an unknown name or an n below 1; DataError where so many
    distinct rows cannot be drawn or `out` cannot be written.
    """
    if name not in GENERATORS:
        hint = did_you_mean(name, GENERATORS)
        raise ConfigError(f"{name!r} is no set that can be drawn{hint}. There are: {', '.join(GENERATORS)}.")
    if n is not None and n < 1:
        raise ConfigError(f"got n = {n}, expected at least 1 row.")
    rows = GENERATORS[name].rows(n, seed)
    path = Path(f"{name}.jsonl") if out is None else out
    try:
        artifacts.write_lines(path, rows, private=False)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or type(error).__name__}.") from None
    return path
