"""A model behind an OpenAI-compatible endpoint, answering cases as `inference.protocol.Engine` has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from medjudge.inference.endpoint import EndpointClient, Failure
from medjudge.inference.endpoint_labels import EndpointLabels
from medjudge.inference.replies import Reply
from medjudge.records import Case, Completion, LabelScores, Verdict
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.text import THINK_OPEN, with_thinking
from medjudge.tasks.thoughts import split_thoughts


class EndpointEngine:
    """Asks through a client. The server renders the prompt by its own template and counts by its own tokenizer."""

    def __init__(self, client: EndpointClient) -> None:
        """`client`: its counts and its record hold what a model folder's lineage cannot say here."""
        self.client = client
        self.on_progress: Callable[[int], None] = lambda n: None

    def generate(self, contract: TaskContract, cases: Sequence[Case]) -> list[Completion]:
        """One completion per case; a call that failed after all retries is one with a `failure`.

        No prompt is shortened here, whatever `max_prompt_tokens` says.
        """
        self.client.on_progress = self.on_progress
        return self._ask(contract, cases, sample=0, temperature=None)

    def label_logprobs(self, contract: TaskContract, cases: Sequence[Case]) -> list[LabelScores | Completion]:
        """How likely each label is, as far as the server tells; the answer itself where it tells nothing of it.

        `client.record()` then says by which way. Raises ConfigError where the contract reasons before its label,
        EndpointError where the server sends no log-probabilities.
        """
        return EndpointLabels(self.client, contract, completion_of).ask(cases, self.on_progress)

    def sample(
        self, contract: TaskContract, cases: Sequence[Case], n_per_case: int, *, temperature: float, seed: int
    ) -> list[list[Completion]]:
        """As `generate`, `n_per_case` times, each with a place in the cache of its own.

        seed: not used; the endpoint's own setting is the seed of the first round, and each round adds one.
        """
        n_calls, n_told = 0, 0

        def count(n: int) -> None:  # a case is done when its last sample is
            nonlocal n_calls, n_told
            n_calls += n
            self.on_progress(n_calls // n_per_case - n_told)
            n_told = n_calls // n_per_case

        self.client.on_progress = count
        rounds = [self._ask(contract, cases, sample=i, temperature=temperature) for i in range(n_per_case)]
        return [list(row) for row in zip(*rounds, strict=True)]

    def _ask(
        self, contract: TaskContract, cases: Sequence[Case], *, sample: int, temperature: float | None
    ) -> list[Completion]:
        prompts = [contract.messages(case) for case in cases]
        replies = self.client.ask(
            prompts, max_tokens=contract.max_completion_tokens, sample=sample, temperature=temperature
        )
        return [completion_of(reply, contract) for reply in replies]


def completion_of(reply: Reply | Failure, contract: TaskContract) -> Completion:
    """The reply with its thoughts where the contract has them: in a <think> block, or nowhere.

    Whether thoughts come in the text, apart from it or not at all is a setting of the server, not of the judge.
    """
    if isinstance(reply, Failure):
        return Completion("", 0, stopped=True, failure=reply.reason)
    split = split_thoughts(reply.text)
    if isinstance(contract.parse("", reply.text), Verdict):
        text = reply.text  # as it is; what looks like a tag in it is part of the answer
    elif not contract.has_think_block:
        text = split.answer
    elif THINK_OPEN in reply.text or not (reply.text or reply.thought):
        text = reply.text
    else:
        text = with_thinking(True, "\n\n".join(filter(None, (reply.thought, split.thought))), split.answer)
    return Completion(
        text,
        reply.n_completion_tokens or 0,
        stopped=reply.finish != "length",
        refused=reply.finish == "refusal",
        thoughts="inline" if split.tag else "apart" if reply.thought else "none",
    )
