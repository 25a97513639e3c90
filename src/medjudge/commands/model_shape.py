"""What a plan knows of a model without its weights: parameters, widths, and the memory that a training takes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge.errors import ConfigError, MedjudgeError
from medjudge.models.gguf_header import read_header
from medjudge.models.sources import hub_id, local_model
from medjudge.recipe import Recipe
from medjudge.settings.model import SCRATCH_BASE
from medjudge.settings.training import BaseConfig

_PLAIN_LAYERS = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text", "smollm3")
"""Model types whose layers hold no matrices but those of linear layers."""
_PLAIN_LAYERS_GGUF = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a plan needs to know of a model, without its weights."""

    n_parameters: int
    hidden_size: int
    n_layers: int
    vocab_size: int
    linear_width: int = 0
    """Inputs and outputs of all linear layers but the head, which an adapter on all of them multiplies by its rank; 0
    where it is not known."""


def base_folder(recipe: Recipe) -> Path:
    """Where the base's configuration and tokenizer lie. Of a model on the hub only these are fetched, no weights.
    Not for a GGUF file, which holds both."""
    from medjudge.models.load import resolve

    base = hub_id(recipe.model.base)
    if Path(base).exists() or base.count("/") != 1 or Path(base).parent.is_dir():
        return resolve(base, recipe.model.revision)
    from huggingface_hub import snapshot_download

    from medjudge.network import hub_access

    patterns = ["*.json", "*.model", "*.txt", "*.jinja"]
    try:
        with hub_access():
            return Path(snapshot_download(base, revision=recipe.model.revision, allow_patterns=patterns))
    except Exception as error:  # as in `resolve`: some twenty types, all meaning that it cannot be had
        raise ConfigError(
            f"cannot get {base!r} from the hub ({type(error).__name__}), expected a model there: check the name and "
            "the network, or name a folder"
        ) from None


def known_shape(recipe: Recipe, tokenizer: Any) -> ModelShape | None:
    """The shape of a base that is built from nothing or lies in a folder; None where a library has to be asked."""
    if recipe.model.base == SCRATCH_BASE:
        return None if tokenizer is None else scratch_shape(recipe.base, len(tokenizer))
    local = local_model(recipe.model.base, recipe.model.revision)
    if local.gguf is not None:
        return gguf_shape(local.gguf)
    folder = local.folder or Path(recipe.model.base)
    weights = folder / "model.safetensors"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in config:  # whether transformers can load it without the folder's own code, it has to say
            return None
        with weights.open("rb") as file:  # 8 bytes of length, then JSON: https://github.com/huggingface/safetensors
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        if any(tensor["dtype"] not in ("F32", "F16", "BF16") for tensor in tensors):
            return None
        n_all = sum(math.prod(tensor["shape"]) for tensor in tensors)
        width = 0
        if config.get("model_type") in _PLAIN_LAYERS:
            width = sum(
                sum(tensor["shape"])
                for name, tensor in header.items()
                if ".layers." in name and name.endswith(".weight") and len(tensor["shape"]) == 2
            )
        return ModelShape(n_all, config["hidden_size"], config["num_hidden_layers"], config["vocab_size"], width)
    except (OSError, ValueError, KeyError, TypeError, MemoryError):
        return None


def gguf_shape(path: Path) -> ModelShape:
    """The shape of a GGUF file's model, of its header alone. Raises ModelError where that cannot be read."""
    header = read_header(path)
    inside = [tensor.shape for name, tensor in header.tensors.items() if name.startswith("blk.")]
    embeddings = header.tensors.get("token_embd.weight")
    return ModelShape(
        sum(tensor.n_elements for tensor in header.tensors.values()),
        header.first("embedding_length"),
        header.first("block_count"),
        embeddings.shape[0] if embeddings is not None else 0,
        sum(sum(shape) for shape in inside if len(shape) == 2) if header.architecture in _PLAIN_LAYERS_GGUF else 0,
    )


def scratch_shape(config: BaseConfig, n_tokens: int) -> ModelShape:
    """The shape of `builtin:scratch` for a tokenizer of `n_tokens` tokens, as `training.language_model` builds it."""
    width, vocab_size = config.hidden_size, -(-n_tokens // 64) * 64
    head = width // config.n_heads
    n_kv = max(1, config.n_heads // 2)
    attention = 2 * width * config.n_heads * head + 2 * width * n_kv * head + 2 * head
    layer = attention + 3 * width * config.intermediate_size + 2 * width
    return ModelShape(vocab_size * width + config.n_layers * layer + width, width, config.n_layers, vocab_size)


def model_without_weights(recipe: Recipe, tokenizer: Any) -> tuple[Any, str | None]:
    """(the model without weights, why not)."""
    import torch

    from medjudge.models.adapters import gguf_skeleton, skeleton

    if recipe.model.base == SCRATCH_BASE:
        from medjudge.training.language_model import build_model

        with torch.device("meta"):
            return build_model(recipe.base, tokenizer, recipe.seed), None
    local = local_model(recipe.model.base, recipe.model.revision)
    if local.gguf is not None and local.folder is None:
        return gguf_skeleton(local.gguf), None
    try:
        folder = local.folder or base_folder(recipe)
    except MedjudgeError:
        return None, "base not at hand"
    model = skeleton(folder)
    return model, None if model is not None else "base not at hand"


def memory_words(recipe: Recipe, stage: str, shape: ModelShape, n_trained: int, width: float) -> str:
    """Weights, gradients, AdamW states and activations of one micro-batch: a planning figure, not a measurement.

    Activations per layer and token: about 34 hidden sizes of 2 bytes without checkpointing (Korthikanti et al. 2022,
    arXiv:2205.05198, table 2, the part that is linear in length), 2 hidden sizes with it; logits are chunked by TRL.
    """
    config = recipe.sft if stage == "sft" else recipe.grpo
    has_reference = (
        stage == "grpo" and config.tuning == "full" and recipe.grpo.kl_coef > 0 and recipe.grpo.algorithm == "grpo"
    )
    bytes_each = 4 if recipe.model.dtype in ("auto", "float32") and is_on_cpu(recipe) else 2
    quantised = {"none": bytes_each, "8bit": 1, "4bit": 0.55}[recipe.model.quantization]
    n_all = shape.n_parameters
    weights = n_all * (quantised if n_trained < n_all else bytes_each) * (2 if has_reference else 1)
    states = n_trained * (bytes_each + 8)
    per_token = (4 if recipe.model.gradient_checkpointing else 17 * bytes_each) * shape.hidden_size
    tokens = config.micro_batch * width
    activations = tokens * per_token * shape.n_layers + tokens * shape.vocab_size * bytes_each * 0.1
    gib = (weights + states + activations) / 2**30
    return f"{gib:.1f} GiB" if gib >= 0.1 else "< 0.1 GiB"


def is_on_cpu(recipe: Recipe) -> bool:
    """Whether the run would compute on the CPU; torch is asked only where there may be a GPU."""
    if recipe.model.device is not None:
        return recipe.model.device.startswith("cpu")
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")):
        return True
    from medjudge.machine import pick_device

    return pick_device(None).type == "cpu"
