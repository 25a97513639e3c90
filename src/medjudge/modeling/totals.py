"""What a trainer sums up in memory, kept in its checkpoints: a resumed training's log is that of an uninterrupted one.

transformers and TRL average what they log over the steps since the last entry, and sum losses and tokens over the steps
of one `train()` call. A checkpoint between two entries would lose the first half of an average, and a resumed training
would report the mean loss and the tokens of its last sitting alone. So each checkpoint is preceded by an entry of the
log, and holds the sums; what TrainerState keeps itself (log, total_flos, GRPO's num_tokens) is left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from medjudge import artifacts


class Totals(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Stands after callbacks that decide to save, and before the `Watch`, which marks a checkpoint as whole.

    `trainer` is set once the trainer is made.
    """

    trainer: Any

    def __init__(
        self,
        checkpoint: Path | None,
        *,
        others: Mapping[str, tuple[Callable[[], Any], Callable[[Any], None]]] | None = None,
    ) -> None:
        """`checkpoint`: where a training goes on. `others`: name -> (state to keep, what takes it back), as JSON."""
        path = checkpoint / artifacts.TOTALS if checkpoint is not None else None
        self.kept: dict[str, Any] = artifacts.read_json(path) if path is not None and path.exists() else {}
        self.others = dict(others or {})
        for name, (_, restore) in self.others.items():
            if name in self.kept:
                restore(self.kept[name])

    @property
    def loss(self) -> float:
        """Sum of the losses of all steps up to the checkpoint."""
        return float(self.kept.get("loss", 0.0))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Puts the sums back; transformers has just set its own to 0."""
        if not self.kept:
            return
        self.trainer._total_loss_scalar = self.loss
        self.trainer._initial_global_step = 0  # the mean loss is over the steps of all sittings
        if hasattr(self.trainer, "_total_train_tokens"):
            self.trainer._total_train_tokens = self.kept["tokens"]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An entry of the log before each checkpoint."""
        if control.should_save:
            control.should_log = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the sums into the checkpoint."""
        checkpoints = Path(args.output_dir)
        artifacts.write_json(
            checkpoints / f"checkpoint-{state.global_step}" / artifacts.TOTALS,
            {
                "loss": self.trainer._total_loss_scalar,
                "tokens": getattr(self.trainer, "_total_train_tokens", 0),
                **{name: state_of() for name, (state_of, _) in self.others.items()},
            },
        )
        artifacts.note_sitting(checkpoints.parent)
