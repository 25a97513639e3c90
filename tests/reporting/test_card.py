import json
import re
from dataclasses import replace

import pytest

from medjudge.reporting.card import TO_ADD, render_card, tripod_items, write_card


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
    for point in ("committee, consent or waiver", "in design, conduct, reporting", "expertise asked of users"):
        assert f"- {point}: {TO_ADD}" in card
    assert "600 cases with an expert label in 100 groups" in card
    assert "train: 700 cases, 117 groups" in card
    assert "PATIENT TEXT" not in card


def test_every_item_of_the_checklist_is_there(card, report_inputs):
    items = tripod_items(report_inputs, "grpo")
    assert [int(topic.split()[0]) for topic in items] == list(range(1, 20))  # the 19 main items, in order
    assert sum(map(len, items.values())) >= 50  # as many points as the checklist has subitems
    for topic, points in items.items():
        assert f"**{topic}**" in card
        assert all(said.strip() for said in points.values()), topic


def test_a_name_inside_a_name_brings_no_sentence_along(report_inputs):
    """Sentences belong to a model because they say so, not because its name occurs in them."""
    audit = report_inputs.results.audit
    renamed = audit.model_copy(update={"statements": ("grpo-2 is fine.", "Rows are few."), "about": (("grpo-2",), ())})
    results = report_inputs.results.model_copy(update={"audit": renamed})
    card = render_card(replace(report_inputs, results=results), "grpo")
    assert "grpo-2 is fine." not in card
    assert "Rows are few." in card


def test_written_beside_the_page(report_inputs, tmp_path):
    path = write_card(report_inputs, tmp_path)
    assert path.name == "MODEL_CARD.md"
    assert path.read_text(encoding="utf-8").startswith("---\nlibrary_name")
