"""What the CPU benchmarks measure, at the real shapes on a GPU: GRPO step, evaluation, memory. Random weights in bf16.

    python benchmarks/gpu.py                                  # Qwen3-0.6B, Phi-3.5-mini and Llama-3.1-8B
    python benchmarks/gpu.py --models qwen3-0.6b --rounds 3
    python benchmarks/gpu.py --device cpu --models 5m --small --rounds 1     # that the program runs, without a GPU

Each model: a GRPO step of stock TRL beside ours (`grpo_step.py`, processes of their own, peak memory of tensors on the
device), then greedy evaluation one row at a time, in batches of `generate`, and by our engine. First of all it proves
that decoding never waits for the GPU between two looks at which rows are done.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from transformers import GenerationConfig

from grpo_step import STOP_ID, Shape, build_model, draw, measure, peak_mb, show
from medjudge.inference.prefix import read_prompts
from medjudge.inference.rollouts import GPU_CHECK_EVERY, Sampling, _Decoding, roll_out
from medjudge.models.load import quiet_libraries
from side_by_side import arguments, in_turn, machine, report, write

MODELS = ("qwen3-0.6b", "phi-3.5-mini", "llama-3.1-8b")
SHAPES = [Shape(400, 8, 40, 4), Shape(1600, 16, 40, 2), Shape(1600, 8, 200, 2), Shape(400, 16, 4, 4)]
SMALL = [Shape(60, 4, 6, 2)]


def main() -> None:
    """Measures every model asked for."""
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--cases", type=int, default=64, help="prompts of the evaluation")
    parser.add_argument("--small", action="store_true", help="shapes of a few tokens")
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    console = Console(width=140)
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else machine()["cpu"]
    console.print(f"{where}, torch {torch.__version__}")
    for name in options.models:
        step(name, where, options, console)
        evaluation(name, where, options)
        gc.collect()
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()


def step(name: str, where: str, options: argparse.Namespace, console: Console) -> None:
    """A GRPO step of both trainers on each shape."""
    settings = argparse.Namespace(
        **vars(options) | {"model": name, "beta": 0.0, "checkpointing": "off", "limit_gb": 0.0, "limit_s": 900.0}
    )
    rows = [measure(shape, settings, console) for shape in (SMALL if options.small else SHAPES)]
    title = f"GRPO step, {name} with random weights, LoRA r 16, {options.dtype}, {where}"
    show(title, rows, console)
    write(f"gpu_grpo_{name}", options.out, {"title": title, "device": where, "rows": rows})
    draw(rows, options.out / f"gpu_grpo_{name}.png", clock="wall_s")


def evaluation(name: str, where: str, options: argparse.Namespace) -> None:
    """Greedy completions of fixed length for prompts that begin alike: a system text, then the case."""
    n_shared, n_own, n_new = (20, 10, 4) if options.small else (300, 200, 64)
    model = build_model(name, options.dtype, options.device).eval()
    shared = torch.randint(3, 4000, (n_shared,)).tolist()
    # The same length throughout: padding would be a gain of ours that ragged rows have and this comparison has not.
    prompts = [shared + torch.randint(3, 4000, (n_own,)).tolist() for _ in range(options.cases)]
    config = GenerationConfig(
        max_new_tokens=n_new, do_sample=False, eos_token_id=STOP_ID, pad_token_id=0, suppress_tokens=[0, 1, STOP_ID]
    )
    greedy = Sampling(greedy=True, suppress=(0, 1, STOP_ID))

    def generate(size: int) -> None:
        for start in range(0, len(prompts), size):
            ids = torch.tensor(prompts[start : start + size], device=options.device)
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        wait(options.device)

    def ours() -> None:
        roll_out(model, prompts, sampling=greedy, stop_ids=[STOP_ID], max_new_tokens=n_new, batch_tokens=65536)
        wait(options.device)

    with torch.inference_mode():
        generate(8)
        ours()
        proven = never_waits(model, prompts[:4], greedy) if options.device.startswith("cuda") else "no GPU: not tried"
        arms: dict[str, Callable[[], Any]] = {
            "one at a time": lambda: generate(1),
            "generate, batches of 16": lambda: generate(16),
            f"generate, batches of {len(prompts)}": lambda: generate(len(prompts)),
            "medjudge": ours,
        }
        taken = in_turn(arms, options.rounds)
    report(
        f"gpu_evaluate_{name}",
        f"Greedy evaluation, {name} with random weights, {options.dtype}, {where}",
        taken,
        "one at a time",
        per_round=len(prompts),
        unit="cases",
        out=options.out,
        facts={
            "prompts": f"{len(prompts)} of {n_shared + n_own} tokens, {n_shared} of them in common, {n_new} new tokens",
            "decoding waits for the GPU": proven,
            "peak MB": round(peak_mb(options.device)),
        },
    )


def wait(device: str) -> None:
    """Until the GPU is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def never_waits(model: Any, prompts: list[list[int]], sampling: Sampling) -> str:
    """Decodes between two looks while torch raises on whatever makes the host wait."""
    read = read_prompts(model, prompts)
    slots = [0, 0, 1, 1, 2, 2, 3, 3]
    n_new = GPU_CHECK_EVERY
    decoding = _Decoding(model, read, prompts, slots, sampling, [STOP_ID], n_new, torch.rand(len(slots), n_new))
    torch.cuda.set_sync_debug_mode("error")
    try:
        decoding.decode()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "never"


if __name__ == "__main__":
    main()
