"""Proof, before the first step, that the reward can be earned, and only by the right answer.

Gold answers are rendered, tokenised and decoded by the very functions that rollouts use, then parsed and rewarded; so
are other rows' answers, broken ones, and a sample of what the policy says. A reward that a perfect policy cannot earn
(published failure 1: a think block that the parser had never heard of), or that it earns by another row's answer
(failure 3), stops the run here, with the cause. No torch: the sample is drawn elsewhere. `docs/doctor.md` tells each
check.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from medjudge.diagnostics.checks import (
    BROKEN_CASES,
    CHECKS,
    Answer,
    Check,
    Paid,
    PolicySample,
    check_broken,
    check_lengths,
    check_other_rows,
    check_own_answers,
    check_policy,
    check_template,
    observe,
    part_of_terms,
    pass_rates,
    pay,
    swapped,
)
from medjudge.diagnostics.observation import Observed, facts_of
from medjudge.errors import DataError, MedjudgeError
from medjudge.records import Case, Verdict
from medjudge.rewards.composition import RewardPlan
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import encode_all, read_rollout
from medjudge.tasks.guard import SIGN
from medjudge.tasks.tokenizers import stop_token_ids


@dataclass(frozen=True, slots=True)
class TermRow:
    """What one term of the reward pays, weight applied."""

    name: str
    weight: float
    most: float
    gold: float | None
    """Mean over gold answers; None where it was not asked or no row has what it needs."""
    shuffled: float | None
    policy: float | None
    policy_sd: float | None
    """Standard deviation over the policy's completions."""
    groups_with_spread: float | None
    """Share of the policy's groups in which it differs."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was proven before training."""

    n_cases: int
    """Rows with gold."""
    n_at_maximum: int
    maximum: float
    n_prompts_cut: int
    checks: tuple[Check, ...]
    terms: tuple[TermRow, ...] = ()
    n_words_cut: int = 0
    n_snippets_cut: int = 0
    """Snippets of evidence that prompts do not show; their words are in `n_words_cut`."""
    n_prompts_neutralised: int = 0
    """Prompts with texts that looked like a part of the prompt and are shown broken (`task.guard`)."""
    pass_rates: Mapping[str, float] = field(default_factory=dict)
    """Case id -> share of the policy's completions that were right."""
    seconds: float = 0.0
    forced: bool = False
    """Whether a failure was overruled."""

    def shortened_line(self, max_prompt_tokens: int) -> str | None:
        """How many training prompts lose words, in one line; None where none does."""
        if not self.n_prompts_cut:
            return None
        return (
            f"{self.n_prompts_cut:,} of {self.n_cases:,} training prompts are shortened to {max_prompt_tokens:,} "
            f"tokens (`task.max_prompt_tokens`): {self.n_words_cut:,} words are not shown"
        )

    @property
    def neutralised_line(self) -> str | None:
        """How many training prompts the guard changed, in one line; None where it changed none."""
        if not self.n_prompts_neutralised:
            return None
        return (
            f"{self.n_prompts_neutralised:,} of {self.n_cases:,} training prompts hold texts that look like a part of "
            f"the prompt: they are shown broken by {SIGN} (`task.guard`)"
        )

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "failed")

    @property
    def warnings(self) -> tuple[Check, ...]:
        """The checks that a person should look at."""
        return tuple(check for check in self.checks if check.status == "warning")

    @property
    def causes(self) -> tuple[str, ...]:
        """Why it failed, in words."""
        return tuple(cause for check in self.failures for cause in check.causes)

    @property
    def verdict(self) -> str:
        """One word for manifests: passed, failed, or forced."""
        return "passed" if self.passed else "forced" if self.forced else "failed"

    def without_text(self) -> Preflight:
        """The same without what completions said, which may repeat text of a case."""
        return replace(self, checks=tuple(map(_without_text, self.checks)))

    def to_json(self) -> dict[str, Any]:
        """The findings as a JSON object."""
        return {**asdict(self), "passed": self.passed, "verdict": self.verdict}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Preflight:
        """What `to_json` wrote. Raises ValueError for another form."""
        result = TypeAdapter(cls).validate_python(dict(tree))
        if unknown := [check.name for check in result.checks if check.name not in CHECKS]:
            raise ValueError(f"{len(unknown)} unknown checks")
        return result


def require_earnable(result: Preflight) -> None:
    """Raises DataError where a check failed and the run was not forced."""
    if result.passed or result.forced:
        return
    why = " ".join(" ".join([check.told, *check.causes[:3]]) for check in result.failures)
    ids = [check.evidence.case_id for check in result.failures if check.evidence]
    raise DataError(
        f"pre-flight failed ({', '.join(CHECKS[check.name] for check in result.failures)}: no). {why}"
        + (f" Such as case {', '.join(dict.fromkeys(ids))}." if ids else "")
        + " A policy cannot learn what the expert's own answer does not earn: fix it (docs/doctor.md), or go on "
        "all the same with --force, which manifest and report will say."
    )


@dataclass(frozen=True, slots=True)
class PreflightOptions:
    """What a pre-flight looks at beside the rows."""

    sample: PolicySample | str = "no policy was sampled"
    """What the policy answers, or why it was not asked."""
    seed: int = 42
    max_cut_share: float = 0.5
    context_tokens: int | None = None
    """The longest prompt and completion that the model takes, where it is known."""


def run_preflight(
    contract: TaskContract,
    cases: Sequence[Case],
    tokenizer: Any,
    plan: RewardPlan,
    options: PreflightOptions | None = None,
    *,
    answers: Sequence[Answer] = (),
) -> Preflight:
    """Every check on `cases`, all of which have gold.

    answers: the experts' answers as `gold_answers` gives them, where the cases are encoded already.
    """
    options = options or PreflightOptions()
    policy, why_none = (None, options.sample) if isinstance(options.sample, str) else (options.sample, "")
    try:
        answers = answers or gold_answers(contract, cases, tokenizer)
    except MedjudgeError as error:
        return _unencodable(cases, plan, str(error))
    # Not in the order of the rows: a reward that reads row i for rollout i looks right in that order alone.
    answers = [answers[i] for i in np.random.default_rng([options.seed, 4]).permutation(len(cases))]
    # Scored as one batch, as GRPO does: a reward that mixes up rows shows only in a batch.
    own = pay(plan, [answer.rollout for answer in answers])
    others = pay(plan, swapped(contract, answers))
    sampled = observe(contract, plan, policy) if policy is not None else []
    checks = (
        check_template(contract, answers[0], tokenizer),
        check_own_answers(answers, own),
        check_other_rows(answers, own, others),
        check_broken(contract, plan, answers[:BROKEN_CASES], tokenizer),
        check_policy(contract, policy, sampled, why_none),
        check_lengths(contract, [answer.encoded for answer in answers], options.context_tokens, options.max_cut_share),
    )
    return replace(
        _of_answers(plan, answers, own, checks),
        terms=_term_rows(plan, own, others, sampled),
        pass_rates=pass_rates(sampled),
    )


def check_gold(contract: TaskContract, cases: Sequence[Case], tokenizer: Any, plan: RewardPlan) -> Preflight:
    """What can be proven before there is a policy, in short: gold answers are read, and earn the most.

    cases: all have gold. A row that lacks what a reward compares with is held to nothing by it."""
    return check_answers(gold_answers(contract, cases, tokenizer), plan)


def check_answers(answers: Sequence[Answer], plan: RewardPlan) -> Preflight:
    """As `check_gold`, of answers that are encoded already."""
    own = pay(plan, [answer.rollout for answer in answers])
    return _of_answers(plan, answers, own, (check_own_answers(answers, own),))


def _of_answers(
    plan: RewardPlan, answers: Sequence[Answer], own: Sequence[Paid], checks: tuple[Check, ...]
) -> Preflight:
    """The checks, beside what the experts' own answers earn and what their prompts lost."""
    return Preflight(
        n_cases=len(answers),
        n_at_maximum=sum(paid.is_asked and paid.shortfall <= 0 for paid in own),
        maximum=plan.maximum,
        n_prompts_cut=sum(answer.encoded.n_words_cut > 0 for answer in answers),
        n_words_cut=sum(answer.encoded.n_words_cut for answer in answers),
        n_snippets_cut=sum(answer.encoded.n_snippets_cut for answer in answers),
        n_prompts_neutralised=sum(answer.encoded.n_neutralised > 0 for answer in answers),
        checks=checks,
    )


def gold_answers(contract: TaskContract, cases: Sequence[Case], tokenizer: Any) -> list[Answer]:
    """The experts' answers as if the policy had sampled them: decoded from their token ids, read by the contract."""
    stop_ids = stop_token_ids(tokenizer)
    answers = []
    for case, row in zip(cases, encode_all(contract, cases, tokenizer, with_target=True), strict=True):
        ids = row.completion_ids or []
        rollout = read_rollout(contract, case, ids, tokenizer, stop_ids, prompt=row)
        answers.append(Answer(row, rollout, stops_early=any(token in stop_ids for token in ids[:-1])))
    return answers


def taught_answers(contract: TaskContract, cases: Sequence[Case], tokenizer: Any) -> list[Answer]:
    """The experts' answers to the cases as SFT teaches them: with the reasons that targets hold.

    A reason that does not fit the limits is shortened. A reward compares with these: no policy can write what the
    contract cuts off.
    """
    answers = []
    for answer in gold_answers(contract, cases, tokenizer):
        case, judgement = answer.rollout.case, answer.rollout.judgement
        if case.reason and isinstance(judgement, Verdict):
            taught = replace(case, reason=judgement.rationale or None)
            # Of the shortened reason nothing more is cut: the target is the same.
            encoded = replace(answer.encoded, n_reason_words_cut=0)
            answer = replace(answer, encoded=encoded, rollout=replace(answer.rollout, case=taught))
        answers.append(answer)
    return answers


def _unencodable(cases: Sequence[Case], plan: RewardPlan, cause: str) -> Preflight:
    """What is left to say where rendering or tokenising itself refuses."""
    first = Check("template", "failed", "Prompts and answers cannot be rendered and tokenised.", (cause,))
    rest = tuple(Check(name, "skipped", "Nothing was rendered.") for name in CHECKS if name != "template")
    return Preflight(len(cases), 0, plan.maximum, 0, (first, *rest))


# --- the table --------------------------------------------------------------------------------------------------------


def _term_rows(
    plan: RewardPlan, own: Sequence[Paid], others: Sequence[Paid], sampled: Sequence[Observed]
) -> tuple[TermRow, ...]:
    most = term_maxima(plan)
    facts = facts_of(sampled) if sampled else None
    rows = []
    for name, weight in plan.weights.items():
        values = [v for r in sampled if (v := r.terms[name]) is not None]
        rows.append(
            TermRow(
                name=name,
                weight=weight,
                most=most[name],
                gold=_mean_paid(own, name, weight),
                shuffled=_mean_paid(others, name, weight),
                policy=statistics.fmean(values) if values else None,
                policy_sd=statistics.pstdev(values) if values else None,
                groups_with_spread=facts.spread_by_term[name] / facts.n_groups if facts else None,
            )
        )
    return tuple(rows)


def _mean_paid(paid: Sequence[Paid], name: str, weight: float) -> float | None:
    values = [weight * v for row in paid if (v := row.scored.terms.get(name)) is not None]
    return statistics.fmean(values) if values else None


def term_maxima(plan: RewardPlan) -> dict[str, float]:
    """Term -> the most that it adds to the total, of whichever case."""
    return {name: part_of_terms(plan, name).maximum for name in plan.weights}


def _without_text(check: Check) -> Check:
    return replace(check, evidence=replace(check.evidence, completion="") if check.evidence else None)
