"""The page of a run: `medjudge report RUN_DIR`, or the last stage of `medjudge run RECIPE`."""

from __future__ import annotations

from typing import Any

from medjudge.reporting.card import write_card
from medjudge.reporting.gather import gather
from medjudge.reporting.html import write_report
from medjudge.runs.stages import StageContext


def run(context: StageContext) -> dict[str, Any]:
    """Writes `index.html` and `figures/` from what the other stages left."""
    inputs = gather(context.run_dir.path, context.recipe.report)
    write_card(inputs, context.out_dir)
    path = write_report(inputs, context.out_dir)
    return {"n_bytes": path.stat().st_size}
