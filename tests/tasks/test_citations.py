"""Citations read, counted and taken out; evidence packed to a token budget."""

from __future__ import annotations

from typing import Any

import pytest

from medjudge.models.scratch import build_tokenizer
from medjudge.records import Case
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.citations import cited_ids, first_snippets, given_ids, without_unseen
from medjudge.tasks.encoding import encode, encode_all
from tests.models.small_models import TEXT
from tests.shared_data import shared_rows, shared_tokenizer

WORDS = " ".join(f"word{i}" for i in range(30))
EVIDENCE = f"[5] First. {WORDS}\n[12] Second. {WORDS}\n[PMID:7] Third. {WORDS}"


def test_given_ids() -> None:
    assert given_ids(EVIDENCE) == ("5", "12", "PMID:7")
    assert given_ids("no snippet here, [3] inside a line") == ()
    assert given_ids("[a b] An odd id of a row.") == ("a b",)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("It shows blood [7].", ("7",)),
        ("[3, 5] and [5; 9]", ("3", "5", "9")),
        ("as many found [12-15]", ("12", "13", "14", "15")),
        ("[12–13]", ("12", "13")),
        ("[PMID:123] [c2]", ("PMID:123", "c2")),
        ("a quote [sic], an aside [see Table 2], a gap [...], an empty []", ()),
        ("[7, see below]", ()),
        ("[9-3]", ()),
        ("[1-100000]", ()),
        ("none", ()),
    ],
)
def test_cited_ids(text: str, ids: tuple[str, ...]) -> None:
    assert cited_ids(text) == ids


def test_an_id_of_the_evidence_counts_however_it_looks() -> None:
    assert cited_ids("as in [Smith et al]") == ()
    assert cited_ids("as in [Smith et al]", {"Smith et al"}) == ("Smith et al",)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Seen [5] and [6].", "Seen [5] and."),
        ("Seen [5, 6].", "Seen [5]."),
        ("Seen [4-6].", "Seen [5]."),
        ("Seen [5].", "Seen [5]."),
        ("Said [sic].", "Said [sic]."),
    ],
)
def test_what_the_prompt_does_not_show_is_not_cited(text: str, left: str) -> None:
    assert without_unseen(text, {"5"}) == left


@pytest.mark.parametrize(
    ("n", "shown"),
    [
        (96, EVIDENCE),
        (1000, EVIDENCE),
        (0, ""),
        (19, ""),  # a stub of an abstract
        (20, EVIDENCE[: len("[5] First. ")] + " ".join(WORDS.split()[:18])),
        (32, EVIDENCE.split("\n")[0]),
        (40, EVIDENCE.split("\n")[0]),
        (64, "\n".join(EVIDENCE.split("\n")[:2])),
    ],
)
def test_first_snippets(n: int, shown: str) -> None:
    assert first_snippets(EVIDENCE, n) == shown


# --- packing ----------------------------------------------------------------------------------------------------------


def order(evidence: str = EVIDENCE, reason: str = "Shown [5] and [12].") -> Case:
    inputs = {"condition": "pain", "variant": "v " * 30, "procedure": "CT", "evidence": evidence}
    return Case("c", inputs, gold="Usually Appropriate", reason=reason)


def contract(**settings: Any) -> AppropriatenessContract:
    return AppropriatenessContract(instructions="terse", max_prompt_tokens=4000, **settings)


TOKENIZER = build_tokenizer(TEXT, 320)


def n_tokens(text: str) -> int:
    return len(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def test_evidence_that_fits_its_budget_is_shown_whole() -> None:
    encoded = encode(contract(max_evidence_tokens=n_tokens(EVIDENCE)), order(), TOKENIZER, with_target=True)
    assert EVIDENCE in encoded.prompt_text
    assert (encoded.n_words_cut, encoded.n_snippets_cut, encoded.shown) == (0, 0, None)


def test_evidence_is_packed_to_its_budget_and_the_answer_cites_only_what_is_shown() -> None:
    one = EVIDENCE.split("\n")[0]
    encoded = encode(contract(max_evidence_tokens=n_tokens(one)), order(), TOKENIZER, with_target=True)
    assert encoded.shown is not None
    assert encoded.shown["evidence"] == one
    assert {key: encoded.shown[key] for key in ("condition", "variant", "procedure")} == {
        key: order().inputs[key] for key in ("condition", "variant", "procedure")
    }
    assert (encoded.n_snippets_cut, encoded.n_words_cut) == (2, 64)
    assert "Shown [5] and.</think>" in TOKENIZER.decode(encoded.completion_ids)


def test_a_budget_of_nothing_leaves_no_trace_of_evidence() -> None:
    with_none = encode(contract(max_evidence_tokens=0), order(), TOKENIZER, with_target=False)
    inputs = {key: text for key, text in order().inputs.items() if key != "evidence"}
    assert with_none.prompt_text == encode(contract(), Case("c", inputs), TOKENIZER, with_target=False).prompt_text
    assert (with_none.n_words_cut, with_none.n_snippets_cut) == (0, 0), "what the recipe wants none of is not missed"
    assert with_none.shown == inputs


def test_a_long_prompt_loses_evidence_before_the_situation_loses_a_word() -> None:
    whole = encode(contract(), order(), TOKENIZER, with_target=False)
    limit = len(whole.prompt_ids) - 10
    fewer = encode(contract(), order(), TOKENIZER, with_target=False, max_prompt_tokens=limit)
    assert fewer.shown is not None
    assert fewer.shown["variant"] == order().inputs["variant"]
    assert EVIDENCE.startswith(fewer.shown["evidence"])
    assert len(fewer.prompt_ids) <= limit
    bare = encode(contract(max_evidence_tokens=0), order(), TOKENIZER, with_target=False)
    shorter = encode(contract(), order(), TOKENIZER, with_target=False, max_prompt_tokens=len(bare.prompt_ids) - 10)
    assert shorter.shown is not None
    assert "evidence" not in shorter.shown
    assert len(shorter.shown["variant"]) < len(order().inputs["variant"])
    assert shorter.n_snippets_cut == 3


def test_what_is_asked_changes_with_the_budget_and_so_does_the_fingerprint() -> None:
    assert contract().fingerprint() != contract(max_evidence_tokens=100).fingerprint()


@pytest.mark.parametrize("budget", [0, 60, 300, 700, None])
def test_the_worked_examples_under_a_real_tokenizer(budget: int | None) -> None:
    tokenizer = shared_tokenizer("qwen3")
    rows = shared_rows("data", "acr_appropriateness", "examples_with_evidence.jsonl")
    rows = [row for row in rows if row.get("citations")]
    asked = contract(max_evidence_tokens=budget, max_completion_tokens=1000)
    cases = [
        asked.read_case(
            {**row, "condition": row["topic"], "evidence": row["citations"], "reasoning": row["acr_traces"]}, str(i)
        )
        for i, row in enumerate(rows)
    ]
    for case, encoded in zip(cases, encode_all(asked, cases, tokenizer, with_target=True), strict=True):
        shown = (case.inputs if encoded.shown is None else encoded.shown).get("evidence", "")
        assert case.inputs["evidence"].startswith(shown)
        if budget is not None:
            assert len(tokenizer(shown, add_special_tokens=False)["input_ids"]) <= budget
        if budget != 0:
            assert len(given_ids(case.inputs["evidence"])) - len(given_ids(shown)) == encoded.n_snippets_cut
        target = tokenizer.decode(encoded.completion_ids)
        assert set(cited_ids(target)) <= set(given_ids(shown))
