"""How far a set can be labelled without reading it: the best that word counts, overlaps and embeddings come to.

Every baseline is fitted and scored on rows of other groups (facts, blocks, situations), and scored by the mean recall
of the labels, which is accuracy at balanced labels. A set whose best baseline comes near to its judges teaches
templates.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Embed = Callable[[Sequence[str]], Array]
"""Texts -> (n, d) unit vectors."""

N_FOLDS = 3
N_RULES = 50
"""Rules of the decision list."""
MIN_ROWS = 15
"""Training rows in which an n-gram must occur to become a rule."""
MAX_FEATURES = 25_000
RBF_ROWS = 2000
"""Training rows of the RBF SVM, whose time grows with their square."""

_WORD = re.compile(r"(?u)\b\w+\b")
_NEGATIONS = frozenset(
    "no not nor never neither without cannot wrong false ruled rather ne pas non ni jamais sans faux tort".split()  # noqa: SIM905
)


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
    folds = _folds([row.group for row in rows], seed)
    fields = list(rows[0].texts)
    views = {field: [row.texts[field] for row in rows] for field in fields}
    joined = [" \n ".join(f"{name}: {row.texts[name]}" for name in fields) for row in rows]
    scored: dict[str, float] = {}
    for name, texts in ({**views, "all fields": joined} if len(fields) > 1 else views).items():
        for kind, predict in (("naive Bayes, words", _naive_bayes), ("linear, words", _linear_words)):
            scored[f"{kind}, {name}"] = _score(labels, folds, _on_texts(predict, texts, labels))
        if name in ("all fields", *(one for one, _ in pairs[:2])) or not pairs:
            scored[f"linear, characters, {name}"] = _score(labels, folds, _on_texts(_linear_chars, texts, labels))
    scored["decision list, all fields"] = _score(labels, folds, _on_texts(_decision_list, joined, labels))
    if pairs:
        parts = [overlaps(views[one], views[other]) for one, other in pairs]
        overlap = np.hstack([*parts, parts[0] - parts[1]] if len(parts) > 1 else parts)
        scored["overlap, linear"] = _score(labels, folds, _on_numbers(_logistic, overlap, labels))
        scored["overlap, trees"] = _score(labels, folds, _on_numbers(_trees, overlap, labels))
        scored["overlap and words, linear"] = _score(
            labels, folds, _both(overlap, views[pairs[0][0]] if len(pairs) == 1 else joined, labels)
        )
    if embed:
        vectors = [embed(views[name]) for name in (dict.fromkeys(name for pair in pairs for name in pair) or fields)]
        joint = _joint(vectors)
        scored["embeddings, linear"] = _score(labels, folds, _on_numbers(_logistic, joint, labels))
        scored["embeddings, RBF SVM"] = _score(labels, folds, _on_numbers(_rbf, joint, labels))
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
    folds = [np.repeat(fold, k) for fold in _folds(list(groups), seed)]
    both = [f"{q} \n option: {o}" for q, o in zip(asked, offered, strict=True)]
    crossed = [" ".join(f"{a}~{b}" for a in _words(q) for b in _words(o)) for q, o in zip(asked, offered, strict=True)]
    overlap = np.hstack([overlaps(offered, asked), _within(offered, k)])
    trials: dict[str, Any] = {
        "naive Bayes, words, options": _on_texts(_naive_bayes, offered, truth, True),
        "linear, words, options": _on_texts(_linear_words, offered, truth, True),
        "linear, characters, options": _on_texts(_linear_chars, offered, truth, True),
        "linear, words, question and option": _on_texts(_linear_words, both, truth, True),
        "linear, word pairs": _on_texts(_linear_words, crossed, truth, True),
        "overlap, linear": _on_numbers(_logistic, overlap, truth, True),
        "overlap, trees": _on_numbers(_trees, overlap, truth, True),
        "overlap and words, linear": _both(overlap, offered, truth, True),
    }
    if embed:
        joint = _joint([embed(offered), embed(asked)])
        trials["embeddings, linear"] = _on_numbers(_logistic, joint, truth, True)
        trials["embeddings, RBF SVM"] = _on_numbers(_rbf, joint, truth, True)
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


def _folds(groups: Sequence[str], seed: int) -> list[Array]:
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    place = {names[index]: number % N_FOLDS for number, index in enumerate(order)}
    of_rows = np.array([place[group] for group in groups])
    return [of_rows == number for number in range(N_FOLDS)]


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


def _both(overlap: Array, texts: Sequence[str], labels: Array, soft: bool = False) -> Callable[[Array, Array], Array]:
    """Overlap features and word n-grams in one linear model."""

    def predict(train: Array, test: Array) -> Array:
        from scipy.sparse import csr_matrix, hstack
        from sklearn.preprocessing import StandardScaler

        vectorizer = _vectorizer("word")
        scaler = StandardScaler().fit(overlap[train])
        here = [text for text, use in zip(texts, train, strict=True) if use]
        there = [text for text, use in zip(texts, test, strict=True) if use]
        seen = hstack([vectorizer.fit_transform(here), csr_matrix(scaler.transform(overlap[train]) * 0.3)]).tocsr()
        new = hstack([vectorizer.transform(there), csr_matrix(scaler.transform(overlap[test]) * 0.3)]).tocsr()
        return _answers(_fit_linear(seen, labels[train]), new, soft)

    return predict


def _answers(model: Any, seen: Any, soft: bool) -> Array:
    if not soft:
        return np.asarray(model.predict(seen))
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(seen))[:, list(model.classes_).index("1")]
    return np.asarray(model.decision_function(seen))


def _vectorizer(kind: str) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    span = (1, 4) if kind == "word" else (3, 5)
    pattern = {"token_pattern": _WORD.pattern} if kind == "word" else {}
    return TfidfVectorizer(
        analyzer=kind, ngram_range=span, min_df=3, max_features=MAX_FEATURES, sublinear_tf=True, **pattern
    )


def _naive_bayes(here: list[str], labels: Array, there: list[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import ComplementNB

    vectorizer = CountVectorizer(
        ngram_range=(1, 3), min_df=2, max_features=MAX_FEATURES, token_pattern=_WORD.pattern, binary=True
    )
    return ComplementNB().fit(vectorizer.fit_transform(here), labels), vectorizer.transform(there)


def _linear_words(here: list[str], labels: Array, there: list[str]) -> tuple[Any, Any]:
    vectorizer = _vectorizer("word")
    return _fit_linear(vectorizer.fit_transform(here), labels), vectorizer.transform(there)


def _linear_chars(here: list[str], labels: Array, there: list[str]) -> tuple[Any, Any]:
    vectorizer = _vectorizer("char_wb")
    return _fit_linear(vectorizer.fit_transform(here), labels), vectorizer.transform(there)


def _fit_linear(seen: Any, labels: Array) -> Any:
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solver = "liblinear" if len(np.unique(labels)) == 2 else "lbfgs"
        return LogisticRegression(C=3.0, class_weight="balanced", max_iter=60, solver=solver).fit(seen, labels)


def _logistic(seen: Array, labels: Array) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(StandardScaler(), model).fit(seen, labels)


def _trees(seen: Array, labels: Array) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=60, min_samples_leaf=15, random_state=0, class_weight="balanced")
    return model.fit(seen, labels)


def _rbf(seen: Array, labels: Array) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    model = make_pipeline(StandardScaler(), SVC(C=3.0, class_weight="balanced", random_state=0))
    return model.fit(seen[:RBF_ROWS], labels[:RBF_ROWS])


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
    words = _words(text)
    return frozenset(" ".join(words[at : at + n]) for n in range(1, 5) for at in range(len(words) - n + 1))


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def overlaps(one: Sequence[str], other: Sequence[str]) -> Array:
    """(n, 15) ways in which a text repeats another: words, pairs, characters, order, lengths, numbers, negation."""
    return np.array([_overlap(a, b) for a, b in zip(one, other, strict=True)], dtype=np.float64)


def _overlap(one: str, other: str) -> list[float]:
    a, b = _words(one), _words(other)
    sa, sb = set(a), set(b)
    pa, pb = set(pairwise(a)), set(pairwise(b))
    ca, cb = _grams(one), _grams(other)
    shared = len(sa & sb)
    rare = [w for w in sb if len(w) > 3]
    places = [a.index(w) / len(a) for w in sa & sb] or [-1.0]
    return [
        shared / max(1, len(sa)),
        shared / max(1, len(sb)),
        len([w for w in rare if w in sa]) / max(1, len(rare)),
        len(pa & pb) / max(1, len(pb)),
        len(pa & pb) / max(1, len(pa)),
        len(ca & cb) / max(1, len(ca)),
        len(ca & cb) / max(1, len(cb)),
        float(" ".join(b) in " ".join(a)),
        _lcs(a, b) / max(1, len(b)),
        float(np.log1p(len(a))),
        float(np.log1p(len(b))),
        float(np.mean(places)),
        float(len(set(re.findall(r"\d+", one)) & set(re.findall(r"\d+", other)))),
        float(sum(w in _NEGATIONS for w in a)),
        float(any(w in _NEGATIONS for at, x in enumerate(a) if x in sb for w in a[max(0, at - 3) : at])),
    ]


def _grams(text: str) -> set[str]:
    plain = " ".join(_words(text))
    return {plain[at : at + 3] for at in range(max(1, len(plain) - 2))}


def _lcs(a: Sequence[str], b: Sequence[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        last = 0
        for at, y in enumerate(b, start=1):
            last, row[at] = row[at], last + 1 if x == y else max(row[at], row[at - 1])
    return row[-1]


def _within(offered: Sequence[str], k: int) -> Array:
    """(n, 3) what tells an option from its neighbours: its relative length, and words and characters it shares."""
    rows = []
    for start in range(0, len(offered), k):
        group = offered[start : start + k]
        lengths = [len(text) for text in group]
        sets = [set(_words(text)) for text in group]
        for at in range(k):
            others = [sets[i] for i in range(k) if i != at]
            shared = sum(len(sets[at] & other) for other in others) / max(1, len(sets[at]))
            rows.append([lengths[at] / (sum(lengths) / k), float(lengths[at] == max(lengths)), shared])
    return np.array(rows)


def _joint(vectors: Sequence[Array]) -> Array:
    """Vectors side by side, with difference and product of each two."""
    parts = list(vectors)
    for one, other in combinations(vectors[:2], 2):
        parts += [np.abs(one - other), one * other, (one * other).sum(1, keepdims=True)]
    return np.hstack(parts).astype(np.float64)
