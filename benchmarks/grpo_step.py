"""A GRPO step of stock TRL beside a grouped one: seconds, and peak memory of each in a process of its own.

    python benchmarks/grpo_step.py             # the acceptance point: 29 M parameters, prompt 400, G 8, completion 40
    python benchmarks/grpo_step.py --sweep     # one axis at a time around it
    python benchmarks/grpo_step.py --growth    # cost against G * C + P and against G * (P + C), up to where stock stops
    python benchmarks/grpo_step.py --quick     # the short form: a small model, three shapes

Both trainers run in processes of their own and take turns step by step, so that whatever else the machine does falls on
both alike. Stop tokens are forbidden to both, so every completion has its full length. Both get the same model, LoRA
r 16, micro-batches of one group, float32 and no gradient checkpointing (TRL's own default has it on, which is slower:
`--checkpointing both` gives it to both, `--checkpointing stock` leaves each its own default).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from side_by_side import Timed, arguments, ratio, write

ARMS = ("stock", "grouped")
LABELS = {"stock": "stock TRL", "grouped": "medjudge"}
COLOURS = {"stock": "#bbbbbb", "grouped": "#33658a"}
STOP_ID = 2


@dataclass(frozen=True)
class Shape:
    """Tokens of a prompt and of a completion, completions per prompt, prompts per step."""

    prompt: int
    group: int
    completion: int
    prompts: int = 1

    def __str__(self) -> str:
        """As tables show it."""
        return f"P {self.prompt}  G {self.group}  C {self.completion}  x{self.prompts}"


ACCEPTANCE = Shape(400, 8, 40, prompts=4)
QUICK = [Shape(100, 4, 8), Shape(400, 8, 20), Shape(800, 8, 4)]
SWEEP = {
    "prompt": [Shape(p, 8, 40) for p in (100, 400, 800, 1600)],
    "group": [Shape(400, g, 40) for g in (4, 8, 16)],
    "completion": [Shape(400, 8, c) for c in (2, 40, 200)],
}
CORNERS = [Shape(100, 4, 200), Shape(1600, 16, 2)]
GROWTH = [
    *[Shape(800, g, 20) for g in (2, 4, 8, 16, 32)],
    *[Shape(p, 8, 20) for p in (200, 400, 1600, 3200)],
    *[Shape(400, 8, c) for c in (2, 80, 160)],
]


# --- one trainer, in a process of its own -----------------------------------------------------------------------------


def build_model(name: str, dtype: str, device: str) -> Any:
    """A model of a published shape with random weights."""
    from transformers import (
        AutoModelForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        Phi3Config,
        Phi3ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    def qwen3(vocab: int, hidden: int, inner: int, layers: int, heads: int, kv: int, head_dim: int) -> Any:
        return Qwen3ForCausalLM, Qwen3Config(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv,
            head_dim=head_dim,
            max_position_embeddings=40960,
            tie_word_embeddings=True,
        )

    def phi3() -> Any:
        return Phi3ForCausalLM, Phi3Config(
            vocab_size=32064,
            hidden_size=3072,
            intermediate_size=8192,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=32,
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            sliding_window=262144,
            pad_token_id=0,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 48,
                "long_factor": [2.0] * 48,
                "original_max_position_embeddings": 4096,
            },
        )

    def llama() -> Any:
        return LlamaForCausalLM, LlamaConfig(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            max_position_embeddings=131072,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        )

    shapes = {
        "5m": lambda: qwen3(4096, 256, 768, 4, 4, 2, 64),
        "29m": lambda: qwen3(8192, 512, 1536, 8, 8, 4, 64),
        "qwen3-0.6b": lambda: qwen3(151936, 1024, 3072, 28, 16, 8, 128),
        "phi-3.5-mini": phi3,
        "llama-3.1-8b": llama,
    }
    torch.manual_seed(0)
    if Path(name).is_dir():
        model = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, dtype))
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = STOP_ID, 0
        return model
    model_class, config = shapes[name]()
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, None, STOP_ID
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            model = model_class(config)
        finally:
            torch.set_default_dtype(before)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = STOP_ID, 0
    return model


def peak_mb(device: str) -> float:
    """Most memory that this process has held so far, in MB; on a GPU, of tensors there."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


class Clock:
    """Wall and CPU seconds, waiting for the GPU where there is one."""

    def __init__(self, device: str) -> None:
        """`device`: as torch names it."""
        self.is_gpu = device.startswith("cuda")

    def now(self) -> np.ndarray:
        """(wall, CPU) since some moment."""
        if self.is_gpu:
            torch.cuda.synchronize()
        return np.array([time.perf_counter(), time.process_time()])


def work(options: argparse.Namespace) -> None:
    """Trains step by step: each waits for a line on stdin and answers with a line of JSON."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from medjudge.machine import prepare_process
    from medjudge.models.load import quiet_libraries
    from medjudge.models.scratch import build_tokenizer
    from medjudge.settings.model import ModelConfig
    from medjudge.training.grouped import GroupedGrpoTrainer

    if options.worker == "grouped":
        prepare_process()
    quiet_libraries()
    torch.set_num_threads(options.threads)
    if options.limit_gb:
        limit = int(options.limit_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    shape = Shape(*map(int, options.shape.split(",")))
    clock = Clock(options.device)
    rollout = np.zeros(2)
    rng = np.random.default_rng(0)
    ids_of: dict[str, list[int]] = {}

    def prompt_ids(text: str) -> list[int]:
        if text not in ids_of:
            ids_of[text] = rng.integers(3, 4000, shape.prompt).tolist()
        return ids_of[text]

    class Timing(GroupedGrpoTrainer if options.worker == "grouped" else GRPOTrainer):  # type: ignore[misc]
        """The trainer with made-up prompts and a watch on its rollouts."""

        def _tokenize_prompts(self, prompts: list[str]) -> Any:
            return [prompt_ids(text) for text in prompts], None, {}

        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal rollout
            start = clock.now()
            drawn = super()._generate_single_turn(*args, **kwargs)
            rollout = clock.now() - start
            assert all(len(ids) == shape.completion for ids in drawn[0])
            return drawn

    class Turns(TrainerCallback):
        """Waits for its turn before each step, and tells what the step took."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            sys.stdin.readline()
            self.start = clock.now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wall, cpu = clock.now() - self.start
            answer = {"wall_s": wall, "cpu_s": cpu, "rollout_wall_s": rollout[0], "rollout_cpu_s": rollout[1]}
            say({**answer, "peak_mb": peak_mb(options.device)})

    def say(tree: dict[str, Any]) -> None:
        print("@" + json.dumps(tree), flush=True)

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(sum(ids) % 11) for ids in completion_ids]

    is_cpu = options.device == "cpu"
    is_auto = options.dtype == "auto"
    model = build_model(options.model, "float32" if is_auto else options.dtype, options.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Timing(
            model=model,
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=folder,
                max_steps=options.steps,
                per_device_train_batch_size=shape.group,
                gradient_accumulation_steps=shape.prompts,
                steps_per_generation=shape.prompts,
                num_generations=shape.group,
                max_completion_length=shape.completion,
                generation_kwargs={"suppress_tokens": [0, 1, STOP_ID]},
                beta=options.beta,
                gradient_checkpointing=options.checkpointing == "both",
                learning_rate=1e-5,
                use_cpu=is_cpu,
                # TRL computes in bfloat16 unless told otherwise; ours says itself what it computes in.
                bf16=(None if options.worker == "stock" else False) if is_auto else options.dtype == "bfloat16",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
            ),
            train_dataset=Dataset.from_list([{"prompt": f"p{i}"} for i in range(shape.prompts * options.steps)]),
            processing_class=build_tokenizer(["one two three"] * 5, 300),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[Turns()],
        )
        trainer.remove_callback(PrinterCallback)
        if options.worker == "grouped" and is_cpu:
            trainer.use_packed(ModelConfig(dtype=options.dtype))
        say({"parameters": sum(p.numel() for p in model.parameters()), "start_mb": peak_mb(options.device)})
        try:
            trainer.train()
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            say({"gave_up": f"out of memory (limit {options.limit_gb or 'of the device'} GB)"})


class Worker:
    """The other end of `work`."""

    def __init__(self, arm: str, shape: Shape, options: argparse.Namespace) -> None:
        """Starts the process and waits until its model is there."""
        self.limit_s = options.limit_s
        command = [sys.executable, "-W", "ignore", __file__, "--worker", arm]
        command += ["--shape", ",".join(str(n) for n in asdict(shape).values()), "--steps", str(options.rounds + 1)]
        for name in ("model", "dtype", "device", "threads", "beta", "limit_gb"):
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        command += ["--checkpointing", "both" if options.checkpointing in ("both", arm) else "off"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self._hear()
        self.gave_up: str | None = None

    def step(self) -> dict[str, Any] | None:
        """What one step took; None once it has given up."""
        if self.gave_up is None:
            assert self.process.stdin is not None
            self.process.stdin.write("step\n")
            self.process.stdin.flush()
            answer = self._hear()
            self.gave_up = answer.get("gave_up")
            if self.gave_up is None and answer["cpu_s"] > self.limit_s:
                self.gave_up = f"over {self.limit_s:g} s a step"
                self.process.kill()
            if self.gave_up is None:
                return answer
        return None

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                found: dict[str, Any] = json.loads(line[1:])
                return found
        return {"gave_up": f"killed (exit {self.process.wait()})"}


# --- both in turn -----------------------------------------------------------------------------------------------------


@contextmanager
def workers(shape: Shape, options: argparse.Namespace) -> Iterator[dict[str, Worker]]:
    """A worker for each arm, ended with the block."""
    found: dict[str, Worker] = {}
    try:
        for arm in ARMS:
            found[arm] = Worker(arm, shape, options)
        yield found
    finally:
        for worker in found.values():
            worker.process.kill()
            worker.process.wait()


def measure(shape: Shape, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Seconds and memory of both arms on one shape; an arm that gave up has its reason and no figures."""
    with workers(shape, options) as both:
        for worker in both.values():
            worker.step()  # the first step also sets up optimiser state and allocators
        taken = {arm: Timed() for arm in ARMS}
        for i in range(options.rounds):
            for arm in ARMS if i % 2 else ARMS[::-1]:
                answer = both[arm].step()
                if answer is not None:
                    taken[arm].wall_s.append(answer["wall_s"])
                    taken[arm].cpu_s.append(answer["cpu_s"])
                    taken[arm].values.append(answer)
    found: dict[str, Any] = {"shape": asdict(shape), "parameters": both["grouped"].facts.get("parameters")}
    for arm in ARMS:
        found[arm] = _figures(taken[arm], both[arm])
    if all(len(taken[arm].wall_s) == options.rounds for arm in ARMS):
        found["times_faster_wall"] = ratio(taken["stock"], taken["grouped"])
        found["times_faster_cpu"] = ratio(taken["stock"], taken["grouped"], "cpu_s")
        found["memory_share"] = found["grouped"]["peak_mb"] / found["stock"]["peak_mb"]
    said = ", ".join(f"{LABELS[arm]} {found[arm].get('cpu_s') or found[arm]['gave_up']}" for arm in ARMS)
    console.print(f"  {shape}: {said} (CPU s)", highlight=False)
    return found


def _figures(timed: Timed, worker: Worker) -> dict[str, Any]:
    if worker.gave_up is not None:
        return {"gave_up": worker.gave_up}
    middle = {name: float(np.median([v[name] for v in timed.values])) for name in timed.values[0]}
    return {
        **{name: round(value, 3) for name, value in middle.items() if name.endswith("_s")},
        "peak_mb": max(v["peak_mb"] for v in timed.values),
        "start_mb": worker.facts["start_mb"],
        "all_wall_s": timed.wall_s,
        "all_cpu_s": timed.cpu_s,
    }


def show(title: str, rows: Sequence[dict[str, Any]], console: Console) -> None:
    """One line per shape."""
    table = Table(title=title, title_justify="left")
    for column in (
        "shape",
        "stock s",
        "ours s",
        "x wall",
        "x CPU",
        "x rollout",
        "x gradient",
        "MB stock",
        "ours",
        "share",
    ):
        table.add_column(column, justify="left" if column == "shape" else "right")
    for row in rows:
        stock, ours = row["stock"], row["grouped"]
        cells = [str(Shape(**row["shape"]))]
        cells += [f"{arm['wall_s']:.2f}" if "wall_s" in arm else arm["gave_up"] for arm in (stock, ours)]
        if "times_faster_wall" in row:
            gradient = [arm["cpu_s"] - arm["rollout_cpu_s"] for arm in (stock, ours)]
            cells += [f"{row['times_faster_wall']:.2f}", f"{row['times_faster_cpu']:.2f}"]
            cells += [f"{stock['rollout_cpu_s'] / ours['rollout_cpu_s']:.2f}", f"{gradient[0] / gradient[1]:.2f}"]
        else:
            cells += ["-"] * 4
        cells += [f"{arm['peak_mb']:,.0f}" if "peak_mb" in arm else "-" for arm in (stock, ours)]
        cells += [f"{row['memory_share']:.0%}" if "memory_share" in row else "-"]
        table.add_row(*cells)
    console.print(table)


def draw(rows: Sequence[dict[str, Any]], path: Path, clock: str = "cpu_s") -> None:
    """Seconds a step of each shape by one clock, both arms, with the ratio."""
    times_faster = f"times_faster_{clock.removesuffix('_s')}"
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.5), layout="constrained")
    for k, arm in enumerate(ARMS):
        axis.barh(
            np.arange(len(rows)) + 0.2 * (2 * k - 1),
            [row[arm].get(clock, 0) for row in rows],
            height=0.38,
            color=COLOURS[arm],
            label=LABELS[arm],
        )
    for i, row in enumerate(rows):
        said = f" {row[times_faster]:.1f}x" if times_faster in row else f" {row['stock'].get('gave_up', '')}"
        axis.text(row["grouped"].get(clock, 0), i + 0.2, said, va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [str(Shape(**row["shape"])) for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"{'CPU ' if clock == 'cpu_s' else ''}seconds per GRPO step (median)")
    axis.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


# --- growth -----------------------------------------------------------------------------------------------------------


def fits(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Gradient CPU seconds of each arm as a line in what it should grow with, and in what it should not.

    R2 of a least-squares line a + b * x, on the shapes that the arm finished.
    """
    found: dict[str, dict[str, Any]] = {}
    for arm in ARMS:
        done = [row for row in rows if "cpu_s" in row[arm]]
        seconds = np.array([row[arm]["cpu_s"] - row[arm]["rollout_cpu_s"] for row in done])
        shapes = [Shape(**row["shape"]) for row in done]
        tokens = {
            "G*C + P": np.array([s.group * s.completion + s.prompt for s in shapes], dtype=float),
            "G*(P + C)": np.array([s.group * (s.prompt + s.completion) for s in shapes], dtype=float),
        }
        found[arm] = {"n_shapes": len(done), "seconds": seconds.tolist()}
        for name, x in tokens.items():
            slope, base = np.polyfit(x, seconds, 1)
            error = seconds - (base + slope * x)
            r2 = 1 - (error**2).sum() / ((seconds - seconds.mean()) ** 2).sum()
            found[arm][name] = {"s_per_1000_tokens": 1000 * slope, "base_s": base, "r2": r2, "tokens": x.tolist()}
    return found


def draw_growth(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Seconds against both counts of tokens."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    for axis, name in zip(axes, ("G*C + P", "G*(P + C)"), strict=True):
        for arm in ARMS:
            fit = found[arm][name]
            x = np.array(fit["tokens"])
            axis.scatter(x, found[arm]["seconds"], color=COLOURS[arm], label=f"{LABELS[arm]}, R2 {fit['r2']:.3f}")
            line = np.array([x.min(), x.max()])
            axis.plot(line, fit["base_s"] + fit["s_per_1000_tokens"] * line / 1000, color=COLOURS[arm], lw=1)
        axis.set_xlabel(f"tokens counted as {name}")
        axis.legend(fontsize=8)
    axes[0].set_ylabel("CPU seconds of one group's gradient")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measures the shapes asked for, prints, draws and stores them."""
    parser = arguments(__doc__)
    parser.add_argument("--quick", action="store_true", help="a small model and three shapes")
    parser.add_argument("--sweep", action="store_true", help="prompt 100-1600, G 4-16, completion 2-200")
    parser.add_argument("--growth", action="store_true", help="fit cost against tokens")
    parser.add_argument("--model", default=None, help="5m, 29m, qwen3-0.6b, phi-3.5-mini, llama-3.1-8b or a folder")
    parser.add_argument("--dtype", default="float32", help="`auto`: TRL's default for it, ours for medjudge")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--beta", type=float, default=0.0, help="KL coefficient; above 0 a reference pass is added")
    parser.add_argument(
        "--checkpointing",
        choices=("off", "both", "stock"),
        default="off",
        help="gradient checkpointing: of neither, of both, or of each as it is by default, which is stock TRL's alone",
    )
    parser.add_argument("--limit-gb", type=float, default=10.0, help="memory that a trainer may take; 0 for no limit")
    parser.add_argument("--limit-s", type=float, default=600.0, help="CPU seconds that a step may take")
    parser.add_argument("--shape", default=None, help="PROMPT,G,COMPLETION,PROMPTS")
    parser.add_argument("--worker", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.model = options.model or ("5m" if options.quick or options.growth else "29m")
    if options.worker:
        work(options)
        return
    console = Console(width=140)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.shape:
        name, shapes = "grpo_shape", [Shape(*map(int, options.shape.split(",")))]
    elif options.growth:
        name, shapes = "grpo_growth", GROWTH
    elif options.sweep:
        name, shapes = "grpo_sweep", list(dict.fromkeys([s for row in SWEEP.values() for s in row] + CORNERS))
    else:
        name, shapes = ("grpo_quick", QUICK) if options.quick else ("grpo_step", [ACCEPTANCE])
    rows = [measure(shape, options, console) for shape in shapes]
    title = f"GRPO step, {options.model} parameters, LoRA r 16, {options.dtype} on {options.device}"
    show(title, rows, console)
    facts = {"title": title, "command": " ".join(["python", *sys.argv]), "beta": options.beta, "rows": rows}
    if options.growth:
        found = fits(rows)
        for arm in ARMS:
            for count in ("G*C + P", "G*(P + C)"):
                slope, r2 = found[arm][count]["s_per_1000_tokens"], found[arm][count]["r2"]
                console.print(f"  {LABELS[arm]}: {slope:.3f} s per 1000 tokens counted as {count}, R2 {r2:.3f}")
        facts["fits"] = found
        draw_growth(found, options.out / f"{name}.png")
    else:
        draw(rows, options.out / f"{name}.png")
    write(name, options.out, facts)


if __name__ == "__main__":
    main()
