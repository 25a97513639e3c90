"""The single checks of the pre-flight: what is held to what, and why it fell short, in words. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from medjudge.diagnostics.observation import ALL, CLIP_CHARS, BatchFacts, Evidence, Observed, facts_of, shown
from medjudge.records import Case, Completion, Rollout, Unparsed, Verdict
from medjudge.rewards.composition import BatchReward, RewardPlan, RuleReward, ScoredRollout
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.encoding import (
    Encoded,
    between_prompt_and_answer,
    instructions_lead_the_user_turn,
    merges_with_answer,
)
from medjudge.tasks.text import THINK_OPEN
from medjudge.tasks.tokenizers import decode, stop_token_ids

COSTLY_CASES = 32
"""Rows on which rewards that ask a model are proven; rules are proven on every row."""
BROKEN_CASES = 8
TOLERANCE = 1e-6
MANY_TRUNCATED = 0.25

Status = Literal["passed", "warning", "failed", "skipped"]

CHECKS = {
    "template": "prompts end where answers begin",
    "gold": "gold answers earn the most",
    "shuffled": "other rows' answers do not",
    "broken": "broken answers earn what the contract says",
    "policy": "the policy's own answers can be told apart",
    "lengths": "prompts and answers fit",
}
"""Every check, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question that the pre-flight asks, and its answer."""

    name: str
    """A key of `CHECKS`."""
    status: Status
    told: str
    """What was found, with its numbers."""
    causes: tuple[str, ...] = ()
    """Why it failed, in words; the commonest first."""
    evidence: Evidence | None = None
    """One completion that shows it."""


@dataclass(frozen=True, slots=True)
class PolicySample:
    """What the policy answered to a few cases, before training."""

    policy: str
    """Which weights were asked, in words: "the sft model"."""
    is_start: bool
    """Whether GRPO starts from these very weights; a stand-in's failures are told, not held against the run."""
    cases: tuple[Case, ...]
    completions: tuple[tuple[Completion, ...], ...]
    """(n_cases, G)."""


# --- gold answers, and other rows' ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """One row's gold answer after the round trip through template and tokenizer."""

    encoded: Encoded
    rollout: Rollout
    stops_early: bool
    """Whether a token that ends answers stands inside it."""


@dataclass(frozen=True, slots=True)
class Paid:
    """What one answer earned under the part of the rewards that was asked."""

    plan: RewardPlan
    scored: ScoredRollout
    is_whole: bool = True
    """Whether that part is all of them."""

    @property
    def tells_rows_apart(self) -> bool:
        """Whether another row's answer should earn less: not under a part that looks at nothing of the row itself."""
        bare = replace(self.scored.rollout.case, gold=None, reason=None)
        paying = {*self.plan.gate, *(name for term in self.plan.terms for name in term.factors)}
        return self.is_asked and (self.is_whole or any(self.plan.rewards[name].most(bare) is None for name in paying))

    @property
    def is_asked(self) -> bool:
        """Whether any reward was asked about it: none is where all rewards ask a model, beyond the first few rows."""
        return bool(self.plan.terms)

    @property
    def most(self) -> float | None:
        """What a perfect answer to its case earns; None where the row lacks what the rewards compare with."""
        return self.plan.most(self.scored.rollout.case)

    @property
    def shortfall(self) -> float:
        """By how much it misses what a perfect answer earns, less what the rewards themselves leave open; 0 or more."""
        if self.most is None:
            return 0.0
        if self.scored.total is None:
            return math.inf
        tolerance = sum(
            abs(term.weight) * self.plan.rewards[name].gold_tolerance
            for term in self.plan.terms
            for name in term.factors
        )
        return max(0.0, self.most - self.scored.total - tolerance - TOLERANCE)


def swapped(contract: TaskContract, answers: Sequence[Answer]) -> list[Rollout]:
    """Each row with the answer of the row after it."""
    completions = [b.rollout.completion for _, b in _neighbours(answers)]
    return [
        _read(contract, answer.rollout.case, completion.text, completion.n_tokens)
        for answer, completion in zip(answers, completions, strict=True)
    ]


def _neighbours(answers: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    return list(zip(answers, [*answers[1:], *answers[:1]], strict=True))


def _read(contract: TaskContract, case: Case, text: str, n_tokens: int, *, stopped: bool = True) -> Rollout:
    return Rollout(case, contract.parse(case.case_id, text), Completion(text, n_tokens, stopped))


def pay(plan: RewardPlan, rollouts: Sequence[Rollout]) -> list[Paid]:
    """Rules pay every rollout, rewards that ask a model the first few; a judge model is not asked: it errs on gold."""
    cheap = _part(plan, lambda reward: not reward.asks_a_model)
    proven = _part(plan, lambda reward: math.isfinite(reward.gold_tolerance))
    n_costly = 0 if proven == cheap else COSTLY_CASES
    parts = ((proven, rollouts[:n_costly]), (cheap, rollouts[n_costly:]))
    return [Paid(part, row, part.terms == plan.terms) for part, some in parts for row in part.score(some)]


def _part(plan: RewardPlan, keep: Callable[[BatchReward], bool]) -> RewardPlan:
    kept = {name: reward for name, reward in plan.rewards.items() if keep(reward)}
    terms = tuple(term for term in plan.terms if set(term.factors) <= set(kept))
    return RewardPlan(terms, tuple(name for name in plan.gate if name in kept), kept)


def check_own_answers(answered: Sequence[Answer], own: Sequence[Paid]) -> Check:
    """(a) Every row's own answer is read as its label and earns the most."""
    causes: Counter[str] = Counter()
    evidence = None
    for answer, paid in zip(answered, own, strict=True):
        cause = _why_short(answer, paid)
        if cause is not None:
            causes[cause] += 1
            evidence = evidence or _shown_rollout(answer.rollout, cause, paid.scored.total)
    n, n_short = len(answered), sum(causes.values())
    n_unpaid = sum(paid.most is None for paid in own)
    n_unasked = sum(not paid.is_asked for paid in own)
    most = own[0].plan.maximum if own else 0.0
    sentence = f"{n - n_short:,} of {n:,} gold answers earn the maximum, {most:g}."
    if n_unasked:
        n_read = sum(
            not paid.is_asked and not _why_short(answer, paid) for answer, paid in zip(answered, own, strict=True)
        )
        sentence = (
            f"{n - n_short - n_read:,} of {n - n_unasked:,} gold answers earn the maximum, {most:g}; {n_read:,} of the "
            f"other {n_unasked:,} are read as their label: every reward asks a model, which is not asked about them."
        )
    if n_unpaid:
        sentence += f" {n_unpaid:,} rows lack what a reward compares with, and pay nothing."
    if not causes and n_unpaid == n:
        return Check(
            "gold", "failed", sentence, ("No row has what the rewards compare with, such as the expert's reasons.",)
        )
    listed = tuple(f"{count:,} x {cause}." for cause, count in causes.most_common(5))
    return Check("gold", "failed" if causes else "passed", sentence, listed, evidence)


def _why_short(answer: Answer, paid: Paid) -> str | None:
    """Why a gold answer is not read or not paid as it should be; None where it is."""
    rollout = answer.rollout
    judgement, case = rollout.judgement, rollout.case
    if isinstance(judgement, Verdict) and judgement.label == case.gold:
        return _who_underpays(paid) if paid.shortfall else None
    if answer.stops_early:
        return "a token that ends answers stands inside the gold answer, so that reading stops there"
    if isinstance(judgement, Unparsed):
        return f"the gold answer cannot be read: {judgement.reason}"
    return f"the gold answer is read as {judgement.label!r}, but the row says {case.gold!r}"


def _who_underpays(paid: Paid) -> str:
    plan, case = paid.plan, paid.scored.rollout.case
    if paid.scored.is_gated:
        return f"the gate ({', '.join(plan.gate)}) stays closed for the row's own answer"
    for term in plan.terms:
        value, alone = paid.scored.terms[term.name], part_of_terms(plan, term.name)
        most = alone.most(case)
        if value is None:
            return f"`{term.name}` pays nothing (None) although the row has what it needs"
        if most is not None and term.weight * value < most - TOLERANCE:
            if term.weight < 0:
                return f"`{term.name}` has the weight {term.weight:g}: it takes away from right answers"
            return (
                f"`{term.name}` pays {value:g} of {most / term.weight:g} although the answer is read as the row's own "
                "label: it looks at another row, or pays for something else"
            )
    return f"the gold answer earns {paid.scored.total} of {paid.most}"


def part_of_terms(plan: RewardPlan, name: str) -> RewardPlan:
    """The plan with one of its terms alone, behind the same gate."""
    (term,) = (term for term in plan.terms if term.name == name)
    return RewardPlan((term,), plan.gate, plan.rewards)


def check_other_rows(answered: Sequence[Answer], own: Sequence[Paid], others: Sequence[Paid]) -> Check:
    """(b) A row's neighbour's answer earns the most only where the two rows share a label."""
    pairs = [(rows, paid) for rows, paid in zip(_neighbours(answered), others, strict=True) if paid.tells_rows_apart]
    differing = [paid for (a, b), paid in pairs if a.rollout.case.gold != b.rollout.case.gold and paid.most is not None]
    if any(_why_short(answer, paid) for answer, paid in zip(answered, own, strict=True)):
        return Check("shuffled", "skipped", "The rows' own answers fall short, so other rows' answers prove nothing.")
    if not pairs:
        return Check(
            "shuffled", "skipped", "What compares with gold asks a judge model, which errs on it: it is not asked here."
        )
    if not differing:
        return Check("shuffled", "skipped", "No two rows have different labels: other rows' answers prove nothing.")
    too_well = [
        paid
        for paid in differing
        if paid.scored.total is not None and paid.scored.total >= (paid.most or 0.0) - TOLERANCE
    ]
    means = [
        statistics.fmean([p.scored.total for p in some if p.tells_rows_apart and p.scored.total is not None] or [0.0])
        for some in (own, others)
    ]
    sentence = (
        f"Other rows' answers earn {means[1]:.3g} on average, their own {means[0]:.3g}; the label coincides in "
        f"{len(pairs) - len(differing):,} of {len(pairs):,} pairs."
    )
    if not too_well:
        return Check("shuffled", "passed", sentence)
    names = ", ".join(f"`{term.name}`" for term in too_well[0].plan.terms)
    cause = (
        f"{len(too_well):,} of {len(differing):,} answers with another label earn the most all the same: none of "
        f"{names} compares the answer with its own row's gold."
    )
    first = too_well[0].scored
    why = f"another row's answer; this row's label is {first.rollout.case.gold!r}"
    return Check("shuffled", "failed", sentence, (cause,), _shown_rollout(first.rollout, why, first.total))


# --- broken answers ---------------------------------------------------------------------------------------------------


def check_broken(contract: TaskContract, plan: RewardPlan, answered: Sequence[Answer], tokenizer: Any) -> Check:
    """(c) Empty, cut-off and off-schema answers hold no verdict; what compares with gold pays nothing for them."""
    earnings, causes = [], []
    evidence = None
    cheap = _part(plan, lambda reward: not reward.asks_a_model)
    for kind, rollouts in _broken_rollouts(contract, answered, tokenizer).items():
        earned: set[float] = set()
        for scored in cheap.score(rollouts):
            cause = _why_wrong(contract, kind, scored, cheap)
            earned |= {scored.total} if scored.total is not None else set()
            if cause is not None and cause not in causes:
                causes.append(cause)
                evidence = evidence or _shown_rollout(scored.rollout, f"{kind} answer", scored.total)
        earnings.append(f"{kind} {' or '.join(f'{total:g}' for total in sorted(earned)) or 'nothing'}")
    sentence = f"Of {cheap.maximum:g} at most, rules pay: {', '.join(earnings)}."
    return Check("broken", "failed" if causes else "passed", sentence, tuple(causes), evidence)


def _broken_rollouts(contract: TaskContract, answered: Sequence[Answer], tokenizer: Any) -> dict[str, list[Rollout]]:
    stop_ids = stop_token_ids(tokenizer)
    rollouts: dict[str, list[Rollout]] = {"empty": [], "cut-off": [], "off-schema": []}
    for answer in answered:
        case, ids = answer.rollout.case, answer.encoded.completion_ids or []
        half = ids[: (len(ids) - 1) // 2]
        rollouts["empty"].append(_read(contract, case, "", 1))
        text = decode(tokenizer, half, stop_ids)
        rollouts["cut-off"].append(_read(contract, case, text, len(half), stopped=False))
        rollouts["off-schema"].append(_read(contract, case, _off_schema(contract, case), len(ids)))
    return rollouts


def _off_schema(contract: TaskContract, case: Case) -> str:
    """A whole answer in the contract's form with a label that the contract does not have."""
    last = contract.labels[-1]
    off = str(int(last) + 1) if last.isdigit() else chr(ord(last) + 1) if len(last) == 1 else f"Hardly Ever {last}"
    return contract.target(replace(case, gold=off, reason="It is so."))


def _why_wrong(contract: TaskContract, kind: str, scored: ScoredRollout, plan: RewardPlan) -> str | None:
    judgement = scored.rollout.judgement
    if isinstance(judgement, Verdict):
        if contract.lenient and kind != "empty":
            return None  # the recipe asked for readings that the contract does not name
        return f"The {kind} answer is read as {judgement.label!r}: the parser finds a verdict where there is none."
    for name, reward in plan.rewards.items():
        value = scored.rewards[name]
        needs = reward.rule.needs if isinstance(reward, RuleReward) else "nothing"
        if needs != "nothing" and value is not None and value > reward.minimum + TOLERANCE:
            return f"`{name}` pays {value:g} to the {kind} answer, which holds no verdict."
    return None


# --- the policy -------------------------------------------------------------------------------------------------------


def observe(contract: TaskContract, plan: RewardPlan, sample: PolicySample) -> list[Observed]:
    """The sample read by the contract and rewarded in full, a group after the other."""
    rollouts = [
        Rollout(case, contract.parse(case.case_id, completion.text), completion)
        for case, completions in zip(sample.cases, sample.completions, strict=True)
        for completion in completions
    ]
    size = len(sample.completions[0]) if sample.completions else 1
    return [observed(row, plan, group=i // size) for i, row in enumerate(plan.score(rollouts))]


def observed(scored: ScoredRollout, plan: RewardPlan, *, group: int) -> Observed:
    """A scored rollout as the doctor and the pre-flight look at it."""
    rollout = scored.rollout
    judgement, case = rollout.judgement, rollout.case
    paid = {name: scored.terms[name] for name in plan.weights}
    return Observed(
        case_id=case.case_id,
        group=group,
        text=rollout.completion.text,
        n_tokens=rollout.completion.n_tokens,
        stopped=rollout.completion.stopped,
        terms={name: None if value is None else plan.weights[name] * value for name, value in paid.items()},
        total=scored.total,
        unparsed=judgement.reason if isinstance(judgement, Unparsed) else None,
        correct=None if case.gold is None else isinstance(judgement, Verdict) and judgement.label == case.gold,
        gold=case.gold,
        label=judgement.label if isinstance(judgement, Verdict) else None,
    )


def check_policy(
    contract: TaskContract, sample: PolicySample | None, sampled: Sequence[Observed], why_not: str
) -> Check:
    """(d) What the policy says now can be read, ends, and differs in reward within groups."""
    if sample is None or not sampled:
        return Check("policy", "skipped", f"Not sampled: {why_not}.")
    facts = facts_of(sampled)
    right = f" {facts.n_correct:,} of {facts.n_rated:,} are right." if facts.n_rated else ""
    sentence = (
        f"{sample.policy}: {facts.n_unparsed:,} of {facts.n:,} completions cannot be read, {facts.n_truncated:,} are "
        f"cut off; {facts.n_spread:,} of {facts.n_groups:,} groups differ in reward.{right}"
    )
    status, causes, kind = _what_the_policy_lacks(contract, facts, sampled)
    if status == "failed" and not sample.is_start:
        status, sentence = "warning", f"{sentence} GRPO will start from other weights."
    rows = facts.evidence.get(kind, ())
    return Check("policy", status, sentence, causes, rows[0] if rows else None)


def _what_the_policy_lacks(
    contract: TaskContract, facts: BatchFacts, sampled: Sequence[Observed]
) -> tuple[Status, tuple[str, ...], str]:
    """(status, causes, kind of evidence)."""
    if facts.n_truncated >= ALL * facts.n:
        if ends := _where_answers_end(contract, sampled):
            cause = (
                f"The answer is whole after {ends} characters and then runs on: the policy does not write the "
                "stop token that targets end with."
            )
        else:
            cause = (
                f"No completion ends within `task.max_completion_tokens` = {contract.max_completion_tokens}: raise it, "
                "or train SFT until answers are short enough."
            )
        return "failed", (cause,), "truncated"
    if facts.n_unparsed >= ALL * facts.n:
        reason, count = next(iter(facts.reasons.items()))
        is_habit = (facts.prefix or "").strip() and facts.n_cases > 2
        begins = f" All begin with {shown(facts.prefix)}." if is_habit else ""
        return "failed", (f"{count:,} x {reason}.{begins}",), "unparsed"
    if facts.n_truncated >= MANY_TRUNCATED * facts.n:
        return "warning", ("Many completions are cut off by the token limit.",), "truncated"
    if not facts.n_spread and facts.n_groups > 1:
        why = (
            "all are right: these cases teach nothing more"
            if facts.n_correct >= ALL * max(1, facts.n_rated)
            else "none is right: the cases are too hard, or labels are misread"
            if facts.n_rated and not facts.n_correct
            else "sampling is too cold, or the policy certain"
        )
        return "warning", (f"No group differs in reward, so no advantage would: {why}.",), "alike"
    return "passed", (), ""


def _where_answers_end(contract: TaskContract, sampled: Sequence[Observed]) -> int | None:
    """After how many characters the first cut-off completions hold a whole answer, if most do."""
    cut = [r for r in sampled if not r.stopped][:BROKEN_CASES]
    ends = [
        next((k for k in range(1, len(r.text)) if isinstance(contract.parse(r.case_id, r.text[:k]), Verdict)), None)
        for r in cut
    ]
    known = [end for end in ends if end is not None]
    return round(statistics.median(known)) if len(known) > len(cut) / 2 else None


def pass_rates(sampled: Sequence[Observed]) -> dict[str, float]:
    """Case id -> share of its completions that are right."""
    rates: dict[str, list[bool]] = {}
    for rollout in sampled:
        if rollout.correct is not None:
            rates.setdefault(rollout.case_id, []).append(rollout.correct)
    return {case_id: statistics.fmean(right) for case_id, right in rates.items()}


# --- template and lengths ---------------------------------------------------------------------------------------------


def check_template(contract: TaskContract, answer: Answer, tokenizer: Any) -> Check:
    """The prompt ends exactly where the template begins an answer, and begins once."""
    prompt_ids = answer.encoded.prompt_ids
    causes = []
    between = between_prompt_and_answer(contract, answer.rollout.case, tokenizer) or ""
    if THINK_OPEN in between and not contract.thinking:
        causes.append(
            f"A finished conversation has {shown(between)} between prompt and answer, and our prompt lacks it: a "
            "policy trained on finished conversations writes a think block that the parser does not expect. Prompt and "
            "training text are rendered in different thinking modes."
        )
    elif THINK_OPEN not in between and between.strip():
        causes.append(
            f"A finished conversation has {shown(between)} between prompt and answer, and our prompt lacks it: the "
            "template ignores `add_generation_prompt`, so the policy would have to open its own turn."
        )
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is not None and prompt_ids[:2] == [bos, bos]:
        causes.append(
            f"Prompts begin with {tokenizer.bos_token!r} twice: the template or the tokenizer adds one too many."
        )
    sentence = f"A prompt of {len(prompt_ids):,} tokens, then the answer, then {shown(_stop_text(tokenizer))}."
    if instructions_lead_the_user_turn(contract, tokenizer):
        sentence += " The template takes no system turn, so the instructions lead the user turn."
    if causes:
        return Check("template", "failed", sentence, tuple(causes))
    if merges_with_answer(tokenizer, answer.encoded, answer.rollout.completion.text):
        cause = (
            "Tokenised as one text, the end of the prompt and the start of the answer share a token. Here they are "
            "tokenised apart, as rollouts are, but the model was pretrained on the joint token: end the template's "
            "generation prompt with a control token or a line break, not with a space."
        )
        return Check("template", "warning", sentence, (cause,))
    return Check("template", "passed", sentence)


def _stop_text(tokenizer: Any) -> str:
    return str(tokenizer.convert_ids_to_tokens(stop_token_ids(tokenizer)[0]))


def check_lengths(
    contract: TaskContract, encoded: Sequence[Encoded], context: int | None, max_cut_share: float
) -> Check:
    """(e) Prompts within their limit, answers within theirs, both within the model's context."""
    prompts = [len(row.prompt_ids) for row in encoded]
    targets = [len(row.completion_ids or ()) for row in encoded]
    n_cut, n_reasons = (
        sum(row.n_words_cut > 0 for row in encoded),
        sum(row.n_reason_words_cut > 0 for row in encoded),
    )
    sentence = (
        f"Prompts take {statistics.fmean(prompts):.0f} tokens, the longest {max(prompts):,} of "
        f"{contract.max_prompt_tokens:,}; {n_cut:,} of {len(encoded):,} lose words. Gold answers take up to "
        f"{max(targets):,} of {contract.max_completion_tokens:,}; {n_reasons:,} lose words of their reason."
    )
    longest = max(prompts) + contract.max_completion_tokens
    if context is not None and longest > context:
        cause = f"The longest prompt and completion take {longest:,} tokens, but the model's context holds {context:,}."
        return Check("lengths", "failed", sentence, (cause,))
    share = n_cut / len(encoded)
    if share > max_cut_share:
        cause = f"{share:.0%} of the prompts lose words: raise `task.max_prompt_tokens`, or allow it by "
        return Check("lengths", "failed", sentence, (f"{cause}`grpo.preflight.max_cut_share`.",))
    return Check("lengths", "passed", sentence)


def _shown_rollout(rollout: Rollout, why: str, earned: float | None) -> Evidence:
    completion = rollout.completion
    return Evidence(rollout.case.case_id, why, earned, completion.n_tokens, completion.text[:CLIP_CHARS])
