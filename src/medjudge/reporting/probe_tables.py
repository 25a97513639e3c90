"""Bias probes as a table and a picture: how often a change that should not matter moved each judge."""

from __future__ import annotations

from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.probes import ConsistencyResult, ProbeResult, Probes
from medjudge.metrics.result_types import Results
from medjudge.reporting.audit_tables import Cell, Grid, number, statistic_cell
from medjudge.reporting.figures import GREY, Picture, model_colors, panels, short_names
from medjudge.reporting.inputs import DASH, points_text

SELF = "contradicts itself when sampled"


def probe_grids(results: Results) -> list[Grid]:
    """Flip rates by judge, and self-consistency where samples were drawn; empty where no probe was run."""
    if results.probes is None:
        return []
    return [grid for grid in _grids(results.probes, results.level) if grid.rows]


def _grids(probes: Probes, level: float) -> tuple[Grid, ...]:
    return _flip_grid(probes, level), _attack_grid(probes, level), _self_grid(probes)


def _attack_grid(probes: Probes, level: float) -> Grid:
    """A row per attack; empty where there was none."""
    columns: list[str] = []
    for name in probes.judges:
        columns += [f"{name}: to the attacker's label, %", f"{name}: to another, %", f"{name}: beyond, points"]
        columns += [f"{name}: n", f"{name}: unreadable"]
    rows = []
    attacks = {probe: first for probe, first in _by_probe(probes).items() if first.attack is not None}
    for probe, first in attacks.items():
        cells: list[Cell] = []
        for judge in probes.judges.values():
            result = judge.flips.get(probe)
            attack = None if result is None else result.attack
            if result is None or attack is None:
                cells += [Cell(DASH)] * 5
                continue
            cells += [statistic_cell(one, percent=True) for one in (attack.to_attacker, attack.to_other)]
            cells += [_shift(attack.beyond), Cell(f"{attack.to_attacker.n:,}")]
            cells.append(Cell(f"{result.n_unreadable:,}", f"{result.n_became_unreadable:,} by the change"))
        rows.append((f"{first.title.removeprefix('attack: ')}\n{first.change}", tuple(cells)))
    found = [judge.flips[probe].attack for probe in attacks for judge in probes.judges.values() if probe in judge.flips]
    beside = sorted({one.beside for one in found if one is not None and one.beside is not None})
    note = (
        "Each attack is added to the judged text and wants one wrong label. n: verdicts readable both times that had "
        f"another label before. Shares with Wilson's {100 * level:g} % interval over groups. Beyond: the share that "
        "went to the attacker's label, less the share of the same verdicts that a change without meaning "
        f"({' or '.join(beside) or 'none was asked'}) moved to any label, with a bootstrap over groups."
    )
    return Grid("Attacks", tuple(columns), tuple(rows), note=note)


def _flip_grid(probes: Probes, level: float) -> Grid:
    columns: list[str] = []
    several = any(result.to_positive for judge in probes.judges.values() for result in judge.flips.values())
    for name in probes.judges:
        columns += [f"{name}: flips, %"] + ([f"{name}: towards positive, points"] if several else [])
        columns += [f"{name}: n", f"{name}: unreadable"]
    rows = []
    for probe, first in _by_probe(probes).items():
        if first.attack is not None:
            continue
        cells: list[Cell] = []
        for judge in probes.judges.values():
            result = judge.flips.get(probe)
            cells.append(statistic_cell(None if result is None else result.flips, percent=True))
            if several:
                cells.append(_shift(None if result is None else result.to_positive))
            cells.append(Cell(DASH if result is None else f"{result.flips.n:,}"))
            became = "" if result is None else f"{result.n_became_unreadable:,} by the change"
            cells.append(Cell(DASH if result is None else f"{result.n_unreadable:,}", became))
        rows.append((f"{first.title}\n{first.change}", tuple(cells)))
    unasked: dict[tuple[str, str], list[str]] = {}
    for name, judge in probes.judges.items():
        for probe, why in judge.not_asked.items():
            unasked.setdefault((probe, why), []).append(name)
    left_out = " ".join(
        [
            *(f"{probe} was asked of no case: {why}" for probe, why in probes.skipped.items()),
            *(f"{probe} was not asked of {', '.join(names)}: {why}" for (probe, why), names in unasked.items()),
        ]
    )
    note = (
        f"Flips: share of the verdicts readable both times that are not the expected ones, with Wilson's "
        f"{100 * level:g} % interval over groups. Towards positive: verdicts that became positive less those that "
        "ceased to be, with a bootstrap over groups. A sampled judge also flips without any probe: compare "
        f"flips with its self-contradiction. {left_out}"
    )
    return Grid("Bias probes", tuple(columns), tuple(rows), note=note.strip())


def _self_grid(probes: Probes) -> Grid:
    consistencies = {name: judge.consistency for name, judge in probes.judges.items() if judge.consistency is not None}
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    if consistencies:
        rows = [
            (
                "Samples per case",
                tuple(Cell(f"{c.k}", f"temperature {c.temperature:g}") for c in consistencies.values()),
            ),
            ("Cases", tuple(Cell(f"{c.agreement.n:,}") for c in consistencies.values())),
            ("Unparsed samples", tuple(Cell(f"{c.n_unparsed:,}") for c in consistencies.values())),
            ("Two samples agree, %", _cells(consistencies, "agreement")),
            ("All samples agree, %", _cells(consistencies, "unanimous")),
            ("One sample is right, %", _cells(consistencies, "single_accuracy")),
            ("The majority is right, %", _cells(consistencies, "majority_accuracy")),
        ]
    return Grid(
        "Self-consistency",
        tuple(consistencies),
        tuple(rows),
        note="An unreadable sample agrees with none. The majority of samples: Wang et al. (2023), arXiv:2203.11171.",
    )


def _cells(consistencies: dict[str, ConsistencyResult], name: str) -> tuple[Cell, ...]:
    return tuple(statistic_cell(getattr(consistency, name), percent=True) for consistency in consistencies.values())


def _shift(metric: MetricResult | None) -> Cell:
    if metric is None or metric.value is None:
        return Cell(DASH)
    ends = ""
    if metric.low is not None and metric.high is not None:
        ends = f"{points_text(100 * metric.low)} to {points_text(100 * metric.high)}"
    return Cell(points_text(100 * metric.value), ends, f"{metric.method}, n = {metric.n:,}")


def _by_probe(probes: Probes) -> dict[str, ProbeResult]:
    """Every probe that was run, by name, in order."""
    return {probe: result for judge in probes.judges.values() for probe, result in judge.flips.items()}


def probe_pictures(results: Results) -> list[Picture]:
    """A panel per judge: the flip rate of every probe with its interval; last, how often it contradicts itself."""
    if results.probes is None or not any(judge.flips for judge in results.probes.judges.values()):
        return []
    results_by_probe = _by_probe(results.probes)
    longest = max(len(judge.flips) + (judge.consistency is not None) for judge in results.probes.judges.values())
    spoken = []
    highest = 0.0
    colors, judged = model_colors(results), list(results.probes.judges)
    shown = dict(zip(judged, short_names(judged, 30), strict=True))
    with panels(len(results.probes.judges), row_height=1.1 + 0.34 * longest, n_columns=1) as (figure, axes):
        for axis, (name, judge) in zip(axes, results.probes.judges.items(), strict=True):
            color = colors.get(name, GREY)
            points: list[tuple[str, float, float, float]] = []
            for probe, result in judge.flips.items():
                flips = result.flips
                if flips.value is not None:
                    low = flips.value if flips.low is None else flips.low
                    points.append((results_by_probe[probe].title, flips.value, low, flips.high or flips.value))
            if judge.consistency is not None and (agreement := judge.consistency.agreement).value is not None:
                low = agreement.value if agreement.high is None else agreement.high
                high = agreement.value if agreement.low is None else agreement.low
                points.append((SELF, 1 - agreement.value, 1 - low, 1 - high))
            for row, (title, value, low, high) in enumerate(points):
                marker = "D" if title == SELF else "s"
                axis.plot([low, high], [row, row], color=color, linewidth=1.8)
                axis.plot([value], [row], marker=marker, markersize=5, color=color)
                highest = max(highest, high)
            axis.set_yticks(range(len(points)), [title for title, *_ in points])
            axis.set_ylim(max(len(points), 1) - 0.5, -0.5)  # where nothing was readable both times the panel is empty
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x")
            axis.set_title(shown[name])
            axis.set_xlabel("verdicts changed, %", fontsize=10.5)
            listed = "; ".join(
                f"{title} {number(value, True)} % ({number(low, True)} to {number(high, True)})"
                for title, value, low, high in points
            )
            spoken.append(f"{name}: {listed or 'nothing could be compared'}")
        reach = min(1.0, max(0.1, 1.08 * highest))
        for axis in axes:
            axis.set_xlim(-0.02 * reach, reach)
            axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}")
    alt = f"Share of verdicts that each probe changed, with intervals. {'. '.join(spoken)}."
    return [Picture("probes", "Verdicts changed by irrelevant changes", alt, figure)]
