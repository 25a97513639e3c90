"""What a page reads of the notes beside a stage's weights: a damaged file is reported by its name."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Notes(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Evidence(_Notes):
    case_id: str


class _Finding(_Notes):
    name: str
    title: str
    severity: str
    since_step: int
    last_step: int
    sentence: str
    advice: str
    evidence: tuple[_Evidence, ...] = ()
    explained_by: str | None = None


class _Action(_Notes):
    step: int
    what: str


class _HeldOut(_Notes):
    step: int
    n: int
    accuracy: float


class DoctorNotes(_Notes):
    """What a page shows of `doctor.json`."""

    policy: str
    n_steps: int
    stopped_step: int | None = None
    findings: tuple[_Finding, ...] = ()
    actions: tuple[_Action, ...] = ()
    held_out: tuple[_HeldOut, ...] = ()


class _Summary(_Notes):
    n_prompts_shortened: int | dict[str, int] = 0
    """Of an evaluation by model."""
    n_cases: int = 0
    n_words_cut: int = 0


class ManifestNotes(_Notes):
    """What a page shows of a stage's `manifest.json`."""

    summary: _Summary = _Summary()
    versions: dict[str, str] | None = None
    """Package -> version."""
    finished: str = ""
