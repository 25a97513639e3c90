"""Leaked evaluation rows: a judge is evaluated on rows that it was trained on, labels included.

Published: the data of "Who Judges the Judge? Evaluating LLM-as-a-Judge for French Medical open-ended QA" (Belmadani et
al., HeaLing 2026, https://aclanthology.org/2026.healing-1.12/), on the hub as
`ikram28/LLM-as-a-Judge-for-medical-oeqa`.
What happened: 200 of the 500 evaluation triplets (question, reference, candidate) also stand in the published training
file, each with its label. Whoever trains on that file and evaluates on these rows measures memory on two rows of five.
What stops it here: `prepare` compares every held-out case with every training case and stops before a number exists.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from medjudge.data.sources import read_source
from medjudge.recipe import Recipe, recipe_from_tree
from medjudge.records import Case
from medjudge.runs.pipeline import run_recipe
from medjudge.settings.data import DataConfig
from medjudge.stages import prepare
from medjudge.tasks.equivalence import EquivalenceContract
from tests.replays.common import Guard, refusal, share
from tests.shared_data import require_shared

CONTRACT = EquivalenceContract(language="fr")
N_EVALUATED, N_LEAKED, N_TRAIN = 250, 100, 400
"""The published shares at half the size: two evaluation rows of five are training rows."""


def memoriser(train: Sequence[Case], cases: Sequence[Case]) -> list[str]:
    """A look-up table that has learnt no judging: the label it has seen for this very row, else the commonest label."""
    seen = {tuple(case.inputs.values()): case.gold for case in train}
    commonest = Counter(case.gold for case in train).most_common(1)[0][0]
    return [seen.get(tuple(case.inputs.values()), commonest) or "" for case in cases]


def measured(train: Sequence[Case], cases: Sequence[Case]) -> list[str]:
    """The memoriser's accuracy, on all rows and on either kind."""
    known = {tuple(case.inputs.values()) for case in train}
    right = [label == case.gold for label, case in zip(memoriser(train, cases), cases, strict=True)]
    is_leaked = [tuple(case.inputs.values()) in known for case in cases]
    leaked = [hit for hit, leak in zip(right, is_leaked, strict=True) if leak]
    clean = [hit for hit, leak in zip(right, is_leaked, strict=True) if not leak]
    assert sum(leaked) / len(leaked) > sum(clean) / len(clean), "the leak does not help"
    return [
        f"published | evaluation rows that stand in the training file: {share(len(leaked), len(cases))}",
        f"published | a look-up table that judges nothing: right on {share(sum(right), len(right))} rows; leaked rows "
        f"{share(sum(leaked), len(leaked))}, clean rows {share(sum(clean), len(clean))}",
    ]


def stopped(recipe: Recipe) -> list[str]:
    """The stop, as `medjudge run` prints it; only its first paragraph, the ways out are the same each time."""
    message = refusal(run_recipe, recipe, Console(quiet=True), last="prepare")
    assert not list(recipe.run_dir.glob("prepare/*"))
    return [f"medjudge  | {message.splitlines()[0]}"]


def replay(folder: Path) -> list[str]:
    """On the built-in French rows, leaked in the published proportion."""
    rows = read_source("builtin:equivalence-fr", CONTRACT, DataConfig(max_rows=N_EVALUATED + N_TRAIN - N_LEAKED)).cases
    held_out, train = rows[:N_EVALUATED], rows[N_EVALUATED - N_LEAKED :]
    for name, cases in (("train", train), ("test", held_out)):
        text = "".join(json.dumps({**case.inputs, "label": case.gold}) + "\n" for case in cases)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    data = {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")}
    return [*measured(train, held_out), *stopped(recipe_over(folder, data))]


def replay_on_published_rows(folder: Path) -> list[str]:
    """On the published rows: 300 of the 500 evaluation rows are at hand, all 200 leaked ones among them."""
    source = str(require_shared("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl"))
    train = read_source(source, CONTRACT, DataConfig(where={"split": "train"})).cases
    held_out = read_source(source, CONTRACT, DataConfig(where={"split": "eval"})).cases
    data = {
        "train": source,
        "test": source,
        "where_by_split": {"train": {"split": "train"}, "test": {"split": "eval"}},
    }
    return [*measured(train, held_out), *stopped(recipe_over(folder, data))]


def recipe_over(folder: Path, data: dict[str, object]) -> Recipe:
    return recipe_from_tree(
        {
            "name": "french",
            "runs_dir": str(folder / "runs"),
            "stages": ["prepare", "base", "sft", "evaluate"],
            "task": {"kind": "equivalence", "language": "fr"},
            "data": data,
        }
    )


GUARDS = (
    Guard(
        "the leakage stop of `prepare` (`enforce_leakage`) does nothing",
        lambda patch: patch.setattr(prepare, "enforce_leakage", lambda report, **limits: None),
        "nothing was refused",
    ),
)
