"""The audit as rows of text: what the page and the terminal show of agreement, generators, confidence and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medjudge.metrics.agreement import STATISTICS
from medjudge.metrics.audit_sentences import RATES
from medjudge.metrics.claims import PREVALENCE, find_claim
from medjudge.metrics.coverage import kinds_under
from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.result_types import (
    Audit,
    CalibrationResult,
    Claim,
    GeneratorResult,
    JudgeAudit,
    LabelsResult,
    PairResult,
    Results,
    SelectiveResult,
)
from medjudge.metrics.wording import p_value
from medjudge.reporting.inputs import DASH, MINUS

SHARES = frozenset({"balanced_accuracy", "f1_positive", "macro_f1", "weighted_f1"})
"""Statistics in [0, 1] that are shown in per cent beside the shares of rows; coefficients have three decimals."""
HOLM = "Holm's correction covers all tests of the page."
GENERATOR_COLUMNS = ("accuracy", "tpr", "tnr", "f1_positive", "macro_f1", "mcc", "gwet_ac1")
SHORT = {
    "accuracy": "Accuracy",
    "tpr": "TPR",
    "tnr": "TNR",
    "f1_positive": "Positive F1",
    "macro_f1": "Macro-F1",
    "mcc": "MCC",
    "gwet_ac1": "AC1",
    "kappa": "Kappa",
    "kappa_quadratic": "Quadratic kappa",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A number and, under it, its interval; `why` says how it was made."""

    text: str
    under: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its caption, column heads, and rows of a head and cells. A head's second line is shown small."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    note: str = ""


def in_percent(name: str) -> bool:
    """Whether a statistic is shown in per cent."""
    return name in SHARES or STATISTICS[name].proportion


def statistic_cell(metric: MetricResult | None, *, percent: bool, digits: int = 3) -> Cell:
    """A statistic with its interval; a dash where it is absent or undefined."""
    if metric is None or metric.value is None:
        return Cell(DASH)
    ends = ""
    if metric.low is not None and metric.high is not None:
        ends = f"{number(metric.low, percent, digits)} to {number(metric.high, percent, digits)}"
    return Cell(number(metric.value, percent, digits), ends, f"{metric.method}, n = {metric.n:,}")


def number(value: float | None, percent: bool, digits: int = 3) -> str:
    """0.2604 -> "26.0" in per cent, "0.260" otherwise."""
    if value is None:
        return DASH
    shown = f"{100 * value:.1f}" if percent else f"{round(value, digits) + 0.0:.{digits}f}"
    return shown.replace("-", MINUS)


def agreement_grid(results: Results, audit: Audit) -> Grid:
    """Every statistic (rows) of every judge and baseline (columns)."""
    judges = {name: audit.judges[name] for name in results.models if name in audit.judges}
    first = next(iter(judges.values()))
    rows = tuple(
        (
            _title(name) + (", %" if in_percent(name) else ""),
            tuple(statistic_cell(judge.statistics.get(name), percent=in_percent(name)) for judge in judges.values()),
        )
        for name in first.statistics
    )
    sizes = tuple(Cell(f"{results.models[name].n:,}") for name in judges)
    unread = tuple(
        Cell(f"{results.models[name].n_unparsed:,}", ", ".join(kinds_under(results.models[name].unanswered)))
        for name in judges
    )
    return Grid(
        "Agreement with the experts",
        tuple(judges),
        (("n", sizes), ("Unparsed", unread), *rows),
        note=(
            "Accuracy, F1 and MCC use all rows, and a case without a verdict counts as wrong; PPV, NPV, kappa, "
            "AC, alpha, ICC and correlations use the rows with a verdict. Intervals: shares of rows by Wilson's "
            "method with the groups' design effect, all others by a jackknife over groups, or a "
            "bootstrap where that is undefined."
        ),
    )


def _title(name: str) -> str:
    title = STATISTICS[name].title
    return title[0].upper() + title[1:]


def generator_grid(name: str, rows_of: Sequence[GeneratorResult], by: str = "generator") -> Grid:
    """One judge by the generators whose answers it judged, or by the values of another slice."""
    binary = any(row.prevalence is not None for row in rows_of)
    of_generators = by == "generator"  # what their prevalence does to F1 is said of them alone
    # F1 of the positive label stands for macro-F1 on two labels; F1 and AC1 move with a slice's prevalence.
    shown = [
        key
        for key in GENERATOR_COLUMNS
        if any(key in row.statistics for row in rows_of)
        and not (binary and key == "macro_f1")
        and not (key in ("f1_positive", "gwet_ac1") and not of_generators)
    ]
    columns = ["n", "Unparsed", "Coverage, %", "Answered only, %"]
    if binary:
        columns += ["Gold positive, %", "Judged positive, %"]
        columns += ["Always-positive F1, %"] if of_generators else []
    columns += [SHORT[key] + (", %" if in_percent(key) else "") for key in shown] + ["MDE, points"]
    rows = []
    for row in rows_of:
        cells = [Cell(f"{row.n:,}", "" if row.n_groups == row.n else f"{row.n_groups:,} groups")]
        cells.append(Cell(f"{row.n_unparsed:,}", ", ".join(kinds_under(row.unanswered))))
        cells += [Cell(number(1 - row.n_unparsed / row.n, True)), statistic_cell(row.answered_only, percent=True)]
        if binary:
            cells += [statistic_cell(rate, percent=True) for rate in (row.prevalence, row.positive_rate)]
            cells += [Cell(number(row.always_positive_f1, True))] if of_generators else []
        cells += [statistic_cell(row.statistics.get(key), percent=in_percent(key)) for key in shown]
        cells.append(Cell(number(row.minimum_detectable, True)))
        rows.append((row.generator, tuple(cells)))
    return Grid(
        f"{name} by {by}",
        tuple(columns),
        tuple(rows),
        note=(
            f"Prevalence differs between values of {by}; accuracy, F1 and kappa depend on it, TPR and TNR do not. A "
            "case without a verdict counts as wrong, except under `Answered only`. "
            + ("Always-positive F1 is that of calling every answer positive. " if binary and of_generators else "")
            + "MDE, the minimum detectable effect: the smallest distance of accuracy from chance found with 80 % power."
            + ("" if of_generators else " No test is made between the rows of this table.")
        ),
    )


def heterogeneity_grid(name: str, judge: JudgeAudit, claims: Sequence[Claim]) -> Grid:
    """Whether rates differ between generators by more than chance."""

    def claim_about(outcome: str) -> Claim | None:
        own = find_claim(claims, "heterogeneity", (name,), outcome)
        return own or (find_claim(claims, "heterogeneity", (), outcome) if outcome == PREVALENCE else None)

    rows = tuple(
        (
            RATES[test.outcome][0].upper()
            + RATES[test.outcome][1:]
            + (" on answered cases" if test.answered_only else ""),
            (
                Cell(f"{test.n:,}"),
                Cell(number(test.sd, True)),
                Cell(number(test.sampling_sd, True)),
                Cell(number(test.excess_sd, True)),
                Cell(f"{test.statistic:.2f}", f"df {test.df}"),
                *test_cells(test.p, test.method, claim_about(test.outcome)),
            ),
        )
        for test in judge.heterogeneity
    )
    return Grid(
        f"Differences between generators: {name}",
        ("n", "SD across generators", "SD from sampling alone", "Excess SD", "Statistic", "p", "p, Holm", "Differs"),
        rows,
        note=(
            f"Standard deviations in points. Excess SD: the part that sampling does not explain. {_tests(judge)} {HOLM}"
        ),
    )


def _tests(judge: JudgeAudit) -> str:
    """Which rate was tested how, each method named once."""
    by_method: dict[str, list[str]] = {}
    for one in judge.heterogeneity:
        by_method.setdefault(one.method, []).append(RATES[one.outcome])
    return "Tests: " + "; ".join(f"{', '.join(rates)}: {method}" for method, rates in by_method.items()) + "."


def test_cells(p: float | None, method: str, claim: Claim | None) -> tuple[Cell, Cell, Cell]:
    """p with the test's method below it, p by Holm over the page, and whether the page claims a difference."""
    return Cell(_p(p), "", method), Cell(_p(None if claim is None else claim.adjusted_p)), Cell(_mark(claim))


def _mark(claim: Claim | None) -> str:
    """Whether the page claims a difference; a dash for results of an earlier program."""
    if claim is None or claim.p is None:
        return DASH
    return "yes" if claim.claimed else "not shown"


def pair_grid(audit: Audit, level: float) -> Grid:
    """All judges against each other, with p corrected for the number of tests."""
    tested = list(dict.fromkeys(name for pair in audit.pairs for name in pair.tests))
    columns = ["n", "Both answered", "Only first right", "Only second right", "Accuracy: p", "Accuracy: p, Holm"]
    for name in tested:
        columns += [f"{SHORT[name]}, difference", f"{SHORT[name]}: p, Holm"]
    columns.append("MDE, points")
    return Grid(
        "Judges against each other",
        tuple(columns),
        tuple((f"{pair.a} minus {pair.b}", _pair_cells(pair, tested)) for pair in audit.pairs),
        note=(
            f"Accuracy: {' or '.join(dict.fromkeys(pair.method for pair in audit.pairs))}. Other statistics: paired "
            f"permutation of whole groups, "
            f"{100 * level:g} % interval by a jackknife over groups. {HOLM} MDE, the minimum detectable effect: "
            "the smallest difference in accuracy that these rows show with 80 % power."
        ),
    )


def _pair_cells(pair: PairResult, tested: list[str]) -> tuple[Cell, ...]:
    both = DASH if pair.n_both_answered is None else f"{pair.n_both_answered:,}"
    cells = [Cell(f"{pair.n:,}"), Cell(both), Cell(f"{pair.only_a:,}"), Cell(f"{pair.only_b:,}")]
    cells += [Cell(_p(pair.p), "", pair.method), Cell(_p(pair.adjusted_p))]
    for name in tested:
        test = pair.tests.get(name)
        cells.append(statistic_cell(None if test is None else test.difference, percent=in_percent(name)))
        cells.append(Cell(_p(None if test is None else test.adjusted_p)))
    cells.append(Cell(number(pair.power.minimum_detectable, True)))
    return tuple(cells)


def _p(p: float | None) -> str:
    return DASH if p is None else p_value(p).removeprefix("p = ").removeprefix("p ")


def calibration_grid(audit: Audit, claims: Sequence[Claim]) -> Grid | None:
    """Calibration by judge; None where no judge states a confidence."""
    calibrations = calibrated(audit)
    if not calibrations:
        return None
    of_ece = {name: find_claim(claims, "calibration", (name,), "ece") for name in calibrations}
    of_mean = {name: find_claim(claims, "calibration", (name,), "direction") for name in calibrations}
    rows = {
        "n": [
            Cell(f"{c.n:,}", f"{c.n_without:,} without a confidence" if c.n_without else "")
            for c in calibrations.values()
        ],
        "Mean confidence, %": [Cell(number(c.mean_confidence, True)) for c in calibrations.values()],
        "Right, %": [Cell(number(c.accuracy, True)) for c in calibrations.values()],
        "Off on average": [Cell(_mark(claim), _holm(claim)) for claim in of_mean.values()],
        "ECE, equal-mass bins": [
            Cell(number(c.ece, False), f"calibrated: {number(c.ece_if_calibrated, False)}")
            for c in calibrations.values()
        ],
        "Off in any bin": [Cell(_mark(claim), _holm(claim)) for claim in of_ece.values()],
        "Calibration error, debiased": [Cell(number(c.rms_error, False)) for c in calibrations.values()],
        "Brier score": [statistic_cell(c.brier, percent=False) for c in calibrations.values()],
        "of which reliability": [Cell(number(c.brier_parts["reliability"], False, 4)) for c in calibrations.values()],
        "of which resolution": [Cell(number(c.brier_parts["resolution"], False, 4)) for c in calibrations.values()],
        "of which uncertainty": [Cell(number(c.brier_parts["uncertainty"], False, 4)) for c in calibrations.values()],
        "Log loss, nats": [statistic_cell(c.log_loss, percent=False) for c in calibrations.values()],
        "AURC": [statistic_cell(c.aurc, percent=False) for c in calibrations.values()],
        "AURC above the best order": [Cell(number(c.excess_aurc, False)) for c in calibrations.values()],
    }
    return Grid(
        "Confidence",
        tuple(calibrations),
        tuple((head, tuple(cells)) for head, cells in rows.items()),
        note=(
            "Over readable verdicts with a confidence. ECE is biased upward: it is shown with what a perfectly "
            "calibrated judge with the same confidences would show. AURC is the mean error when the least sure "
            "verdicts are left out one after the other; lower is better. Whether the mean confidence is off: t over "
            f"the groups' sums; whether any bin is: sign flips of groups. {HOLM}"
        ),
    )


def _holm(claim: Claim | None) -> str:
    return "" if claim is None or claim.adjusted_p is None else f"p, Holm {_p(claim.adjusted_p)}"


def threshold_grid(audit: Audit) -> Grid | None:
    """Thresholds for wanted error rates, by judge; None where no judge states confidences that vary."""
    calibrations = varying(audit)
    if not calibrations:
        return None
    rows = []
    for name, calibration in calibrations.items():
        for rule in calibration.selective:
            rows.append(
                (
                    f"{name}, {_wanted(rule)}",
                    (
                        Cell(_accepted(rule)),
                        Cell(number(rule.coverage, True)),
                        Cell(number(rule.error, True)),
                        Cell(f"{rule.n:,}"),
                        Cell(rule.method),
                    ),
                )
            )
    return Grid(
        "Thresholds for human review",
        ("Accept a confidence", "Accepted here, %", "Controlled error here, %", "n", "By"),
        tuple(rows),
        note=(
            "Learn-then-test: for new cases like these, the share of wrong among the accepted verdicts stays below the "
            "wanted rate; this fails for at most 10 % of calibration sets. Conformal risk control: the share of all "
            "verdicts that are accepted and wrong stays below it, on average over calibration sets; among the "
            "accepted alone it may be higher. n counts groups. The thresholds were chosen on the rows of this "
            "page: the guarantee is for new rows, the shares shown are those of the rows used for the choice."
        ),
    )


def _wanted(rule: SelectiveResult) -> str:
    share = f"at most {100 * rule.max_error:g} %"
    return (
        f"{share} of the accepted wrong" if rule.method == "learn-then-test" else f"{share} of all accepted and wrong"
    )


def _accepted(rule: SelectiveResult) -> str:
    if rule.threshold is None:
        return "no threshold"
    return "all" if rule.threshold < 0 else f"above {rule.threshold:.3f}"


def abstention_grids(audit: Audit) -> list[Grid]:
    """Per judge whose thresholds leave something to a person: whom, by gold label and by generator."""
    grids = []
    for name, calibration in calibrated(audit).items():
        rules = [rule for rule in calibration.selective if any(rule.abstention.values())]
        if not rules:
            continue
        kinds = {(kind, value): None for rule in rules for kind, shares in rule.abstention.items() for value in shares}
        rows = tuple(
            (
                f"{kind} {value}",
                tuple(statistic_cell(rule.abstention.get(kind, {}).get(value), percent=True) for rule in rules),
            )
            for kind, value in kinds
        )
        grids.append(
            Grid(
                f"Sent to human review: {name}",
                tuple(f"{_wanted(rule)}, %" for rule in rules),
                rows,
                note=(
                    "Share of the verdicts that are not accepted; unreadable ones are never accepted. Shares that "
                    "differ much between labels or generators show that the threshold selects by label or generator."
                ),
            )
        )
    return grids


def calibrated(audit: Audit) -> dict[str, CalibrationResult]:
    """The judges that state a confidence."""
    return {name: judge.calibration for name, judge in audit.judges.items() if judge.calibration is not None}


def varying(audit: Audit) -> dict[str, CalibrationResult]:
    """The judges whose confidences differ between verdicts: only those can be ordered by them."""
    return {name: calibration for name, calibration in calibrated(audit).items() if calibration.varies}


def with_generators(audit: Audit) -> dict[str, tuple[GeneratorResult, ...]]:
    """The judges whose rows name several generators."""
    return {name: judge.generators for name, judge in audit.judges.items() if len(judge.generators) > 1}


def prompts_grid(results: Results) -> Grid | None:
    """Whole and shortened prompts by model; None where no prompt lost a word."""
    cut = {name: model.prompts for name, model in results.models.items() if model.prompts is not None}
    if not any(prompts.n_shortened for prompts in cut.values()):
        return None
    rows = tuple(
        (
            name,
            (
                Cell(f"{prompts.n_shortened:,} of {prompts.n:,}"),
                Cell(f"{prompts.n_words_cut:,}"),
                statistic_cell(prompts.whole, percent=True),
                statistic_cell(prompts.shortened, percent=True),
            ),
        )
        for name, prompts in cut.items()
    )
    return Grid(
        "Shortened prompts",
        ("Shortened", "Words cut", "Agreement on whole prompts, %", "Agreement on cut ones, %"),
        rows,
        note="Prompts are shortened to fit `task.max_prompt_tokens`; a case without a verdict counts as wrong.",
    )


def labels_grid(results: Results) -> Grid | None:
    """How much of each judge's answers its labels are; None where no labels were scored."""
    scored = {name: model.labels for name, model in results.models.items() if model.labels is not None}
    if not scored:
        return None
    rows = tuple(
        (
            name,
            (
                Cell(f"{labels.n:,} of {labels.n + labels.n_without:,}"),
                Cell(f"{100 * labels.outside:.2f}" if labels.n else "", _least(labels)),
                Cell(f"{labels.n_bounded:,}"),
            ),
        )
        for name, labels in scored.items()
    )
    return Grid(
        "Probability outside the labels",
        ("Cases scored", "Outside, %", "Cases with a bound"),
        rows,
        note="The mean over cases of the probability that the answer is no label. Where an endpoint does not tell a "
        "label's probability, the most that it can be stands for it.",
    )


def _least(labels: LabelsResult) -> str:
    return f"at least {100 * labels.outside_least:.2f}" if labels.n_bounded else ""


def page_grids(results: Results) -> dict[str, list[Grid]]:
    """Section -> its tables; empty lists leave a section out."""
    audit = results.audit
    prompts = [grid for grid in (prompts_grid(results), labels_grid(results)) if grid is not None]
    if audit is None:
        return {"agreement": [], "pairs": [], "slices": [], "generators": [], "confidence": [], "prompts": prompts}
    grids = (calibration_grid(audit, results.claims), threshold_grid(audit))
    return {
        "prompts": prompts,
        "slices": [
            generator_grid(name, rows, by)
            for name, judge in audit.judges.items()
            for by, rows in judge.slices.items()
            if len(rows) > 1
        ],
        "agreement": [agreement_grid(results, audit)],
        "pairs": [pair_grid(audit, results.level)] if audit.pairs else [],
        "generators": [
            grid
            for name in with_generators(audit)
            for grid in (
                generator_grid(name, audit.judges[name].generators),
                heterogeneity_grid(name, audit.judges[name], results.claims),
            )
        ],
        "confidence": [*(grid for grid in grids if grid is not None), *abstention_grids(audit)],
    }
