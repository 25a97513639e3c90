"""The doctor beside a running trainer: what it looks at after each step, and what the recipe's policy then does."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from medjudge import artifacts
from medjudge.diagnostics.diagnose import Finding, RewardShape
from medjudge.diagnostics.doctor import Doctor
from medjudge.diagnostics.observation import Observed, StepFacts, facts_of
from medjudge.diagnostics.signs import SIGNS
from medjudge.settings.training import DoctorConfig
from medjudge.training.trl_adapter import last_advantages, set_temperature, step_mean

log = logging.getLogger(__name__)
WARMER = 1.15
"""Factor on the temperature each time that `act` raises it: three raises take 1.0 to 1.5."""
TOO_COLD = ("no_spread", "entropy_collapse")
"""Findings that a higher temperature can cure."""


class DoctorWatch(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Hands each step to the doctor, says what it names, and acts as the recipe asks.

    `trainer` is set once the trainer is made; the reward function calls `saw` with the rollouts of a step.
    """

    trainer: Any

    def __init__(
        self,
        shape: RewardShape,
        config: DoctorConfig,
        *,
        held_out: Callable[[Any], str] | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """`held_out`: judges the held-out cases with a model, one character each; `checkpoint`: where a run goes on."""
        self.config, self.held_out = config, held_out
        kept = artifacts.read_json(checkpoint / artifacts.DOCTOR) if checkpoint else {"steps": [], "findings": []}
        window = {"window_steps": config.window_steps, "window_groups": config.window_groups}
        self.doctor = Doctor.from_state(kept, shape, **window)
        self.actions: list[dict[str, Any]] = kept.get("actions", [])
        self.temperature: float | None = kept.get("temperature")
        self.warmed_step: int = kept.get("warmed_step", 0)
        self.stopped_step: int | None = kept.get("stopped_step")
        self.rollouts: Sequence[Observed] = ()

    def saw(self, rollouts: Sequence[Observed]) -> None:
        """The rollouts that the coming step learns from, groups one after the other."""
        self.rollouts = rollouts

    def before_rollouts(self) -> None:
        """Brings a raised temperature into force: the only moment at which no rollout of the old one is in use.

        A batch of rollouts is scored once when it is drawn and again in each step that uses it; scores at two
        temperatures would make importance ratios and KL out of nothing. A resumed run draws rollouts before anything
        else, and so gets its raised temperature back here, too.
        """
        if self.temperature is not None and self.temperature != self.trainer.temperature:
            set_temperature(self.trainer, self.temperature)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measures held-out accuracy before the first step."""
        # Step 0 is the reference of held-out accuracy; a resumed run has measured it already.
        if not self.doctor.steps and (flags := self._judge_held_out()) is not None:
            self.doctor.observe(StepFacts(step=0, batch=None, held_out=flags))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Looks at the step that ended."""
        is_measured = state.global_step % self.config.held_out_every == 0 or state.global_step == state.max_steps
        new = self.doctor.observe(self._facts(state.global_step, self._judge_held_out() if is_measured else None))
        for finding in new:
            self._say(finding)
        if self.config.policy == "act":
            self._act(state.global_step)
        # New ones only: a run that a person resumed after a stop is not stopped again for the same finding.
        severe = next((finding for finding in new if finding.severity == "severe"), None)
        if self.config.policy == "stop" and severe is not None:
            self.stopped_step = state.global_step
            control.should_save = control.should_training_stop = True
            self._record(state.global_step, f"stopped and saved: {SIGNS[severe.name].title}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Lays what the doctor knows into the checkpoint, so that a resumed run names the same at the same step."""
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        artifacts.write_json(folder / artifacts.DOCTOR, {**self.doctor.state(), **self._own_state()})

    def report(self) -> dict[str, Any]:
        """What `doctor.json` holds of a run: policy, findings, actions, and the numbers that they were drawn from."""
        return {
            "policy": self.config.policy,
            "n_steps": len([step for step in self.doctor.steps if step.step]),
            "findings": [
                finding.to_json() for finding in sorted(self.doctor.findings, key=lambda f: f.explained_by is not None)
            ],
            "actions": self.actions,
            "stopped_step": self.stopped_step,
            "held_out": [
                {"step": step.step, "n": len(step.held_out), "accuracy": step.held_out_accuracy}
                for step in self.doctor.steps
                if step.held_out
            ],
            "series": _series(self.doctor.steps),
        }

    def _own_state(self) -> dict[str, Any]:
        return {
            "actions": self.actions,
            "temperature": self.temperature,
            "warmed_step": self.warmed_step,
            "stopped_step": self.stopped_step,
        }

    def _facts(self, step: int, held_out: str | None) -> StepFacts:
        rollouts, self.rollouts = self.rollouts, ()
        resampler = getattr(self.trainer, "resampler", None)
        n_resampled = resampler.take_count() if resampler is not None else 0
        if rollouts:
            advantages = last_advantages(self.trainer, len(rollouts))
            rollouts = [replace(r, advantage=a) for r, a in zip(rollouts, advantages, strict=True)]
        numbers = {
            "kl": step_mean(self.trainer, "kl"),
            "entropy": step_mean(self.trainer, "entropy"),
            "grad_norm": getattr(self.trainer, "grad_norm", None),
        }
        return StepFacts(
            step=step,
            batch=facts_of(rollouts, keep_completions=self.config.keep_completions) if rollouts else None,
            not_finite=tuple(name for name, value in numbers.items() if value is not None and not math.isfinite(value)),
            held_out=held_out,
            n_resampled=n_resampled,
            **{name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()},
        )

    def _judge_held_out(self) -> str | None:
        if self.held_out is None:
            return None
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        was_training = model.training
        try:
            return self.held_out(model)
        finally:
            model.train(was_training)

    def _say(self, finding: Finding) -> None:
        sign = SIGNS[finding.name]
        log.warning("doctor, step %d: %s.", finding.named_step, sign.title)
        log.info("  %s", finding.sentence)
        log.info("  %s", sign.advice)

    def _act(self, step: int) -> None:
        """Raises the temperature where groups are alike, and again after a window that did not mend it.

        It is decided here and comes into force with the next rollouts: `before_rollouts`.
        """
        seen = any(f.name in TOO_COLD and f.last_step == step for f in self.doctor.causes)
        now = float(self.trainer.temperature) if self.temperature is None else self.temperature
        if not seen or now >= self.config.max_temperature or not self._has_window_since(self.warmed_step):
            return
        self.temperature, self.warmed_step = min(now * WARMER, self.config.max_temperature), step
        self._record(step, f"temperature raised from {now:.2f} to {self.temperature:.2f}, from the next rollouts on")

    def _has_window_since(self, step: int) -> bool:
        """Whether the rollouts drawn after `step` fill a window. Steps that use a batch again draw none."""
        batches = [facts.batch for facts in self.doctor.steps if facts.step > step and facts.batch is not None]
        n_groups = sum(batch.n_groups for batch in batches)
        return len(batches) >= self.config.window_steps and n_groups >= self.config.window_groups

    def _record(self, step: int, what: str) -> None:
        self.actions.append({"step": step, "what": what})
        log.info("doctor, step %d: %s.", step, what)


def _series(steps: Sequence[StepFacts]) -> Mapping[str, list[Any]]:
    """One list per number, as long as there are steps with rollouts."""
    steps_with_rollouts = [(step, step.batch) for step in steps if step.batch is not None]
    return {
        "step": [step.step for step, _ in steps_with_rollouts],
        "reward": [batch.reward for _, batch in steps_with_rollouts],
        "groups_with_spread": [batch.n_spread / batch.n_groups for _, batch in steps_with_rollouts],
        "unparsed": [batch.n_unparsed / batch.n for _, batch in steps_with_rollouts],
        "truncated": [batch.n_truncated / batch.n for _, batch in steps_with_rollouts],
        "correct": [batch.n_correct / batch.n_rated if batch.n_rated else None for _, batch in steps_with_rollouts],
        "tokens": [batch.tokens for _, batch in steps_with_rollouts],
        "kl": [step.kl for step, _ in steps_with_rollouts],
        "entropy": [step.entropy for step, _ in steps_with_rollouts],
        "grad_norm": [step.grad_norm for step, _ in steps_with_rollouts],
        "resampled": [step.n_resampled for step, _ in steps_with_rollouts],
    }
