"""One pass over a label tree gives each label the log-probability that it has alone after its prompt."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from medjudge.inference.labels import (
    LabelTree,
    label_log_probs,
    label_log_probs_apart,
    label_log_probs_packed,
    read_cache,
)
from medjudge.models.cpu_forward import CpuForward
from medjudge.tasks.encoding import LabelIds
from tests.models.random_models import random_ids, random_model

TREE = LabelTree.of(LabelIds((5, 6), ((11, 12, 13, 2), (11, 12, 14, 2), (15, 2), (11, 2))))
PREFIX = random_ids(20, seed=100)
RESTS = [random_ids(n, seed=n) for n in (1, 25, 7, 14, 3)]


def test_tree_by_hand() -> None:
    # 11 - 12 - 13, 14 and 15 are read; the stop token 2 is only predicted, at four nodes.
    assert TREE.forced == (5, 6)
    assert TREE.tokens == (11, 12, 13, 14, 15)
    assert TREE.parents == (0, 1, 2, 2, 0)
    assert TREE.depths == (1, 2, 3, 3, 1)
    assert TREE.edges == ((0, 11), (1, 12), (2, 13), (3, 2), (2, 14), (4, 2), (0, 15), (5, 2), (1, 2))
    assert TREE.paths == ((0, 1, 2, 3), (0, 1, 4, 5), (6, 7), (0, 8))
    assert LabelTree.of(LabelIds((), ((7,), (8,)))) == LabelTree((), (), (), ((0, 7), (0, 8)), ((0,), (1,)))


def alone(model: Any, ids: list[int], label: list[int], temperature: float = 1.0) -> float:
    """The definition: sum over the label's tokens of log softmax at the position before."""
    with torch.no_grad():
        logits = model(torch.tensor([[*ids, *label]])).logits[0] / temperature
    scores = logits.log_softmax(-1)
    return math.fsum(float(scores[len(ids) - 1 + k, token]) for k, token in enumerate(label))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", ["llama", "qwen3", "phi3"])
def test_labels_are_scored_as_if_each_stood_alone(shape: str, attention: str) -> None:
    model = random_model(shape)
    model.set_attn_implementation(attention)
    prompts = [PREFIX + rest for rest in RESTS]
    labels = [[11, 12, 13, 2], [11, 12, 14, 2], [15, 2], [11, 2]]
    expected = torch.tensor([[alone(model, [*ids, 5, 6], label, 0.7) for label in labels] for ids in prompts])
    with torch.no_grad():
        whole = label_log_probs(model, prompts, TREE, temperature=0.7)
        shared = label_log_probs(model, prompts, TREE, prefix=read_cache(model, PREFIX), temperature=0.7)
        apart = label_log_probs_apart(model, prompts, TREE, temperature=0.7)
    for found in (whole, shared, apart):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma3"])
def test_labels_by_the_pass_for_cpus(shape: str) -> None:
    over: dict[str, Any] = {"sliding_window": 8, "num_hidden_layers": 7} if shape == "gemma3" else {}
    model = random_model(shape, **over)  # every sixth layer of Gemma sees the whole row
    prompts = [PREFIX + rest for rest in RESTS]
    scores = label_log_probs_packed(CpuForward(model, torch.float32), prompts, TREE, temperature=0.7)
    apart = label_log_probs_apart(model, prompts, TREE, temperature=0.7)
    torch.testing.assert_close(scores, apart, rtol=1e-4, atol=1e-4)


def test_probabilities_of_all_that_can_follow_add_up_to_one() -> None:
    model = random_model("qwen3")
    every_first = [token for token in range(96) if token != 11]
    tree = LabelTree.of(LabelIds((), (*((token,) for token in every_first), *((11, token) for token in range(96)))))
    with torch.no_grad():
        total = label_log_probs(model, RESTS, tree).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(len(RESTS)))
