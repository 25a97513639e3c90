import io
from dataclasses import replace

from rich.console import Console

from medjudge.reporting.inputs import chance_text, interval_text, metric_names, value_text
from medjudge.reporting.tables import results_tables


def shown(results, **options):
    console = Console(width=170, color_system=None, file=io.StringIO())
    console.print(*results_tables(results, 170, **options))
    return console.file.getvalue()


def test_every_model_with_n_unparsed_and_intervals(report_inputs):
    results = report_inputs.results
    text = shown(results)
    for name, model in results.models.items():
        line = next(line for line in text.splitlines() if line.startswith(f"│ {name} "))
        assert f"{model.n:,}" in line
        assert f"{model.n_unparsed:,}" in line
        assert value_text(model.metrics["accuracy"], "accuracy") in line
    sft = results.models["sft"].metrics
    assert interval_text(sft["accuracy"], "accuracy").replace(" to ", "–") in text
    assert "Pearson r" in text
    assert "Intervals of 95 % count the 100 groups" in text
    assert "A case without one, whether unreadable, refused, cut off, failed or absent (no row), counts as" in text


def test_all_metrics_on_request(report_inputs):
    assert "Weighted F1" not in shown(report_inputs.results)
    assert "Weighted F1" in shown(report_inputs.results, all_metrics=True)


def test_a_baseline_has_no_readability(report_inputs):
    line = next(line for line in shown(report_inputs.results).splitlines() if line.startswith("│ majority "))
    assert "100.0" not in line


def test_words(report_inputs):
    results = report_inputs.results
    assert metric_names(results)[:2] == ["accuracy", "accuracy_on_schema"]
    assert chance_text("sft", results) == "above"
    assert chance_text("base", results) == "–"  # no answer of it could be read
    assert chance_text("grpo", results) == "above"
    assert chance_text("chance", results) == "–"
    undefined = results.models["base"].metrics["pearson"]
    assert (value_text(undefined, "pearson"), interval_text(undefined, "pearson")) == ("–", "")
    assert value_text(undefined.model_copy(update={"value": -0.25}), "pearson") == "\N{MINUS SIGN}0.250"


def test_markup_in_a_model_name_is_shown_as_it_is(report_inputs):
    results = report_inputs.results
    renamed = results.model_copy(update={"models": {"[bold]x[/bold]": results.models["sft"]}})
    assert "[bold]x[/bold]" in shown(replace(report_inputs, results=renamed).results)
