"""The header of a GGUF file: its settings, and the shape and place of each tensor. Reads no weights and needs no torch.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package's own reader keeps every token as
an array, which takes seconds for a large vocabulary, and does not say where a file that was cut off ends.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medjudge.errors import ModelError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4  # of ggml


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor's shape, in torch's order, and its ggml type."""

    shape: tuple[int, ...]
    ggml_type: int

    @property
    def n_elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself."""

    path: Path
    metadata: Mapping[str, Any]
    """Settings by their full names; of an array of texts only its length."""
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """Such as `llama`; in front of the names of its own settings."""
        return str(self.metadata["general.architecture"])

    def own(self, name: str, default: Any = None) -> Any:
        """A setting of the architecture, such as `block_count`."""
        return self.metadata.get(f"{self.architecture}.{name}", default)

    def first(self, name: str) -> Any:
        """As `own`; of a setting that has one value per layer, the first layer's."""
        value = self.own(name)
        return value[0] if isinstance(value, list) and value else value


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.place, self.order = data, 0, "<"

    def take(self, form: str) -> Any:
        values = struct.unpack_from(self.order + form, self.data, self.place)
        self.place += struct.calcsize(self.order + form)
        return values[0] if len(values) == 1 else values

    def skip_text(self) -> None:
        n = self.take("Q")  # which moves the place
        self.place += n
        if self.place > len(self.data):
            raise ValueError

    def text(self) -> str:
        start = self.place + 8
        self.skip_text()
        return self.data[start : self.place].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.take(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError
        kind, n = self.take("IQ")
        if n > len(self.data):
            raise ValueError
        if kind in _SCALARS:
            values = struct.unpack_from(f"{self.order}{n}{_SCALARS[kind]}", self.data, self.place)
            self.place += struct.calcsize(f"{self.order}{n}{_SCALARS[kind]}")
            return list(values)
        for _ in range(n):
            self.skip_text() if kind == _STRING else self.value(kind)
        return n


def read_header(path: Path) -> GgufHeader:
    """Reads a GGUF file's header and checks that all tensors it names lie in the file.

    Raises ModelError where the file cannot be read, is no GGUF file, is cut off, or holds a kind of tensor that the
    `gguf` package does not know.
    """
    try:
        n_bytes = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(
                    f"{path} does not begin as a GGUF file does, expected one. Name a GGUF file, or a model folder; a "
                    "download that failed can leave another file under this name."
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(path, _Reader(data), n_bytes)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or type(error).__name__}): check it.") from None
    except (ValueError, struct.error, KeyError, OverflowError, MemoryError, RecursionError):
        raise ModelError(
            f"{path} is damaged or cut off in its header, at {n_bytes:,} bytes; expected a whole GGUF file. Fetch it "
            "again."
        ) from None


def _read(path: Path, reader: _Reader, n_bytes: int) -> GgufHeader:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    reader.place = 4
    version = reader.take("I")
    if version > 0xFFFF:  # written on a machine of the other byte order
        reader.order, reader.place = ">", 4
        version = reader.take("I")
    if version not in (2, 3):
        raise ModelError(
            f"{path} is of GGUF version {version}, expected 2 or 3: convert it with a newer llama.cpp, or name another."
        )
    n_tensors, n_settings = reader.take("QQ")
    metadata = {}
    for _ in range(n_settings):
        name = reader.text()
        metadata[name] = reader.value(reader.take("I"))
    if not isinstance(metadata.get("general.architecture"), str):
        raise ModelError(f"{path} names no `general.architecture`, expected one: it holds no language model.")
    if (n_parts := metadata.get("split.count", 1)) > 1:
        raise ModelError(
            f"{path} is one of {n_parts} parts of a model, expected a whole one. Join them with `llama-gguf-split "
            "--merge`, and name the result."
        )
    tensors, end = {}, 0
    for _ in range(n_tensors):
        name, n_dimensions = reader.text(), reader.take("I")
        if not 0 < n_dimensions <= _MAX_DIMENSIONS:
            raise ValueError
        shape = tuple(reader.take("Q") for _ in range(n_dimensions))[::-1]  # ggml has the fastest first
        ggml_type, offset = reader.take("IQ")
        try:
            block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(ggml_type)]
        except (KeyError, ValueError):
            raise ModelError(
                f"{path} holds a tensor of ggml type {ggml_type}, which the installed `gguf` package does not know. "
                "Name a file of a common kind, such as Q8_0 or Q4_K_M."
            ) from None
        tensors[name] = GgufTensor(shape, ggml_type)
        end = max(end, offset + math.prod(shape) // block * block_bytes)
    alignment = metadata.get("general.alignment", 32)
    end += -(-reader.place // alignment) * alignment
    if end > n_bytes:
        raise ModelError(
            f"{path} is cut off: it has {n_bytes:,} bytes, expected at least {end:,} by its header. Fetch it again."
        )
    return GgufHeader(path, metadata, tensors)
