"""Rubrics by name, and a rubric of one's own from a TOML file: `criteria`, and a `[rubric]` table of score and text.

criteria = "Is the reply kind?"
[rubric]
0 = "It is curt or hurtful."
1 = "It is kind."
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from medjudge.errors import ConfigError, did_you_mean
from medjudge.settings.base import Settings
from medjudge.tasks.rubric import SCALES

PRESETS = Path(__file__).with_name("presets.toml")


class RubricText(Settings):
    """What to judge, and what each score of the scale means."""

    criteria: str = Field(min_length=1)
    rubric: Mapping[str, str]
    """Score -> description, for every score of one of the scales 0-1 and 1-3 to 1-10."""

    @property
    def points(self) -> int:
        """Points of the scale."""
        return len(self.rubric)

    def task_settings(self) -> dict[str, Any]:
        """As the settings of a rubric task."""
        return {"points": self.points, "criteria": self.criteria, "rubric": dict(self.rubric)}


@cache
def presets() -> dict[str, RubricText]:
    """The package's own rubrics by name."""
    tables = tomllib.loads(PRESETS.read_text(encoding="utf-8"))
    return {name: RubricText.model_validate(table) for name, table in tables.items()}


def rubric_text(name_or_path: str) -> RubricText:
    """A preset by its name, or the rubric in a TOML file. Raises ConfigError, which names what is wrong in the file."""
    if name_or_path in presets():
        return presets()[name_or_path]
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"no rubric {name_or_path!r}{did_you_mean(name_or_path, presets())}, expected a preset or a file: name a "
            f"TOML file with `criteria` and `[rubric]`, or one of {', '.join(presets())}."
        )
    try:
        rubric = RubricText.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}. Expected `criteria` and a [rubric] table: correct that place."
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path}: `{place}`: {first['msg']}. Expected `criteria` and a [rubric] table of score and description."
        ) from None
    if set(rubric.rubric) not in map(set, SCALES.values()):
        raise ConfigError(
            f"{path}: [rubric] describes {', '.join(sorted(rubric.rubric)) or 'no score'}, expected every score of one "
            "scale: 0, 1; or from 1 to one of 3 to 10. Describe the others, too."
        )
    return rubric
