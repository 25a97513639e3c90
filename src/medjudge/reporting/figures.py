"""Pictures of an evaluation and of the training before it, each with the sentence that replaces it in text.

Figures are matplotlib objects of their own (no pyplot state), about 16 cm wide so that they stay readable on a phone.
Colours are Okabe and Ito's (2008), distinct with any colour vision; shape and text never rely on them alone.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medjudge.metrics.result_types import ModelResult, Results
from medjudge.reporting.inputs import DASH, MINUS, metric_names, metric_title, number_text, points_text, shown_metric

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#767676"
WIDTH_IN = 6.4
DPI = 160
_LONGEST_NAME = 20
_COMPACT: Any = {"handlelength": 1.2, "labelspacing": 0.2, "borderpad": 0.2, "columnspacing": 1.0, "handletextpad": 0.5}

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 11,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # a label may hold a dollar sign
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with its file name (without suffix), its heading and its alternative in words."""

    name: str
    title: str
    alt: str
    figure: Figure

    def png(self) -> bytes:
        """The picture's PNG file; the same bytes for the same figure and matplotlib."""
        buffer = io.BytesIO()
        with rc_context(STYLE), warnings.catch_warnings():
            # A label in a script that the font lacks is drawn as boxes; the tables beside it show the text.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


def result_pictures(results: Results) -> list[Picture]:
    """Metrics by model, differences to the reference (if there is one), and a confusion matrix per model."""
    pictures = [metrics_picture(results)]
    differences = differences_picture(results)
    if differences is not None:
        pictures.append(differences)
    pictures += [confusion_picture(name, model) for name, model in results.of_role("model").items()]
    return pictures


def training_pictures(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], colors: Mapping[str, str] | None = None
) -> list[Picture]:
    """One picture of curves per stage that logged any. colors: model -> colour; a stage is called like its model."""
    pictures = (
        training_picture(stage, history, (colors or {}).get(stage, COLORS[0])) for stage, history in histories.items()
    )
    return [picture for picture in pictures if picture is not None]


def metrics_picture(results: Results) -> Picture:
    """A panel per metric: each model's value and interval, baselines in grey, chance as a line on accuracy."""
    names = [name for name in metric_names(results) if name not in ("accuracy_on_schema", "weighted_f1")]
    models, colors = list(results.models.items()), model_colors(results)
    with panels(len(names), row_height=0.5 + 0.3 * len(models) + 0.35) as (figure, axes):
        for position, (axis, name) in enumerate(zip(axes, names, strict=True)):
            low_end = -1.0 if name == "pearson" and _any_negative(results, name) else 0.0
            for row, (model_name, model) in enumerate(models):
                metric = shown_metric(model, name)
                if metric is not None and metric.value is not None:
                    _point(axis, metric.value, metric.low, metric.high, row, colors[model_name])
                axis.annotate(
                    DASH if metric is None else number_text(metric.value, name),
                    (1, row),
                    (4, 0),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    va="center",
                    fontsize=10.5,
                    color="#222222" if model.role == "model" else GREY,
                )
            axis.set_xlim(low_end - 0.03, 1.03)
            ticks = np.linspace(low_end, 1, 5)
            labels = [f"{tick:g}" if name == "pearson" else f"{100 * tick:.0f}" for tick in ticks]
            axis.set_xticks(ticks, [label.replace("-", MINUS) for label in labels])
            axis.set_title(metric_title(name) + ("" if name == "pearson" else ", %"))
            if name == "accuracy":
                axis.axvline(results.chance, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
                axis.annotate(
                    f"chance {100 * results.chance:.0f}",
                    (results.chance, -0.62),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9.5,
                    color=GREY,
                )
            _rows(axis, [name for name, _ in models], labelled=position % 2 == 0, results=results)
    spoken = "; ".join(
        f"{name} accuracy {number_text(model.metrics['accuracy'].value, 'accuracy')} %, "
        f"macro-F1 {number_text(model.metrics['macro_f1'].value, 'macro_f1')} %"
        for name, model in models
    )
    alt = (
        f"Metrics by model with {100 * results.level:g} % intervals, baselines in grey, chance at "
        f"{100 * results.chance:.1f} % accuracy. {spoken}. The table holds every number."
    )
    return Picture("metrics", "Metrics by model", alt, figure)


def differences_picture(results: Results) -> Picture | None:
    """Differences to the reference model in points with intervals; None if nothing was compared with it."""
    compared = [c for c in results.comparisons if c.b == results.reference and c.a in results.of_role("model")]
    if not compared:
        return None
    names = [name for name in metric_names(results) if any(name in c.differences for c in compared)]
    spoken = []
    with panels(len(names), row_height=0.85 + 0.34 * len(compared)) as (figure, axes):
        for position, (axis, name) in enumerate(zip(axes, names, strict=True)):
            axis.axvline(0, color="#555555", linewidth=1)
            for row, comparison in enumerate(compared):
                difference = comparison.differences[name]
                if difference.value is None:
                    continue
                color = model_colors(results)[comparison.a]
                _point(axis, difference.value, difference.low, difference.high, row, color)
                axis.annotate(
                    points_text(difference.value),
                    (1, row),
                    (4, 0),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    va="center",
                    fontsize=10.5,
                )
                ends = "" if difference.low is None else f" ({difference.low:.1f} to {difference.high:.1f})"
                spoken.append(f"{comparison.a} {metric_title(name)} {difference.value:+.1f}{ends}")
            _widen(axis)
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axis.set_title(f"{metric_title(name)}, points")
            _rows(axis, [c.a for c in compared], labelled=position % 2 == 0, results=results)
    alt = f"Differences to {results.reference} in points with intervals: {'; '.join(spoken)}."
    return Picture("differences", f"Differences to {results.reference}", alt, figure)


def confusion_picture(name: str, model: ModelResult) -> Picture:
    """Expert label by answer: counts, shaded by the share of the expert label's cases."""
    counts = np.asarray(model.confusion.counts, dtype=float)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    n_rows, n_columns = counts.shape
    labels = [textwrap.fill(label, 14, break_long_words=True) for label in model.confusion.columns]
    lines = max(label.count("\n") + 1 for label in labels)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, 1.25 + 0.17 * lines + 0.56 * n_rows), layout="constrained")
        axis = figure.add_subplot()
        axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for i in range(n_rows):
            for j in range(n_columns):
                color = "white" if share[i, j] > 0.55 else "#222222"
                text = f"{counts[i, j]:,.0f}" + (f"\n{100 * share[i, j]:.0f} %" if counts[i].sum() else "")
                axis.text(j, i, text, ha="center", va="center", color=color, fontsize=10.5, linespacing=1.15)
        axis.set_xticks(range(n_columns), labels)
        axis.set_yticks(range(n_rows), labels[:n_rows])
        axis.set_xlabel(f"answer of {name}")
        axis.set_ylabel("expert label")
        axis.axvline(n_columns - 1.5, color="#555555", linewidth=1.5)
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
    rows = "; ".join(
        f"expert {row}: "
        + ", ".join(f"{count:,} {column}" for column, count in zip(model.confusion.columns, line, strict=True) if count)
        for row, line in zip(model.confusion.rows, model.confusion.counts, strict=True)
        if sum(line)
    )
    return Picture(
        f"confusion_{slug(name)}", f"Confusion matrix of {name}", f"Confusion matrix of {name}. {rows}.", figure
    )


def short_names(names: Sequence[str], longest: int) -> list[str]:
    """The names as a figure has room for them: the middle of a long one left out, and no two alike."""
    shown = [_short(name, longest) for name in names]
    if len(set(shown)) < len(set(names)):
        first, last = min(names), max(names)  # what these two share at the start, all names share
        same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        shown = [_short(name if same < 4 else "…" + name[same:], longest) for name in names]
    if len(set(shown)) < len(set(names)):
        shown = [f"{place} {_short(name, longest - 3)}" for place, name in enumerate(names, 1)]
    return shown


def _short(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"


def slug(name: str) -> str:
    """A name as part of a file name."""
    return "".join(c if c.isalnum() else "_" for c in name)


@dataclass(frozen=True, slots=True)
class _Panel:
    title: str
    curves: Mapping[str, str]
    """Name in the legend -> key of the log."""
    from_zero: bool = False


_LINES = ("-", "--", ":", "-.")


def training_picture(stage: str, history: Sequence[Mapping[str, Any]], color: str = COLORS[0]) -> Picture | None:
    """What a stage logged, by optimiser step: loss, reward and its components, and how the groups fared.

    history: log entries of transformers or TRL. None if no entry holds a known number.
    """
    components = sorted(
        {key for entry in history for key in entry if key.startswith("rewards/") and key.endswith("/mean")}
    )
    is_grpo = bool(components) or any("reward" in entry for entry in history)
    wanted = [
        _Panel("Reward", {"total": "reward"}),
        _Panel("Reward components", {key.split("/")[1]: key for key in components}),
        _Panel("Zero-variance groups, share", {"share": "frac_reward_zero_std"}, from_zero=True),
        _Panel("Completion length, tokens", {"mean": "completions/mean_length"}, from_zero=True),
        _Panel("Cut off at the limit, share", {"share": "completions/clipped_ratio"}, from_zero=True),
        _Panel("KL to the reference policy", {"KL": "kl"}),
        _Panel("Entropy", {"entropy": "entropy"}),
        _Panel("Loss", {"training": "loss", "evaluation": "eval_loss"}),
        _Panel("Gradient norm", {"norm": "grad_norm"}, from_zero=True),
    ]
    if not is_grpo:
        wanted = [panel for panel in wanted if panel.title in ("Loss", "Gradient norm")]
    drawn = [(panel, curves) for panel in wanted if (curves := _curves(panel, history))]
    if not drawn:
        return None
    spoken = []
    with panels(len(drawn), row_height=1.95) as (figure, axes):
        for axis, (panel, curves) in zip(axes, drawn, strict=True):
            # The other colours belong to other models: curves of one stage differ by their line.
            lines = cycle((shade, style) for shade in (color, GREY) for style in _LINES)
            for line, (label, (steps, values)) in zip(lines, curves.items(), strict=False):
                _curve(axis, steps, values, line, label)
                which = panel.title if len(curves) == 1 else f"{panel.title} ({label})"
                spoken.append(f"{which} from {values[0]:.3g} to {values[-1]:.3g}")
            if len(curves) > 1:  # between title and curves, where it covers nothing
                axis.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.97), ncols=2, **_COMPACT)
            axis.set_title(panel.title, pad=8 + 15 * -(-len(curves) // 2) if len(curves) > 1 else 6)
            if len({step for steps, _ in curves.values() for step in steps}) == 1:
                step = next(iter(curves.values()))[0][0]
                axis.set_xlim(step - 1, step + 1)
            axis.grid(axis="y")
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(4))
            axis.margins(y=0.12)
            if panel.from_zero:
                highest = max(max(values) for _, values in curves.values())
                axis.set_ylim(0, 1.12 * highest if highest > 0 else 1.0)
            axis.set_xlabel("optimiser step", fontsize=10.5)
    alt = f"Training curves of {stage} by optimiser step: {'; '.join(spoken)}."
    return Picture(f"training_{stage}", f"Training curves of {stage}", alt, figure)


def _curves(panel: _Panel, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Legend name -> (steps, values) of the curves that were logged; entries without a number are passed over."""
    curves = {}
    for label, key in panel.curves.items():
        points = [
            (float(entry.get("step", number)), float(entry[key]))
            for number, entry in enumerate(history, 1)
            if isinstance(entry.get(key), int | float) and np.isfinite(entry[key])
        ]
        if points:
            steps, values = zip(*points, strict=True)
            curves[label] = (list(steps), list(values))
    return curves


def _curve(axis: Axes, steps: list[float], values: list[float], line: tuple[str, str], label: str) -> None:
    """A line of a colour and a style; many noisy points fade behind their running mean."""
    color, style = line
    window = len(values) // 12
    if window < 2:
        axis.plot(steps, values, color=color, label=label, linestyle=style, linewidth=1.6, marker="o", markersize=2.5)
        return
    axis.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
    sums = np.cumsum([0.0, *values])
    middle = np.arange(len(values))
    half = np.minimum(window // 2, np.minimum(middle, middle[::-1]))  # narrower at the ends, so that nothing is shifted
    means = (sums[middle + half + 1] - sums[middle - half]) / (2 * half + 1)
    axis.plot(steps, means, color=color, label=label, linestyle=style, linewidth=1.8)


@contextmanager
def panels(n: int, *, row_height: float, n_columns: int = 2) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `n` panels, two in a row if not said otherwise, drawn in this module's style."""
    n_columns = min(n_columns, n)
    n_rows = -(-n // n_columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, row_height * n_rows), layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        axes = list(grid.ravel())
        for axis in axes[n:]:
            axis.set_visible(False)
        yield figure, axes[:n]


def _point(axis: Axes, value: float, low: float | None, high: float | None, row: int, color: str) -> None:
    if low is not None and high is not None:
        axis.plot([low, high], [row, row], color=color, linewidth=1.8, marker="|", markersize=9, markeredgewidth=1.6)
    axis.plot([value], [row], marker="o", markersize=4.5, color=color, zorder=3)


def _rows(axis: Axes, names: Sequence[str], *, labelled: bool, results: Results) -> None:
    axis.set_ylim(len(names) - 0.4, -0.9)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    # Longer names would leave no room for the panels; the alternative text and the tables have them in full.
    shown = short_names(names, _LONGEST_NAME)
    axis.set_yticks(range(len(names)), shown if labelled else [""] * len(names))
    for text, name in zip(axis.get_yticklabels(), names, strict=True):
        text.set_color("#222222" if results.models[name].role == "model" else GREY)


def _widen(axis: Axes) -> None:
    """Room around the intervals, with zero in view."""
    low, high = axis.dataLim.x0, axis.dataLim.x1
    low, high = min(low, 0.0), max(high, 0.0)
    margin = max(0.08 * (high - low), 1.0)
    axis.set_xlim(low - margin, high + margin)


def model_colors(results: Results) -> dict[str, str]:
    """Model -> its colour, in every figure of a page; baselines are grey. From the eighth model on they repeat."""
    colors = dict(zip(results.of_role("model"), COLORS * len(results.models), strict=False))
    return {name: colors.get(name, GREY) for name in results.models}


def _any_negative(results: Results, name: str) -> bool:
    values = [model.metrics[name] for model in results.models.values() if name in model.metrics]
    return any(end is not None and end < 0 for metric in values for end in (metric.value, metric.low))
