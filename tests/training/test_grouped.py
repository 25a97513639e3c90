"""Grouped GRPO against stock TRL on the same completions: equal losses, gradients, metrics and training curves."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from medjudge.models.scratch import build_tokenizer
from medjudge.training.grouped import GroupedGrpoTrainer, Packed, lora_folded, pack, shuffled_groups
from tests.models.random_models import random_ids, random_model
from tests.models.small_models import TEXT

LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
G, C = 4, 6
# Lengths of each group's prompt, and of its completions; 0 is a completion masked as truncated.
RAGGED = ((9, (6, 1, 3, 2)), (14, (5, 0, 4, 6)))
LAYOUTS = {
    "ragged": RAGGED,
    "even": ((12, (6, 6, 6, 6)), (12, (6, 6, 6, 6))),
    "one token each": ((7, (1, 1, 1, 1)), (3, (1, 1, 1, 1))),
    "one group, a prompt of one token": ((1, (2, 6, 1, 5)),),
    "all masked": ((5, (0, 0, 0, 0)),),
    "parts of three groups": ((9, (6, 2)), (20, (3, 4, 5, 6)), (4, (1, 6))),
}
Layout = tuple[tuple[int, tuple[int, ...]], ...]


def batch(layout: Layout, *, has_old: bool, seed: int = 0) -> dict[str, Any]:
    """A micro-batch as TRL holds it: prompts padded on the left, completions on the right."""
    rows = [(n_prompt, group, n) for group, (n_prompt, sizes) in enumerate(layout) for n in sizes]
    width = max(n_prompt for n_prompt, _, _ in rows)
    prompt_ids = torch.zeros(len(rows), width, dtype=torch.long)
    completion_ids = torch.randint(3, 96, (len(rows), C), generator=torch.Generator().manual_seed(seed))
    completion_mask = torch.zeros(len(rows), C, dtype=torch.long)
    for i, (n_prompt, group, n) in enumerate(rows):
        prompt_ids[i, width - n_prompt :] = torch.tensor(random_ids(n_prompt, seed=1000 * seed + group))
        completion_mask[i, :n] = 1
    generator = torch.Generator().manual_seed(seed + 1)
    found = {
        "prompt_ids": prompt_ids,
        "prompt_mask": (prompt_ids != 0).long(),
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.randn(len(rows), generator=generator) + 0.3,
        "num_items_in_batch": completion_mask.sum(),
        "ref_per_token_logps": -3 + torch.randn(len(rows), C, generator=generator),
    }
    if has_old:
        found["old_per_token_logps"] = torch.randn(len(rows), C, generator=generator)
    return found


@cache
def tokenizer() -> Any:
    return build_tokenizer(TEXT, 300)


def lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")


@cache
def trainer(kind: type[GRPOTrainer], shape: str, tuning: str, has_checkpointing: bool) -> Any:
    """A trainer that is never run: its loss is called on ready-made batches."""
    model = random_model(shape, vocab_size=320)
    found = kind(
        model=model,
        reward_funcs=lambda prompts, **_: [0.0] * len(prompts),
        args=arguments(Path("unused"), gradient_checkpointing=has_checkpointing),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 8),
        processing_class=tokenizer(),
        peft_config=lora() if tuning == "lora" else None,
    )
    if tuning == "lora":  # else B is zero, and so is the gradient of A
        for name, parameter in found.model.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.1
    found.current_gradient_accumulation_steps = 2
    return found


def arguments(folder: Path, **over: Any) -> GRPOConfig:
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "num_generations": G,
        "max_completion_length": C,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        **over,
    }
    return GRPOConfig(**settings)


def loss_and_gradient(one: Any, inputs: dict[str, Any], settings: dict[str, Any]) -> tuple[Tensor, Tensor, dict]:
    """(loss, gradient of all trained weights as one vector, metrics)."""
    for name, value in settings.items():
        setattr(one, name, value)
    one.model.train()
    one.model.zero_grad()
    one._metrics["train"].clear()
    loss = one.compute_loss(one.model, inputs)
    loss.backward()
    trained = [p for p in one.model.parameters() if p.requires_grad]
    gradient = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained])
    return loss.detach(), gradient, dict(one._metrics["train"])


def assert_equal(shape: str, tuning: str, has_checkpointing: bool, layout: str, **settings: Any) -> None:
    """Loss, gradient and metrics of both trainers on one micro-batch."""
    has_old = settings.pop("has_old")
    inputs = batch(LAYOUTS[layout], has_old=has_old)
    stock = loss_and_gradient(trainer(GRPOTrainer, shape, tuning, has_checkpointing), inputs, settings)
    ours = trainer(GroupedGrpoTrainer, shape, tuning, has_checkpointing)
    grouped = loss_and_gradient(ours, inputs, settings)
    assert not ours._reported  # else stock was compared with stock
    assert stock[1].norm() > 0 or layout == "all masked"
    torch.testing.assert_close(grouped[0], stock[0], rtol=1e-5, atol=1e-6)
    assert (grouped[1] - stock[1]).norm() <= 1e-5 * stock[1].norm() + 1e-9
    assert grouped[2] == {
        name: pytest.approx(values, rel=1e-4, abs=1e-6, nan_ok=True) for name, values in stock[2].items()
    }


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_every_loss_is_stock_trls(loss: str, level: str) -> None:
    for beta, has_old in product((0.0, 0.1), (False, True)):
        assert_equal(
            "qwen3",
            "lora",
            False,
            "ragged",
            loss_type=loss,
            importance_sampling_level=level,
            beta=beta,
            has_old=has_old,
        )


@pytest.mark.parametrize(
    ("shape", "tuning", "has_checkpointing"),
    [
        ("llama", "lora", True),
        ("llama", "full", False),
        ("qwen3", "full", True),
        ("phi3", "lora", False),
        ("phi3", "full", True),
    ],
)
def test_every_model_shape_and_tuning_is_stock_trls(shape: str, tuning: str, has_checkpointing: bool) -> None:
    for layout in LAYOUTS:
        assert_equal(
            shape,
            tuning,
            has_checkpointing,
            layout,
            loss_type="dapo",
            importance_sampling_level="token",
            beta=0.04,
            has_old=True,
        )


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["llama", "qwen3", "phi3"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("has_checkpointing", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_whole_table(shape: str, tuning: str, has_checkpointing: bool, layout: str) -> None:
    for loss, level, beta, has_old in product(LOSSES, ("token", "sequence"), (0.0, 0.1), (False, True)):
        assert_equal(
            shape,
            tuning,
            has_checkpointing,
            layout,
            loss_type=loss,
            importance_sampling_level=level,
            beta=beta,
            has_old=has_old,
        )


def test_entropy_bonus_and_high_entropy_tokens_are_stock_trls() -> None:
    settings = {"loss_type": "grpo", "importance_sampling_level": "token", "beta": 0.0, "has_old": True}
    try:
        assert_equal("qwen3", "full", False, "ragged", **settings, top_entropy_quantile=0.5)
        assert_equal("qwen3", "full", False, "ragged", **settings, entropy_coef=0.1, _entropy_bonus_enabled=True)
    finally:
        for kind in (GRPOTrainer, GroupedGrpoTrainer):
            one = trainer(kind, "qwen3", "full", False)
            one.top_entropy_quantile, one.entropy_coef, one._entropy_bonus_enabled = 1.0, 0.0, False


# --- whole runs -------------------------------------------------------------------------------------------------------


def replaying(kind: type[GRPOTrainer]) -> type[GRPOTrainer]:
    """The trainer with completions that hang on prompt, place in the group and number of the call, not on the model."""

    class Replaying(kind):  # type: ignore[valid-type,misc]
        n_calls = 0

        def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
            self.n_calls += 1
            completions = []
            for i, ids in enumerate(prompt_ids):
                seed = 7919 * self.n_calls + 31 * sum(ids) + i
                n = 1 + seed % C
                tail = [2] if seed % 3 else [5]  # one in three does not end, and is masked as truncated
                completions.append([*random_ids(n - 1, seed), *tail])
            return completions, None

    return Replaying


def some_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 7) - len(ids) / 2 for ids in completion_ids]


@pytest.mark.parametrize(
    ("tuning", "over"),
    [
        ("lora", {"num_iterations": 2, "loss_type": "dapo", "mask_truncated_completions": True}),
        ("full", {"loss_type": "grpo", "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}),
    ],
)
def test_training_curves_of_stock_and_grouped_overlap(tuning: str, over: dict[str, Any], tmp_path: Path) -> None:
    random_model("qwen3", vocab_size=320).save_pretrained(tmp_path / "base")  # TRL loads the reference from here
    prompts = [" ".join(TEXT[i % 3].split()[: 2 + i]) for i in range(6)]

    def history(kind: type[GRPOTrainer]) -> tuple[list[dict[str, Any]], list[Tensor]]:
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        one = replaying(kind)(
            model=model,
            reward_funcs=some_reward,
            args=arguments(
                tmp_path / kind.__name__,
                **over,
                beta=0.04,
                max_steps=6,
                learning_rate=0.05,
                optim="sgd",
                logging_steps=1,
                save_strategy="no",
                seed=3,
            ),
            train_dataset=Dataset.from_list([{"prompt": text} for text in prompts]),
            processing_class=tokenizer(),
            peft_config=lora() if tuning == "lora" else None,
        )
        one.train()
        assert not getattr(one, "_told", None)
        return one.state.log_history[:-1], [p.detach() for p in one.model.parameters() if p.requires_grad]

    torch.manual_seed(0)
    stock, stock_weights = history(GRPOTrainer)
    torch.manual_seed(0)
    grouped, grouped_weights = history(GroupedGrpoTrainer)
    assert len(stock) == len(grouped) == 6
    assert len({entry["loss"] for entry in stock}) == 6
    names = {"loss", "grad_norm", "reward", "completions/clipped_ratio"}
    if "gradient_accumulation_steps" not in over:  # these are means over micro-batches, which hold other rows
        names |= {"kl", "entropy", "clip_ratio/region_mean"}
    for mine, theirs in zip(grouped, stock, strict=True):
        assert mine.keys() == theirs.keys()
        for name in names & theirs.keys():
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name
    for mine, theirs in zip(grouped_weights, stock_weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_rollouts_of_the_trainer_hang_on_its_seed_and_keep_their_prompts(tmp_path: Path) -> None:
    def drawn() -> tuple[list[list[int]], Any]:
        one = GroupedGrpoTrainer(
            model=random_model("llama", vocab_size=320),
            reward_funcs=some_reward,
            args=arguments(tmp_path, generation_kwargs={"suppress_tokens": [1, 2]}, temperature=0.7, top_k=5),
            train_dataset=Dataset.from_list([{"prompt": "a"}] * 8),
            processing_class=tokenizer(),
        )
        torch.manual_seed(1)
        prompts = [random_ids(8, 1)] * G + [random_ids(5, 2)] * G
        return one._generate_single_turn(prompts, None, {}, G)[0], one

    completions, one = drawn()
    assert completions == drawn()[0]
    assert not one._reported
    assert len(completions) == 2 * G
    assert all(len(ids) == C and not {1, 2} & set(ids) for ids in completions)  # nothing stops, so all are full
    assert len({tuple(ids) for ids in completions[:G]}) > 1
    model = one.model
    for ids, prompt in zip(completions, [random_ids(8, 1)] * G + [random_ids(5, 2)] * G, strict=True):
        logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        logits[:, [1, 2]] = -torch.inf
        assert all(token in row.topk(5).indices for token, row in zip(ids, logits, strict=True))


def test_lora_is_folded_into_the_weights_for_rollouts_and_taken_out_again_to_the_last_bit() -> None:
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(random_model("qwen3", vocab_size=320), config)
    ids = torch.tensor([random_ids(12, 3)])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        apart = model(input_ids=ids).logits
        with lora_folded(model):
            assert all(layer.merged for layer in model.modules() if isinstance(layer, LoraLayer))
            folded = model(input_ids=ids).logits
        torch.testing.assert_close(folded, apart, rtol=1e-4, atol=1e-5)
        assert torch.equal(model(input_ids=ids).logits, apart)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer.merged for layer in model.modules() if isinstance(layer, LoraLayer))
    with lora_folded(model.to(torch.bfloat16)):
        assert not any(layer.merged for layer in model.modules() if isinstance(layer, LoraLayer))


# --- what is left to stock TRL ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "model_over", "over", "told"),
    [
        ("mistral", {"sliding_window": 16}, {}, "its attention slides over 16 tokens, and rows take "),
        (
            "qwen3",
            {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
            {},
            "slides over 16 tokens",
        ),
        ("llama", {}, {"generation_kwargs": {"typical_p": 0.9}}, "rollouts by stock TRL: `generation_kwargs` sets typ"),
    ],
)
def test_what_does_not_suit_is_left_to_stock_trl_and_said_once(
    shape: str, model_over: dict[str, Any], over: dict[str, Any], told: str, tmp_path: Path
) -> None:
    def run(kind: Callable[..., Any]) -> Any:
        one = kind(
            model=random_model(shape, vocab_size=320, **model_over),
            reward_funcs=some_reward,
            args=arguments(tmp_path, max_steps=2, logging_steps=1, save_strategy="no", **over),
            train_dataset=Dataset.from_list([{"prompt": text * 3} for text in TEXT[:4]]),
            processing_class=tokenizer(),
        )
        torch.manual_seed(2)
        one.train()
        return one

    lines: list[str] = []
    grouped = run(lambda **settings: GroupedGrpoTrainer(**settings, on_stock=lines.append))
    assert any(told in line for line in lines)
    assert len(lines) == len(set(lines))
    stock = run(GRPOTrainer)
    if not over:  # with all of it by stock TRL, the same samples are drawn
        assert grouped.state.log_history[0]["reward"] == stock.state.log_history[0]["reward"]
    assert all(torch.isfinite(p).all() for p in grouped.model.parameters())


def test_a_model_that_packing_gets_wrong_is_found_out(tmp_path: Path) -> None:
    model = random_model("llama", vocab_size=320)
    attention = type(model.model.layers[0].self_attn)

    class Biased(attention):  # type: ignore[valid-type,misc]
        """Sees a token's place in the row, as models with absolute positions of their own would."""

        def forward(self, hidden_states: Tensor, **kwargs: Any) -> Any:
            place = torch.arange(hidden_states.shape[1])[None, :, None] / 10
            return super().forward(hidden_states=hidden_states * (1 + place), **kwargs)

    for layer in model.model.layers:
        layer.self_attn.__class__ = Biased
    one = GroupedGrpoTrainer(
        model=model,
        reward_funcs=some_reward,
        args=arguments(tmp_path),
        train_dataset=Dataset.from_list([{"prompt": "a"}] * 8),
        processing_class=tokenizer(),
    )
    assert one._never is not None
    assert "differs from the model's own attention" in one._never


# --- packing, by hand -------------------------------------------------------------------------------------------------


def test_packing_by_hand() -> None:
    packed = pack(
        torch.tensor([[0, 7, 8], [4, 5, 6], [0, 7, 8], [0, 7, 8]]),
        torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1], [0, 1, 1]]),
        torch.tensor([[11, 12, 13], [21, 0, 0], [31, 32, 0], [41, 42, 43]]),
        torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]]),  # the last is masked as a whole
    )
    #                                prompt  c1      c3   prompt
    assert packed.ids.tolist() == [[7, 8, 11, 12, 31, 4, 5, 6]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 2, 0, 1, 2]]
    assert packed.predictors.tolist() == [1, 2, 3, 7, 1, 4]
    assert packed.labels.tolist() == [[11, 12, 13, 21, 31, 32]]
    values = torch.arange(1.0, 7.0)[None]
    assert packed.unpack(values).tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0], [0, 0, 0]]


def allowed(packed: Packed) -> Tensor:
    """(n, n): what the blocks let each token see."""
    n = packed.ids.shape[1]
    found = torch.zeros(n, n, dtype=torch.bool)
    for block in packed.blocks:
        size = block.end - block.start
        mask = torch.ones(size, size, dtype=torch.bool).tril() if block.mask is None else block.mask
        keys = list(range(*block.prompt)) if block.prompt else []
        found[block.start : block.end, [*keys, *range(block.start, block.end)]] = mask
    return found


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_blocks_let_each_token_see_its_prompt_and_itself(layout: Layout) -> None:
    inputs = batch(layout, has_old=False)
    packed = pack(*(inputs[k] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")))
    # The group of each token and its part of it: 0 for the prompt, else the completion without its last token.
    sizes = [(n_prompt, *(n - 1 for n in ns if n)) for n_prompt, ns in layout]
    owners = [(g, p) for g, parts in enumerate(sizes) for p, n in enumerate(parts) for _ in range(n)]
    expected = [
        [q[0] == k[0] and k[1] in (0, q[1]) and j <= i for j, k in enumerate(owners)] for i, q in enumerate(owners)
    ]
    assert allowed(packed).tolist() == expected
    ends = [0, *(block.end for block in packed.blocks)]
    assert [block.start for block in packed.blocks] == ends[:-1]
    assert ends[-1] == packed.ids.shape[1]


def test_groups_stay_whole_when_rows_are_shuffled() -> None:
    torch.manual_seed(0)
    rows = {"prompt_ids": torch.arange(24) // 4, "scalar": torch.tensor(3), "none": None, "names": list(range(24))}
    seen = [shuffled_groups(rows, group_size=4) for _ in range(10)]
    for found in seen:
        assert found["prompt_ids"].view(6, 4).eq(found["prompt_ids"].view(6, 4)[:, :1]).all()
        assert (found["scalar"], found["none"]) == (3, None)
        assert sorted(found["names"]) == list(range(24))
        assert (torch.tensor(found["names"]) // 4).tolist() == found["prompt_ids"].tolist()
    assert len({tuple(found["names"]) for found in seen}) > 5
