"""Each fault alone, in numbers made by hand: exactly its name comes out, and a healthy run brings none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from medjudge.diagnostics.diagnose import Finding, RewardShape, diagnose
from medjudge.diagnostics.doctor import Doctor
from medjudge.diagnostics.observation import BatchFacts, Observed, StepFacts, common_prefix, facts_of, repeated_share
from medjudge.diagnostics.signs import EXPLAINS, SIGNS

SHAPE = RewardShape({"accuracy": 1.0, "format": 0.5}, n_labels=3)
G, PROMPTS = 4, 8


def one(group: int, accuracy: float, form: float = 0.5, **over: object) -> Observed:
    """A rollout that earns accuracy + format."""
    fields: dict[str, object] = {
        "case_id": f"c{group}",
        "group": group,
        "text": f"<answer>{accuracy:g}</answer>",
        "n_tokens": 10,
        "stopped": True,
        "terms": {"accuracy": accuracy, "format": form},
        "total": accuracy + form,
        "correct": accuracy > 0,
        "advantage": accuracy,
    }
    return Observed(**{**fields, **over})  # type: ignore[arg-type]


def batch(make: Callable[[int, int], Observed]) -> BatchFacts:
    """Eight groups of four; `make(group, i)` gives the i-th completion of a group."""
    return facts_of([make(group, i) for group in range(PROMPTS) for i in range(G)])


def steps(make: Callable[[int, int, int], Observed], n: int = 6, **series: Sequence[object]) -> list[StepFacts]:
    """`n` steps of `make(step, group, i)`; `series` gives one value of a StepFacts field per step."""
    return [
        StepFacts(
            step=step + 1,
            batch=batch(lambda group, i, step=step: make(step, group, i)),  # type: ignore[misc]
            **{**{"grad_norm": 0.3}, **{name: values[step] for name, values in series.items()}},  # type: ignore[arg-type]
        )
        for step in range(n)
    ]


def half_right(step: int, group: int, i: int) -> Observed:
    """Healthy: half of each second group is right, the other groups agree."""
    return one(group, float(i % 2 if group % 2 else group % 4 == 0))


def unparsed(group: int, text: str, stopped: bool = True) -> Observed:
    return one(
        group, 0.0, 0.0, text=text, unparsed="expected one <answer> tag, found 0", correct=False, stopped=stopped
    )


def labelled(step: int, group: int, i: int, *, lost: bool) -> Observed:
    """As `half_right`, in words: two groups of eight are "may be", said by half of their completions unless `lost`."""
    right = bool(i % 2) if group % 2 else group % 4 == 0
    gold = "May Be Appropriate" if group in (1, 5) else ("Usually Appropriate", "Usually Not Appropriate")[group // 4]
    said = gold if right and not (lost and gold.startswith("May")) else "Usually Not Appropriate"
    return one(group, float(said == gold), gold=gold, label=said)


def growing(step: int, group: int, i: int, **over: object) -> Observed:
    """As `half_right`, and the format pays more from step to step."""
    form = 0.05 * step + 0.01 * (group % 3)
    return replace(half_right(step, group, i), terms={"accuracy": i % 2, "format": form}, total=i % 2 + form, **over)  # type: ignore[arg-type]


BEFORE, AFTER = "1" * 40 + "0" * 24, "1" * 20 + "0" * 44  # 20 held-out cases lost, none won: p = 2e-6
MEASURED = [BEFORE, *[None] * 10, AFTER]

FAULTS: dict[str, tuple[list[StepFacts], str]] = {
    "not_finite": (steps(half_right, not_finite=[(), (), (), (), (), ("loss",)]), "step 6: loss is not a number"),
    "kl_runaway": (steps(half_right, kl=[0.01, 0.5, 2.0, 4.0, 9.0, 20.0]), "median at 4.00 nats per token"),
    "entropy_runaway": (
        steps(half_right, 10, entropy=[0.5] * 5 + [2.0, 3.0, 4.0, 5.0, 5.5]),
        "median at 4.000 nats per token (steps 6 to 10), at first it was 0.500",
    ),
    "truncated": (
        steps(lambda s, g, i: unparsed(g, f"{s}{g}{i}", stopped=False) if i < 2 else half_right(s, g, i)),
        "80 of 160 completions (steps 2 to 6) were cut off at 10 tokens; 80 of them could not be read",
    ),
    "all_unparsed": (
        steps(lambda s, g, i: unparsed(g, f"<think>\n\n</think>\n\n{g}{i}")),
        r"160 of 160 completions (steps 2 to 6) could not be read, 160 of them because: expected one <answer> tag, "
        r"found 0. All begin with '<think>\n\n</think>\n\n'.",
    ),
    "components_cancel": (
        steps(lambda s, g, i: one(g, float(i % 2), 1.0 - i % 2)),
        "in 40 of 40 groups in which several components differ (steps 2 to 6) their total does not: accuracy, format",
    ),
    "all_correct": (steps(lambda s, g, i: one(g, 1.0)), "160 of 160 completions (steps 2 to 6) are right, and 0 of 40"),
    "all_wrong": (
        steps(lambda s, g, i: one(g, 0.0, 0.5 * (i % 2))),
        "0 of 160 completions (steps 2 to 6) are right although 160 could be read. Guessing among 3 labels would have "
        "given about 53",
    ),
    "entropy_collapse": (
        steps(
            lambda s, g, i: half_right(s, g, i) if s < 5 else one(g, float(g % 2)),
            10,
            entropy=[0.5] * 5 + [0.1, 0.04, 0.02, 0.01, 0.01],
        ),
        "median at 0.020 nats per token (steps 6 to 10), at first it was 0.500, and 0 of 40 groups differ in reward",
    ),
    "no_spread": (
        steps(lambda s, g, i: one(g, float(g % 2))),
        "0 of 40 groups (steps 2 to 6) hold two different rewards: every advantage is 0. In 40 groups all completions "
        "are the same text: sampling is too cold, or the policy certain. 80 of 160 completions are right.",
    ),
    "constant_component": (
        steps(lambda s, g, i: replace(half_right(s, g, i), terms={"accuracy": 1.0 * (i % 2), "format": 0.0})),
        "`format` paid 0 to every one of 160 completions (steps 2 to 6); it can pay 0.5.",
    ),
    "label_lost": (
        steps(lambda s, g, i: labelled(s, g, i, lost=s > 3), 12),
        "steps 5 to 12: `May Be Appropriate` is the experts' label in 16 of 64 groups, and 0 of 256 completions give "
        "it (16 of 256 at first).",
    ),
    "zero_gradient": (steps(half_right, grad_norm=[0.0] * 6), "20 of 40 groups (steps 2 to 6) differ in reward, but"),
    "hacking_repetition": (
        steps(
            lambda s, g, i: growing(s, g, i, text="so it is yes " * (1 + s), n_tokens=9 * s + 9),
            12,
            held_out=MEASURED,
        ),
        "held-out cases fell from 62% to 31% (step 12): repeated word 4-grams went from",
    ),
    "hacking_length": (
        steps(lambda s, g, i: growing(s, g, i, n_tokens=10 + 4 * s), 12, held_out=MEASURED),
        "completions went from 18 to 46 tokens",
    ),
    "hacking_format": (
        steps(growing, 12, held_out=MEASURED),
        "the share of right answers went from 50% to 50%, what rose is `format` (+0.350)",
    ),
    "overfitting": (
        steps(lambda s, g, i: one(g, float(i % 2 or s > g)), 12, held_out=MEASURED),
        "on training cases the share of right answers rose from",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNS)
def test_each_fault_is_named_alone(name: str) -> None:
    seen, words = FAULTS[name]
    found = diagnose(seen, SHAPE)
    assert [finding.name for finding in found] == [name]
    assert words in found[0].sentence, found[0].sentence
    assert found[0].to_json()["advice"]
    if name != "not_finite":
        assert found[0].evidence


def test_a_component_that_no_row_can_earn_is_constant() -> None:
    made = steps(lambda s, g, i: replace(half_right(s, g, i), terms={"accuracy": 1.0 * (i % 2), "reasoning": None}))
    (found,) = diagnose(made, SHAPE)
    assert (found.name, found.subject) == ("constant_component", "reasoning")
    assert "no row has what it needs" in found.sentence


def test_advantages_lost_after_the_reward_are_a_zero_gradient() -> None:
    """The KL term still has a gradient, so the norm is no help here."""
    (found,) = diagnose(steps(lambda s, g, i: replace(half_right(s, g, i), advantage=0.0)), SHAPE)
    assert found.name == "zero_gradient"
    assert "every advantage is 0 all the same" in found.sentence


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(half_right, id="half of the groups alike"),
        pytest.param(lambda s, g, i: one(g, float(i == 0 and g == s % PROMPTS)), id="one group in eight with spread"),
        pytest.param(
            lambda s, g, i: unparsed(g, f"{s} {g} {i}") if i else one(g, g % 2),
            id="three in four unparsed: it can learn",
        ),
        pytest.param(lambda s, g, i: replace(half_right(s, g, i), stopped=i + g > 0), id="one in 32 cut off"),
        pytest.param(lambda s, g, i: replace(half_right(s, g, i), correct=None), id="no gold"),
        pytest.param(lambda s, g, i: labelled(s, g, i, lost=False), id="each label is given"),
        pytest.param(lambda s, g, i: labelled(s, g, i, lost=s % 3 == 0), id="a label is given a third as often"),
    ],
)
def test_what_is_normal_is_not_named(make: Callable[[int, int, int], Observed]) -> None:
    lost_two_won_six = "1" * 38 + "0" * 20 + "1" * 6
    made = steps(make, 12, held_out=[BEFORE, *[None] * 10, lost_two_won_six])
    assert [f.sentence for f in diagnose(made, SHAPE)] == []


def test_no_single_step_is_judged() -> None:
    dead = steps(lambda s, g, i: one(g, float(g % 2)), 4)
    assert diagnose(dead, SHAPE) == []  # four steps, 32 groups
    assert [f.name for f in diagnose(dead, SHAPE, window_steps=4)] == ["no_spread"]
    assert diagnose(dead, SHAPE, window_steps=4, window_groups=33) == []


def test_reuse_of_a_batch_counts_its_rollouts_once() -> None:
    dead = steps(lambda s, g, i: one(g, float(g % 2)), 4)
    reused = [step for s in dead for step in (s, StepFacts(step=s.step, batch=None, grad_norm=0.1))]
    assert diagnose(reused, SHAPE) == []


def test_facts_by_hand() -> None:
    facts = facts_of(
        [
            one(0, 1.0), one(0, 0.0),                                               # spread, one term differs
            one(1, 1.0, 0.0), one(1, 0.0, 1.0),                                     # both differ, the total does not
            unparsed(2, "ab cd"), unparsed(2, "ab ce", stopped=False),              # no spread
            one(3, 0.0, n_tokens=40, text="a b c d a b c d a b c d"), one(3, 0.0),  # no spread, two texts
        ]
    )  # fmt: skip
    assert (facts.n, facts.n_groups, facts.n_cases, facts.n_spread, facts.n_identical) == (8, 4, 4, 1, 0)
    assert (facts.n_mixed, facts.n_cancelled) == (1, 1)
    assert (facts.n_unparsed, facts.n_truncated, facts.n_unparsed_truncated, facts.prefix) == (2, 1, 1, "ab c")
    assert (facts.n_rated, facts.n_correct, facts.n_advantages) == (8, 2, 2)
    assert facts.reward == pytest.approx((1.5 + 0.5 + 1 + 1 + 0 + 0 + 0.5 + 0.5) / 8)
    assert (facts.terms["format"].low, facts.terms["format"].high) == (0.0, 1.0)
    assert facts.tokens == pytest.approx(110 / 8)
    assert facts.repetition == pytest.approx((1 - 4 / 9) / 8)  # 9 four-grams, 4 different ones
    assert [row.case_id for row in facts.evidence["unparsed"]] == ["c2"]


@pytest.mark.parametrize(
    ("text", "share"), [("", 0.0), ("a b c", 0.0), ("a b c d", 0.0), ("a a a a a a", 1 - 1 / 3), ("a b " * 4, 0.6)]
)
def test_repetition_by_hand(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)


@pytest.mark.parametrize(
    ("texts", "prefix"), [([], ""), (["abc"], "abc"), (["abc", "abd", "ab"], "ab"), (["x", "y"], ""), (["", "a"], "")]
)
def test_common_prefix(texts: list[str], prefix: str) -> None:
    assert common_prefix(texts) == prefix


def test_evidence_can_leave_completions_out() -> None:
    facts = facts_of([one(0, 1.0), one(0, 0.0)], keep_completions=False)
    assert all(row.completion == "" for rows in facts.evidence.values() for row in rows)


def observe_all(doctor: Doctor, made: Sequence[StepFacts]) -> list[Finding]:
    return [finding for step in made for finding in doctor.observe(step)]


def test_a_finding_is_named_once_and_followed_to_its_last_step() -> None:
    doctor = Doctor(SHAPE)
    made = steps(lambda s, g, i: one(g, float(g % 2)) if s < 7 else half_right(s, g, i), 14)
    assert [(f.name, f.named_step) for f in observe_all(doctor, made)] == [("no_spread", 5)]
    (found,) = doctor.causes
    assert (found.since_step, found.last_step) == (1, 7)


def test_a_symptom_of_a_known_cause_is_not_named_beside_it() -> None:
    """First the policy runs away from its reference, then nothing can be read any more."""
    doctor = Doctor(SHAPE)
    made = steps(
        lambda s, g, i: half_right(s, g, i) if s < 8 else unparsed(g, f"{s}{g}{i}"),
        16,
        kl=[0.01] * 6 + [3.0] * 10,
    )
    assert [f.name for f in observe_all(doctor, made)] == ["kl_runaway"]


def test_a_cause_that_is_measured_late_takes_over_its_symptom() -> None:
    """Length pays until completions are cut off; held-out accuracy is measured only then."""
    doctor = Doctor(SHAPE)
    made = steps(
        lambda s, g, i: growing(s, g, i, n_tokens=10 + 4 * s, stopped=s < 8 or i > 1),
        14,
        held_out=[*MEASURED, None, None],
    )
    assert [f.name for f in observe_all(doctor, made)] == ["truncated", "hacking_length"]
    assert [f.name for f in doctor.causes] == ["hacking_length"]
    assert doctor.findings[0].explained_by == "hacking_length"


@pytest.mark.parametrize("cut", [0, 3, 7, 11])
def test_state_carries_everything_over_an_interruption(cut: int) -> None:
    made, _ = FAULTS["hacking_length"]
    whole = Doctor(SHAPE)
    observe_all(whole, made)
    first = Doctor(SHAPE)
    observe_all(first, made[:cut])
    state = json.loads(json.dumps(first.state()))
    second = Doctor.from_state(state, SHAPE, window_steps=5, window_groups=32)
    observe_all(second, made[cut:])
    assert second.state() == whole.state()
    assert second.findings == whole.findings


def test_texts_of_old_steps_are_let_go() -> None:
    doctor = Doctor(SHAPE)
    observe_all(doctor, steps(half_right, 12))
    held = [bool(step.batch and step.batch.evidence) for step in doctor.steps]
    assert held == [False] * 7 + [True] * 5


@pytest.mark.parametrize("seed", range(5))
def test_a_learning_policy_stays_silent(seed: int) -> None:
    """200 steps of 2 prompts x 8: accuracy from .4 to .85, most groups alike late, format soon earned by all."""
    rng = random.Random(seed)
    ability = {case: rng.gauss(0.0, 2.0) for case in range(300)}
    doctor = Doctor(SHAPE)
    named = []
    for step in range(200):
        rollouts = []
        for group, case in enumerate(rng.sample(range(300), 2)):
            p = 1 / (1 + 2.718 ** -(ability[case] + 0.012 * step - 0.3))
            for _ in range(8):
                right, read = rng.random() < p, rng.random() < min(1.0, 0.8 + 0.01 * step)
                stopped = rng.random() < 0.97
                rollouts.append(
                    one(group, float(right and read), 0.5 * read, case_id=f"c{case}", stopped=stopped,
                        unparsed=None if read else "expected one <answer> tag, found 0",
                        n_tokens=rng.randint(8, 20), text=f"{right} {read}")
                )  # fmt: skip
        flags = "".join("1" if rng.random() < 0.5 + 0.001 * step else "0" for _ in range(64))
        kl, entropy = 0.0005 * step * rng.lognormvariate(0, 1), 0.6 * 0.99**step * rng.uniform(0.7, 1.3)
        held_out = flags if step % 20 == 0 else None
        named += doctor.observe(
            StepFacts(step + 1, facts_of(rollouts), kl, entropy, rng.uniform(0.01, 2.0), held_out=held_out)
        )
    assert [f.sentence for f in named] == []


def test_every_name_in_the_tables_is_a_sign() -> None:
    assert set(EXPLAINS) <= set(SIGNS)
    assert set().union(*EXPLAINS.values()) <= set(SIGNS)
    assert set(FAULTS) == set(SIGNS)
