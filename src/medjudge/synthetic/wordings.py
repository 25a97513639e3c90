"""Hand-written wordings of the fact base's values, and the frames in which answers set them.

`builtin/wordings/values.json` gives every value other names in English and French: synonyms, abbreviations, eponyms,
generic and brand names, gene symbols, descriptions, lay words. `builtin/wordings/answers.json` gives frames by kind,
each of which is right with one filling and wrong with another.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from medjudge.files import BUILTIN_DIR
from medjudge.synthetic.answers import wrong_facts
from medjudge.synthetic.blocks import relatives
from medjudge.synthetic.facts import LANGUAGES, Fact, Language, facts_by_relation, holds, is_wrong
from medjudge.synthetic.phrasing import PHRASINGS, capital
from medjudge.tasks.normalise import normalise

VALUES_PATH: Path = BUILTIN_DIR / "wordings" / "values.json"
FRAMES_PATH: Path = BUILTIN_DIR / "wordings" / "answers.json"
NEAREST = 4
"""Wrong values most like the right one, from which a near distractor is drawn."""
NEAR_SHARE = 0.5
"""Of the wrong values, those drawn from the nearest."""


@cache
def _values() -> Mapping[str, Mapping[str, Mapping[Language, Sequence[str]]]]:
    tree: dict[str, Any] = json.loads(VALUES_PATH.read_text(encoding="utf-8"))
    return tree


@cache
def frames(kind: str, language: Language) -> tuple[str, ...]:
    """The frames of one kind: `{a}` asserted, `{r}` rejected, `{x}` and `{y}` two names, `{w}` what holds of `{s}`."""
    return tuple(json.loads(FRAMES_PATH.read_text(encoding="utf-8"))[language][kind])


@cache
def names(fact: Fact, language: Language) -> tuple[str, ...]:
    """The value's names in one language, that of the fact base first, with the article that its relation sets."""
    article = PHRASINGS[language][fact.relation].article if language == "en" else ""
    listed = _values().get(fact.relation, {}).get(fact.value, {}).get(language, ())
    return tuple(_with_article(text, article) for text in (fact.value_in(language), *listed))


def _with_article(text: str, article: str) -> str:
    return text if text.startswith(("the ", "CN ", "V3")) else article + text


@cache
def near_facts(fact: Fact) -> tuple[Fact, ...]:
    """The wrong facts whose values look most like the right one, in either language."""

    def likeness(other: Fact) -> float:
        return max(_alike(fact.value, other.value), _alike(fact.value_fr, other.value_fr))

    by_value: dict[str, Fact] = {}
    for other in sorted(wrong_facts(fact), key=lambda one: (-likeness(one), one.id)):
        by_value.setdefault(other.value, other)
    return tuple(by_value.values())[:NEAREST]


def a_wrong_fact(fact: Fact, rng: random.Random, but: Sequence[str] = ()) -> Fact:
    """A fact with a wrong value, half of the time one that looks like the right one; none of the values `but`."""
    pool = near_facts(fact) if rng.random() < NEAR_SHARE else wrong_facts(fact)
    left = [other for other in pool if other.value not in but]
    return rng.choice(left or [other for other in wrong_facts(fact) if other.value not in but])


@cache
def siblings(fact: Fact) -> tuple[Fact, ...]:
    """Other facts of the relation with the same value."""
    return tuple(other for other in relatives(fact) if other.value == fact.value and other.id != fact.id)


@cache
def strangers(fact: Fact) -> tuple[Fact, ...]:
    """Facts of the relation with another value, each wrong for the other's subject."""
    return tuple(other for other in wrong_facts(fact) if is_wrong(other, fact))


def _alike(one: str, other: str) -> float:
    a, b = _trigrams(one), _trigrams(other)
    return len(a & b) / len(a | b)


@cache
def _trigrams(text: str) -> frozenset[str]:
    plain = f" {normalise(text)} "
    return frozenset(plain[at : at + 3] for at in range(max(1, len(plain) - 2)))


def put(frame: str, **texts: str) -> str:
    """`{v}` becomes the text under `v`, `{V}` the same with a capital."""
    for name, text in texts.items():
        frame = frame.replace("{" + name + "}", text).replace("{" + name.upper() + "}", capital(text))
    return frame


def lint_wordings() -> list[str]:
    """What is wrong with the wordings, one sentence each: values unknown or without a name, names shared by two values.

    A name that stands for two values of a relation, or holds another value of it as whole words, would make an answer
    right and wrong at once. An abbreviation that stands for two values of any relations leaves a reader in doubt.
    """
    findings = _lint_abbreviations()
    for relation, facts in facts_by_relation().items():
        known = {fact.value: fact.value_fr for fact in facts}
        listed = _values().get(relation, {})
        findings += [f"{relation}: no fact has the value {value!r}" for value in listed if value not in known]
        findings += [
            f"{relation}: {fact.value!r} has no other name ({language})"
            for fact in {fact.value: fact for fact in facts}.values()
            for language in LANGUAGES
            if fact.value in listed or language == "en"
            if {normalise(name) for name in listed.get(fact.value, {}).get(language, ())}
            <= {normalise(fact.value_in(language))}
        ]
        owner: dict[str, str] = {}
        for value, by_language in listed.items():
            for name in (name for language in LANGUAGES for name in by_language[language]):
                if owner.setdefault(normalise(name), value) != value:
                    findings.append(f"{relation}: {name!r} names both {owner[normalise(name)]!r} and {value!r}")
                findings += [
                    f"{relation}: {name!r}, a name of {value!r}, holds {other!r}"
                    for pair in known.items()
                    for other in pair
                    if pair[0] != value
                    and holds(name, other)
                    and not holds(known.get(value, ""), other)
                    and not holds(value, other)
                ]
    return findings


SHORT = re.compile(r"[A-Z]{2,4}")
"""A bare abbreviation."""


def _lint_abbreviations() -> list[str]:
    """Abbreviations of several values: PAH, the enzyme and the disease of the lung."""
    stands_for: dict[str, set[str]] = defaultdict(set)
    for listed in _values().values():
        for value, by_language in listed.items():
            for name in (name for names in by_language.values() for name in names if SHORT.fullmatch(name)):
                stands_for[name].add(value)
    return [f"{name} stands for {' and '.join(sorted(of))}" for name, of in stands_for.items() if len(of) > 1]


CLAIMS_TOO_MUCH = re.compile(r"best[- ]known|mainly used|\bmay\b", re.IGNORECASE)
"""Words that make a statement true of a wrong value (may cause), or untrue of a right one (best known)."""
SINGULAR_VERB = re.compile(
    r"^(The )?\{s\} (is|was|points|suggests|derives|shows|comes|has|corresponds|causes)\b", re.IGNORECASE
)
HEAD_ENDS = re.compile(r",| (?:of|in|with|on|after|from|due|without|sparing|for|to|given|who|preventable|caused)\b")
NO_PLURAL = re.compile(
    r"(?:[suia]s|teres|protuberans|migrans|larva currens|rickets|diabetes|deferens|glanders|measles)$"
)


def _is_plural(subject: str) -> bool:
    """Whether the head of a subject looks like a plural: `Koplik spots`, not `rickets in a child`."""
    head = HEAD_ENDS.split(subject)[0]
    return head.endswith("s") and not NO_PLURAL.search(head)


def lint_phrasings() -> list[str]:
    """What is wrong with the texts of the relations, one sentence each.

    A text that claims too much or too little, and a singular verb right after a subject that can be a plural.
    """
    findings = []
    for language in LANGUAGES:
        for relation, phrasing in PHRASINGS[language].items():
            texts = (*phrasing.questions, *phrasing.reverse, *phrasing.statements, *phrasing.value_first)
            findings += [
                f"{relation}: claims too much or too little: {text!r}" for text in texts if CLAIMS_TOO_MUCH.search(text)
            ]
            plurals = [fact.subject for fact in facts_by_relation()[relation] if _is_plural(fact.subject)]
            if language == "en" and plurals:
                findings += [
                    f"{relation}: {text!r} has a singular verb after {plurals[0]!r}"
                    for text in texts
                    if SINGULAR_VERB.match(text)
                ]
    return findings
