"""Bias probes: the same case, changed in a way that must not change a fair judge's mind.

Each probe is a pure transformation of cases; running the judge on both versions is the caller's, and the flip rates are
`metrics.probes`'s. Which probe fits which task, and what label is then expected, stands in `PROBES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medjudge.records import Case
from medjudge.tasks.contract import TaskContract


@dataclass(frozen=True, slots=True)
class ProbedCase:
    """One case as a probe presents it."""

    case: Case
    """With the original's `case_id` and group: answers are joined by id."""
    contract: TaskContract
    """The contract that renders it: the original one, but for a probe of the instructions."""
    expected: Mapping[str, str]
    """Label on the original -> label that a fair judge gives here."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One way to change a case, and what it shows."""

    title: str
    change: str
    """What is changed, in words."""
    tasks: tuple[str, ...]
    """Contract kinds that it applies to."""
    apply: Callable[[Case, TaskContract, np.random.Generator], ProbedCase | None]
    """None where this case cannot be changed so (no reference, no second language)."""


PROBES: dict[str, Probe] = {}
"""swap, position, verbosity, authority, formatting, rewording, language, paraphrase."""


def probe_cases(
    name: str, cases: Sequence[Case], contract: TaskContract, *, rng: np.random.Generator
) -> list[ProbedCase]:
    """The cases that a probe can change, changed, in order. Raises ConfigError for an unknown probe or wrong task."""
    raise NotImplementedError


def probes_for(contract: TaskContract) -> dict[str, Probe]:
    """The probes that apply to a task, by name."""
    raise NotImplementedError
