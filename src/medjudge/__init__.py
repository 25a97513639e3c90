"""Train compact open language models as medical judges, and measure them honestly against the experts.

    from medjudge import Judge, load_cases, score

These three are imported when they are first used: the program's door opens without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medjudge.network import no_telemetry
from medjudge.version import __version__ as __version__

if TYPE_CHECKING:
    from medjudge.api import Judge as Judge
    from medjudge.api import load_cases as load_cases
    from medjudge.api import score as score

no_telemetry()  # before a library that reads it is imported

__all__ = ("Judge", "__version__", "load_cases", "score")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'medjudge' has no attribute {name!r}")
    from medjudge import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
