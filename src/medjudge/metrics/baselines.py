"""What no training is needed for: the rows that a judge must beat, scored by the very same code.

Whatever is learnt is learnt from training rows. Each baseline answers with verdicts, one per case, in the cases' order.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medjudge.errors import DataError
from medjudge.records import Case, Judgement, Verdict

MAJORITY = "majority"
ALWAYS_POSITIVE = "always_positive"
CHANCE = "chance"
WORD_COUNTS = "word_counts"

BASELINES = {
    MAJORITY: "the commonest label of the training rows, for every case",
    ALWAYS_POSITIVE: "the positive label for every case",
    CHANCE: "labels drawn uniformly",
    WORD_COUNTS: "logistic regression on counts of words and word pairs, fitted on the training rows",
}

_MIN_DF = 2
"""Words seen in one training row alone cannot carry over to another."""
_MAX_FEATURES = 100_000
_INVERSE_REGULARISATION = 1.0
"""scikit-learn's default. On imaging ratings split by variant: macro-F1 .57, accuracy .62; 3 and 10 are within .02."""


@dataclass(frozen=True, slots=True)
class Baselines:
    """The baselines' answers by name, and by name why one was left out."""

    judgements: dict[str, list[Judgement]]
    skipped: dict[str, str]


def trivial_baselines(
    train: Sequence[Case],
    cases: Sequence[Case],
    *,
    labels: Sequence[str],
    positive: str | None,
    rng: np.random.Generator,
) -> Baselines:
    """Every baseline that these rows allow, each answering all `cases`.

    train: rows to learn from; those without a gold label are ignored, and none at all leaves out what learns.
    """
    judgements: dict[str, list[Judgement]] = {}
    skipped: dict[str, str] = {}
    try:
        judgements[MAJORITY] = majority(train, cases, labels=labels)
    except DataError as error:
        skipped[MAJORITY] = str(error)
    if positive is not None:
        judgements[ALWAYS_POSITIVE] = always_positive(cases, positive=positive)
    judgements[CHANCE] = chance(cases, labels=labels, rng=rng)
    try:
        judgements[WORD_COUNTS] = word_counts(train, cases)
    except DataError as error:
        skipped[WORD_COUNTS] = str(error)
    return Baselines(judgements, skipped)


def majority(train: Sequence[Case], cases: Sequence[Case], *, labels: Sequence[str]) -> list[Judgement]:
    """The commonest gold label of `train` for every case; of labels equally common, the first in `labels`.

    Raises DataError if no training row has a gold label.
    """
    counts = Counter(case.gold for case in train if case.gold is not None)
    if not counts:
        raise DataError("the majority baseline needs training rows with a gold label, found none.")
    commonest = max(labels, key=lambda label: counts[label])  # max keeps the first of equals
    return [Verdict(case.case_id, commonest) for case in cases]


def always_positive(cases: Sequence[Case], *, positive: str) -> list[Judgement]:
    """The positive label for every case: its F1 is 2p / (1 + p) at a positive rate p, which can look like skill."""
    return [Verdict(case.case_id, positive) for case in cases]


def chance(cases: Sequence[Case], *, labels: Sequence[str], rng: np.random.Generator) -> list[Judgement]:
    """A label drawn uniformly for every case. Its expected accuracy is exactly `chance_accuracy(labels)`."""
    drawn = rng.integers(len(labels), size=len(cases))
    return [Verdict(case.case_id, labels[code]) for case, code in zip(cases, drawn, strict=True)]


def chance_accuracy(labels: Sequence[str]) -> float:
    """Expected accuracy of uniform guessing, whatever the shares of the gold labels: 1 / number of labels."""
    if not labels:
        raise DataError("an empty label set has no chance level.")
    return 1 / len(labels)


def word_counts(train: Sequence[Case], cases: Sequence[Case]) -> list[Judgement]:
    """Logistic regression on counts of words and word pairs in the joined input fields, classes weighted equally.

    Vocabulary and weights come from `train` alone; `confidence` is the predicted label's probability. No setting is
    chosen on held-out rows. Raises DataError if the training rows have no label, one label alone, or no words.
    """
    rated = [case for case in train if case.gold is not None]
    if not rated:
        raise DataError("the word-count baseline needs training rows with a gold label, found none.")
    if len({case.gold for case in rated}) == 1:
        raise DataError(f"the word-count baseline needs two labels: all {len(rated):,} training rows have one label.")
    if not cases:
        return []
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    vectorizer, counts = _count_words([_joined(case) for case in rated])
    model = LogisticRegression(C=_INVERSE_REGULARISATION, class_weight="balanced", max_iter=1000)
    with warnings.catch_warnings():
        # Weights a little short of the optimum are as good a baseline; the warning would tell a user to mend nothing.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(counts, [str(case.gold) for case in rated])
    probabilities = model.predict_proba(vectorizer.transform([_joined(case) for case in cases]))
    return [
        Verdict(case.case_id, str(model.classes_[row.argmax()]), confidence=float(row.max()))
        for case, row in zip(cases, probabilities, strict=True)
    ]


def _count_words(texts: Sequence[str]) -> tuple[Any, Any]:
    """A vectorizer fitted on `texts`, and their counts."""
    from sklearn.feature_extraction.text import CountVectorizer

    for min_df in (_MIN_DF, 1):  # in a handful of rows no word may occur twice
        # The pattern keeps words of one character: "T 4", "grade 2".
        vectorizer = CountVectorizer(
            ngram_range=(1, 2), min_df=min_df, max_features=_MAX_FEATURES, token_pattern=r"(?u)\b\w+\b"
        )
        try:
            return vectorizer, vectorizer.fit_transform(texts)
        except ValueError:  # scikit-learn's word for an empty vocabulary
            continue
    raise DataError("the word-count baseline needs words: the training rows' fields hold none.")


def _joined(case: Case) -> str:
    return "\n".join(case.inputs.values())


@dataclass(frozen=True, slots=True)
class Lexical:
    """One similarity of two texts, as a judge: its cutpoints are fitted on training rows."""

    name: str
    cutpoints: tuple[float, ...]
    """K - 1 ascending similarities; a case gets the label whose place is the number of cutpoints at or below its
    own."""
    n_train: int


@dataclass(frozen=True, slots=True)
class LexicalBaselines:
    """The lexical baselines' answers, how each was fitted, and what was left out."""

    judgements: dict[str, list[Judgement]]
    fitted: dict[str, Lexical]
    skipped: dict[str, str]
    n_train: int
    """Labelled training rows whose group is not evaluated: those that thresholds and vocabulary were fitted on."""
    n_train_dropped: int
    """Labelled training rows left out because their group (question) is evaluated."""


def lexical_baselines(
    train: Sequence[Case],
    cases: Sequence[Case],
    *,
    labels: Sequence[str],
    texts: tuple[str, str],
    embed: Callable[[Sequence[str]], NDArray[np.float64]] | None = None,
) -> LexicalBaselines:
    """Token F1, ROUGE-L, BLEU, chrF, TF-IDF cosine and, with `embed`, embedding cosine of two input fields.

    texts: (judged field, compared-with field), as `COMPARED_TEXTS[contract.kind]`. labels: lowest first; more
    similarity never means a lower label. embed: texts -> (n, d) vectors. Cutpoints maximise balanced accuracy on the
    training rows whose group is not among the evaluated ones. A case that lacks a field counts as similarity 0.
    """
    raise NotImplementedError


COMPARED_TEXTS: dict[str, tuple[str, str]] = {
    "equivalence": ("candidate", "reference"),
    "rubric": ("output", "reference"),
}
"""Contract kind -> the two input fields whose likeness could stand in for a judgement; other kinds have none."""
