"""The reward that both orders of a pair earn together, or neither does."""

from __future__ import annotations

import pytest

from medjudge.errors import ConfigError
from medjudge.records import Case, Completion, Rollout
from medjudge.rewards.composition import RewardContext
from medjudge.rewards.consistency import consistent
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.pairwise import PairwiseContract, swapped
from medjudge.training.order import epoch_order, twins_together

CONTRACT = PairwiseContract()
FIRST = Case("1", {"question": "q", "answer_a": "x", "answer_b": "y"}, gold="A")
SECOND = swapped(FIRST)


def rollout(case: Case, answer: str) -> Rollout:
    text = f"<answer>{answer}</answer>"
    return Rollout(case, CONTRACT.parse(case.case_id, text), Completion(text, 5, True))


def test_a_rollout_is_paid_with_that_of_the_other_order_alone() -> None:
    reward = consistent(RewardContext(CONTRACT))
    # Always the first place: right in one order, never in both.
    assert reward([rollout(one, "A") for one in (FIRST, SECOND)]) == [0.0, 0.0]
    assert reward([rollout(FIRST, "A"), rollout(SECOND, "B")]) == [1.0, 1.0]
    drawn = [*(rollout(FIRST, a) for a in ("A", "A", "B", "no")), *(rollout(SECOND, a) for a in ("B", "A", "B", "B"))]
    assert reward(drawn) == [1, 0, 0, 0, 1, 0, 0, 0]
    # Whatever stands between them.
    other = Case("2", FIRST.inputs, gold="tie")
    assert reward([rollout(SECOND, "B"), rollout(other, "A"), rollout(FIRST, "A")]) == [1, 0, 1]
    assert reward.report()["n_alone"] == 1


def test_without_the_other_order_it_pays_a_verdict_for_itself_and_counts_it() -> None:
    reward = consistent(RewardContext(CONTRACT))
    assert reward([rollout(FIRST, "A"), rollout(FIRST, "B")]) == [1, 0]
    assert reward.report() == {"n_alone": 2}
    unrated = Case("1", FIRST.inputs)
    assert reward([rollout(unrated, "A")]) == [None]
    assert (reward.most(FIRST), reward.most(unrated)) == (1.0, None)


@pytest.mark.parametrize(
    ("contract", "words"), [(EquivalenceContract(), "equivalence"), (PairwiseContract(orders="as_given"), "as given")]
)
def test_tasks_of_one_order_are_refused(contract: PairwiseContract, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        consistent(RewardContext(contract))


@pytest.mark.parametrize("epochs", [1.0, 2.5])
def test_both_orders_stand_in_one_step_and_each_case_counts_as_often(epochs: float) -> None:
    ids = [name for i in range(10) for name in (f"{i}", f"{i}~swapped")]
    order = epoch_order(len(ids), epochs, seed=5)
    together = twins_together(order, ids)
    assert len(together) == len(order)
    for at in range(0, len(together), 2):
        first, second = (ids[i] for i in together[at : at + 2])
        assert {first, second} == {first.removesuffix("~swapped"), first.removesuffix("~swapped") + "~swapped"}
    for epoch in range(0, len(order), len(ids)):
        part = together[epoch : epoch + len(ids)]
        assert len(set(part)) == len(part)
    assert together != list(range(len(ids)))[: len(together)]


def test_cases_without_a_twin_end_an_epoch_and_other_tasks_keep_their_order() -> None:
    ids = ["a", "b", "b~swapped", "c~swapped"]
    assert twins_together([3, 2, 0, 1], ids) == [1, 2, 3, 0]
    assert twins_together([2, 0, 1], ["a", "b", "c"]) == [2, 0, 1]
