"""What turns prompts into completions: one small protocol that a local model, an endpoint and a test double all fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from medjudge.records import Case, Completion
from medjudge.tasks.contract import TaskContract


class Engine(Protocol):
    """Answers cases as a contract asks them."""

    def complete(self, contract: TaskContract, cases: Sequence[Case]) -> list[Completion]:
        """One greedy completion per case, in the order of the cases."""
        ...
