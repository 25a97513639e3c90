"""The page of a run: `medjudge report RUN_DIR`, or the last stage of `medjudge run RECIPE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge.recipe import Recipe
from medjudge.reporting.card import write_card
from medjudge.reporting.gather import gather
from medjudge.reporting.html import write_report


def run(recipe: Recipe, out_dir: Path, run_dir: Path, console: Console) -> dict[str, Any]:
    """Writes `index.html` and `figures/` from what the other stages left."""
    inputs = gather(run_dir, recipe.report)
    write_card(inputs, out_dir)
    path = write_report(inputs, out_dir)
    return {"n_bytes": path.stat().st_size}
