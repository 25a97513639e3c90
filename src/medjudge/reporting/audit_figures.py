"""Pictures of the audit: generators, reliability, risk and coverage, and how confidences are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.result_types import CalibrationResult, GeneratorResult, Results
from medjudge.reporting.audit_tables import SHORT, in_percent, number, varying, with_generators
from medjudge.reporting.figures import COLORS, GREY, STYLE, WIDTH_IN, Picture, model_colors, panels, short_names, slug

_FOREST = ("prevalence", "tpr", "tnr", "mcc")
_FOREST_MANY = ("accuracy", "macro_f1", "gwet_ac1")
_LONGEST = 16
LINES = ("-", "--", ":")


def audit_pictures(results: Results) -> list[Picture]:
    """What the rows allow: a forest per judge with generators; three pictures where stated confidences vary."""
    if results.audit is None:
        return []
    colors = model_colors(results)
    pictures = [forest_picture(name, rows, colors[name]) for name, rows in with_generators(results.audit).items()]
    calibrations = varying(results.audit)
    if calibrations:
        drawings = (reliability_picture, risk_coverage_picture, confidence_picture)
        pictures += [draw(calibrations, colors) for draw in drawings]
    return pictures


def forest_picture(judge: str, rows: tuple[GeneratorResult, ...], color: str) -> Picture:
    """A panel per rate: each generator's value and interval."""
    names = [name for name in _FOREST if any(_rate(row, name) is not None for row in rows)]
    if "prevalence" not in names:
        names = [name for name in _FOREST_MANY if any(_rate(row, name) is not None for row in rows)]
    spoken = []
    with panels(len(names), row_height=0.8 + 0.36 * len(rows)) as (figure, axes):
        for position, (axis, name) in enumerate(zip(axes, names, strict=True)):
            percent = name == "prevalence" or in_percent(name)
            for row, generator in enumerate(rows):
                metric = _rate(generator, name)
                if metric is None or metric.value is None:
                    continue
                if metric.low is not None and metric.high is not None:
                    axis.plot([metric.low, metric.high], [row, row], color=color, linewidth=1.8)
                axis.plot([metric.value], [row], marker="s", markersize=5, color=color)
            shown = short_names([generator.generator for generator in rows], _LONGEST)
            axis.set_yticks(range(len(rows)), shown if position % 2 == 0 else [""] * len(rows))
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x")
            _scale(axis, -1 if name in ("mcc", "gwet_ac1") and _negative(rows, name) else 0, percent)
            axis.set_title(("Gold positive" if name == "prevalence" else SHORT[name]) + (", %" if percent else ""))
    for generator in rows:
        values = (
            f"{'gold positive' if name == 'prevalence' else SHORT[name]} "
            f"{number(metric.value, name == 'prevalence' or in_percent(name))}"
            for name in names
            if (metric := _rate(generator, name)) is not None
        )
        spoken.append(f"{generator.generator} (n = {generator.n:,}): {', '.join(values)}")
    alt = f"Forest plot of {judge} by generator, each value with its interval. {'; '.join(spoken)}."
    return Picture(f"generators_{slug(judge)}", f"{judge} by generator", alt, figure)


def _rate(row: GeneratorResult, name: str) -> MetricResult | None:
    return row.prevalence if name == "prevalence" else row.statistics.get(name)


def _negative(rows: tuple[GeneratorResult, ...], name: str) -> bool:
    ends = [end for row in rows if (m := _rate(row, name)) is not None for end in (m.low, m.value)]
    return any(end is not None and end < 0 for end in ends)


def _scale(axis: Axes, low: float, percent: bool) -> None:
    ticks = np.linspace(low, 1, 5)
    axis.set_xlim(low - 0.03, 1.03)
    axis.set_xticks(ticks, [f"{100 * tick:.0f}" if percent else f"{tick:g}" for tick in ticks])


Level = tuple[float, float, float | None, float | None]
"""What was stated, the share found there, and the ends of its interval."""


def level_picture(
    levels: Mapping[str, Sequence[Level]],
    colors: Mapping[str, str],
    *,
    names: tuple[str, str],
    axes_say: tuple[str, str],
    words: tuple[str, str],
    alt: str,
) -> Picture:
    """A panel per judge: the share found at each level that is stated, with intervals, and the diagonal.

    names: the picture's own and its title. axes_say: below and beside a panel. words: after a level and after a share.
    """
    spoken = []
    with panels(len(levels), row_height=2.9) as (figure, axes):
        shown = title_names(levels)
        for axis, (name, of_judge) in zip(axes, levels.items(), strict=True):
            axis.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
            x, y = [stated for stated, *_ in of_judge], [share for _, share, *_ in of_judge]
            below = [0.0 if low is None else max(0.0, share - low) for _, share, low, _ in of_judge]
            above = [0.0 if high is None else max(0.0, high - share) for _, share, _, high in of_judge]
            axis.errorbar(x, y, yerr=[below, above], color=colors.get(name, COLORS[0]), marker="o", ms=4.5)
            axis.set_title(shown[name])
            axis.set_xlabel(axes_say[0], fontsize=10.5)
            axis.set_ylabel(axes_say[1], fontsize=10.5)
            axis.set_xlim(-0.02, 1.02)
            axis.set_ylim(-0.02, 1.02)
            axis.grid()
            points = (f"{100 * a:.0f} % {words[0]}, {100 * b:.0f} % {words[1]}" for a, b in zip(x, y, strict=True))
            spoken.append(f"{name}: {'; '.join(points)}")
    return Picture(*names, f"{alt} {'. '.join(spoken)}.", figure)


def reliability_picture(calibrations: dict[str, CalibrationResult], colors: Mapping[str, str]) -> Picture:
    """A panel per judge: how often it is right at each level of confidence; the diagonal is calibrated."""
    return level_picture(
        {name: [(b.confidence, b.accuracy, b.low, b.high) for b in one.bins] for name, one in calibrations.items()},
        colors,
        names=("reliability", "Reliability of stated confidence"),
        axes_say=("confidence", "share right"),
        words=("sure", "right"),
        alt="Reliability diagram with intervals; on the dashed diagonal a judge is calibrated.",
    )


def risk_coverage_picture(calibrations: dict[str, CalibrationResult], colors: Mapping[str, str]) -> Picture:
    """The error among the verdicts that are kept, by the share that is kept."""
    spoken = []
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
        axis = figure.add_subplot()
        shown = title_names(calibrations)
        for number_of, (name, calibration) in enumerate(calibrations.items()):
            axis.plot(
                calibration.coverage,
                calibration.risk,
                color=colors[name],
                linestyle=line_style(number_of),
                label=shown[name],
                linewidth=1.8,
                clip_on=False,
            )
            half = int(np.argmin(np.abs(np.asarray(calibration.coverage) - 0.5)))
            spoken.append(
                f"{name}: {100 * calibration.risk[-1]:.1f} % wrong of all, {100 * calibration.risk[half]:.1f} % wrong "
                f"of the surest {100 * calibration.coverage[half]:.0f} %"
            )
        axis.set_xlim(0, 1.02)
        axis.set_ylim(bottom=0)
        axis.set_xticks(np.linspace(0, 1, 5), ["0", "25", "50", "75", "100"])
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
        axis.set_xlabel("verdicts kept, surest first, %")
        axis.set_ylabel("wrong among them, %")
        axis.grid()
        axis.legend(loc="best")
    return Picture("risk_coverage", "Risk and coverage", f"Risk-coverage curve. {'; '.join(spoken)}.", figure)


def confidence_picture(calibrations: dict[str, CalibrationResult], colors: Mapping[str, str]) -> Picture:
    """A panel per judge: how many right and wrong verdicts there are in each tenth of confidence."""
    spoken = []
    middle = np.arange(10) / 10 + 0.05
    with panels(len(calibrations), row_height=2.6) as (figure, axes):
        shown = title_names(calibrations)
        for axis, (name, calibration) in zip(axes, calibrations.items(), strict=True):
            right, wrong = np.array(calibration.n_right), np.array(calibration.n_wrong)
            axis.bar(middle, right, width=0.085, color=colors[name], label="right")
            axis.bar(middle, wrong, width=0.085, bottom=right, color="#DDDDDD", hatch="///", label="wrong")
            axis.set_title(shown[name])
            axis.set_xlabel("confidence", fontsize=10.5)
            axis.set_xlim(0, 1)
            axis.grid(axis="y")
            axis.set_ylim(0, 1.3 * max(1, int((right + wrong).max())))  # room for the legend above the bars
            axis.legend(loc="upper left", ncols=2, handlelength=1.2, columnspacing=1.0, borderpad=0.2)
            counts = (
                f"{10 * i} to {10 * i + 10} %: {r:,} right, {w:,} wrong"
                for i, (r, w) in enumerate(zip(right, wrong, strict=True))
                if r + w
            )
            spoken.append(f"{name}: {'; '.join(counts)}")
    alt = f"Distribution of stated confidence over right and wrong verdicts. {'. '.join(spoken)}."
    return Picture("confidences", "How confidences are spread", alt, figure)


def title_names(judges: Mapping[str, object]) -> dict[str, str]:
    """Judge -> its name as a title or legend has room for it."""
    return dict(zip(judges, short_names(list(judges), 24), strict=True))


def line_style(place: int) -> str:
    """The line of the judge at `place`: another one from the eighth on, where colours repeat."""
    return LINES[place // len(COLORS) % len(LINES)]
