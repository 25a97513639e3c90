"""The clinical fact base: short, uncontroversial textbook facts in English and French, from which sets are drawn.

One JSON object per line in `builtin/facts/RELATION.jsonl`. A fact says that within its relation a subject has one
value: in `nerve_muscle` the deltoid has the axillary nerve. The other values of the relation are wrong answers to a
question about the subject, except those that `builtin/also_true.json` lists: values that are also true of it, true in
part, or arguable, and therefore never offered as wrong.

Written for this project and for research; not a clinical reference.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal

from medjudge.errors import DataError
from medjudge.files import BUILTIN_DIR
from medjudge.tasks.normalise import normalise

Language = Literal["en", "fr"]
LANGUAGES: tuple[Language, ...] = ("en", "fr")

FACTS_DIR = BUILTIN_DIR / "facts"
ALSO_TRUE_PATH = BUILTIN_DIR / "also_true.json"
EVERY_SUBJECT = "*"
"""In `also_true.json`, in place of a list of subjects: a value so common that it is never offered as wrong."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One textbook fact in both languages."""

    id: str
    """`RELATION-001`."""
    relation: str
    subject: str
    value: str
    subject_fr: str
    value_fr: str
    explanation: str
    """One sentence that states the fact and a reason."""
    explanation_fr: str
    source_kind: str
    """The kind of book in which it is common knowledge."""

    def subject_in(self, language: Language) -> str:
        """The subject in English or French."""
        return self.subject if language == "en" else self.subject_fr

    def value_in(self, language: Language) -> str:
        """The value in English or French."""
        return self.value if language == "en" else self.value_fr

    def explanation_in(self, language: Language) -> str:
        """The explanation in English or French."""
        return self.explanation if language == "en" else self.explanation_fr


FIELDS = tuple(field.name for field in fields(Fact))


def fact_files() -> tuple[Path, ...]:
    """The files that the fact base is made of, sorted: what a drawn set's provenance names."""
    return (*sorted(FACTS_DIR.glob("*.jsonl")), ALSO_TRUE_PATH)


@cache
def load_facts() -> tuple[Fact, ...]:
    """All facts, by file and line. Raises DataError for a line that is no fact."""
    return tuple(fact for path in sorted(FACTS_DIR.glob("*.jsonl")) for fact in read_facts(path))


def read_facts(path: Path) -> list[Fact]:
    """The facts of one file. Raises DataError, with the line, for a row with missing, further or off-type fields."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: broken JSON (column {error.colno}: {error.msg}).") from None
        if not isinstance(row, dict) or set(row) != set(FIELDS):
            got = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
            raise DataError(f"{path}:{number}: got {got}; expected the fields {', '.join(FIELDS)}.")
        if off := [name for name in FIELDS if not isinstance(row[name], str)]:
            raise DataError(f"{path}:{number}: {', '.join(off)} should be text.")
        if row["relation"] != path.stem:
            raise DataError(f"{path}:{number}: relation {row['relation']!r} in the file of {path.stem!r}.")
        found.append(Fact(**row))
    return found


@cache
def facts_by_relation() -> Mapping[str, tuple[Fact, ...]]:
    """Relation -> its facts, relations sorted."""
    grouped: dict[str, list[Fact]] = defaultdict(list)
    for fact in load_facts():
        grouped[fact.relation].append(fact)
    return {relation: tuple(grouped[relation]) for relation in sorted(grouped)}


def read_also_true() -> dict[str, dict[str, list[str] | str]]:
    """Relation -> value -> subjects of which it is also (or arguably) true, or `EVERY_SUBJECT`."""
    tree: dict[str, dict[str, list[str] | str]] = json.loads(ALSO_TRUE_PATH.read_text(encoding="utf-8"))
    return tree


@cache
def also_true() -> frozenset[tuple[str, str, str]]:
    """(relation, subject, value) that must never be offered as wrong although no fact states it.

    An entry stands for every subject that holds it as whole words: `haloperidol` also for `haloperidol over years`.
    """
    return frozenset(
        (relation, fact.subject, value)
        for relation, values in read_also_true().items()
        for value, listed in values.items()
        for fact in facts_by_relation().get(relation, ())
        if isinstance(listed, str) or any(holds(fact.subject, entry) for entry in listed)
    )


def holds(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as whole words, whatever the case and punctuation."""
    return _spaced(part) in _spaced(text)


@cache
def _spaced(text: str) -> str:
    return f" {normalise(text)} "


def is_wrong(fact: Fact, other: Fact) -> bool:
    """Whether the value of `other` is a wrong answer to a question about `fact`'s subject. Same relation assumed."""
    return other.value != fact.value and (fact.relation, fact.subject, other.value) not in also_true()


def lint_facts(facts: Sequence[Fact]) -> list[str]:
    """What is wrong with a fact base, one sentence per finding, each with the ids concerned; empty if nothing is.

    Found: ids that repeat or are not ASCII, keys that are not ASCII, empty or untrimmed fields, a subject that occurs
    twice in a relation in either language (a second fact would make the first one's answer doubtful), values that are
    equal in one language and not in the other, a subject that runs on after a comma or hints at the value, a second
    spelling of one term, an explanation that does not state its value word for word (answers are built from it), and a
    value that stands whole inside another value of its relation (an answer that names the longer one would also contain
    the shorter).
    """
    findings = [f"{', '.join(ids)}: id repeats" for ids in _repeats((fact.id, fact.id) for fact in facts)]
    for fact in facts:
        findings += [
            f"{fact.id}: {key} is not ASCII: {getattr(fact, key)!r}"
            for key in ("id", "relation", "source_kind")
            if not getattr(fact, key).isascii()
        ]
        findings += [f"{fact.id}: {name} is empty" for name in FIELDS if not getattr(fact, name).strip()]
        findings += [
            f"{fact.id}: {name} has white space at an end or doubled"
            for name in FIELDS
            if getattr(fact, name) != " ".join(getattr(fact, name).split())
        ]
        findings += [
            f"{fact.id}: the explanation ({language}) does not state the value"
            for language in LANGUAGES
            if not holds(fact.explanation_in(language), fact.value_in(language))
        ]
        findings += [
            f"{fact.id}: {name} runs on after a comma; put the clause in brackets"
            for name in ("subject", "subject_fr")
            if RUN_ON.search(getattr(fact, name))
        ]
        findings += [
            f"{fact.id}: {name} hints at the value in brackets; a patient of whom other values are not true, or nothing"
            for name in ("subject", "subject_fr")
            if HINT.search(getattr(fact, name))
        ]
        findings += [
            f"{fact.id}: {name} has {match.group()!r}; the other facts write {ONE_SPELLING[match.group().lower()]!r}"
            for name in FIELDS
            for match in SPELLINGS.finditer(getattr(fact, name))
        ]
    for language in LANGUAGES:
        keyed = (((f.relation, normalise(f.subject_in(language))), f.id) for f in facts)
        findings += [f"{', '.join(ids)}: one subject ({language}), asked for two values" for ids in _repeats(keyed)]
    findings += _unequal_values(facts)
    findings += _contained_values(facts)
    return findings


RUN_ON = re.compile(r", (through|to stop|as first|par son|par sa|pour arrêter|en première)\b")
"""A subject that goes on after a comma: a sentence that follows it needs a second comma, which no template has."""
HINT = re.compile(r"\((harm|effect|skin reaction|atteinte|effet|réaction)\b")
"""A subject that says in brackets what kind of value is asked for, as `ropinirole (effect on behaviour)`."""
ONE_SPELLING = {
    "auriculoventriculaire": "atrioventriculaire",
    "auriculo-ventriculaire": "atrioventriculaire",
    "topo-isomérase": "topoisomérase",
    "glosso-pharyngien": "glossopharyngien",
    "stylo-pharyngien": "stylopharyngien",
    "crico-thyroïdien": "cricothyroïdien",
    "canal chlore": "canal chlorure",
    "intestin moyen primitif": "intestin primitif moyen",
    "surrénale primitive": "surrénale primaire",
    "sulphate": "sulfate",
    "la spicule": "la protéine Spike",
    "moyen primitif": "primitif moyen",
}
"""Spellings and terms that a second one stands beside -> the one that the base keeps to."""
SPELLINGS = re.compile("|".join(map(re.escape, sorted(ONE_SPELLING, key=len, reverse=True))), re.IGNORECASE)


def lint_also_true(facts: Sequence[Fact]) -> list[str]:
    """Entries of `also_true.json` that name a relation, value or subject that the facts do not have."""
    values = {(fact.relation, fact.value) for fact in facts}
    findings = []
    for relation, listed in read_also_true().items():
        subjects = [fact.subject for fact in facts if fact.relation == relation]
        for value, entries in listed.items():
            if (relation, value) not in values:
                findings.append(f"{relation}: no fact has the value {value!r}")
            findings += [
                f"{relation}: no subject holds {entry!r} (under {value!r})"
                for entry in ([] if isinstance(entries, str) else entries)
                if not any(holds(subject, entry) for subject in subjects)
            ]
    return findings


def _repeats(keyed: Iterable[tuple[object, str]]) -> list[list[str]]:
    found: dict[object, list[str]] = defaultdict(list)
    for key, fact_id in keyed:
        found[key].append(fact_id)
    return [ids for ids in found.values() if len(ids) > 1]


def _unequal_values(facts: Sequence[Fact]) -> list[str]:
    """Within a relation, one English value must go with one French value and back."""
    findings = []
    for here, there in (("en", "fr"), ("fr", "en")):
        partners: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for fact in facts:
            value, partner = (fact.value, fact.value_fr) if here == "en" else (fact.value_fr, fact.value)
            partners[fact.relation, normalise(value)].setdefault(normalise(partner), fact.id)
        findings += [
            f"{', '.join(ids.values())}: one value ({here}) with {len(ids)} values ({there})"
            for ids in partners.values()
            if len(ids) > 1
        ]
    return findings


def _contained_values(facts: Sequence[Fact]) -> list[str]:
    findings = []
    for language in LANGUAGES:
        values: dict[str, dict[str, str]] = defaultdict(dict)
        for fact in facts:
            values[fact.relation].setdefault(normalise(fact.value_in(language)), fact.id)
        findings += [
            f"{short_id}, {long_id}: the value of the first stands inside that of the second ({language})"
            for known in values.values()
            for short, short_id in known.items()
            for long, long_id in known.items()
            if long != short and holds(long, short)
        ]
    return findings
