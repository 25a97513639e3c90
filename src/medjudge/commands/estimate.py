"""How long the stages of a run take on this machine's processors, from a fifth of a second of measuring."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medjudge.machine import free_processors, matmul_flops, n_processors
from medjudge.progress import roughly
from medjudge.recipe import Recipe

TRAIN_EFFICIENCY = 0.55
"""Share of a plain product's speed that training reaches; measured on the demo's stages, as the next two."""
READ_EFFICIENCY = 0.5
WRITE_EFFICIENCY = 0.25
LAYER_S = 3e-4
"""Seconds for a layer in one step of writing, whatever its size."""
THREAD_GAIN = 0.7
"""What each further thread adds to the speed of the first."""
FIXED_S: Mapping[str, float] = {"prepare": 3, "base": 6, "sft": 8, "grpo": 8, "merge": 5, "evaluate": 8, "report": 8}
"""Seconds of a stage beside its products: imports, reading, pictures."""
PREPARE_CASE_S = 5e-4
SPREAD = (0.75, 1.5)
"""The range that is stated, as factors of what is computed."""


@dataclass(frozen=True, slots=True)
class StageWork:
    """What a stage computes."""

    name: str
    n_parameters: int
    n_layers: int
    n_cases: int = 0
    trained: float = 0.0
    """Tokens that go forward and backward."""
    trained_most: float = 0.0
    """The same if every answer is as long as may be."""
    read: float = 0.0
    """Tokens of prompts that are read to be answered."""
    written: float = 0.0
    """Tokens that are written, one after another."""
    written_most: float = 0.0
    n_writings: float = 0.0
    """Batches of answers that are written."""
    limit: int = 0
    """Most tokens of an answer."""

    def flops(self, *, most: bool) -> tuple[float, float, float]:
        """Floating-point operations of training, of reading and of writing: 6 or 2 for a parameter and token."""
        trained = max(self.trained, self.trained_most) if most else self.trained
        written = max(self.written, self.written_most) if most else self.written
        return 6 * self.n_parameters * trained, 2 * self.n_parameters * self.read, 2 * self.n_parameters * written


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of each stage, as a range, and what they rest on."""

    seconds: Mapping[str, tuple[float, float]]
    flops: float
    """Of one thread, in a second."""
    n_threads: int
    n_processors: int

    def of(self, name: str) -> str:
        """`8 to 15 min` for a stage; empty where it is not known."""
        return span(*self.seconds[name]) if name in self.seconds else ""

    @property
    def sentence(self) -> str:
        """What the whole takes, and on what grounds."""
        low, high = (sum(ends) for ends in zip(*self.seconds.values(), strict=True))
        threads = "1 thread" if self.n_threads == 1 else f"{self.n_threads} threads"
        return (
            f"time: about {span(low, high)} on this machine as busy as it is now, with {threads} on "
            f"{self.n_processors} processor{'s' * (self.n_processors != 1)} at {self.flops / 1e9:.0f} GFLOP/s each "
            "(measured just now). A run measures again, and says what is left."
        )


def estimate(works: Sequence[StageWork], recipe: Recipe) -> Estimate | None:
    """The times of `works`; None where there are none. Measures for a fifth of a second."""
    if not works:
        return None
    speeds: list[float] = []
    free = free_processors(lambda: speeds.append(matmul_flops()))
    n = n_processors()
    asked = recipe.model.threads or _from_environment()
    n_threads = asked or max(1, min(n, round(free)))
    # Threads beyond the processors only wait for each other, so they add nothing.
    speed = speeds[0] * (1 + THREAD_GAIN * (min(n_threads, n) - 1))
    seconds = {
        work.name: tuple(
            end * _seconds(work, speed, most=most) for end, most in zip(SPREAD, (False, True), strict=True)
        )
        for work in works
    }
    return Estimate({name: (low, high) for name, (low, high) in seconds.items()}, speeds[0], n_threads, n)


def _from_environment() -> int | None:
    try:
        return max(1, int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0]))
    except ValueError:
        return None


def _seconds(work: StageWork, speed: float, *, most: bool) -> float:
    trained, read, written = work.flops(most=most)
    products = trained / TRAIN_EFFICIENCY + read / READ_EFFICIENCY + written / WRITE_EFFICIENCY
    # A step of writing is bound by memory and launch time, not by products: it costs per layer, however small.
    steps = work.n_writings * work.limit * work.n_layers * LAYER_S
    cases = work.n_cases * PREPARE_CASE_S if work.name == "prepare" else 0.0
    return FIXED_S.get(work.name, 5.0) + cases + products / speed + steps


def span(low: float, high: float) -> str:
    """`8 to 15 min`, `40 s to 2 min`."""
    first, second = roughly(low), roughly(high)
    if first == second:
        return second
    if first.split()[1] == second.split()[1]:
        first = first.split()[0]
    return f"{first} to {second}"
