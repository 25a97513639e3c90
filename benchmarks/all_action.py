"""Wall time to stock GRPO's final held-out reward: stock, grouped and the all-action gradient, several seeds.

    python benchmarks/all_action.py [--seeds 1 2 3] [--steps 20] [--acr ROWS.jsonl] [--tasks equivalence acr]

One judge per task is made by SFT and then trained on by each method, with the same settings, prompts and rewards. The
held-out reward is the exact expected reward of the policy on rows that no training saw, measured between steps with the
clock stopped. Each finished training is kept in `OUT/all_action.json`, and a second call goes on from there.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.table import Table

from judges import make, recipe
from medjudge.data.store import read_split
from medjudge.inference.local import LocalEngine
from medjudge.models.load import load_tokenizer, load_weights, quiet_libraries
from medjudge.recipe import Recipe
from medjudge.records import Case
from medjudge.rewards.composition import RewardContext, RewardPlan, build_plan
from medjudge.settings.training import GrpoConfig
from medjudge.tasks.encoding import encode_all, encode_labels
from medjudge.training import all_action, grpo
from medjudge.training.progress_callback import Watch
from side_by_side import arguments, write

NOT_SETTINGS = ("out", "tasks", "methods", "seeds", "rounds", "threads")
METHODS = ("stock GRPO", "grouped GRPO", "all-action")


def main() -> None:
    """Trains what is not trained yet, then reports."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--tasks", nargs="+", default=["equivalence", "acr"], choices=("equivalence", "acr"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--acr", default="builtin:appropriateness-bare", help="rows with an imaging rating each")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts-per-step", type=int, default=8)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--held-out", type=int, default=96)
    parser.add_argument("--sft-steps", type=int, default=40)
    parser.add_argument("--measure-every", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    out = options.out
    settings = {
        key: str(value) for key, value in vars(options).items() if key not in ("out", "tasks", "methods", "seeds")
    }
    stored = out / "all_action.json"
    tree = json.loads(stored.read_text()) if stored.exists() else {}
    runs: dict[str, Any] = tree.get("runs", {}) if tree.get("settings") == settings else {}
    for task in options.tasks:
        judge = recipe_of(task, options)
        run_dir = make(judge)
        for seed in options.seeds:
            for method in options.methods:
                key = f"{task} / {method} / seed {seed}"
                if key not in runs:
                    print(f"  {key} ...", flush=True)
                    runs[key] = train(judge, run_dir, method, seed, options)
                    write("all_action", out, {"settings": settings, "runs": runs})
                print(f"  {key}: {runs[key]['seconds'][-1]:.1f} s, {runs[key]['reward'][-1]:.3f}", flush=True)
    report(runs, options, settings)


def recipe_of(task: str, options: Any) -> Recipe:
    """The judge that all methods start from: it knows the format, and little else."""
    splits = {"train": 0.4, "grpo": 0.3, "test": 0.3}
    sft, base = {"max_steps": options.sft_steps}, {"hidden_size": 192, "n_layers": 3, "max_steps": 20}
    if task == "equivalence":
        return recipe(
            {"kind": "equivalence", "system_prompt": "", "max_prompt_tokens": 300, "max_completion_tokens": 4},
            {"source": "builtin:equivalence", "group_by": ["fact_id"], "splits": splits},
            sft=sft,
            base=base,
        )
    data: dict[str, Any] = {"source": options.acr, "group_by": ["variant"], "splits": splits}
    if not options.acr.startswith("builtin:"):
        data |= {"fields": {"condition": "topic"}}
    return recipe(
        {
            "kind": "appropriateness",
            "form": "answer_only",
            "system_prompt": "",
            "max_prompt_tokens": 320,
            "max_completion_tokens": 16,
        },
        data,
        sft=sft,
        base=base,
    )


def train(judge: Recipe, run_dir: Path, method: str, seed: int, options: Any) -> dict[str, list[float]]:
    """Seconds and held-out reward and accuracy after each step (0: before training)."""
    start = run_dir / "sft" / "model"
    tokenizer = load_tokenizer(start)
    model = load_weights(start, judge.model, tokenizer, train_all=True)
    cases = [case for case in read_split(run_dir / "prepare" / "grpo.jsonl") if case.gold is not None]
    held_out = [case for case in read_split(run_dir / "prepare" / "test.jsonl") if case.gold is not None]
    config = GrpoConfig.model_validate(
        {
            "algorithm": "all_action" if method == "all-action" else "grpo",
            "grouped": method == "grouped GRPO",
            "tuning": "full",
            "max_steps": options.steps,
            "prompts_per_step": options.prompts_per_step,
            "group_size": options.group_size,
            "micro_batch": options.prompts_per_step * options.group_size,
            "learning_rate": options.learning_rate,
            "lr_scheduler": "constant",
            "warmup_ratio": 0.0,
            "kl_coef": 0.02,
            "save_steps": 10_000,
            "logging_steps": 1,
            "rewards": {"accuracy": 1.0, "format": 0.5},
        }
    )
    plan = build_plan(config.rewards, (), RewardContext(judge.contract, cases))
    meter = Meter(judge, held_out[: options.held_out], tokenizer, plan)
    module, function = (
        (all_action, all_action.train_all_action) if config.algorithm == "all_action" else (grpo, grpo.train_grpo)
    )
    before, module.Watch = module.Watch, meter.watch(every=options.measure_every)
    try:
        with tempfile.TemporaryDirectory() as work:
            meter.measure(model, 0)
            function(
                judge.contract,
                cases,
                plan,
                model,
                tokenizer,
                config,
                judge.model,
                Path(work),
                seed=seed,
                console=Console(quiet=True),
            )
    finally:
        module.Watch = before
    return meter.found


class Meter:
    """Held-out reward and accuracy against the seconds of training, in which measuring does not count."""

    def __init__(self, judge: Recipe, cases: Sequence[Case], tokenizer: Any, plan: RewardPlan) -> None:
        """The rewards of every label and of the leak are known beforehand."""
        self.contract, self.cases, self.tokenizer = judge.contract, cases, tokenizer
        encoded = encode_all(judge.contract, cases, tokenizer, with_target=False)
        ids = encode_labels(judge.contract, encoded, tokenizer)
        self.rewards = all_action.outcome_rewards(judge.contract, cases, encoded, ids, tokenizer, plan)[0].tolist()
        self.found: dict[str, list[float]] = {
            key: [] for key in ("step", "seconds", "cpu_seconds", "reward", "accuracy")
        }
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def measure(self, model: Any, step: int) -> None:
        """Stops the clock, measures, and lets it go on; at step 0 it starts."""
        wall, cpu = time.perf_counter(), time.process_time()
        scores = LocalEngine(model, self.tokenizer).label_logprobs(self.contract, self.cases)
        values, hits = [], 0
        for case, score, row in zip(self.cases, scores, self.rewards, strict=True):
            shares = [math.exp(value) for value in score.log_probs.values()]
            values.append(sum(p * r for p, r in zip([*shares, 1 - sum(shares)], row, strict=True)))
            hits += max(score.log_probs, key=lambda label: score.log_probs[label]) == case.gold
        self.found["step"].append(step)
        self.found["seconds"].append(wall - self.wall if step else 0.0)
        self.found["cpu_seconds"].append(cpu - self.cpu if step else 0.0)
        self.found["reward"].append(statistics.fmean(values))
        self.found["accuracy"].append(hits / len(self.cases))
        if step:
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu
        else:
            self.wall, self.cpu = time.perf_counter(), time.process_time()

    def watch(self, every: int) -> type[Watch]:
        """A `Watch` that measures every so many steps and after the last."""
        meter = self

        class Measuring(Watch):
            def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
                if state.global_step % every == 0 or state.global_step == state.max_steps:
                    was_training = model.training
                    meter.measure(model, state.global_step)
                    model.train(was_training)

        return Measuring


def seconds_to(run: dict[str, list[float]], reward: float, clock: str) -> float:
    """Seconds after which a run first had this reward; infinite if it never had."""
    return next((s for s, r in zip(run[clock], run["reward"], strict=True) if r >= reward and s > 0), math.inf)


def report(runs: dict[str, Any], options: Any, settings: dict[str, str]) -> None:
    """Table, JSON and picture of what there is."""
    table = Table(title="To stock GRPO's final held-out reward", title_justify="left")
    for column in ("task", "method", "final reward", "accuracy", "wall s to it", "CPU s to it", "x wall", "x CPU"):
        table.add_column(column, justify="left" if column in ("task", "method") else "right")
    summary: dict[str, Any] = {}
    for task in options.tasks:
        stock = {seed: runs.get(f"{task} / stock GRPO / seed {seed}") for seed in options.seeds}
        for method in options.methods:
            rows = []
            for seed in options.seeds:
                run, peer = runs.get(f"{task} / {method} / seed {seed}"), stock[seed]
                if run is None or peer is None:
                    continue
                wall, cpu = (seconds_to(run, peer["reward"][-1], clock) for clock in ("seconds", "cpu_seconds"))
                total_wall, total_cpu = peer["seconds"][-1], peer["cpu_seconds"][-1]
                if method == "stock GRPO":
                    wall, cpu = total_wall, total_cpu
                rows.append((run["reward"][-1], run["accuracy"][-1], wall, cpu, total_wall / wall, total_cpu / cpu))
            if not rows:
                continue
            middle = [statistics.median(column) for column in zip(*rows, strict=True)]
            summary[f"{task} / {method}"] = dict(
                zip(
                    ("reward", "accuracy", "wall_s", "cpu_s", "times_faster_wall", "times_faster_cpu"),
                    middle,
                    strict=True,
                )
            )
            table.add_row(task, method, *(f"{x:.3f}" for x in middle[:2]), *(f"{x:.1f}" for x in middle[2:]))
    Console(width=120).print(table)
    write("all_action", options.out, {"settings": settings, "summary": summary, "runs": runs})
    colours = dict(zip(METHODS, ("#888888", "#33658a", "#c1440e"), strict=True))
    figure, axes = plt.subplots(
        1, len(options.tasks), figsize=(5 * len(options.tasks), 3.4), layout="constrained", squeeze=False
    )
    for axis, task in zip(axes[0], options.tasks, strict=True):
        for method in options.methods:
            for seed in options.seeds:
                if (run := runs.get(f"{task} / {method} / seed {seed}")) is not None:
                    label = method if seed == options.seeds[0] else None
                    axis.plot(run["cpu_seconds"], run["reward"], color=colours[method], label=label, lw=1.2)
        axis.set(title=task, xlabel="CPU seconds of training", ylabel="expected reward, held out", xscale="symlog")
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(options.out / "all_action.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
