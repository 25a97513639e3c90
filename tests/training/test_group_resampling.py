"""Dynamic sampling within its bounds, and the order of cases, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from medjudge.training.group_resampling import Drawn, Resampler, by_difficulty

ROWS = [{"prompt": f"p{i}", "case_id": f"c{i}"} for i in range(8)]


def generate(prompts: list[str]) -> Drawn:
    """A completion says which prompt it answers, and its place."""
    ids = [[int(prompt[1:]), k % 2] for k, prompt in enumerate(prompts)]
    return Drawn([[0] for _ in prompts], ids, [str(i) for i in ids], None)


def reward(case_ids: Sequence[str], completion_ids: Sequence[Sequence[int]]) -> list[float | None]:
    """Cases with an even number differ in reward; each completion must answer its own case."""
    assert [int(case_id[1:]) for case_id in case_ids] == [ids[0] for ids in completion_ids]
    return [float(place) if number % 2 == 0 else 1.0 for number, place in completion_ids]


def batch(numbers: Sequence[int]) -> tuple[list[dict[str, Any]], list[str]]:
    inputs = [dict(ROWS[n]) for n in numbers for _ in range(2)]
    return inputs, [row["prompt"] for row in inputs]


def fill(numbers: Sequence[int], max_rounds: int) -> tuple[list[str], int, Drawn]:
    inputs, prompts = batch(numbers)
    resampler = Resampler(ROWS, reward, group_size=2, max_rounds=max_rounds, seed=1)
    drawn = generate(prompts)
    resampler.fill(inputs, prompts, drawn, generate, step=3)
    assert [row["prompt"] for row in inputs] == prompts
    assert [ids[0] for ids in drawn.completion_ids] == [int(prompt[1:]) for prompt in prompts]
    assert drawn.completions == [str(ids) for ids in drawn.completion_ids]
    return [row["case_id"] for row in inputs[::2]], resampler.take_count(), drawn


def test_groups_with_spread_stay() -> None:
    cases, n_resampled, _ = fill([0, 2, 4], 2)
    assert (cases, n_resampled) == (["c0", "c2", "c4"], 0)


def test_flat_groups_make_room_for_cases_that_are_not_in_the_batch() -> None:
    cases, n_resampled, _ = fill([0, 1, 3], 3)
    assert cases[0] == "c0"
    assert len(set(cases)) == 3
    assert all(
        int(case[1:]) % 2 == 0 for case in cases
    )  # three rounds reach two of the even ones among five in reserve
    assert n_resampled >= 2


def test_the_bound_holds_and_a_reserve_can_run_dry() -> None:
    assert fill([1, 3], 0)[1] == 0
    assert fill([1, 3], 1)[1] == 2
    _, n_resampled, _ = fill([0, 2, 4, 6, 1, 3, 5], 5)  # only c7 is left, and flat as well
    assert n_resampled == 1


def test_the_draw_follows_seed_and_step_alone() -> None:
    assert fill([1, 3, 5], 2)[0] == fill([1, 3, 5], 2)[0]


@pytest.mark.parametrize(
    ("pass_rates", "expected"),
    [
        ({}, [3, 1, 0, 2, 2, 0, 3, 1]),
        # 1 is easier than 0; 3 was always right and comes last; 2 was never measured.
        ({0: 0.25, 1: 0.75, 3: 1.0}, [1, 0, 2, 3, 1, 0, 2, 3]),
        ({2: 0.0}, [3, 1, 0, 2, 0, 3, 1, 2]),
    ],
)
def test_easy_cases_lead_in_every_epoch(pass_rates: dict[int, float], expected: list[int]) -> None:
    assert by_difficulty([3, 1, 0, 2, 2, 0, 3, 1], 4, pass_rates) == expected
