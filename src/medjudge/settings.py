"""The base of every configuration object: frozen, unknown keys refused. No torch here or below."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen section of a recipe. Keys it does not know are refused."""

    # Validators are built when first used: the door opens before all sections have theirs.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)
