"""Answers of the form `<answer>label</answer>`, after a thought where thinking is on, whatever the labels are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from medjudge.records import Case, Judgement, Unparsed, Verdict
from medjudge.tasks.answers import AnswerContract
from medjudge.tasks.text import ambiguous, one_line, read_blocks, split_thinking, with_thinking
from medjudge.tasks.thoughts import outside_thoughts

_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)
_ANSWER_WORDS = "answer|label|verdict|class|category|classification|réponse|étiquette|classe|catégorie"
_MARKUP = " \t\r\n*_`\"'“”«»()[].:!"


def fold_label(text: str) -> str:
    """A label in one form: NFKC, case folded, on one line."""
    return one_line(unicodedata.normalize("NFKC", text)).casefold()


class TaggedAnswerContract(AnswerContract):
    """A contract that answers with one label in its tags. A subclass says which labels, and what is asked."""

    def by_folded(self) -> dict[str, str]:
        """Folded label -> label."""
        return {fold_label(label): label for label in self.labels}

    def target(self, case: Case) -> str:
        """The label in its tags; with thinking on, after a block that holds the row's reason (empty if it has none)."""
        return with_thinking(self.thinking, case.reason, f"<answer>{self._gold_of(case)}</answer>")

    def _read_strictly(self, case_id: str, completion: str) -> Judgement:
        """The verdict of one answer block and nothing else; white space, capitals and Unicode form do not matter."""
        parts = split_thinking(completion, self.thinking)
        if isinstance(parts, str):
            return Unparsed(case_id, completion, parts)
        thought, answer = parts
        blocks = read_blocks(answer, ("answer",))
        if isinstance(blocks, str):
            return Unparsed(case_id, completion, blocks)
        label = self.by_folded().get(fold_label(blocks[0]))
        if label is None:
            n_found = len(blocks[0])
            problem = f"the <answer> block holds {n_found} characters that are none of the {len(self.labels)} labels"
            return Unparsed(case_id, completion, problem, kind="schema")
        return Verdict(case_id, label, rationale=thought)

    def _read_leniently(self, case_id: str, completion: str) -> Judgement | None:
        """The one label that answer blocks hold, or else that is all of the text or stated ("Label: refutes").

        Labels are words of the user's own, and common ones ("no") stand in any prose: they are not looked for there.
        """
        text = outside_thoughts(completion)
        blocks = [match[1] for match in _ANSWER.finditer(text)]
        places = blocks or [text, *self._stated.findall(text)]
        labels = {self.by_folded().get(fold_label(place.strip(_MARKUP))) for place in places}
        # An answer block without a label is an answer that cannot be read, whatever stands beside it.
        found = labels if blocks else labels - {None}
        if len(found) > 1:
            return ambiguous(case_id, completion, found, self.labels)
        label = next(iter(found), None)
        return Verdict(case_id, label, rationale=completion.strip()) if label is not None else None

    @property
    def _stated(self) -> re.Pattern[str]:
        # Longest first: "not enough information" is no "not".
        longest = sorted(self.labels, key=len, reverse=True)
        labels = "|".join(r"\s+".join(map(re.escape, label.split())) for label in longest)
        return re.compile(rf"\b(?:{_ANSWER_WORDS})\b\W{{0,5}}(?:is|est)?\W{{0,5}}({labels})(?!\w)", re.IGNORECASE)

    def closed_completions(self) -> Mapping[str, str] | None:
        """The answer block of each label; None with thinking on, where text precedes it."""
        return None if self.thinking else {label: f"<answer>{label}</answer>" for label in self.labels}
