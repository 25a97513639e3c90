"""Medical entities in a text: the terms of a list by default, a spaCy pipeline where one is installed."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol

from medjudge.errors import ConfigError

SPACY = "spacy:"
_WORD = re.compile(r"[a-z0-9]+")


class EntityExtractor(Protocol):
    """Finds entities in texts."""

    @property
    def name(self) -> str:
        """What a report calls it."""

    def __call__(self, texts: Sequence[str]) -> list[frozenset[str]]:
        """The distinct entities of each text in a form that can be compared, in the order of the texts."""


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in a plain form: lower case, no accents, `ae` and `oe` as `e`, no plural s."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(char for char in plain if not unicodedata.combining(char))
    return tuple(_singular(word) for word in _WORD.findall(re.sub(r"[ao]e|[æœ]", "e", plain)))


def _singular(word: str) -> str:
    is_plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if is_plural else word


class TermList:
    """Terms found word by word, the longest first; a word belongs to one term only."""

    def __init__(self, name: str, terms: Iterable[str]) -> None:
        """`terms` in any form; terms of one character are no terms."""
        self.name = name
        self.by_first: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for words in sorted({words_of(term) for term in terms}, key=len, reverse=True):
            if words and len("".join(words)) > 1:
                self.by_first[words[0]].append(words)

    def __call__(self, texts: Sequence[str]) -> list[frozenset[str]]:
        """The terms of each text."""
        return [frozenset(self._terms(words_of(text))) for text in texts]

    def _terms(self, words: tuple[str, ...]) -> Iterable[str]:
        at = 0
        while at < len(words):
            candidates = self.by_first.get(words[at], ())
            entity = next((term for term in candidates if words[at : at + len(term)] == term), None)
            if entity is None:
                at += 1
            else:
                yield " ".join(entity)
                at += len(entity)


class SpacyEntities:
    """A spaCy or scispaCy pipeline by its name, such as `en_core_sci_sm`, loaded when it is first asked."""

    def __init__(self, pipeline: str) -> None:
        """`pipeline`: an installed package or a folder."""
        self.pipeline, self.name = pipeline, f"{SPACY}{pipeline}"

    @cached_property
    def nlp(self) -> Any:
        """The pipeline. Raises ConfigError if spaCy or the pipeline is not installed."""
        try:
            import spacy

            return spacy.load(self.pipeline)
        except (ImportError, OSError) as error:
            missing = "spaCy" if isinstance(error, ImportError) else f"the pipeline {self.pipeline!r}"
            raise ConfigError(
                f"entities by {self.name!r} need {missing}, which is not installed here. Install it by its own "
                'instructions, or set `evaluate.entities = "builtin"`.'
            ) from None

    def __call__(self, texts: Sequence[str]) -> list[frozenset[str]]:
        """The entities of each text."""
        documents = self.nlp.pipe(texts)
        return [frozenset(" ".join(words_of(entity.text)) for entity in document.ents) - {""} for document in documents]
