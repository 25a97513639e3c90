"""Judge the held-out cases with every model of a run, and compare: `medjudge run RECIPE --from evaluate`.

`medjudge evaluate` does the same for any models and any labelled rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medjudge import artifacts
from medjudge.data.leakage import LeakageReport
from medjudge.data.splits import seeded_sample
from medjudge.errors import ConfigError
from medjudge.judging.evaluate_cases import Evaluation, evaluate_cases
from medjudge.records import Case
from medjudge.runs.stages import STAGES, StageContext, training_stages


def run(context: StageContext) -> dict[str, Any]:
    """Every model of the run on `evaluate.split`. Writes `results.json` and `verdicts.jsonl`."""
    from medjudge.models.load import quiet_libraries
    from medjudge.runs.model_paths import named_models

    quiet_libraries()
    recipe, out_dir, console, run_dir = context.recipe, context.out_dir, context.console, context.run_dir
    config = recipe.evaluate
    split = run_dir.split(config.split)
    if not split.exists:
        raise ConfigError(f"`evaluate.split` is {config.split!r}, but the data were split without one.")
    cases = seeded_sample(split.read(), config.max_cases, config.seed)
    found, missing = named_models(recipe, run_dir.path)
    for name, why in missing.items():
        console.print(f"          [dim]{name} is not compared: {why}[/]")
    models = {**{name: str(folder) for name, folder in found.items()}, **config.extra_models}
    if not models:
        raise ConfigError("`evaluate.models` and `evaluate.extra_models` leave no model to evaluate.")
    learned_from = dict.fromkeys(stage.split_name(recipe) for stage in training_stages(STAGES))
    train = [case for name in learned_from if run_dir.split(name).exists for case in run_dir.split(name).read()]
    leakage = artifacts.read_as(run_dir.stage("prepare") / artifacts.LEAKAGE, LeakageReport.from_json)
    # The settings behind the numbers lie beside them, whatever the run's recipe says later.
    artifacts.write_json(out_dir / artifacts.RECIPE, recipe.model_dump(mode="json"))
    validation: Sequence[Case] = ()
    if config.calibrator != "none":
        held_out = run_dir.split(config.calibration_split)
        if not held_out.exists:
            raise ConfigError(
                f"`evaluate.calibrator` is {config.calibrator}, but the data were split without "
                f"{config.calibration_split!r} (`evaluate.calibration_split`): add it to `data.splits`."
            )
        validation = held_out.read()
    evaluation = Evaluation(
        contract=recipe.contract,
        models=models,
        cases=cases,
        split=config.split,
        config=config,
        model=recipe.model,
        train=train,
        validation=validation,
        leakage=leakage,
        slices=recipe.data.slices,
        show_text=recipe.report.show_text,
        uses_saved_calibrators=False,  # of an earlier run, perhaps; a run fits its own where the recipe says so
    )
    return evaluate_cases(evaluation, out_dir)
