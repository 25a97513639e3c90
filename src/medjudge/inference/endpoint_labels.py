"""Probabilities of labels from an OpenAI-compatible endpoint: mode labels without a model of this machine.

Three ways, by what the server can do. `prompt`: each label is handed over as a finished answer and the server scores
its tokens, as `LocalEngine.label_logprobs` does (vLLM's `prompt_logprobs`). `continue`: the answer is begun for the
server, which tells the likeliest next tokens (llama.cpp). `first`: the model writes its answer, and the likeliest
tokens at the label's place are read (OpenAI). docs/endpoints.md has a table of servers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from medjudge.errors import ConfigError, EndpointError
from medjudge.inference.endpoint import EndpointClient, Failure
from medjudge.inference.label_reading import LabelTexts, Node, Walk, scored_labels
from medjudge.inference.replies import Reply
from medjudge.inference.token_probs import TokenProbs
from medjudge.records import Case, Completion, LabelScores, Message
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.thoughts import split_thoughts

Way = Literal["prompt", "continue", "first"]
ROOM = 8
"""Tokens beyond the characters of frame and label that an answer may take: line breaks, control tokens."""
MOST_STEPS = 16
"""Tokens of a label that are asked for one by one."""
LEAST = math.log(1e-5)
"""What is less likely is not asked for; it counts as not told."""

_REFUSED = re.compile(r"HTTP (400|403|422)(?!.*(context|above_max))")
"""Of a request, whatever its prompt: a prompt that is too long says nothing of the next."""

_OPEN: Mapping[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
_CLOSED: Mapping[str, Any] = {
    **{"add_generation_prompt": False, "continue_final_message": False, "prompt_logprobs": 0},
    # Not read: they mark a reply of one token as one that was meant to be so short.
    **{"logprobs": True, "top_logprobs": 1},
}


class EndpointLabels:
    """Asks one endpoint about the labels of one contract."""

    def __init__(
        self,
        client: EndpointClient,
        contract: TaskContract,
        completion_of: Callable[[Reply | Failure, TaskContract], Completion],
    ) -> None:
        """`completion_of` reads an answer without probabilities. Raises ConfigError where text precedes the label."""
        frame = contract.label_frame()
        if frame is None:
            raise ConfigError(
                f"the {contract.kind} contract answers with text before its label, so labels alone cannot be scored: "
                'take mode "generate", or a form of the task that answers with the label.'
            )
        self.client, self.contract, self.frame = client, contract, frame
        self.texts = LabelTexts.of(frame)
        self._completion_of = completion_of
        self._top = {"logprobs": True, "top_logprobs": client.settings.top_logprobs}

    def ask(self, cases: Sequence[Case], on_progress: Callable[[int], None]) -> list[LabelScores | Completion]:
        """Scores of each case, or its answer where that tells none."""
        if not cases:
            return []
        self.client.on_progress = lambda n: None
        way = self._way(cases[0])
        self.client.labels_by = way
        if way == "prompt":
            return self._by_prompt(cases, on_progress)
        return self._by_walk(cases, way, on_progress)

    # --- what the server can do ---------------------------------------------------------------------------------------

    def _way(self, case: Case) -> Way:
        wanted = self.client.settings.label_scoring
        if wanted == "first":
            return "first"
        if wanted == "prompt" or (wanted == "auto" and not self.client.endpoint.is_openai):
            label = self.contract.labels[0]
            (reply,) = self.client.ask(
                [self._answered(case, label)], max_tokens=1, fields=_CLOSED, reasons=False, is_probe=True
            )
            if isinstance(reply, Reply) and reply.scored is not None:
                return "prompt"
            if wanted == "prompt":
                raise EndpointError(
                    f"{self.client.name} scores no prompt, expected `prompt_logprobs` with its answer: set "
                    "`label_scoring` to auto."
                )
        if wanted == "auto" and self.client.endpoint.is_openai:
            return "first"
        return "continue" if wanted == "continue" or self._continues(case) else "first"

    def _continues(self, case: Case) -> bool:
        """Whether the server goes on from an answer that is begun, and does not open another turn after it.

        By its own count of tokens: one character more is one or two tokens, a turn that is closed and opened is more.
        """
        plain, begun = (
            self.client.ask(
                [[*self.contract.messages(case), *turns]], max_tokens=1, fields=fields, reasons=False, is_probe=True
            )[0]
            for turns, fields in (([], self._top), ([_assistant("1")], {**self._top, **_OPEN}))
        )
        counts = [one.n_prompt_tokens if isinstance(one, Reply) and one.generated else None for one in (plain, begun)]
        return counts[0] is not None and counts[1] is not None and 1 <= counts[1] - counts[0] <= 2

    # --- scored as prompts --------------------------------------------------------------------------------------------

    def _by_prompt(self, cases: Sequence[Case], on_progress: Callable[[int], None]) -> list[LabelScores | Completion]:
        labels = self.contract.labels
        self.client.on_progress = _per_case(on_progress, len(labels))
        prompts = [self._answered(case, label) for case in cases for label in labels]
        replies = self.client.ask(prompts, max_tokens=1, fields=_CLOSED, reasons=False)
        scores: list[LabelScores | Completion] = []
        for start in range(0, len(replies), len(labels)):
            own = replies[start : start + len(labels)]
            rows = {label: one.scored for label, one in zip(labels, own, strict=True) if isinstance(one, Reply)}
            known = {label: row for label, row in rows.items() if row is not None}
            failed = next((one for one in own if isinstance(one, Failure)), None)
            scores.append(
                scored_labels(self.frame, known)
                if len(known) == len(labels)
                else self._completion_of(failed or Failure("the server scored no prompt this time"), self.contract)
            )
        return scores

    def _answered(self, case: Case, label: str) -> list[Message]:
        answer = self.frame.forced + self.frame.continuations[label]
        return [*self.contract.messages(case), _assistant(answer)]

    # --- read from the likeliest tokens -------------------------------------------------------------------------------

    def _by_walk(
        self, cases: Sequence[Case], way: Way, on_progress: Callable[[int], None]
    ) -> list[LabelScores | Completion]:
        begins = way == "continue" and bool(self.texts.lead)
        # The first case alone: a server that tells nothing is not asked for thousands.
        firsts = self._first([cases[0]], begins)
        self._check(firsts[0])
        self.client.on_progress = on_progress
        firsts = self._first(cases, begins)
        self.client.on_progress = lambda n: None
        walks: list[Walk | None] = [None] * len(cases)
        open_nodes: list[tuple[int, Node]] = []
        for i, reply in enumerate(firsts):
            root = self._root(reply, begins) if isinstance(reply, Reply) and reply.finish != "refusal" else None
            if root is not None:
                node, listed = root
                walks[i] = walk = Walk(self.texts)
                open_nodes += [(i, one) for one in walk.step(node, listed)]
        for _ in range(MOST_STEPS):
            if not open_nodes:
                break
            open_nodes = self._go_on(cases, firsts, walks, open_nodes, asks=way == "continue")
        for i, node in open_nodes:
            _known(walks[i]).leave(node)
        return [
            self._completion_of(reply, self.contract) if walk is None else walk.scores()
            for reply, walk in zip(firsts, walks, strict=True)
        ]

    def _first(self, cases: Sequence[Case], begins: bool) -> list[Reply | Failure]:
        """The answers that the model writes up to the label, or from a begun answer on."""
        prompts = [self._begun(case, b"") if begins else self.contract.messages(case) for case in cases]
        n = self.texts.longest + ROOM + (0 if begins else len(self.texts.lead))
        fields = {**self._top, **(_OPEN if begins else {})}
        return self.client.ask(
            prompts, max_tokens=min(n, self.contract.max_completion_tokens), fields=fields, reasons=not begins
        )

    def _go_on(
        self,
        cases: Sequence[Case],
        firsts: Sequence[Reply | Failure],
        walks: Sequence[Walk | None],
        nodes: Sequence[tuple[int, Node]],
        *,
        asks: bool,
    ) -> list[tuple[int, Node]]:
        """One token further: along what the model wrote, and elsewhere where the server goes on from a begun answer."""
        todo = []
        further: list[tuple[int, Node]] = []
        for i, node in nodes:
            reply, walk = firsts[i], _known(walks[i])
            written = reply.generated if isinstance(reply, Reply) else None
            if node.generated_at is not None and written is not None and node.generated_at < len(written):
                further += [(i, one) for one in walk.step(node, written[node.generated_at])]
            # After thoughts the model is somewhere else than in an answer that is begun without them.
            elif asks and node.log_prob >= LEAST and not (isinstance(reply, Reply) and _has_thoughts(reply)):
                todo.append((i, node))
            else:
                walk.leave(node)
        prompts = [self._begun(cases[i], node.text) for i, node in todo]
        replies = self.client.ask(prompts, max_tokens=1, fields={**self._top, **_OPEN}, reasons=False)
        for (i, node), reply in zip(todo, replies, strict=True):
            listed = reply.generated[0] if isinstance(reply, Reply) and reply.generated else None
            further += [(i, one) for one in _known(walks[i]).step(node, listed)]
        return further

    def _begun(self, case: Case, text: bytes) -> list[Message]:
        begun = self.texts.lead + text.decode("utf-8", errors="replace")
        return [*self.contract.messages(case), _assistant(begun)]

    def _root(self, reply: Reply, begins: bool) -> tuple[Node, TokenProbs] | None:
        """Where the label begins in what was generated, and the tokens there; None where it begins nowhere."""
        if not reply.generated:
            return None
        if begins:
            return Node(b"", 0.0, 0), reply.generated[0]
        whole = b"".join(place[0][0] for place in reply.generated)
        text, start = whole.decode("utf-8", errors="replace"), 0
        if _has_thoughts(reply):  # which servers that send them apart list with the rest
            answer = split_thoughts(reply.text).answer
            start = text.rfind(answer) if answer else -1
            if start < 0:
                return None
            # A token may hold the space before the answer, so the place begins with that space.
            start = len(text[:start].rstrip())
        place = self.texts.place(text[start:])
        if place is None:
            return None
        at = len(text[: start + place].encode())
        end = 0
        for i, listed in enumerate(reply.generated):
            begin, end = end, end + len(listed[0][0])
            if end > at:
                # Where a token holds the end of the frame too, only tokens that do are read.
                shared = listed[0][0][: at - begin]
                cut = tuple((token[len(shared) :], value) for token, value in listed if token.startswith(shared))
                return Node(b"", 0.0, i), cut
        return None

    def _check(self, reply: Reply | Failure) -> None:
        """Raises EndpointError where the first answer has no log-probabilities."""
        if isinstance(reply, Reply) and reply.generated is None and reply.finish != "refusal":
            raise EndpointError(
                f"{self.client.name} sent an answer without log-probabilities, expected `logprobs` with it: labels "
                "cannot be scored. Set the mode to generate, or take a server that tells them (docs/endpoints.md has "
                "a table)."
            )
        if isinstance(reply, Failure) and _REFUSED.match(reply.reason):
            raise EndpointError(
                f"{self.client.name} refuses a request for log-probabilities ({reply.reason}), expected it to take "
                f"`logprobs` and `top_logprobs` = {self.client.settings.top_logprobs}. Lower `top_logprobs` (or raise "
                "the server's own limit, `--max-logprobs` at vLLM), or set the mode to generate."
            )


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _has_thoughts(reply: Reply) -> bool:
    return bool(reply.thought or split_thoughts(reply.text).tag)


def _known(walk: Walk | None) -> Walk:
    if walk is None:
        raise AssertionError("a node belongs to a walk")
    return walk


def _per_case(on_progress: Callable[[int], None], n_per_case: int) -> Callable[[int], None]:
    """Tells cases from requests."""
    n_requests = n_told = 0

    def count(n: int) -> None:
        nonlocal n_requests, n_told
        n_requests += n
        on_progress(n_requests // n_per_case - n_told)
        n_told = n_requests // n_per_case

    return count
