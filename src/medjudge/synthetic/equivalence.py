"""Open questions with a reference and a candidate from one of six simulated answer generators, in English or French.

The label is known by construction: a candidate is equivalent (1) if it commits to the reference's value, however it is
worded, and not (0) if it commits to another value, to a part of the right one, to several or to none. Nearly every
frame is used for right and for wrong answers alike, at equal rates and with equal overlap with the reference, so that
neither its words nor its likeness to the reference tell the label: what is asserted does.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medjudge.errors import DataError
from medjudge.files import BUILTIN_DIR
from medjudge.synthetic.answers import Row, bare, incomplete, question, statement
from medjudge.synthetic.facts import Fact, Language, holds, is_wrong, load_facts
from medjudge.synthetic.wordings import a_wrong_fact, frames, names, put, siblings, strangers
from medjudge.tasks.normalise import normalise

NO_ERROR = "none"
"""The `error_kind` of every equivalent candidate."""
DRAWN_PER_ROW = 5
"""Candidates drawn for each row that is kept: enough to match right and wrong ones."""
KINDS = {"plain": 24, "contrast": 52, "list": 3, "undecided": 3, "elsewhere": 14, "same": 4}
"""How a candidate is built, as weights."""
OTHER_LANGUAGE_SHARE = 0.12
"""Of the names in a candidate, those in the other language."""
REPEATED_SHARE, PLAIN_REPEATED_SHARE = 0.8, 0.3
"""Of the candidates that name a second value beside the right one, and of the plain ones, those that repeat the
reference's name of the right one."""
SENTENCE_SHARE, RENAMED_SHARE = 0.25, 0.3
"""Of the references, those that are a sentence, and those that give another name of the value."""
OVERLAP_STEPS = (0.0, 0.34, 0.67, 0.999)
"""Edges between classes of the share of the reference's words that a candidate repeats."""
SPREAD = {
    "plain": ("terse", "sloppy", "hedger"),
    "contrast": ("contrarian", "fluent"),
    "list": ("fluent", "sloppy"),
    "undecided": ("hedger",),
    "elsewhere": ("lecturer",),
    "same": ("lecturer", "terse"),
}
"""The simulated generators that answer in each way."""
GENERATORS = tuple(sorted({name for some in SPREAD.values() for name in some}))
REASONS: dict[Language, dict[str, str]] = {
    "en": {
        NO_ERROR: "Commits to: {said}. Reference: {v}. The same.",
        "wrong_entity": "Commits to: {said}. Reference: {v}. Another answer.",
        "partial": "Commits to: {said}. Reference: {v}. Only a part of it.",
        "several": "Commits to: {said}. Reference: {v}. More than one answer.",
        "undecided": "Commits to: neither {said}. Reference: {v}. No answer.",
    },
    "fr": {
        NO_ERROR: "Retient : {said}. Référence : {v}. La même réponse.",
        "wrong_entity": "Retient : {said}. Référence : {v}. Une autre réponse.",
        "partial": "Retient : {said}. Référence : {v}. Une partie seulement.",
        "several": "Retient : {said}. Référence : {v}. Plus d'une réponse.",
        "undecided": "Ne retient ni {said}. Référence : {v}. Pas de réponse.",
    },
}
"""What a candidate commits to in its own words, the reference's, and only then how they compare: the order in which a
reader finds out."""
JOINED: dict[Language, dict[str, str]] = {
    "en": {"list": "and", "undecided": "nor"},
    "fr": {"list": "et", "undecided": "ni"},
}
ANSWER_FOR: dict[Language, str] = {"en": "the answer for {s}", "fr": "la réponse pour {s}"}


QUANTITIES_PATH: Path = BUILTIN_DIR / "wordings" / "quantities.jsonl"
"""Textbook quantities in several units, with wrong ones that share number or unit: of no relation of the fact base."""
QUANTITY_SHARE = 0.06
"""Of the rows, those about a quantity."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A candidate with what its row is matched by."""

    row: Row
    match: tuple[str, ...]
    """Frame and overlap: rows that agree in these are kept in pairs of a right and a wrong one."""
    label: int


def generate(n: int, rng: random.Random, language: Language = "en") -> list[Row]:
    """`n` distinct rows in the fields of the `equivalence` contract, with `generator` and `error_kind`.

    Half of the rows are equivalent, also among those of one frame and, plain answers aside, of one class of overlap,
    but for the frames that commit to nothing. Raises DataError where `n` rows cannot be drawn.
    """
    facts = load_facts()
    bins: dict[tuple[str, ...], dict[int, list[Draft]]] = defaultdict(lambda: {0: [], 1: []})
    seen: set[tuple[object, ...]] = set()
    n_wanted = max(DRAWN_PER_ROW * n, 1500)
    for _ in range(3):
        order: list[Fact] = []
        for _ in range(n_wanted):
            order = order or rng.sample(facts, len(facts))
            asks_quantity = rng.random() < QUANTITY_SHARE
            draft = _quantity(rng, language) if asks_quantity else _draft(order.pop(), rng, language)
            key = tuple(normalise(str(draft.row[name])) for name in ("question", "reference", "candidate"))
            if key not in seen:
                seen.add(key)
                bins[draft.match][draft.label].append(draft)
        rows = _matched(bins, n, rng)
        if len(rows) >= n:
            return rows
    raise DataError(f"no more than {len(rows)} distinct rows can be drawn, asked for {n}.")


def _matched(bins: dict[tuple[str, ...], dict[int, list[Draft]]], n: int, rng: random.Random) -> list[Row]:
    """`n` rows, in every bin as many right as wrong; the frames that are always wrong or always right pair up."""
    pairs: list[tuple[Draft, Draft]] = []
    spare: dict[int, list[Draft]] = {0: [], 1: []}
    for match in sorted(bins):
        wrong, right = bins[match][0], bins[match][1]
        pairs += zip(wrong, right, strict=False)
        if match[0] in ("list", "undecided"):
            spare[0] += wrong[len(right) :]
    rng.shuffle(pairs)
    rng.shuffle(spare[0])
    n_open = round(n * sum(KINDS[kind] for kind in ("list", "undecided")) / sum(KINDS.values()) / 2)
    # Frames that are wrong with any filling take the places of other wrong answers, so that labels stay even.
    kept = [draft for pair in pairs[: (n + 1) // 2] for draft in pair]
    swapped = [i for i, draft in enumerate(kept) if draft.label == 0]
    for place, draft in zip(swapped[:n_open], spare[0], strict=False):
        kept[place] = draft
    rng.shuffle(kept)
    return [draft.row for draft in kept[:n]]


def _draft(fact: Fact, rng: random.Random, language: Language) -> Draft:
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "same" and not siblings(fact):
        kind = "plain"
    frame_at = rng.randrange(len(frames(kind, language)))
    frame = frames(kind, language)[frame_at]
    sentence = rng.random() < SENTENCE_SHARE
    known_as = rng.choice(names(fact, language)) if rng.random() < RENAMED_SHARE else ""
    value = fact.value_in(language)
    reference = statement(fact, value, rng, language) if sentence else bare(bare_name(known_as) or value)
    used = names(fact, language)[0] if sentence or not known_as else known_as
    candidate_text, error, _, said = candidate(kind, frame, fact, used, rng, language)
    generator = rng.choice(SPREAD[kind])
    if generator == "sloppy" and rng.random() < 0.5:
        candidate_text = sloppy(candidate_text, rng)
    reason = put(REASONS[language][error], said=said, v=bare_name(used))
    row: Row = {
        "question": question(fact, rng, language),
        "reference": reference,
        "candidate": candidate_text,
        "label": int(error == NO_ERROR),
        "reason": reason,
        "generator": generator,
        "error_kind": error,
        "answer_kind": kind,
        "fact_id": fact.id,
        "relation": fact.relation,
        "language": language,
        "synthetic": True,
    }
    # Plain answers are as people give them: the right ones more often say the reference's own words.
    overlap = () if kind == "plain" else overlap_class(candidate_text, bare_name(used))
    return Draft(row, (kind, str(frame_at), *overlap), int(error == NO_ERROR))


@cache
def quantities() -> tuple[dict[str, Any], ...]:
    """The quantities, in the order of the file: question, right and wrong ones, each in English and French."""
    lines = QUANTITIES_PATH.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


def _quantity(rng: random.Random, language: Language) -> Draft:
    """A number with its unit: right in another unit, wrong with the same number or the same unit."""
    ending = "" if language == "en" else "_fr"
    item = rng.choice(quantities())
    right, wrong = item[f"right{ending}"], item[f"wrong{ending}"]
    used, label = rng.choice(right), rng.randrange(2)
    kind = rng.choice(("plain", "contrast"))
    frame_at = rng.randrange(len(frames(kind, language)))
    theirs, mine = rng.choice(wrong), rng.choice(right)
    said, rejected = (mine, theirs) if label else (theirs, mine)
    candidate = put(frames(kind, language)[frame_at], a=said, r=rejected, hi="90", lo="10")
    error = NO_ERROR if label else "wrong_entity"
    row: Row = {
        "question": item[f"question{ending}"],
        "reference": used + ".",
        "candidate": candidate,
        "label": label,
        "reason": put(REASONS[language][error], said=said, v=used),
        "generator": rng.choice(SPREAD[kind]),
        "error_kind": error,
        "answer_kind": kind,
        "fact_id": item["id"],
        "relation": "quantity",
        "language": language,
        "synthetic": True,
    }
    return Draft(row, ("quantity", kind, str(frame_at), *overlap_class(candidate, used)), label)


def candidate(
    kind: str, frame: str, fact: Fact, used: str, rng: random.Random, language: Language
) -> tuple[str, str, Fact, str]:
    """(candidate, error kind, the fact with the other value, what is committed to as the candidate words it).

    used: the name that the reference gives.
    """
    other = a_wrong_fact(fact, rng)
    right = rng.random() < 0.5
    share = {"plain": PLAIN_REPEATED_SHARE, "same": 0.0}.get(kind, REPEATED_SHARE)
    repeats = rng.random() < share
    mine = used if repeats else _name(fact, used, rng, language)
    theirs = _name(other, "", rng, language)
    match kind:
        case "plain":
            if not right and rng.random() < 0.25:
                part = rng.choice(incomplete(fact, language))
                return put(frame, a=part), "partial", other, part
            said = mine if right else theirs
            return put(frame, a=said), NO_ERROR if right else "wrong_entity", other, said
        case "contrast":
            high = rng.choice((70, 75, 80, 85, 90, 95))
            # A wrong answer turns down the right value or a second wrong one, a right one a wrong value.
            if right:
                texts = (mine, theirs)
            elif rng.random() < 0.85:
                texts = (theirs, mine)
            else:
                texts = (theirs, _name(a_wrong_fact(fact, rng, (other.value,)), "", rng, language))
            filled = put(frame, a=texts[0], r=texts[1], hi=str(high), lo=str(100 - high))
            return filled, NO_ERROR if right else "wrong_entity", other, texts[0]
        case "list" | "undecided":
            x, y = rng.sample([mine, theirs], 2)
            both = f"{x} {JOINED[language][kind]} {y}"
            return put(frame, x=x, y=y), "several" if kind == "list" else "undecided", other, both
        case "elsewhere":
            if right or not siblings(fact):
                about = rng.choice(strangers(fact) or (other,))
            else:
                about = rng.choice(siblings(fact))
            told = _name(about, used if about.value == fact.value else "", rng, language)
            said = mine if right else theirs
            filled = put(frame, a=said, w=told, s=about.subject_in(language))
            return filled, NO_ERROR if right else "wrong_entity", other, said
        case "same":
            about = rng.choice(siblings(fact)) if right else a_wrong_fact(fact, rng)
            while not right and not is_wrong(about, fact):
                about = a_wrong_fact(fact, rng)
            subject = about.subject_in(language)
            said = put(ANSWER_FOR[language], s=subject)
            return put(frame, s=subject), NO_ERROR if right else "wrong_entity", other if right else about, said
    raise AssertionError(f"no kind of candidate {kind!r}")


def _name(fact: Fact, used: str, rng: random.Random, language: Language) -> str:
    """A name of the value: mostly not the one that the reference uses, seldom in the other language."""
    if rng.random() < OTHER_LANGUAGE_SHARE:
        language = "fr" if language == "en" else "en"
    known = names(fact, language)
    others = [name for name in known if normalise(bare_name(name)) != normalise(bare_name(used))]
    if used and others and rng.random() < 0.6:
        return rng.choice(others)
    return rng.choice(known)


def bare_name(name: str) -> str:
    """A name without its article."""
    return name.removeprefix("the ")


def overlap_class(candidate: str, used: str) -> tuple[str, str]:
    """Classes of the words and letters of the reference's value that a candidate repeats, and whether it holds it."""
    words = set(normalise(used).split())
    share = len(words & set(normalise(candidate).split())) / max(1, len(words))
    step = sum(share > edge for edge in OVERLAP_STEPS)
    return str(step), str(holds(candidate, used))


def sloppy(text: str, rng: random.Random) -> str:
    """The same words in another form: small letters, capitals, no accents, no full stop."""
    forms = [text.lower(), text.upper(), text.rstrip("."), _without_accents(text)]
    return rng.choice(forms)


def _without_accents(text: str) -> str:
    unified = text.replace("œ", "oe").replace("Œ", "Oe")
    return "".join(c for c in unicodedata.normalize("NFD", unified) if not unicodedata.combining(c))
