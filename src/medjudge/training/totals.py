"""What a trainer sums up in memory, kept in its checkpoints: a resumed training's log is that of an uninterrupted one.

transformers and TRL average what they log over the steps since the last entry, and sum losses and tokens over the steps
of one `train()` call. A checkpoint between two entries would lose the first half of an average, and a resumed training
would report the mean loss and the tokens of its last session alone. So each checkpoint is preceded by an entry of the
log, and holds the sums; what TrainerState keeps itself (log, total_flos, GRPO's num_tokens) is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from medjudge import artifacts
from medjudge.rewards.composition import BatchReward
from medjudge.rewards.llm import LlmReward
from medjudge.training.trl_adapter import restore_sums, summed_loss, summed_tokens


class JudgeCounts:
    """What the judge models among the rewards counted, over all sessions of a stage, cut off and resumed.

    Marks belong to steps: a step that is done again after a resume counts once. What was asked of an endpoint and paid
    for stays so, whether its step is done again or not.
    """

    def __init__(self, work: Path, rewards: Mapping[str, BatchReward]) -> None:
        """`rewards`: of the run's plan, by name."""
        self.judges = {name: reward for name, reward in rewards.items() if isinstance(reward, LlmReward)}
        self.path = work / artifacts.CHECKPOINTS / artifacts.JUDGES

    def keep(self) -> None:
        """Keeps the marks that the pre-flight asked for, and what they cost."""
        if self.judges:
            self._write(self.states())

    def keep_spent(self) -> None:
        """Keeps what has been asked and paid for so far."""
        if any(judge.client is not None for judge in self.judges.values()):
            self._write(self._kept().get("states", {}))

    def resume(self, *, has_preflight: bool) -> None:
        """Goes on from an earlier session. has_preflight: its pre-flight counts, since it is not made again."""
        kept = self._kept()
        for name, judge in self.judges.items():
            if judge.client is not None and name in kept.get("spent", {}):
                judge.client.restore_spent(kept["spent"][name])
        if has_preflight:
            self.restore(kept.get("states", {}))

    def states(self) -> dict[str, Any]:
        """The marks so far, by judge."""
        return {name: judge.state() for name, judge in self.judges.items()}

    def restore(self, states: Mapping[str, Any]) -> None:
        """Goes on from the marks of a checkpoint."""
        for name, state in states.items():
            self.judges[name].restore(state)

    def _kept(self) -> dict[str, Any]:
        return dict(artifacts.read_json(self.path)) if self.path.exists() else {}

    def _write(self, states: Mapping[str, Any]) -> None:
        spent = {name: judge.client.spent() for name, judge in self.judges.items() if judge.client is not None}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(self.path, {"states": states, "spent": spent})


class Totals(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Stands after callbacks that decide to save, and before the `Watch`, which marks a checkpoint as whole.

    `trainer` is set once the trainer is made.
    """

    trainer: Any

    def __init__(self, checkpoint: Path | None, judges: JudgeCounts | None = None) -> None:
        """`checkpoint`: where a training goes on. `judges`: the judge models among its rewards."""
        path = checkpoint / artifacts.TOTALS if checkpoint is not None else None
        self.kept: dict[str, Any] = artifacts.read_json(path) if path is not None and path.exists() else {}
        self.judges = judges
        if judges is not None and "judges" in self.kept:
            judges.restore(self.kept["judges"])

    @property
    def loss(self) -> float:
        """Sum of the losses of all steps up to the checkpoint."""
        return float(self.kept.get("loss", 0.0))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Puts the sums back; transformers has just set its own to 0."""
        if not self.kept:
            return
        restore_sums(self.trainer, loss=self.loss, tokens=self.kept.get("tokens"))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An entry of the log before each checkpoint."""
        # A checkpoint between two entries of the log would lose the first half of their average.
        if control.should_save:
            control.should_log = True
        if self.judges is not None:
            self.judges.keep_spent()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the sums into the checkpoint."""
        if not state.is_world_process_zero:
            return
        checkpoints, loss = Path(args.output_dir), summed_loss(self.trainer)
        artifacts.write_json(
            checkpoints / f"checkpoint-{state.global_step}" / artifacts.TOTALS,
            {
                "loss": loss if math.isfinite(loss) else str(loss),  # JSON has no nan
                "tokens": summed_tokens(self.trainer),
                "judges": self.judges.states() if self.judges is not None else {},
            },
        )
        artifacts.note_sitting(checkpoints.parent)
