"""Runs ways of doing the same work in turn, and prints, draws and stores what each took.

Arms take turns within each round, so that whatever else the machine does falls on all of them alike. Ratios are medians
of the rounds' own ratios. CPU seconds stand beside wall seconds: on a shared machine they are the steadier figure.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import torch
from rich.console import Console
from rich.table import Table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

RESULTS = Path(__file__).parent / "results"


@dataclass
class Timed:
    """What the rounds of one arm took."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    """What the arm gave back, round by round."""


def in_turn(arms: Mapping[str, Callable[[], Any]], n_rounds: int) -> dict[str, Timed]:
    """Runs every arm once per round; the order turns round by round. An arm's preparation is its `prepare`."""
    taken = {name: Timed() for name in arms}
    names = list(arms)
    for i in range(n_rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            if prepare := getattr(arms[name], "prepare", None):
                prepare()
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            value = arms[name]()
            taken[name].cpu_s.append(time.process_time() - cpu)
            taken[name].wall_s.append(time.perf_counter() - wall)
            taken[name].values.append(value)
            wall, cpu = taken[name].wall_s[-1], taken[name].cpu_s[-1]
            print(f"  round {i + 1}/{n_rounds}  {name}: {wall:.2f} s, CPU {cpu:.2f} s", flush=True)
    return taken


def ratio(slow: Timed, fast: Timed, clock: str = "wall_s") -> float:
    """How many times as long `slow` took: the median over rounds."""
    return statistics.median(a / b for a, b in zip(getattr(slow, clock), getattr(fast, clock), strict=True))


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "torch": torch.__version__,
        "bf16_in_hardware": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    }


def report(
    name: str,
    title: str,
    taken: Mapping[str, Timed],
    baseline: str,
    *,
    per_round: float,
    unit: str,
    out: Path,
    facts: Mapping[str, Any],
) -> None:
    """A table on the terminal, `NAME.json` and `NAME.png` in `out`.

    per_round: units of work per round (tokens, cases); the table gives them per second. baseline: the arm that the
    others are compared with.
    """
    table = Table(title=title, title_justify="left")
    for column in ("", "wall s", "CPU s", f"{unit}/s", "x wall", "x CPU"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {}
    for arm, timed in taken.items():
        wall, cpu = statistics.median(timed.wall_s), statistics.median(timed.cpu_s)
        rows[arm] = {
            "wall_s": timed.wall_s,
            "cpu_s": timed.cpu_s,
            "per_second": per_round / wall,
            "times_faster_wall": ratio(taken[baseline], timed),
            "times_faster_cpu": ratio(taken[baseline], timed, "cpu_s"),
        }
        shown = rows[arm]
        table.add_row(
            arm,
            f"{wall:.2f}",
            f"{cpu:.2f}",
            f"{per_round / wall:,.1f}",
            f"{shown['times_faster_wall']:.2f}",
            f"{shown['times_faster_cpu']:.2f}",
        )
    console = Console(width=120)
    console.print(table)
    for key, value in facts.items():
        console.print(f"  {key}: {value}")
    write(name, out, {"title": title, "unit": unit, "baseline": baseline, "arms": rows, **facts})
    figure, axis = plt.subplots(figsize=(8, 0.6 * len(rows) + 1.4), layout="constrained")
    axis.barh(list(rows), [row["per_second"] for row in rows.values()], color="#33658a")
    axis.invert_yaxis()
    for i, row in enumerate(rows.values()):
        axis.text(row["per_second"], i, f" {row['times_faster_wall']:.1f}x", va="center")
    axis.set_xlabel(f"{unit} per second (median of {len(next(iter(taken.values())).wall_s)})")
    axis.set_title(title, loc="left", fontsize=10)
    axis.margins(x=0.12)
    figure.savefig(out / f"{name}.png", dpi=150)
    plt.close(figure)


def write(name: str, out: Path, tree: Mapping[str, Any]) -> None:
    """The figures as JSON, with the machine they were taken on."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**tree, "machine": machine()}, indent=2, default=str)
    (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def arguments(doc: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser
