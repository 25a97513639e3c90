"""One of several processes of a run, with a stand-in for the training: `python ranks_script.py ROWS RUNS_DIR NOTES`."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from medjudge.recipe import recipe_from_tree
from medjudge.runs import pipeline
from medjudge.runs.output_folder import Record
from medjudge.runs.ranks import n_ranks, rank
from medjudge.runs.stages import STAGES, StageContext
from tests.small_runs import small_tree


def run(context: StageContext) -> dict[str, Any]:
    """As a training: every process computes, the first one writes."""
    notes = Path(sys.argv[3])
    (notes / f"trains-{rank()}").write_text(f"{os.getpid()} {context.is_first_rank} {context.out_dir.is_dir()}")
    if os.environ.get("DIES") == str(rank()):
        os._exit(9)
    while len(list(notes.iterdir())) < n_ranks():  # as gradients are exchanged: none goes on alone
        time.sleep(0.05)
    if context.is_first_rank:
        (context.out_dir / "model.txt").write_text("weights")
    return {}


if __name__ == "__main__":
    sys.modules["stand_in"] = sys.modules["__main__"]
    STAGES["sft"] = replace(STAGES["sft"], module="stand_in")
    pipeline.FIRST_RANK_S = float(os.environ["PATIENCE_S"])
    pipeline._check_trainings = lambda *_: None  # nothing is trained, and no connection opened
    pipeline._record = lambda name, recipe, inputs, summary: Record(inputs)
    tree = small_tree(Path(sys.argv[1]), Path(sys.argv[2]))
    tree["stages"] = ["prepare", "sft"]
    tree["model"]["base"] = sys.argv[4]
    pipeline.run_recipe(recipe_from_tree(tree), Console(quiet=True))
