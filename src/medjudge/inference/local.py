"""Greedy batched generation with a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from medjudge.modeling.load import check_context
from medjudge.records import Case, Completion
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import decode, encode_all, stop_token_ids


class LocalEngine:
    """A transformers model and its tokenizer, answering in batches of like length under a token budget."""

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_tokens: int = 16384, on_progress: Callable[[int], None] | None = None
    ) -> None:
        """`batch_tokens`: prompt and completion tokens per batch, padding counted. `on_progress` is told cases done."""
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_tokens = batch_tokens
        self.on_progress = on_progress

    @torch.inference_mode()
    def complete(self, contract: TaskContract, cases: Sequence[Case]) -> list[Completion]:
        """One greedy completion per case, in the order of the cases."""
        encoded = encode_all(contract, cases, self.tokenizer, with_target=False)
        prompts = [row.prompt_ids for row in encoded]
        check_context(self.model, max(map(len, prompts), default=0) + contract.max_completion_tokens)
        stop_ids = stop_token_ids(self.tokenizer)
        answers: dict[int, Completion] = {}
        for batch in self._batches(prompts, contract.max_completion_tokens):
            completion_ids = self._generate([prompts[i] for i in batch], contract.max_completion_tokens)
            for i, ids in zip(batch, completion_ids, strict=True):
                n_tokens = next((k + 1 for k, token in enumerate(ids) if token in stop_ids), len(ids))
                stopped = n_tokens > 0 and ids[n_tokens - 1] in stop_ids
                text = decode(self.tokenizer, ids[:n_tokens], stop_ids)
                answers[i] = Completion(text, n_tokens, stopped, encoded[i].n_words_cut, shown=encoded[i].shown)
            if self.on_progress is not None:
                self.on_progress(len(batch))
        return [answers[i] for i in range(len(cases))]

    def _batches(self, prompts: Sequence[Sequence[int]], n_new: int) -> list[list[int]]:
        """Case numbers by batch, the longest prompts first so that a lack of memory shows at once."""
        batches: list[list[int]] = []
        widest = 0
        for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
            if not batches or (len(batches[-1]) + 1) * (widest + n_new) > self.batch_tokens:
                batches.append([])
                widest = len(prompts[i])
            batches[-1].append(i)
        return batches

    def _generate(self, prompts: Sequence[Sequence[int]], n_new: int) -> list[list[int]]:
        width = max(len(ids) for ids in prompts)
        pad = self.tokenizer.pad_token_id
        device = next(self.model.parameters()).device
        input_ids = torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
        out = self.model.generate(
            input_ids=input_ids, attention_mask=mask, max_new_tokens=n_new, do_sample=False, use_cache=True
        )
        ids: list[list[int]] = out[:, width:].tolist()
        return ids
