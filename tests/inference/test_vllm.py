"""The engine on vLLM, with a stand-in for the package that answers by transformers: same prompts, same answers."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from medjudge.errors import ConfigError, ModelError
from medjudge.inference.loader import LoadedWhenAsked, LoadSettings
from medjudge.records import Case
from medjudge.settings.evaluate import EvaluateConfig
from medjudge.settings.model import ModelConfig
from medjudge.tasks.rubric import RubricContract
from tests.models.small_models import save_adapter, save_base

CONTRACT = RubricContract(instructions="terse", criteria="kind?", rubric="a text", max_completion_tokens=48)
CASES = [Case(str(i), {"output": f"Reply number {i}" + " and more" * i}) for i in range(5)]
ON_CPU = ModelConfig(device="cpu", dtype="float32")


class StandIn(ModuleType):
    """As much of `vllm` as is used. Every call is noted."""

    __version__ = "0.0-stand-in"

    def __init__(self, *, tells_prompts: bool = True) -> None:
        super().__init__("vllm")
        self.calls: list[tuple[Any, Any, Any]] = []
        self.options: dict[str, Any] = {}
        self.SamplingParams = SimpleNamespace
        self.lora = SimpleNamespace(
            request=SimpleNamespace(LoRARequest=lambda name, number, path: SimpleNamespace(name=name, path=path))
        )
        stand_in = self

        class LLM:
            def __init__(self, **options: Any) -> None:
                stand_in.options = options
                self.model = AutoModelForCausalLM.from_pretrained(options["model"], dtype=torch.float32)

            def generate(self, prompts: Any, settings: Any, *, use_tqdm: bool, lora_request: Any) -> list[Any]:
                stand_in.calls.append((prompts, settings, lora_request))
                if lora_request is not None and not isinstance(self.model, PeftModel):
                    self.model = PeftModel.from_pretrained(self.model, lora_request.path)
                return [
                    self._one(p["prompt_token_ids"], s, tells_prompts) for p, s in zip(prompts, settings, strict=True)
                ]

            @torch.inference_mode()
            def _one(self, ids: list[int], settings: Any, tells_prompts: bool) -> Any:
                told = None
                if getattr(settings, "prompt_logprobs", None) is not None and tells_prompts:
                    scores = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
                    rows = [{ids[i]: SimpleNamespace(logprob=float(scores[i - 1, ids[i]]))} for i in range(1, len(ids))]
                    told = [None, *rows]
                outputs = [self._complete(list(ids), settings, k) for k in range(getattr(settings, "n", 1))]
                return SimpleNamespace(outputs=outputs[::-1], prompt_logprobs=told)

            def _complete(self, ids: list[int], settings: Any, index: int) -> Any:
                start, stops = len(ids), getattr(settings, "stop_token_ids", [])
                generator = (
                    torch.Generator().manual_seed((settings.seed or 0) + index) if settings.temperature else None
                )
                for _ in range(settings.max_tokens):
                    logits = self.model(torch.tensor([ids])).logits[0, -1]
                    if generator is None:
                        token = int(logits.argmax())
                    else:
                        shares = (logits / settings.temperature).softmax(-1)
                        token = int(torch.multinomial(shares, 1, generator=generator))
                    ids.append(token)
                    if token in stops:
                        return SimpleNamespace(index=index, token_ids=ids[start:], finish_reason="stop")
                return SimpleNamespace(index=index, token_ids=tuple(ids[start:]), finish_reason="length")

        self.LLM = LLM


def install(monkeypatch: pytest.MonkeyPatch, stand_in: StandIn) -> StandIn:
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setitem(sys.modules, "vllm.lora", stand_in.lora)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "vllm.lora.request", stand_in.lora.request)
    return stand_in


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return install(monkeypatch, StandIn())


@pytest.mark.parametrize("is_adapter", [False, True], ids=["whole", "adapter"])
def test_it_answers_as_transformers_does_on_the_same_tokens(tmp_path: Path, vllm: StandIn, is_adapter: bool) -> None:
    folder = save_base(tmp_path / "base")
    if is_adapter:
        folder = save_adapter(tmp_path / "adapter", folder)
    done: list[int] = []
    engine = LoadedWhenAsked(f"vllm:{folder}", LoadSettings(model=ON_CPU))
    engine.on_progress = done.append
    plain = LoadedWhenAsked(str(folder), LoadSettings(model=ON_CPU))
    assert engine.generate(CONTRACT, CASES) == plain.generate(CONTRACT, CASES)
    assert sum(done) == len(CASES)
    ours, theirs = (one.label_logprobs(CONTRACT, CASES) for one in (engine, plain))
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.log_probs == pytest.approx(dict(other.log_probs), abs=1e-4)
        assert mine.probabilities == pytest.approx(dict(other.probabilities), abs=1e-4)
        assert mine.mass == pytest.approx(other.mass, rel=1e-3)
    assert engine.lineage == plain.lineage
    assert engine.lineage is not None
    assert vllm.options["dtype"] == "float32"
    assert vllm.options["trust_remote_code"] is False
    assert (vllm.options.get("max_lora_rank"), vllm.calls[0][2] is not None) == (
        (8, True) if is_adapter else (None, False)
    )
    assert engine.generate(CONTRACT, []) == engine.label_logprobs(CONTRACT, []) == []


def test_greedy_and_seeded_sampling_are_asked_for_in_vllms_words(tmp_path: Path, vllm: StandIn) -> None:
    engine = LoadedWhenAsked(str(save_base(tmp_path / "base")), LoadSettings(model=ON_CPU, engine="vllm"))
    engine.generate(CONTRACT, CASES)
    (settings, *_) = vllm.calls[0][1]
    assert (settings.temperature, settings.max_tokens, settings.ignore_eos, settings.n) == (0.0, 48, True, 1)
    first = engine.sample(CONTRACT, CASES, 3, temperature=1.5, seed=7)
    assert first == engine.sample(CONTRACT, CASES, 3, temperature=1.5, seed=7)
    assert first != engine.sample(CONTRACT, CASES, 3, temperature=1.5, seed=8)
    assert [len(row) for row in first] == [3] * len(CASES)
    seeds = [one.seed for one in vllm.calls[1][1]]
    assert seeds == [21, 24, 27, 30, 33]


def test_the_default_engine_is_not_written_so_no_earlier_stage_is_stale() -> None:
    assert "engine" not in EvaluateConfig().model_dump(mode="json")
    assert EvaluateConfig(engine="vllm").model_dump(mode="json")["engine"] == "vllm"


def test_what_cannot_be_done_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_base(tmp_path / "base")
    for name in ("vllm", "vllm.lora", "vllm.lora.request"):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"pip install 'medjudge\[vllm\]'"):
        LoadedWhenAsked(f"vllm:{folder}", LoadSettings(model=ON_CPU))
    install(monkeypatch, StandIn(tells_prompts=False))
    engine = LoadedWhenAsked(f"vllm:{folder}", LoadSettings(model=ON_CPU))
    with pytest.raises(ModelError, match="tells no log-probabilities of prompt tokens"):
        engine.label_logprobs(CONTRACT, CASES)
    with pytest.raises(ConfigError, match="the model's context holds"):
        engine.generate(CONTRACT.model_copy(update={"max_completion_tokens": 9000}), CASES)
    broken = StandIn()
    broken.LLM = lambda **_: (_ for _ in ()).throw(ValueError("no GPU\nmore"))  # type: ignore[assignment,misc]
    install(monkeypatch, broken)
    with pytest.raises(ModelError, match=r"vLLM cannot load .* \(ValueError\): no GPU Ask it without vllm:"):
        LoadedWhenAsked(f"vllm:{folder}", LoadSettings(model=ON_CPU)).generate(CONTRACT, CASES)


def test_an_adapter_on_other_weights_is_refused_before_vllm_loads_them(tmp_path: Path, vllm: StandIn) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    other = save_base(tmp_path / "other", seed=3)
    engine = LoadedWhenAsked(f"vllm:{adapter}", LoadSettings(model=ON_CPU, parent=str(other)))
    with pytest.raises(ModelError, match="was trained on weights"):
        engine.generate(CONTRACT, CASES)
    assert vllm.options == {}
