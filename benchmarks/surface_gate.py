"""How far the built-in sets can be labelled without reading them.

`python benchmarks/surface_gate.py [--n 3000] [--seed 7] [SET ..]` prints the best that words, characters, phrases,
overlaps and, where the offline model is installed, sentence embeddings come to. Every model is fitted and scored on
rows of other groups (facts, blocks, situations), and scored by the mean recall of the labels, which is accuracy at
balanced labels. A set whose best model comes near to its judges teaches templates. `tests/synthetic/test_gate.py` runs
it on few rows.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medjudge.inference.embeddings import embed_or_why_not
from medjudge.metrics.surface import (
    READING_ORDER,
    WORD,
    Array,
    Embed,
    Logistic,
    RbfSvm,
    SurfaceFeatures,
    field_pairs,
    group_folds,
    joint,
    overlaps,
    words,
)
from medjudge.settings.rewards import EmbeddingSettings
from medjudge.synthetic.sets import GENERATORS

AIMS: dict[str, float] = {
    "mcq": 0.35,
    "mcq-fr": 0.35,
    "equivalence": 0.75,
    "equivalence-fr": 0.75,
    "rubric": 0.45,
    "rubric-3": 0.62,
    "rubric-2": 0.75,
    "appropriateness": 0.62,
    "appropriateness-bare": 0.62,
    "pairwise": 0.45,
    "pairwise-fr": 0.45,
}
"""Set -> accuracy at balanced labels that no surface baseline should exceed."""
LABELS = {"equivalence": "label", "rubric": "score", "appropriateness": "appropriateness", "pairwise": "label"}
OPTIONS = ("opa", "opb", "opc", "opd")

N_FOLDS = 3
N_RULES = 50
"""Rules of the decision list."""
MIN_ROWS = 15
"""Training rows in which an n-gram must occur to become a rule."""
MAX_FEATURES = 25_000
RBF_ROWS = 2000
"""Training rows of the RBF SVM, whose time grows with their square."""


def measure_set(name: str, n: int, seed: int, embed: Embed | None = None) -> dict[str, float]:
    """Baseline -> accuracy at balanced labels on `n` rows of the built-in set `name`."""
    drawn = GENERATORS[name]
    rows: list[Mapping[str, Any]] = list(drawn.rows(n, seed))
    groups = ["/".join(str(row[column]) for column in drawn.group_by) for row in rows]
    if drawn.kind == "mcq":
        return measure_choice(rows, [row["cop"] for row in rows], groups, OPTIONS, embed=embed)
    fields = [field for field in READING_ORDER[drawn.kind] if field in rows[0]]
    made = [
        SurfaceRow({field: _text(row[field]) for field in fields}, str(row[LABELS[drawn.kind]]), group)
        for row, group in zip(rows, groups, strict=True)
    ]
    if drawn.kind == "pairwise":
        sides = (("answer_a", "reference"), ("answer_b", "reference"), ("answer_a", "answer_b"))
        return measure(made, sides, embed)
    return measure(made, ((fields[0], fields[1]),) if drawn.kind != "appropriateness" else (), embed)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(f"{one['title']}. {one['text']}" for one in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class SurfaceRow:
    """What a baseline sees of a row, and what it is scored by."""

    texts: Mapping[str, str]
    """Field -> text."""
    label: str
    group: str
    """Rows of one group are never both fitted and scored."""


def measure(
    rows: Sequence[SurfaceRow], pairs: Sequence[tuple[str, str]] = (), embed: Embed | None = None, seed: int = 0
) -> dict[str, float]:
    """Baseline -> accuracy at balanced labels (mean recall), in [0, 1]; cross-validated by group in `N_FOLDS` folds.

    pairs: fields whose overlap is measured (candidate, reference); of several the first two also by their difference,
    as where two answers are held against one reference. embed: None leaves out the baselines on sentence embeddings.
    """
    labels = np.array([row.label for row in rows])
    folds = group_folds([row.group for row in rows], N_FOLDS, seed)
    fields = list(rows[0].texts)
    views = {field: [row.texts[field] for row in rows] for field in fields}
    joined = [" \n ".join(f"{name}: {row.texts[name]}" for name in fields) for row in rows]
    scored: dict[str, float] = {}
    for name, texts in ({**views, "all fields": joined} if len(fields) > 1 else views).items():
        for kind, predict in (("naive Bayes, words", _naive_bayes), ("linear, words", _linear_words)):
            scored[f"{kind}, {name}"] = _score(labels, folds, _on_texts(predict, texts, labels))
        if name in ("all fields", *(one for one, _ in pairs[:2])) or not pairs:
            scored[f"linear, characters, {name}"] = _score(labels, folds, _on_texts(_linear_chars, texts, labels))
    of_rows = [row.texts for row in rows]
    scored["surface model of the reports"] = _score(labels, folds, _surface(of_rows, field_pairs(fields), labels))
    scored["decision list, all fields"] = _score(labels, folds, _on_texts(_decision_list, joined, labels))
    if pairs:
        parts = [overlaps(views[one], views[other]) for one, other in pairs]
        overlap = np.hstack([*parts, parts[0] - parts[1]] if len(parts) > 1 else parts)
        scored["overlap, linear"] = _score(labels, folds, _on_numbers(_dense, overlap, labels))
        scored["overlap, trees"] = _score(labels, folds, _on_numbers(_trees, overlap, labels))
    if embed:
        vectors = [embed(views[name]) for name in (dict.fromkeys(name for pair in pairs for name in pair) or fields)]
        numbers = joint(vectors)
        scored["embeddings, linear"] = _score(labels, folds, _on_numbers(_dense, numbers, labels))
        scored["embeddings, RBF SVM"] = _score(labels, folds, _on_numbers(_rbf, numbers, labels))
    return scored


def measure_choice(
    rows: Sequence[Mapping[str, str]],
    right: Sequence[int],
    groups: Sequence[str],
    options: Sequence[str],
    *,
    question: str = "question",
    embed: Embed | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Baseline -> accuracy of choosing among `options`: each option is scored as right or wrong, the highest is taken.

    rows: texts under `question` and `options`. right: the place of the right option of each row.
    """
    k = len(options)
    asked = [row[question] for row in rows for _ in options]
    offered = [row[name] for row in rows for name in options]
    truth = np.array([str(int(place == at)) for at in right for place in range(k)])
    folds = [np.repeat(fold, k) for fold in group_folds(groups, N_FOLDS, seed)]
    choices = [
        {
            "option": row[name],
            "question": row[question],
            "others": " ".join(row[other] for other in options if other != name),
        }
        for row in rows
        for name in options
    ]
    both = [f"{q} \n option: {o}" for q, o in zip(asked, offered, strict=True)]
    crossed = [" ".join(f"{a}~{b}" for a in words(q) for b in words(o)) for q, o in zip(asked, offered, strict=True)]
    overlap = np.hstack([overlaps(offered, asked), _within(offered, k)])
    trials: dict[str, Any] = {
        "naive Bayes, words, options": _on_texts(_naive_bayes, offered, truth, True),
        "linear, words, options": _on_texts(_linear_words, offered, truth, True),
        "linear, characters, options": _on_texts(_linear_chars, offered, truth, True),
        "linear, words, question and option": _on_texts(_linear_words, both, truth, True),
        "linear, word pairs": _on_texts(_linear_words, crossed, truth, True),
        "overlap, linear": _on_numbers(_dense, overlap, truth, True),
        "overlap, trees": _on_numbers(_trees, overlap, truth, True),
        "surface model of the reports": _surface(choices, field_pairs(list(choices[0])), truth, True),
    }
    if embed:
        numbers = joint([embed(offered), embed(asked)])
        trials["embeddings, linear"] = _on_numbers(_dense, numbers, truth, True)
        trials["embeddings, RBF SVM"] = _on_numbers(_rbf, numbers, truth, True)
        cosine = (embed(offered) * embed(asked)).sum(1).reshape(-1, k)
        nearest = float((cosine.argmax(1) == np.array(right)).mean())
    scored = {}
    for name, predict in trials.items():
        hits = 0
        for fold in folds:
            certainty = predict(~fold, fold).reshape(-1, k)
            picked = certainty.argmax(1)
            hits += int((truth[fold].reshape(-1, k)[np.arange(len(picked)), picked] == "1").sum())
        scored[name] = hits / len(rows)
    if embed:
        scored["embeddings, nearest option"] = nearest
    return scored


def _score(labels: Array, folds: Sequence[Array], predict: Callable[[Array, Array], Array]) -> float:
    predicted = np.empty(len(labels), dtype=object)
    for fold in folds:
        predicted[fold] = predict(~fold, fold)
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def _on_texts(
    fit: Callable[[list[str], Array, list[str]], tuple[Any, Any]],
    texts: Sequence[str],
    labels: Array,
    soft: bool = False,
) -> Callable[[Array, Array], Array]:
    def predict(train: Array, test: Array) -> Array:
        here = [text for text, use in zip(texts, train, strict=True) if use]
        there = [text for text, use in zip(texts, test, strict=True) if use]
        model, seen = fit(here, labels[train], there)
        return _answers(model, seen, soft)

    return predict


def _on_numbers(
    fit: Callable[[Array, Array], Any], numbers: Array, labels: Array, soft: bool = False
) -> Callable[[Array, Array], Array]:
    return lambda train, test: _answers(fit(numbers[train], labels[train]), numbers[test], soft)


def _surface(
    rows: Sequence[Mapping[str, str]], pairs: Sequence[tuple[str, str]], labels: Array, soft: bool = False
) -> Callable[[Array, Array], Array]:
    """The surface model of the reports, at balanced labels."""

    def predict(train: Array, test: Array) -> Array:
        here, there = ([row for row, use in zip(rows, part, strict=True) if use] for part in (train, test))
        features = SurfaceFeatures(list(rows[0]), pairs).fit(here)
        return _answers(_linear(features.transform(here), labels[train]), features.transform(there), soft)

    return predict


def _answers(model: Any, seen: Any, soft: bool) -> Array:
    if isinstance(model, Logistic | RbfSvm):
        scores = model.score(seen)
        return scores.of[:, scores.classes.index("1")] if soft else np.array(scores.classes)[scores.of.argmax(1)]
    if not soft:
        return np.asarray(model.predict(seen))
    return np.asarray(model.predict_proba(seen))[:, list(model.classes_).index("1")]


def _linear(seen: Any, labels: Array) -> Logistic:
    return Logistic(3.0, balanced=True).fit(seen, labels)


def _dense(seen: Array, labels: Array) -> Logistic:
    return Logistic(0.1, balanced=True).fit(seen, labels)


def _rbf(seen: Array, labels: Array) -> RbfSvm:
    return RbfSvm(3.0, balanced=True).fit(seen[:RBF_ROWS], labels[:RBF_ROWS])


def _vectorizer(kind: str) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    span = (1, 4) if kind == "word" else (3, 5)
    pattern = {"token_pattern": WORD.pattern} if kind == "word" else {}
    return TfidfVectorizer(
        analyzer=kind, ngram_range=span, min_df=3, max_features=MAX_FEATURES, sublinear_tf=True, **pattern
    )


def _naive_bayes(here: list[str], labels: Array, there: list[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import ComplementNB

    vectorizer = CountVectorizer(
        ngram_range=(1, 3), min_df=2, max_features=MAX_FEATURES, token_pattern=WORD.pattern, binary=True
    )
    return ComplementNB().fit(vectorizer.fit_transform(here), labels), vectorizer.transform(there)


def _linear_words(here: list[str], labels: Array, there: list[str]) -> tuple[Any, Any]:
    vectorizer = _vectorizer("word")
    return _linear(vectorizer.fit_transform(here), labels), vectorizer.transform(there)


def _linear_chars(here: list[str], labels: Array, there: list[str]) -> tuple[Any, Any]:
    vectorizer = _vectorizer("char_wb")
    return _linear(vectorizer.fit_transform(here), labels), vectorizer.transform(there)


def _trees(seen: Array, labels: Array) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=15, random_state=0, class_weight="balanced")
    return model.fit(seen, labels)


class _DecisionList:
    """Rules `n-gram -> label`, tried in order; the commonest label where none applies."""

    def __init__(self, rules: Sequence[tuple[str, str]], otherwise: str) -> None:
        self.rules, self.otherwise = rules, otherwise

    def predict(self, rows: Sequence[frozenset[str]]) -> Array:
        def one(grams: frozenset[str]) -> str:
            return next((label for gram, label in self.rules if gram in grams), self.otherwise)

        return np.array([one(grams) for grams in rows], dtype=object)


def _decision_list(here: list[str], labels: Array, there: list[str]) -> tuple[Any, Any]:
    """The n-grams (1 to 4 words) whose commonest label exceeds what its overall share explains by most rows."""
    seen = [_ngrams(text) for text in here]
    totals = Counter(labels.tolist())
    counts: dict[str, Counter[str]] = {label: Counter() for label in totals}
    for grams, label in zip(seen, labels.tolist(), strict=True):
        counts[label].update(grams)
    every: Counter[str] = sum(counts.values(), Counter())
    ranked = []
    for gram, n in every.items():
        if n < MIN_ROWS:
            continue
        rates = {label: counts[label][gram] / totals[label] for label in totals}
        label = max(rates, key=lambda name: rates[name])
        share = rates[label] / sum(rates.values())
        ranked.append(((share - 1 / len(totals)) * n**0.5, share, gram, label))
    best = sorted(sorted(ranked, reverse=True)[:N_RULES], key=lambda rule: (-rule[1], rule[2]))
    rules = [(gram, label) for _, _, gram, label in best]
    left = Counter(
        label for grams, label in zip(seen, labels.tolist(), strict=True) if not any(gram in grams for gram, _ in rules)
    )
    otherwise = max(totals, key=lambda name: left[name] / totals[name])
    return _DecisionList(rules, otherwise), [_ngrams(text) for text in there]


def _ngrams(text: str) -> frozenset[str]:
    said = words(text)
    return frozenset(" ".join(said[at : at + n]) for n in range(1, 5) for at in range(len(said) - n + 1))


def _within(offered: Sequence[str], k: int) -> Array:
    """(n, 3) what tells an option from its neighbours: its relative length, and words and characters it shares."""
    rows = []
    for start in range(0, len(offered), k):
        group = offered[start : start + k]
        lengths = [len(text) for text in group]
        sets = [set(words(text)) for text in group]
        for at in range(k):
            others = [sets[i] for i in range(k) if i != at]
            shared = sum(len(sets[at] & other) for other in others) / max(1, len(sets[at]))
            rows.append([lengths[at] / (sum(lengths) / k), float(lengths[at] == max(lengths)), shared])
    return np.array(rows)


def main() -> None:
    """Prints one table per set and a summary in JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[name for name in GENERATORS if name in AIMS])
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    embed = embed_or_why_not(EmbeddingSettings())
    if isinstance(embed, str):
        print(embed)
    best = {}
    for name in options.names:
        start = time.time()
        scored = measure_set(name, options.n, options.seed, None if isinstance(embed, str) else embed)
        print(f"\n{name}: {options.n} rows, {time.time() - start:.0f} s; aim {AIMS[name]:.2f}")
        for baseline, accuracy in sorted(scored.items(), key=lambda item: -item[1]):
            print(f"  {accuracy:.3f}  {baseline}")
        best[name] = max(scored.items(), key=lambda item: item[1])
    print("\n" + json.dumps(best, indent=1))


if __name__ == "__main__":
    main()
