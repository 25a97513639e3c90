"""Which modules of a model an adapter goes to: checked before anything is trained, on a model without weights.

PEFT takes a list of names as long as one of them fits, TRL refuses an adapter on the output head when its trainer is
built, and an adapter on one of two tied matrices shows when it is merged. All three can be known from the model's
configuration alone.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from medjudge.errors import ConfigError, did_you_mean
from medjudge.models.gguf import read_config
from medjudge.models.gguf_header import read_header
from medjudge.models.load import refuse_own_code
from medjudge.models.scratch import shape_of
from medjudge.models.sources import local_model
from medjudge.settings.model import SCRATCH_BASE, LoraSettings, ModelConfig
from medjudge.settings.training import BaseConfig

ADAPTABLE = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, Conv1D)
"""Kinds of modules that PEFT's LoRA has a layer for; quantised linear layers are subclasses of `nn.Linear`."""


def lora_config(lora: LoraSettings) -> LoraConfig:
    """PEFT's configuration of our adapter settings."""
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
        use_rslora=lora.rslora,
        task_type=TaskType.CAUSAL_LM,
    )


def skeleton(folder: Path) -> Any | None:
    """The model of a folder's config.json on torch's meta device: every module and shape, no weights.

    None where transformers cannot read the configuration: what loads the model says what is wrong with its folder.
    Raises ModelError for a model that needs program code of its own.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        refuse_own_code(folder, error)
        return None


def base_skeleton(model: ModelConfig, base: BaseConfig) -> Any | None:
    """The skeleton of the model that `[model]` names; None where its configuration is not on this machine.

    base: the shape of `builtin:scratch`. Downloads nothing.
    """
    if model.base == SCRATCH_BASE:
        from transformers import Qwen3ForCausalLM

        with torch.device("meta"):
            return Qwen3ForCausalLM(shape_of(base, base.vocab_size))
    local = local_model(model.base, model.revision)
    if local.folder is not None:
        return skeleton(local.folder)
    return gguf_skeleton(local.gguf) if local.gguf is not None else None


def gguf_skeleton(path: Path) -> Any:
    """As `skeleton`, of a GGUF file that is not converted yet. Raises ModelError where it cannot be read."""
    config = read_config(read_header(path))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def check_targets(model: Any, lora: LoraSettings, key: str, *, name: str, head_is_read_directly: bool) -> None:
    """Raises ConfigError, naming the recipe's `key`, for a target that `model`, a skeleton called `name`, cannot adapt.

    head_is_read_directly: TRL multiplies by the head's weight itself, and an adapter on the head would never be asked.
    """
    # Our checks before PEFT's: it accepts a list as soon as one name fits, and says nothing of the others.
    modules = dict(model.named_modules())
    if not isinstance(lora.target_modules, str):
        for target in lora.target_modules:
            matched = {path: modules[path] for path in modules if _matches(path, target)}
            if not matched:
                raise ConfigError(f"`{key}` {_names_nothing(target, model, name)}")
            if partner := _tied_partner(matched, model):
                raise ConfigError(
                    f"`{key}` names `{target}`, but {name} has `tie_word_embeddings = true`: {' and '.join(partner)} "
                    "are one matrix. An adapter on one of them cannot be merged without changing the other: expected "
                    f'neither. Take `{target}` out of the list; "all-linear" leaves both alone.'
                )
            if odd := {path: m for path, m in matched.items() if not isinstance(m, ADAPTABLE)}:
                raise ConfigError(f"`{key}` {_cannot_be_adapted(target, odd)}")
            if head_is_read_directly and any(m is model.get_output_embeddings() for m in matched.values()):
                raise ConfigError(
                    f"`{key}` names `{target}`, the output layer of {name}. TRL computes log-probabilities from its "
                    "weight directly, so an adapter on it would never be trained: expected other layers. Take "
                    f"`{target}` out of the list."
                )
    _try(model, lora, key)


def adapter_parameters(model: Any, lora: LoraSettings) -> int:
    """Parameters of the adapter: r x (in + out) for every module that it goes to."""
    peft_model = _with_adapter(model, lora)
    return sum(p.numel() for p in peft_model.parameters() if p.requires_grad)


def _with_adapter(model: Any, lora: LoraSettings) -> Any:
    # A copy, since PEFT changes the model that it is given; on the meta device it costs no memory.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(copy.deepcopy(model), lora_config(lora))


def _try(model: Any, lora: LoraSettings, key: str) -> None:
    """PEFT has the last word: some kinds of models have rules of their own."""
    try:
        _with_adapter(model, lora)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"`{key.rpartition('.')[0]}` with target_modules {_shown(lora)} is refused by PEFT for this model: {first} "
            'Expected modules that LoRA has a layer for: take other ones, or "all-linear".'
        ) from None


def _shown(lora: LoraSettings) -> str:
    return lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)


def _matches(path: str, target: str) -> bool:
    """PEFT's rule for a list: the whole path, or its end from a dot on."""
    return path == target or path.endswith(f".{target}")


def _last(paths: Iterable[str]) -> list[str]:
    return sorted({path.rpartition(".")[2] for path in paths})


def _names_nothing(target: str, model: Any, name: str) -> str:
    head = model.get_output_embeddings()
    known = _last(
        path for path, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head and path
    )
    hint = did_you_mean(target.rpartition(".")[2], known)
    return (
        f"names `{target}`{hint}, which is no module of {name}.Expected one of "
        f"its linear layers: {', '.join(known)}. Name one of these. Names are taken as they stand, not as patterns; "
        '"all-linear" takes all of them.'
    )


def _cannot_be_adapted(target: str, odd: Mapping[str, nn.Module]) -> str:
    path, module = next(iter(odd.items()))
    inside = _last(sub for sub, m in module.named_modules() if isinstance(m, nn.Linear | Conv1D) and sub)
    advice = f"Name what is inside it: {', '.join(inside)}." if inside else "Take it out of the list."
    return (
        f"names `{target}`, but `{path}` is a {type(module).__name__}, which LoRA has no layer for: it adapts linear "
        f"layers, embeddings and convolutions. {advice}"
    )


def _tied_partner(matched: Mapping[str, nn.Module], model: Any) -> list[str]:
    """The paths of the modules that share one matrix where a matched module is among them; [] where none is."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter):
            owners.setdefault(id(weight), []).append(path)
    for module in matched.values():
        paths = owners.get(id(getattr(module, "weight", None)), [])
        if len(paths) > 1:
            return [f"`{path}`" for path in paths]
    return []
