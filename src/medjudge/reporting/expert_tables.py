"""Several experts per case as tables: judges beside the human ceiling, agreement, the alternative annotator test."""

from __future__ import annotations

from medjudge.metrics.claims import find_claim
from medjudge.metrics.expert_results import BesideOthers, ExpertsResult
from medjudge.metrics.expert_sentences import may_replace
from medjudge.metrics.rater_agreement import COEFFICIENTS
from medjudge.metrics.result_types import Results
from medjudge.reporting.audit_tables import HOLM, Cell, Grid, in_percent, statistic_cell, test_cells
from medjudge.reporting.inputs import DASH, points_text

SHORT = {
    "accuracy": "Majority label of the others, %",
    "tpr": "TPR, %",
    "tnr": "TNR, %",
    "kappa": "Kappa",
    "kappa_quadratic": "Quadratic kappa",
    "gwet_ac1": "AC1",
}


def expert_grids(results: Results) -> list[Grid]:
    """The tables; none where no case has two ratings."""
    experts = results.experts
    if experts is None:
        return []
    grids = [_beside_grid(experts, results), _agreement_grid(experts)]
    grids += [_pair_grid(experts)] if experts.pairs else []
    grids += [_alternative_grid(experts, results)] if experts.alternative else []
    return [*grids, *_slice_grids(experts)]


def _beside_grid(experts: ExpertsResult, results: Results) -> Grid:
    measured: list[tuple[str, BesideOthers]] = list(experts.judges.items())
    if experts.ceiling is not None:
        measured.append(("experts, each against the others", experts.ceiling))
    measured += [(f"expert {name}", one) for name, one in experts.raters.items()]
    shown = [name for name in SHORT if any(name in one.statistics for _, one in measured)]
    rows = []
    for name, one in measured:
        cells = [Cell(f"{one.n:,}", f"{one.n_cases:,} cases")]
        cells += [statistic_cell(one.statistics.get(key), percent=in_percent(key)) for key in shown]
        judge = experts.judges.get(name)
        if judge is None:
            cells += [Cell(DASH)] * 4
        else:
            claim = find_claim(results.claims, "ceiling", (name,), "accuracy")
            low, high = judge.difference.low, judge.difference.high
            ends = "" if low is None or high is None else f"{points_text(low)} to {points_text(high)}"
            cells += [
                Cell(points_text(judge.difference.value), ends, judge.difference.method),
                *test_cells(judge.test.p, judge.test.method, claim),
            ]
        rows.append((name, tuple(cells)))
    heads = (*(SHORT[name] for name in shown), "Judge minus experts, points", "p", "p, Holm", "Differs")
    return Grid(
        "Judges beside the experts",
        ("n", *heads),
        tuple(rows),
        note=(
            "The human ceiling: each expert against the majority of the other experts. Judges are measured against the "
            "same majorities: n counts pairs of a case and the expert left out. "
            f"{experts.n_undecided:,} pairs whose other experts have no majority are left out for all. {HOLM}"
        ),
    )


def _agreement_grid(experts: ExpertsResult) -> Grid:
    rows = []
    for name, metric in experts.agreement.items():
        title, is_share = COEFFICIENTS[name][0], name == "percent"
        head = title[0].upper() + title[1:] + (", %" if is_share else "")
        rows.append((head, (Cell(f"{metric.n:,}"), statistic_cell(metric, percent=is_share))))
    return Grid(
        "Agreement among the experts",
        ("Cases", "Value"),
        tuple(rows),
        note=(
            f"{experts.n_ratings:,} ratings by {experts.n_raters:,} experts of {experts.n_cases:,} cases with two "
            "ratings or more. Intervals: jackknife over groups, or a bootstrap where that is undefined."
        ),
    )


def _pair_grid(experts: ExpertsResult) -> Grid:
    names = list(dict.fromkeys(name for pair in experts.pairs for name in pair.statistics))
    titles = {"accuracy_on_schema": "Equal, %", "kappa": "Kappa", "kappa_quadratic": "Quadratic kappa"}
    rows = tuple(
        (
            f"{pair.a}, {pair.b}",
            (
                Cell(f"{pair.n:,}"),
                *(statistic_cell(pair.statistics.get(name), percent=in_percent(name)) for name in names),
            ),
        )
        for pair in experts.pairs
    )
    return Grid("Pairs of experts", ("Cases", *(titles[name] for name in names)), rows)


def _alternative_grid(experts: ExpertsResult, results: Results) -> Grid:
    rows = []
    for name, one in experts.alternative.items():
        claim = find_claim(results.claims, "annotators", (name,), "winning_rate")
        sizes = [annotator.n for annotator in one.annotators]
        least, most = min(sizes, default=0), max(sizes, default=0)
        rows.append(
            (
                name,
                (
                    Cell(f"{len(one.annotators)}", f"{one.n_left_out} left out" if one.n_left_out else ""),
                    Cell(f"{least:,}" if least == most else f"{least:,} to {most:,}"),
                    Cell(f"{one.winning_rate:.2f}"),
                    statistic_cell(one.advantage, percent=False),
                    *test_cells(one.test.p, one.test.method, claim)[:2],
                    Cell(DASH if claim is None else "yes" if may_replace(one, claim) else "not shown"),
                ),
            )
        )
    first = next(iter(experts.alternative.values()))
    return Grid(
        "Alternative annotator test",
        ("Experts", "Cases each", "Winning rate", "Advantage", "p", "p, Holm", "May replace one"),
        tuple(rows),
        note=(
            "For each expert: is the judge at least as close to the other experts as that expert is, less epsilon "
            f"{first.epsilon:g} for the expert's cost? Closeness: {first.alignment}. Winning rate: share of experts "
            f"for whom that is shown (Benjamini-Yekutieli, q = {first.q:g}). p: that it holds for fewer than half of "
            f"them. {HOLM}"
        ),
    )


def _slice_grids(experts: ExpertsResult) -> list[Grid]:
    grids = []
    everything = experts.slices.get("all", ())
    for name, values in experts.slices.items():
        if name == "all" and len(experts.slices) > 1:
            continue
        rows = [*values, *(everything if name != "all" else ())]
        has_positive = any(one.positive is not None for one in rows)
        grids.append(
            Grid(
                "Disagreement of the experts" + ("" if name == "all" else f" by {name}"),
                ("Cases", "Not unanimous, %", *(("Ratings positive, %",) if has_positive else ())),
                tuple(
                    (
                        one.value,
                        (
                            Cell(f"{one.n:,}"),
                            statistic_cell(one.disagreement, percent=True),
                            *((statistic_cell(one.positive, percent=True),) if has_positive else ()),
                        ),
                    )
                    for one in rows
                ),
                note="No test is made between the rows of this table.",
            )
        )
    return grids
