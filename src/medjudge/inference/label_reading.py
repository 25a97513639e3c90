"""Probabilities of labels from the likeliest tokens at each place of an answer, without a tokenizer.

A walk over texts: at each text that begins a label, the listed tokens lead to longer texts, until each label is told
from all others. What is not listed is bounded by what the list leaves over. Case, and spaces or line breaks before a
label, are read over and counted. Pure; `inference.endpoint_labels` asks the server.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from medjudge.inference.token_probs import TokenProbs
from medjudge.records import LabelScores
from medjudge.tasks.contract import LabelFrame

LEAST_REST = 1e-6
"""Servers round: a list that adds up to 1 may leave out this much."""
SMALL = 1e-3
"""A label whose probability can be higher by this share at most counts as told."""


@dataclass(frozen=True, slots=True)
class LabelTexts:
    """A frame in parts: what stands before the label, and the labels themselves."""

    lead: str
    """The frame and the markup that all labels begin with, such as `<answer>`."""
    labels: Mapping[str, bytes]
    """Label -> its text after `lead`, without the markup that all end with."""

    @classmethod
    def of(cls, frame: LabelFrame) -> LabelTexts:
        """The parts. Only markup is taken off: labels that share words keep them."""
        texts = list(frame.continuations.values())
        opened = re.match(r"(?s).*[>\":{\[(]", _common_start(texts))
        n_open = len(opened[0]) if opened else 0
        ending = _common_start([text[n_open:][::-1] for text in texts])[::-1]
        closed = re.search(r"(?s)[<\",}\])].*", ending)
        n_close = len(closed[0]) if closed else 0
        labels = {name: text[n_open : len(text) - n_close].encode() for name, text in frame.continuations.items()}
        return cls(frame.forced + texts[0][:n_open], labels)

    @property
    def folds(self) -> bool:
        """Whether labels are told apart without regard to case."""
        return len({text.lower() for text in self.labels.values()}) == len(self.labels)

    @property
    def longest(self) -> int:
        """Bytes of the longest label: it takes no more tokens."""
        return max(map(len, self.labels.values()))

    def place(self, text: str) -> int | None:
        """Where in an answer's text the label may begin: after `lead`, which may be spaced otherwise. None: nowhere."""
        pieces = re.findall(r"\w+|[^\w\s]", self.lead)
        found = re.match(r"\s*" + r"\s*".join(map(re.escape, pieces)), text) if pieces else re.match("", text)
        return found.end() if found else None


@dataclass(frozen=True, slots=True)
class Node:
    """A text that begins a label, and how likely the model is to begin so."""

    text: bytes
    """As it is written."""
    log_prob: float
    generated_at: int | None
    """Number of the generated token that goes on from it, where the model itself wrote this text."""


@dataclass
class Walk:
    """The labels of one case as far as they are told."""

    texts: LabelTexts
    told: dict[str, float] = field(default_factory=dict)
    beyond: dict[str, float] = field(default_factory=dict)
    """Label -> probability that may be its own and is not told."""
    otherwise: float = 0.0

    def step(self, node: Node, listed: TokenProbs | None) -> list[Node]:
        """Reads the tokens at a node; returns the nodes from which labels have yet to be told.

        listed: the generated or likeliest tokens first; None where nothing tells what follows.
        """
        begun = self._begun(node.text)
        if not listed:
            self.leave(node)
            return []
        at_label = [label for label in begun if self._plain(node.text) == self._own(label)]
        nodes, seen = [], set[str]()
        for i, (token, log_prob) in enumerate(listed):
            text, total = node.text + token, node.log_prob + log_prob
            longer = [] if not token else self._begun(text)
            ended = [label for label in begun if self._is_over(text, label)] if token else at_label
            if longer and not (len(longer) == 1 and self._plain(text) == self._own(longer[0])):
                seen.update(longer)
                at = None if node.generated_at is None or i else node.generated_at + 1
                nodes.append(Node(text, total, at))
            elif longer or ended:
                label = (longer or ended)[-1]
                seen.add(label)
                self._add(label, text, math.exp(total))
        rest = max(LEAST_REST, 1 - sum(math.exp(log_prob) for _, log_prob in listed))
        # The first may be a token that was drawn, less likely than one that is not listed.
        least = min((log_prob for _, log_prob in listed[1:]), default=0.0)
        most = math.exp(node.log_prob) * min(math.exp(least), rest)
        self._add_beyond([label for label in begun if label not in seen], most)
        return nodes

    def leave(self, node: Node) -> None:
        """Goes no further from a node: its probability may belong to any label that it begins."""
        self._add_beyond(self._begun(node.text), math.exp(node.log_prob))

    def scores(self) -> LabelScores:
        """What was read. A label that is not told stands with the most that it can have."""
        told = {label: self.told.get(label, 0.0) for label in self.texts.labels}
        most = {label: value + self.beyond.get(label, 0.0) for label, value in told.items()}
        bounded = tuple(label for label, value in told.items() if most[label] > value * (1 + SMALL))
        values = {label: most[label] if label in bounded else told[label] for label in told}
        # Not 0 even where a list adds up to 1: its logarithm is written.
        logs = [math.log(max(value, 1e-30)) for value in values.values()]
        scores = label_scores(list(told), logs, 0)
        return replace(
            scores,
            mass=min(1.0, sum(told.values())),
            bounded=bounded,
            mass_most=min(1.0, sum(most.values())) if bounded else None,
            mass_otherwise_written=min(1.0, self.otherwise),
        )

    def _begun(self, text: bytes) -> list[str]:
        plain = self._plain(text)
        return [label for label in self.texts.labels if self._own(label).startswith(plain)]

    def _is_over(self, text: bytes, label: str) -> bool:
        """Whether the text is this label and something after it that belongs to no longer word."""
        own, plain = self._own(label), self._plain(text)
        after = plain[len(own) :].decode("utf-8", errors="replace")[:1]
        return plain.startswith(own) and not after.isalnum()

    def _own(self, label: str) -> bytes:
        return self._plain(self.texts.labels[label])

    def _plain(self, text: bytes) -> bytes:
        return text.lstrip().lower() if self.texts.folds else text.lstrip()

    def _add(self, label: str, text: bytes, probability: float) -> None:
        self.told[label] = self.told.get(label, 0.0) + probability
        if not text.startswith(self.texts.labels[label]):
            self.otherwise += probability

    def _add_beyond(self, labels: Sequence[str], probability: float) -> None:
        for label in labels:
            self.beyond[label] = self.beyond.get(label, 0.0) + probability


def label_scores(labels: Sequence[str], log_probs: Sequence[float], n_words_cut: int) -> LabelScores:
    """Probabilities among the labels, and their sum, from the log-probability of each, in the order of `labels`."""
    # The largest is taken out before exp: a label with log-probability -800 would otherwise underflow, and 0 / 0 is
    # nan.
    highest = max(log_probs)
    weights = [math.exp(value - highest) for value in log_probs]
    total = sum(weights)
    return LabelScores(
        dict(zip(labels, log_probs, strict=True)),
        {label: weight / total for label, weight in zip(labels, weights, strict=True)},
        # Rounding may lift a sum of probabilities above 1.
        min(1.0, total * math.exp(highest)),
        n_words_cut,
    )


def scored_labels(frame: LabelFrame, rows: Mapping[str, TokenProbs]) -> LabelScores:
    """From the tokens of each label's whole answer, as `LocalEngine.label_logprobs` counts them.

    rows: label -> tokens of frame, label and closing text, and the token that ends the turn.
    """
    tails = []
    n_forced = len(b"".join(frame.forced.encode().split()))
    for row in rows.values():
        n = 0
        tail: list[tuple[bytes, float]] = []
        for token, log_prob in row if frame.ends else row[:-1]:
            n += len(b"".join(token.split()))
            # A token that holds the end of the frame and the beginning of the label belongs to the label.
            if n > n_forced or tail:
                tail.append((token, log_prob))
        tails.append(tail)
    # Past the token that closes the label nothing tells labels apart, and the next one depends on what is not written.
    same = 0
    if not frame.ends:
        while all(len(tail) > same and tail[-1 - same][0] == tails[0][-1 - same][0] for tail in tails):
            same += 1
    n_after = max(0, same - 1)
    sums = [sum(log_prob for _, log_prob in tail[: len(tail) - n_after]) for tail in tails]
    return label_scores(list(rows), sums, 0)


def _common_start(texts: Sequence[str]) -> str:
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in same)
