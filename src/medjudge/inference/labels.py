"""Log-probabilities of a closed label set in one forward pass: what the label engine and the all-action gradient share.

A row is `[prompt][label tree]`. Labels that begin alike share those tokens, so the tree holds each distinct beginning
once; every token of it sees the prompt, its own ancestors and itself, at the position that it would have in its own
completion. Only the prompt's last token and the tree reach the LM head. A label's log-probability is the sum over its
tokens, the stop token too, exactly as if the label had been appended alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from medjudge.inference.prefix import attention_of, device_of
from medjudge.models.cpu_forward import CpuForward
from medjudge.tasks.encoding import LabelIds


@dataclass(frozen=True, slots=True)
class LabelTree:
    """Labels as token paths from a root, the last token of prompt and frame. Node 0 is the root, parents come first."""

    forced: tuple[int, ...]
    """The frame: it follows every prompt and is not scored."""
    tokens: tuple[int, ...]
    """Token of each inner node, the root left out; a label's last token is only predicted, never read."""
    parents: tuple[int, ...]
    """Parent node of each inner node, the root left out."""
    edges: tuple[tuple[int, int], ...]
    """(node, token): every token that some label takes at a node."""
    paths: tuple[tuple[int, ...], ...]
    """Edges of each label, in the order of `contract.labels`."""

    @classmethod
    def of(cls, ids: LabelIds) -> LabelTree:
        """The tree of labels none of which begins another."""
        nodes: dict[tuple[int, ...], int] = {(): 0}
        edges: dict[tuple[int, int], int] = {}
        parents: list[int] = []
        paths: list[tuple[int, ...]] = []
        for label in ids.labels:
            path = []
            for i, token in enumerate(label):
                parent = nodes[label[:i]]
                path.append(edges.setdefault((parent, token), len(edges)))
                if i + 1 < len(label) and label[: i + 1] not in nodes:
                    nodes[label[: i + 1]] = len(nodes)
                    parents.append(parent)
            paths.append(tuple(path))
        tokens = tuple(beginning[-1] for beginning in nodes if beginning)
        return cls(ids.forced, tokens, tuple(parents), tuple(edges), tuple(paths))

    @property
    def depths(self) -> tuple[int, ...]:
        """Depth of each inner node, 1 for a child of the root."""
        depths_so_far = [0]
        for parent in self.parents:
            depths_so_far.append(depths_so_far[parent] + 1)
        return tuple(depths_so_far[1:])

    @property
    def n_tokens(self) -> int:
        """Tokens that a row takes beside its prompt."""
        return len(self.forced) + len(self.tokens)


def label_log_probs(
    model: Any,
    prompts: Sequence[Sequence[int]],
    tree: LabelTree,
    *,
    prefix: DynamicCache | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """(n_prompts, n_labels) log-probabilities of the labels after each prompt, float32, with gradients where enabled.

    prefix: what `read_cache` made of the tokens that all `prompts` begin with; only their rest is then computed, and
    every prompt has at least one token of its own. `prompts` are given whole. Exact on models for which
    `inference.prefix.why_not` gives None; take `label_log_probs_apart` for others.
    """
    n_prefix = prefix.get_seq_length() if prefix is not None else 0
    rests = [[*ids[n_prefix:], *tree.forced] for ids in prompts]
    device = device_of(model)
    width, n_nodes = max(map(len, rests)), len(tree.tokens)
    # Padding stands on the left, so that root and tree take the same last columns in every row.
    lengths = torch.tensor([len(rest) for rest in rests])
    padding = (width - lengths)[:, None]
    ids = torch.tensor([[rest[0]] * (width - len(rest)) + rest + list(tree.tokens) for rest in rests])
    columns = torch.arange(width)
    depths = torch.tensor(tree.depths, dtype=torch.long)
    positions = torch.cat(
        [(columns - padding).clamp(min=0) + n_prefix, n_prefix + lengths[:, None] - 1 + depths], dim=1
    )
    mask = _tree_mask(tree, width) & (torch.arange(width + n_nodes) >= padding)[:, None, :]
    mask |= torch.eye(width + n_nodes, dtype=torch.bool)  # a padding token sees itself: a softmax over nothing is nan
    if n_prefix:
        mask = torch.cat([mask.new_ones(len(rests), width + n_nodes, n_prefix), mask], dim=2)
    cache = _expanded(prefix, len(rests)) if prefix is not None else None
    with attention_of(model, "sdpa"):  # which takes a mask of any shape
        logits = model(
            input_ids=ids.to(device),
            attention_mask=mask[:, None].to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=n_nodes + 1,
        ).logits
    return _path_sums(logits, tree, temperature)


def label_log_probs_packed(
    forward: CpuForward, prompts: Sequence[Sequence[int]], tree: LabelTree, *, temperature: float = 1.0
) -> Tensor:
    """As `label_log_probs`, by the pass for CPUs: a prompt, and what prompts begin with, is computed once."""
    rows, scored = [], []
    for prompt in prompts:
        for path in tree.paths:
            row = [*prompt, *tree.forced, *(tree.edges[edge][1] for edge in path)]
            rows.append(row)
            scored.append(range(len(row) - len(path), len(row)))
    log_probs = forward.score_rows(rows, scored, temperature).log_probs
    sums = [part.sum() for part in torch.split(log_probs, [len(chosen) for chosen in scored])]
    return torch.stack(sums).view(len(prompts), len(tree.paths))


def label_log_probs_apart(
    model: Any, prompts: Sequence[Sequence[int]], tree: LabelTree, *, temperature: float = 1.0
) -> Tensor:
    """As `label_log_probs`, each label in a row and a batch of its own: slow, and exact on any model."""
    device = device_of(model)
    sums = []
    for prompt in prompts:
        for path in tree.paths:
            tokens = [tree.edges[edge][1] for edge in path]
            ids = torch.tensor([[*prompt, *tree.forced, *tokens]], device=device)
            logits = model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=len(tokens)).logits
            scores = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(-1)
            sums.append(scores[0].gather(-1, ids[0, -len(tokens) :, None]).sum())
    return torch.stack(sums).view(len(prompts), len(tree.paths))


def read_cache(model: Any, ids: Sequence[int]) -> DynamicCache:
    """Keys and values of the tokens that all prompts begin with, with gradients where they are enabled."""
    device = device_of(model)
    cache = DynamicCache()
    row = torch.tensor([list(ids)], device=device)
    with attention_of(model, "sdpa"):
        model(input_ids=row, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _tree_mask(tree: LabelTree, width: int) -> Tensor:
    """(n, n) where allowed: causal over `width` tokens of prompt and frame; a node sees those and its ancestors."""
    n = width + len(tree.tokens)
    mask = torch.ones(n, n, dtype=torch.bool).tril()
    mask[width:, width:] = False
    for node, parent in enumerate(tree.parents):
        if parent:
            mask[width + node] = mask[width + parent - 1]
        mask[width + node, width + node] = True
    return mask


def _expanded(prefix: DynamicCache, n_rows: int) -> DynamicCache:
    cache = DynamicCache()
    for i, layer in enumerate(prefix.layers):
        cache.update(layer.keys.expand(n_rows, -1, -1, -1), layer.values.expand(n_rows, -1, -1, -1), i)
    return cache


def _path_sums(logits: Tensor, tree: LabelTree, temperature: float) -> Tensor:
    """(n_rows, n_labels) from logits (n_rows, n_nodes, vocabulary), root first."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    nodes, tokens = (torch.tensor(column, device=logits.device) for column in zip(*tree.edges, strict=True))
    edges = logits[:, nodes, tokens] - logits.logsumexp(-1)[:, nodes]
    return torch.stack([edges[:, list(path)].sum(-1) for path in tree.paths], dim=1)
