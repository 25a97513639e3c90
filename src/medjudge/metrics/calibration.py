"""Whether a judge's stated confidence can be relied on, how to mend it, and when to ask a person instead.

A confidence here is the probability, in [0, 1], that the verdict is right: verbalised, or the label's probability. Rows
without one (nan) are left out by the caller, who counts them. Calibrators are fitted on a validation split and saved
with the model; thresholds come with a finite-sample guarantee.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medjudge.errors import DataError, RunError
from medjudge.metrics.intervals import (
    Estimate,
    Interval,
    bootstrap_rows,
    bootstrap_sums,
    clustered_wilson,
    wilson_interval,
)

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
CalibratorKind = Literal["temperature", "platt", "isotonic"]
Bins = Literal["mass", "width"]

CLIP = 1e-6
"""Confidences closer than this to 0 or 1 are moved to it before a logarithm is taken."""
_N_COVERAGES = 50
_PROPOSING_SHARE = 0.2
"""Share of the groups that propose thresholds; of .2, .3 and .4 it lost the least coverage."""
_PARAMETERS = {"temperature": ("temperature",), "platt": ("slope", "intercept"), "isotonic": ("x", "y")}


@dataclass(frozen=True, slots=True)
class Reliability:
    """Bins of a reliability diagram, lowest confidence first; each array is (n_bins,)."""

    mean_confidence: FloatArray
    accuracy: FloatArray
    low: FloatArray
    """Wilson interval of each accuracy."""
    high: FloatArray
    n: IntArray


@dataclass(frozen=True, slots=True)
class BrierParts:
    """Brier score = reliability - resolution + uncertainty + within_bin (Stephenson, Coelho & Jolliffe 2008)."""

    score: float
    reliability: float
    """Mean squared distance of a bin's confidence from its accuracy: 0 is calibrated."""
    resolution: float
    """How far the bins' accuracies lie apart: higher is better."""
    uncertainty: float
    """Variance of being right: accuracy (1 - accuracy)."""
    within_bin: float
    """What is left because confidences differ inside a bin; 0 with one bin per distinct confidence."""


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """One judge's calibration; intervals are bootstraps over groups."""

    n: int
    n_without: int
    """Verdicts without a confidence."""
    mean_confidence: float
    accuracy: float
    ece: float
    """Without an interval: a bootstrap of ECE is biased once more than ECE itself."""
    ece_if_calibrated: float
    """Mean ECE of a perfectly calibrated judge with these confidences: what ECE's upward bias makes of zero here."""
    calibrated_p: float
    """Share of such judges' ECEs that are at least as large: small means not calibrated. Rows as independent."""
    rms_error: float
    """Debiased root-mean-square calibration error (Kumar et al. 2019, arXiv:1909.10155)."""
    brier: Estimate
    brier_parts: BrierParts
    log_loss: Estimate
    aurc: Estimate
    excess_aurc: float
    reliability: Reliability


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


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Selective error at each coverage; arrays are (n_points,), one point per distinct confidence, highest first."""

    threshold: FloatArray
    """Verdicts with a confidence of at least this are kept."""
    coverage: FloatArray
    risk: FloatArray
    """Share wrong among those kept."""
    aurc: float
    """Area under the curve, the mean of the risk over coverages 1/n .. 1; ties in every order, on average."""
    excess_aurc: float
    """AURC less that of a judge whose errors are exactly its least confident verdicts."""


@dataclass(frozen=True, slots=True)
class SelectiveRule:
    """Accept a verdict where its confidence is above `threshold`; a guarantee on what is accepted."""

    threshold: float | None
    """Confidence above which a verdict is accepted; -1 accepts all; None: no threshold keeps the promise."""
    max_error: float
    delta: float | None
    """The promise fails for at most this share of calibration sets; None where it holds on average."""
    promise: str
    """In words, what is guaranteed."""
    method: Literal["learn-then-test", "conformal risk control"]
    n: int
    """Independent rows (or groups) that it was chosen on."""
    coverage: float
    """Share accepted on those rows."""
    error: float
    """The controlled error on those rows, each row counted once: share wrong of the accepted (learn-then-test; nan
    where none is accepted), or share accepted and wrong of all (conformal risk control)."""

    def accepts(self, confidence: ArrayLike) -> BoolArray:
        """(n,) which verdicts are accepted; nan never is, and nothing is without a threshold."""
        given = np.asarray(confidence, dtype=np.float64)
        return np.zeros(given.shape, dtype=bool) if self.threshold is None else np.asarray(given > self.threshold)


def reliability_curve(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, bins: Bins = "mass", level: float = 0.95
) -> Reliability:
    """The reliability diagram. confidence: (n,) in [0, 1]; correct: (n,) bool. Empty bins are left out.

    mass: bins of as equal numbers of rows as can be where equal confidences share a bin. width: [0, .1), [.1, .2), ..
    """
    given, right = _checked(confidence, correct)
    code = bin_codes(given, n_bins, bins)
    n, mean, accuracy = _bin_means(given, right, code)
    ends = [wilson_interval(a * m, m, level=level) for a, m in zip(accuracy, n, strict=True)]
    low, high = np.array(ends).reshape(-1, 2).T
    return Reliability(mean, accuracy, low, high, n.astype(np.int64))


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, bins: Bins = "mass"
) -> float:
    """ECE: mean distance between a bin's accuracy and its mean confidence, weighted by rows; in [0, 1], nan if empty.

    Biased upward, most at small n and many bins: read it beside `ece_if_calibrated`.
    Source: Naeini, Cooper & Hauskrecht (2015), doi:10.1609/aaai.v29i1.9602; equal-mass bins: Nixon et al. (2019),
    arXiv:1904.01685.
    """
    given, right = _checked(confidence, correct)
    if not len(given):
        return float("nan")
    n, mean, accuracy = _bin_means(given, right, bin_codes(given, n_bins, bins))
    return float((n * np.abs(accuracy - mean)).sum() / n.sum())


def ece_under_calibration(
    confidence: ArrayLike, *, n_bins: int = 10, n_draws: int = 400, rng: np.random.Generator
) -> FloatArray:
    """(n_draws,) equal-mass ECEs of a perfectly calibrated judge with these confidences.

    Draws whether each verdict is right from its own confidence, rows apart: the consistency resampling of Bröcker &
    Smith (2007), doi:10.1175/WAF993.1.
    """
    given = np.asarray(confidence, dtype=np.float64)
    code = bin_codes(given, n_bins, "mass")
    n = np.bincount(code).astype(np.float64)
    total = np.bincount(code, weights=given)
    # Within a bin the number right is a sum of independent draws; only the sum matters to ECE.
    draws = np.empty(n_draws)
    for draw in range(n_draws):
        right = np.bincount(code, weights=rng.random(len(given)) < given, minlength=len(n))
        draws[draw] = np.abs(right - total).sum() / n.sum()
    return draws


def debiased_rms_error(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10) -> float:
    """Root-mean-square calibration error with each bin's sampling variance taken off, and 0 where that leaves less.

    Over equal-mass bins; in [0, 1], nan if empty. Source: Kumar, Liang & Ma (2019), arXiv:1909.10155, section 5.
    """
    given, right = _checked(confidence, correct)
    if not len(given):
        return float("nan")
    n, mean, accuracy = _bin_means(given, right, bin_codes(given, n_bins, "mass"))
    noise = accuracy * (1 - accuracy) / np.maximum(n - 1, 1)
    return float(np.sqrt(max((n * ((accuracy - mean) ** 2 - noise)).sum() / n.sum(), 0.0)))


def brier_score(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance of confidence from being right; in [0, 1], nan if empty.

    Source: Brier (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2, in the half form for two outcomes.
    """
    given, right = _checked(confidence, correct)
    return float(np.mean((given - right) ** 2)) if len(given) else float("nan")


def label_brier_score(probabilities: ArrayLike, gold: ArrayLike) -> float:
    """Brier score over all labels, in [0, 2], nan if empty. probabilities: (n, K), rows sum to 1; gold: (n,) codes.

    For two labels it is twice `brier_score` of the positive one. Source: Brier (1950), the original form.
    """
    given = np.array(probabilities, dtype=np.float64)
    if not len(given):
        return float("nan")
    given[np.arange(len(given)), np.asarray(gold)] -= 1
    return float((given**2).sum(1).mean())


def brier_parts(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int | None = None) -> BrierParts:
    """Murphy's decomposition over equal-mass bins, or over the distinct confidences (n_bins None).

    Source: Murphy (1973), doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2; within-bin terms: Stephenson, Coelho &
    Jolliffe (2008), doi:10.1175/2007WAF2006116.1.
    """
    given, right = _checked(confidence, correct)
    if not len(given):
        return BrierParts(*[float("nan")] * 5)
    code = np.unique(given, return_inverse=True)[1] if n_bins is None else bin_codes(given, n_bins, "mass")
    n, mean, accuracy = _bin_means(given, right, code)
    base = right.mean()
    apart_x, apart_y = given - mean[code], right - accuracy[code]
    return BrierParts(
        score=float(np.mean((given - right) ** 2)),
        reliability=float((n * (mean - accuracy) ** 2).sum() / n.sum()),
        resolution=float((n * (accuracy - base) ** 2).sum() / n.sum()),
        uncertainty=float(base * (1 - base)),
        within_bin=float(np.mean(apart_x**2 - 2 * apart_x * apart_y)),
    )


def log_loss(confidence: ArrayLike, correct: ArrayLike, *, clip: float = CLIP) -> float:
    """Mean negative log-likelihood in nats; nan if empty.

    Confidences are clipped to [clip, 1 - clip]: a judge that writes 1.00 has rounded, and one wrong answer at exactly 1
    would otherwise make the mean infinite.
    """
    given, right = _checked(confidence, correct)
    return float(_log_losses(given, right, clip).mean()) if len(given) else float("nan")


def calibration_report(
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    n_bins: int = 10,
    level: float = 0.95,
    n_resamples: int = 1000,
    rng: np.random.Generator,
) -> CalibrationReport:
    """Everything above for one judge. confidence: (n,), nan where a verdict has none (counted, left out).

    groups: (n,) codes; None takes rows as independent. Raises DataError if no row has a confidence.
    """
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    stated = ~np.isnan(given)
    if not stated.any():
        raise DataError(f"none of {len(given):,} verdicts has a confidence: there is no calibration to measure.")
    code = np.arange(len(given)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_without = int((~stated).sum())
    given, right, code = given[stated], right[stated], np.unique(code[stated], return_inverse=True)[1]
    highest_first = np.argsort(-given, kind="stable")  # saves the resamples a sorting each
    given, right, code = given[highest_first], right[highest_first], code[highest_first]
    n = len(given)

    ece = expected_calibration_error(given, right, n_bins=n_bins)
    if_calibrated = ece_under_calibration(given, n_bins=n_bins, rng=rng)
    sums = np.zeros((int(code.max()) + 1, 3))
    np.add.at(sums, code, np.stack([np.ones(n), (given - right) ** 2, _log_losses(given, right, CLIP)], axis=1))
    means = bootstrap_sums(
        sums,
        lambda s: {"brier": s[..., 1] / s[..., 0], "log_loss": s[..., 2] / s[..., 0]},
        n_resamples=n_resamples,
        rng=rng,
        level=level,
    )
    curve = risk_coverage(given, right)
    area = bootstrap_rows(_aurc_of_weights(given, right), code, n_resamples=n_resamples, rng=rng, level=level)
    return CalibrationReport(
        n=n,
        n_without=n_without,
        mean_confidence=float(given.mean()),
        accuracy=float(right.mean()),
        ece=ece,
        ece_if_calibrated=float(if_calibrated.mean()),
        calibrated_p=float((1 + (if_calibrated >= ece - 1e-12).sum()) / (1 + len(if_calibrated))),
        rms_error=debiased_rms_error(given, right, n_bins=n_bins),
        brier=Estimate(brier_score(given, right), *_ends(means["brier"]), n, means["brier"].method),
        brier_parts=brier_parts(given, right, n_bins=n_bins),
        log_loss=Estimate(log_loss(given, right), *_ends(means["log_loss"]), n, means["log_loss"].method),
        aurc=Estimate(curve.aurc, *_ends(area), n, area.method),
        excess_aurc=curve.excess_aurc,
        reliability=reliability_curve(given, right, n_bins=n_bins, level=level),
    )


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
    given, right = _checked(given[stated], right[stated])
    if len(given) < 2:
        raise DataError(f"a calibrator needs verdicts with a confidence to learn from, got {len(given)}.")
    match kind:
        case "temperature":
            odds = _logit(given)
            found = _best_temperature(lambda t: float((np.logaddexp(0, odds / t) - right * odds / t).mean()))
            return Calibrator(kind, {"temperature": [found]}, len(given))
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


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """The selective error at every coverage. Equal confidences are accepted together.

    Without a row the arrays are empty and the areas nan.
    Source: Geifman & El-Yaniv (2017), arXiv:1705.08500; excess AURC: Geifman, Uziel & El-Yaniv (2019),
    arXiv:1805.08206.
    """
    given, right = _checked(confidence, correct)
    if not len(given):
        empty = np.zeros(0)
        return RiskCoverage(empty, empty, empty, float("nan"), float("nan"))
    values, code = np.unique(-given, return_inverse=True)
    kept = np.cumsum(np.bincount(code))
    wrong = np.cumsum(np.bincount(code, weights=1 - right))
    n, n_wrong = len(given), int(wrong[-1])
    aurc = float(_aurc_of_weights(given, right)(np.ones((1, n)))[0])
    harmonic = _harmonic(n)
    best = (n_wrong - (n - n_wrong) * (harmonic[n] - harmonic[n - n_wrong])) / n
    return RiskCoverage(-values, kept / n, wrong / kept, aurc, max(aurc - float(best), 0.0))


def selective_threshold(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    max_error: float,
    delta: float = 0.1,
    groups: ArrayLike | None = None,
    rng: np.random.Generator,
) -> SelectiveRule:
    """A low threshold at which at most `max_error` of the *accepted* verdicts are wrong, surely but for `delta`.

    The error among accepted verdicts does not fall monotonically with the threshold (raising it can remove more right
    verdicts than wrong ones), so conformal risk control, which needs a monotone loss, does not apply. Instead a fifth
    of the groups, drawn by `rng`, proposes thresholds, strictest that is likely to pass first; the others test them in
    that order, each at level `delta`, until one fails, and the last that passed stands. Because the order was fixed
    before the testing rows were looked at, the chance of any false promise is at most `delta`.
    confidence: (n,), nan is never accepted. groups: (n,) codes, None for independent rows, which are tested by the
    exact binomial; groups of several rows by a betting test of their sums, in which every row counts once, and the
    promise is then for the rows of new groups that are no larger than the largest here. Raises DataError for shares
    outside (0, 1) or no rows.
    Source: Angelopoulos et al. (2021), Learn then Test, arXiv:2110.01052 (fixed-sequence testing, its order from a
    split); Waudby-Smith & Ramdas (2024), doi:10.1093/jrsssb/qkad009 (betting); selective error: Geifman &
    El-Yaniv (2017), arXiv:1705.08500.
    """
    given, right = _for_threshold(confidence, correct, max_error)
    if not 0 < delta < 1:
        raise DataError(f"`delta` is the share of sets for which the promise may fail: got {delta:g}, not in (0, 1).")
    code = np.arange(len(given)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups = int(code.max()) + 1
    order = rng.permutation(n_groups)
    n_proposing = max(1, int(_PROPOSING_SHARE * n_groups))
    proposing = np.isin(code, order[:n_proposing])
    threshold = None
    for mark in _proposed(given[proposing], right[proposing], int((~proposing).sum()), max_error):
        accepted = (given > mark) & ~proposing
        if n_groups == len(given):
            passes = _binomial_passes(int((1 - right[accepted]).sum()), int(accepted.sum()), max_error, delta)
        else:
            excess = np.bincount(code, weights=accepted * (1 - right - max_error), minlength=n_groups)
            scaled = excess[order[n_proposing:]] / np.bincount(code).max() + max_error
            passes = _betting_passes(scaled, max_error, delta)
        if not passes:
            break
        threshold = max(float(mark), -1.0)
    accepted = np.zeros(len(given), dtype=bool) if threshold is None else given > threshold
    return SelectiveRule(
        threshold=threshold,
        max_error=max_error,
        delta=delta,
        promise=(
            f"of the verdicts accepted, at most {100 * max_error:g} % are wrong; this fails for at most "
            f"{100 * delta:g} % of calibration sets" + _of_new_groups(np.bincount(code))
        ),
        method="learn-then-test",
        n=n_groups,
        coverage=float(accepted.mean()),
        error=float(1 - right[accepted].mean()) if accepted.any() else float("nan"),
    )


def _proposed(confidence: FloatArray, correct: FloatArray, n_testing: int, max_error: float) -> FloatArray:
    """Thresholds to be tested, in order: from the likeliest to pass on `n_testing` rows to looser ones."""
    from scipy.stats import binom

    n = len(confidence)
    descending = np.sort(confidence)[::-1]
    ranks = np.arange(1, _N_COVERAGES + 1) * n // _N_COVERAGES
    marks = np.where(ranks >= n, -1.0, descending[np.minimum(ranks, n - 1)])
    above = confidence > marks[:, None]
    kept, wrong = above.sum(1), (above * (1 - correct)).sum(1)
    expected = np.round(kept / n * n_testing)
    p = binom.cdf(np.round((wrong + 0.5) / (kept + 1) * expected), expected, max_error)
    return np.asarray(marks[int(p.argmin()) :])


def _binomial_passes(n_wrong: int, n: int, max_error: float, delta: float) -> bool:
    """Whether an error rate above `max_error` would give so few wrong with probability at most `delta`."""
    from scipy.stats import binom

    return n > 0 and bool(binom.cdf(n_wrong, n, max_error) <= delta)


def _betting_passes(values: FloatArray, mean: float, delta: float) -> bool:
    """Whether independent values in [0, 1] show, at level `delta`, that their expectation is below `mean`.

    A gambler bets on it one value after another, as much as the spread so far advises; if the expectation were `mean`
    or more, a capital of 1 would reach 1 / delta with probability at most `delta`.
    """
    if not len(values):
        return False
    t = np.arange(1, len(values) + 1)
    centre = (0.5 + np.cumsum(values)) / (1 + t)
    spread = (0.25 + np.cumsum((values - centre) ** 2)) / (1 + t)
    before = np.concatenate([[0.25], spread[:-1]])  # a bet may look back only
    bet = np.minimum(0.9 / (1 - mean), np.sqrt(2 * np.log(1 / delta) / (len(values) * before)))
    return bool(np.cumsum(np.log1p(bet * (mean - values))).max() >= np.log(1 / delta))


def risk_control_threshold(
    confidence: ArrayLike, correct: ArrayLike, *, max_error: float, groups: ArrayLike | None = None
) -> SelectiveRule:
    """The lowest threshold at which at most `max_error` of *all* verdicts are accepted and wrong, on average over sets.

    A group of m verdicts of which w are accepted and wrong has the loss w - max_error m, which falls as the threshold
    rises and is at most (1 - max_error) M, M the largest group: what conformal risk control needs. The threshold is
    the lowest at which the losses of the groups here plus one such largest loss are at most 0. A new group then has an
    expected loss of at most 0, that is E[w] <= max_error E[m]: over many new groups the accepted and wrong are at most
    that share of all verdicts, each counted once, however unequal the groups. For single rows it is the usual rule:
    n / (n + 1) times the loss seen plus 1 / (n + 1) is at most max_error.
    confidence: (n,), nan is never accepted but counts as a verdict. groups: (n,) codes, None for independent rows; new
    groups are taken to hold no more verdicts than the largest here. No threshold where the losses of accepting nothing
    do not outweigh one largest group. Raises DataError for a share outside (0, 1) or no rows.
    Source: Angelopoulos et al. (2022), Conformal Risk Control, arXiv:2208.02814, Theorem 1.
    """
    given, right = _for_threshold(confidence, correct, max_error)
    code = np.arange(len(given)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sizes = np.bincount(code)
    wrong = 1 - right
    order = np.argsort(-given, kind="stable")
    values, first = np.unique(-given[order], return_index=True)  # highest confidence first
    # Wrong when all above a value are accepted: what stands before its first row.
    before = np.concatenate([[0.0], np.cumsum(wrong[order])])
    budget = max_error * len(given) - (1 - max_error) * sizes.max() + 1e-9
    threshold: float | None = None
    if budget >= 0:
        candidates = [*(-values), -1.0]  # accept above each confidence, or all
        losses = [*before[first], wrong[given >= 0].sum()]
        threshold = 1.0
        for candidate, loss in zip(candidates, losses, strict=True):
            if loss > budget:
                break
            threshold = max(float(candidate), -1.0)
    accepted = np.zeros(len(given), dtype=bool) if threshold is None else given > threshold
    return SelectiveRule(
        threshold=threshold,
        max_error=max_error,
        delta=None,
        promise=(
            f"of all verdicts, at most {100 * max_error:g} % are accepted and wrong, on average over calibration sets"
            + _of_new_groups(sizes)
        ),
        method="conformal risk control",
        n=len(sizes),
        coverage=float(accepted.mean()),
        error=float(wrong[accepted].sum() / len(given)),
    )


def _of_new_groups(sizes: IntArray) -> str:
    """What a promise adds where rows come in groups: whose new rows it is for."""
    return f", for new groups like these of at most {sizes.max():,} verdicts" if sizes.max() > 1 else ""


def abstention_rates(
    accepted: ArrayLike, by: Sequence[str], groups: ArrayLike | None = None, *, level: float = 0.95
) -> dict[str, Estimate]:
    """Share not accepted, per value of `by` (gold label, generator), with Wilson intervals and groups' design effect.

    accepted, by, groups: (n,). Values in order of their names.
    """
    left, names = ~np.asarray(accepted, dtype=bool), np.asarray(by, dtype=str)
    code = None if groups is None else np.asarray(groups)
    return {
        str(name): clustered_wilson(left[names == name], None if code is None else code[names == name], level=level)
        for name in np.unique(names)
    }


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[FloatArray, FloatArray]:
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if given.shape != right.shape or given.ndim != 1:
        raise DataError(
            f"confidence has shape {given.shape} and correct {right.shape}: expected one of each per verdict."
        )
    if np.isnan(given).any() or (given < 0).any() or (given > 1).any():
        raise DataError("a confidence is missing or outside [0, 1]: leave such verdicts out, and count them.")
    return given, right


def _for_threshold(confidence: ArrayLike, correct: ArrayLike, max_error: float) -> tuple[FloatArray, FloatArray]:
    """Checked confidences, with -2 for a missing one: below every threshold."""
    if not 0 < max_error < 1:
        raise DataError(f"a wanted error rate lies between 0 and 1, got {max_error:g}.")
    given = np.asarray(confidence, dtype=np.float64)
    if not len(given):
        raise DataError("a threshold needs verdicts of known correctness to be chosen on, got none.")
    missing = np.isnan(given)
    given, right = _checked(np.where(missing, 0.0, given), correct)
    return np.where(missing, -2.0, given), right


def bin_codes(confidence: FloatArray, n_bins: int, bins: Bins) -> IntArray:
    """(n,) bin of each row, 0 upward without gaps."""
    if bins == "width":
        raw = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
    else:
        _, code, count = np.unique(confidence, return_inverse=True, return_counts=True)
        middle = (np.cumsum(count) - count / 2) / max(len(confidence), 1)
        raw = (middle * n_bins).astype(np.int64)[code]
    return np.asarray(np.unique(raw, return_inverse=True)[1])


def _bin_means(
    confidence: FloatArray, correct: FloatArray, code: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows, mean confidence and accuracy of each bin."""
    n = np.bincount(code).astype(np.float64)
    return n, np.bincount(code, weights=confidence) / n, np.bincount(code, weights=correct) / n


def _log_losses(confidence: FloatArray, correct: FloatArray, clip: float) -> FloatArray:
    p = np.clip(confidence, clip, 1 - clip)
    return np.asarray(-np.where(correct > 0, np.log(p), np.log1p(-p)))


def _logit(confidence: FloatArray) -> FloatArray:
    p = np.clip(confidence, CLIP, 1 - CLIP)
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _best_temperature(loss: Callable[[float], float]) -> float:
    """The temperature between 1/100 and 100 of least loss; the log-likelihood is convex in 1 / T."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda beta: loss(1 / beta), bounds=(0.01, 100.0), method="bounded", options={"xatol": 1e-6}
    )
    return float(1 / found.x)


def _fit_platt(odds: FloatArray, correct: FloatArray) -> tuple[float, float]:
    """Slope and intercept of the logistic map with Platt's targets, which keep both finite on separable rows."""
    from scipy.optimize import minimize

    n_right = correct.sum()
    target = np.where(correct > 0, (n_right + 1) / (n_right + 2), 1 / (len(correct) - n_right + 2))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        x = parameters[0] * odds + parameters[1]
        error = _sigmoid(x) - target
        return float((np.logaddexp(0, x) - target * x).mean()), np.array([(error * odds).mean(), error.mean()])

    start = np.array([1.0, 0.0])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-10})
    return float(found.x[0]), float(found.x[1])


def _aurc_of_weights(confidence: FloatArray, correct: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """(m, n) whole row weights -> (m,) AURC of the weighted rows.

    In a block of c equal confidences with e errors, after C rows with E errors, the mean over all orders of the block
    of sum_i errors(C + i) / (C + i) is e + (E - e C / c) (H(C + c) - H(C)) with H the harmonic numbers.
    """
    _, code = np.unique(-confidence, return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    wrong = (1 - correct)[order]

    in_order = bool((np.diff(order) == 1).all())
    distinct = len(starts) == len(order)

    def aurc(weights: FloatArray) -> FloatArray:
        by_confidence = weights if in_order else weights[:, order]
        if distinct:
            count, errors, share = by_confidence, by_confidence * wrong, wrong
        else:
            count = np.add.reduceat(by_confidence, starts, axis=1)
            errors = np.add.reduceat(by_confidence * wrong, starts, axis=1)
            share = np.divide(errors, count, out=np.zeros_like(count), where=count > 0)
        kept = np.cumsum(count, axis=1)
        total = kept[:, -1]
        span = np.diff(_harmonic(int(total.max()))[kept.astype(np.int64)], prepend=0.0, axis=1)
        errors_before = np.cumsum(errors, axis=1) - errors
        span *= errors_before - share * (kept - count)
        return np.asarray((errors.sum(1) + span.sum(1)) / total)

    return aurc


def _harmonic(n: int) -> FloatArray:
    """(n + 1,) harmonic numbers H(0) .. H(n)."""
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high
