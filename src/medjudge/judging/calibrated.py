"""A judge's calibrator: fitted on a validation split, kept beside the weights, applied to every confidence it states.

`calibration.json` holds one calibrator for each way of asking (`generate`: verbalised confidence; `labels`: the label's
probability), with the weights and the contract that it was fitted for: on others it would be noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medjudge import artifacts
from medjudge.errors import ConfigError, DataError, RunError
from medjudge.metrics.calibrators import Calibrator, CalibratorKind, fit_calibrator
from medjudge.records import Case, Judgement, Verdict
from medjudge.tasks.contract import TaskContract

Mode = Literal["generate", "labels"]
CALIBRATION_VERSION = 1


def fit_on(kind: CalibratorKind, cases: Sequence[Case], judgements: Sequence[Judgement]) -> Calibrator:
    """The calibrator of one judge from its verdicts on a validation split.

    Raises DataError where fewer than two verdicts on rated cases state a confidence.
    """
    gold = {case.case_id: case.gold for case in cases if case.gold is not None}
    stated = [
        (j.confidence, j.label == gold[j.case_id])
        for j in judgements
        if isinstance(j, Verdict) and j.confidence is not None and j.case_id in gold
    ]
    if len(stated) < 2:
        raise DataError(
            f"{len(stated)} of {len(judgements):,} validation verdicts state a confidence: a calibrator needs two or "
            "more. Ask in mode labels, or by a form of the task that states one."
        )
    return fit_calibrator(kind, np.array([c for c, _ in stated]), np.array([right for _, right in stated]))


def apply_to(calibrator: Calibrator, judgements: Sequence[Judgement]) -> list[Judgement]:
    """The same verdicts with calibrated confidences; nothing else about them changes."""
    return [
        replace(j, confidence=float(calibrator.apply([j.confidence])[0]))
        if isinstance(j, Verdict) and j.confidence is not None
        else j
        for j in judgements
    ]


def save_calibrator(
    folder: Path, calibrator: Calibrator, *, mode: Mode, weights_sha256: str, contract: TaskContract, data: str
) -> Path:
    """Writes it into the model's folder, beside that of the other mode. Returns the file."""
    path = folder / artifacts.CALIBRATION
    stored = _calibrators(path) if path.exists() else {}
    entry = {
        **calibrator.to_json(),
        "weights_sha256": weights_sha256,
        "contract_sha256": contract.fingerprint(),
        "fitted_on": data,
    }
    artifacts.write_json(path, {"version": CALIBRATION_VERSION, "calibrators": {**stored, mode: entry}})
    return path


def read_calibrator(
    folder: Path, *, mode: Mode, weights_sha256: str | None, contract: TaskContract
) -> Calibrator | None:
    """The calibrator saved with a model for this way of asking; None where there is none.

    weights_sha256: of the weights in the folder, where they are known. Raises RunError for a damaged file, ConfigError
    for one that belongs to other weights or another contract.
    """
    path = folder / artifacts.CALIBRATION
    if not path.exists():
        return None
    entry = _calibrators(path).get(mode)
    if entry is None:
        return None
    expected = {"contract_sha256": contract.fingerprint()} | (
        {"weights_sha256": weights_sha256} if weights_sha256 is not None else {}
    )
    for key, value in expected.items():
        if entry.get(key) != value:
            what = key.removesuffix("_sha256")
            raise ConfigError(
                f"{path} was fitted for {what} {str(entry.get(key))[:16]}, but {value[:16]} is asked: its confidences "
                "would mean nothing. Fit it again (medjudge calibrate), or remove the file."
            )
    return artifacts.parsed(path, entry, Calibrator.from_json)


def _calibrators(path: Path) -> dict[str, Any]:
    """Mode -> entry. Raises RunError for a file of another form."""
    tree: Any = artifacts.read_json(path)
    calibrators = tree.get("calibrators") if isinstance(tree, Mapping) else None
    if not isinstance(calibrators, dict) or tree.get("version") != CALIBRATION_VERSION:
        raise RunError(f"{path} is not a calibration of this version. Remove it and fit again: medjudge calibrate.")
    if not all(isinstance(entry, dict) for entry in calibrators.values()):
        raise RunError(f"{path} is damaged. Remove it and fit again: medjudge calibrate.")
    return calibrators
