"""Runs every variant of a recipe, what they share once, and lays the results side by side.

runs/NAME/VARIANT/     a whole run each; stages made from the same inputs are taken over, not made again
runs/NAME/compare/     results of all variants on the same cases, `compare.json`, and the page
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from medjudge.errors import NotRewardableError
from medjudge.recipe import Recipe
from medjudge.runs.pipeline import active_stages, run_recipe
from medjudge.runs.run_dir import RunDir
from medjudge.runs.stages import STAGES


def run_variants(
    recipe: Recipe,
    variants: Mapping[str, Recipe],
    console: Console,
    *,
    first: str | None = None,
    last: str | None = None,
    fresh: bool = False,
    force: bool = False,
) -> Path | None:
    """Runs the variants in their order. Returns the comparison's folder, None where the run ends before evaluation.

    A variant whose rewards these rows cannot pay is left out, and the comparison says why.
    """
    done: list[RunDir] = []
    not_trained: dict[str, str] = {}
    for name, variant in variants.items():
        console.print(f"\n[bold]{recipe.name}: {name}[/]  [dim]{variant.description}[/]")
        try:
            run_recipe(variant, console, first=first, last=last, fresh=fresh, force=force, siblings=done)
        except NotRewardableError as error:
            console.print(f"          [yellow]{name} is left out: {error}[/]")
            not_trained[name] = str(error)
        done.append(RunDir(variant.run_dir))
    if not STAGES[active_stages(recipe, first, last)[-1]].is_of_the_run:  # it ends before the evaluation
        return None
    from medjudge.commands.compare import compare_variants
    from medjudge.commands.report import rewrite
    from medjudge.reporting.terminal import print_outcome

    folder = compare_variants(recipe, variants, not_trained)
    rewrite(folder, console)
    print_outcome(folder, console)
    return folder
