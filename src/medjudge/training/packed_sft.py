"""TRL's SFT trainer with the loss computed by `models/cpu_forward.py`: on CPUs several times as fast.

Losses and metrics are those of TRL's own loss up to rounding (`tests/training/test_packed_sft.py`), and all else of a
training is TRL's. Where something is not covered, or the first rows come out otherwise, TRL's own loss is used, and one
line says why.

Dropout is the one thing that differs in kind: what rows share is computed once, with one draw for all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from medjudge.models.cpu_forward import CpuForward, base_of, disproof, pick_arithmetic, why_not
from medjudge.settings.model import ModelConfig

PROOF_ROWS = 3
PROOF_TOKENS = 128
"""Rows, and first tokens of each, that are compared with transformers before the first step."""


def step_aside(model: Any, config: ModelConfig, args: Any) -> str | None:
    """Why a training with these settings and arguments of transformers is left to transformers' own pass, or None."""
    if config.attn_implementation is not None:
        return "`model.attn_implementation` names an attention"
    if config.dtype == "float16":
        return "`model.dtype` is float16"
    if args.activation_checkpointing if hasattr(args, "activation_checkpointing") else args.gradient_checkpointing:
        return "gradients are checkpointed"
    if args.world_size > 1:
        return "several processes train"
    if getattr(args, "neftune_noise_alpha", None):
        return "embeddings get noise"
    return why_not(model)


def proven_forward(
    model: Any, config: ModelConfig, args: Any, rows: Sequence[Sequence[int]], on_stock: Callable[[str], None]
) -> CpuForward | None:
    """The fast pass of a model, compared on the first few of `rows`; None, with `on_stock` told why, where it is not.

    Where the model is not on a CPU nothing is said: nobody expects the pass there.
    """
    if base_of(model).device.type != "cpu":
        return None
    reason = step_aside(model, config, args)
    if reason is None:
        forward = CpuForward(model, pick_arithmetic(config.dtype, model))
        reason = disproof(forward, [row[:PROOF_TOKENS] for row in rows if len(row) > 1][:PROOF_ROWS])
        if reason is None:
            return forward
    on_stock(f"the pass for CPUs is not used, that of transformers is: {reason}.")
    return None


class PackedSftTrainer(SFTTrainer):  # type: ignore[misc]  # TRL ships no types
    """TRL's trainer; `forward` None leaves the loss to TRL."""

    forward: CpuForward | None = None

    def use_packed(self, config: ModelConfig) -> None:
        """Takes the fast pass where it is right for this training; to be called once, before `train`."""
        reason = self._unfit()
        say = logging.getLogger(__name__).info
        if reason is not None:
            say("sft: the pass for CPUs is not used, that of transformers is: %s.", reason)
            return
        first = [row["input_ids"] for row in self.train_dataset.select(range(min(PROOF_ROWS, len(self.train_dataset))))]
        self.forward = proven_forward(self.model, config, self.args, first, lambda line: say("sft: %s", line))

    def _unfit(self) -> str | None:
        args = self.args
        if args.loss_type != "nll" or args.label_smoothing_factor or self.compute_loss_func is not None:
            return "another loss than the mean over completion tokens is asked for"
        if args.packing or args.padding_free:
            return "`sft.trl` sets another packing"
        return None

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As TRL's, on rows without their padding."""
        if self.forward is None or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        mask = inputs["attention_mask"].bool()
        rows = [row[real].tolist() for row, real in zip(inputs["input_ids"], mask, strict=True)]
        labels = [row[real].tolist() for row, real in zip(inputs["labels"], mask, strict=True)]
        # The first token follows nothing, so its label is never scored, as in transformers.
        scored = [[t for t in range(1, len(row)) if row[t] != -100] for row in labels]
        mode, n_scored = "train" if self.model.training else "eval", sum(map(len, scored))
        n_items: Tensor | int = n_scored if num_items_in_batch is None else num_items_in_batch
        if not n_scored:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        scores = self.forward.score_rows(rows, scored)
        self._metrics[mode]["entropy"].append(float(scores.entropies.mean()))
        self._metrics[mode]["mean_token_accuracy"].append(float(scores.is_first.float().mean()))
        if mode == "train":
            self._total_train_tokens += sum(map(len, rows))
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        return -scores.log_probs.sum() / torch.as_tensor(n_items).clamp(min=1)
