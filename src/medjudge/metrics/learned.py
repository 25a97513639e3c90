"""What a user would fit instead of training a judge: models on words, overlaps and sentence embeddings.

Fitted on training rows alone; how strongly they are regularised is chosen by cross-validation by group among these.
Time is bounded: of many rows whole groups are drawn, by the seed, and a sentence says how many. Multiple choice is
answered by scoring each option as right or wrong and taking the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjudge.errors import DataError
from medjudge.metrics.surface import (
    READING_ORDER,
    Array,
    Embed,
    Logistic,
    Model,
    RbfSvm,
    Scores,
    SurfaceFeatures,
    Texts,
    best_setting,
    embedding_features,
    field_pairs,
)
from medjudge.records import Case, Judgement, Verdict
from medjudge.tasks.mcq import LETTERS, OPTIONS

SURFACE = "surface"
EMBEDDING_LINEAR = "embedding_linear"
EMBEDDING_SVM = "embedding_svm"
LEARNED = {
    SURFACE: "logistic regression on TF-IDF of words and word pairs of each field, overlaps of fields and lengths",
    EMBEDDING_LINEAR: "logistic regression on sentence embeddings of the fields",
    EMBEDDING_SVM: "support vector machine (RBF kernel) on sentence embeddings of the fields",
}
"""Baselines fitted on training rows, in words."""
SURFACE_ROWS = 8_000
"""Most training rows of the surface model; an option of multiple choice counts as one."""
EMBEDDED_ROWS = 4_000
"""Most training rows of the models on embeddings: a kernel grows with their square."""
EMBEDDED_CHARACTERS = 400_000
"""Most characters of training texts that are embedded: a minute or two on one core."""
EVALUATED_CHARACTERS = 1_500_000
"""Most characters of evaluated texts that are embedded: every case must have a verdict, so beyond it none is given."""
CLIPPED = 1_000
"""Characters of a text that are embedded; common models read about 250 word pieces."""


@dataclass(frozen=True, slots=True)
class Learned:
    """Answers by name, by name why there are none, and what must be known of how they were fitted."""

    judgements: dict[str, list[Judgement]]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reading:
    """How cases become rows of texts with a label each."""

    fields: tuple[str, ...]
    """What is judged first, then what it is held against."""
    is_choice: bool

    @classmethod
    def of(cls, kind: str, train: Sequence[Case]) -> _Reading:
        """Fields that do not differ between training rows are left out."""
        if kind == "mcq":
            return cls(("option", "question", "others"), True)
        order = READING_ORDER.get(kind, ())
        named = dict.fromkeys(name for case in train for name in case.inputs)
        fields = [*(name for name in order if name in named), *(name for name in named if name not in order)]
        varied = tuple(name for name in fields if len({case.inputs.get(name, "") for case in train}) > 1)
        return cls(varied, False)

    @property
    def embedded(self) -> tuple[str, ...]:
        """The fields that are embedded: what is judged, and two others at most."""
        return self.fields[: 2 if self.is_choice else 3]

    def rows(self, cases: Sequence[Case]) -> list[Texts]:
        """A row per case; of multiple choice a row per option, in the options' order."""
        return [row for case in cases for row in self.rows_of(case)]

    def rows_of(self, case: Case) -> list[Texts]:
        """The rows of one case."""
        if not self.is_choice:
            return [case.inputs]
        options = [case.inputs.get(name, "") for name in OPTIONS]
        return [
            {
                "option": option,
                "question": case.inputs.get("question", ""),
                "others": " ".join(options[:at] + options[at + 1 :]),
            }
            for at, option in enumerate(options)
        ]

    def labels(self, cases: Sequence[Case]) -> Array:
        """A label per row: the expert's; of multiple choice whether the option is right."""
        if not self.is_choice:
            return np.array([str(case.gold) for case in cases])
        return np.array([str(int(letter == case.gold)) for case in cases for letter in LETTERS])

    def groups(self, cases: Sequence[Case]) -> list[str]:
        """A group per row."""
        return [case.group or case.case_id for case in cases for _ in range(len(LETTERS) if self.is_choice else 1)]

    def verdicts(self, cases: Sequence[Case], scores: Scores) -> list[Judgement]:
        """The highest score's label per case; confidences where the scores are probabilities."""
        of, names = scores.of, scores.classes
        if self.is_choice:
            of, names = of[:, names.index("1")].reshape(-1, len(LETTERS)), LETTERS
            if scores.are_probabilities:
                of = of / of.sum(axis=1, keepdims=True)
        return [
            Verdict(case.case_id, names[row.argmax()], float(row.max()) if scores.are_probabilities else None)
            for case, row in zip(cases, of, strict=True)
        ]


def learned_baselines(
    train: Sequence[Case],
    cases: Sequence[Case],
    *,
    kind: str,
    seed: int,
    embed: Callable[[], Embed | str] | None = None,
) -> Learned:
    """The baselines of `LEARNED`, fitted on the labelled ones of `train`; labels of `cases` are not looked at.

    kind: of the contract. seed: of what is drawn where there are many rows, and of the folds. embed: called only where
    there is something to embed; texts -> (n, d) unit vectors, or in words why there are none.
    """
    rated = [case for case in train if case.gold is not None]
    if (why_not := _why_not(rated, cases)) is not None:
        return Learned({}, dict.fromkeys(LEARNED, why_not))
    reading = _Reading.of(kind, rated)
    if not reading.fields:
        return Learned(
            {}, dict.fromkeys(LEARNED, "it needs texts that differ, and the training rows have all the same.")
        )
    surface = _on_surface(rated, cases, reading, seed)
    embedded = _on_embeddings(rated, cases, reading, seed, embed)
    return Learned(
        {**surface.judgements, **embedded.judgements},
        {**surface.skipped, **embedded.skipped},
        (*surface.notes, *embedded.notes),
    )


def _why_not(rated: Sequence[Case], cases: Sequence[Case]) -> str | None:
    found = len({case.gold for case in rated})
    if found < 2:
        what = f"all {len(rated):,} have the same" if rated else "got none"
        return (
            f"it needs labelled training rows of two labels whose question is not evaluated: {what}. Name the rows of "
            "the training, and the column of their labels."
        )
    if not any(text.strip() for case in cases for text in case.inputs.values()):
        return "it needs texts, and the evaluated rows hold none. Check `[data.fields]`."
    return None


def _on_surface(rated: Sequence[Case], cases: Sequence[Case], reading: _Reading, seed: int) -> Learned:
    some = _draw(rated, seed, SURFACE_ROWS // len(reading.rows_of(rated[0])))
    if len({case.gold for case in some}) < 2:
        return Learned({}, {SURFACE: f"the {len(some):,} training rows that fit its limits have one label."})
    rows = reading.rows(some)
    try:
        features = SurfaceFeatures(reading.fields, field_pairs(reading.fields)).fit(rows)
    except DataError as error:
        return Learned({}, {SURFACE: str(error)})
    seen, new = features.transform(rows), features.transform(reading.rows(cases))
    answers = _fit_and_judge(Logistic, Logistic.GRID, seen, new, reading, some, cases, seed)
    return Learned({SURFACE: answers}, {}, _drawn_note([SURFACE], some, rated))


def _on_embeddings(
    rated: Sequence[Case],
    cases: Sequence[Case],
    reading: _Reading,
    seed: int,
    embed: Callable[[], Embed | str] | None,
) -> Learned:
    names = (EMBEDDING_LINEAR, EMBEDDING_SVM)

    def without(why: str) -> Learned:
        return Learned({}, dict.fromkeys(names, why))

    n_characters = _n_characters(reading.rows(cases), reading.embedded)
    if n_characters > EVALUATED_CHARACTERS:
        return without(
            f"the evaluated rows hold {n_characters:,} characters to embed, expected {EVALUATED_CHARACTERS:,} at most. "
            "Evaluate fewer rows (`evaluate.max_cases`)."
        )
    some = _draw(rated, seed, EMBEDDED_ROWS // len(reading.rows_of(rated[0])), EMBEDDED_CHARACTERS, reading)
    if len({case.gold for case in some}) < 2:
        return without(f"the {len(some):,} training rows that fit its limits have one label. Shorten their texts.")
    embedder = embed() if embed is not None else "no embedding model was given."
    if isinstance(embedder, str):
        return without(embedder)

    def features(of: Sequence[Case]) -> Array:
        cut = [{name: row.get(name, "")[:CLIPPED] for name in reading.embedded} for row in reading.rows(of)]
        return embedding_features(cut, reading.embedded, embedder)

    seen, new = features(some), features(cases)
    return Learned(
        {
            EMBEDDING_LINEAR: _fit_and_judge(Logistic, Logistic.DENSE_GRID, seen, new, reading, some, cases, seed),
            EMBEDDING_SVM: _fit_and_judge(RbfSvm, RbfSvm.GRID, seen, new, reading, some, cases, seed),
        },
        {},
        _drawn_note(names, some, rated),
    )


def _fit_and_judge(
    make: Callable[[float], Model],
    grid: Sequence[float],
    seen: Any,
    new: Any,
    reading: _Reading,
    train: Sequence[Case],
    cases: Sequence[Case],
    seed: int,
) -> list[Judgement]:
    """seen, new: features of the rows of `train` and of `cases`."""
    labels = reading.labels(train)
    setting = best_setting(make, grid, seen, labels, reading.groups(train), seed)
    return reading.verdicts(cases, make(setting).fit(seen, labels).score(new))


def _draw(
    cases: Sequence[Case], seed: int, n_rows: int, n_characters: int | None = None, reading: _Reading | None = None
) -> list[Case]:
    """All cases where they keep the limits; else whole groups in an order drawn by the seed, as many as do."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group or case.case_id, []).append(case)
    names = sorted(groups)
    kept: set[str] = set()
    texts: set[str] = set()
    rows = characters = 0
    for at in np.random.default_rng(seed).permutation(len(names)):
        group = groups[names[at]]
        new: set[str] = set()
        if reading is not None:
            new = {row.get(name, "")[:CLIPPED] for row in reading.rows(group) for name in reading.embedded} - texts
        rows += len(group)
        characters += sum(map(len, new))
        if kept and (rows > n_rows or (n_characters is not None and characters > n_characters)):
            break
        kept.add(names[at])
        texts |= new
    return [case for case in cases if (case.group or case.case_id) in kept]


def _n_characters(rows: Sequence[Texts], fields: Sequence[str]) -> int:
    return sum(len(text) for text in {row.get(name, "")[:CLIPPED] for row in rows for name in fields})


def _drawn_note(names: Sequence[str], some: Sequence[Case], rated: Sequence[Case]) -> tuple[str, ...]:
    if len(some) == len(rated):
        return ()
    return (
        f"{' and '.join(names)} learnt from {len(some):,} of the {len(rated):,} labelled training rows, whole groups "
        "drawn by the seed: more would take too long.",
    )
