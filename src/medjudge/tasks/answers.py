"""The two readings of an answer that the four judging tasks share: to the letter, and out of other text."""

from __future__ import annotations

from abc import abstractmethod

from medjudge.records import Case, Judgement, Unparsed
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.text import naming_the_reader


class AnswerContract(TaskContract):
    """A contract whose answers are read strictly and, where `lenient` is set, found within other text as well."""

    def parse(self, case_id: str, completion: str) -> Judgement:
        """The verdict in a completion, or why there is none: `_read_strictly`, then `_read_leniently` if it is on.

        Where neither reads it, the strict reason stays: it names the setting that would read such an answer.
        """
        judgement = naming_the_reader(self._read_strictly(case_id, completion))
        if self.lenient and isinstance(judgement, Unparsed):
            return self._read_leniently(case_id, completion) or judgement
        return judgement

    def _gold_of(self, case: Case) -> str:
        """The expert's label of a case that is to be taught. Raises ValueError where it has none."""
        if case.gold is None:
            raise ValueError(
                f"case {case.case_id} has no gold label, expected one of {', '.join(self.labels)}: there is no "
                "answer to "
                "teach. Leave it out of training."
            )
        return case.gold

    @abstractmethod
    def _read_strictly(self, case_id: str, completion: str) -> Judgement:
        """The verdict of a completion that has the contract's form and holds nothing else."""

    @abstractmethod
    def _read_leniently(self, case_id: str, completion: str) -> Judgement | None:
        """The one verdict that a text gives in whatever form; Unparsed where it gives several, None where none."""
