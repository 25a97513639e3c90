"""Cases whose texts are alike letter by letter: a typing error, a word more or less, accents left out, a prefix.

Likeness is the cosine of TF-IDF vectors of character 3-grams, on texts without case, accents and punctuation. Pairs
that cannot reach the threshold are left out by a bound that is exact, so no pair is missed, and 100,000 by 20,000 texts
are compared in about a minute (`benchmarks/leakage.py`).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medjudge.tasks.normalise import normalise

Inputs = tuple[tuple[str, str], ...]
"""(field, text) in the order of the fields' names."""

LOOSE = 0.6
"""Cosine of a short unit, a list or the longest unit: of .85, .7, .6 and .5 on MedMCQA it is the highest that keeps
99 % of single edits, and it leaves out most pairs that have their options in common but not their question."""
SHORT_WORDS = 12
LONG_WORDS = 100
"""From about so many words on, a changed word leaves a Jaccard similarity of word 5-shingles of .9."""
TYPING_ERRORS = 0.05
"""Texts with a misspelt word per text with the word, at most."""
VARYING_SHARE = 0.1
"""Share of the training cases that differ in one unit only, from which on the unit is what cases are about."""
LIST_MARK = "*"
"""Ends the name of a unit that is a list of fields."""
_TAIL = 0.7
"""Squared length of a text's commonest 3-grams that are not looked up when candidates are sought, as a share of the
squared threshold: less finds fewer candidates, more looks up fewer 3-grams."""
_TOP = 200
"""Candidates compared per held-out text, the likeliest first."""
_CHUNK_ROWS = 5_000
_CHUNK_PAIRS = 20_000
_TELLING_LETTERS = 20
SHINGLE_WORDS = 5
_ROUNDING = 1e-5
_MIN_LIST = 3
_LIGATURES = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o", "đ": "d", "ł": "l"})


def fold(text: str) -> str:
    """`text.normalise` without accents and ligatures."""
    apart = unicodedata.normalize("NFKD", normalise(text).translate(_LIGATURES))
    return "".join(c for c in apart if not unicodedata.combining(c))


def units(inputs: Inputs) -> dict[str, str]:
    """What is compared with its counterpart: each field, and a list of fields together.

    Three fields or more whose names differ in the last character alone (opa, opb, opc) are a list: its items, folded
    and sorted, are one text, so that moved options are the same options.
    """
    stems: dict[str, list[str]] = {}
    for name, _ in inputs:
        stems.setdefault(name[:-1], []).append(name)
    stem_of = {
        field: stem + LIST_MARK
        for stem, fields in stems.items()
        if stem and len(fields) >= _MIN_LIST
        for field in fields
    }
    items: dict[str, list[str]] = {}
    for name, text in inputs:
        items.setdefault(stem_of.get(name, name), []).append(fold(text))
    return {name: " ".join(sorted(texts)) for name, texts in items.items()}


@dataclass(frozen=True, slots=True)
class Texts:
    """Inputs as units, and each input's telling units as one text."""

    unit: Sequence[Mapping[str, str]]
    whole: Sequence[str]

    @classmethod
    def of(cls, inputs: Sequence[Inputs]) -> Texts:
        """One entry per input. A rubric that nearly all cases share tells none of them apart and is left out."""
        unit = [units(one) for one in inputs]
        telling = _telling(unit)
        return cls(unit, [" ".join(text for name, text in texts.items() if name in telling) for texts in unit])


def _telling(unit: Sequence[Mapping[str, str]]) -> set[str]:
    """The units with at least a tenth as many distinct texts as the most varied one."""
    texts: dict[str, set[str]] = {}
    for one in unit:
        for name, text in one.items():
            texts.setdefault(name, set()).add(text)
    most = max((len(distinct) for distinct in texts.values()), default=0)
    return {name for name, distinct in texts.items() if 10 * len(distinct) >= most}


def like_pairs(
    train: Sequence[Inputs], held_out: Sequence[Inputs], threshold: float, jaccard: float = 0.9
) -> Iterator[tuple[int, int]]:
    """(position in `held_out`, position in `train`) of the pairs that are alike.

    Two cases are alike if they have the same fields and either each field has at least `jaccard` of its word 5-shingles
    in common, or the cosine of their whole texts is at least `threshold` and their units are alike one by one, see
    `_Alike`: the same question with another candidate is another case. Of each held-out text the `_TOP` likeliest
    candidates are compared, which bounds the work where all texts have one long preamble.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    both = Texts.of([*train, *held_out])
    whole = both.whole
    if not any(map(str.strip, whole[: len(train)])) or not any(map(str.strip, whole[len(train) :])):
        return
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32)
    vectors = vectorizer.fit_transform(whole)
    n_texts = Counter(word for text in whole for word in set(text.split()))
    shingles = _Shingles(jaccard)
    alike = _Alike(vectorizer, varying_units(both.unit[: len(train)]), n_texts, threshold, shingles)
    # Fields with nine tenths of their shingles in common have texts of a cosine far above .85.
    lowest = min(threshold, max(jaccard - 0.05, 0.05))
    for held, position, cosine in _whole_pairs(vectors[: len(train)], vectors[len(train) :], lowest):
        first, second = held_out[held], train[position]
        if shingles(first, second) or (
            cosine >= threshold - _ROUNDING and alike(both.unit[len(train) + held], both.unit[position])
        ):
            yield held, position


@dataclass(frozen=True, slots=True)
class _Shingles:
    """Whether two cases have in each field at least the threshold's Jaccard similarity of word 5-shingles."""

    threshold: float
    known: dict[str, frozenset[str]] = field(default_factory=dict)

    def __call__(self, one: Inputs, other: Inputs) -> bool:
        if [name for name, _ in one] != [name for name, _ in other]:
            return False
        # The shortest field first: it is the cheapest, and a changed word weighs most there.
        for (_, a), (_, b) in sorted(zip(one, other, strict=True), key=lambda pair: len(pair[0][1])):
            if a != b and not self.alike(a, b):
                return False
        return True

    def alike(self, one: str, other: str) -> bool:
        """Whether two texts reach the threshold."""
        first, second = self._of(one), self._of(other)
        shared = len(first & second)
        return shared >= self.threshold * (len(first) + len(second) - shared)

    def _of(self, text: str) -> frozenset[str]:
        """Runs of `SHINGLE_WORDS` words; a shorter text is one shingle."""
        if text not in self.known:
            words = text.split()
            last = max(len(words) - SHINGLE_WORDS, 0)
            self.known[text] = frozenset(" ".join(words[i : i + SHINGLE_WORDS]) for i in range(last + 1))
        return self.known[text]


def varying_units(records: Sequence[Mapping[str, str]]) -> frozenset[str]:
    """The units in which at least `VARYING_SHARE` of the cases differ from another one that agrees in all others.

    Agreeing in "yes" says nothing: the others count from `_TELLING_LETTERS` on.
    """
    names = {name for one in records for name in one}
    varying = set()
    for name in names:
        seen: dict[tuple[tuple[str, str], ...], set[str]] = {}
        for one in records:
            rest = tuple(item for item in one.items() if item[0] != name)
            if name in one and sum(len(text) for _, text in rest) >= _TELLING_LETTERS:
                seen.setdefault(rest, set()).add(one[name])
        n_differing = sum(len(texts) for texts in seen.values() if len(texts) > 1 and _unlike(sorted(texts)))
        if n_differing >= VARYING_SHARE * len(records):
            varying.add(name)
    return frozenset(varying)


def _unlike(texts: Sequence[str]) -> bool:
    """Whether the first text and some other share less than half of their 3-grams: not one text with small edits."""
    first = _grams(texts[0])
    return any(2 * len(first & other) < len(first | other) for other in map(_grams, texts[1:]))


def _grams(text: str) -> frozenset[str]:
    padded = f" {text} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))


@dataclass(frozen=True, slots=True)
class _Alike:
    """Whether two cases whose whole texts are alike are alike in every unit.

    A unit in which training cases differ that agree in all others (the candidates for one question, the procedures for
    one patient) must be the same except for accents, case and punctuation. A short unit may have a typing error, or
    words that the other lacks, but no word in place of another one. A longer one must reach the threshold; one of more
    than `LONG_WORDS` the shingles' threshold, since texts with one preamble have a high cosine whatever comes after it.
    `LOOSE` is enough for short units, for lists and for the longest unit, because a word weighs more in a part than in
    the whole.
    """

    vectorizer: Any
    varying: frozenset[str]
    n_texts: Mapping[str, int]
    """Word -> whole texts that hold it."""
    threshold: float
    shingles: _Shingles
    vectors: dict[str, dict[int, float]] = field(default_factory=dict)

    def __call__(self, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
        if one.keys() != other.keys():
            return False
        longest = max(one, key=lambda name: len(one[name]) + len(other[name]))
        changed = [name for name, text in one.items() if text != other[name]]
        return not self.varying.intersection(changed) and all(
            self._small_change(one[name], other[name], is_main=name == longest or name.endswith(LIST_MARK))
            for name in changed
        )

    def _small_change(self, one: str, other: str, is_main: bool) -> bool:
        if min(len(one.split()), len(other.split())) > LONG_WORDS:
            return self.shingles.alike(one, other)
        short = max(len(one.split()), len(other.split())) <= SHORT_WORDS
        if self._cosine(one, other) < (min(LOOSE, self.threshold) if short or is_main else self.threshold):
            return False
        return not short or not self._replaces_words(one, other)

    def _replaces_words(self, one: str, other: str) -> bool:
        """Whether each text has a word that the other lacks, typing errors and shifted spaces aside."""
        first, second = _only_in(one, other), _only_in(other, one)
        for word in list(first):
            if match := next((w for w in second if self._is_typing_error(word, w)), None):
                first.remove(word)
                second.remove(match)
        return bool(first and second) and not _one_edit("".join(first), "".join(second))

    def _is_typing_error(self, one: str, other: str) -> bool:
        """One edit apart, and not two words that both occur elsewhere (ileum and ilium, IgA and IgG)."""
        if not (one.isalpha() and other.isalpha() and _one_edit(one, other)):
            return False
        rarer, commoner = sorted((self.n_texts.get(one, 0), self.n_texts.get(other, 0)))
        return rarer <= 2 or rarer <= TYPING_ERRORS * commoner

    def _cosine(self, one: str, other: str) -> float:
        first, second = self._vector(one), self._vector(other)
        return sum(weight * second.get(gram, 0.0) for gram, weight in first.items())

    def _vector(self, text: str) -> dict[int, float]:
        if text not in self.vectors:
            row = self.vectorizer.transform([text])
            self.vectors[text] = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        return self.vectors[text]


def _only_in(one: str, other: str) -> list[str]:
    """Words of `one` that `other` has not, or not as often, in their order."""
    left = Counter(other.split())
    units = []
    for word in one.split():
        if left[word]:
            left[word] -= 1
        else:
            units.append(word)
    return units


def _one_edit(one: str, other: str) -> bool:
    """Whether a letter added, left out, replaced or exchanged with its neighbour, or nothing, makes one the other."""
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])


def _whole_pairs(train: Any, held_out: Any, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Positions of the rows of `held_out` and of `train` (sparse, of length 1) whose product is at least `threshold`,
    with the product.

    The rarest 3-grams of a held-out row are looked up until little is left, see `_TAIL`. What is left adds at most its
    length to the product, so a pair that reaches the threshold has at least the rest from the rarest ones; only such
    pairs are multiplied in full. Source: Bayardo, Ma & Srikant (2007), doi:10.1145/1242572.1242591.
    """
    from sparse_dot_topn import sp_matmul_topn

    n_train_rows = np.bincount(train.indices, minlength=train.shape[1])
    # Less than the threshold, so that no pair reaches it without one of the rarest.
    rare, left = _rarest(held_out, n_train_rows, tail=_TAIL * threshold**2)
    by_gram = train.T.tocsr()
    for start in range(0, held_out.shape[0], _CHUNK_ROWS):
        part = rare[start : start + _CHUNK_ROWS]
        least = threshold - left[start : start + _CHUNK_ROWS] - _ROUNDING
        partial = sp_matmul_topn(part, by_gram, top_n=_TOP, threshold=float(least.min()))
        is_full = np.diff(partial.indptr) >= _TOP
        partial = partial.tocoo()
        likely = (partial.data >= least[partial.row]) & ~is_full[partial.row]
        rows, columns = partial.row[likely] + start, partial.col[likely]
        for at in range(0, len(rows), _CHUNK_PAIRS):
            row, column = rows[at : at + _CHUNK_PAIRS], columns[at : at + _CHUNK_PAIRS]
            cosine = np.asarray(held_out[row].multiply(train[column]).sum(1)).ravel()
            kept = cosine >= threshold - _ROUNDING
            yield from zip(row[kept].tolist(), column[kept].tolist(), cosine[kept].tolist(), strict=True)
        # Of these some candidates were cut off, and a partial product does not say which are the likeliest.
        whole = sp_matmul_topn(
            held_out[start : start + _CHUNK_ROWS][is_full], by_gram, top_n=_TOP, threshold=threshold - _ROUNDING
        ).tocoo()
        rows = np.flatnonzero(is_full)[whole.row] + start
        yield from zip(rows.tolist(), whole.col.tolist(), whole.data.tolist(), strict=True)


def _rarest(vectors: Any, n_rows: NDArray[Any], tail: float) -> tuple[Any, NDArray[Any]]:
    """Every row's rarest entries, and the length of the others, whose squares sum to `tail` at most.

    n_rows: (n_columns,) rows that hold a column's 3-gram.
    """
    from scipy import sparse

    row = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
    order = np.lexsort((-n_rows[vectors.indices], row))  # commonest first
    squares = vectors.data[order].astype(np.float64) ** 2
    running = np.cumsum(squares)
    before = np.concatenate([[0.0], running])[vectors.indptr[:-1]]
    out = running - before[row] <= tail
    kept = order[~out]
    rare = sparse.csr_matrix((vectors.data[kept], (row[~out], vectors.indices[kept])), shape=vectors.shape)
    return rare, np.sqrt(np.bincount(row[out], weights=squares[out], minlength=vectors.shape[0]))
