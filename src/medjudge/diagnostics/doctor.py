"""What is wrong with a GRPO run, over its whole length: the steps so far and what was found in them.

`observation.py` makes the numbers of a step, `diagnose.py` reads a window of steps, `signs.py` says what each finding
means; here is remembered what was found. Pure, no torch; the trainer's side is `training/doctor_callback.py`.
`docs/doctor.md` explains each finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from medjudge.diagnostics.diagnose import Finding, RewardShape, diagnose
from medjudge.diagnostics.observation import (
    BatchFacts,
    Evidence,
    StepFacts,
    TermFacts,
)
from medjudge.diagnostics.signs import EXPLAINS, MEASURED_LATE


class Doctor:
    """Remembers the steps and what was named. Its `state` lies in checkpoints, so that a resumed run says the same."""

    def __init__(
        self,
        shape: RewardShape,
        *,
        window_steps: int = 5,
        window_groups: int = 32,
        steps: Iterable[StepFacts] = (),
        findings: Iterable[Finding] = (),
    ) -> None:
        """`steps`, `findings`: what an interrupted run had seen."""
        self.shape, self.window_steps, self.window_groups = shape, window_steps, window_groups
        self.steps = list(steps)
        self.findings = list(findings)

    def observe(self, step: StepFacts) -> list[Finding]:
        """Takes one more step; returns what is named now for the first time."""
        self.steps.append(step)
        seen = diagnose(self.steps, self.shape, window_steps=self.window_steps, window_groups=self.window_groups)
        # After the diagnosis, which may still quote the step that falls out of the window.
        self._forget_old_evidence()
        new = []
        for finding in seen:
            key = (finding.name, finding.subject)
            known = next((i for i, f in enumerate(self.findings) if (f.name, f.subject) == key), None)
            if known is not None:
                self.findings[known] = replace(self.findings[known], last_step=step.step)
            elif not any(self._explains(cause, finding) for cause in self.findings):
                new.append(finding)
        self.findings += new
        self.findings = [self._with_cause(finding) for finding in self.findings]
        return [finding for finding in new if finding in self.findings]

    @property
    def causes(self) -> list[Finding]:
        """The findings that no other explains."""
        return [finding for finding in self.findings if finding.explained_by is None]

    def _explains(self, cause: Finding, symptom: Finding) -> bool:
        if symptom.name not in EXPLAINS.get(cause.name, ()):
            return False
        overlap = cause.last_step >= symptom.since_step and cause.since_step <= symptom.last_step
        if cause.name in MEASURED_LATE:  # told after what follows from it, but not the cause of what always was
            return overlap and symptom.since_step > 1
        return overlap and cause.named_step <= symptom.named_step + self.window_steps

    def _with_cause(self, finding: Finding) -> Finding:
        cause = next((f.name for f in self.findings if f.explained_by is None and self._explains(f, finding)), None)
        return replace(finding, explained_by=finding.explained_by or cause)

    def _forget_old_evidence(self) -> None:
        """Evidence is read from the last window only; texts of a long run would fill the checkpoints."""
        for i in range(len(self.steps) - 1, -1, -1):
            groups = sum(step.batch.n_groups for step in self.steps[i:] if step.batch)
            if len(self.steps) - i > self.window_steps and groups > self.window_groups:
                batch = self.steps[i].batch
                if batch is not None:
                    self.steps[i] = replace(self.steps[i], batch=replace(batch, evidence={}))
                break

    def state(self) -> dict[str, Any]:
        """Everything it knows, as JSON."""
        return {"steps": [asdict(step) for step in self.steps], "findings": [asdict(f) for f in self.findings]}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], shape: RewardShape, *, window_steps: int, window_groups: int
    ) -> Doctor:
        """The doctor that `state` was taken from."""
        return cls(
            shape,
            window_steps=window_steps,
            window_groups=window_groups,
            steps=map(_step_from_json, state["steps"]),
            findings=[Finding(**{**f, "evidence": _evidence_from_json(f["evidence"])}) for f in state["findings"]],
        )


def _evidence_from_json(rows: Iterable[Mapping[str, Any]]) -> tuple[Evidence, ...]:
    return tuple(Evidence(**row) for row in rows)


def _step_from_json(row: Mapping[str, Any]) -> StepFacts:
    batch = row["batch"]
    if batch is not None:
        batch = BatchFacts(
            **{
                **batch,
                "terms": {name: TermFacts(**facts) for name, facts in batch["terms"].items()},
                "evidence": {kind: _evidence_from_json(rows) for kind, rows in batch["evidence"].items()},
            }
        )
    return StepFacts(**{**row, "batch": batch, "not_finite": tuple(row["not_finite"])})
