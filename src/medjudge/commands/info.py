"""`medjudge info`: versions, devices, and what each optional part unlocks."""

from __future__ import annotations

import importlib.util
import os
import platform

from rich.console import Console
from rich.table import Table

from medjudge import artifacts
from medjudge.data.benchmarks import SETS
from medjudge.machine import n_processors
from medjudge.tasks.presets import presets

OPTIONAL: dict[str, tuple[str, str]] = {
    "sentence_transformers": ("embeddings", "sentence-embedding rewards and reasoning alignment; carries its model"),
    "openai": ("endpoints", "models behind OpenAI-compatible endpoints, as judges and as reward judges"),
    "lm_eval": ("bench", "lm-evaluation-harness, for which `medjudge export lm-eval` writes tasks"),
    "bitsandbytes": ("quant", "4-bit and 8-bit base weights (QLoRA); needs a GPU"),
    "vllm": ("vllm", "local judges (`--engine vllm`) and rollouts (`grpo.use_vllm`) with vLLM; needs a GPU"),
    "flash_attn": ("", "FlashAttention 2 (`model.attn_implementation`); install it by its own instructions"),
}


def print_info(console: Console) -> None:
    """Prints three tables: versions, devices, optional parts."""
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
        devices.add_row("gpu", "none: `builtin:tiny` and models up to about 0.5 B parameters train in reasonable time")
    console.print()
    console.print(devices)

    parts = Table(title="Optional parts", title_justify="left", box=None, show_header=False, padding=(0, 2))
    for module, (extra, unlocks) in OPTIONAL.items():
        here = importlib.util.find_spec(module) is not None
        how = "" if here or not extra else f"; [dim]pip install 'medjudge\\[{extra}]'[/]"
        parts.add_row(module, "[green]present[/]" if here else "[dim]missing[/]", unlocks + how)
    console.print()
    console.print(parts)


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
