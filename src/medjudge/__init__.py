"""Train compact open language models as medical judges, and measure them honestly against the experts.

    from medjudge import Judge, load_cases, score

These three are imported when they are first used: the program's door opens without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medjudge.network import no_telemetry

if TYPE_CHECKING:
    from medjudge.face import Judge as Judge
    from medjudge.face import load_cases as load_cases
    from medjudge.face import score as score

no_telemetry()  # before a library that reads it is imported

__version__ = "0.1.0"

_FACE = ("Judge", "load_cases", "score")


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'medjudge' has no attribute {name!r}")
    from medjudge import face

    return getattr(face, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])
