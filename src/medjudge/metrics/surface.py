"""Features and models that label a row by its surface: words, what fields share, lengths, sentence embeddings.

The baselines of every table are made of them (`metrics.learned`), and so is the gate of the built-in rows
(`benchmarks/surface_gate.py`). Nothing here knows of cases or verdicts: texts and labels in, scores out.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medjudge.errors import DataError

Array = NDArray[Any]
Texts = Mapping[str, str]
"""Field -> text; a field that a row lacks is empty."""
Embed = Callable[[Sequence[str]], Array]
"""Texts -> (n, d) unit vectors."""

READING_ORDER: dict[str, tuple[str, ...]] = {
    "pairwise": ("answer_a", "answer_b", "reference", "question"),
    "equivalence": ("candidate", "reference", "question"),
    "rubric": ("output", "reference", "input"),
    "appropriateness": ("procedure", "variant", "condition", "evidence"),
    "marks": ("trainee", "expert", "case"),
}
"""Contract kind -> its fields: what is judged, what that is held against, and the rest."""
TEXT_CHARACTERS = 20_000
"""Of a longer text only so much is read."""
WORD = re.compile(r"(?u)\b\w+\b")
_MAX_FEATURES = 30_000
"""Words and word pairs of one field, the commonest."""
_NUMBERS_WEIGHT = 0.3
"""Of a standardised number beside a text's unit vector of words, so that the penalty on weights suits both."""
_KERNEL_ROWS = 1_000
"""Rows of a kernel matrix that are in memory at once."""
_NEGATIONS = frozenset(
    "no not nor never neither without cannot wrong false ruled rather ne pas non ni jamais sans faux tort".split()  # noqa: SIM905
)


def words(text: str) -> list[str]:
    """The words of a text, also those of one character ("T 4"), casefolded."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def lcs_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence of words. Source: Hyyrö (2004), bit-parallel."""
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    full = row = (1 << len(one)) - 1
    for word in other:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(one) - row.bit_count()  # a zero bit is a word of `one` that the subsequence has reached


def overlaps(one: Sequence[str], other: Sequence[str]) -> Array:
    """(n, 15) ways in which a text repeats another: words, pairs, characters, order, lengths, numbers, negation."""
    return np.array([_overlap(a, b) for a, b in zip(one, other, strict=True)], dtype=np.float64).reshape(-1, 15)


def _overlap(one: str, other: str) -> list[float]:
    a, b = words(one), words(other)
    sa, sb = set(a), set(b)
    pa, pb = set(pairwise(a)), set(pairwise(b))
    ca, cb = _grams(a), _grams(b)
    shared = len(sa & sb)
    rare = [w for w in sb if len(w) > 3]
    first = {word: at for at, word in reversed(list(enumerate(a)))}
    places = [first[w] for w in sa & sb]
    return [
        shared / max(1, len(sa)),
        shared / max(1, len(sb)),
        len([w for w in rare if w in sa]) / max(1, len(rare)),
        len(pa & pb) / max(1, len(pb)),
        len(pa & pb) / max(1, len(pa)),
        len(ca & cb) / max(1, len(ca)),
        len(ca & cb) / max(1, len(cb)),
        float(" ".join(b) in " ".join(a)),
        lcs_length(a, b) / max(1, len(b)),
        float(np.log1p(len(a))),
        float(np.log1p(len(b))),
        sum(places) / len(places) / len(a) if places else -1.0,
        float(len(set(re.findall(r"\d+", one)) & set(re.findall(r"\d+", other)))),
        float(sum(w in _NEGATIONS for w in a)),
        float(any(w in _NEGATIONS for at, x in enumerate(a) if x in sb for w in a[max(0, at - 3) : at])),
    ]


def _grams(of: Sequence[str]) -> set[str]:
    plain = " ".join(of)
    return {plain[at : at + 3] for at in range(max(1, len(plain) - 2))}


def column(rows: Sequence[Texts], field: str) -> list[str]:
    """One field of all rows, cut to `TEXT_CHARACTERS`."""
    return [row.get(field, "")[:TEXT_CHARACTERS] for row in rows]


def field_pairs(fields: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of fields whose overlap is measured: all of the first four."""
    return list(combinations(fields[:4], 2))


class SurfaceFeatures:
    """TF-IDF of words and word pairs of each field, overlaps of pairs of fields, lengths: (n, d), sparse."""

    def __init__(self, fields: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        """fields: of the rows, all that are read. pairs: of them, whose overlaps are measured."""
        self.fields, self.pairs = list(fields), list(pairs)
        self.vectorizers: dict[str, Any] = {}
        self.scaler: Any = None

    def fit(self, rows: Sequence[Texts]) -> SurfaceFeatures:
        """Learns vocabularies, document frequencies and spreads. Raises DataError if the rows hold no words."""
        from sklearn.preprocessing import StandardScaler

        for field in self.fields:
            vectorizer = _vocabulary(column(rows, field))
            if vectorizer is not None:
                self.vectorizers[field] = vectorizer
        if not self.vectorizers:
            raise DataError(
                "got training rows without a word, expected texts in their fields: nothing can be learnt from their "
                "surface. Check `[data.fields]`."
            )
        self.scaler = StandardScaler().fit(self._numbers(rows))
        return self

    def transform(self, rows: Sequence[Texts]) -> Any:
        """The features of other rows: (n, d), sparse."""
        from scipy.sparse import csr_matrix, hstack

        parts = [vectorizer.transform(column(rows, field)) for field, vectorizer in self.vectorizers.items()]
        numbers = self.scaler.transform(self._numbers(rows)) * _NUMBERS_WEIGHT
        return hstack([*parts, csr_matrix(numbers)]).tocsr()

    def _numbers(self, rows: Sequence[Texts]) -> Array:
        texts = {field: column(rows, field) for field in self.fields}
        shared = [overlaps(texts[one], texts[other]) for one, other in self.pairs]
        lengths = [[[np.log1p(len(text)), np.log1p(len(words(text)))] for text in texts[name]] for name in self.fields]
        return np.hstack([*shared, *(np.array(one, dtype=np.float64).reshape(-1, 2) for one in lengths)])


def _vocabulary(texts: Sequence[str]) -> Any:
    """A fitted vectorizer; None where no text has a word. Words of one row count only where no word is in two."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    for min_df in (2, 1):
        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2),
            min_df=min(min_df, len(texts)),
            max_features=_MAX_FEATURES,
            sublinear_tf=True,
            token_pattern=WORD.pattern,
        )
        try:
            return vectorizer.fit(texts)
        except ValueError:  # scikit-learn's word for an empty vocabulary
            continue
    return None


def embedding_features(rows: Sequence[Texts], fields: Sequence[str], embed: Embed) -> Array:
    """(n, d) embeddings of each field, and product, difference and cosine of the first two. An empty text is zeros."""
    return joint([_vectors(column(rows, field), embed) for field in fields])


def joint(vectors: Sequence[Array]) -> Array:
    """Vectors side by side, with difference, product and cosine of the first two."""
    parts = list(vectors)
    for one, other in combinations(vectors[:2], 2):
        parts += [np.abs(one - other), one * other, (one * other).sum(1, keepdims=True)]
    return np.hstack(parts).astype(np.float64)


def _vectors(texts: Sequence[str], embed: Embed) -> Array:
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    if not distinct:
        return np.zeros((len(texts), 1))
    vectors = np.asarray(embed(distinct))
    place = {text: at for at, text in enumerate(distinct)}
    empty = np.zeros(vectors.shape[1], dtype=vectors.dtype)
    return np.stack([vectors[place[text]] if text in place else empty for text in texts])


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scores:
    """What a fitted model says of rows."""

    classes: tuple[str, ...]
    of: Array
    """(n, k): the highest is the label."""
    are_probabilities: bool


class Logistic:
    """Logistic regression on sparse or dense features; dense ones are standardised first."""

    GRID = (0.1, 1.0, 10.0)
    """Inverse strengths of regularisation, strongest first."""
    DENSE_GRID = (0.001, 0.01, 0.1)
    """Standardised numbers are larger than TF-IDF, and a thousand of them need a stronger penalty."""

    def __init__(self, c: float, *, balanced: bool = False) -> None:
        """c: inverse strength of regularisation. balanced: labels count alike, which bends the probabilities."""
        self.c, self.balanced = c, balanced
        self.model: Any = None

    def fit(self, seen: Any, labels: Array) -> Logistic:
        """Learns weights from rows of two labels or more."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        weight = "balanced" if self.balanced else None
        model = LogisticRegression(C=self.c, class_weight=weight, max_iter=200)
        self.model = make_pipeline(StandardScaler(), model) if isinstance(seen, np.ndarray) else model
        with warnings.catch_warnings():
            # Weights a little short of the optimum serve as well; the warning would tell a user to mend nothing.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model.fit(seen, labels)
        return self

    def score(self, new: Any) -> Scores:
        """Probabilities of the labels that were learnt from."""
        return Scores(tuple(map(str, self.model.classes_)), np.asarray(self.model.predict_proba(new)), True)


class RbfSvm:
    """A support vector machine with a Gaussian kernel (gamma = 1 / (d variance)) on dense features."""

    GRID = (1.0, 3.0, 10.0)

    def __init__(self, c: float, *, balanced: bool = False) -> None:
        """c: how much an error costs. balanced: labels count alike."""
        self.c, self.balanced = c, balanced

    def fit(self, seen: Array, labels: Array) -> RbfSvm:
        """Learns from rows of two labels or more; time and memory grow with the square of their number."""
        from sklearn.svm import SVC

        self.seen = seen
        self.gamma = 1 / (seen.shape[1] * max(float(seen.var()), 1e-12))
        # The kernel by matrix product: the library's own loop over rows of a thousand numbers takes ten times as long.
        weight = "balanced" if self.balanced else None
        self.model = SVC(C=self.c, kernel="precomputed", class_weight=weight, break_ties=len(set(labels)) > 2)
        self.model.fit(self._kernel(seen), labels)
        return self

    def score(self, new: Array) -> Scores:
        """Distances from the borders between labels: no probabilities."""
        at = range(0, len(new), _KERNEL_ROWS)
        parts = [self.model.decision_function(self._kernel(new[start : start + _KERNEL_ROWS])) for start in at]
        of = np.concatenate(parts) if parts else np.zeros(0)
        return Scores(tuple(map(str, self.model.classes_)), of if of.ndim == 2 else np.stack([-of, of], axis=1), False)

    def _kernel(self, rows: Array) -> Array:
        from sklearn.metrics.pairwise import rbf_kernel

        return np.asarray(rbf_kernel(rows, self.seen, gamma=self.gamma))


Model = Logistic | RbfSvm


def group_folds(groups: Sequence[str], n_folds: int, seed: int) -> list[Array]:
    """(n,) masks of the rows of each fold; rows of one group are in one. Independent of the rows' order."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    place = {names[index]: number % n_folds for number, index in enumerate(order)}
    of_rows = np.array([place[group] for group in groups])
    return [of_rows == number for number in range(n_folds)]


def best_setting(
    make: Callable[[float], Model], grid: Sequence[float], seen: Any, labels: Array, groups: Sequence[str], seed: int
) -> float:
    """Of `grid` what labels most rows as the experts do in 3-fold cross-validation by group; of equals the first.

    The middle of the grid where that cannot be asked: fewer than three groups, or a fold that leaves one label.
    """
    n_folds = 3
    middle = grid[len(grid) // 2]
    if len(set(groups)) < n_folds:
        return middle
    folds = group_folds(groups, n_folds, seed)
    if any(len(set(labels[~fold])) < 2 for fold in folds):
        return middle

    def n_right(c: float) -> int:
        right = 0
        for fold in folds:
            scores = make(c).fit(seen[~fold], labels[~fold]).score(seen[fold])
            right += int((np.array(scores.classes)[scores.of.argmax(1)] == labels[fold]).sum())
        return right

    return max(grid, key=n_right)  # max keeps the first of equals
