"""What the verdicts on pairs of answers say: of the judge (order, length) and of the systems that wrote the answers.

* consistency: share of pairs whose two orders get one and the same verdict; both_right: the expert's in both. An answer
  that cannot be read counts as neither. Sources: Wang et al. 2024 (arXiv:2305.17926); J1 (arXiv:2505.10320).
* first_preferred: verdicts for what stands first minus those for what stands second, over all that can be read. Each
  pair is asked in both orders, so a judge without a bias has 0, whatever the answers are worth.
* longer_preferred: of the verdicts for one of two answers that differ in words, the share for the longer one.
* length_effect, place_effect: log-odds of a logistic regression of the choice on the expert's verdict, the difference
  in length (tanh of words over their standard deviation, as in AlpacaEval 2, Dubois et al. 2024, arXiv:2404.04475) and
  the place: what length and place add where the experts see no difference.
* win_rate: wins and half the ties of a system. strength: its Bradley-Terry log-odds (Bradley & Terry 1952) against the
  mean of all systems; strength_length: the same with length and place in the regression, which is a win rate's
  length-controlled form.

Ties count as half a win each. Shares have Wilson's interval with the design effect of groups, the others a bootstrap
over groups. A ridge of `RIDGE` keeps a system that never loses at a finite strength.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from medjudge.metrics.intervals import Estimate, bootstrap_sums, clustered_wilson, expanded_interval
from medjudge.metrics.metric_result import Frozen, MetricResult, measured
from medjudge.records import Case, Judgement, Verdict
from medjudge.tasks.pairwise import OTHER_SIDE, TIE, A, twin_id
from medjudge.tasks.text import n_words

FloatArray = NDArray[np.float64]

RIDGE = 0.01
MAX_FITS = 200
"""The most resamples that are fitted: each takes a regression."""
MAX_STEPS, TOLERANCE = 100, 1e-8
CHUNK_ENTRIES = 4_000_000
SYSTEMS = ("system_a", "system_b")
"""Slices that name who wrote the answers (`data.slices`)."""
EXPERTS = "experts"
TITLES = {
    "consistency": "Same verdict in both orders",
    "both_right": "Right in both orders",
    "first_preferred": "First minus second place",
    "ties": "Ties",
    "longer_preferred": "Longer answer preferred",
    "length_effect": "Length, log-odds",
    "place_effect": "First place, log-odds",
}
"""Metric of a judge -> its heading, in the order of tables; the last two are no shares."""
SHARES = frozenset(TITLES) - {"length_effect", "place_effect"}


class SystemResult(Frozen):
    """What one judge makes of one system."""

    win_rate: MetricResult
    strength: MetricResult
    """None as value where it was compared with no other system."""
    strength_length: MetricResult


class PreferenceResult(Frozen):
    """What one judge's verdicts on pairs come to."""

    n_pairs: int
    """Pairs that were asked in both orders."""
    metrics: dict[str, MetricResult]
    systems: dict[str, SystemResult] = {}  # noqa: RUF012  (pydantic copies it)


class Preferences(Frozen):
    """Every judge, and the experts' own verdicts under `experts`."""

    judges: dict[str, PreferenceResult]
    statements: tuple[str, ...] = ()


def preferences(
    cases: Sequence[Case],
    judgements: Mapping[str, Sequence[Judgement]],
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 42,
) -> Preferences:
    """The preferences of every judge.

    cases: both orders of each pair, where there are both. judgements: judge -> its answers, in the order of the cases.
    Every judge sees the same resamples, drawn from `seed`.
    """
    of_judge = partial(_of_judge, cases, level=level, n_resamples=n_resamples, seed=seed)
    labels = {
        name: [one.label if isinstance(one, Verdict) else None for one in own] for name, own in judgements.items()
    }
    judges = {name: of_judge(own) for name, own in labels.items()}
    statements = tuple(_sentence(name, one) for name, one in judges.items() if one.n_pairs)
    if any(case.gold is not None for case in cases):
        experts = of_judge([case.gold for case in cases])
        # Of the experts' one label per pair both orders are made: what is said of order would be true by construction.
        about = {name: value for name, value in experts.metrics.items() if name in ("ties", "longer_preferred")}
        judges[EXPERTS] = experts.model_copy(update={"metrics": about})
    return Preferences(judges=judges, statements=statements)


def _of_judge(
    cases: Sequence[Case], labels: Sequence[str | None], *, level: float, n_resamples: int, seed: int
) -> PreferenceResult:
    groups = np.unique([case.group or case.case_id for case in cases], return_inverse=True)[1].astype(np.int64)
    place = {case.case_id: i for i, case in enumerate(cases)}
    pairs = [(i, j) for i, case in enumerate(cases) if (j := place.get(twin_id(case.case_id), -1)) > i]
    of_pair = np.array([groups[i] for i, _ in pairs], dtype=np.int64)
    metrics: dict[str, MetricResult] = {}

    def share(name: str, values: Sequence[bool], codes: NDArray[np.int64]) -> None:
        metrics[name] = measured(clustered_wilson(np.array(values, dtype=np.float64), codes, level=level))

    same = [labels[i] is not None and labels[j] == OTHER_SIDE[str(labels[i])] for i, j in pairs]
    rated = [k for k, (i, _) in enumerate(pairs) if cases[i].gold is not None]
    right = [all(labels[i] == cases[i].gold for i in pairs[k]) for k in rated]
    share("consistency", same, of_pair)
    share("both_right", right, of_pair[rated])
    # Only pairs read in both orders: an order that is missing more often would look like a bias.
    both = [i for pair in pairs if None not in (labels[pair[0]], labels[pair[1]]) for i in pair]
    signs = np.array([_sign(labels[i]) for i in both])
    metrics["first_preferred"] = _mean(signs, groups[both], level, n_resamples, seed)
    read = [i for i, label in enumerate(labels) if label is not None]
    share("ties", [labels[i] == TIE for i in read], groups[read])
    lengths = np.array([n_words(c.inputs["answer_a"]) - n_words(c.inputs["answer_b"]) for c in cases], dtype=np.float64)
    chosen = [i for i in read if labels[i] != TIE and lengths[i]]
    share("longer_preferred", [(labels[i] == A) == (lengths[i] > 0) for i in chosen], groups[chosen])
    if not read:
        return PreferenceResult(n_pairs=len(pairs), metrics=metrics)
    data = _Choices(cases, labels, read, groups, lengths)
    rng = np.random.default_rng(seed)
    drawn = _Draws(data, level, min(n_resamples, MAX_FITS), rng)
    gold = np.array([_sign(cases[i].gold) for i in read])
    controls = np.column_stack([np.ones(len(read)), data.length])
    if all(cases[i].gold is not None for i in read):
        effects = drawn.fit(np.column_stack([controls, gold]))
        metrics |= {"place_effect": effects[0], "length_effect": effects[1]}
    return PreferenceResult(n_pairs=len(pairs), metrics=metrics, systems=_systems(cases, read, data, drawn, controls))


def _systems(
    cases: Sequence[Case], read: Sequence[int], data: _Choices, drawn: _Draws, controls: FloatArray
) -> dict[str, SystemResult]:
    """Per system; empty where the cases do not name two of them."""
    wrote = [tuple(cases[i].slices.get(name, "") for name in SYSTEMS) for i in read]
    names = sorted({name for pair in wrote for name in pair} - {""})
    if len(names) < 2:
        return {}
    design = np.zeros((len(read), len(names)))
    for row, (first, second) in enumerate(wrote):
        if first and second and first != second:
            design[row, names.index(first)], design[row, names.index(second)] = 1, -1
    plain = drawn.fit(design, centred=len(names))
    controlled = drawn.fit(np.column_stack([design, controls]), centred=len(names))
    won = (1 + data.signs) / 2
    results = {}
    for k, name in enumerate(names):
        met = np.flatnonzero(design[:, k])
        share = np.where(design[met, k] > 0, won[met], 1 - won[met])
        results[name] = SystemResult(win_rate=drawn.mean(share, met), strength=plain[k], strength_length=controlled[k])
    return results


class _Choices:
    """The verdicts that can be read, as the rows of a regression."""

    def __init__(
        self,
        cases: Sequence[Case],
        labels: Sequence[str | None],
        read: Sequence[int],
        groups: NDArray[np.int64],
        lengths: FloatArray,
    ) -> None:
        """read: places of the verdicts that can be read."""
        self.signs = np.array([_sign(labels[i]) for i in read])
        self.groups = np.unique(groups[list(read)], return_inverse=True)[1]
        spread = float(lengths.std()) or 1.0
        self.length = np.tanh(lengths[list(read)] / spread)


class _Draws:
    """One set of resamples of groups, under which every coefficient is fitted."""

    def __init__(self, data: _Choices, level: float, n_draws: int, rng: np.random.Generator) -> None:
        """Draws the weights of the groups."""
        self.data, self.level = data, level
        self.n_groups = int(data.groups.max()) + 1
        self.weights = rng.multinomial(self.n_groups, np.full(self.n_groups, 1 / self.n_groups), size=n_draws)

    def fit(self, design: FloatArray, centred: int = 0) -> list[MetricResult]:
        """Every coefficient with its interval. centred: the first so many are taken against their own mean."""
        wins, groups = (1 + self.data.signs) / 2, self.data.groups
        value = coefficients(design, wins, np.ones((1, len(wins))))
        # In chunks: the weights of all resamples of many rows at once would be gigabytes.
        n_chunk = max(1, CHUNK_ENTRIES // len(wins))
        chunks = [self.weights[at : at + n_chunk] for at in range(0, len(self.weights), n_chunk)]
        draws = np.concatenate([coefficients(design, wins, own[:, groups].astype(np.float64)) for own in chunks])
        for fitted in (value, draws):
            fitted[:, :centred] -= fitted[:, :centred].mean(1, keepdims=True) if centred else 0
        method = "logistic regression, bootstrap over groups"
        results = []
        for k, estimate in enumerate(value[0]):
            low, high = (math.nan, math.nan)
            if self.n_groups > 1:
                low, high = expanded_interval(draws[:, k], self.level, self.n_groups)
            carried = int(np.count_nonzero(design[:, k]))
            results.append(measured(Estimate(float(estimate) if carried else math.nan, low, high, carried, method)))
        return results

    def mean(self, values: FloatArray, rows: NDArray[np.int64]) -> MetricResult:
        """The mean of values of some rows, with a bootstrap over groups."""
        sums = np.zeros((self.n_groups, 2))
        np.add.at(sums, self.data.groups[rows], np.column_stack([values, np.ones(len(rows))]))
        drawn = self.weights @ sums
        kept = drawn[drawn[:, 1] > 0]
        low, high = (math.nan, math.nan)
        if self.n_groups > 1 and len(kept):
            low, high = expanded_interval(kept[:, 0] / kept[:, 1], self.level, self.n_groups)
        value = float(values.mean()) if len(rows) else math.nan
        return measured(Estimate(value, max(0.0, low), min(1.0, high), len(rows), "bootstrap over groups"))


def coefficients(design: FloatArray, wins: FloatArray, weights: FloatArray) -> FloatArray:
    """(m, p) log-odds of a logistic regression without intercept under each of m weightings of its rows, by Newton.

    design: (n, p). wins: (n,) in [0, 1], a tie as one half. weights: (m, n), 0 or more. All weightings are fitted at
    once: one by one, a library takes minutes for what resamples need.
    """
    n_columns = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    fitted = np.zeros((len(weights), n_columns))
    for _ in range(MAX_STEPS):
        chance = expit(fitted @ design.T)
        gradient = (weights * (wins - chance)) @ design - RIDGE * fitted
        curvature = ((weights * chance * (1 - chance)) @ products).reshape(-1, n_columns, n_columns)
        step = np.linalg.solve(curvature + RIDGE * np.eye(n_columns), gradient[..., None])[..., 0]
        # Where hardly a row is undecided, a whole step would overshoot.
        fitted += np.clip(step, -2, 2)
        if np.abs(step).max() < TOLERANCE:
            break
    return fitted


def _mean(values: FloatArray, groups: NDArray[np.int64], level: float, n_resamples: int, seed: int) -> MetricResult:
    if not len(values):
        return measured(Estimate(math.nan, math.nan, math.nan, 0, "bootstrap over groups"))
    code = np.unique(groups, return_inverse=True)[1]
    sums = np.zeros((int(code.max()) + 1, 2))
    np.add.at(sums, code, np.column_stack([values, np.ones(len(values))]))
    interval = bootstrap_sums(
        sums,
        lambda s: {"mean": s[..., 0] / s[..., 1]},
        n_resamples=n_resamples,
        rng=np.random.default_rng(seed),
        level=level,
    )["mean"]
    return measured(Estimate(float(values.mean()), interval.low, interval.high, len(values), interval.method))


def _sign(label: str | None) -> float:
    """1 for A, -1 for B, 0 for a tie."""
    return 0.0 if label in (None, TIE) else 1.0 if label == A else -1.0


def _sentence(name: str, one: PreferenceResult) -> str:
    """What was found, in words. It claims nothing: none of it is tested."""
    first, rated = one.metrics["first_preferred"], one.metrics["both_right"]
    right = f", and is right in both on {_percent(rated)}" if rated.n else ""
    place = (
        f" Its verdicts for the first place less those for the second: {_percent(first, signed=True)}."
        if first.value is not None
        else ""
    )
    same = _percent(one.metrics["consistency"])
    return f"{name} gives one verdict in both orders on {same} of {one.n_pairs:,} pairs{right}.{place}"


def _percent(metric: MetricResult, *, signed: bool = False) -> str:
    if metric.value is None:
        return "no share"
    form = "+.1f" if signed else ".1f"
    known = metric.low is not None and metric.high is not None
    ends = f" ({100 * (metric.low or 0):{form}} to {100 * (metric.high or 0):{form}})" if known else ""
    return f"{100 * metric.value:{form}} %{ends}"
