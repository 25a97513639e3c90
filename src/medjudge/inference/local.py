"""The engine on transformers: completions and label log-probabilities for evaluation, pre-flight and judging.

Prompts are rendered and tokenised by the contract and batched by like length under a token budget; what all of them
begin with is read once per call, and a completion that has ended leaves its batch. The answers are those that the model
gives to one row at a time; models for which `prefix.why_not` has a reason are asked in plain rows instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from medjudge.inference.label_reading import label_scores
from medjudge.inference.labels import (
    LabelTree,
    label_log_probs,
    label_log_probs_apart,
    label_log_probs_packed,
    read_cache,
)
from medjudge.inference.prefix import common_prefix, device_of, proven_decoding, why_not
from medjudge.inference.rollouts import GREEDY, MIN_PREFIX, Limits, Sampling, batches, roll_out
from medjudge.models.cpu_forward import CpuForward, has_fast_bf16
from medjudge.models.load import check_context
from medjudge.records import Case, Completion, LabelScores
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import Encoded, LabelIds, encode_all, encode_labels
from medjudge.tasks.tokenizers import decode, stop_token_ids

MAX_LOGITS = 1 << 26
"""Logits per batch of label scoring: 256 MiB in float32."""


class LocalEngine:
    """A transformers model and its tokenizer, answering for a task contract."""

    def __init__(
        self, model: Any, tokenizer: Any, *, batch_tokens: int = 16384, on_progress: Callable[[int], None] | None = None
    ) -> None:
        """`batch_tokens`: tokens of prompts and completions per batch. `on_progress` is called with cases done."""
        self.model, self.tokenizer = model.eval(), tokenizer
        # Greedy answers are those of the model's own type: nothing is rounded that was not before.
        self.forward = fast_pass(model)
        self.batch_tokens = batch_tokens
        self.on_progress = on_progress or (lambda n: None)

    def generate(self, contract: TaskContract, cases: Sequence[Case]) -> list[Completion]:
        """The likeliest completion of each case."""
        return [drawn[0] for drawn in self.draw(contract, cases, 1, GREEDY)]

    def sample(
        self, contract: TaskContract, cases: Sequence[Case], n_per_case: int, *, temperature: float, seed: int
    ) -> list[list[Completion]]:
        """(n_cases, n_per_case) completions at this temperature; one seed gives the same for the same cases."""
        rng = torch.Generator().manual_seed(seed)
        return self.draw(contract, cases, n_per_case, Sampling(temperature=temperature), rng)

    @torch.inference_mode()
    def draw(
        self,
        contract: TaskContract,
        cases: Sequence[Case],
        n_per_case: int,
        sampling: Sampling,
        rng: torch.Generator | None = None,
    ) -> list[list[Completion]]:
        """`n_per_case` completions of each case, in the order of the cases, ended by the stop token or the limit.

        rng: a CPU generator for sampling; None draws from torch's global one.
        """
        encoded = encode_all(contract, cases, self.tokenizer, with_target=False)
        prompts = [row.prompt_ids for row in encoded]
        stop_ids, n_new = stop_token_ids(self.tokenizer), contract.max_completion_tokens
        longest = max(map(len, prompts), default=0) + n_new
        check_context(self.model, longest)
        if why_not(self.model, longest) is None:
            drawn = roll_out(
                self.forward or self.model,
                prompts,
                n_per_prompt=n_per_case,
                sampling=sampling,
                limits=Limits(stop_ids, n_new),
                rng=rng,
                batch_tokens=self.batch_tokens,
                on_progress=self.on_progress,
            )
        else:
            repeated = [ids for ids in prompts for _ in range(n_per_case)]
            rows = self._generate_plainly(repeated, n_new, sampling, rng)
            drawn = [rows[i : i + n_per_case] for i in range(0, len(rows), n_per_case)]
        return [[self._read(row, ids, stop_ids) for ids in own] for row, own in zip(encoded, drawn, strict=True)]

    def _read(self, row: Encoded, ids: Sequence[int], stop_ids: Sequence[int]) -> Completion:
        n_tokens = next((k + 1 for k, token in enumerate(ids) if token in stop_ids), len(ids))
        stopped = n_tokens > 0 and ids[n_tokens - 1] in stop_ids
        return Completion(
            decode(self.tokenizer, ids[:n_tokens], stop_ids), n_tokens, stopped, row.n_words_cut, row.shown
        )

    @torch.inference_mode()
    def label_logprobs(
        self, contract: TaskContract, cases: Sequence[Case], *, temperature: float = 1.0
    ) -> list[LabelScores]:
        """How likely each label of the contract is as the answer, in the order of the cases; one prefill per case.

        Where the contract answers with more than the label, probabilities are conditional on the frame that
        `contract.label_frame` names. temperature: divides the logits. Raises ConfigError where there is no frame.
        """
        encoded = encode_all(contract, cases, self.tokenizer, with_target=False)
        prompts = [row.prompt_ids for row in encoded]
        alike: dict[LabelIds, list[int]] = {}
        for i, ids in enumerate(encode_labels(contract, encoded, self.tokenizer)):
            # By tokens, not by label: a tokenizer may join a label with the end of one prompt and not of another.
            alike.setdefault(ids, []).append(i)
        scores: dict[int, LabelScores] = {}
        for ids, numbers in alike.items():
            check_context(self.model, max(len(prompts[i]) for i in numbers) + len(ids.forced) + _longest(ids))
            for batch, log_probs in self._score([prompts[i] for i in numbers], ids, temperature):
                for k, row in zip(batch, log_probs.tolist(), strict=True):
                    scores[numbers[k]] = label_scores(contract.labels, row, encoded[numbers[k]].n_words_cut)
                self.on_progress(len(batch))
        return [scores[i] for i in range(len(cases))]

    def _score(
        self, prompts: Sequence[Sequence[int]], ids: LabelIds, temperature: float
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """(prompt numbers, their label log-probabilities) by batch."""
        # Labels share their first tokens: each distinct beginning is computed once per prompt.
        tree = LabelTree.of(ids)
        if self.forward is not None:
            lengths = [len(prompt) + tree.n_tokens for prompt in prompts]
            for batch in batches(lengths, [0] * len(lengths), self.batch_tokens):
                chosen = [prompts[i] for i in batch]
                yield batch, label_log_probs_packed(self.forward, chosen, tree, temperature=temperature)
            return
        if why_not(self.model, max(map(len, prompts)) + len(ids.forced) + _longest(ids)) is not None:
            for i, prompt in enumerate(prompts):
                yield [i], label_log_probs_apart(self.model, [prompt], tree, temperature=temperature)
            return
        n_prefix = common_prefix(prompts)
        prefix = read_cache(self.model, prompts[0][:n_prefix]) if n_prefix >= MIN_PREFIX else None
        n_read = n_prefix if prefix is not None else 0
        # Logits are (prompts, label tokens, vocabulary): with 150,000 tokens they need more memory than the model's
        # activations do.
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        most = max(1, MAX_LOGITS // ((len(tree.tokens) + 1) * vocabulary))
        lengths = [len(prompt) - n_read + tree.n_tokens for prompt in prompts]
        for batch in batches(lengths, [0] * len(lengths), self.batch_tokens):
            for part in (batch[i : i + most] for i in range(0, len(batch), most)):
                chosen = [prompts[i] for i in part]
                yield part, label_log_probs(self.model, chosen, tree, prefix=prefix, temperature=temperature)

    def _generate_plainly(
        self, prompts: Sequence[Sequence[int]], n_new: int, sampling: Sampling, rng: torch.Generator | None
    ) -> list[list[int]]:
        """transformers' own generation, on batches padded on the left."""
        rope = getattr(self.model.config.get_text_config(), "rope_parameters", None) or {}
        # Such a rotary embedding follows the longest row of a batch, so a row's answer would depend on its neighbours.
        alone = rope.get("rope_type") in ("longrope", "dynamic")
        pad, device = self.tokenizer.pad_token_id, device_of(self.model)
        completions: dict[int, list[int]] = {}
        with torch.random.fork_rng(enabled=rng is not None):
            if rng is not None:
                # `generate` draws from torch's global generator alone: it is seeded from ours, inside a fork, so
                # nothing outside sees it.
                torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            for batch in batches(
                [len(ids) for ids in prompts], [n_new] * len(prompts), 0 if alone else self.batch_tokens
            ):
                width = max(len(prompts[i]) for i in batch)
                padding = [width - len(prompts[i]) for i in batch]
                # On the left: generation goes on from the last position, where a right-padded row would have padding.
                ids = torch.tensor([[pad] * n + list(prompts[i]) for i, n in zip(batch, padding, strict=True)])
                mask = torch.arange(width) >= torch.tensor(padding)[:, None]
                out = self.model.generate(
                    input_ids=ids.to(device),
                    attention_mask=mask.long().to(device),
                    max_new_tokens=n_new,
                    **_generation_settings(sampling),
                )
                completions |= dict(zip(batch, out[:, width:].tolist(), strict=True))
                self.on_progress(len(batch))
        return [completions[i] for i in range(len(prompts))]


def fit_for_inference(model: Any) -> Any:
    """The model in the precision in which this machine answers fastest, weights unchanged.

    A CPU without 16-bit arithmetic multiplies bfloat16 matrices six to eight times slower than float32 ones, so there
    the weights are widened, which loses nothing, unless that would take more than half of the memory.
    """
    dtype = next(model.parameters()).dtype
    if device_of(model).type != "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return model
    is_fast = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }[dtype]()
    # Bytes in float32.
    needed = 4 * sum(parameter.numel() for parameter in model.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return model if is_fast or needed > memory / 2 else model.float()


def fast_pass(model: Any) -> CpuForward | None:
    """The pass for CPUs in the model's own type, where it is right: no weight is copied."""
    dtype = next(model.parameters()).dtype
    if dtype == torch.float16 or (dtype == torch.bfloat16 and not has_fast_bf16()):
        return None
    return proven_decoding(model, dtype)


def _longest(ids: LabelIds) -> int:
    return max(map(len, ids.labels))


def _generation_settings(sampling: Sampling) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "do_sample": not sampling.greedy,
        "repetition_penalty": sampling.repetition_penalty,
        "suppress_tokens": list(sampling.suppress) or None,
    }
    if not sampling.greedy:
        settings |= {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
        }
    return settings
