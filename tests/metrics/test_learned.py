"""Baselines fitted on training rows: where the right answer is known, where nothing is to be learnt, and what fails."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from medjudge.metrics import learned
from medjudge.metrics.learned import EMBEDDING_LINEAR, EMBEDDING_SVM, LEARNED, SURFACE, learned_baselines
from medjudge.metrics.surface import Logistic, best_setting, group_folds, lcs_length, overlaps
from medjudge.records import Case
from medjudge.tasks.mcq import LETTERS, OPTIONS

DRUGS = ("aspirin", "heparin", "insulin", "digoxin", "warfarin", "codeine")


def embed(texts):
    """A unit vector per text: which drug it names, and whether it denies."""
    says = [[*(drug in text for drug in DRUGS), "not" in text.split(), 0.1] for text in texts]
    vectors = np.array(says, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def solvable(n, seed, part):
    """The candidate names the reference's drug (1) or another one (0); three rows per question."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        right, other = rng.choice(DRUGS, 2, replace=False)
        gold = int(rng.integers(2))
        inputs = {
            "question": f"what is given for case {part}{i // 3}?",
            "candidate": f"one gives {right if gold else other} at once",
            "reference": f"{right}, every day",
        }
        cases.append(Case(f"{part}{i}", inputs, gold=str(gold), group=f"{part}{i // 3}"))
    return cases


def choice(n, seed, part):
    """The right option is the one that names the question's drug."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        drugs = rng.permutation(DRUGS)[:4]
        at = int(rng.integers(4))
        inputs = {"question": f"which of these holds {drugs[at]} {part}{i}?"}
        inputs |= {name: f"tablets of {drug}" for name, drug in zip(OPTIONS, drugs, strict=True)}
        cases.append(Case(f"{part}{i}", inputs, gold=LETTERS[at]))
    return cases


def fit(train, cases, kind="equivalence", seed=0, **options):
    return learned_baselines(train, cases, kind=kind, seed=seed, embed=lambda: embed, **options)


def accuracy(answers, cases):
    return np.mean([answer.label == case.gold for answer, case in zip(answers, cases, strict=True)])


def test_what_the_surface_tells_is_learnt():
    train, test = solvable(300, 0, "t"), solvable(90, 1, "h")
    found = fit(train, test)
    assert set(found.judgements) == set(LEARNED)
    assert (found.skipped, found.notes) == ({}, ())
    for name, answers in found.judgements.items():
        assert [answer.case_id for answer in answers] == [case.case_id for case in test]
        assert accuracy(answers, test) >= 0.97, name


def test_confidences_are_the_labels_probabilities_where_there_are_any():
    found = fit(solvable(120, 0, "t"), solvable(30, 1, "h"))
    for name in (SURFACE, EMBEDDING_LINEAR):
        assert all(0.5 <= answer.confidence <= 1 for answer in found.judgements[name])
    assert {answer.confidence for answer in found.judgements[EMBEDDING_SVM]} == {None}


def test_an_option_is_chosen_by_what_it_says_and_not_by_its_place():
    train, test = choice(120, 0, "t"), choice(60, 1, "h")
    found = fit(train, test, "mcq")
    assert accuracy(found.judgements[SURFACE], test) >= 0.97
    assert accuracy(found.judgements[EMBEDDING_SVM], test) >= 0.9
    back = dict(zip(OPTIONS, OPTIONS[::-1], strict=True))
    moved = [
        replace(case, inputs={name: case.inputs[back.get(name, name)] for name in ("question", *OPTIONS)})
        for case in test
    ]
    turned = fit(train, moved, "mcq").judgements[SURFACE]
    assert [a.label for a in turned] == [LETTERS[3 - LETTERS.index(a.label)] for a in found.judgements[SURFACE]]


@pytest.mark.parametrize("seed", range(3))
def test_labels_drawn_at_random_teach_nothing(seed):
    """Nothing is better than the majority by more than chance allows: 3 standard errors of a share of 300 rows."""
    rng = np.random.default_rng(seed)
    train, test = (
        [replace(case, gold=str(int(rng.random() < 0.6))) for case in solvable(300, seed + k, part)]
        for k, part in enumerate("th")
    )
    majority = np.mean([case.gold == "1" for case in test])
    for name, answers in fit(train, test, seed=seed).judgements.items():
        assert accuracy(answers, test) < majority + 3 * (0.25 / 300) ** 0.5, name


def test_labels_of_evaluated_rows_are_not_looked_at():
    train, test = solvable(90, 0, "t"), solvable(30, 1, "h")
    said = fit(train, test).judgements
    golds = [case.gold for case in test]
    for others in (golds[::-1], ["0"] * 30, [None] * 30):
        assert fit(train, [replace(c, gold=g) for c, g in zip(test, others, strict=True)]).judgements == said
    # A case is judged alike whatever stands beside it, but for the last bits of a matrix product.
    alone = fit(train, test[:1]).judgements
    for name, answers in alone.items():
        assert answers[0].label == said[name][0].label
        if answers[0].confidence is not None:
            assert answers[0].confidence == pytest.approx(said[name][0].confidence)


PROGRAM = """
import numpy as np
from tests.metrics.test_learned import fit, solvable
found = fit(solvable(60, 0, "t"), solvable(30, 1, "h"))
print([(name, [(a.label, a.confidence) for a in answers]) for name, answers in found.judgements.items()])
"""


def test_the_same_whatever_the_hash_seed():
    said = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout)
    assert len(said) == 1


def test_the_same_whatever_the_order_of_the_groups_names():
    folds = group_folds(["b", "a", "c", "a"], 2, 0)
    assert [bool(fold[1]) == bool(fold[3]) for fold in folds] == [True, True]
    assert sum(fold.sum() for fold in folds) == 4


@pytest.mark.parametrize(
    ("train", "why"),
    [
        ([], "got none"),
        ([Case("x", {"candidate": "y"})], "got none"),
        ([replace(case, gold="1") for case in solvable(12, 0, "t")], "all 12 have the same"),
        ([Case(f"x{i}", {"candidate": "same"}, gold=str(i % 2)) for i in range(8)], "texts that differ"),
    ],
)
def test_what_cannot_be_fitted_says_why(train, why):
    found = fit(train, solvable(3, 1, "h"))
    assert found.judgements == {}
    assert set(found.skipped) == set(LEARNED)
    assert all(why in reason for reason in found.skipped.values())


def test_evaluated_rows_without_texts_are_not_judged():
    found = fit(solvable(30, 0, "t"), [Case("h", {}, gold="1")])
    assert all("the evaluated rows hold none" in reason for reason in found.skipped.values())


def test_rows_without_words_leave_out_the_surface_model_alone():
    train = [Case(f"x{i}", {"candidate": "?" * (1 + i % 2)}, gold=str(i % 2)) for i in range(8)]
    found = fit(train, solvable(3, 1, "h"))
    assert set(found.skipped) == {SURFACE}
    assert "without a word" in found.skipped[SURFACE]


def test_two_training_rows_empty_fields_and_very_long_texts():
    long = "aspirin not " * 40_000
    train = [
        Case("a", {"candidate": "aspirin", "reference": ""}, gold="0"),
        Case("b", {"candidate": long, "reference": "heparin"}, gold="1"),
    ]
    test = [
        Case("c", {"candidate": "", "reference": ""}),
        Case("d", {"candidate": long, "reference": "heparin"}),
        Case("e", {"reference": "x"}),
    ]
    found = fit(train, test)
    assert found.skipped == {}
    for answers in found.judgements.values():
        assert len(answers) == 3
        assert answers[1].label == "1"


def test_without_an_embedding_model_the_surface_stands_alone():
    train, test = solvable(60, 0, "t"), solvable(9, 1, "h")
    found = learned_baselines(train, test, kind="equivalence", seed=0, embed=lambda: "install it.")
    assert set(found.judgements) == {SURFACE}
    assert found.skipped == dict.fromkeys((EMBEDDING_LINEAR, EMBEDDING_SVM), "install it.")


def test_no_model_is_loaded_where_nothing_can_be_learnt():
    asked = []
    learned_baselines([], solvable(9, 1, "h"), kind="equivalence", seed=0, embed=lambda: asked.append(1) or embed)
    assert asked == []


def test_of_many_rows_whole_groups_are_drawn_and_said(monkeypatch):
    monkeypatch.setattr(learned, "SURFACE_ROWS", 60)
    monkeypatch.setattr(learned, "EMBEDDED_ROWS", 40)
    train, test = solvable(300, 0, "t"), solvable(30, 1, "h")
    found = fit(train, test)
    assert found.notes == (
        "surface learnt from 60 of the 300 labelled training rows, whole groups drawn by the seed: more would take too "
        "long.",
        "embedding_linear and embedding_svm learnt from 39 of the 300 labelled training rows, whole groups drawn by "
        "the seed: more would take too long.",
    )
    assert fit(train[::-1], test).notes == found.notes
    assert fit(train, test, seed=1).judgements != found.judgements
    monkeypatch.setattr(learned, "EMBEDDED_CHARACTERS", 500)
    fewer = int(fit(train, test).notes[1].split(" learnt from ")[1].split()[0])
    assert fewer < 39


def test_too_many_evaluated_characters_are_not_embedded(monkeypatch):
    monkeypatch.setattr(learned, "EVALUATED_CHARACTERS", 100)
    found = fit(solvable(30, 0, "t"), solvable(9, 1, "h"))
    assert set(found.judgements) == {SURFACE}
    assert "expected 100 at most" in found.skipped[EMBEDDING_SVM]


def test_the_setting_is_chosen_by_group():
    """A number that names its group says the label within groups and nothing across them: large weights lose."""
    rng = np.random.default_rng(0)
    groups = [f"g{i // 4}" for i in range(120)]
    labels = np.array([str(int(rng.random() < 0.7)) for _ in range(30) for _ in range(4)])
    labels[::4] = labels[1::4] = labels[2::4] = labels[3::4]
    names = np.eye(30)[np.repeat(np.arange(30), 4)] + rng.normal(0, 0.01, (120, 30))
    grid, two = (1e-4, 1.0, 100.0), ["a", "b"] * 60
    assert best_setting(Logistic, grid, names, labels, groups, 0) == 1e-4
    assert best_setting(Logistic, grid, names, labels, two, 0) == 1.0  # the middle


def test_overlaps_by_hand():
    row = overlaps(["no aspirin 5 mg"], ["give aspirin 5"])[0]
    assert row[0] == pytest.approx(2 / 4)  # of the first text's words
    assert row[1] == pytest.approx(2 / 3)
    assert row[2] == pytest.approx(1 / 2)  # give, aspirin
    assert row[3] == pytest.approx(1 / 2)  # (aspirin, 5) of two pairs
    assert row[8] == pytest.approx(2 / 3)
    assert row[11] == pytest.approx((1 + 2) / 2 / 4)
    assert list(row[12:]) == [1, 1, 1]  # one number, one negation, which stands before a shared word
    assert overlaps([""], [""]).shape == overlaps(["x"], ["y"]).shape == (1, 15)


def test_longest_common_subsequence_as_the_textbook_has_it():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (list(rng.choice(list("abcdef"), rng.integers(0, 80))) for _ in range(2))
        table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        assert lcs_length(a, b) == table[-1, -1]
