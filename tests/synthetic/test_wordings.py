"""Other names of the values, and the frames of answers: clean, and enough of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medjudge.synthetic import wordings
from medjudge.synthetic.blocks import block_ids
from medjudge.synthetic.facts import LANGUAGES, facts_by_relation, is_wrong, load_facts
from medjudge.synthetic.phrasing import PHRASINGS, Phrasing
from medjudge.tasks.normalise import normalise


def test_the_wordings_are_clean() -> None:
    assert wordings.lint_wordings() == []
    assert wordings.lint_phrasings() == []


def test_every_value_has_another_name_in_both_languages() -> None:
    for fact in load_facts():
        for language in LANGUAGES:
            known = wordings.names(fact, language)
            assert len({normalise(name) for name in known}) >= 2, fact.id
            assert normalise(known[0]).endswith(normalise(fact.value_in(language)))


def test_other_names_share_few_words_with_the_value() -> None:
    shared = []
    for fact in load_facts():
        words = set(normalise(fact.value).split())
        for name in wordings.names(fact, "en")[1:]:
            shared.append(len(words & set(normalise(name).split()) - {"the", "of", "a"}) / len(words))
    assert sum(shared) / len(shared) < 0.25


def test_a_name_of_two_values_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree: dict[str, Any] = json.loads(wordings.VALUES_PATH.read_text(encoding="utf-8"))
    tree["inheritance"]["multifactorial"]["en"] = ["carrier mothers, affected sons"]
    tree["inheritance"]["mitochondrial"] = {"en": ["autosomal dominant through the mother"], "fr": []}
    tree["inheritance"]["none"] = {"en": ["x"], "fr": []}
    tree["vaccine_type"].pop("toxoid")
    tree["sign_disease"]["mitral stenosis"]["en"].append("MCA")
    path = tmp_path / "values.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    monkeypatch.setattr(wordings, "VALUES_PATH", path)
    wordings._values.cache_clear()
    findings = "\n".join(wordings.lint_wordings())
    wordings._values.cache_clear()
    assert "no fact has the value 'none'" in findings
    assert "'toxoid' has no other name" in findings
    assert "'carrier mothers, affected sons' names both" in findings
    assert "a name of 'mitochondrial', holds 'autosomal dominant'" in findings
    assert "MCA stands for middle cerebral artery and mitral stenosis" in findings


def test_texts_that_claim_too_much_or_have_a_singular_verb_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Phrasing("the diagnosis", ("{S}: what?",), (), ("{S} points to {v}.", "{S} may mean {v}."), (), ())
    monkeypatch.setitem(PHRASINGS, "en", {**PHRASINGS["en"], "sign_disease": broken})
    findings = "\n".join(wordings.lint_phrasings())
    assert "sign_disease: '{S} points to {v}.' has a singular verb after 'Koplik spots'" in findings
    assert "sign_disease: claims too much or too little: '{S} may mean {v}.'" in findings


def test_near_facts_are_wrong() -> None:
    for fact in load_facts()[::7]:
        assert all(is_wrong(fact, other) for other in wordings.near_facts(fact))
        assert all(other.value == fact.value for other in wordings.siblings(fact))


def test_blocks_name_every_fact_of_a_cut_relation_and_nothing_else() -> None:
    blocks = block_ids()
    for relation, facts in facts_by_relation().items():
        cut = {"/" in blocks[fact.id] for fact in facts}
        assert len(cut) == 1, relation
    assert set(blocks) == {fact.id for fact in load_facts()}
