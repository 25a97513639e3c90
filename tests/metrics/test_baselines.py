import itertools

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from medjudge.errors import DataError
from medjudge.inference.embeddings import embed_or_why_not
from medjudge.metrics.baselines import (
    TRIVIAL,
    always_positive,
    chance,
    chance_accuracy,
    compared_texts,
    every_baseline,
    fit_cutpoints,
    majority,
    shared_words,
    token_f1,
    trivial_baselines,
)
from medjudge.metrics.classification import classification_metrics, code_outcomes
from medjudge.metrics.learned import LEARNED
from medjudge.records import Case
from medjudge.settings.rewards import EmbeddingSettings
from tests.shared_data import shared_rows

LABELS = ("0", "1")
TRAIN = [
    Case(f"t{i}", {"q": f"fever cough {word}", "note": "seen today"}, gold=gold)
    for i, (word, gold) in enumerate([("severe", "1"), ("severe pain", "1"), ("mild", "0"), ("mild pain", "0")] * 3)
]
HELD_OUT = [Case("h0", {"q": "severe"}, gold="1"), Case("h1", {"q": "mild"}, gold="0"), Case("h2", {"q": "mild"})]


def labels_of(judgements):
    return [judgement.label for judgement in judgements]


def test_majority_takes_the_training_labels_and_the_first_of_equals():
    assert labels_of(majority([*TRAIN, Case("x", {}, gold="1")], HELD_OUT, labels=LABELS)) == ["1"] * 3
    assert labels_of(majority(TRAIN, HELD_OUT, labels=LABELS)) == ["0"] * 3
    assert labels_of(majority(TRAIN, HELD_OUT, labels=("1", "0"))) == ["1"] * 3


def test_rows_about_an_evaluated_question_are_left_out_whatever_their_group_is_called():
    """Two files that name their groups differently: the question's own words tell, whatever their case and spaces."""
    asked = [Case(f"h{i}", {"q": f"which drug {i}?", "a": "x"}, gold="1", group=f"row {i}") for i in range(4)]
    again = [Case(f"t{i}", {"q": f"Which drug  {i}?", "a": "y"}, gold="1", group=f"q{i}") for i in range(4)]
    other = [Case(f"o{i}", {"q": f"which test {i}?", "a": "y"}, gold="0", group=f"o{i}") for i in range(3)]

    def majority_of(*fields: str) -> set[str]:
        found = every_baseline(
            [*again, *other],
            asked,
            kind="mcq",
            labels=LABELS,
            positive="1",
            rng=np.random.default_rng(0),
            question_fields=fields,
        )
        return set(labels_of(found.judgements["majority"]))

    assert majority_of() == {"1"}
    assert majority_of("q") == {"0"}


def test_always_positive_f1_is_2p_over_1_plus_p():
    cases = [Case(str(i), {}, gold="1" if i < 3 else "0") for i in range(10)]
    outcomes = code_outcomes(cases, always_positive(cases, positive="1"), labels=LABELS, positive="1")
    assert classification_metrics(outcomes)["f1_positive"] == pytest.approx(2 * 0.3 / 1.3)


def test_chance_is_seeded_uniform_and_has_the_stated_accuracy():
    cases = [Case(str(i), {}, gold="a") for i in range(20_000)]  # imbalance does not matter
    labels = ("a", "b", "c", "d")
    drawn = chance(cases, labels=labels, rng=np.random.default_rng(1))
    assert drawn == chance(cases, labels=labels, rng=np.random.default_rng(1))
    accuracy = classification_metrics(code_outcomes(cases, drawn, labels=labels))["accuracy"]
    assert chance_accuracy(labels) == 0.25
    assert accuracy == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 20_000) ** 0.5)


def test_every_trivial_baseline_answers_every_case():
    baselines = trivial_baselines(TRAIN, HELD_OUT, labels=LABELS, positive="1", rng=np.random.default_rng(0))
    assert set(baselines.judgements) == set(TRIVIAL)
    assert not baselines.skipped
    for answers in baselines.judgements.values():
        assert [answer.case_id for answer in answers] == ["h0", "h1", "h2"]


@pytest.mark.parametrize("train", [[], [Case("x", {"q": "y"})]])
def test_a_baseline_that_cannot_be_made_is_left_out_with_its_reason(train):
    baselines = trivial_baselines(train, HELD_OUT, labels=LABELS, positive=None, rng=np.random.default_rng(0))
    assert set(baselines.skipped) == {"majority"}
    assert "baseline needs" in baselines.skipped["majority"]
    assert "always_positive" not in baselines.judgements


def test_no_labels():
    with pytest.raises(DataError, match="empty label set"):
        chance_accuracy(())


def test_token_f1_by_hand():
    # "a b b" and "b b c": two shared words of three and three
    assert token_f1("a b b", "b b c") == pytest.approx(2 * 2 / 6)
    assert token_f1("FIÈVRE.", "fièvre") == 1
    assert token_f1("", "x") == token_f1("?", "?") == 0


@pytest.mark.parametrize("n_labels", [2, 3, 4])
def test_cutpoints_are_the_best_of_all(n_labels):
    """Against every choice of cutpoints on short rows with ties."""
    rng = np.random.default_rng(n_labels)
    for _ in range(25):
        likeness = np.round(rng.random(12), 1)
        gold = rng.integers(0, n_labels, 12)
        edges = np.unique(np.r_[-1.0, likeness + 0.05, 2.0])
        best = max(
            recall_mean(gold, np.searchsorted(cuts, likeness, side="right"))
            for cuts in itertools.combinations_with_replacement(edges, n_labels - 1)
        )
        found = fit_cutpoints(likeness, gold, n_labels)
        assert len(found) == n_labels - 1
        assert (np.diff(found) >= 0).all()
        assert recall_mean(gold, np.searchsorted(found, likeness, side="right")) == pytest.approx(best)


def recall_mean(gold, said):
    return np.mean([(said[gold == k] == k).mean() for k in np.unique(gold)])


def test_cutpoints_by_hand():
    assert fit_cutpoints(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1]), 2) == pytest.approx([0.5])
    # more likeness never means a lower label: turned round, nothing beats one label for all
    assert fit_cutpoints(np.array([0.1, 0.9]), np.array([1, 0]), 2)[0] in (-1, 2)
    # a label without rows takes no place
    assert fit_cutpoints(np.array([0.1, 0.9]), np.array([0, 2]), 3) == pytest.approx([0.5, 0.5])


def equivalence(case_id, candidate, reference, gold, group):
    return Case(case_id, {"question": "q", "candidate": candidate, "reference": reference}, gold=gold, group=group)


PAIRS = [
    equivalence(f"t{i}", *texts, group=f"q{i}")
    for i, texts in enumerate(
        [
            ("une fièvre élevée", "la fièvre élevée", "1"),
            ("une toux sèche", "toux sèche persistante", "1"),
            ("le rein droit", "une toux sèche", "0"),
            ("aspirine", "une fièvre élevée", "0"),
        ]
    )
]


def test_shared_words_tell_like_from_unlike():
    held_out = [
        equivalence("a", "fièvre très élevée", "une fièvre élevée", "1", "h0"),
        equivalence("b", "un autre mot", "rein gauche", "0", "h1"),
        Case("c", {"question": "q", "candidate": "x"}, gold="0"),  # no reference: nothing alike
    ]
    answers = shared_words(PAIRS, held_out, labels=LABELS, texts=("candidate", "reference"))
    assert labels_of(answers) == ["1", "0", "0"]
    assert [answer.case_id for answer in answers] == ["a", "b", "c"]


def test_nothing_is_learnt_from_an_evaluated_question():
    """Training rows of an evaluated question would turn every verdict round; they are dropped, and counted."""
    leak = [equivalence(f"leak{i}", "la fièvre élevée", "la fièvre élevée", "0", "h0") for i in range(20)]
    held_out = [equivalence("a", "la fièvre élevée", "la fièvre élevée", "1", "h0")]
    options = {"kind": "equivalence", "labels": LABELS, "positive": "1", "rng": np.random.default_rng(0)}
    found = every_baseline([*PAIRS, *leak], held_out, **options)
    assert found.notes[0].startswith("Baselines were fitted on 4 of 24 training rows")
    assert labels_of(found.judgements["token_f1"]) == labels_of(found.judgements["surface"]) == ["1"]
    nothing_left = every_baseline(leak, held_out, **options)
    assert {"majority", "token_f1", *LEARNED} == set(nothing_left.skipped)
    assert "got none" in nothing_left.skipped["surface"]


def test_the_installed_embedding_model_is_a_judge():
    pytest.importorskip("sentence_transformers")
    embed = embed_or_why_not(EmbeddingSettings())
    if isinstance(embed, str):
        pytest.skip(embed)
    same, other = "The patient has a fever.", "Treasury bonds fell."
    a, b, c = embed([same, "The patient is febrile.", other])
    assert float(a @ b) > 0.6 > 0.3 > float(a @ c)


def test_embeddings_without_the_extra_say_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = embed_or_why_not(EmbeddingSettings(model="any"))
    assert isinstance(said, str)
    assert "medjudge[embeddings]" in said


@pytest.mark.parametrize(
    ("kind", "inputs", "texts"),
    [
        ("equivalence", {}, ("candidate", "reference")),
        ("rubric", {"reference": "x"}, ("output", "reference")),
        ("rubric", {"input": "x"}, ("output", "input")),
        ("mcq", {}, None),
        ("appropriateness", {}, None),
    ],
)
def test_which_texts_are_compared(kind, inputs, texts):
    assert compared_texts(kind, [Case("x", inputs)]) == texts


def test_the_french_judge_set_leaves_out_the_training_rows_of_its_questions():
    """332 of the published training rows reuse an evaluation candidate: cutpoints do without their questions."""
    rows = shared_rows("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl")
    cases = {
        part: [
            Case(
                f"{part}{i}",
                {name: row[name] for name in ("question", "candidate", "reference")},
                gold=str(row["label"]),
                group=row["question"],
            )
            for i, row in enumerate(rows)
            if row["split"] == part
        ]
        for part in ("train", "eval")
    }
    found = every_baseline(
        cases["train"],
        cases["eval"],
        kind="equivalence",
        labels=LABELS,
        positive="1",
        rng=np.random.default_rng(0),
    )
    evaluated = {case.inputs["question"] for case in cases["eval"]}
    clean = [case for case in cases["train"] if case.inputs["question"] not in evaluated]
    assert found.notes == (
        f"Baselines were fitted on {len(clean)} of 508 training rows: the questions of the other "
        f"{508 - len(clean)} are among those evaluated.",
    )
    assert 508 - len(clean) > 100
    gold = [case.gold for case in cases["eval"]]
    for name in ("token_f1", "surface"):
        assert len(found.judgements[name]) == 300
        assert 0.4 < balanced_accuracy_score(gold, labels_of(found.judgements[name])) < 0.85, name
