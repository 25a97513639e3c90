"""What we need of TRL and transformers beyond their public names: the file that an upgrade of theirs touches.

Their private parts stand here, and in `grouped.py`, whose trainer replaces some of TRL's methods for speed and is held
against stock TRL by its tests. Everything else meets a trainer by public names and by the functions below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trl.trainer.utils
from peft import PeftModel
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from medjudge.errors import ModelError
from medjudge.training.group_resampling import Drawn, Resampler


class ContractGrpoTrainer(GRPOTrainer):  # type: ignore[misc]  # TRL ships no types
    """TRL's trainer, sampling from the very prompt tokens that SFT trained on and evaluation uses."""

    prompt_ids_by_text: Mapping[str, list[int]]
    resampler: Resampler | None = None
    before_rollouts: Callable[[], None] | None = None
    """Called whenever a new batch of rollouts is due: what changes how they are drawn and scored changes here."""
    grad_norm: float | None = None
    """Of the last optimiser step, before clipping; transformers itself tells it only when it logs."""

    def load_stopped(self, checkpoint: Path, loss: float) -> None:
        """Takes weights and log of a checkpoint and trains no further. `loss`: the sum over its steps."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        # The entry with which a training ends; it was not written before the checkpoint.
        self.log({"total_flos": self.state.total_flos, "train_loss": loss / max(1, self.state.global_step)})

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.grad_norm = float(norm)
        return norm

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.before_rollouts is not None:
            self.before_rollouts()
        self._rows = inputs
        return dict(super()._generate_and_score_completions(inputs))

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        # TRL's tuple: prompt ids, completion ids, tool mask, completions, log-probabilities, and what is of the batch.
        drawn: tuple[Any, ...] = super()._generate(prompts)
        if self.resampler is None:
            return drawn
        generate = super()._generate

        def draw(texts: list[str]) -> Drawn:
            return _drawn(generate(texts))

        kept = _drawn(drawn)
        self.resampler.fill(self._rows, prompts, kept, draw, self.state.global_step)
        return (kept.prompt_ids, kept.completion_ids, drawn[2], kept.completions, kept.log_probs, *drawn[5:])

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int] | None], None, dict[str, Any]]:
        ids = [self.prompt_ids_by_text.get(text) for text in prompts]
        if None in ids:  # a KeyError would carry the prompt into the log
            raise ModelError("the trainer asks for a prompt that the contract did not render. Run again with --fresh.")
        return ids, None, {}


def _drawn(of_trl: tuple[Any, ...]) -> Drawn:
    prompt_ids, completion_ids, _, completions, log_probs, *_ = of_trl
    return Drawn(prompt_ids, completion_ids, completions, log_probs)


def last_advantages(trainer: Any, n: int) -> list[float]:
    """Advantages of the last `n` rollouts, in their order: TRL keeps those of its last generation batch."""
    return list(trainer._logs["advantages"])[-n:]


def step_mean(trainer: Any, name: str) -> float | None:
    """The mean of a metric over the micro-batches of the step that ended, from what TRL collects until it logs."""
    values = trainer._metrics["train"].get(name, [])
    last = values[-trainer.current_gradient_accumulation_steps :]
    return float(sum(last) / len(last)) if last else None


def summed_loss(trainer: Any) -> float:
    """Sum of the losses of all steps so far. May be nan."""
    return float(trainer._total_loss_scalar)


def summed_tokens(trainer: Any) -> int | float:
    """Tokens trained on so far; 0 for a trainer that counts none."""
    return getattr(trainer, "_total_train_tokens", 0)


def restore_sums(trainer: Any, *, loss: float, tokens: int | float | None) -> None:
    """Puts back the sums of an earlier session; to be called in `on_train_begin`, before which they are set to 0."""
    trainer._total_loss_scalar = loss
    trainer._initial_global_step = 0  # the mean loss is over the steps of all sessions
    if hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = tokens


def set_temperature(trainer: Any, temperature: float) -> None:
    """Samples, and scores what was sampled, at another temperature from here on. Only between batches of rollouts."""
    trainer.temperature = temperature
    trainer.generation_config.temperature = temperature
    trainer.generation_kwargs["temperature"] = temperature
    if trainer.use_vllm:
        trainer.vllm_generation.temperature = temperature
    model = trainer.accelerator.unwrap_model(trainer.model)
    scored: dict[Any, tuple[str, ...]] = {
        model.get_base_model() if isinstance(model, PeftModel) else model: ("log_probs", "entropy")
    }
    if trainer.ref_model is not None:
        scored[trainer.accelerator.unwrap_model(trainer.ref_model)] = ("log_probs",)
    for part, outputs in scored.items():
        # TRL fixes the temperature of its fused head when it adds it; the head that is added last is the one in use.
        add_fused_lm_head(
            part,
            temperature=temperature,
            cast_lm_head_to_fp32=trainer.args.cast_lm_head_to_fp32,
            outputs=outputs,
        )


def limit_to_one_device(arguments: Any) -> Any:
    """The same `TrainingArguments`, for one device: `n_gpu` has no public setter."""
    # transformers would spread a batch over every GPU it sees, and prompts per step would not be what the plan says.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


@contextmanager
def head_on_labels_only() -> Iterator[None]:
    """TRL's fused LM head computes the positions that carry loss, and no others, on every device.

    TRL does so where Triton runs and scores prompts too elsewhere, lest a compiler meet a new shape in each batch; on a
    CPU nothing is compiled. The loss is the same sum.
    """
    before = trl.trainer.utils._use_triton
    trl.trainer.utils._use_triton = lambda device: device.type == "cpu" or before(device)
    try:
        yield
    finally:
        trl.trainer.utils._use_triton = before
