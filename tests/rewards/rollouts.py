"""Rollouts in a line."""

from __future__ import annotations

from medjudge.records import Case, Completion, Judgement, Rollout, Unparsed, Verdict


def case(gold: str | None = "A", reason: str | None = None, evidence: str = "", case_id: str = "c") -> Case:
    return Case(case_id, {"evidence": evidence} if evidence else {}, gold, reason, group=case_id)


def said(
    label: str, about: Case, reasoning: str = "", *, confidence: float | None = None, n_tokens: int = 1, text: str = "x"
) -> Rollout:
    return answered(about, Verdict(about.case_id, label, confidence, reasoning), n_tokens=n_tokens, text=text)


def unread(about: Case, kind: str = "format") -> Rollout:
    return answered(about, Unparsed(about.case_id, "x", "expected one <answer> tag, found 0", kind))  # type: ignore[arg-type]


def answered(about: Case, judgement: Judgement, *, n_tokens: int = 1, text: str = "x") -> Rollout:
    return Rollout(about, judgement, Completion(text, n_tokens, True))
