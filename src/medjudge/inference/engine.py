"""The one inference engine: completions and label log-probabilities for evaluation, pre-flight and judging.

Prompts are rendered and tokenised by the contract, batched by like length under a token budget, and what all of them
begin with is read once per call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from medjudge.modeling.labels import LabelTree, label_log_probs, label_log_probs_apart, read_prefix
from medjudge.modeling.load import check_context
from medjudge.records import Case, Completion, LabelScores
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import LabelIds, decode, encode_all, encode_labels, stop_token_ids

SHORTEST_PREFIX = 8
"""A common beginning of fewer tokens is read with each prompt: a pass of its own would cost more than it saves."""
MAX_LOGITS = 1 << 26
"""Logits per batch in labels mode: 256 MiB in float32."""


class Engine:
    """A transformers model and its tokenizer, answering for a task contract."""

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_tokens: int = 16384, on_progress: Callable[[int], None] | None = None
    ) -> None:
        """`batch_tokens`: prompt and completion tokens per batch, padding counted. `on_progress` is told cases done."""
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_tokens = batch_tokens
        self.on_progress = on_progress

    @torch.inference_mode()
    def label_logprobs(self, contract: TaskContract, cases: Sequence[Case]) -> list[LabelScores]:
        """How likely each label of the contract is as the answer, in the order of the cases; one prefill per case.

        Where the contract answers with more than the label, probabilities are conditional on the frame that
        `contract.label_frame` names. Raises ConfigError where it has none.
        """
        encoded = encode_all(contract, cases, self.tokenizer, with_target=False)
        prompts = [row.prompt_ids for row in encoded]
        alike: dict[LabelIds, list[int]] = {}
        for i, ids in enumerate(encode_labels(contract, encoded, self.tokenizer)):
            alike.setdefault(ids, []).append(i)
        found: dict[int, LabelScores] = {}
        for ids, numbers in alike.items():
            tree = LabelTree.of(ids)
            for batch, log_probs in self._scored(prompts, numbers, tree, max(map(len, ids.labels))):
                for i, row in zip(batch, log_probs.tolist(), strict=True):
                    found[i] = _scores(contract.labels, row, encoded[i].n_words_cut)
                if self.on_progress is not None:
                    self.on_progress(len(batch))
        return [found[i] for i in range(len(cases))]

    def _scored(
        self, prompts: Sequence[Sequence[int]], numbers: Sequence[int], tree: LabelTree, n_label: int
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """(case numbers, their label log-probabilities) by batch."""
        longest = max(len(prompts[i]) for i in numbers) + len(tree.forced) + n_label
        check_context(self.model, longest)
        if why_not(self.model, longest) is not None:
            for i in numbers:
                yield [i], label_log_probs_apart(self.model, [prompts[i]], tree)
            return
        n_prefix = common_prefix([prompts[i] for i in numbers])
        prefix = read_prefix(self.model, prompts[numbers[0]][:n_prefix]) if n_prefix >= SHORTEST_PREFIX else None
        n_prefix = n_prefix if prefix is not None else 0
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        most = max(1, MAX_LOGITS // ((len(tree.tokens) + 1) * vocabulary))
        lengths = {i: len(prompts[i]) - n_prefix + tree.n_tokens for i in numbers}
        for batch in batches_by_length(lengths, self.batch_tokens, most):
            yield batch, label_log_probs(self.model, [prompts[i] for i in batch], tree, prefix=prefix)


def _scores(labels: Sequence[str], log_probs: Sequence[float], n_words_cut: int) -> LabelScores:
    highest = max(log_probs)
    weights = [math.exp(value - highest) for value in log_probs]
    total = sum(weights)
    return LabelScores(
        dict(zip(labels, log_probs, strict=True)),
        {label: weight / total for label, weight in zip(labels, weights, strict=True)},
        min(1.0, total * math.exp(highest)),
        n_words_cut,
    )
