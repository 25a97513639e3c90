"""`medjudge info`: versions, devices, and what each optional part unlocks."""

from __future__ import annotations

import importlib.util
import os
import platform

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medjudge import artifacts
from medjudge.data.benchmarks import SETS
from medjudge.errors import ModelError
from medjudge.machine import n_processors
from medjudge.models.sources import CACHE_VARIABLE, SMOLLM_HOW, SMOLLM_HUB, SMOLLM_WHEEL, cache_dir, local_model
from medjudge.settings.model import SCRATCH_BASE, SMOLLM_BASE
from medjudge.tasks.presets import presets

OPTIONAL: dict[str, tuple[str, str]] = {
    "sentence_transformers": ("embeddings", "sentence-embedding rewards and reasoning alignment; carries its model"),
    "openai": ("endpoints", "models behind OpenAI-compatible endpoints, as judges and as reward judges"),
    "lm_eval": ("bench", "lm-evaluation-harness, for which `medjudge export lm-eval` writes tasks"),
    "bitsandbytes": ("quant", "4-bit and 8-bit base weights (QLoRA); needs a GPU"),
    "vllm": ("vllm", "local judges (`--engine vllm`) and rollouts (`grpo.use_vllm`) with vLLM; needs a GPU"),
    "flash_attn": ("", "FlashAttention 2 (`model.attn_implementation`); install it by its own instructions"),
}


def _base_row() -> tuple[str, str]:
    """Whether the built-in base is at hand, and how to get it where it is not."""
    try:
        local = local_model(SMOLLM_BASE)
    except ModelError as error:
        return "[yellow]damaged[/]", escape(str(error))
    if local.gguf is not None:
        state = "converted" if local.folder is not None else "is converted at its first use, once"
        return "[green]present[/]", f"SmolLM2-135M-Instruct, from the wheel {SMOLLM_WHEEL}; {state}"
    if local.folder is not None:
        return "[green]present[/]", f"{SMOLLM_HUB}, in the hub's cache"
    return "[dim]missing[/]", f"{SMOLLM_HOW}; or let this machine reach the hub for {SMOLLM_HUB}"


def print_info(console: Console) -> None:
    """Prints four tables: versions, devices, optional parts, built-in models."""
    versions = Table(title="Versions", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for name, version in artifacts.package_versions().items():
        versions.add_row(name, version)
    console.print(versions)

    import torch

    devices = Table(title="Devices", title_justify="left", box=None, show_header=False, padding=(0, 2))
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    usable = f", of which this process may use {n}" if (n := n_processors()) != os.cpu_count() else ""
    devices.add_row("cpu", f"{platform.machine()}, {os.cpu_count()} cores{usable}, {memory_gb:.0f} GiB memory")
    threads = os.environ.get("OMP_NUM_THREADS")
    chosen = f"{threads} (OMP_NUM_THREADS)" if threads else "as many as are fastest, measured before each stage"
    devices.add_row("threads", chosen)
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        devices.add_row(f"cuda:{i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        devices.add_row(
            "gpu", f"none: `{SMOLLM_BASE}` and models up to about 0.5 B parameters train in reasonable time"
        )
    console.print()
    console.print(devices)

    parts = Table(title="Optional parts", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for module, (extra, unlocks) in OPTIONAL.items():
        here = importlib.util.find_spec(module) is not None
        how = "" if here or not extra else f"; [dim]pip install 'medjudge\\[{extra}]'[/]"
        parts.add_row(module, "[green]present[/]" if here else "[dim]missing[/]", unlocks + how)
    console.print()
    console.print(parts)

    bases = Table(title="Built-in models", title_justify="left", box=None, show_header=False, padding=(0, 2))
    bases.add_row(SMOLLM_BASE, *_base_row())
    bases.add_row(SCRATCH_BASE, "[green]present[/]", "built from nothing by the base stage")
    bases.add_row("cache", "", f"{escape(str(cache_dir()))} ({CACHE_VARIABLE})")
    console.print()
    console.print(bases)


def print_benchmark_sets(console: Console) -> None:
    """The benchmark's sets with source and licence, and the rubrics by name."""
    table = Table(title="Sets of the rubric-judge benchmark", title_justify="left", caption_justify="left")
    table.caption = (
        "* the published suite (Flow-Judge-v0.1), judged where nothing else is asked for. Other sources: "
        "--data NAME=PATH, a file or, for RAGTruth, the folder of its two files."
    )
    for head in ("set", "what it is", "points", "rows", "source", "licence"):
        table.add_column(head, justify="right" if head in ("points", "rows") else "left", overflow="fold")
    for name, one in SETS.items():
        table.add_row(
            name + (" *" if one.is_published else ""),
            one.title,
            str(one.points),
            "" if one.n_rows is None else f"{one.n_rows:,}",
            one.source or "a local copy",
            one.licence,
        )
    console.print(table)
    console.print()
    console.print(f"Rubrics for --rubric and `task.preset`: {', '.join(presets())}.")
