"""Built-in sets: the same by seed, right by construction, readable by their contracts, and clean when held out."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from medjudge.data.leakage import check_leakage
from medjudge.data.rows import Row, builtin_names, iter_rows, source_files
from medjudge.errors import ConfigError, DataError
from medjudge.recipe import recipe_from_tree
from medjudge.records import Verdict
from medjudge.stages.prepare import prepare_splits
from medjudge.synthetic import appropriateness, equivalence, mcq, pairwise, rubric, wordings
from medjudge.synthetic.answers import incomplete
from medjudge.synthetic.blocks import block_ids
from medjudge.synthetic.facts import LANGUAGES, Fact, facts_by_relation, holds, is_wrong, load_facts
from medjudge.synthetic.phrasing import PHRASINGS, capital, fill
from medjudge.synthetic.sets import GENERATORS
from medjudge.synthetic.write import write_rows
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.normalise import normalise

AT_LEAST = {"mcq": 4000, "equivalence": 3000, "rubric": 2000, "appropriateness": 1500, "marks": 1500, "pairwise": 3000}
TASKS: dict[str, dict[str, Any]] = {
    **{name: {"kind": drawn.kind} for name, drawn in GENERATORS.items()},
    "equivalence-fr": {"kind": "equivalence", "language": "fr"},
    "rubric-2": {"kind": "rubric", "points": 2},
    "rubric-3": {"kind": "rubric", "points": 3},
}


@cache
def rows_of(name: str) -> list[dict[str, Any]]:
    return GENERATORS[name].rows()


def contract_of(name: str) -> TaskContract:
    return recipe_from_tree({"name": "x", "task": TASKS[name], "data": {"source": f"builtin:{name}"}}).contract


FACTS = {fact.id: fact for fact in load_facts()}


@pytest.mark.parametrize("name", GENERATORS)
def test_enough_rows_each_marked_and_read_by_its_contract(name: str) -> None:
    rows = rows_of(name)
    assert len(rows) == GENERATORS[name].n >= AT_LEAST[GENERATORS[name].kind]
    contract = contract_of(name)
    for number, row in enumerate(rows):
        assert row["synthetic"] is True
        assert {"relation", "language", *GENERATORS[name].group_by} <= set(row)
        case = contract.read_case(row, str(number))
        assert case.gold is not None
        if number % 20 == 0:
            verdict = contract.parse(case.case_id, contract.target(case))
            assert isinstance(verdict, Verdict)
            assert verdict.label == case.gold
    assert len({json.dumps(contract.read_case(row, "").to_json(), sort_keys=True) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_draw_depends_on_its_seed_alone(name: str) -> None:
    drawn = GENERATORS[name]
    assert drawn.rows(60, seed=7) == drawn.rows(60, seed=7) != drawn.rows(60, seed=8)


def true_of(fact: Fact, value: str) -> bool:
    """Whether a value (in English) is, or may count as, right for a fact's subject."""
    other = next(other for other in facts_by_relation()[fact.relation] if other.value == value)
    return not is_wrong(fact, other)


@pytest.mark.parametrize(("name", "language"), [("mcq", "en"), ("mcq-fr", "fr")])
def test_exactly_one_option_is_true(name: str, language: Any) -> None:
    by_subject = {(fact.relation, fact.subject_in(language)): fact for fact in load_facts()}
    english = {(fact.relation, fact.value_in(language)): fact.value for fact in load_facts()}
    for row in rows_of(name):
        fact = FACTS[row["fact_id"]]
        options = [row[field] for field in mcq.OPTIONS]
        assert len({normalise(option) for option in options}) == 4
        right = options.pop(row["cop"])
        if row["direction"] == "forward":
            assert right == fact.value_in(language)
            assert not any(true_of(fact, english[fact.relation, option]) for option in options)
        else:
            assert right == fact.subject_in(language)
            assert not any(true_of(by_subject[fact.relation, option], fact.value) for option in options)
        assert row["exp"] == fact.explanation_in(language)


def test_positions_directions_and_facts_are_spread() -> None:
    rows = rows_of("mcq")
    positions = Counter(row["cop"] for row in rows)
    assert all(0.22 < positions[position] / len(rows) < 0.28 for position in range(4))
    assert 0.2 < sum(row["direction"] == "reverse" for row in rows) / len(rows) < 0.3
    assert {row["fact_id"] for row in rows} == {fact.id for fact in load_facts()}


def test_most_questions_carry_a_comment_whatever_they_ask() -> None:
    rows = rows_of("mcq")
    told = [row for row in rows if row["comment"] is not None]
    assert len(told) / len(rows) == pytest.approx(mcq.COMMENTED_SHARE, abs=0.03)
    assert all(row["comment"] == row["reasoning"] for row in told)
    for name in ("cop", "direction"):
        for value, n in Counter(row[name] for row in rows).items():
            assert sum(row[name] == value for row in told) / n == pytest.approx(mcq.COMMENTED_SHARE, abs=0.05)


def test_options_stay_inside_the_block() -> None:
    blocks = block_ids()
    cut = [block for block in set(blocks.values()) if "/" in block]
    assert len(cut) > 80
    values: dict[str, set[str]] = defaultdict(set)
    for fact in load_facts():
        if "/" in blocks[fact.id]:
            values[blocks[fact.id]].add(fact.value)
    assert min(len(found) for found in values.values()) >= 6
    for row in rows_of("mcq"):
        if "/" in row["block_id"] and row["direction"] == "forward":
            assert {row[option] for option in mcq.OPTIONS} <= values[row["block_id"]]


def test_a_held_out_answer_is_not_told_by_its_frequency() -> None:
    """The option that was most, or least, often right in training is right about as often as chance when held out."""
    train, test = (by_split("mcq")[name] for name in ("train", "test"))
    right: Counter[str] = Counter()
    offered: Counter[str] = Counter()
    for row in train:
        right[row[mcq.OPTIONS[row["cop"]]]] += 1
        offered.update(row[option] for option in mcq.OPTIONS)
    for pick in (max, min):
        hits = 0
        for row in test:
            rates = {i: (right[row[o]] + 0.25) / (offered[row[o]] + 1) for i, o in enumerate(mcq.OPTIONS)}
            hits += pick(rates, key=lambda i: (rates[i], random.Random(row["question"]).random())) == row["cop"]
        assert 0.15 < hits / len(test) < 0.38


@cache
def by_split(name: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split that the recipe's own code makes, found again by their groups."""
    (group,) = GENERATORS[name].group_by
    data = {"source": f"builtin:{name}", "group_by": [group], "slices": [group]}
    splits = prepare_splits(recipe_from_tree({"name": "x", "task": TASKS[name], "data": data}))
    groups = {split: {case.slices[group] for case in cases} for split, cases in splits.items()}
    return {split: [row for row in rows_of(name) if row[group] in found] for split, found in groups.items()}


@pytest.mark.parametrize("name", ["mcq", "equivalence", "equivalence-fr", "rubric", "appropriateness-bare", "pairwise"])
def test_held_out_splits_hold_no_leak(name: str) -> None:
    data = {"source": f"builtin:{name}", "group_by": list(GENERATORS[name].group_by), "max_rows": 1000}
    splits = prepare_splits(recipe_from_tree({"name": "x", "task": TASKS[name], "data": data}))
    report = check_leakage({"train": splits["train"]}, {"validation": splits["validation"], "test": splits["test"]})
    assert report.n_leaks == 0, report.summary_line
    assert report.conflicts_within == {}


def test_no_fact_stands_in_two_blocks() -> None:
    for id_column in ("fact_id", "block_id"):
        held = [{row[id_column] for row in by_split("mcq")[split]} for split in ("train", "validation", "test")]
        assert len(set().union(*held)) == sum(len(ids) for ids in held)


# ----------------------------------------------------------------------------------------------------- pairwise


@pytest.mark.parametrize("name", ["pairwise", "pairwise-fr"])
def test_pairs_are_even_in_labels_places_frames_and_systems_differ(name: str) -> None:
    rows = rows_of(name)
    assert set(Counter(row["label"] for row in rows).values()) == {len(rows) // 3}
    for kind in ("plain", "contrast", "elsewhere"):
        of_kind = [row["label"] for row in rows if row["kind_a"] == kind]
        # Four standard errors of a share of a third.
        most = 4 * (2 / 9 / len(of_kind)) ** 0.5
        assert all(abs(of_kind.count(label) / len(of_kind) - 1 / 3) < most for label in ("A", "B", "tie"))
    assert all(row["system_a"] != row["system_b"] for row in rows)
    wins: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        score = {"A": 1.0, "B": 0.0, "tie": 0.5}[row["label"]]
        wins[row["system_a"]].append(score)
        wins[row["system_b"]].append(1 - score)
    rates = {system: sum(own) / len(own) for system, own in wins.items()}
    assert sorted(rates, key=lambda system: -rates[system]) == list(pairwise.SYSTEMS)


def test_a_tie_is_right_twice_or_wrong_twice_and_a_win_is_right_once() -> None:
    """Held against the reasons, which name what each answer commits to."""
    for row in rows_of("pairwise"):
        fact = FACTS[row["fact_id"]]
        said = row["reason"].split(": ")[-1]
        assert fact.value in said
        kinds = {"A": "Answer A commits to the reference", "B": "Answer B commits to the reference"}
        assert said.startswith(kinds.get(row["label"], ("Both commit", "Neither commits")))


# -------------------------------------------------------------------------------------------------- equivalence


@pytest.mark.parametrize(("name", "language"), [("equivalence", "en"), ("equivalence-fr", "fr")])
def test_labels_follow_from_how_a_candidate_was_built(name: str, language: Any) -> None:
    for row in rows_of(name):
        if row["relation"] == "quantity":
            continue
        fact = FACTS[row["fact_id"]]
        right = [normalise(known) for lang in LANGUAGES for known in wordings.names(fact, lang)]
        found = normalise(plain(row["candidate"]))
        named = any(holds(found, plain(known).removeprefix("the ")) for known in right)
        assert row["label"] == (row["error_kind"] == equivalence.NO_ERROR)
        assert any(holds(row["reference"], known.removeprefix("the ")) for known in right), row
        match row["answer_kind"], row["label"]:
            case ("same", label):
                about = [
                    f
                    for f in facts_by_relation()[fact.relation]
                    if row["candidate"].endswith(f.subject_in(language) + ".")
                ]
                assert any((f.value == fact.value) == bool(label) for f in about), row
            case ("list" | "undecided", label):
                assert named, row
                assert not label, row
            case (_, 1):
                assert named, row
            case _:
                assert row["error_kind"] in ("wrong_entity", "partial")


def plain(text: str) -> str:
    return equivalence._without_accents(text)


@pytest.mark.parametrize("name", ["equivalence", "equivalence-fr"])
def test_nearly_every_frame_is_as_often_right_as_wrong(name: str) -> None:
    rows = rows_of(name)
    assert sum(row["label"] for row in rows) / len(rows) == pytest.approx(0.5, abs=0.01)
    by_kind: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        by_kind[row["answer_kind"]].append(row["label"])
    for kind in ("plain", "contrast", "elsewhere", "same"):
        assert sum(by_kind[kind]) / len(by_kind[kind]) == pytest.approx(0.5, abs=0.07), kind
    assert len(by_kind["list"]) + len(by_kind["undecided"]) < 0.05 * len(rows)
    assert {row["generator"] for row in rows} == set(equivalence.GENERATORS)
    assert {row["error_kind"] for row in rows} == set(equivalence.REASONS["en"])
    assert {row["language"] for row in rows} == {"fr" if name.endswith("-fr") else "en"}


def test_a_quantity_is_right_in_any_unit_and_wrong_with_another_number() -> None:
    rows = [row for row in rows_of("equivalence") if row["relation"] == "quantity"]
    assert len(rows) > 60
    assert sum(row["label"] for row in rows) == pytest.approx(len(rows) / 2, abs=8)
    items = {item["id"]: item for item in equivalence.quantities()}
    for row in rows:
        item = items[row["fact_id"]]
        assert row["reference"].removesuffix(".") in item["right"]
        if row["answer_kind"] == "plain":
            said = {form for form in (*item["right"], *item["wrong"]) if holds(row["candidate"], form)}
            assert said & set(item["right" if row["label"] else "wrong"])
    for item in items.values():
        for ending in ("", "_fr"):
            assert not set(item[f"right{ending}"]) & set(item[f"wrong{ending}"])
            assert len(item[f"right{ending}"]) >= 2


def test_right_and_wrong_answers_repeat_the_reference_alike() -> None:
    """But for plain answers, whose right ones more often say the reference's words, as people do."""
    shares: dict[int, list[float]] = defaultdict(list)
    weighed: dict[int, list[float]] = defaultdict(list)
    for row in rows_of("equivalence"):
        words, said = set(normalise(row["reference"]).split()), set(normalise(row["candidate"]).split())
        shares[row["label"]].append(len(words & said) / len(words))
        if row["answer_kind"] != "plain":
            weighed[row["label"]].append(shares[row["label"]][-1])
    assert sum(weighed[1]) / len(weighed[1]) == pytest.approx(sum(weighed[0]) / len(weighed[0]), abs=0.04)
    assert sum(share == 0 for share in shares[1]) > 0.2 * len(shares[1])  # not a word in common, and right
    assert sum(share == 1 for share in shares[0]) > 0.2 * len(shares[0])  # every word of it, and wrong


def test_incomplete_answers_leave_the_value_open() -> None:
    superior = next(f for f in load_facts() if f.relation == "artery_territory" and "superior mesenteric" in f.value)
    assert "mesenteric artery" in incomplete(superior, "en")
    for fact in load_facts():
        for language in ("en", "fr"):
            for part in incomplete(fact, language):
                assert not holds(part, fact.value_in(language))


# -------------------------------------------------------------------------------------------------- rubric


@pytest.mark.parametrize("points", [2, 3, 5])
def test_scores_follow_from_the_kind_of_answer(points: int) -> None:
    rows = rows_of("rubric" if points == 5 else f"rubric-{points}")
    scale = [0, 1] if points == 2 else list(range(1, points + 1))
    counts = Counter(row["score"] for row in rows)
    assert sorted(counts) == scale
    assert max(counts.values()) - min(counts.values()) <= 1
    for row in rows:
        fact = FACTS[row["fact_id"]]
        assert row["score"] == rubric.SCORES[row["quality"]][points]
        assert sorted(row["rubric"]) == [str(score) for score in scale]
        assert "{" not in row["feedback"] + row["output"] + row["reference"] + row["input"]
        known = [normalise(name) for name in wordings.names(fact, "en")]
        assert any(holds(row["reference"], name) and holds(row["output"], other) for name in known for other in known)
        assert any(holds(row["feedback"], name) for name in known)
    assert {row["quality"] for row in rows} == set(rubric.SCORES)


def test_an_order_of_the_four_values_earns_what_its_quality_says() -> None:
    for quality, orders in rubric.ORDERS.items():
        for order in orders:
            assert sorted(order) == [0, 1, 2, 3]
            right = [place for place, value in enumerate(order) if place == value]
            sides = len(set(right) - {0})
            assert (0 in right) == (rubric.SCORES[quality][2] == 1)
            match quality:
                case "all_right":
                    assert sides == 3
                case "sides_partly" | "main_wrong":
                    assert 0 < sides < 3
                case _:
                    assert sides == 0


def test_the_words_of_an_answer_do_not_depend_on_its_score() -> None:
    """The four values of a reference all stand in the output, whatever the score."""
    for row in rows_of("rubric")[:400]:
        relation = {name: f.value for f in facts_by_relation()[row["relation"]] for name in wordings.names(f, "en")}
        told = {value for name, value in relation.items() if holds(row["output"], name)}
        asked = {value for name, value in relation.items() if holds(row["reference"], name)}
        assert len(told & asked) >= 4


def test_every_scale_ranks_the_kinds_alike() -> None:
    for low, high in itertools.pairwise(reversed(rubric.SCORES)):
        for points in (2, 3, 5):
            assert rubric.SCORES[low][points] <= rubric.SCORES[high][points]


# -------------------------------------------------------------------------------------------------- imaging


def test_the_imaging_table_is_clean_and_large_enough() -> None:
    variants, principles = appropriateness.load_variants(), appropriateness.load_principles()
    assert appropriateness.lint_table(variants, principles) == []
    assert len(variants) >= 60
    assert sum(len(variant.ratings) for variant in variants) / len(variants) >= 6
    assert all(principle.title.startswith("Principle: ") for principle in principles.values())


def test_lint_table_names_what_is_wrong() -> None:
    variants = appropriateness.load_variants()
    first = variants[0]
    broken = appropriateness.Variant(
        first.id,
        first.condition,
        first.patients,
        ("no patient",),
        (appropriateness.Rating("CT", "Perhaps", "nowhere"), appropriateness.Rating("ct", "Perhaps", "nowhere")),
    )
    found = "\n".join(appropriateness.lint_table([first, broken], appropriateness.load_principles()))
    for part in (
        "id repeats",
        "ct is rated twice",
        "only 2 procedures",
        "no label 'Perhaps'",
        "no principle 'nowhere'",
        "needs one patient",
        "decides nothing",
    ):
        assert part in found


@pytest.mark.parametrize(
    ("procedure", "situation", "repeated"),
    [
        ("CT chest with IV contrast", "{P}, an enlarged node on CT.", True),
        ("CT head with IV contrast", "{P}, an enlarged node on CT of the chest.", False),
        ("CT chest with IV contrast", "{P}, a nodule on CT without contrast medium.", False),
        ("CT chest without IV contrast", "{P}, a nodule on unenhanced CT.", True),
        ("CT angiography of the head and neck", "{P}, an occlusion on CT angiography.", True),
        ("CT angiography of the head and neck", "{P}, CT shows no bleeding.", False),
        ("CT head with IV contrast", "{P}, an occlusion on CT angiography.", False),
        ("Ultrasonography of the abdomen", "{P}; ultrasonography was equivocal.", True),
        ("Contrast-enhanced ultrasonography of the liver", "{P}, a mass on ultrasonography.", False),
        ("Radiography of the wrist", "{P}, normal films yesterday.", True),
        ("Repeat radiography of the wrist after 10 to 14 days", "{P}, normal films yesterday.", False),
        ("MRI chest without IV contrast", "{P}, MRI is available immediately.", False),
        ("CT pulmonary angiography", "{P}; contrast medium for CT caused a shock.", False),
    ],
)
def test_an_order_repeats_a_study_whose_result_the_case_gives(procedure: str, situation: str, repeated: bool) -> None:
    assert appropriateness.repeats(procedure, situation) is repeated


def test_lint_table_finds_done_studies_and_principles_that_speak_of_something_else() -> None:
    good, acceptable = "Usually Appropriate", "May Be Appropriate"
    broken = appropriateness.Variant(
        "late",
        "Stroke",
        ("a man",),
        ("{P}, an occlusion on CT angiography.",),
        (
            appropriateness.Rating("CT angiography of the head and neck", good, "stroke-cta"),
            appropriateness.Rating("Bone scintigraphy", acceptable, "tumour-ct"),
            appropriateness.Rating("Thermography", good, "stroke-cta"),
        ),
    )
    found = "\n".join(appropriateness.lint_table([broken], appropriateness.load_principles()))
    assert "CT angiography of the head and neck: the case says that it is done" in found
    assert "Bone scintigraphy: tumour-ct does not speak of it" in found
    assert "Thermography: of no known kind of imaging" in found


def test_reasons_cite_the_principle_that_stands_in_the_evidence() -> None:
    principles = appropriateness.load_principles()
    table = {(v.id, r.procedure): r for v in appropriateness.load_variants() for r in v.ratings}
    for row in rows_of("appropriateness"):
        rating, principle = table[row["variant_id"], row["procedure"]], principles[row["principle"]]
        assert (row["appropriateness"], row["principle"]) == (rating.label, rating.principle)
        assert row["reasoning"].startswith(f"{principle.text} [{principle.id}] ")
        assert row["opinion"] == f"{appropriateness.LEVELS[rating.label]} {row['reasoning']}"
        assert principle.id in {snippet["id"] for snippet in row["evidence"]}
        assert len(row["evidence"]) <= appropriateness.MAX_SNIPPETS
        assert "{" not in row["variant"] + row["reasoning"]
    assert not any("evidence" in row or "[" in row["reasoning"] for row in rows_of("appropriateness-bare"))


def test_labels_come_in_the_stated_shares() -> None:
    counts = Counter(row["appropriateness"] for row in rows_of("appropriateness"))
    assert {label: counts[label] / 3000 for label in counts} == pytest.approx(appropriateness.SHARES)


# -------------------------------------------------------------------------------------------------- texts and doors


@pytest.mark.parametrize("language", ["en", "fr"])
def test_every_relation_has_its_texts(language: Any) -> None:
    assert set(PHRASINGS[language]) == set(facts_by_relation())
    for phrasing in PHRASINGS[language].values():
        assert len(phrasing.questions) >= 3
        assert len(set(phrasing.questions)) == len(phrasing.questions)
        assert all("{s}" in text.lower() for text in (*phrasing.questions, *phrasing.statements))
        assert all("{v}" in text.lower() for text in (*phrasing.reverse, *phrasing.statements))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("axillary nerve", "Axillary nerve"),
        ("t(9;22) translocation", "t(9;22) translocation"),
        ("mTOR", "mTOR"),
        ("", ""),
    ],
)
def test_capital(text: str, expected: str) -> None:
    assert capital(text) == expected


def test_fill() -> None:
    assert fill("{S}: the {s} has {v}. {V}.", "deltoid", "a nerve") == "Deltoid: the deltoid has a nerve. A nerve."


def test_asking_for_too_many_rows_is_refused() -> None:
    with pytest.raises(DataError, match=r"no more than \d+ distinct rows of label 'May Be Appropriate'"):
        appropriateness.generate(9000, random.Random(1))


def test_generated_sets_are_sources() -> None:
    assert set(GENERATORS) <= set(builtin_names())
    assert not any(name.startswith(("facts/", "imaging/", "wordings/")) for name in builtin_names())
    rows = list(iter_rows("builtin:rubric"))
    assert rows[16] == Row("builtin:rubric:17", rows_of("rubric")[16])
    names = {path.name for path in source_files("builtin:mcq")}
    assert {
        "nerve_muscle.jsonl",
        "also_true.json",
        "near_values.json",
        "phrasings.json",
        "mcq.py",
    } <= names
    assert {"values.json", "answers.json", "equivalence.py"} <= {p.name for p in source_files("builtin:equivalence")}
    assert {"values.json", "graded.json", "rubric.py"} <= {p.name for p in source_files("builtin:rubric")}
    assert {path.name for path in source_files("builtin:appropriateness")} == {
        "appropriateness.py",
        "principles.jsonl",
        "variants.jsonl",
    }


def test_write_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows("equivalence-fr", 30, 3, tmp_path / "rows.jsonl")
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert written == GENERATORS["equivalence-fr"].rows(30, 3)
    monkeypatch.chdir(tmp_path)
    assert write_rows("rubric-2", 5) == Path("rubric-2.jsonl")
    assert len(Path("rubric-2.jsonl").read_text().splitlines()) == 5
    with pytest.raises(ConfigError, match=r"'mqc' is no set .*did you mean `mcq`"):
        write_rows("mqc", 5)
    with pytest.raises(ConfigError, match="got n = 0"):
        write_rows("mcq", 0)
    with pytest.raises(DataError, match="cannot write"):
        write_rows("mcq", 5, out=tmp_path / "gone" / "rows.jsonl")
