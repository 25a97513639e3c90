"""Fit a judge's confidences on a validation split and save the calibrator with it: `medjudge calibrate MODEL_DIR`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from medjudge import artifacts
from medjudge.data.sources import parse_where, read_source
from medjudge.errors import ConfigError
from medjudge.judging.calibrated import apply_to, fit_on, save_calibrator
from medjudge.judging.judge import Judge, JudgeSettings
from medjudge.machine import fit_threads
from medjudge.metrics.calibrators import CalibratorKind
from medjudge.metrics.reliability import expected_calibration_error
from medjudge.recipe import Recipe
from medjudge.records import Judgement, Verdict
from medjudge.runs.output_folder import Record, manifest_of
from medjudge.runs.provenance import data_files, file_entry, weight_files
from medjudge.settings.data import DataConfig
from medjudge.settings.endpoint import is_endpoint
from medjudge.version import __version__


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was fitted, and what it does on the rows that it was fitted on."""

    path: Path
    n: int
    ece_before: float
    ece_after: float


def calibrate_model(
    model: Path,
    data: str,
    data_config: DataConfig,
    recipe: Recipe,
    kind: CalibratorKind,
    console: Console,
    *,
    where: Sequence[str] = (),
    parent: str | None = None,
) -> Calibrated:
    """Judges the validation rows, fits, and writes `calibration.json` beside the weights."""
    if is_endpoint(str(model)):
        raise ConfigError(
            "an endpoint has no folder that a calibrator could be saved in, expected a local model. Set "
            "`evaluate.calibrator` in a recipe that names the endpoint: each evaluation then fits one on "
            "`evaluate.calibration_split` and applies it."
        )
    if not model.is_dir():
        raise ConfigError(
            f"{model} is no folder, expected one: a calibrator is saved with the weights. Name a local model folder."
        )
    if not os.access(model, os.W_OK):
        raise ConfigError(
            f"{model} cannot be written, and a calibrator is saved with the weights: expected a folder that you may "
            "write to. Copy it, and calibrate the copy."
        )
    from medjudge.models.lineage import recorded_sha256
    from medjudge.models.load import quiet_libraries

    quiet_libraries()
    contract = recipe.contract
    cases = read_source(data, contract, data_config, where=parse_where(where) if where else None).cases
    if (threads := fit_threads(recipe.model.device, recipe.model.threads, model)) is not None:
        console.print(f"  [dim]{threads.sentence}[/]")
    judge = Judge("judge", str(model), contract, JudgeSettings.of("judge", recipe.model, recipe.evaluate, parent))
    judge.announce()
    judgements, _ = judge.judge(cases)
    judge.close()
    calibrator = fit_on(kind, cases, judgements)
    path = save_calibrator(
        model,
        calibrator,
        mode=recipe.evaluate.mode,
        weights_sha256=recorded_sha256(model),
        contract=contract,
        data=Path(data).name,
    )
    _write_manifest(path, data, recipe, kind, parent)
    gold = {case.case_id: case.gold for case in cases}
    return Calibrated(path, calibrator.n, _ece(judgements, gold), _ece(apply_to(calibrator, judgements), gold))


def _write_manifest(path: Path, data: str, recipe: Recipe, kind: str, parent: str | None) -> None:
    """Beside the calibrator, and under a name of its own: the weights' stage has a manifest that is not touched."""
    inputs = {
        "version": __version__,
        "contract": recipe.contract.fingerprint(),
        "mode": recipe.evaluate.mode,
        "kind": kind,
        "data": data,
        "model": str(path.parent),
    }
    record = Record(
        inputs,
        config=recipe.model_dump(mode="json"),
        seed=recipe.seed,
        files=data_files([data]) | weight_files([path.parent, parent]),
    )
    manifest = manifest_of("calibrate", record, {path.name: file_entry(path)})
    artifacts.write_json(path.with_name(artifacts.CALIBRATION_MANIFEST), manifest)


def _ece(judgements: Sequence[Judgement], gold: dict[str, str | None]) -> float:
    rows = [
        (j.confidence, j.label == gold[j.case_id])
        for j in judgements
        if isinstance(j, Verdict) and j.confidence is not None and gold[j.case_id] is not None
    ]
    return expected_calibration_error(np.array([c for c, _ in rows]), np.array([right for _, right in rows]))
