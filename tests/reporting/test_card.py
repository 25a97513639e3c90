import json
import re

import pytest

from medjudge.reporting.card import TO_ADD, render_card, write_card


@pytest.fixture(scope="module")
def card(report_inputs):
    return render_card(report_inputs, "grpo")


def test_metadata_holds_the_measured_values(card, report_inputs):
    head = card.split("---\n")[1]
    tree = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in head.splitlines())}
    (entry,) = tree["model-index"]
    metrics = {metric["type"]: metric["value"] for metric in entry["results"][0]["metrics"]}
    model = report_inputs.results.models["grpo"]
    assert metrics["accuracy"] == model.metrics["accuracy"].value
    assert metrics["macro_f1"] == pytest.approx(model.metrics["macro_f1"].value)
    assert entry["name"] == "grpo"
    assert tree["library_name"] == "transformers"
    assert "base_model" not in tree  # a built-in base is no hub id


def test_claims_are_the_statements_and_no_others(card, report_inputs):
    section = card[card.index("## What the tests support") : card.index("## Results")]
    said = re.findall(r"^- (.+)$", section, re.MULTILINE)
    results = report_inputs.results
    assert set(said) <= {*results.statements, *results.audit.statements}
    assert set(results.statements) <= set(said)


def test_what_a_run_cannot_know_is_left_to_its_authors(card):
    for topic in ("Ethical approval", "Public involvement", "Usability in context"):
        assert f"**{topic}.** {TO_ADD}" in card
    assert "600 cases with an expert label in 100 groups" in card
    assert "train: 700 cases, 117 groups" in card
    assert "PATIENT TEXT" not in card


def test_written_beside_the_page(report_inputs, tmp_path):
    path = write_card(report_inputs, tmp_path)
    assert path.name == "MODEL_CARD.md"
    assert path.read_text(encoding="utf-8").startswith("---\nlibrary_name")
