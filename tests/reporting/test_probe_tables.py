"""The probes' table and picture, by hand-made results."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.backends.backend_agg import FigureCanvasAgg

from medjudge.metrics.metric_result import MetricResult
from medjudge.metrics.probes import AttackResult, ConsistencyResult, JudgeProbes, ProbeResult, Probes
from medjudge.metrics.sentences import flip_statement
from medjudge.reporting.html import write_report
from medjudge.reporting.inputs import MINUS
from medjudge.reporting.probe_tables import probe_grids, probe_pictures


def share(value, low=None, high=None, n=40):
    return MetricResult(value=value, low=low, high=high, n=n, method="Wilson")


def flips(title, value, low, high, shift=None):
    return ProbeResult(
        title=title,
        change="what is changed",
        n_probed=44,
        n_unchanged=6,
        n_unreadable=4,
        n_became_unreadable=3,
        flips=share(value, low, high),
        to_positive=shift,
        matrix={"0": {"1": 4}},
    )


def probed(results, **judges):
    return results.model_copy(update={"probes": Probes(judges=judges, skipped={"swap": "no second text."})})


JUDGE = JudgeProbes(
    flips={
        "authority": flips("irrelevant authority", 0.1, 0.04, 0.23, share(-0.05, -0.1, -0.01)),
        "verbosity": flips("padding", None, None, None),
    },
    consistency=ConsistencyResult(
        k=5,
        temperature=0.7,
        n_unparsed=2,
        agreement=share(0.9, 0.85, 0.94),
        unanimous=share(0.8),
        majority_accuracy=None,
        single_accuracy=None,
    ),
    not_asked={"rewording": "too long."},
)


def cells_of(grid, head):
    return {
        column: (cell.text, cell.under)
        for row, cells in grid.rows
        if row.split("\n")[0] == head
        for column, cell in zip(grid.columns, cells, strict=True)
    }


def test_the_table_shows_rates_shifts_counts_and_what_was_left_out(report_inputs):
    flip_grid, self_grid = probe_grids(probed(report_inputs.results, sft=JUDGE))
    assert cells_of(flip_grid, "irrelevant authority") == {
        "sft: flips, %": ("10.0", "4.0 to 23.0"),
        "sft: towards positive, points": (f"{MINUS}5.0", f"{MINUS}10.0 to {MINUS}1.0"),
        "sft: n": ("40", ""),
        "sft: unreadable": ("4", "3 by the change"),
    }
    assert cells_of(flip_grid, "padding")["sft: flips, %"] == ("–", "")
    assert "swap was asked of no case: no second text." in flip_grid.note
    assert "rewording was not asked of sft: too long." in flip_grid.note
    assert cells_of(self_grid, "Two samples agree, %") == {"sft": ("90.0", "85.0 to 94.0")}
    assert cells_of(self_grid, "The majority is right, %") == {"sft": ("–", "")}


def test_the_picture_has_words_and_its_texts_keep_clear(report_inputs):
    two = probed(report_inputs.results, sft=JUDGE, **{"a-model-with-a-name-that-is-much-too-long-for-a-title": JUDGE})
    (picture,) = probe_pictures(two)
    assert "sft: irrelevant authority 10.0 % (4.0 to 23.0); contradicts itself when sampled 10.0 % (6.0 to 15.0)" in (
        picture.alt
    )
    FigureCanvasAgg(picture.figure).draw()
    width = picture.figure.get_window_extent().width
    for axis in picture.figure.axes:
        low, high = axis.get_xlim()  # ticks beyond the ends have labels, but none is drawn
        ticks = [tick for tick in axis.get_xticklabels() if low <= tick.get_position()[0] <= high]
        texts = [axis._left_title, axis.xaxis.label, *ticks, *axis.get_yticklabels()]
        assert all(text.get_window_extent().x1 <= width + 1 for text in texts if text.get_text())


def test_nothing_without_probes_and_an_empty_panel_is_drawn(report_inputs, tmp_path):
    assert probe_grids(report_inputs.results) == []
    assert probe_pictures(report_inputs.results) == []
    silent = JudgeProbes(flips={"verbosity": flips("padding", None, None, None)}, consistency=None, not_asked={})
    results = probed(report_inputs.results, sft=silent)
    page = write_report(replace(report_inputs, results=results), tmp_path).read_text(encoding="utf-8")
    assert "sft: nothing could be compared" in page
    assert '<section id="probes">' in page


def test_attacks_have_a_table_of_their_own(report_inputs):
    attack = AttackResult(
        to_attacker=share(0.6, 0.4, 0.8, n=20),
        to_other=share(0.1, n=20),
        beside="rewording",
        beyond=share(0.5, 0.3, 0.7),
    )
    result = flips("attack: closing tag", 0.7, 0.5, 0.8).model_copy(update={"attack": attack})
    judge = JudgeProbes(flips={"injection/closing": result}, consistency=None, not_asked={})
    (grid,) = probe_grids(probed(report_inputs.results, sft=judge))
    assert grid.caption == "Attacks"
    cells = cells_of(grid, "closing tag")
    assert cells["sft: to the attacker's label, %"] == ("60.0", "40.0 to 80.0")
    assert cells["sft: beyond, points"][0] == "+50.0"
    assert "(rewording)" in grid.note
    assert "60.0 % (40.0 to 80.0) of 20 verdicts went to the attacker's label, 10.0 % to another" in flip_statement(
        "sft", result
    )
