"""Pictures of judges that give numbers: ROC curves, calibration curves, and Bland and Altman's plot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from medjudge.metrics.result_types import Results
from medjudge.metrics.score_results import BlandAltmanResult, ProbabilityResult, ScoreResult
from medjudge.reporting.audit_figures import level_picture, line_style, title_names
from medjudge.reporting.figures import COLORS, GREY, STYLE, WIDTH_IN, Picture, model_colors, panels


def score_pictures(results: Results) -> list[Picture]:
    """What the scores allow; none where judges give labels."""
    if results.scores is None:
        return []
    judges, colors = results.scores.judges, model_colors(results)
    pictures = []
    if ranked := {name: judge for name, judge in judges.items() if judge.roc}:
        pictures.append(roc_picture(ranked, colors))
    if stated := {name: one for name, judge in judges.items() if (one := judge.probabilities) is not None}:
        pictures.append(calibration_picture(stated, colors))
    if limits := {name: two for name, judge in judges.items() if (two := judge.bland_altman) is not None}:
        pictures.append(bland_altman_picture(limits, colors))
    return pictures


def roc_picture(judges: Mapping[str, ScoreResult], colors: Mapping[str, str]) -> Picture:
    """Sensitivity by false-positive rate over all thresholds, a line per judge; the dashed diagonal says nothing."""
    spoken = []
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 4.2), layout="constrained")
        axis, shown = figure.add_subplot(), title_names(judges)
        axis.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2)
        for place, (name, judge) in enumerate(judges.items()):
            x, y = np.array(judge.roc).T
            axis.plot(
                x, y, color=colors.get(name, COLORS[0]), linestyle=line_style(place), linewidth=1.8, label=shown[name]
            )
            if judge.auc is not None and judge.auc.value is not None:
                spoken.append(f"{name}: area {judge.auc.value:.3f}")
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("1 - specificity")
        axis.set_ylabel("sensitivity")
        axis.grid()
        axis.legend(loc="lower right")
    return Picture("scores_roc", "ROC curves", f"ROC curve. {'; '.join(spoken)}.", figure)


def calibration_picture(stated: Mapping[str, ProbabilityResult], colors: Mapping[str, str]) -> Picture:
    """A panel per judge: the share of positives at each level of the stated probability."""
    return level_picture(
        {name: [(b.stated, b.share, b.low, b.high) for b in one.bins] for name, one in stated.items()},
        colors,
        names=("scores_calibration", "Scores as probabilities"),
        axes_say=("stated probability", "share positive"),
        words=("stated", "positive"),
        alt="Calibration curve with intervals; on the dashed diagonal scores are calibrated.",
    )


def bland_altman_picture(limits: Mapping[str, BlandAltmanResult], colors: Mapping[str, str]) -> Picture:
    """A panel per judge: differences by means, the mean difference and the limits of agreement with their intervals."""
    spoken = []
    with panels(len(limits), row_height=3.0) as (figure, axes):
        shown = title_names(limits)
        for axis, (name, one) in zip(axes, limits.items(), strict=True):
            x, y = np.array(one.points).reshape(-1, 2).T
            axis.plot(x, y, linestyle="", marker="o", ms=3, alpha=0.5, color=colors.get(name, COLORS[0]))
            for metric, style in ((one.mean, "-"), (one.lower, "--"), (one.upper, "--")):
                if metric.value is None:
                    continue
                axis.axhline(metric.value, color="#333333", linestyle=style, linewidth=1.2)
                if metric.low is not None and metric.high is not None:
                    axis.axhspan(metric.low, metric.high, color=GREY, alpha=0.15, linewidth=0)
            axis.set_title(shown[name])
            axis.set_xlabel("mean of judge and experts", fontsize=10.5)
            axis.set_ylabel("judge less experts", fontsize=10.5)
            axis.grid(axis="y")
            if one.mean.value is not None and one.lower.value is not None and one.upper.value is not None:
                ends = f"limits {one.lower.value:.3g} to {one.upper.value:.3g}"
                spoken.append(f"{name}: mean difference {one.mean.value:.3g}, {ends}")
    alt = f"Bland-Altman plot; lines are mean difference and limits, bands their intervals. {'. '.join(spoken)}."
    return Picture("scores_bland_altman", "Judge less experts, by size", alt, figure)
