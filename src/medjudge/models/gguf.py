"""A GGUF file as a plain model folder: converted once into the user's cache, under the file's hash.

transformers reads a GGUF file's weights as float32 numbers, but saves no model that it read so, and reading takes
longer than it should at each start. The folder in the cache is like any other: training, adapters and servers take it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.utils import logging as transformers_logging

from medjudge import artifacts
from medjudge.errors import ModelError
from medjudge.files import file_stamp, remove, sha256_file, shared_files, write_failure
from medjudge.models.gguf_config import ROPE_TENSORS, corrected
from medjudge.models.gguf_header import GgufHeader, read_header
from medjudge.models.sources import CACHE_VARIABLE, CONVERTER, NOTE, cache_dir, converted, converted_name, gguf_sha256
from medjudge.network import offline

log = logging.getLogger(__name__)

_SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Values of `tokenizer.ggml.pre` whose vocabularies were learnt on single digits, which transformers 5.23 does not
know: https://github.com/ggml-org/llama.cpp, src/llama-vocab.cpp, `LLAMA_VOCAB_PRE_TYPE_SMOLLM` and its neighbours."""
_AS_GPT2 = ("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "jina-es", "jina-de", "jina-v1-en", "roberta-bpe")
"""Those that split as GPT-2 does, which transformers takes wherever it knows nothing else; source as above."""
WAIT_S = 5.0
"""After so long a process says that it waits for another one's conversion."""


def model_folder(path: Path) -> Path:
    """The model folder of a GGUF file, converted now if it was not before.

    Of several processes one converts and the others wait. Raises ModelError where the file cannot be read or the cache
    cannot be written; then the cache holds nothing of it.
    """
    digest = gguf_sha256(path)
    if (folder := converted(digest)) is not None:
        return folder
    header = read_header(path)  # before anything is written
    place = cache_dir() / "gguf" / converted_name(digest)
    try:
        with shared_files():
            place.parent.mkdir(parents=True, exist_ok=True)
            with _locked(place, path):
                if (folder := converted(digest)) is not None:
                    return folder
                # Under the lock nobody else writes here: what lies here is of a process that was killed.
                for left in (place, *place.parent.glob(f".{place.name}.*")):
                    remove(left)
                with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as work:
                    _convert(header, digest, Path(work) / "model")
                    (Path(work) / "model").rename(place)
    except ModelError:
        raise
    except Exception as error:  # safetensors and torch have their own types for a full disk
        if (reason := write_failure(error)) is not None:
            raise ModelError(f"{path} cannot be converted: {reason} {_ELSEWHERE}") from None
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
            raise ModelError(
                f"{path} cannot be converted: {cache_dir()} cannot be written ({reason}), expected a folder for "
                f"converted models. {_ELSEWHERE}"
            ) from None
        raise
    return place


_ELSEWHERE = f"{CACHE_VARIABLE} names another folder for converted models."


@contextlib.contextmanager
def _locked(place: Path, path: Path) -> Iterator[None]:
    lock = FileLock(place.with_name(f"{place.name}.lock"))  # the kernel frees it where its holder dies
    try:
        lock.acquire(timeout=WAIT_S)
    except Timeout:
        log.info(f"{path.name}: waiting for another process, which converts it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _convert(header: GgufHeader, digest: str, out: Path) -> None:
    path, started_s = header.path, time.monotonic()
    n_bytes = 4 * sum(tensor.n_elements for tensor in header.tensors.values())
    log.info(f"converting {path.name} once, {n_bytes / 2**30:.1f} GiB into {cache_dir()}")
    config, tokenizer = read_config(header), read_tokenizer(header)
    model = _read_model(header, config)
    with _quiet():
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    files = {}
    for one in sorted(out.iterdir()):
        with one.open("rb") as file:
            os.fsync(file.fileno())
        files[one.name] = [*file_stamp(one), sha256_file(one)]
    note = {"converter": CONVERTER, "gguf": path.name, "gguf_sha256": digest, "gguf_bytes": path.stat().st_size}
    artifacts.write_json(out / NOTE, {**note, "versions": artifacts.package_versions(), "files": files}, private=False)
    log.info(f"converted {path.name} in {time.monotonic() - started_s:.0f} s")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[dict[str, Any]]:
    """The arguments by which transformers reads the file: in a folder of its own, so that no file beside it is read."""
    with offline(), tempfile.TemporaryDirectory() as folder, _quiet():
        (Path(folder) / "model.gguf").symlink_to(path.resolve())
        yield {
            "pretrained_model_name_or_path": folder,
            "gguf_file": "model.gguf",
            "local_files_only": True,
        }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No advice and no bars of transformers, one of which no setting turns off."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(level)


def read_config(header: GgufHeader) -> Any:
    """The transformers configuration of a GGUF file. Raises ModelError where transformers does not read its kind."""
    try:
        with _alone(header.path) as where:
            config = AutoConfig.from_pretrained(**where, trust_remote_code=False)
            with torch.device("meta"):
                AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # KeyError, ValueError, NotImplementedError, and what a configuration refuses
        raise ModelError(
            f"{header.path} is a model of architecture {header.architecture!r}, which transformers does not read as a "
            f"language model out of GGUF ({type(error).__name__}), expected one that it does, such as llama, qwen3, "
            "phi3 or gemma3. Take the model as `save_pretrained` wrote it, a folder or a hub id."
        ) from None
    return corrected(config, header)


def read_tokenizer(header: GgufHeader) -> Any:
    """The tokenizer of a GGUF file with its chat template, which may be None. Raises ModelError if it has none."""
    try:
        with _alone(header.path) as where:
            tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:
        kind = header.metadata.get("tokenizer.ggml.model")
        raise ModelError(
            f"cannot read a tokenizer from {header.path} ({type(error).__name__}), which names one of kind {kind!r}: "
            "expected one that transformers reads. Take the model as `save_pretrained` wrote it, a folder or a hub id."
        ) from None
    rule = header.metadata.get("tokenizer.ggml.pre")
    if rule in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif header.metadata.get("tokenizer.ggml.model") == "gpt2" and rule not in (*GGUF_PRE_TOKENIZER_SPLITS, *_AS_GPT2):
        log.warning(
            f"{header.path.name} splits text into words by a rule, {rule!r}, that transformers does not know: GPT-2's "
            "is taken. Where the model learned another, it sees some words in other pieces than it knows."
        )
    return tokenizer


def _read_model(header: GgufHeader, config: Any) -> Any:
    """The model in float32, as one that may be saved. Raises ModelError unless its weights are those of the file."""
    try:
        with _alone(header.path) as where:
            model, report = AutoModelForCausalLM.from_pretrained(
                **where, config=config, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
            )
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(
            f"cannot read the weights of {header.path} ({type(error).__name__}): they are not those of a "
            f"{header.architecture} model as its settings describe it. Take the model as `save_pretrained` wrote it."
        ) from None
    n_file = sum(tensor.n_elements for name, tensor in header.tensors.items() if name not in ROPE_TENSORS)
    n_model = sum(parameter.numel() for parameter in model.parameters())
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing or n_file != n_model:
        raise ModelError(
            f"{header.path} holds {n_file:,} weights, but transformers' {type(model).__name__} has {n_model:,} of this "
            f"shape{f', {missing[0]} among those that the file lacks' if missing else ''}: expected the same ones. "
            "Take the model as `save_pretrained` wrote it."
        )
    # transformers refuses to save what it read from GGUF; the same tensors in a model made of the configuration alone.
    values = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    with torch.device("meta"):
        plain = type(model)(type(model.config)(**values))
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain
