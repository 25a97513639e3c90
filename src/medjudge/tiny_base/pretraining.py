"""How `builtin:tiny` is trained from nothing: short documents, like beside like, loss where something can be learned.

Hidden matrices are optimised by Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), which keeps rare facts
better than Adam at equal steps; embeddings and norms by AdamW, with smaller steps: at the same rate the embeddings move
faster than attention can learn to match them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medjudge.models.scratch import END_OF_TEXT, TURN_END, TURN_START
from medjudge.tiny_base.cpu_forward import LinearCrossEntropy, hidden_states
from medjudge.tiny_base.documents import Document, MarkedChat, Span

READ_ONLY = 0.0
OPENING, CLOSING = Span(f"{TURN_START}user\n"), Span(f"{TURN_END}\n{TURN_START}assistant\n")
"""What the chat template puts around a question."""
ROUNDED_TO = 8
"""Rows of a batch are padded to a multiple of this."""


@dataclass(frozen=True, slots=True)
class PretrainingPlan:
    """The settings of the shipped model's pretraining."""

    n_steps: int
    batch_tokens: int = 4096
    """Tokens per step, padding included."""
    row_tokens: int = 72
    """Plain texts are joined into rows of about so many tokens."""
    max_tokens: int = 320
    """A longer document is cut."""
    learning_rate: float = 3e-3
    """Peak; for Muon scaled to AdamW's step size (`match_rms_adamw`)."""
    embedding_share: float = 0.3
    """Of the learning rate, for embeddings and norms."""
    weight_decay: float = 0.1
    warmup_steps: int = 50
    decay_from: float = 0.6
    """Share of the steps after which the learning rate falls in a straight line to `final_share` of its peak."""
    final_share: float = 0.02
    answer_weight: float = 5.0
    """Weight of the first token of an answer (a letter, yes or no, a number), where all its doubt lies."""
    max_grad_norm: float = 1.0
    log_every: int = 50

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, .. `n_steps` - 1."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        left = (1 - step / self.n_steps) / (1 - self.decay_from)
        return self.learning_rate * warm * min(1.0, max(self.final_share, left))


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document as the model reads it."""

    ids: list[int]
    weights: list[float]
    """Loss weight of each token, 0 where it is only read."""


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for matrices: as torch's `Muon` with `match_rms_adamw`.

    On a CPU, torch's own takes about ten times as long.
    """

    def __init__(
        self, params: Sequence[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        """`lr`: as for AdamW, whose update has about the same size. `weight_decay`: decoupled."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure is ever given
        """One update of every matrix."""
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(mean, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)


def orthogonal(matrix: torch.Tensor, n_iterations: int = 4) -> torch.Tensor:
    """About the nearest matrix with orthonormal rows or columns: its singular values all become 0.5 to 1.3.

    Newton-Schulz iteration with the quintic coefficients of Jordan et al. 2024.
    """
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(n_iterations):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    result: torch.Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result.float()


def tie_queries_to_keys(model: Any) -> None:
    """Starts attention as one that looks for tokens like its own: each query matrix close to its key matrix.

    A mimetic initialisation (Trockman and Kolter 2023, arXiv:2305.09828). From independent matrices, matching an option
    with the same words elsewhere is learned only after a plateau that is longer than this whole training.
    """
    config = model.config
    n_kv, size = config.num_key_value_heads, config.head_dim
    with torch.no_grad():
        for layer in model.model.layers:
            keys = layer.self_attn.k_proj.weight.view(n_kv, 1, size, -1)
            queries = layer.self_attn.q_proj.weight.view(n_kv, -1, size, keys.shape[-1])
            queries.mul_(0.5).add_(keys)


def encode_document(document: Document, tokenizer: Any, answer_weight: float) -> Encoded:
    """Plain text is learned whole; of a chat, the assistant's turns alone; of spans, what their weights say."""
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    ids: list[int] = []
    weights: list[float] = []
    if isinstance(document, str):
        ids = [*encode(document), end]
        return Encoded(ids, [1.0] * len(ids))
    if isinstance(document, tuple | MarkedChat):
        for span in document if isinstance(document, tuple) else (OPENING, *document.asked, CLOSING):
            piece = encode(span.text)
            ids += piece
            weights += [span.weight] * len(piece)
        if isinstance(document, MarkedChat):
            if isinstance(document.answer, str):
                answer = encode(document.answer + TURN_END)
                ids, weights = [*ids, *answer], [*weights, answer_weight, *[1.0] * (len(answer) - 1)]
            else:
                for span in (*document.answer, Span(TURN_END, 1.0)):
                    piece = encode(span.text)
                    ids, weights = [*ids, *piece], [*weights, *[span.weight] * len(piece)]
        return Encoded([*ids, end], [*weights, READ_ONLY])
    seen = ""
    for number, message in enumerate(document):
        if message["role"] != "assistant":
            continue
        head = tokenizer.apply_chat_template(document[:number], tokenize=False, add_generation_prompt=True)
        asked = encode(head[len(seen) :])
        answer = encode(message["content"] + TURN_END)
        ids += [*asked, *answer]
        weights += [*[READ_ONLY] * len(asked), answer_weight, *[1.0] * (len(answer) - 1)]
        seen = head + message["content"] + TURN_END
    return Encoded([*ids, end], [*weights, READ_ONLY])


def rows_of(documents: Sequence[Document], tokenizer: Any, plan: PretrainingPlan) -> list[Encoded]:
    """The rows that batches are made of: plain texts joined up to `plan.row_tokens`, every other document alone."""
    rows: list[Encoded] = []
    ids: list[int] = []
    weights: list[float] = []
    for document in documents:
        encoded = encode_document(document, tokenizer, plan.answer_weight)
        if not isinstance(document, str):
            rows.append(Encoded(encoded.ids[: plan.max_tokens], encoded.weights[: plan.max_tokens]))
            continue
        if ids and len(ids) + len(encoded.ids) > plan.row_tokens:
            rows.append(Encoded(ids[: plan.max_tokens], weights[: plan.max_tokens]))
            ids, weights = [], []
        ids, weights = ids + encoded.ids, weights + encoded.weights
    return [*rows, Encoded(ids[: plan.max_tokens], weights[: plan.max_tokens])] if ids else rows


def batches(
    rows: Sequence[Encoded], pad_id: int, batch_tokens: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(token ids, loss weights), (n_rows, length) each, padded on the right; rows of like length together."""
    order = sorted(rows, key=lambda row: len(row.ids) + rng.random() * ROUNDED_TO)
    chunks: list[list[Encoded]] = [[]]
    longest = 0
    for row in order:
        longest = max(longest, len(row.ids))
        if chunks[-1] and (len(chunks[-1]) + 1) * longest > batch_tokens:
            chunks.append([])
            longest = len(row.ids)
        chunks[-1].append(row)
    rng.shuffle(chunks)
    for chunk in chunks:
        length = -(-max(len(row.ids) for row in chunk) // ROUNDED_TO) * ROUNDED_TO
        ids, weights = torch.full((len(chunk), length), pad_id), torch.zeros(len(chunk), length)
        for place, row in enumerate(chunk):
            ids[place, : len(row.ids)] = torch.tensor(row.ids)
            weights[place, : len(row.ids)] = torch.tensor(row.weights)
        yield ids, weights


def weighted_loss(
    model: Any, ids: torch.Tensor, weights: torch.Tensor, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    """Weighted mean cross-entropy of each next token; only positions that count reach the output layer.

    A row's first token is predicted by nothing and carries no loss.
    """
    counted = weights[:, 1:] > 0
    hidden = hidden_states(model, ids, dtype)[:, :-1][counted]
    loss: torch.Tensor = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, model.lm_head.weight, ids[:, 1:][counted], weights[:, 1:][counted]
    )
    return loss


def pretrain(
    model: Any,
    tokenizer: Any,
    epoch: Callable[[random.Random, int], list[Document]],
    plan: PretrainingPlan,
    *,
    seed: int,
    on_log: Callable[[dict[str, float]], None],
    is_learned: Callable[[], bool] = lambda: False,
) -> list[dict[str, float]]:
    """Trains `model` in place for `plan.n_steps` steps, drawing the corpus anew each time it has been read.

    A model from nothing goes through `tie_queries_to_keys` first. Ends early once `is_learned`, asked at every log.

    Returns the log: step, tokens read, loss (running mean), learning rate, seconds.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    optimisers = _optimisers(model, plan)
    log: list[dict[str, float]] = []
    started, running, n_tokens, step, number = time.monotonic(), 0.0, 0, 0, 0
    model.train()
    while True:
        rows = rows_of(epoch(rng, number), tokenizer, plan)
        number += 1
        for ids, weights in batches(rows, tokenizer.pad_token_id, plan.batch_tokens, rng):
            loss = weighted_loss(model, ids, weights)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_grad_norm)
            rate = plan.learning_rate_at(step)
            for optimiser, share in zip(optimisers, (1.0, plan.embedding_share), strict=True):
                for group in optimiser.param_groups:
                    group["lr"] = rate * share
                optimiser.step()
                optimiser.zero_grad()
            running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
            n_tokens += int((ids != tokenizer.pad_token_id).sum())
            step += 1
            if step % plan.log_every == 0 or step == plan.n_steps:
                log.append(
                    {
                        "step": step,
                        "tokens": n_tokens,
                        "loss": round(running, 4),
                        "learning_rate": rate,
                        "wall_s": round(time.monotonic() - started, 1),
                    }
                )
                on_log(log[-1])
                if step == plan.n_steps or is_learned():
                    model.eval()
                    return log


def _optimisers(model: Any, plan: PretrainingPlan) -> list[torch.optim.Optimizer]:
    """(for hidden matrices, for embeddings and norms)."""
    hidden = [
        p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "lm_head" not in name
    ]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(hidden, lr=plan.learning_rate, weight_decay=plan.weight_decay),
        torch.optim.AdamW(rest, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
