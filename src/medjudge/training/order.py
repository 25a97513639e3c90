"""Which rows a training sees, in which order and in how many steps. No torch here: a plan counts steps without it.

The order of rows is ours, not the trainer's: all epochs are written out as one sequence before training, so a run that
was cut off sees after its resume exactly the rows that it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medjudge.settings.training import GrpoConfig
from medjudge.tasks.pairwise import twin_id


def epoch_order(n_rows: int, epochs: float, seed: int) -> list[int]:
    """Row numbers in the order of training: a fresh permutation per epoch; a part of one for a fraction of an epoch."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < round(n_rows * epochs):
        order.extend(rng.permutation(n_rows).tolist())
    return order[: round(n_rows * epochs)]


def length_grouped_order(lengths: Sequence[int], epochs: float, batch_size: int, seed: int) -> list[int]:
    """As `epoch_order`, with rows of like length in one batch, so that little is spent on padding.

    Windows of 32 batches, which may span two epochs, are sorted by length and their batches shuffled again.
    """
    rng = np.random.default_rng([seed, 1])
    order = np.array(epoch_order(len(lengths), epochs, seed), dtype=np.int64)
    sizes = np.asarray(lengths)
    grouped: list[int] = []
    # Windows of whole batches over the whole sequence: were each epoch cut apart, its last short batch would shift all
    # batches after it.
    for first in range(0, len(order), 32 * batch_size):
        window = order[first : first + 32 * batch_size]
        window = window[np.argsort(sizes[window], kind="stable")]
        batches = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
        whole = [batch for batch in batches if len(batch) == batch_size]
        for i in rng.permutation(len(whole)):
            grouped.extend(whole[i].tolist())
        if len(batches) > len(whole):
            grouped.extend(batches[-1].tolist())
    return grouped


def n_steps(n_rows: int, epochs: float, rows_per_step: int, max_steps: int, *, drop_last: bool = False) -> int:
    """Optimiser steps: `max_steps` if it is given (not -1), else what `epochs` over `n_rows` make."""
    if max_steps >= 0:
        return max_steps
    rows = round(n_rows * epochs)
    # GRPO draws whole batches of prompts; SFT's last, smaller step still teaches.
    return rows // rows_per_step if drop_last else math.ceil(rows / rows_per_step)


def n_epochs(n_rows: int, epochs: float, rows_per_step: int, max_steps: int) -> float:
    """How often each row is seen: `epochs`, or what `max_steps` comes to."""
    return max_steps * rows_per_step / n_rows if max_steps >= 0 else epochs


def twins_together(order: Sequence[int], case_ids: Sequence[str]) -> list[int]:
    """The order of training with both orders of each pair one after the other, where the first of them stood.

    Epoch by epoch, so that each case still counts as often. A case without a twin among `case_ids` goes to the end of
    its epoch, where it breaks no pair apart; of other tasks the order stays as it is.
    """
    place = {case_id: i for i, case_id in enumerate(case_ids)}
    twin = [place.get(twin_id(case_id)) for case_id in case_ids]
    if all(other is None for other in twin):
        return list(order)
    together: list[int] = []
    for first in range(0, len(order), len(case_ids)):
        epoch = order[first : first + len(case_ids)]
        pairs = dict.fromkeys(min(i, other) for i in epoch if (other := twin[i]) is not None)
        paired = [i for one in pairs for i in (one, twin[one])]
        alone = [i for i in epoch if twin[i] is None]
        together += [i for i in [*paired, *alone] if i is not None][: len(epoch)]
    return together


def grpo_order(n_cases: int, config: GrpoConfig, seed: int) -> tuple[list[int], int]:
    """(case numbers in the order of training, optimiser steps).

    A batch of prompts is used for `num_iterations` optimiser steps, so each prompt counts as often.
    """
    per_batch, reuse = config.prompts_per_step, config.num_iterations
    if config.max_steps >= 0:
        n_batches, steps = math.ceil(config.max_steps / reuse), config.max_steps
    else:
        n_batches = n_steps(n_cases, config.epochs, per_batch, -1, drop_last=True)
        steps = n_batches * reuse
    return epoch_order(n_cases, n_batches * per_batch / n_cases, seed), steps
