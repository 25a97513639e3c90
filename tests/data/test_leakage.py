"""Leaks by kind, worked out by hand, and on the published French judge data, whose leak is known."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from tests.shared_data import require_shared

from medjudge.data.leakage import KINDS, N_LISTED, LeakageReport, check_leakage, enforce_leakage
from medjudge.data.likeness import _whole_pairs
from medjudge.data.sources import read_source
from medjudge.data.splits import split_cases
from medjudge.errors import DataError
from medjudge.records import Case
from medjudge.settings.data import DataConfig
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.normalise import normalise


def case(case_id: str, question: str, candidate: str = "yes", gold: str | None = "1", group: str = "") -> Case:
    return Case(case_id, {"question": question, "candidate": candidate}, gold, group=group)


def counts(report: LeakageReport) -> dict[str, int]:
    return {kind: over.n_cases for kind, over in report.comparisons[0].overlaps.items()}


def only(**found: int) -> dict[str, int]:
    return dict.fromkeys(KINDS, 0) | found


LONG = " ".join(f"word{n}" for n in range(300))
ONE_CHANGED = LONG.replace("word150", "other")


@pytest.mark.parametrize(
    ("train", "held_out", "expected"),
    [
        (case("t", "Dose ?"), case("h", "Dose ?"), only(exact=1)),
        (case("t", "Dose ?"), case("h", "dose?"), only(normalised=1)),
        (case("t", "Dose ?"), case("h", "Dose\u00a0?"), only(normalised=1)),
        (case("t", "Dose ?"), case("h", "Dose ?", "no"), only()),
        (case("t", "Dose ?", group="g"), case("h", "Dose ?", "no", group="g"), only(group=1)),
        (case("t", "Dose ?"), case("h", "Dose ?", gold="0"), only(exact=1, conflict=1)),
        (case("t", "Dose ?"), case("h", "DOSE", gold="0"), only(normalised=1, conflict=1)),
        (case("t", "Dose ?"), case("h", "Dose ?", gold=None), only(exact=1)),
        # 300 words are 296 shingles; one changed word breaks 5, so Jaccard is 291 / 301 = .967.
        (case("t", LONG), case("h", ONE_CHANGED), only(near_duplicate=1)),
        # Both fields must be alike: another candidate for the same question is another case.
        (case("t", LONG), case("h", LONG, "no"), only()),
        (case("t", LONG, "with contrast"), case("h", ONE_CHANGED, "without contrast"), only()),
        (case("t", "HR < 100"), case("h", "HR > 100"), only()),
        (case("t", "q", "?"), case("h", "q", "-"), only()),
        (case("t", "a"), case("h", "b"), only()),
    ],
)
def test_one_pair(train: Case, held_out: Case, expected: dict[str, int]) -> None:
    assert counts(check_leakage({"train": [train]}, {"test": [held_out]})) == expected


def test_near_duplicates_at_the_threshold() -> None:
    # 24 words, the last one changed: 20 shingles each, 19 shared, Jaccard 19 / 21 = .905.
    words = [f"w{n}" for n in range(24)]
    train, held_out = [case("t", " ".join(words))], [case("h", " ".join([*words[:-1], "x"]))]
    for threshold, found in ((0.5, 1), (0.9, 1), (0.904, 1), (0.906, 0), (1.0, 0)):
        report = check_leakage(
            {"train": train}, {"test": held_out}, near_duplicate_threshold=threshold, likeness_threshold=1.0
        )
        assert counts(report) == only(near_duplicate=found), threshold


QUESTIONS = {
    "beta": "Quel traitement d'entretien de l'asthme modéré chez l'adulte ?",
    "iron": "Which blood test best shows that the iron stores are empty?",
    "knee": "What is the first imaging study for chronic knee pain?",
    "thyroid": "Which hormone rises first when the thyroid gland begins to fail?",
}


@pytest.mark.parametrize(
    ("key", "edited"),
    [
        ("iron", "Which blood test best shwos that the iron stores are empty?"),
        ("iron", "Which blood test best shows that the iron stores are emty?"),
        ("iron", "Which blood test shows that the iron stores are empty?"),
        ("iron", "Question: Which blood test best shows that the iron stores are empty?"),
        ("knee", "What is first imaging study for chronic knee pain?"),
        ("thyroid", "Which hormone rises first when the thyroid gland begins t ofail?"),
        ("beta", "Quel traitement d'entretien de l'asthme modere chez l'adulte ?"),
    ],
)
def test_a_short_question_with_a_small_edit_is_a_near_duplicate(key: str, edited: str) -> None:
    train = [case(name, text, group=name) for name, text in QUESTIONS.items()]
    report = check_leakage({"train": train}, {"test": [case("h", edited, group="h")]})
    assert counts(report) == only(near_duplicate=1)
    assert report.comparisons[0].overlaps["near_duplicate"].pairs == (("h", key),)
    strict = check_leakage({"train": train}, {"test": [case("h", edited, group="h")]}, likeness_threshold=1.0)
    assert strict.n_leaks == (key == "beta")  # accents are folded before anything is compared


@pytest.mark.parametrize(
    "other",
    [
        "Which blood test best shows that the folate stores are empty?",
        "What is the first imaging study for chronic hip pain?",
        "Which enzyme rises first when the thyroid gland begins to fail?",
    ],
)
def test_another_word_in_place_of_one_is_another_question(other: str) -> None:
    train = [case(name, text, group=name) for name, text in QUESTIONS.items()]
    assert counts(check_leakage({"train": train}, {"test": [case("h", other, group="h")]})) == only()


def options(case_id: str, question: str, *texts: str) -> Case:
    return Case(case_id, {"question": question, **dict(zip(("opa", "opb", "opc", "opd"), texts, strict=True))}, "A")


def test_moved_options_are_the_same_options() -> None:
    train = options("t", QUESTIONS["iron"], "Ferritin", "Haptoglobin", "Serum iron", "Reticulocytes")
    moved = options("h", QUESTIONS["iron"], "Serum iron", "Reticulocytes", "Ferritin", "Haptoglobin")
    typed = options("h", QUESTIONS["iron"], "Serum iron", "Reticulocytes", "Feritin", "Haptoglobin")
    others = options("h", QUESTIONS["iron"], "Lactate", "Bilirubin", "Copper", "Transcobalamin")
    found = [counts(check_leakage({"train": [train]}, {"test": [one]})) for one in (moved, typed, others)]
    assert found == [only(near_duplicate=1), only(near_duplicate=1), only()]


def test_a_field_that_cases_are_about_must_be_the_same() -> None:
    """Several procedures for one patient: "with" and "without and with" are two of them, not one with an edit."""
    patient = "A 60-year-old woman with a first seizure and a normal neurological examination"
    procedures = ["CT head with contrast", "MRI brain without contrast", "Electroencephalography", "PET of the brain"]
    train = [case(f"t{i}", patient, text, group="p") for i, text in enumerate(procedures)]
    held_out = [case("h", patient, "CT head without and with contrast", group="q")]
    assert counts(check_leakage({"train": train}, {"test": held_out})) == only()
    same = [case("h", patient.replace("normal", "normla"), "CT head with contrast", group="q")]
    assert counts(check_leakage({"train": train}, {"test": same})) == only(near_duplicate=1)


def test_no_pair_is_missed_by_the_bound_on_likeness() -> None:
    """The pairs of `_whole_pairs` are those of the full product, whatever the chunks."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("aeioulmnrst"), 6)) for _ in range(60)])
    texts = [" ".join(rng.choice(words, 5)) for _ in range(200)]
    texts += [" ".join([*text.split()[:4], str(rng.choice(words))]) for text in texts[:100]]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32).fit_transform(texts)
    train, held_out = vectors[:200], vectors[200:]
    for threshold in (0.5, 0.7, 0.85):
        rows, columns = np.nonzero((held_out @ train.T).toarray() >= threshold)
        pairs = {(row, column) for row, column, _ in _whole_pairs(train, held_out, threshold)}
        assert pairs == set(zip(rows.tolist(), columns.tolist(), strict=True))


def test_the_line_says_what_was_looked_for() -> None:
    report = check_leakage({"train": [case("t", "a")]}, {"test": [case("h", "b")]})
    assert report.summary_line == (
        "Leakage (exact, normalised, near-duplicate by word 5-shingles from 0.9 or by char 3-gram cosine from 0.85, "
        "group, conflicting label): train vs test: no exact, normalised or near-duplicate case, no shared group and no "
        "conflicting label found in 1 held-out cases against 1."
    )
    two = check_leakage({"train": [case("t", "a")], "grpo": [case("g", "c")]}, {"test": [case("h", "b")]})
    assert two.summary_line.endswith(
        "train vs test (1 against 1), grpo vs test (1 against 1): no exact, normalised or near-duplicate case, no "
        "shared group and no conflicting label found in the held-out cases."
    )
    old = {key: value for key, value in report.to_json().items() if key != "likeness_threshold"}
    assert "char 3-gram" not in LeakageReport.from_json(old).summary_line


def test_a_missing_optional_field_is_a_difference() -> None:
    bare = Case("h", {"question": "Dose ?"}, "1")
    assert counts(check_leakage({"train": [case("t", "Dose ?")]}, {"test": [bare]})) == only()


def test_counts_shares_and_labels() -> None:
    train = [case("t1", "a", group="A"), case("t2", "a", "no", "0", group="A"), case("t3", "b", group="B")]
    held_out = [
        case("h1", "a", group="A"),  # equals t1; its group holds t1 (same label) and t2 (another)
        case("h2", "a", "maybe", "0", group="A"),
        case("h3", "c", group="C"),
        case("h4", "d", group="D"),
    ]
    comparison = check_leakage({"train": train}, {"test": held_out}).comparisons[0]
    exact, group = comparison.overlaps["exact"], comparison.overlaps["group"]
    assert (exact.n_cases, exact.share, exact.n_pairs, exact.n_cases_same_label) == (1, 0.25, 1, 1)
    assert exact.case_ids == ("h1",)
    assert exact.pairs == (("h1", "t1"),)
    assert (group.n_cases, group.share, group.n_pairs) == (2, 0.5, 4)
    assert (group.n_pairs_same_label, group.n_pairs_other_label) == (2, 2)
    assert (group.n_cases_same_label, group.n_cases_other_label) == (2, 2)
    assert comparison.case_ids() == {"h1", "h2"}
    assert comparison.case_ids(without=["group"]) == {"h1"}
    # "yes" stands in training for h1, h3 and h4; question "a" for h1 and h2.
    assert comparison.same_field == {"candidate": 3, "question": 2}


def test_pairs_are_listed_up_to_a_limit_and_counted_in_full() -> None:
    train = [case(f"t{n}", f"q{n}", group="g") for n in range(30)]
    held_out = [case(f"h{n}", f"p{n}", group="g") for n in range(10)]
    group = check_leakage({"train": train}, {"test": held_out}).comparisons[0].overlaps["group"]
    assert (group.n_pairs, len(group.pairs), len(group.case_ids)) == (300, N_LISTED, 10)


def test_cases_without_a_group_share_none() -> None:
    assert counts(check_leakage({"train": [case("t", "a")]}, {"test": [case("h", "b")]})) == only()


def test_conflicts_within_a_split() -> None:
    train = [case("t1", "a"), case("t2", "A", gold="0"), case("t3", "b")]
    report = check_leakage({"train": train}, {"test": [case("h", "c")]})
    assert report.conflicts_within == {"train": ("t1", "t2")}
    assert report.n_leaks == 0


def test_several_splits_and_empty_ones() -> None:
    a, b = [case("x", "a")], [case("y", "b")]
    report = check_leakage({"train": a, "grpo": b}, {"validation": b, "test": a, "empty": []})
    assert [(c.train, c.held_out, len(c.case_ids())) for c in report.comparisons] == [
        ("train", "validation", 0),
        ("train", "test", 1),
        ("train", "empty", 0),
        ("grpo", "validation", 1),
        ("grpo", "test", 0),
        ("grpo", "empty", 0),
    ]
    assert "not checked" in check_leakage({"train": a}, {}).summary_line


def test_json_round_trip() -> None:
    train = [case("t1", "a", group="A"), case("t2", "A", gold="0", group="A")]
    report = check_leakage({"train": train}, {"test": [case("h", "a", group="A")]})
    tree = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert LeakageReport.from_json(tree) == report
    assert tree["n_leaks"] == 1
    assert tree["summary_line"] == report.summary_line
    assert "1 of 1 held-out cases leak (100.0%): exact 1, 1 with the same label" in report.summary_line


def test_enforcement() -> None:
    train = [case("t", "a", group="A")]
    held_out = [case("h1", "a", group="A"), case("h2", "b", group="A"), case("h3", "c"), case("h4", "d")]
    report = check_leakage({"train": train}, {"test": held_out})
    with pytest.raises(DataError) as caught:
        enforce_leakage(report)
    message = str(caught.value)
    assert "2 of 4 cases of 'test' (50.0%) leak from 'train'" in message
    assert "exact 1, 1 with the same label; group 2" in message
    assert 'data.leakage.allow = ["exact", "group"]' in message
    assert "data.group_by" in message
    enforce_leakage(report, max_share=0.5)
    with pytest.raises(DataError, match="the limit is 49"):
        enforce_leakage(report, max_share=0.49)
    with pytest.raises(DataError, match="1 of 4 cases"):
        enforce_leakage(report, allow=["group"])
    enforce_leakage(report, allow=["group", "exact"])
    enforce_leakage(check_leakage({"train": train}, {"grpo": held_out}, enforced=False))


def test_an_allowed_kind_does_not_hide_a_conflict() -> None:
    report = check_leakage({"train": [case("t", "a")]}, {"test": [case("h", "a", gold="0")]})
    with pytest.raises(DataError, match=r"Found: conflict 1\."):
        enforce_leakage(report, allow=["exact"])


def test_joined_reports_keep_what_is_enforced() -> None:
    a = [case("x", "a")]
    joined = check_leakage({"train": a}, {"test": []}).joined(check_leakage({"train": a}, {"grpo": a}, enforced=False))
    enforce_leakage(joined)
    assert joined.n_leaks == 0
    assert "train vs grpo: 1 of 1 held-out cases overlap (allowed here)" in joined.summary_line


def test_the_order_of_cases_changes_no_count() -> None:
    rng = np.random.default_rng(0)
    train = [case(f"t{n}", f"question {n % 40}", f"answer {n % 7}", str(n % 2), f"g{n % 40}") for n in range(200)]
    held_out = [case(f"h{n}", f"Question {n}?", f"answer {n % 5}", str(n % 2), f"g{n}") for n in range(60)]
    first = check_leakage({"train": train}, {"test": held_out}).comparisons[0]
    mixed = check_leakage(
        {"train": [train[i] for i in rng.permutation(200)]}, {"test": [held_out[i] for i in rng.permutation(60)]}
    ).comparisons[0]
    for kind in KINDS:
        one, other = first.overlaps[kind], mixed.overlaps[kind]
        assert replace(one, case_ids=(), pairs=()) == replace(other, case_ids=(), pairs=())
        assert set(one.case_ids) == set(other.case_ids)


def test_six_thousand_against_fifteen_hundred_is_quick() -> None:
    """Also where every case shares a long rubric, which must not make each pair a candidate."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{n}" for n in range(2000)])
    rubric = " ".join(words[:200])

    def made(name: str, n: int) -> list[Case]:
        texts = [" ".join(rng.choice(words, 60)) for _ in range(n)]
        return [
            Case(f"{name}{i}", {"rubric": rubric, "output": text}, str(i % 2), group=str(i))
            for i, text in enumerate(texts)
        ]

    train, held_out = made("t", 6000), made("h", 1499)
    held_out.append(replace(train[17], case_id="copy", group="copy"))
    start = time.perf_counter()
    report = check_leakage({"train": train}, {"test": held_out})
    assert time.perf_counter() - start < 20
    assert report.comparisons[0].overlaps["exact"].pairs == (("copy", "t17"),)
    assert report.comparisons[0].overlaps["near_duplicate"].n_cases == 0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  Dose\tof 2,5 mg/kg ? ", "dose of 2 5 mg kg"),
        ("Straße", "strasse"),
        ("ﬁne ①", "fine 1"),
        ("zero\u200bwidth", "zerowidth"),
        ("« Été »", "été"),
        ("???", "???"),
        ("≥ 5", "≥ 5"),
        ("", ""),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal


def test_real_rows_the_french_judges_leak_is_found() -> None:
    """The README: 205 of the 300 evaluation rows here have their question in train; 200 whole triplets, with labels."""
    source = str(require_shared("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl"))
    contract = EquivalenceContract(language="fr")
    train = read_source(source, contract, DataConfig(where={"split": "train"})).cases
    held_out = read_source(source, contract, DataConfig(where={"split": "eval"})).cases
    report = check_leakage({"train": train}, {"eval": held_out})
    assert counts(report) == only(exact=200, group=205)
    exact = report.comparisons[0].overlaps["exact"]
    assert (exact.n_cases_same_label, exact.n_cases_other_label) == (200, 0)
    assert report.comparisons[0].same_field["question"] == 205
    with pytest.raises(DataError, match=r"205 of 300 cases of 'eval' \(68.3%\) leak"):
        enforce_leakage(report)
    # The two ways of the README to a clean evaluation.
    flags = read_source(source, contract, DataConfig(where={"split": "eval", "question_in_train": False})).cases
    assert len(flags) == 95
    enforce_leakage(check_leakage({"train": train}, {"eval": flags}))
    kept = read_source(source, contract, DataConfig(where={"split": "train", "question_in_eval": False})).cases
    enforce_leakage(check_leakage({"train": kept}, {"eval": held_out}), allow=["near_duplicate"])
    assert counts(check_leakage({"train": kept}, {"eval": held_out})) == only()


def test_real_rows_the_french_judge_cut_by_question_is_clean() -> None:
    source = str(require_shared("data", "fr_oeqa_judge", "fr_oeqa_judge.jsonl"))
    cases = read_source(source, EquivalenceContract(language="fr")).cases
    assert len(cases) == 608  # 808 rows, of which 200 triplets stand in both parts
    dealt = split_cases(cases, splits={"train": 0.8, "test": 0.2}, seed=42)
    report = check_leakage({"train": dealt["train"]}, {"test": dealt["test"]})
    enforce_leakage(report)
    assert counts(report) == only()


def test_real_rows_acr_by_variant_is_clean_and_by_case_is_not() -> None:
    source = str(require_shared("data", "acr_appropriateness", "acr_appropriateness.jsonl.gz"))
    cases = read_source(source, AppropriatenessContract(), DataConfig(fields={"condition": "topic"})).cases
    dealt = split_cases(cases, splits={"train": 0.7, "validation": 0.1, "test": 0.2}, seed=42)
    assert len(dealt["test"]) >= 1200
    report = check_leakage({"train": dealt["train"]}, {"validation": dealt["validation"], "test": dealt["test"]})
    assert report.n_leaks == 0
    enforce_leakage(report)
    loose = split_cases([replace(c, group=c.case_id) for c in cases], splits={"train": 0.8, "test": 0.2}, seed=42)
    by_id = {c.case_id: c for c in cases}
    train, test = ([by_id[c.case_id] for c in part] for part in loose.values())
    found = counts(check_leakage({"train": train}, {"test": test}))
    assert found["group"] > 1000
    assert found["exact"] == found["normalised"] == found["near_duplicate"] == 0  # other procedures are other cases


def test_real_rows_medmcqa_train_and_dev_share_one_question() -> None:
    """The burns of a woman, once with her age and once without, with the same four formulas."""
    train = read_source(str(require_shared("data", "medmcqa_train", "medmcqa_train.jsonl")), McqContract(first_index=1))
    dev = read_source(str(require_shared("data", "medmcqa_dev", "medmcqa_dev.jsonl.gz")), McqContract(first_index=1))
    assert counts(check_leakage({"train": train.cases}, {"dev": dev.cases})) == only(near_duplicate=1)


@pytest.mark.slow
def test_a_preamble_that_all_cases_share_is_slow_at_worst() -> None:
    """Every pair is a candidate; the bound on candidates keeps the work linear and the true copy comes first."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{n}" for n in range(2000)])
    preamble = " ".join(words[:600])

    def made(name: str, n: int) -> list[Case]:
        texts = [f"{preamble} {' '.join(rng.choice(words, 40))}" for _ in range(n)]
        return [Case(f"{name}{i}", {"output": text}, str(i % 2)) for i, text in enumerate(texts)]

    train, held_out = made("t", 3000), made("h", 500)
    held_out.append(Case("copy", {"output": train[-1].inputs["output"] + " end"}, "1"))
    start = time.perf_counter()
    near = check_leakage({"train": train}, {"test": held_out}, near_duplicate_threshold=0.95).comparisons[0].overlaps
    assert time.perf_counter() - start < 60
    assert near["near_duplicate"].pairs == (("copy", "t2999"),)
