"""Profiles and `--set`: what is laid over a recipe's tree before it is checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from medjudge.errors import ConfigError
from medjudge.settings.data import SPLIT_SOURCES


def replaced_tables(overlay: Mapping[str, Any], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of the tables that an overlay replaces whole."""
    tables = {(*at, key): value for key, value in overlay.items() if isinstance(value, Mapping)}
    inner = [place for key, value in tables.items() for place in replaced_tables(value, key)]
    return [*(key for key, value in tables.items() if value.get("_replace")), *inner]


def check_overlays(overlays: Any, kind: str, where: str) -> None:
    """Raises ConfigError unless `overlays` is a table of tables."""
    if not isinstance(overlays, dict) or not all(isinstance(overlay, dict) for overlay in overlays.values()):
        raise ConfigError(
            f"{where}: `{kind}` must hold tables such as [{kind}.NAME.sft]. Write its settings under one."
        )


def parse_override(text: str) -> tuple[list[str], Any]:
    """`section.key=value` -> its keys and its value, read as TOML where it is TOML, else as a plain string."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes section.key=value, such as sft.epochs=2, got {text!r}")
    try:
        value = tomllib.loads(f"value = {raw.strip()}")["value"]
    except (ValueError, RecursionError):
        value = raw.strip()
    return [part.strip() for part in key.split(".")], value


def set_key(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Sets a nested key, making the sections on its way. Raises ConfigError where one of them is a value."""
    for part in keys[:-1]:
        node = tree.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"--set {'.'.join(keys)}: `{part}` is a value, not a section: set it itself, or name another key"
            )
        tree = node
    tree[keys[-1]] = value


def drop_other_sources(tree: dict[str, Any], overridden: set[tuple[str, ...]]) -> None:
    """`--set data.source` removes the file's per-split sources, and a per-split source the file's `data.source`."""
    data = tree.get("data")
    by_split = {("data", name) for name in SPLIT_SOURCES}
    if not isinstance(data, dict) or (("data", "source") in overridden) == bool(by_split & overridden):
        return
    for name in ("source",) if by_split & overridden else SPLIT_SOURCES:
        data.pop(name, None)


def lay_over(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lays `over` onto `tree` in place: tables are merged key by key, anything else is replaced.

    `rewards`, `splits` and the like are one choice, not a set of keys, so a table that differs in full is written with
    `_replace = true` inside it.
    """
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict) and not value.get("_replace"):
            lay_over(tree[key], value)
        elif isinstance(value, Mapping):
            tree[key] = {k: v for k, v in value.items() if k != "_replace"}
        else:
            tree[key] = value
