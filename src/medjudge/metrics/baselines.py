"""What no training is needed for: the rows that a judge must beat, scored by the very same code.

Whatever is learnt is learnt from training rows. Each baseline answers with verdicts, one per case, in the cases' order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medjudge.errors import DataError
from medjudge.metrics.learned import LEARNED, learned_baselines
from medjudge.metrics.surface import Embed, words
from medjudge.records import Case, Judgement, Verdict

MAJORITY = "majority"
ALWAYS_POSITIVE = "always_positive"
CHANCE = "chance"
TOKEN_F1 = "token_f1"

TRIVIAL = {
    MAJORITY: "the commonest label of the training rows, for every case",
    ALWAYS_POSITIVE: "the positive label for every case",
    CHANCE: "labels drawn uniformly",
}
BASELINES = {
    **TRIVIAL,
    TOKEN_F1: "words shared by the two texts (F1), cut where it tells the training rows' labels apart",
    **LEARNED,
}
"""Every baseline by name, in words."""
EARLIER = {
    "word_counts": "logistic regression on counts of words and word pairs",
    "rouge_l": "longest common run of words, gaps allowed (ROUGE-L F1)",
    "bleu": "sentence BLEU",
    "chrf": "chrF",
    "tfidf_cosine": "cosine of TF-IDF vectors",
    "embedding_cosine": "cosine of sentence embeddings",
}
"""Baselines of versions up to 0.2, which stand in files and pages that these wrote: what the learnt ones contain."""

FloatArray = NDArray[np.float64]


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
    """Trivial and learnt baselines, all fitted on the training rows whose question is not evaluated.

    kind: of the contract; it says which fields are held against each other.
    question_fields: inputs that make a question. A training row is left out where these texts or its group are
    evaluated: groups of two files need not be named alike.
    embed: called only where there are texts to embed and rows to learn from; texts -> (n, d) unit vectors, or in words
    why the baselines on embeddings are left out.
    """
    clean = unasked(train, cases, question_fields)
    seed = int(rng.integers(2**31))  # first: what is learnt must not depend on how many cases `chance` answers
    trivial = trivial_baselines(clean, cases, labels=labels, positive=positive, rng=rng)
    judgements, skipped = dict(trivial.judgements), dict(trivial.skipped)
    texts = compared_texts(kind, cases)
    if texts is not None:
        try:
            judgements[TOKEN_F1] = shared_words(clean, cases, labels=labels, texts=texts)
        except DataError as error:
            skipped[TOKEN_F1] = str(error)
    learnt = learned_baselines(clean, cases, kind=kind, seed=seed, embed=embed)
    notes = (_fitted_on(clean, train, cases, question_fields), *learnt.notes) if train else ()
    return Baselines({**judgements, **learnt.judgements}, {**skipped, **learnt.skipped}, notes)


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
    answers_by_name = {name: answers for name, answers in baselines.judgements.items() if name not in same}
    return Baselines(answers_by_name, {**baselines.skipped, **same}, baselines.notes)


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
    return Baselines(judgements, skipped)


def majority(train: Sequence[Case], cases: Sequence[Case], *, labels: Sequence[str]) -> list[Judgement]:
    """The commonest gold label of `train` for every case; of labels equally common, the first in `labels`.

    Raises DataError if no training row has a gold label.
    """
    counts = Counter(case.gold for case in train if case.gold is not None)
    if not counts:
        raise DataError(
            "the majority baseline needs training rows with a gold label, expected at least one, got none. Name "
            "the rows of the training, and the column of their labels."
        )
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
        raise DataError("got no labels, expected one or more: an empty label set has no chance level. Name the labels.")
    return 1 / len(labels)


def compared_texts(kind: str, cases: Sequence[Case]) -> tuple[str, str] | None:
    """The two input fields whose likeness could serve as a judgement of this contract kind; None if it has none.

    A rubric case without a reference is compared with its input: what the output should follow.
    """
    if kind == "rubric" and not any("reference" in case.inputs for case in cases):
        return ("output", "input")
    return {"equivalence": ("candidate", "reference"), "rubric": ("output", "reference")}.get(kind)


def shared_words(
    train: Sequence[Case], cases: Sequence[Case], *, labels: Sequence[str], texts: tuple[str, str]
) -> list[Judgement]:
    """Token F1 of two input fields as a judge: what a comparison with the reference word by word comes to.

    texts: (judged field, field compared with), as `compared_texts` gives them. labels: lowest first; more likeness
    never means a lower label. The cutpoints maximise balanced accuracy on `train`. A case that lacks a field has
    likeness 0. Raises DataError without training rows of two labels, or where no case has texts.
    """
    rated = [case for case in train if case.gold is not None]
    if len({case.gold for case in rated}) < 2:
        raise DataError(
            f"it needs training rows of two labels whose question is not evaluated, found {len(rated):,} labelled rows."
        )
    if not any(case.inputs.get(name) for case in cases for name in texts):
        raise DataError(f"the evaluated rows hold no texts ({' and '.join(texts)}).")
    gold = np.array([list(labels).index(str(case.gold)) for case in rated])
    seen, new = (np.array([token_f1(*_texts(case, texts)) for case in part]) for part in (rated, cases))
    places = np.searchsorted(fit_cutpoints(seen, gold, len(labels)), new, side="right")
    return [Verdict(case.case_id, labels[at]) for case, at in zip(cases, places, strict=True)]


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


def token_f1(text: str, other: str) -> float:
    """F1 of the words two texts share, each as often as it occurs; 0 if either has none.

    Source: Rajpurkar et al. (2016), arXiv:1606.05250; without its removal of English articles.
    """
    a, b = Counter(words(text)), Counter(words(other))
    shared = sum((a & b).values())
    return 2 * shared / (a.total() + b.total()) if shared else 0.0


def _texts(case: Case, fields: tuple[str, str]) -> tuple[str, str]:
    return case.inputs.get(fields[0], ""), case.inputs.get(fields[1], "")


def unasked(train: Sequence[Case], cases: Sequence[Case], question_fields: Sequence[str] = ()) -> list[Case]:
    """The training rows whose question, by its group or its texts, is none of the evaluated ones."""
    evaluated = {name for case in cases for name in _questions(case, question_fields)}
    return [case for case in train if not evaluated & _questions(case, question_fields)]


def _questions(case: Case, fields: Sequence[str]) -> set[tuple[str, ...]]:
    """What a case's question may be known by: its group, and its texts."""
    texts = tuple(" ".join(words(case.inputs.get(name, ""))) for name in fields)
    return {("group", case.group or case.case_id), *([("texts", *texts)] if any(texts) else [])}
