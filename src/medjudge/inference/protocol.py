"""What answers for a task contract: a model of this process, one behind vLLM or an endpoint, or a scripted double."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from medjudge.records import Case, Completion, LabelScores
from medjudge.tasks.contract import TaskContract


class Engine(Protocol):
    """One model that is asked. Answers come in the order of the cases, one by one as if each were asked alone."""

    on_progress: Callable[[int], None]
    """Called with the number of further cases done."""

    def generate(self, contract: TaskContract, cases: Sequence[Case]) -> list[Completion]:
        """The likeliest completion of each case, token by token."""

    def label_logprobs(self, contract: TaskContract, cases: Sequence[Case]) -> Sequence[LabelScores | Completion]:
        """How likely each label of the contract is as the answer; where an endpoint does not tell, its answer.

        Raises ConfigError where the contract reasons before its label, or the engine gives no probabilities.
        """

    def sample(
        self, contract: TaskContract, cases: Sequence[Case], n_per_case: int, *, temperature: float, seed: int
    ) -> list[list[Completion]]:
        """(n_cases, n_per_case) completions, each drawn from the model's own probabilities at this temperature."""
