"""The pass for CPUs gives log-probabilities and gradients of transformers, and names what it does not cover."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from medjudge.models.cpu_forward import CpuForward, disproof, pick_arithmetic, why_not
from medjudge.models.cpu_functions import dropout_factors
from tests.models.random_models import random_ids, random_model

GEMMA: dict[str, Any] = {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 9,
    "query_pre_attn_scalar": 16,
    "final_logit_softcapping": 5.0,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama, tied, biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": False}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3, untied": ("qwen3", {"tie_word_embeddings": False}),
    "gemma3": ("gemma3", GEMMA),
    "gemma3, untied": ("gemma3", {**GEMMA, "tie_word_embeddings": False, "final_logit_softcapping": None}),
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
START, MIDDLE = random_ids(20, seed=1), random_ids(18, seed=2)
# A beginning that all share, a longer one that three share, a row that is there twice, and one that begins another.
ROWS = [
    *(START + random_ids(n, seed=n) for n in (3, 30, 12, 50, 7)),
    *(START + MIDDLE + random_ids(n, seed=10 + n) for n in (3, 4, 17)),
    START + random_ids(3, seed=3),
    (START + random_ids(50, seed=50))[:45],
    random_ids(5, seed=99),
]
SCORED = [list(range(max(1, len(row) - 6), len(row))) for row in ROWS]


def build(name: str, *, lora: bool) -> Any:
    """A model whose norms and adapters do something."""
    shape, over = MODELS[name]
    model = random_model(shape, **over)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "norm" in path or "bias" in path:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    if not lora:
        return model
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for path, parameter in adapted.named_parameters():
            if "lora_B" in path:
                parameter.normal_(std=0.2)
    return adapted.eval()


def by_transformers(model: Any) -> torch.Tensor:
    """Log-probabilities of the scored tokens, one row at a time."""
    rows = []
    for row, scored in zip(ROWS, SCORED, strict=True):
        log_probs = model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float().log_softmax(-1)
        rows.append(log_probs[[t - 1 for t in scored], [row[t] for t in scored]])
    return torch.cat(rows)


def gradients(model: Any, log_probs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a loss in which no two tokens weigh the same."""
    model.zero_grad()
    (log_probs * torch.linspace(0.5, 1.5, len(log_probs))).mean().backward()  # type: ignore[no-untyped-call]
    return {path: parameter.grad.clone() for path, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_log_probabilities_and_gradients_in_float32(name: str, lora: bool) -> None:
    model = build(name, lora=lora)
    assert why_not(model) is None
    ours, theirs = CpuForward(model, torch.float32).score_rows(ROWS, SCORED).log_probs, by_transformers(model)
    assert float((ours - theirs).abs().max().detach()) < 1e-5
    own, expected = gradients(model, ours), gradients(model, theirs)
    assert own.keys() == expected.keys()
    for path, grad in expected.items():
        assert float((own[path] - grad).norm()) <= 1e-5 * float(grad.norm()) + 1e-7, path


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3"])
def test_bfloat16_is_as_near_as_that_of_transformers(name: str) -> None:
    model = build(name, lora=True)
    ours, exact = CpuForward(model, torch.bfloat16).score_rows(ROWS, SCORED).log_probs, by_transformers(model)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = by_transformers(model)
    error, usual = ((one - exact).detach().norm() for one in (ours, theirs))
    assert float(error) <= 1.5 * float(usual)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    own, expected, theirs_too = (gradients(model, one) for one in (ours, exact, theirs))
    ours_off, theirs_off = (
        sum(float((one[path] - grad).norm() / grad.norm()) for path, grad in expected.items())
        for one in (own, theirs_too)
    )
    assert ours_off <= 1.5 * theirs_off


def test_weights_that_learn_are_read_anew() -> None:
    model = build("qwen3", lora=False)
    forward = CpuForward(model, torch.bfloat16)
    before = forward.score_rows(ROWS, SCORED).log_probs.detach()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)  # which raises no version counter
    gradients(model, forward.score_rows(ROWS, SCORED).log_probs)
    optimizer.step()
    after = forward.score_rows(ROWS, SCORED).log_probs.detach()
    assert float((after - before).abs().mean()) > 0.05
    fresh = CpuForward(model, torch.bfloat16).score_rows(ROWS, SCORED).log_probs.detach()
    torch.testing.assert_close(after, fresh)


def test_entropies_and_likeliest_tokens() -> None:
    model = build("gemma3", lora=False)
    row = ROWS[3]
    scores = CpuForward(model, torch.float32).score_rows([row], [range(1, len(row))], temperature=0.7)
    logits = model(input_ids=torch.tensor([row[:-1]])).logits[0].detach() / 0.7
    expected: Any = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(scores.entropies, expected.entropy(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores.log_probs, expected.log_prob(torch.tensor(row[1:])), rtol=1e-4, atol=1e-5)
    assert scores.is_first.tolist() == (logits.argmax(-1) == torch.tensor(row[1:])).tolist()


def test_dropout_of_an_adapter_is_that_of_its_setting() -> None:
    torch.manual_seed(0)
    factors = dropout_factors(torch.ones(300, 301), 0.3)
    assert float((factors == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(factors.max()) == pytest.approx(1 / 0.7)


def test_gradients_under_dropout_are_those_of_the_drawn_noise() -> None:
    model = random_model("qwen3")
    config = LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(model, config)
    path, parameter = next((n, p) for n, p in adapted.named_parameters() if "q_proj.lora_A" in n)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    adapted.train()
    forward = CpuForward(adapted, torch.float32)

    def loss() -> torch.Tensor:
        torch.manual_seed(5)  # the same noise in every call
        return forward.score_rows(ROWS, SCORED).log_probs.mean()

    loss().backward()  # type: ignore[no-untyped-call]
    assert parameter.grad is not None
    direction = parameter.grad / parameter.grad.norm()
    with torch.no_grad():
        values = []
        for step in (2e-3, -2e-3):
            parameter += step * direction
            values.append(float(loss()))
            parameter -= step * direction
    assert (values[0] - values[1]) / 4e-3 == pytest.approx(float(parameter.grad.norm()), rel=0.02), path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: random_model("phi3"), "Phi3ForCausalLM"),
        (lambda: random_model("llama", attention_dropout=0.1), "dropout"),
        (lambda: random_model("llama", hidden_act="relu"), "activation is relu"),
        (lambda: random_model("gemma3", attn_logit_softcapping=20.0), "soft cap"),
        (lambda: random_model("llama", rope_parameters=DYNAMIC), "dynamic"),
        (lambda: _two_adapters(), "several"),
        (lambda: _dora(), "variant of LoRA"),
        (lambda: _other_layer(), "layers of type"),
    ],
)  # fmt: skip
def test_what_is_not_covered_is_named(change: Any, reason: str) -> None:
    assert reason in (why_not(change()) or "")


def _two_adapters() -> Any:
    model: Any = get_peft_model(random_model("llama"), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.add_adapter("other", LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["default", "other"])
    return model


def _dora() -> Any:
    return get_peft_model(
        random_model("llama"), LoraConfig(target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM")
    )


def _other_layer() -> Any:
    class Odd(nn.Linear):
        pass

    model = random_model("llama")
    model.model.layers[1].mlp.up_proj = Odd(32, 48, bias=False)
    return model


def test_a_model_that_computes_otherwise_is_found_out() -> None:
    model = build("qwen3", lora=True)
    assert disproof(CpuForward(model, torch.float32), ROWS[:3]) is None
    inner = model.get_base_model().model.layers[0].mlp
    before = inner.forward
    inner.forward = lambda x: before(x) * 1.2
    assert "differ" in (disproof(CpuForward(model, torch.float32), ROWS[:3]) or "")


def test_the_comparison_reaches_adapters_that_do_nothing_yet() -> None:
    model: Any = get_peft_model(random_model("llama"), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    forward = CpuForward(model, torch.float32)
    assert disproof(forward, ROWS[:2]) is None
    (adapter, *_) = (one for part in forward.fused for one in part.adapters())
    assert not adapter.b.any()
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    before = layer.forward
    layer.forward = lambda x: 2 * before(x) - layer.get_base_layer()(x)
    assert "differ" in (disproof(forward, ROWS[:2]) or "")
    assert not adapter.b.any()


def test_the_type_of_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    def picked(dtype: str, width: int) -> torch.dtype:
        return pick_arithmetic(dtype, random_model("llama", hidden_size=width))

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert [picked("auto", width) for width in (32, 256)] == [torch.float32, torch.bfloat16]
    assert picked("float32", 256) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert picked("auto", 256) == torch.float32
    assert picked("bfloat16", 256) == torch.bfloat16
