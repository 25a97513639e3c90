"""How each relation of the fact base is asked and answered, in English and French.

`{s}` stands for the subject, `{S}` for the subject with a capital, `{v}` and `{V}` likewise for the value. French
texts set subject and value after a colon, because their article and elision depend on a gender that facts do not hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge.files import BUILTIN_DIR
from medjudge.synthetic.facts import LANGUAGES, Language

PHRASINGS_PATH: Path = BUILTIN_DIR / "wordings" / "phrasings.json"


@dataclass(frozen=True, slots=True)
class Phrasing:
    """The texts of one relation in one language."""

    asked: str
    """What is asked for, with its article: "the nerve". Starts sentences such as "The nerve is ..."."""
    questions: tuple[str, ...]
    """Questions about a subject, answered by a value."""
    reverse: tuple[str, ...]
    """Questions about a value, answered by choosing a subject among options."""
    statements: tuple[str, ...]
    """Sentences that state subject and value."""
    vague: tuple[str, ...]
    """Answers that name no value, only the kind of thing: never enough."""
    value_first: tuple[str, ...]
    """Sentences that name the value and then the subject, both as inside a sentence: so one comes from the value that a
    reverse question names to a subject that has it."""
    article: str = ""
    """The article, with its space, that may stand before every value: "the " before "axillary nerve"."""


def capital(text: str) -> str:
    """`text` with a capital, where that is how its first word is written: not in `t(9;22)` or `mTOR`."""
    follows = text[1:2]
    return text if follows == "(" or follows.isupper() else text[:1].upper() + text[1:]


def fill(template: str, subject: str = "", value: str = "") -> str:
    """A template with its places filled."""
    places = {"{s}": subject, "{S}": capital(subject), "{v}": value, "{V}": capital(value)}
    for place, text in places.items():
        template = template.replace(place, text)
    return template


def _read(language: Language) -> Mapping[str, Phrasing]:
    tree: dict[str, Any] = json.loads(PHRASINGS_PATH.read_text(encoding="utf-8"))[language]
    return {
        relation: Phrasing(
            **{name: tuple(text) if isinstance(text, list) else text for name, text in texts.items()}  # type: ignore[arg-type]
        )
        for relation, texts in tree.items()
    }


PHRASINGS: dict[Language, Mapping[str, Phrasing]] = {language: _read(language) for language in LANGUAGES}
VALUE_FIRST = {
    language: {relation: one.value_first for relation, one in PHRASINGS[language].items()} for language in LANGUAGES
}
