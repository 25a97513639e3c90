"""What no training is needed for: the rows that a judge must beat, scored by the very same code.

Whatever is learnt is learnt from training rows. Each baseline answers with verdicts, one per case, in the cases' order.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medjudge.errors import DataError
from medjudge.records import Case, Judgement, Verdict

MAJORITY = "majority"
ALWAYS_POSITIVE = "always_positive"
CHANCE = "chance"
WORD_COUNTS = "word_counts"
TOKEN_F1 = "token_f1"
ROUGE_L = "rouge_l"
BLEU = "bleu"
CHRF = "chrf"
TFIDF = "tfidf_cosine"
EMBEDDING = "embedding_cosine"

LEXICAL = {
    TOKEN_F1: "words shared by the two texts (F1)",
    ROUGE_L: "longest common run of words, gaps allowed (ROUGE-L F1)",
    BLEU: "sentence BLEU (sacreBLEU, effective order)",
    CHRF: "chrF (sacreBLEU)",
    TFIDF: "cosine of TF-IDF vectors, vocabulary of the training rows",
}
"""Judges that only hold two texts against each other; cutpoints fitted on training rows whose question is not
evaluated."""

TRIVIAL = {
    MAJORITY: "the commonest label of the training rows, for every case",
    ALWAYS_POSITIVE: "the positive label for every case",
    CHANCE: "labels drawn uniformly",
    WORD_COUNTS: "logistic regression on counts of words and word pairs, fitted on the training rows",
}
BASELINES = {**TRIVIAL, **LEXICAL, EMBEDDING: "cosine of sentence embeddings"}
"""Every baseline by name, in words."""

FloatArray = NDArray[np.float64]
Embed = Callable[[Sequence[str]], NDArray[Any]]
Similarity = Callable[[Sequence[tuple[str, str]]], FloatArray]

_WORD = re.compile(r"(?u)\b\w+\b")

_MIN_DF = 2
"""Words seen in one training row alone cannot carry over to another."""
_MAX_FEATURES = 100_000
_INVERSE_REGULARISATION = 1.0
"""scikit-learn's default. On imaging ratings split by variant: macro-F1 .57, accuracy .62; 3 and 10 are within .02."""


@dataclass(frozen=True, slots=True)
class Baselines:
    """The baselines' answers by name, and by name why one was left out."""

    judgements: Mapping[str, Sequence[Judgement]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What must be known of how they were fitted, as sentences."""


def every_baseline(
    train: Sequence[Case],
    cases: Sequence[Case],
    *,
    kind: str,
    labels: Sequence[str],
    positive: str | None,
    rng: np.random.Generator,
    question_fields: Sequence[str] = (),
    embed: Callable[[], Embed | str] | None = None,
) -> Baselines:
    """Trivial and lexical baselines, all fitted on the training rows whose question is not evaluated.

    kind: of the contract; it and the cases say whether there are two texts whose likeness means something.
    question_fields: inputs that make a question. A training row is left out where these texts or its group are
    evaluated: groups of two files need not be named alike.
    embed: called only where there are; texts -> (n, d) vectors, or in words why embedding cosine is left out.
    """
    clean = unasked(train, cases, question_fields)
    notes = (_fitted_on(clean, train, cases, question_fields),) if train else ()
    trivial = trivial_baselines(clean, cases, labels=labels, positive=positive, rng=rng)
    texts = compared_texts(kind, cases)
    if texts is None or not train:
        return Baselines(trivial.judgements, trivial.skipped, notes)
    if not any(case.inputs.get(name) for case in cases for name in texts):
        without = dict.fromkeys([*LEXICAL, EMBEDDING], f"the evaluated rows hold no texts ({' and '.join(texts)}).")
        return Baselines(trivial.judgements, {**trivial.skipped, **without}, notes)
    embedder = embed() if embed is not None else "no embedding model was given."
    without = {EMBEDDING: embedder} if isinstance(embedder, str) else {}
    lexical = lexical_baselines(
        clean, cases, labels=labels, texts=texts, embed=None if isinstance(embedder, str) else embedder
    )
    return Baselines(
        {**trivial.judgements, **lexical.judgements}, {**trivial.skipped, **lexical.skipped, **without}, notes
    )


def _fitted_on(
    clean: Sequence[Case], train: Sequence[Case], cases: Sequence[Case], question_fields: Sequence[str]
) -> str:
    """How many training rows the baselines learn from, and whether it was checked that none of them is evaluated."""
    named = question_fields or tuple({name for case in cases for name in case.inputs})
    with_text = sum(any(case.inputs.get(name) for name in named) for case in cases)
    if not with_text:
        return (
            f"Baselines were fitted on {len(clean):,} training rows. Whether their questions are among those evaluated "
            "could not be checked: the evaluated rows hold no texts."
        )
    part = "" if with_text == len(cases) else f" (checked for the {with_text:,} of {len(cases):,} rows that hold texts)"
    if len(clean) < len(train):
        return (
            f"Baselines were fitted on {len(clean):,} of {len(train):,} training rows: the questions of the other "
            f"{len(train) - len(clean):,} are among those evaluated{part}."
        )
    return (
        f"Baselines were fitted on {len(train):,} training rows, whose questions are not among those evaluated{part}."
    )


def without_names_of(baselines: Baselines, judges: Collection[str]) -> Baselines:
    """The baselines but those that a judge is called like: a judge keeps its name."""
    same = {name: "a judge has this name." for name in baselines.judgements if name in judges}
    kept = {name: answers for name, answers in baselines.judgements.items() if name not in same}
    return Baselines(kept, {**baselines.skipped, **same}, baselines.notes)


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
    if cases and not any(case.inputs for case in cases):
        raise DataError("the word-count baseline needs words: the evaluated rows hold no texts.")
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
            ngram_range=(1, 2), min_df=min_df, max_features=_MAX_FEATURES, token_pattern=_WORD.pattern
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
    """How one similarity of two texts became a judge."""

    cutpoints: tuple[float, ...]
    """K - 1 ascending likenesses; a case's label is the one at the place that counts the cutpoints at or below it."""
    train_balanced_accuracy: float
    """What these cutpoints reach on the rows that they were fitted on: not a result."""


@dataclass(frozen=True, slots=True)
class LexicalBaselines:
    """The lexical baselines' answers, how each was fitted, and what was left out."""

    judgements: dict[str, list[Judgement]]
    fitted: dict[str, Lexical]
    skipped: dict[str, str]
    n_train: int
    """Labelled training rows whose group is not evaluated: those that cutpoints and vocabulary were fitted on."""
    n_train_dropped: int
    """Labelled training rows left out because their group (question) is evaluated."""


def compared_texts(kind: str, cases: Sequence[Case]) -> tuple[str, str] | None:
    """The two input fields whose likeness could serve as a judgement of this contract kind; None if it has none.

    A rubric case without a reference is compared with its input: what the output should follow.
    """
    if kind == "rubric" and not any("reference" in case.inputs for case in cases):
        return ("output", "input")
    return {"equivalence": ("candidate", "reference"), "rubric": ("output", "reference")}.get(kind)


def lexical_baselines(
    train: Sequence[Case],
    cases: Sequence[Case],
    *,
    labels: Sequence[str],
    texts: tuple[str, str],
    embed: Embed | None = None,
) -> LexicalBaselines:
    """Token F1, ROUGE-L, BLEU, chrF, TF-IDF cosine and, with `embed`, embedding cosine of two input fields, as judges.

    texts: (judged field, field compared with), as `compared_texts` gives them. labels: lowest first; more likeness
    never means a lower label. embed: texts -> (n, d) vectors. Everything is fitted on training rows whose group is not
    among the evaluated ones: the vocabulary, and the cutpoints, which maximise balanced accuracy there. A case that
    lacks a field has likeness 0. Without training rows of two labels all are skipped, with the reason.
    """
    rated = [case for case in train if case.gold is not None]
    kept = unasked(rated, cases)
    judgements: dict[str, list[Judgement]] = {}
    fitted: dict[str, Lexical] = {}
    skipped: dict[str, str] = {}
    if len({case.gold for case in kept}) < 2:
        reason = (
            "lexical baselines need training rows of two labels whose question is not evaluated, found "
            f"{len(kept)} of {len(rated)} labelled rows."
        )
        skipped = dict.fromkeys([*LEXICAL, *([EMBEDDING] if embed else [])], reason)
        return LexicalBaselines({}, {}, skipped, len(kept), len(rated) - len(kept))
    gold = np.array([list(labels).index(str(case.gold)) for case in kept])
    train_pairs, pairs = [_texts(case, texts) for case in kept], [_texts(case, texts) for case in cases]
    for name, likeness in _similarities(train_pairs, embed).items():
        try:
            seen, new = likeness(train_pairs), likeness(pairs)
        except DataError as error:
            skipped[name] = str(error)
            continue
        cutpoints = fit_cutpoints(seen, gold, len(labels))
        places = np.searchsorted(cutpoints, new, side="right")
        judgements[name] = [Verdict(case.case_id, labels[at]) for case, at in zip(cases, places, strict=True)]
        reached = _balanced_accuracy(np.searchsorted(cutpoints, seen, side="right"), gold)
        fitted[name] = Lexical(tuple(float(c) for c in cutpoints), reached)
    return LexicalBaselines(judgements, fitted, skipped, len(kept), len(rated) - len(kept))


def fit_cutpoints(likeness: FloatArray, gold: NDArray[np.int64], n_labels: int) -> FloatArray:
    """(n_labels - 1,) ascending cutpoints that maximise balanced accuracy, found among all by dynamic programming.

    likeness: (n,) in [-1, 1]; gold: (n,) codes, lowest label first. A cutpoint lies half-way between two neighbouring
    likenesses; -1 is below and 2 above all of them. Of equally good ones the lowest.
    """
    values = np.unique(likeness)
    # right[k, i]: share of label k's rows among the i lowest values.
    right = np.zeros((n_labels, len(values) + 1))
    place = np.searchsorted(values, likeness)
    for code in range(n_labels):
        rows = gold == code
        if rows.any():
            right[code, 1:] = np.cumsum(np.bincount(place[rows], minlength=len(values))) / rows.sum()
    # best[i]: most that labels 0..k can get right with the i lowest values.
    best, choices = right[0], []
    for code in range(1, n_labels):
        start = best - right[code]
        lowest = np.maximum.accumulate(start)
        # Where the running maximum was first reached: the lowest of equally good cutpoints.
        choices.append(np.maximum.accumulate(np.where(start > np.r_[-np.inf, lowest[:-1]], np.arange(len(start)), 0)))
        best = lowest + right[code]
    cuts, at = [], len(values)
    for choice in reversed(choices):
        at = int(choice[at])
        cuts.append(at)
    edges = np.r_[-1.0, (values[:-1] + values[1:]) / 2, 2.0]
    return np.asarray(edges[np.array(cuts[::-1], dtype=int)])


def _balanced_accuracy(answer: NDArray[np.int64], gold: NDArray[np.int64]) -> float:
    return float(np.mean([(answer[gold == code] == code).mean() for code in np.unique(gold)]))


def token_f1(text: str, other: str) -> float:
    """F1 of the words two texts share, each as often as it occurs; 0 if either has none.

    Source: Rajpurkar et al. (2016), arXiv:1606.05250; without its removal of English articles.
    """
    a, b = Counter(_words(text)), Counter(_words(other))
    shared = sum((a & b).values())
    return 2 * shared / (a.total() + b.total()) if shared else 0.0


def rouge_l(text: str, other: str) -> float:
    """F1 of the longest common subsequence of words; 0 if either has none.

    Ours, because the package `rouge-score` drops every letter outside a-z: "fièvre" would be "fi" and "vre". On texts
    in plain ASCII the two agree. Source: Lin (2004), https://aclanthology.org/W04-1013.
    """
    a, b = _words(text), _words(other)
    if not a or not b:
        return 0.0
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    # Bit-parallel LCS of Hyyrö (2004): a zero bit is a word of `a` that the subsequence has reached.
    full = row = (1 << len(a)) - 1
    for word in b:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return 2 * (len(a) - row.bit_count()) / (len(a) + len(b))


def _similarities(train: Sequence[tuple[str, str]], embed: Embed | None) -> dict[str, Similarity]:
    """Name -> likeness of pairs of texts; whatever is learnt is learnt from the training pairs."""
    similarities: dict[str, Similarity] = {
        TOKEN_F1: lambda pairs: np.array([token_f1(a, b) for a, b in pairs]),
        ROUGE_L: lambda pairs: np.array([rouge_l(a, b) for a, b in pairs]),
        BLEU: _bleu,
        CHRF: _chrf,
        TFIDF: lambda pairs: _tfidf(train, pairs),
    }
    if embed is not None:
        similarities[EMBEDDING] = lambda pairs: _cosine(embed([a for a, _ in pairs]), embed([b for _, b in pairs]))
    return similarities


def _bleu(pairs: Sequence[tuple[str, str]]) -> FloatArray:
    from sacrebleu.metrics import BLEU as SentenceBleu  # noqa: N811  (the constant has the name)

    # Shorter texts than four words have no 4-grams: the effective order leaves out what cannot occur.
    metric = SentenceBleu(lowercase=True, effective_order=True)
    return np.array([metric.sentence_score(a, [b]).score / 100 for a, b in pairs])


def _chrf(pairs: Sequence[tuple[str, str]]) -> FloatArray:
    from sacrebleu.metrics import CHRF as SentenceChrf  # noqa: N811

    metric = SentenceChrf(lowercase=True)
    return np.array([metric.sentence_score(a, [b]).score / 100 for a, b in pairs])


def _tfidf(train: Sequence[tuple[str, str]], pairs: Sequence[tuple[str, str]]) -> FloatArray:
    """Cosine of TF-IDF vectors, vocabulary and document frequencies from the training pairs alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=_WORD.pattern, sublinear_tf=True)
    try:
        vectorizer.fit([text for pair in train for text in pair])
    except ValueError:  # scikit-learn's word for an empty vocabulary
        raise DataError("the TF-IDF baseline needs words: the training rows' fields hold none.") from None
    a, b = (vectorizer.transform([pair[side] for pair in pairs]) for side in (0, 1))
    return np.asarray(a.multiply(b).sum(axis=1), dtype=np.float64).ravel()


def _cosine(a: NDArray[Any], b: NDArray[Any]) -> FloatArray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.where(lengths > 0, (a * b).sum(1) / np.where(lengths > 0, lengths, 1.0), 0.0))


def _texts(case: Case, fields: tuple[str, str]) -> tuple[str, str]:
    return case.inputs.get(fields[0], ""), case.inputs.get(fields[1], "")


def unasked(train: Sequence[Case], cases: Sequence[Case], question_fields: Sequence[str] = ()) -> list[Case]:
    """The training rows whose question, by its group or its texts, is none of the evaluated ones."""
    evaluated = {name for case in cases for name in _questions(case, question_fields)}
    return [case for case in train if not evaluated & _questions(case, question_fields)]


def _questions(case: Case, fields: Sequence[str]) -> set[tuple[str, ...]]:
    """What a case's question may be known by: its group, and its texts."""
    texts = tuple(" ".join(_words(case.inputs.get(name, ""))) for name in fields)
    return {("group", case.group or case.case_id), *([("texts", *texts)] if any(texts) else [])}


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
