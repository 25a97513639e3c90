"""Maps from stated to calibrated confidence, fitted on a validation split and saved with the model.

A confidence is the probability, in [0, 1], that the verdict is right: verbalised, or the label's probability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError, RunError
from medjudge.metrics.reliability import CLIP, checked

FloatArray = NDArray[np.float64]
CalibratorKind = Literal["temperature", "platt", "isotonic"]

_PARAMETERS = {"temperature": ("temperature",), "platt": ("slope", "intercept"), "isotonic": ("x", "y")}


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A map from confidence to confidence, fitted on a validation split. Plain numbers: it goes into a JSON file."""

    kind: CalibratorKind
    parameters: dict[str, list[float]]
    """temperature: {"temperature": [T]}; platt: {"slope": [a], "intercept": [b]}; isotonic: {"x": [..], "y": [..]}."""
    n: int
    """Rows that it was fitted on."""

    def apply(self, confidence: ArrayLike) -> FloatArray:
        """(n,) confidences in [0, 1] -> calibrated ones; nan stays nan."""
        given = np.asarray(confidence, dtype=np.float64)
        match self.kind:
            case "temperature":
                return _sigmoid(_logit(given) / self.parameters["temperature"][0])
            case "platt":
                return _sigmoid(self.parameters["slope"][0] * _logit(given) + self.parameters["intercept"][0])
            case "isotonic":
                return np.asarray(np.interp(given, self.parameters["x"], self.parameters["y"]))

    def apply_to_labels(self, probabilities: ArrayLike) -> FloatArray:
        """(n, K) label probabilities, rows summing to 1 -> calibrated ones. Temperature keeps each row's order.

        Platt and isotonic move the top label's probability; the other labels share the rest in their old proportions.
        """
        given = np.asarray(probabilities, dtype=np.float64)
        if self.kind == "temperature":
            with np.errstate(divide="ignore"):
                scaled = np.log(given) / self.parameters["temperature"][0]
            # Less the row's maximum, so that no exponential overflows.
            raised = np.exp(scaled - scaled.max(1, keepdims=True))
            return np.asarray(raised / raised.sum(1, keepdims=True))
        rows, top = np.arange(len(given)), given.argmax(1)
        old = given[rows, top]
        new = self.apply(old)
        others = given.shape[1] - 1
        shrink = np.divide(1 - new, 1 - old, out=np.zeros_like(old), where=old < 1)
        moved = np.where((old < 1)[:, None], given * shrink[:, None], ((1 - new) / max(others, 1))[:, None])
        moved[rows, top] = new
        return np.asarray(moved)

    def to_json(self) -> dict[str, Any]:
        """The calibrator as a JSON object."""
        return {"kind": self.kind, "parameters": self.parameters, "n": self.n}

    @classmethod
    def from_json(cls, value: Any) -> Calibrator:
        """The calibrator in a JSON object. Raises RunError if it is damaged."""
        try:
            kind, n = value["kind"], int(value["n"])
            parameters = {name: [float(number) for number in value["parameters"][name]] for name in _PARAMETERS[kind]}
            if not all(numbers and np.isfinite(numbers).all() for numbers in parameters.values()):
                raise ValueError
            if kind == "isotonic" and len(parameters["x"]) != len(parameters["y"]):
                raise ValueError
            if kind == "temperature" and parameters["temperature"][0] <= 0:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise RunError(
                f"a calibrator is one of {', '.join(_PARAMETERS)} with finite parameters: the file is damaged or of "
                "another version. Fit it again on the validation split."
            ) from None
        return cls(kind, parameters, n)


def fit_calibrator(kind: CalibratorKind, confidence: ArrayLike, correct: ArrayLike) -> Calibrator:
    """Fits on the verdicts of a validation split: confidence that they are right, and whether they are.

    temperature: divides the log-odds by T. platt: logistic regression on the log-odds, with Platt's smoothed targets.
    isotonic: the best non-decreasing step function (scikit-learn); wants a thousand rows. nan confidences are left out.
    Raises DataError with fewer than two rows with a confidence, or a confidence outside [0, 1].
    Source: Guo et al. (2017), arXiv:1706.04599; Platt (1999), Probabilistic outputs for support vector machines;
    Zadrozny & Elkan (2002), doi:10.1145/775047.775151.
    """
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    stated = ~np.isnan(given)
    given, right = checked(given[stated], right[stated])
    if len(given) < 2:
        raise DataError(f"a calibrator needs verdicts with a confidence to learn from, got {len(given)}.")
    match kind:
        case "temperature":
            odds = _logit(given)
            fitted = _best_temperature(lambda t: float((np.logaddexp(0, odds / t) - right * odds / t).mean()))
            return Calibrator(kind, {"temperature": [fitted]}, len(given))
        case "platt":
            slope, intercept = _fit_platt(_logit(given), right)
            return Calibrator(kind, {"slope": [slope], "intercept": [intercept]}, len(given))
        case "isotonic":
            from sklearn.isotonic import IsotonicRegression

            model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(given, right)
            steps = {"x": model.X_thresholds_, "y": model.y_thresholds_}
            return Calibrator(kind, {name: [float(v) for v in values] for name, values in steps.items()}, len(given))


def fit_label_temperature(probabilities: ArrayLike, gold: ArrayLike) -> Calibrator:
    """The temperature of (n, K) label probabilities that maximises the likelihood of the gold codes (n,).

    Raises DataError without a row. Source: Guo et al. (2017), arXiv:1706.04599, section 4.2.
    """
    logits = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), 1e-300, 1))
    codes = np.asarray(gold, dtype=np.int64)
    if not len(codes):
        raise DataError("a temperature needs labelled rows to learn from, got none.")
    rows = np.arange(len(codes))

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        top = scaled.max(1)
        return float(np.mean(top + np.log(np.exp(scaled - top[:, None]).sum(1)) - scaled[rows, codes]))

    return Calibrator("temperature", {"temperature": [_best_temperature(loss)]}, len(codes))


def _logit(confidence: FloatArray) -> FloatArray:
    p = np.clip(confidence, CLIP, 1 - CLIP)
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _best_temperature(loss: Callable[[float], float]) -> float:
    """The temperature between 1/100 and 100 of least loss; the log-likelihood is convex in 1 / T."""
    from scipy.optimize import minimize_scalar

    optimum = minimize_scalar(
        lambda beta: loss(1 / beta), bounds=(0.01, 100.0), method="bounded", options={"xatol": 1e-6}
    )
    return float(1 / optimum.x)


def _fit_platt(odds: FloatArray, correct: FloatArray) -> tuple[float, float]:
    """Slope and intercept of the logistic map with Platt's targets, which keep both finite on separable rows."""
    from scipy.optimize import minimize

    n_right = correct.sum()
    # Platt's targets are not 0 and 1: on rows that a threshold separates the slope would grow without end.
    target = np.where(correct > 0, (n_right + 1) / (n_right + 2), 1 / (len(correct) - n_right + 2))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        x = parameters[0] * odds + parameters[1]
        error = _sigmoid(x) - target
        return float((np.logaddexp(0, x) - target * x).mean()), np.array([(error * odds).mean(), error.mean()])

    start = np.array([1.0, 0.0])
    optimum = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-10})
    return float(optimum.x[0]), float(optimum.x[1])
