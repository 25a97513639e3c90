"""Rollouts are those of `generate`, row by row; samples follow the model's distribution and hang on the seed alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from medjudge.errors import ModelError
from medjudge.inference import prefix
from medjudge.inference.rollouts import GREEDY, Limits, Sampling, batches, invert_cdf, roll_out
from tests.models.random_models import VOCAB, random_ids, random_model

STOPS = list(range(2, VOCAB, 9))
SHARED = random_ids(20, seed=100)
ALONE = [random_ids(n, seed=n) for n in (1, 25, 7, 14, 3, 3, 30)]
PROMPT_SETS = {
    "ragged": ALONE,
    "with a common beginning": [SHARED + ids for ids in ALONE],
    "one the beginning of another": [SHARED, SHARED + ALONE[2], SHARED + ALONE[2] + ALONE[3]],
    "repeated": [ALONE[1], ALONE[2], ALONE[1], ALONE[1]],
    "single": [ALONE[1]],
}


def generated(model: Any, ids: list[int], **settings: Any) -> list[int]:
    """transformers' own answer to one prompt alone."""
    config = GenerationConfig(max_new_tokens=12, eos_token_id=STOPS, pad_token_id=0, do_sample=False, **settings)
    out = model.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), generation_config=config
    )
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("shape", ["llama", "qwen3", "phi3", "mistral"])
@pytest.mark.parametrize("prompts", PROMPT_SETS.values(), ids=list(PROMPT_SETS))
def test_greedy_rollouts_are_those_of_generate(shape: str, prompts: list[list[int]]) -> None:
    model = random_model(shape, sliding_window=None) if shape == "mistral" else random_model(shape)
    expected = [[generated(model, ids)] for ids in prompts]
    if len(prompts) > 4:
        assert len({len(ids[0]) for ids in expected}) > 1  # rows leave at different steps
    for batch_tokens in (40, 150, 100_000):
        done: list[int] = []
        drawn = roll_out(model, prompts, limits=Limits(STOPS, 12), batch_tokens=batch_tokens, on_progress=done.append)
        assert drawn == expected
        assert sum(done) == len(prompts)


def test_penalty_and_suppressed_tokens_are_those_of_generate() -> None:
    model = random_model("qwen3")
    prompts = PROMPT_SETS["with a common beginning"]
    settings = {"repetition_penalty": 1.7, "suppress_tokens": [STOPS[1], 40, 41]}
    drawn = roll_out(
        model,
        prompts,
        sampling=Sampling(greedy=True, repetition_penalty=1.7, suppress=(STOPS[1], 40, 41)),
        limits=Limits(STOPS, 12),
    )
    assert drawn == [[generated(model, ids, **settings)] for ids in prompts]
    assert drawn != roll_out(model, prompts, limits=Limits(STOPS, 12))


def test_same_seed_same_samples_whatever_the_batches() -> None:
    model = random_model("llama")
    sampling = Sampling(temperature=1.3, top_p=0.95)

    def drawn(seed: int, batch_tokens: int) -> list[list[list[int]]]:
        return roll_out(
            model,
            PROMPT_SETS["with a common beginning"],
            n_per_prompt=4,
            sampling=sampling,
            limits=Limits(STOPS, 12),
            rng=torch.Generator().manual_seed(seed),
            batch_tokens=batch_tokens,
        )

    first = drawn(1, 100_000)
    assert first == drawn(1, 120) == drawn(1, 500)
    assert first != drawn(2, 100_000)
    lengths = {len(ids) for group in first for ids in group}
    assert len(lengths) > 3  # rows of one group leave at different steps
    for group in first:
        for ids in group:
            assert not set(ids[:-1]) & set(STOPS)
            assert len(ids) == 12 or ids[-1] in STOPS


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.6, top_k=9),
        Sampling(temperature=1.4, top_p=0.8),
        Sampling(min_p=0.2, repetition_penalty=1.5, suppress=(12, 13)),
    ],
)
def test_samples_follow_the_distribution_that_generate_draws_from(sampling: Sampling) -> None:
    model, ids, n = random_model("llama"), ALONE[1], 4000
    config = GenerationConfig(
        max_new_tokens=1,
        do_sample=True,
        eos_token_id=STOPS,
        pad_token_id=0,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        suppress_tokens=list(sampling.suppress) or None,
        output_scores=True,
        return_dict_in_generate=True,
    )
    out = model.generate(
        input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), generation_config=config
    )
    probabilities = out.scores[0][0].softmax(-1)
    drawn = roll_out(
        model,
        [ids],
        n_per_prompt=n,
        sampling=sampling,
        limits=Limits(STOPS, 1),
        rng=torch.Generator().manual_seed(3),
    )
    counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=VOCAB)
    assert not counts[probabilities == 0].any()
    # Each count is binomial; 5 standard deviations, so a false alarm is one in a million per token.
    deviation = (n * probabilities * (1 - probabilities)).sqrt()
    assert ((counts - n * probabilities).abs() <= 5 * deviation + 1e-3).all()


def test_inverse_of_the_distribution_function_by_hand() -> None:
    scores = torch.tensor([0.0, 0.25, 0.0, 0.5, 0.25, 0.0]).log().expand(6, -1)
    uniform = torch.tensor([0.0, 0.24, 0.26, 0.74, 0.76, 1 - 2**-24])
    assert invert_cdf(scores, uniform).tolist() == [1, 1, 3, 3, 4, 4]


def test_batches_keep_the_budget() -> None:
    lengths, room = [5, 9, 3, 9, 2], [4] * 5
    assert batches(lengths, room, 26) == [[1, 3], [0, 2], [4]]  # (9 + 4) * 2, (5 + 4) * 2 + 5 + 4 > 26
    assert batches(lengths, room, 1) == [[1], [3], [0], [2], [4]]
    assert batches([], [], 10) == []


def test_continuations_of_several_tokens_have_the_logits_of_the_whole_row() -> None:
    model = random_model("phi3")
    prompts = PROMPT_SETS["with a common beginning"][:4]
    n_prefix = prefix.common_prefix(prompts)
    assert n_prefix == len(SHARED)
    read = prefix.read_prompts(model, prompts, prefix.read_prefix(model, prompts[0][:n_prefix]))
    slots = [0, 0, 1, 3, 3, 3]  # nobody continues prompt 2, and the others differ in how many do
    tokens = torch.tensor([random_ids(3, seed=50 + i) for i in range(len(slots))])
    context = read.continuation(slots)
    positions = torch.tensor([[len(prompts[slot]) + k for k in range(3)] for slot in slots])
    with torch.no_grad():
        first = prefix.forward(model, tokens[:, :2], positions[:, :2], context)
        last = prefix.forward(model, tokens[:, 2:], positions[:, 2:], context)
        for row, slot in enumerate(slots):
            whole = model(input_ids=torch.tensor([prompts[slot] + tokens[row].tolist()])).logits[0]
            torch.testing.assert_close(read.logits[slot], whole[-4], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(torch.cat([first[row], last[row]]), whole[-3:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "over", "reason"),
    [
        ("mistral", {"sliding_window": 20}, "slides over 20 tokens, and rows take 25"),
        ("phi3", {"sliding_window": 20}, "slides over 20 tokens"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}, "slides over 20 tokens"),
        (
            "llama",
            {
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
                "max_position_embeddings": 24,
            },
            "rotary embedding changes at 24 tokens",
        ),
        (
            "phi3",
            {
                "original_max_position_embeddings": 20,
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "short_factor": [1.0] * 4,
                    "long_factor": [2.0] * 4,
                    "original_max_position_embeddings": 20,
                },
            },
            "rotary embedding changes at 20 tokens",
        ),
    ],
)
def test_what_would_come_out_wrong_is_refused(shape: str, over: dict[str, Any], reason: str) -> None:
    model = random_model(shape, **over)
    with pytest.raises(ModelError, match=reason):
        roll_out(model, [ALONE[1]], limits=Limits(STOPS, 0))
    assert prefix.why_not(model, 8) is None  # short rows do not meet the difference


@pytest.mark.parametrize("shape", ["phi3", "qwen3"])
def test_a_window_wider_than_the_row_is_no_window(shape: str) -> None:
    model = random_model(shape, sliding_window=64, **({"use_sliding_window": True} if shape == "qwen3" else {}))
    assert roll_out(model, ALONE, limits=Limits(STOPS, 12)) == [[generated(model, ids)] for ids in ALONE]


def test_training_mode_survives() -> None:
    model = random_model("llama").train()
    roll_out(model, ALONE[:1], sampling=GREEDY, limits=Limits(STOPS, 2))
    assert model.training
