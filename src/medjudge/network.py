"""Nothing is looked up outside of this machine but what a recipe or a command names: a hub id, or an endpoint.

The libraries beneath ask the hub about folders that lie here, report usage, and fetch lists of their own. `offline`
shuts that off for as long as it lasts; `hub_access` opens the hub again for one look-up that was asked for. Both go by
the environment, which child processes inherit, and by the constants that a library has made of it at its import.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping

_NO_TELEMETRY: Mapping[str, str] = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, and through it transformers, datasets and trl
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",  # https://donottrack.sh
}
_OFFLINE: Mapping[str, str] = {
    **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
    **{"WANDB_MODE": "disabled", "COMET_MODE": "disabled", "GRADIO_ANALYTICS_ENABLED": "False"},
}
_CONSTANTS = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_DATASETS_OFFLINE"),
)
_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_TRUE = {"1", "ON", "YES", "TRUE"}

_outside: dict[str, str | None] | None = None
"""What the user's environment says of `_OFFLINE`, while `offline` lasts."""


def no_telemetry() -> None:
    """Turns the libraries' reports of usage off for the whole process; once is enough."""
    os.environ.update(_NO_TELEMETRY)
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_DISABLE_TELEMETRY = True  # type: ignore[attr-defined]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within, no library looks anything up on a hub unless `hub_access` lets it. An inner one changes nothing."""
    global _outside
    no_telemetry()
    if _outside is not None:
        yield
        return
    _outside = {name: os.environ.get(name) for name in _OFFLINE}
    _set(_OFFLINE)
    try:
        yield
    finally:
        restored, _outside = _outside, None
        _set(restored)


@contextlib.contextmanager
def hub_access() -> Iterator[None]:
    """Within, the hub may be asked for what a recipe or a command names; a user who is offline by choice stays so."""
    no_telemetry()
    if _outside is None:
        yield
        return
    _set(_outside)
    try:
        yield
    finally:
        _set(_OFFLINE)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    is_offline = any((os.environ.get(name) or "").upper() in _TRUE for name in _SWITCHES)
    for module, name in _CONSTANTS:
        if (loaded := sys.modules.get(module)) is not None:
            setattr(loaded, name, is_offline)
