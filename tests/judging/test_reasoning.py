"""Reasoning measured case by case, and what tables say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from medjudge.errors import ConfigError
from medjudge.judging import reasoning as measures
from medjudge.judging.reasoning import extractor_of, measure_reasoning
from medjudge.metrics.entities import TermList
from medjudge.metrics.reasoning import ReasoningNumbers, summarise_reasoning
from medjudge.records import Rollout
from medjudge.reporting.reasoning_tables import reasoning_grids
from medjudge.reporting.tables import grid_tables
from medjudge.rewards.composition import RewardContext
from medjudge.rewards.embedding import DIRECTIONS, EmbeddingReward
from medjudge.settings.rewards import EmbeddingSettings, LlmSettings, RewardSettings
from medjudge.tasks.appropriateness import AppropriatenessContract
from tests.rewards.rollouts import case, said, unread

TERMS = TermList("mine", ["CT", "blood", "knee"])
EVIDENCE = "[5] One. text\n[7] Two. text"
TOLD = case(reason="CT shows blood. [5]", evidence=EVIDENCE, case_id="told")
UNTOLD = case(case_id="untold")


class Similarity(EmbeddingReward):
    """Words for vectors: CT is one axis, everything else the other."""

    def __init__(self, context: RewardContext) -> None:
        def embed(texts: Sequence[str]) -> Any:
            return np.array([(1.0, 0.0) if "CT" in text else (0.0, 1.0) for text in texts], dtype=np.float32)

        super().__init__(DIRECTIONS["both"], EmbeddingSettings(), embed, context.cases, 0, baseline=0.0)


class Marks:
    """A judge that marks everything 0.7, and fails on what it cannot read."""

    def __init__(self, context: RewardContext) -> None:
        self.n = 0

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        self.n += len(rollouts)
        return [None if not r.case.reason else 0.7 for r in rollouts]

    def report(self) -> dict[str, Any]:
        return {"judge": "m", "n_marked": self.n, "n_failed": 1}


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "embedding", Similarity)
    monkeypatch.setattr(measures, "llm_reward", Marks)


def context(judge: str | None = None) -> RewardContext:
    return RewardContext(AppropriatenessContract(), settings=RewardSettings(llm=LlmSettings(judge=judge)))


ROLLOUTS = [
    said("A", TOLD, "CT shows blood. [5]"),
    said("A", TOLD, "The knee hurts. [9]"),
    unread(TOLD),
    said("A", UNTOLD, "CT. [5]"),
]


def test_case_by_case() -> None:
    measured = measure_reasoning({"m": ROLLOUTS}, context("m"), TERMS)
    assert measured.numbers["m"] == [
        ReasoningNumbers(1.0, 7.0, 2, 2, 2, n_cited=1, n_valid=1, has_evidence=True),
        ReasoningNumbers(0.0, 7.0, 0, 1, 2, n_cited=1, n_valid=0, has_evidence=True),
        ReasoningNumbers(0.0, 7.0, 0, 0, 2, has_evidence=True),
        ReasoningNumbers(None, None, n_cited=1, n_valid=0),  # no reasons to compare with; [5] is made up here
    ]
    assert measured.facts["judge"] == "m, 4 marked, 1 not marked"
    assert measured.facts["entities"] == "mine"
    assert measured.not_measured == {}


def test_rows_without_reasons_ask_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "embedding", lambda _: pytest.fail("an embedding model was built"))
    monkeypatch.setattr(measures, "llm_reward", lambda _: pytest.fail("a judge was built"))
    measured = measure_reasoning({"m": [said("A", UNTOLD, "CT.")]}, context("m"), TERMS)
    assert measured.numbers["m"] == [ReasoningNumbers()]
    assert measured.facts == {}


def test_tables_show_what_was_measured_and_say_what_was_not() -> None:
    measured = measure_reasoning({"a": ROLLOUTS, "b": ROLLOUTS[::-1]}, context(), TERMS)
    results = summarise_reasoning(
        measured.numbers,
        ["1", "2", "3", "4"],
        reference="a",
        level=0.95,
        n_resamples=100,
        seed=0,
        facts=measured.facts,
        not_measured=measured.not_measured,
    )
    models, differences = reasoning_grids(results, 0.95)
    assert "Judge score /10" not in models.columns
    assert "Not measured: Judge score /10 (no judge is named (`evaluate.llm.judge`))." in models.note
    assert [head for head, _ in models.rows] == ["a", "b"]
    assert models.rows[0][1][models.columns.index("Reasoning alignment")].text == "33.3"
    assert [head for head, _ in differences.rows] == ["b minus a"]
    console = Console(width=200, record=True)
    console.print(*grid_tables(models, 200))
    assert "Reasoning alignment" in console.export_text()


def test_nothing_measured_is_said_in_words_without_a_table() -> None:
    results = summarise_reasoning(
        {"a": [ReasoningNumbers()]},
        ["1"],
        reference="a",
        level=0.95,
        n_resamples=100,
        seed=0,
        facts={},
        not_measured={},
    )
    [grid] = reasoning_grids(results, 0.95)
    assert grid.rows == ()
    assert "no evaluated row has the expert's reasoning" in grid.note


def test_the_extractor_that_a_recipe_names() -> None:
    assert extractor_of("builtin").name == "builtin"
    assert extractor_of("spacy:en_core_sci_sm").name == "spacy:en_core_sci_sm"


@pytest.mark.parametrize("name", ["scispacy", "spacy:", ""])
def test_an_unknown_extractor_is_refused(name: str) -> None:
    from medjudge.recipe import recipe_from_tree

    with pytest.raises(ConfigError, match=r"spacy:"):
        recipe_from_tree({"name": "x", "task": {"kind": "mcq"}, "evaluate": {"entities": name}})
