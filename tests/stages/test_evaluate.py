"""Evaluation in both modes: written answers, and labels that are scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.models.small_models import save_base
from tests.small_runs import write_rows

from medjudge import artifacts
from medjudge.commands.evaluate import evaluate_folder
from medjudge.commands.report import rewrite
from medjudge.errors import ConfigError
from medjudge.judging.evaluate_cases import LABELS_STATEMENT, _sent_whole
from medjudge.judging.judge import judgement_of
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.records import Case, Completion, LabelScores, Unparsed, Verdict
from medjudge.tasks.equivalence import EquivalenceContract


def recipe(mode: str, **task: Any) -> Recipe:
    return recipe_from_tree(
        {
            "name": "x",
            "task": {"kind": "appropriateness", "form": "answer_only", "system_prompt": "", **task},
            "data": {"fields": {"condition": "topic"}},
            "evaluate": {"mode": mode, "n_resamples": 100, "baselines": False},
            "model": {"dtype": "float32", "device": "cpu"},
        }
    )


@pytest.mark.parametrize("mode", ["generate", "labels"])
def test_verdicts_of_both_modes(tmp_path: Path, mode: str) -> None:
    settings = recipe(mode, max_completion_tokens=60)
    rows = write_rows(tmp_path / "rows.jsonl", n_variants=3)
    model = {"m": str(save_base(tmp_path / "model"))}
    out = tmp_path / "out"
    evaluate_folder(settings.contract, str(rows), model, out, Console(quiet=True), settings.data, settings)
    verdicts = [json.loads(line) for line in (out / artifacts.VERDICTS).read_text().splitlines()]
    results = artifacts.read_json(out / artifacts.RESULTS)
    assert len(verdicts) == 9
    if mode == "generate":  # a random model writes nothing that can be read
        assert all(
            row["label"] is None and row["unparsed_reason"] and row["completion"] is not None for row in verdicts
        )
        assert all(row["label_probabilities"] is None for row in verdicts)
        assert LABELS_STATEMENT not in results["statements"]
        return
    for row in verdicts:
        probabilities = row["label_probabilities"]
        assert list(probabilities) == list(settings.contract.labels)
        assert sum(probabilities.values()) == pytest.approx(1)
        assert row["confidence"] == max(probabilities.values()) == probabilities[row["label"]]
        assert 0 < row["label_mass"] < 1e-6
        assert row["completion"] is row["unparsed_reason"] is None
    assert results["models"]["m"]["n_unparsed"] == 0
    assert LABELS_STATEMENT in results["statements"]


def test_answers_become_judgements() -> None:
    contract, case = EquivalenceContract(), Case("c", {}, "1")
    assert judgement_of(contract, case, Completion(" 1\n", 3, True)) == Verdict("c", "1")
    assert isinstance(judgement_of(contract, case, Completion("yes", 3, True)), Unparsed)
    scores = LabelScores({"0": -3.0, "1": -2.0}, {"0": 0.27, "1": 0.73}, 0.2)
    assert judgement_of(contract, case, scores) == Verdict("c", "1", 0.73)
    tie = LabelScores({"0": -3.0, "1": -3.0}, {"0": 0.5, "1": 0.5}, 0.1)
    assert judgement_of(contract, case, tie) == Verdict("c", "0", 0.5)


def test_a_task_that_reasons_first_has_no_labels_mode() -> None:
    with pytest.raises(ConfigError, match=r"`evaluate.mode` is labels, but .* reasons before its label"):
        recipe("labels", form="reasoning")


def test_prompts_are_kept_only_where_the_page_is_to_show_them(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", n_variants=1)
    model = {"m": str(save_base(tmp_path / "model"))}
    for asked in (False, True):
        settings = recipe("labels")
        settings = settings.model_copy(update={"report": settings.report.model_copy(update={"show_text": asked})})
        out = tmp_path / f"out-{asked}"
        evaluate_folder(settings.contract, str(rows), model, out, Console(quiet=True), settings.data, settings)
        assert (out / artifacts.PROMPTS).exists() == asked
        rewrite(out, Console(quiet=True), show_text=asked)
        page = (out / artifacts.REPORT).read_text(encoding="utf-8")
        assert ("variant 0" in page) == asked


def test_an_endpoint_that_saw_more_than_a_local_model_would_is_said() -> None:
    """Its server cuts nothing: a prompt above `max_prompt_tokens` is whole there and shortened here."""
    contract = EquivalenceContract(instructions="terse", max_prompt_tokens=100)
    texts = {"question": "Why?", "reference": "So.", "candidate": "word " * 10}
    short, long = Case("s", texts), Case("l", {**texts, "candidate": "word " * 200})
    assert _sent_whole(contract, [short, long], []) == ()
    assert _sent_whole(contract, [short], ["gpt"]) == ()
    (sentence,) = _sent_whole(contract, [short, long], ["gpt"])
    assert "Prompts go to endpoints (gpt) whole" in sentence
    assert "1 of 2 prompts are longer than its 100" in sentence


def test_prompts_that_lost_words_are_counted_in_results_sentences_and_page(tmp_path: Path) -> None:
    """Half of the rows have a text that does not fit: the other half's agreement stands beside theirs."""
    settings = recipe("labels", instructions="terse", max_prompt_tokens=120)
    path = write_rows(tmp_path / "rows.jsonl", n_variants=4)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows[::2]:
        row["variant"] += " and a word more" * 60
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = {"m": str(save_base(tmp_path / "model"))}
    data = settings.data.model_copy(update={"slices": ("procedure",)})
    out = tmp_path / "out"
    evaluate_folder(settings.contract, str(path), model, out, Console(quiet=True), data, settings)
    verdicts = [json.loads(line) for line in (out / artifacts.VERDICTS).read_text(encoding="utf-8").splitlines()]
    cut = [row for row in verdicts if row["n_words_cut"]]
    results = artifacts.read_json(out / artifacts.RESULTS)
    prompts = results["models"]["m"]["prompts"]
    assert len(cut) == 6
    assert (prompts["n"], prompts["n_shortened"]) == (12, 6)
    assert prompts["n_words_cut"] == sum(row["n_words_cut"] for row in cut)
    assert prompts["shortened"]["value"] == pytest.approx(sum(row["correct"] for row in cut) / 6)
    assert prompts["whole"]["value"] == pytest.approx(
        sum(row["correct"] for row in verdicts if not row["n_words_cut"]) / 6
    )
    assert any("6 of 12 prompts were shortened to fit `max_prompt_tokens` (120)" in s for s in results["statements"])
    assert {row["generator"] for row in results["audit"]["judges"]["m"]["slices"]["procedure"]} == {
        row["procedure"] for row in rows
    }
    rewrite(out, Console(quiet=True))
    page = (out / artifacts.REPORT).read_text(encoding="utf-8")
    assert "6 of 12" in page
    assert "Agreement on cut ones, %" in page
    assert "m by procedure" in page
