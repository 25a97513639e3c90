"""Grouped GRPO: TRL's trainer, with the prompt that a group shares read once in the rollout and once in the gradient.

Stock GRPO repeats the prompt for each of its G completions. Here the rows of a micro-batch that have one prompt become
one stretch of a packed row, `[prompt][c1]..[cG]`, with position ids that restart after the prompt; each completion sees
the prompt and itself. Only the positions that predict a completion token reach the LM head. Log-probabilities and
entropies come out in TRL's own layout, so that all of its losses and metrics are computed by its own code, and loss and
gradient are those of the repeated batch up to rounding (`tests/training/test_grouped.py`).

Cost per group is linear in P + G * C for a prompt of P and completions of C tokens, beside the attention of the prompt
on itself and of the completions on the prompt, which no layout avoids. A plain 4-D mask over the packed row would make
attention cost (P + G * C)^2: more than the G * (P + C)^2 of the repeated batch as soon as G * C is several times P. So
the row is computed in blocks of whole completions, each against the prompt and itself alone.

Dropout is the one thing that differs in kind: a dropped unit of the prompt is dropped for the whole group, and rollouts
are drawn without dropout, where stock TRL leaves it on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_tensor_dict

from medjudge.inference.prefix import disagreement, refuse_extras, why_not
from medjudge.inference.rollouts import Limits, Sampling, roll_out
from medjudge.models.cpu_forward import CpuForward
from medjudge.settings.model import ModelConfig
from medjudge.training.packed_sft import proven_forward

ATTENTION = "medjudge_grouped"
"""Name under which transformers finds `_attention`."""
ROLLOUT_TOKENS = 32768
"""Tokens of prompts and completions that one batch of rollouts holds."""
KNOWN_GENERATION_SETTINGS = frozenset({"suppress_tokens"})
"""Of TRL's free `generation_kwargs`, those that shared rollouts take; with any other, `generate` samples."""


# --- rollouts with LoRA -----------------------------------------------------------------------------------------------


@contextmanager
def lora_folded(model: Any) -> Iterator[None]:
    """LoRA's product added to the weights it belongs to while rollouts are drawn: leaves a third of matrix products.

    In float32 on a CPU alone, where the sum differs from the two apart in the last bits only and a second copy of the
    adapted weights is cheap. The weights themselves come back afterwards, not the sum less the product.
    """
    adapted = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    # All layers or none: a model with some of them folded would be neither as fast nor as easy to put back.
    layers: list[Any] = adapted if all(map(_folds, adapted)) else []
    # The tensors themselves, not copies: unmerging would subtract the product and leave its rounding in the base
    # weights.
    own = [layer.get_base_layer().weight.data for layer in layers]
    try:
        for layer, weight in zip(layers, own, strict=True):
            layer.get_base_layer().weight.data = weight.clone()
            layer.merge()
        yield
    finally:
        for layer, weight in zip(layers, own, strict=True):
            layer.get_base_layer().weight.data = weight
            # What PEFT's `unmerge` would clear; the weights are back already.
            layer.merged_adapters.clear()


def _folds(layer: Any) -> bool:
    weight = layer.get_base_layer().weight
    is_plain = isinstance(layer, LoraLinear) and type(layer.get_base_layer()) is torch.nn.Linear and not layer.merged
    return is_plain and weight.dtype == torch.float32 and weight.device.type == "cpu"


# --- packing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring tokens of the packed row that are attended from at one time."""

    start: int
    end: int
    prompt: tuple[int, int] | None
    """Where the prompt lies that these completions see; None for the tokens of a prompt itself."""
    mask: Tensor | None
    """(n, n_prompt + n) where allowed; None for causal attention within the block."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The rows of a micro-batch as one row. `scored` is (n_rows, n_completion), the others count its tokens."""

    ids: Tensor
    """(1, n): prompts and completions, each completion without its last token, which predicts nothing."""
    positions: Tensor
    """(1, n): restarting after the prompt with each completion."""
    blocks: list[Block]
    predictors: Tensor
    """(m,): the places of the hidden states that predict the scored tokens, row by row."""
    labels: Tensor
    """(1, m): the scored tokens; -100 where none is, so that a loss over nothing still has a graph."""
    scored: Tensor
    """(n_rows, n_completion): the completion tokens that are neither padding nor masked as truncated."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, dropout: float) -> Tensor:
        """Attention over (1, heads, n, head_dim), grouped-query heads included."""
        heads, n, d = query.shape[1:]
        kv_heads = key.shape[1]
        query = query.reshape(kv_heads, heads // kv_heads, n, d)
        key, value = key[0], value[0]  # (kv_heads, n, head_dim)
        out = []
        for block in self.blocks:
            mine = slice(block.start, block.end)
            if block.prompt is None:
                keys, values = key[:, mine], value[:, mine]
            # The first completions stand right after their prompt: one slice holds both, and no keys are copied.
            elif block.prompt[1] == block.start:
                keys, values = key[:, block.prompt[0] : block.end], value[:, block.prompt[0] : block.end]
            else:
                seen = slice(*block.prompt)
                keys = torch.cat([key[:, seen], key[:, mine]], dim=1)
                values = torch.cat([value[:, seen], value[:, mine]], dim=1)
            out.append(
                functional.scaled_dot_product_attention(
                    query[:, :, mine],
                    keys[:, None].expand(-1, query.shape[1], -1, -1),
                    values[:, None].expand(-1, query.shape[1], -1, -1),
                    attn_mask=block.mask,
                    dropout_p=dropout,
                    # A block without a mask is a prompt: SDPA's causal kernel needs no (n, n) mask in memory.
                    is_causal=block.mask is None,
                    scale=scale,
                )
            )
        return torch.cat(out, dim=2).reshape(1, heads, n, -1)

    def unpack(self, values: Tensor) -> Tensor:
        """(1, m) -> (n_rows, n_completion), 0 where nothing is scored, with a graph even if that is everywhere."""
        return values.new_zeros(self.scored.shape).masked_scatter(self.scored, values)


def pack(prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor) -> Packed:
    """Rows (n_rows, n_prompt), padded on the left, and (n_rows, n_completion), padded on the right, as one row.

    Rows with equal prompts share it, wherever they stand. A completion that is masked as a whole is left out.
    """
    device = completion_ids.device
    # On the CPU, once: the loops below would otherwise wait for the GPU at every element.
    scored = completion_mask.bool().cpu()
    lengths = scored.sum(1).tolist()
    members: dict[tuple[int, ...], list[int]] = {}
    for row, padded in enumerate(zip(prompt_ids.tolist(), prompt_mask.tolist(), strict=True)):
        members.setdefault(tuple(token for token, real in zip(*padded, strict=True) if real), []).append(row)
    completions = completion_ids.tolist()

    ids: list[int] = []
    positions: list[int] = []
    blocks: list[Block] = []
    predictors: list[list[int]] = [[] for _ in lengths]
    for prompt, rows in members.items():
        start, n_prompt = len(ids), len(prompt)
        end = start + n_prompt
        ids += prompt
        positions += range(n_prompt)
        blocks.append(Block(start, end, None, None))
        rows = [row for row in rows if lengths[row]]
        for row in rows:
            # The last token predicts nothing, and the first is predicted by the prompt's last: one place each.
            n = lengths[row] - 1
            predictors[row] = [end - 1, *range(len(ids), len(ids) + n)]
            ids += completions[row][:n]
            positions += range(n_prompt, n_prompt + n)
        sizes = [lengths[row] - 1 for row in rows if lengths[row] > 1]
        blocks += _completion_blocks(sizes, (start, end), device)
    places = [place for row in predictors for place in row]
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        blocks,
        # A batch in which nothing is scored still needs one place, or backward would have no graph to walk.
        torch.tensor(places or [0], device=device),
        completion_ids[scored.to(device)][None] if places else torch.full((1, 1), -100, device=device),
        scored.to(device),
    )


def _completion_blocks(sizes: Sequence[int], prompt: tuple[int, int], device: torch.device) -> list[Block]:
    """The completions of one group in blocks of whole completions, of up to a quarter of the prompt's length.

    A block of b tokens computes b * (P + b) scores where b * (P + C) are needed, and copies the P keys of the prompt:
    with b near P / 4, at most a quarter of the scores are not needed, and about 4 * G * C keys are copied. Both are
    linear in G * C, which neither one block for all completions nor one for each would be. On a GPU blocks are up to
    the prompt's length, since a launch there costs more than scores that are not needed.
    """
    limit = (prompt[1] - prompt[0]) // (1 if device.type == "cuda" else 4)
    blocks: list[Block] = []
    start, waiting = prompt[1], list(sizes)
    while waiting:
        # At least one completion, also where it alone is longer than the limit.
        chosen = [waiting.pop(0)]
        while waiting and sum(chosen) + waiting[0] <= limit:
            chosen.append(waiting.pop(0))
        end = start + sum(chosen)
        owner = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor(chosen))
        own = (owner[:, None] == owner) & torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
        seen = torch.ones(len(owner), prompt[1] - prompt[0], dtype=torch.bool)
        blocks.append(Block(start, end, prompt, torch.cat([seen, own], dim=1).to(device)))
        start = end
    return blocks


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: Packed | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer: a packed row in blocks, anything else by its own SDPA attention."""
    if packed is None:
        stock: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return stock
    refuse_extras(kwargs)
    return packed.attend(query, key, value, scaling, dropout).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _keep_predictors(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Forward hook of the backbone: the LM head then sees only the positions that predict a completion token."""
    packed = kwargs.get("packed")
    if packed is not None:
        output.last_hidden_state = output.last_hidden_state.index_select(1, packed.predictors)
    return output


def shuffled_groups(rows: dict[str, Any], group_size: int) -> dict[str, Any]:
    """As TRL's `shuffle_sequence_dict`, with the rows of a group kept together."""
    n_rows = len(rows["prompt_ids"])
    # torch.randperm, as TRL's own shuffle: the draw comes from the seed that the trainer set.
    size = math.gcd(n_rows, group_size)  # a process of several may hold parts of groups
    order = torch.randperm(n_rows // size)
    order = (order[:, None] * size + torch.arange(size)).flatten()

    def permuted(value: Any) -> Any:
        if value is None or (isinstance(value, Tensor) and value.ndim == 0):
            return value
        return value[order] if isinstance(value, Tensor) else [value[i] for i in order]

    return {name: permuted(value) for name, value in rows.items()}


def _packed_log_probs(
    forward: CpuForward, input_ids: Tensor, mask: Tensor, n_prompt: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """(log-probabilities, entropies) (n_rows, n_completion) by the pass for CPUs, 0 where nothing is scored."""
    rows = [row[real].tolist() for row, real in zip(input_ids, mask, strict=True)]
    starts = mask[:, :n_prompt].sum(1).tolist()
    scored = [range(start, len(row)) for start, row in zip(starts, rows, strict=True)]
    scores, places = forward.score_rows(rows, scored, temperature), mask[:, n_prompt:]
    empty = scores.log_probs.new_zeros(places.shape)
    return empty.masked_scatter(places, scores.log_probs), empty.masked_scatter(places, scores.entropies)


# --- the trainer ------------------------------------------------------------------------------------------------------


class GroupedGrpoTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL ships no types
    """TRL's GRPO trainer that reads each prompt once per group; where it cannot, it is TRL's and says why, once."""

    def __init__(self, *args: Any, on_stock: Callable[[str], None] | None = None, **kwargs: Any) -> None:
        """As GRPOTrainer. `on_stock` is called, once per reason, with why something is left to stock TRL."""
        super().__init__(*args, **kwargs)
        self._on_stock = on_stock or logging.getLogger(__name__).warning
        self._reported: set[str] = set()
        self.forwards: list[CpuForward] = []
        """The passes for CPUs of the policy and of a reference model, where they are used."""
        self._never = self._unfit()
        if self._never is None:
            for model in (self.model, self.ref_model):
                if model is not None:
                    base = self.accelerator.unwrap_model(model)
                    # PEFT's wrapper has a config and hooks of its own: attention is chosen where the layers read it.
                    base = base.get_base_model() if hasattr(base, "get_base_model") else base
                    base.config._attn_implementation = ATTENTION
                    base.base_model.register_forward_hook(_keep_predictors, with_kwargs=True)
            self._never = self._disproof()

    def _unfit(self) -> str | None:
        """Why nothing of this run can be grouped, or None."""
        if self._is_vlm:
            return "the model is multimodal"
        if self.tools or self.environment_factories is not None:
            return "rollouts use tools"
        if self.aux_loss_enabled:
            return "the load-balancing loss of its experts counts each repeated prompt"
        return why_not(self.model, 0)

    @torch.no_grad()
    def _disproof(self) -> str | None:
        """Why two short groups come out otherwise than by stock TRL, or None if they do not."""
        # Two groups of two rows, prompts of 6 tokens and completions of 5, with padding on both sides: whatever the
        # packing has to get right, in the least tokens. The numbers only have to differ.
        ids = (torch.arange(44).view(4, 11) * 7 + 3) % self.model.get_input_embeddings().weight.shape[0]
        # Rows of one group share their prompt.
        ids[1, :6], ids[3, :6] = ids[0, :6], ids[2, :6]
        mask = torch.ones_like(ids)
        mask[2:, :2] = mask[0, 8:] = 0
        rows = (ids.to(self.accelerator.device), mask.to(self.accelerator.device), 5)
        was_training = self.model.training
        self.model.eval()
        try:
            theirs, _, _ = super()._get_per_token_logps_and_entropies(self.model, *rows)
            ours, _ = self._grouped_logps_and_entropies(self.model, *rows)
        except Exception as error:  # of any library: stock TRL is used instead
            return f"the model does not take packed groups ({type(error).__name__})"
        finally:
            self.model.train(was_training)
        is_exact = self.model.dtype == torch.float32 and not (self.args.bf16 or self.args.fp16)
        return disagreement(ours, theirs, is_exact=is_exact)

    def use_packed(self, config: ModelConfig) -> None:
        """Takes the pass for CPUs, in gradient and rollouts, where it is right for this training; once, before `train`.

        `config`: says in which type to compute, and whether transformers' own attention is asked for.
        """
        if self._never is not None or self.args.cast_lm_head_to_fp32:
            return
        say = partial(logging.getLogger(__name__).info, "grpo: %s")
        if self.args.entropy_coef or self.args.use_adaptive_entropy:
            # Its entropies carry no gradient: the bonus would be shown and do nothing.
            say("the pass for CPUs is not used, that of transformers is: an entropy bonus is asked for.")
            return
        ids = [(7 * i + 3) % self.model.get_input_embeddings().weight.shape[0] for i in range(40)]
        models = [self.accelerator.unwrap_model(one) for one in (self.model, self.ref_model) if one is not None]
        forwards = [proven_forward(model, config, self.args, [ids, ids[:20] + ids[5:]], say) for model in models]
        # All or none: a KL between two ways of rounding would not be 0 where the policies are the same.
        self.forwards = [one for one in forwards if one is not None] if None not in forwards else []

    def _forward_of(self, model: Any) -> CpuForward | None:
        model = self.accelerator.unwrap_model(model)
        return next((one for one in self.forwards if one.model is model), None)

    def _stock_because(self, what: str, reason: str | None) -> bool:
        """Whether there is a reason for stock TRL; a new one is reported."""
        if reason is not None and (message := f"{what} by stock TRL: {reason}.") not in self._reported:
            self._reported.add(message)
            self._on_stock(message)
        return reason is not None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """As TRL's, but rows are shuffled by whole groups between the micro-batches of a generation batch."""
        # As TRL counts: a batch of rollouts serves so many micro-steps before the next is drawn.
        every = self.args.steps_per_generation * self.num_iterations
        is_new = self._step % every == 0 or self._buffered_inputs is None
        if self._never is not None or not self.model.training or not is_new:
            return super()._prepare_inputs(generation_batch)
        rows = shuffled_groups(self._generate_and_score_completions(generation_batch), self.num_generations)
        self._buffered_inputs: Any = split_tensor_dict(rows, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **multimodal: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log-probabilities and entropies (n_rows, logits_to_keep) as TRL's, 0 where nothing is scored."""
        longest = int(attention_mask.sum(1).max())
        if self._stock_because("gradient", self._never or why_not(self.model, longest)):
            return super()._get_per_token_logps_and_entropies(  # type: ignore[no-any-return]
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **multimodal,
            )
        size = batch_size or len(input_ids)
        # In TRL's chunks: it asks for them where all rows at once would not fit in memory.
        parts = [
            self._grouped_logps_and_entropies(
                model, input_ids[start : start + size], attention_mask[start : start + size], logits_to_keep
            )
            for start in range(0, len(input_ids), size)
        ]
        entropies = torch.cat([entropy for _, entropy in parts]) if compute_entropy else None
        return torch.cat([logps for logps, _ in parts]), entropies, None

    def _grouped_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int
    ) -> tuple[Tensor, Tensor]:
        """(log-probabilities, entropies) of one forward pass; a reference model has no entropies and gives zeros."""
        n_prompt = input_ids.shape[1] - logits_to_keep
        scored = attention_mask[:, n_prompt:].bool()
        forward = self._forward_of(model)
        if forward is not None and bool(scored.any()):
            return _packed_log_probs(forward, input_ids, attention_mask.bool(), n_prompt, self.temperature)
        packed = pack(
            input_ids[:, :n_prompt], attention_mask[:, :n_prompt], input_ids[:, n_prompt:], attention_mask[:, n_prompt:]
        )
        with self.accelerator.autocast():
            outputs = model(
                input_ids=packed.ids,
                position_ids=packed.positions,
                # Any 4-D mask stops transformers from building its own; the blocks are what counts.
                attention_mask=packed.scored.new_ones(1, 1, 1, 1),
                shift_labels=packed.labels,
                fused_lm_head=True,
                packed=packed,
            )
        # TRL adds entropies to the policy's head alone.
        entropies = outputs.entropy if outputs.entropy is not None else torch.zeros_like(outputs.log_probs)
        return packed.unpack(outputs.log_probs), packed.unpack(entropies)

    def _own_generator(self, n_prompt: int) -> str | None:
        """Why the rollouts of prompts of up to `n_prompt` tokens are not ours, or None."""
        if self.use_vllm:
            return "the recipe chose vLLM"
        if self.use_transformers_continuous_batching:
            return "the recipe chose continuous batching"
        if self.args.cache_implementation:
            return "`cache_implementation` is set"
        if extra := sorted(set(self.args.generation_kwargs or ()) - KNOWN_GENERATION_SETTINGS):
            return f"`generation_kwargs` sets {', '.join(extra)}"
        return self._never or why_not(self.model, n_prompt + self.max_completion_length)

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], Any]:
        """Completions of prompts that come repeated, once per completion; each distinct prompt is read once."""
        if self._stock_because("rollouts", self._own_generator(max(map(len, prompt_ids)))):
            return super()._generate_single_turn(  # type: ignore[no-any-return]
                prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
            )
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            # The context of TRL's own `generate`: weights that ZeRO-3 or FSDP have split are gathered here.
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            nullcontext() if self.forwards else lora_folded(model),
        ):
            rollouts = roll_out(
                self._forward_of(model) or model,
                prompt_ids,
                sampling=Sampling(
                    temperature=self.temperature,
                    top_k=self.top_k,
                    top_p=self.top_p,
                    min_p=self.min_p,
                    repetition_penalty=self.repetition_penalty,
                    suppress=tuple((self.args.generation_kwargs or {}).get("suppress_tokens") or ()),
                ),
                limits=Limits(self.eos_token_ids, self.max_completion_length),
                batch_tokens=ROLLOUT_TOKENS,
            )
        return [ids for (ids,) in rollouts], None
