"""Calibrators: what they find, what they keep, and their files."""

import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from medjudge.errors import DataError, RunError
from medjudge.metrics.calibrators import Calibrator, fit_calibrator, fit_label_temperature
from medjudge.metrics.reliability import expected_calibration_error

RNG = np.random.default_rng


def overconfident(n, temperature=2.5, seed=0):
    rng = RNG(seed)
    odds = rng.normal(1, 1, n)
    correct = rng.random(n) < 1 / (1 + np.exp(-odds))
    return 1 / (1 + np.exp(-odds * temperature)), correct


def test_calibrators_find_what_was_done_to_the_confidences():
    confidence, correct = overconfident(20_000)
    assert fit_calibrator("temperature", confidence, correct).parameters["temperature"] == pytest.approx(
        [2.5], rel=0.08
    )
    platt = fit_calibrator("platt", confidence, correct)
    assert platt.parameters["slope"] == pytest.approx([1 / 2.5], rel=0.08)
    assert platt.parameters["intercept"] == pytest.approx([0], abs=0.06)
    for kind in ("temperature", "platt", "isotonic"):
        fresh, right = overconfident(20_000, seed=1)
        calibrated = fit_calibrator(kind, confidence, correct).apply(fresh)
        assert expected_calibration_error(calibrated, right) < 0.02 < expected_calibration_error(fresh, right)


def test_platt_and_isotonic_against_scikit_learn():
    confidence, correct = overconfident(3000)
    odds = np.log(confidence / (1 - confidence))
    model = LogisticRegression(C=1e9, max_iter=1000).fit(odds[:, None], correct)
    ours = fit_calibrator("platt", confidence, correct).apply(confidence)
    # Platt's smoothed targets are 1/1000 from 0 and 1 at this n
    assert ours == pytest.approx(model.predict_proba(odds[:, None])[:, 1], abs=3e-3)
    isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, correct)
    points = np.linspace(0, 1, 101)
    assert fit_calibrator("isotonic", confidence, correct).apply(points) == pytest.approx(isotonic.predict(points))


def test_separable_rows_stay_finite():
    for kind in ("temperature", "platt", "isotonic"):
        calibrator = fit_calibrator(kind, [0.2, 0.3, 0.8, 0.9], [0, 0, 1, 1])
        assert np.isfinite(calibrator.apply([0, 0.5, 1])).all()
        assert (np.diff(calibrator.apply(np.linspace(0, 1, 50))) >= 0).all()
        one_class = fit_calibrator(kind, [0.9, 0.8], [1, 1]).apply([0.85])
        assert 0.5 <= one_class[0] <= 1


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_a_calibrator_survives_its_file(kind):
    calibrator = fit_calibrator(kind, *overconfident(500))
    again = Calibrator.from_json(json.loads(json.dumps(calibrator.to_json())))
    assert again == calibrator
    assert np.isnan(again.apply([np.nan])[0])


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        {},
        {"kind": "magic", "parameters": {}, "n": 1},
        {"kind": "platt", "parameters": {"slope": [1.0]}, "n": 1},
        {"kind": "temperature", "parameters": {"temperature": [0.0]}, "n": 1},
        {"kind": "temperature", "parameters": {"temperature": []}, "n": 1},
        {"kind": "isotonic", "parameters": {"x": [0.0, 1.0], "y": [float("nan"), 1.0]}, "n": 1},
        {"kind": "isotonic", "parameters": {"x": [0.0, 1.0], "y": [1.0]}, "n": 1},
    ],
)
def test_a_damaged_calibrator_is_refused(damaged):
    with pytest.raises(RunError, match="calibrator"):
        Calibrator.from_json(damaged)


def test_label_temperature():
    rng = RNG(0)
    logits = rng.normal(0, 1.5, (8000, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gold = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    sharp = probabilities**3 / (probabilities**3).sum(1, keepdims=True)
    calibrator = fit_label_temperature(sharp, gold)
    assert calibrator.parameters["temperature"] == pytest.approx([3], rel=0.06)
    calibrated = calibrator.apply_to_labels(sharp)
    assert calibrated == pytest.approx(probabilities, abs=0.02)
    assert calibrator.apply_to_labels([[1.0, 0.0, 0.0]])[0] == pytest.approx([1, 0, 0])
    with pytest.raises(DataError, match="got none"):
        fit_label_temperature(np.zeros((0, 3)), [])


def test_labels_share_what_the_top_label_gives_up():
    halve = Calibrator("isotonic", {"x": [0.0, 1.0], "y": [0.0, 0.5]}, 2)
    # top .6 -> .3; the others grow from .3 + .1 to .7 in proportion
    assert halve.apply_to_labels([[0.6, 0.3, 0.1]])[0] == pytest.approx([0.3, 0.525, 0.175])
    assert halve.apply_to_labels([[0.0, 1.0, 0.0]])[0] == pytest.approx([0.25, 0.5, 0.25])
