import struct

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from medjudge.metrics.summary import AnalysisOptions, summarise
from medjudge.records import Case, Verdict
from medjudge.reporting.audit_figures import audit_pictures
from medjudge.reporting.figures import (
    confusion_picture,
    differences_picture,
    metrics_picture,
    model_colors,
    result_pictures,
    short_names,
    training_picture,
    training_pictures,
)
from medjudge.tasks.scale import LabelScale


def test_pictures_are_png_of_the_stated_width_and_leave_pyplot_alone(report_inputs):
    pictures = result_pictures(report_inputs.results) + training_pictures(report_inputs.histories)
    names = [picture.name for picture in pictures]
    assert names == [
        "metrics",
        "differences",
        "confusion_base",
        "confusion_sft",
        "confusion_grpo",
        "training_base",
        "training_sft",
        "training_grpo",
    ]
    for picture in pictures:
        png = picture.png()
        assert png.startswith(b"\x89PNG")
        assert struct.unpack(">I", png[16:20])[0] == 1024  # 6.4 in at 160 dots per inch
        assert len(picture.alt) > 40
    assert plt.get_fignums() == []


def test_the_same_figure_gives_the_same_bytes(report_inputs):
    model = report_inputs.results.models["sft"]
    assert confusion_picture("sft", model).png() == confusion_picture("sft", model).png()


def titles(picture):
    return [axis.get_title(loc="left") for axis in picture.figure.axes if axis.get_visible()]


def test_texts_do_not_overlap(report_inputs, mcq_inputs):
    """Axis titles, tick labels and annotations of every picture keep clear of each other."""
    for inputs in (report_inputs, mcq_inputs):
        for picture in result_pictures(inputs.results) + training_pictures(inputs.histories):
            FigureCanvasAgg(picture.figure).draw()  # lays the figure out
            boxes = []
            for axis in picture.figure.axes:
                if not axis.get_visible():
                    continue
                texts = [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
                low, high = sorted(axis.get_xlim())  # ticks beyond the ends have labels, but none is drawn
                texts += [t for t in axis.get_xticklabels() if low <= t.get_position()[0] <= high]
                texts += axis.get_yticklabels()
                boxes += [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text() and t.get_visible()]
            for i, (text, box) in enumerate(boxes):
                for other_text, other in boxes[i + 1 :]:
                    width = min(box.x1, other.x1) - max(box.x0, other.x0)
                    height = min(box.y1, other.y1) - max(box.y0, other.y0)
                    assert width <= 1 or height <= 3, (picture.name, text, other_text)


def test_panels_follow_the_task(report_inputs, mcq_inputs):
    assert titles(metrics_picture(report_inputs.results)) == [
        "Accuracy, %",
        "Coverage, %",
        "Macro-F1, %",
        "Pearson r",
    ]
    assert "Valid JSON, %" in titles(metrics_picture(mcq_inputs.results))


def test_no_reference_no_differences(report_inputs):
    assert differences_picture(report_inputs.results.model_copy(update={"reference": None})) is None
    assert differences_picture(report_inputs.results.model_copy(update={"comparisons": ()})) is None


def test_curves_of_grpo_and_of_sft(report_inputs):
    grpo = training_picture("grpo", report_inputs.histories["grpo"])
    assert titles(grpo) == [
        "Reward",
        "Reward components",
        "Zero-variance groups, share",
        "Completion length, tokens",
        "Cut off at the limit, share",
        "KL to the reference policy",
        "Entropy",
        "Loss",
        "Gradient norm",
    ]
    assert "Reward components (correctness) from" in grpo.alt
    sft = training_picture("sft", report_inputs.histories["sft"])
    assert titles(sft) == ["Loss", "Gradient norm"]
    assert "Loss (evaluation) from" in sft.alt


@pytest.mark.parametrize("history", [[], [{"step": 3, "train_loss": 1.0}], [{"step": 1, "loss": None}]])
def test_a_stage_that_logged_no_number_has_no_picture(history):
    assert training_picture("sft", history) is None


def test_a_single_point_is_drawn():
    assert titles(training_picture("sft", [{"step": 1, "loss": 1.0}])) == ["Loss"]


def test_odd_labels_are_drawn(report_inputs):
    """Dollar signs are no formula, and a script that the font lacks is no warning."""
    model = report_inputs.results.models["sft"]
    labels = ("$x^2$", "适合", "a" * 40)
    confusion = model.confusion.model_copy(update={"rows": labels, "columns": (*labels, "unparsed")})
    assert confusion_picture("m/x", model.model_copy(update={"confusion": confusion})).png()


def drawn_colors(picture, axis=0):
    """The colours of the lines that hold a point, as drawn on one panel, in order."""
    return [to_hex(line.get_color()).upper() for line in picture.figure.axes[axis].lines]


def test_a_model_has_one_colour_in_every_picture():
    """The first model states no confidence and takes no part in half of the pictures; the others keep their colours."""
    rng = np.random.default_rng(0)
    cases = [
        Case(f"c{i}", {"q": "x"}, gold=("no", "yes")[i % 2], group=f"g{i // 2}", slices={"generator": "xy"[i // 2 % 2]})
        for i in range(60)
    ]
    said = {
        name: [
            Verdict(case.case_id, str(rng.choice(["no", "yes"])), None if name == "first" else float(rng.random()))
            for case in cases
        ]
        for name in ("first", "second", "third")
    }
    results = summarise(
        cases,
        said,
        contract=LabelScale(labels=("no", "yes"), positive="yes"),
        split="t",
        options=AnalysisOptions(reference="first"),
    )
    colors = {name: color.upper() for name, color in model_colors(results).items()}
    assert len(set(colors.values())) == 3
    pictures = {picture.name: picture for picture in [*result_pictures(results), *audit_pictures(results)]}
    assert set(colors.values()) <= set(drawn_colors(pictures["metrics"]))
    assert {colors["second"], colors["third"]} <= set(drawn_colors(pictures["differences"]))
    assert drawn_colors(pictures["risk_coverage"]) == [colors["second"], colors["third"]]
    for panel, name in enumerate(("second", "third")):
        assert colors[name] in drawn_colors(pictures["reliability"], panel)
        bars = {to_hex(bar.get_facecolor()).upper() for bar in pictures["confidences"].figure.axes[panel].patches}
        assert colors[name] in bars
        assert not bars & {color for other, color in colors.items() if other != name}
    for name in said:
        assert set(drawn_colors(pictures[f"generators_{name}"])) == {colors[name]}
    stage = training_pictures({"third": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]}, colors)
    assert drawn_colors(stage[0]) == [colors["third"]]


@pytest.mark.parametrize(
    "names",
    [
        ["short", "also short"],
        [f"organisation/some-rather-long-model-name-{size}b-instruct" for size in (3, 7, 70)],
        ["a" * 40 + "x" + "b" * 40, "a" * 40 + "y" + "b" * 40],
    ],
)
def test_long_names_stay_apart(names):
    shown = short_names(names, 20)
    assert len(set(shown)) == len(names)
    assert max(map(len, shown)) <= 20
