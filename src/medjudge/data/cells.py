"""Cells of other programs' files as labels, ids and numbers, and what a column holds in words.

A message shows values only where they can be a label: short, and few different ones. Texts are counted and measured.
"""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from medjudge.data.sources import plain
from medjudge.errors import ConfigError
from medjudge.tasks.normalise import short_hash

PAIRS = (
    ("no", "yes"),
    ("nope", "yep"),
    ("n", "y"),
    ("0", "1"),
    ("false", "true"),
    ("fail", "pass"),
    ("failed", "passed"),
    ("incorrect", "correct"),
    ("wrong", "right"),
    ("bad", "good"),
    ("negative", "positive"),
    ("not equivalent", "equivalent"),
    ("different", "same"),
    ("unfaithful", "faithful"),
    ("non", "oui"),
    ("nein", "ja"),
    ("falsch", "wahr"),
    ("faux", "vrai"),
)
"""What programs and people call the two sides of one question: (false, true)."""
NO_VALUE = frozenset({"nan", "null", "<na>", "#n/a", "[]", "{}"})
"""How programs write that there is nothing, unless it is a label."""
FAILURES = {
    "refused": frozenset({"refused", "refusal", "declined", "content_filter", "content filter"}),
    "failed": frozenset({"error", "timeout", "timed out", "exception"}),
}
"""Kind of a missing verdict -> what programs write in its place, unless it is a label."""
LONGEST_VALUE = 24
N_VALUES = 10
MIN_OTHER_NAMES = 0.05
"""Share of the filled cells from which other names of labels are no chance, and count no longer as unreadable."""
N_KEPT = 10_000
"""Different values that are kept at once."""
LONGEST_ID = 64
MOST_BLANKS = 2
"""Blanks in an id or a value that a message shows: one with more may be text of a case."""
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_ZEROS = re.compile(r"(?<![\w.])0+(?=\d)")
_WHOLE = re.compile(r"(-?\d+)\.0+")


def tidy(text: str) -> str:
    """`text` in NFC, without characters that are not seen, white space of any kind as single spaces."""
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) != "Cf")
    return " ".join(text.split())


def id_text(value: object) -> str:
    """A case id as text: tidy, `1.0` as `1` (what a spreadsheet makes of whole numbers); a long text by its hash."""
    text = tidy(value if type(value) is str else plain(value))
    if "." in text and text.endswith("0") and (whole := _WHOLE.fullmatch(text)):
        return whole[1]
    return text if len(text) <= LONGEST_ID else f"text {short_hash([text])}"


def id_key(case_id: str) -> str:
    """What two ways of writing one id have in common: upper and lower case, and zeros before numbers."""
    return _ZEROS.sub("", case_id.casefold())


def shown_id(case_id: str) -> str:
    """An id for a message, in quotes; one that may be a sentence by its hash."""
    return repr(case_id) if case_id.count(" ") <= MOST_BLANKS else f"'text {short_hash([case_id])}'"


def number(value: object) -> float | None:
    """A cell as a finite number, with a point or a decimal comma; None where it is none, as for `1,000`."""
    if isinstance(value, bool) or value is None:
        return None
    text = tidy(plain(value))
    if not _NUMBER.fullmatch(text):
        return None
    if "," in text:
        whole, _, decimals = text.partition(",")
        # `1,000` is a thousand to some programs and one to others; `0,125` can only be a decimal.
        if len(decimals) == 3 and whole.lstrip("+-") not in ("", "0"):
            return None
        text = text.replace(",", ".")
    found = float(text)
    return found if math.isfinite(found) else None


def _folded(text: str) -> str:
    """What two ways of writing one label have in common: case, width, and the form of a number."""
    text = unicodedata.normalize("NFKC", tidy(text)).casefold()
    value = number(text)
    # + 0.0 turns -0.0 into 0.0, so that both are one label.
    return text if value is None else repr(value + 0.0)


@dataclass(frozen=True)
class Scale:
    """How a cell becomes a label. Two labels are never read as one. Raises ConfigError for an alias of no label."""

    labels: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    """What other programs write -> the label that it means, or "" for no label at all."""
    threshold: float | None = None
    """A number from here on is the positive label, below it the other one; None: numbers are labels."""
    positive: str | None = None
    scores: bool = False
    """Whether cells are numbers and nothing else: of two labels by the threshold, of more the nearest label."""

    def __post_init__(self) -> None:
        """Checks what the aliases mean."""
        if self.scores and len(self.labels) > 2 and len(self._places) < len(self.labels):
            raise ConfigError(
                f"scores are read as the nearest of more than two labels, expected numbers as labels, got "
                f"{', '.join(self.labels)}. Give --labels 1,2,3 --ordered or the like, or two labels."
            )
        by_folded: dict[str, str] = {}
        for value, label in self.aliases.items():
            own = self._label_of(value)
            before = by_folded.setdefault(_folded(value), label)
            if before != label or (label and own not in (None, self._label_of(label))):
                other = own if before == label else before or "no verdict"
                raise ConfigError(
                    f"--alias {value}={label}: {value!r} also stands for {other!r}, and two labels are never read as "
                    "one. Give each written value one label; labels of a coarser scale need a column of their own."
                )
            if label and self._label_of(label) is None:
                raise ConfigError(
                    f"--alias {value}={label}: expected one of the labels {', '.join(self.labels)} after the `=`, or "
                    "nothing where the value is no verdict."
                )
        # One cut makes two sides; with three labels nobody has said where the second one lies.
        if self.threshold is not None and len(self.labels) != 2:
            raise ConfigError(
                f"a threshold makes two labels of numbers: the scale has {len(self.labels)}. Leave --threshold out, "
                "or give two --labels."
            )

    def read(self, cell: object) -> str | None:
        """The label of a cell: as written, by an alias, in another case, as an equal number, or as true/false.

        A list of one entry is its entry. None where it is none of these, or empty.
        """
        while isinstance(cell, list) and len(cell) == 1:
            cell = cell[0]
        if isinstance(cell, dict | list):
            return None
        # With the type: 1, 1.0 and True are equal as keys, but not as labels.
        key = (type(cell), cell)
        if key not in self._cache:
            if len(self._cache) > N_KEPT:
                self._cache.clear()
            self._cache[key] = self._read(cell)
        return self._cache[key]

    def is_empty(self, cell: object) -> bool:
        """Whether a cell holds no value, or one that an alias says is no label."""
        text = tidy(plain(cell))
        if not text:
            return True
        alias = self._alias(text)
        return alias == "" or (alias is None and self._label_of(text) is None and _failure(text) is not None)

    def failure(self, cell: object) -> str:
        """The kind of a missing verdict that stands in an empty cell."""
        return _failure(tidy(plain(cell))) or "failed"

    @cached_property
    def _cache(self) -> dict[tuple[type, object], str | None]:
        return {}

    def _read(self, cell: object) -> str | None:
        text = tidy(plain(cell))
        alias = self._alias(text)
        if alias is not None:
            return self._label_of(alias) if alias else None
        if self.scores and len(self.labels) > 2:
            # At equal distance the higher label, as from a threshold on.
            if (value := number(cell)) is None:
                return None
            return min((abs(place - value), -place, label) for place, label in self._places)[2]
        if self.threshold is not None and (value := number(cell)) is not None:
            high = self.positive or self.labels[1]
            low = next(label for label in self.labels if label != high)
            return high if value >= self.threshold else low
        label = None if self.scores else self._label_of(text)
        if label is None and not self.scores and text.casefold() in ("false", "true"):
            return self._of_bool(text.casefold() == "true")
        return label

    @cached_property
    def _places(self) -> list[tuple[float, str]]:
        return [(value, label) for label in self.labels if (value := number(label)) is not None]

    def _label_of(self, text: str) -> str | None:
        if text in self.labels:
            return text
        return _only(self.labels, lambda label: _folded(label) == _folded(text))

    def _alias(self, text: str) -> str | None:
        if text in self.aliases:
            return self.aliases[text]
        same = {self.aliases[value] for value in self.aliases if _folded(value) == _folded(text)}
        return same.pop() if len(same) == 1 else None

    def _of_bool(self, value: bool) -> str | None:
        """True or false as one of two labels that mean so."""
        by_word = {label.casefold(): label for label in self.labels}
        for pair in PAIRS:
            if len(self.labels) == 2 and set(by_word) == set(pair):
                return by_word[pair[value]]
        return None


def _failure(text: str) -> str | None:
    """The kind of a missing verdict that a text stands for; None where it may be one."""
    word = text.casefold()
    if word in NO_VALUE:
        return "failed"
    return next((kind for kind, words in FAILURES.items() if word in words), None)


def _only(labels: Sequence[str], fits: Callable[[str], bool]) -> str | None:
    fitting = [label for label in labels if fits(label)]
    return fitting[0] if len(fitting) == 1 else None


@dataclass
class Values:
    """What one column holds, counted as it is read."""

    scale: Scale
    n: int = 0
    n_empty: int = 0
    n_read: int = 0
    n_numbers: int = 0
    """Among those that are no label: numbers."""
    n_lists: int = 0
    n_objects: int = 0
    n_long: int = 0
    longest: int = 0
    low: float = math.inf
    high: float = -math.inf
    labels: Counter[str] = field(default_factory=Counter)
    read: dict[str, str] = field(default_factory=dict)
    """Short value -> the label that it is."""
    short: Counter[str] = field(default_factory=Counter)
    _met: dict[tuple[type, object], int] = field(default_factory=dict)
    """Cells as they are, counted before they are looked at."""

    def add(self, cell: object) -> str | None:
        """Counts a cell and returns its label. `settle` must be called before anything is asked."""
        while isinstance(cell, list) and len(cell) == 1:
            cell = cell[0]
        if isinstance(cell, dict | list):
            self._count(cell, None, 1)
            return None
        key = (type(cell), cell)
        label = self.scale.read(cell)
        self._met[key] = self._met.get(key, 0) + 1
        if len(self._met) > N_KEPT:  # a column of texts: nothing is met again
            self.settle()
        return label

    def settle(self) -> Values:
        """Takes what was met into the counts."""
        for (_, cell), n in self._met.items():
            self._count(cell, self.scale.read(cell), n)
        self._met.clear()
        return self

    def _count(self, cell: object, label: str | None, n: int) -> None:
        self.n += n
        if label is None and self.scale.is_empty(cell):
            self.n_empty += n
            return
        text = plain(cell)
        if label is not None:
            self.n_read += n
            self.labels[label] += n
            if self.scale.scores and (value := number(cell)) is not None:
                self.low, self.high = min(self.low, value), max(self.high, value)
        else:
            self._unread(cell, text, n)
        if label is not None and len(text) > LONGEST_VALUE:
            text = label
        if label is not None or (len(text) <= LONGEST_VALUE and not isinstance(cell, dict | list)):
            text = tidy(text)
            # Bounded: a column of free text would be kept whole for a message that never shows it.
            if len(self.short) < N_KEPT or text in self.short:
                self.short[text] += n
            if label is not None and len(self.read) < N_KEPT:
                self.read[text] = label

    def _unread(self, cell: object, text: str, n: int) -> None:
        value = number(cell)
        if isinstance(cell, list):
            self.n_lists += n
        elif isinstance(cell, dict):
            self.n_objects += n
        elif value is not None:
            self.n_numbers += n
            self.low, self.high = min(self.low, value), max(self.high, value)
        elif len(text) > LONGEST_VALUE:
            self.n_long += n
            self.longest = max(self.longest, len(text))

    @property
    def n_filled(self) -> int:
        """Cells that hold something."""
        return self.n - self.n_empty

    @property
    def n_unread(self) -> int:
        """Cells that hold something that is no label."""
        return self.n_filled - self.n_read

    @property
    def unread(self) -> dict[str, int]:
        """Short values that are no label, commonest first."""
        return {value: count for value, count in self.short.most_common() if value not in self.read}

    @property
    def looks_like_scores(self) -> bool:
        """Whether a good part of the unread values are numbers: different ones, or one between the labels, such as .5
        between 0 and 1; 0 and 1 for two labels that are no numbers are names."""
        numbers = [value for value in self.unread if number(value) is not None]
        if all(self._guess(value) is not None for value in numbers):
            return False
        ends = [value for label in self.scale.labels if (value := number(label)) is not None]
        between = len(ends) > 1 and min(ends) < self.low and self.high < max(ends)
        different = len(numbers) >= 2 and self.low < self.high
        return self.n_numbers >= max(2, 0.1 * self.n_filled) and (different or between)

    @property
    def holds_other_names(self) -> bool:
        """Whether values that are no label most likely are names of labels: a good part of the cells hold `Yes.` or `Y`
        for `yes`, or a common value stands there while some label is met in no cell."""
        unread = self.unread
        if sum(n for value, n in unread.items() if self._guess(value)) >= max(3, MIN_OTHER_NAMES * self.n_filled):
            return True
        # Of more than two labels one is often not met at all.
        common = max(3, (0.1 if len(self.scale.labels) == 2 else 0.25) * self.n_filled)
        return max(unread.values(), default=0) >= common and len(self.labels) < len(self.scale.labels)

    def describe(self) -> str:
        """The values with their counts, as far as they are short and few; of scores their range."""
        if self.scale.scores and self.n_read:
            others = f", {self.n_unread:,} no number" if self.n_unread else ""
            empty = f", empty {self.n_empty:,}" if self.n_empty else ""
            return f"{self.n_read:,} numbers from {self.low:g} to {self.high:g}{others}{empty}"
        if len(self.short) <= N_VALUES:
            parts = [f"{_shown(value)} {count:,}{self._meaning(value)}" for value, count in self._few()]
            n_numbers, n_texts = 0, self.short.total() - sum(count for _, count in self._few())
        else:
            parts = [f"{_shown(label)} {count:,}" for label, count in self.labels.most_common()]
            n_numbers = self.n_numbers
            n_texts = self.n_unread - self.n_numbers - self.n_lists - self.n_objects - self.n_long
        if n_numbers:
            parts.append(f"{n_numbers:,} other numbers from {self.low:g} to {self.high:g}")
        parts += [f"{n_texts:,} other short texts"] if n_texts else []
        parts += [f"{self.n_long:,} texts of up to {self.longest:,} characters"] if self.n_long else []
        parts += [f"{self.n_lists:,} lists"] if self.n_lists else []
        parts += [f"{self.n_objects:,} objects"] if self.n_objects else []
        parts += [f"empty {self.n_empty:,}"] if self.n_empty else []
        return ", ".join(parts) or "nothing"

    def _few(self) -> list[tuple[str, int]]:
        """The values that can be shown: short, few, and no text of a case."""
        if len(self.short) > N_VALUES:
            return []
        return [(value, count) for value, count in self.short.most_common() if self._may_be_shown(value, count)]

    def _may_be_shown(self, value: str, count: int) -> bool:
        """Whether a value is a label, another name of one, one word, or met again; beside longer texts only a word that
        is met again, and where most are longer texts, none."""
        if value in self.read or self._guess(value):
            return True
        if not self.n_long:
            return (count > 1 and value.count(" ") <= MOST_BLANKS) or " " not in value
        return 2 * self.n_long <= self.n_filled and count > 1 and " " not in value

    def _meaning(self, value: str) -> str:
        label = self.read.get(value)
        return f" (read as {label})" if label is not None and label != value else ""

    def proposal(self, path: str, option: str = "--threshold") -> str:
        """The options that read what is unread, in words. path: where the values stand; option: of the threshold."""
        if self.looks_like_scores:
            ends = f"from {self.low:g} to {self.high:g}" if self.low < self.high else f"equal to {self.low:g}"
            what = (
                f"{self.n_numbers:,} of {self.n_filled:,} values are numbers {ends} that are no label: this looks like "
                "a score."
            )
            if len(self.scale.labels) > 2:
                return f"{what} Round it in the file, or name every value with --labels"
            high = self.scale.positive or self.scale.labels[1]
            middle = f"{(self.low + self.high) / 2:.2g}"
            return f"{what} {option} VALUE, such as {option} {middle}, makes {high!r} of scores from there on"
        unread = self.unread
        few = [value for value, _ in self._few() if value in unread]
        if 2 * sum(unread[value] for value in few) >= max(1, self.n_unread):
            pairs = " ".join("--alias " + shlex.quote(f"{value}={self._guess(value) or 'LABEL'}") for value in few)
            return f"Say what each means: {pairs} (nothing after the `=`: no verdict), or name the scale with --labels"
        if self.n_lists:
            before, every, after = path.rpartition("[*]")
            return f"Of lists one entry can be read: {f'{before}[0]{after}' if every else f'{path}[0]'}"
        if self.n_objects:
            return f"Of objects one value can be read: {path}.KEY"
        return "Name the column that holds labels, or the scale with --labels"

    def _guess(self, value: str) -> str | None:
        """The label that a value most likely means: written with other signs around it, shortened, followed by more
        (`yes, because ..`), or the same side of a pair of words. None where that is open."""
        labels, word, amount = self.scale.labels, _bare(value), number(value)
        names = {label: _bare(label) for label in labels}
        guess = None
        if amount is not None:
            word = f"{amount:g}"
        elif word:
            guess = (
                _only(labels, lambda label: names[label] == word)
                or _only(labels, lambda label: names[label].startswith(word))
                or _begins_with(word, names)
            )
        # inspect_ai writes I and C for incorrect and correct.
        sides = {one: side for pair in PAIRS for side, one in enumerate(pair)}
        sides |= {"i": 0, "c": 1}
        if guess is None and len(labels) == 2 and word in sides:
            by_side = {sides.get(names[label]): label for label in labels}
            guess = by_side.get(sides[word]) if set(by_side) == {0, 1} else None
        return guess


def _bare(text: str) -> str:
    """A text in one case and width, without punctuation and signs at its ends."""
    return re.sub(r"^[\W_]+|[\W_]+$", "", unicodedata.normalize("NFKC", tidy(text)).casefold())


def _begins_with(word: str, names: Mapping[str, str]) -> str | None:
    """The label with which a text begins, where a sign follows it and no other label is in the text."""
    met = [label for label, name in names.items() if name and re.search(rf"\b{re.escape(name)}\b", word)]
    if len(met) != 1:
        return None
    return met[0] if re.match(rf"{re.escape(names[met[0]])}(\s*[,;:.(]|\s+[-–—])", word) else None


def _shown(value: str) -> str:
    return value if number(value) is not None else repr(value)
