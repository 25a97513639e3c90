"""Reasonings to be marked against an expert's, with marks that follow from how each was made.

The expert's reasoning is that of an imaging order: the deciding principle, then the conclusion. The trainee's is made
from it by one of `WAYS`, each of which leaves whole or spoils what the three marks look at. A judge model that has
learned these rows marks in form and tells such faults apart; it is no reader of medicine.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from medjudge.errors import DataError
from medjudge.synthetic import appropriateness
from medjudge.synthetic.appropriateness import CONCLUSIONS, load_principles

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Order:
    """An imaging order and the two halves of the expert's reasoning."""

    row: Row
    principle: str
    conclusion: str

    @property
    def expert(self) -> str:
        """The whole reasoning."""
        return f"{self.principle} {self.conclusion}"


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make a trainee's reasoning, and the marks that it deserves: concepts, logic, evidence."""

    make: Callable[[Order, Order, random.Random], str]
    """From the order, another situation's order, and chance."""
    marks: tuple[int, int, int]


def _other_conclusion(order: Order, rng: random.Random) -> str:
    """A conclusion for another rating, about the same procedure."""
    label = rng.choice([label for label in CONCLUSIONS if label != order.row["appropriateness"]])
    return appropriateness.concluded(str(order.row["procedure"]), label, rng)


def _same_conclusion(order: Order, rng: random.Random) -> str:
    return appropriateness.concluded(str(order.row["procedure"]), str(order.row["appropriateness"]), rng)


def _scrambled(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(rng.sample(words, len(words)))


WAYS: dict[str, Way] = {
    "the same": Way(lambda order, other, rng: order.expert, (10, 10, 10)),
    "another wording of the conclusion": Way(
        lambda order, other, rng: f"{order.principle} {_same_conclusion(order, rng)}", (10, 10, 10)
    ),
    "the conclusion first": Way(lambda order, other, rng: f"{order.conclusion} {order.principle}", (10, 9, 10)),
    "more than was needed": Way(
        lambda order, other, rng: f"{order.principle} {other.principle} {order.conclusion}", (8, 7, 6)
    ),
    "no conclusion": Way(lambda order, other, rng: order.principle, (9, 5, 10)),
    "a wrong conclusion": Way(
        lambda order, other, rng: f"{order.principle} {_other_conclusion(order, rng)}", (9, 2, 9)
    ),
    "another principle": Way(lambda order, other, rng: f"{other.principle} {_same_conclusion(order, rng)}", (3, 4, 1)),
    "another principle, a wrong conclusion": Way(
        lambda order, other, rng: f"{other.principle} {_other_conclusion(order, rng)}", (2, 1, 1)
    ),
    "the conclusion alone": Way(lambda order, other, rng: _same_conclusion(order, rng), (3, 3, 0)),
    "another order's reasoning": Way(lambda order, other, rng: other.expert, (1, 0, 0)),
    "the words in no order": Way(lambda order, other, rng: _scrambled(order.expert, rng), (4, 0, 2)),
}
"""How a trainee reasons, commonest faults of small models among them."""


def generate(n: int, rng: random.Random) -> list[Row]:
    """`n` distinct rows in the fields of the `marks` contract, every way as often as the others.

    Raises DataError where so many cannot be drawn.
    """
    orders = [_order(row) for row in appropriateness.generate(2 * (n // len(WAYS) + 10), rng, evidence=False)]
    names = list(WAYS)
    rows: list[Row] = []
    seen: set[tuple[object, object]] = set()
    for i in range(len(orders) * len(names)):
        if len(rows) == n:
            return rows
        order = orders[i % len(orders)]
        row = _row(order, _from_elsewhere(order, orders, rng), names[(i + i // len(orders)) % len(names)], rng)
        if (key := (row["case"], row["trainee"])) not in seen:
            seen.add(key)
            rows.append(row)
    raise DataError(f"no more than {len(rows)} distinct reasonings can be drawn, asked for {n}.")


def _order(row: Row) -> Order:
    principle = load_principles()[str(row["principle"])].text
    return Order(row, principle, str(row["reasoning"]).removeprefix(principle).strip())


def _from_elsewhere(order: Order, orders: list[Order], rng: random.Random) -> Order:
    """An order of another situation."""
    while (other := rng.choice(orders)).row["variant_id"] == order.row["variant_id"]:
        pass
    return other


def _row(order: Order, other: Order, name: str, rng: random.Random) -> Row:
    way = WAYS[name]
    concepts, logic, evidence = way.marks
    source = order.row
    return {
        "case": "\n".join(f"{field}: {source[field]}" for field in ("condition", "variant", "procedure")),
        "expert": order.expert,
        "trainee": way.make(order, other, rng),
        "marks": {"medical_concepts": concepts, "logic_alignment": logic, "supporting_evidence": evidence},
        "way": name,
        **{key: source[key] for key in ("variant_id", "relation", "language", "synthetic")},
    }
