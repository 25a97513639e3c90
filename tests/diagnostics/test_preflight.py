"""Faults of templates, tokenizers, parsers and rewards, injected one at a time: the pre-flight names each by its cause.

And none of the shipped recipes raises an alarm, on real rows and the real tokenizers.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from medjudge.data.rows import Row, iter_rows
from medjudge.diagnostics.checks import CHECKS, COSTLY_CASES, PolicySample
from medjudge.diagnostics.preflight import Preflight, PreflightOptions, require_earnable, run_preflight
from medjudge.errors import DataError
from medjudge.models.scratch import format_texts, plain_texts
from medjudge.recipe import load_recipe, load_variants
from medjudge.records import Case, Completion, Judgement, Rollout, Unparsed, Verdict
from medjudge.rewards.composition import RewardContext, RewardPlan, RuleReward, Term, build_plan
from medjudge.rewards.rules import RewardRule
from medjudge.tasks.appropriateness import LABELS, AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.mcq import McqContract
from medjudge.tiny_base.tiny import build_tokenizer
from medjudge.training.job import RewardedRows
from tests.shared_data import shared_rows, shared_tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"
ACR = {"accuracy": 1.0, "format": 0.5}
CONTRACT = AppropriatenessContract(form="answer_only", system_prompt="", max_completion_tokens=48)


def orders(n: int = 18) -> list[Case]:
    return [
        Case(f"c{i}", {"condition": "pain", "variant": f"adult {i}", "procedure": "CT"}, gold=LABELS[i % 3])
        for i in range(n)
    ]


def long_orders() -> list[Case]:
    return [replace(case, inputs={**case.inputs, "variant": "pain " * 40}) for case in orders()]


def questions(n: int = 12) -> list[Case]:
    options = {name: f"option {name}" for name in ("opa", "opb", "opc", "opd")}
    return [
        Case(f"q{i}", {"question": f"Which vitamin is it, {i}?", **options}, gold="ABCD"[i % 4], reason="It is known.")
        for i in range(n)
    ]


def tiny() -> Any:
    """A tokenizer of a tiny base, made from what the contract writes."""
    texts = [text for case in orders() for text in (CONTRACT.messages(case)[0]["content"], CONTRACT.target(case))]
    return build_tokenizer(texts * 3, 420)


def plan_of(contract: TaskContract, weights: dict[str, float] | None = None) -> RewardPlan:
    return build_plan(weights or ACR, (), RewardContext(contract))


# --- the faults -------------------------------------------------------------------------------------------------------


@dataclass
class Fault:
    """One injected fault: what is run, the only check that may fail, and words of its cause."""

    run: Callable[[], Preflight]
    check: str
    cause: str
    status: str = "failed"


def run(
    contract: TaskContract = CONTRACT,
    cases: Sequence[Case] = (),
    tokenizer: Any = None,
    plan: RewardPlan | None = None,
    sample: PolicySample | None = None,
    **settings: Any,
) -> Preflight:
    return run_preflight(
        contract,
        list(cases) or orders(),
        tokenizer or tiny(),
        plan or plan_of(contract),
        PreflightOptions(sample=sample or "none was drawn", **settings),
    )


def with_template(tokenizer: Any, change: Callable[[str], str]) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = change(str(changed.chat_template))
    return changed


def think_block_on_the_real_template() -> Preflight:
    """Published failure 1: training text was rendered with thinking off, the prompts with thinking on."""
    tokenizer = with_template(
        shared_tokenizer("qwen3"), lambda t: t.replace("enable_thinking is false", "enable_thinking is none")
    )
    assert tokenizer.chat_template != shared_tokenizer("qwen3").chat_template
    contract = McqContract(max_completion_tokens=64)
    return run(contract, questions(), tokenizer, plan_of(contract))


def sampled(write: Callable[[Case, int], str], *, stopped: bool = True, is_start: bool = True) -> PolicySample:
    """Six cases, four completions each."""
    cases = tuple(orders(6))
    completions = tuple(tuple(Completion(write(case, i), 9, stopped) for i in range(4)) for case in cases)
    return PolicySample("the sft model", is_start, cases, completions)


def right(case: Case) -> str:
    return CONTRACT.target(case)


def mostly_right(case: Case, i: int) -> str:
    return right(case) if i else "<answer>Usually Appropriate</answer>"


class OtherTags(AppropriatenessContract):
    def parse(self, case_id: str, completion: str) -> Judgement:
        if "<rating>" not in completion:
            return Unparsed(case_id, completion, "expected one <rating> tag, found 0")
        return super().parse(case_id, completion)


class OtherAlphabet(AppropriatenessContract):
    def target(self, case: Case) -> str:
        return f"<answer>{LABELS.index(str(case.gold)) + 1 if case.gold in LABELS else 9}</answer>"


class ShiftedScale(AppropriatenessContract):
    def parse(self, case_id: str, completion: str) -> Judgement:
        judgement = super().parse(case_id, completion)
        if isinstance(judgement, Unparsed):
            return judgement
        return Verdict(case_id, LABELS[min(2, LABELS.index(judgement.label) + 1)])


class ConfidenceInQuotes(McqContract):
    def target(self, case: Case) -> str:
        answer = json.loads(super().target(case))
        return json.dumps({**answer, "confidence": str(answer["confidence"])})


class WithDefault(AppropriatenessContract):
    def parse(self, case_id: str, completion: str) -> Judgement:
        judgement = super().parse(case_id, completion)
        return Verdict(case_id, LABELS[0]) if isinstance(judgement, Unparsed) else judgement


class EndsEarly(AppropriatenessContract):
    """A parser that takes an answer without its closing tag."""

    def parse(self, case_id: str, completion: str) -> Judgement:
        for label in LABELS:
            if completion.startswith(f"<answer>{label[:5]}"):
                return Verdict(case_id, next((known for known in LABELS if known in completion), label))
        return super().parse(case_id, completion)


def deaf_to(name: str, function: Callable[[Rollout], float | None]) -> RewardPlan:
    """`accuracy + format` with one of the two replaced."""
    rewards: dict[str, Any] = dict(plan_of(CONTRACT).rewards)
    rewards[name] = RuleReward(RewardRule(function, 0.0, 1.0, "made for a test", "label"))
    return RewardPlan((Term("accuracy", 1.0), Term("format", 0.5)), (), rewards)


def by_place_in_the_data_set() -> RewardPlan:
    """Published failure 3: the reward of rollout i reads row i."""
    cases = orders()

    class ByPlace(RuleReward):
        def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
            return [
                float(isinstance(r.judgement, Verdict) and r.judgement.label == cases[i % len(cases)].gold)
                for i, r in enumerate(rollouts)
            ]

    plan = plan_of(CONTRACT)
    accuracy = ByPlace(plan.rewards["accuracy"].rule)  # type: ignore[attr-defined]
    return RewardPlan(plan.terms, (), {**plan.rewards, "accuracy": accuracy})


def without_an_end() -> Any:
    """A tokenizer whose turns end with nothing, and that has no end-of-sequence token."""
    tokenizer = with_template(tiny(), lambda t: t.replace("<|end|>", ""))
    tokenizer.eos_token = None
    return tokenizer


def ending_with_a_tag() -> Any:
    """A tokenizer that ends turns with a tag of the answer itself."""
    tokenizer = with_template(tiny(), lambda t: t.replace("<|end|>", "</answer>"))
    tokenizer.add_special_tokens({"eos_token": "</answer>"})
    return tokenizer


FAULTS = {
    "think block left in the completion, real Qwen3 template": Fault(
        think_block_on_the_real_template, "template", "rendered in different thinking modes"
    ),
    "policy writes a think block": Fault(
        lambda: run(sample=sampled(lambda case, i: f"<think>\n\n</think>\n\n{mostly_right(case, i)}")),
        "policy",
        r"All begin with '<think>\n\n</think>\n\n<answer>",
    ),
    "parser expects other tags": Fault(
        lambda: run(OtherTags(**CONTRACT.model_dump())), "gold", "18 x the gold answer cannot be read: expected"
    ),
    "label alphabets differ": Fault(
        lambda: run(OtherAlphabet(**CONTRACT.model_dump())), "gold", "holds 1 characters that are none of the three"
    ),
    "scale is shifted": Fault(
        lambda: run(ShiftedScale(**CONTRACT.model_dump())),
        "gold",
        "6 x the gold answer is read as 'May Be Appropriate', but the row says 'Usually Not Appropriate'",
    ),
    "no stop token": Fault(lambda: run(tokenizer=without_an_end()), "template", "has no token that ends an answer"),
    "stop token inside the answer": Fault(
        lambda: run(tokenizer=ending_with_a_tag()), "gold", "a token that ends answers stands inside the gold answer"
    ),
    "policy never stops": Fault(
        lambda: run(sample=sampled(lambda case, i: f"{mostly_right(case, i)} and so on", stopped=False)),
        "policy",
        "and then runs on: the policy does not write the stop token",
    ),
    "prompt ends without a generation prompt": Fault(
        lambda: run(tokenizer=with_template(tiny(), lambda t: t.replace("if add_generation_prompt", "if false"))),
        "template",
        "ignores `add_generation_prompt`",
    ),
    "double BOS, real Phi-3 tokenizer": Fault(
        lambda: run(tokenizer=with_template(shared_tokenizer("phi-3-mini"), lambda t: "{{ bos_token * 2 }}" + t)),
        "template",
        "Prompts begin with '<s>' twice",
    ),
    "prompt and answer merge, real SmolLM2 tokenizer": Fault(
        lambda: run(
            tokenizer=with_template(
                shared_tokenizer("smollm2"), lambda t: t.replace("'<|im_start|>assistant\n'", "'<|im_start|>Rating: '")
            )
        ),
        "template",
        "Tokenised as one text, the end of the prompt and the start of the answer share a token",
        "warning",
    ),
    "token limit too short for any answer": Fault(
        lambda: run(CONTRACT.model_copy(update={"max_completion_tokens": 2})), "template", "max_completion_tokens is 2"
    ),
    "token limit too short for the policy": Fault(
        lambda: run(sample=sampled(lambda case, i: "First of all, this", stopped=False)),
        "policy",
        "No completion ends within `task.max_completion_tokens` = 48",
    ),
    "reward reads another row's gold": Fault(
        lambda: run(plan=by_place_in_the_data_set()), "gold", "`accuracy` pays 0 of 1 although the answer is read as"
    ),
    "reward never looks at gold": Fault(
        lambda: run(plan=plan_of(CONTRACT, {"format": 1.0})), "shuffled", "none of `format` compares the answer with"
    ),
    "weight with the wrong sign": Fault(
        lambda: run(plan=plan_of(CONTRACT, {"accuracy": -1.0, "format": 0.5})),
        "gold",
        "`accuracy` has the weight -1: it takes away from right answers",
    ),
    "confidence as a string": Fault(
        lambda: run(
            ConfidenceInQuotes(max_completion_tokens=200), questions(), None, plan_of(McqContract())
        ),
        "gold",
        "confidence is str '0.95', expected a number in [0, 1]",
    ),
    "parser with a default": Fault(
        lambda: run(WithDefault(**CONTRACT.model_dump())), "broken", "The empty answer is read as 'Usually Not"
    ),
    "parser takes half an answer": Fault(
        lambda: run(EndsEarly(**CONTRACT.model_dump())), "broken", "The cut-off answer is read as"
    ),
    "reward pays before it reads": Fault(
        lambda: run(plan=deaf_to("accuracy", lambda r: float(not isinstance(r.judgement, Verdict) or
                                                             r.judgement.label == r.case.gold))),
        "broken",
        "`accuracy` pays 1 to the empty answer, which holds no verdict",
    ),
    "prompts lose words": Fault(
        lambda: run(CONTRACT.model_copy(update={"max_prompt_tokens": 30}), long_orders()),
        "lengths",
        "of the prompts lose words: raise `task.max_prompt_tokens`",
    ),
    "context too short": Fault(lambda: run(context_tokens=64), "lengths", "but the model's context holds 64"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_by_its_cause(name: str) -> None:
    fault = FAULTS[name]
    result = fault.run()
    alarms = [check for check in result.checks if check.status in ("failed", "warning")]
    assert [(check.name, check.status) for check in alarms] == [(fault.check, fault.status)], alarms
    assert fault.cause in " ".join(alarms[0].causes), alarms[0].causes
    if fault.status == "failed":
        with pytest.raises(DataError, match=r"pre-flight failed.*--force"):
            require_earnable(result)


def test_what_is_whole_passes_in_full() -> None:
    result = run(sample=sampled(mostly_right), context_tokens=256)
    assert {check.name: check.status for check in result.checks} == dict.fromkeys(CHECKS, "passed"), result.checks
    assert (result.n_cases, result.n_at_maximum, result.maximum, result.verdict) == (18, 18, 1.5, "passed")
    accuracy, form = result.terms
    # A neighbour in the shuffled order shares the label in some of the 18 pairs; the format is right in all.
    assert (accuracy.most, accuracy.gold, form.most, form.gold, form.shuffled) == (1.0, 1.0, 0.5, 0.5, 0.5)
    assert 0 < (accuracy.shuffled or 0) < 1
    # The first of each four says "Usually Appropriate", right in two cases of six: 3/4 + 1/4 * 2/6.
    assert accuracy.policy == pytest.approx(0.75 + 0.25 / 3)
    assert accuracy.groups_with_spread == pytest.approx(4 / 6)
    assert result.pass_rates == {"c0": 0.75, "c1": 0.75, "c2": 1.0, "c3": 0.75, "c4": 0.75, "c5": 1.0}
    require_earnable(result)


@dataclass
class Dear:
    """Accuracy by a model, so to speak: no rule, so only the first rows are put to it; or a judge, which none is."""

    gold_tolerance: float
    asks_a_model: bool = True
    minimum: float = 0.0
    maximum: float = 1.0

    def most(self, case: Case) -> float | None:
        return 1.0

    def __call__(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return plan_of(CONTRACT).rewards["accuracy"](rollouts)

    def report(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(("tolerance", "n_asked"), [(0.01, COSTLY_CASES), (float("inf"), 0)])
def test_rewards_that_all_ask_a_model_are_proven_on_the_first_rows_alone(tolerance: float, n_asked: int) -> None:
    """`rewards = {embedding = 1.0}` on more rows than are put to it, and `{llm = 1.0}` on any number."""
    plan = RewardPlan((Term("dear", 1.0),), (), {"dear": Dear(tolerance)})
    result = run(cases=orders(40), plan=plan)
    assert result.passed
    assert (result.n_cases, result.n_at_maximum) == (40, n_asked)
    told = {check.name: check.told for check in result.checks}
    assert f"{n_asked} of {n_asked} gold answers earn the maximum" in told["gold"]
    assert f"{40 - n_asked} of the other {40 - n_asked} are read as their label" in told["gold"]
    statuses = {check.name: check.status for check in result.checks}
    assert statuses["shuffled"] == ("passed" if n_asked else "skipped")
    assert plan.score([]) == []


@pytest.mark.parametrize(("tolerance", "status"), [(0.01, "passed"), (float("inf"), "skipped")])
def test_where_what_compares_with_gold_asks_a_model_the_other_rows_prove_nothing(tolerance: float, status: str) -> None:
    """`"accuracy * embedding" = 1.0` beside `format`: beyond the first rows the format alone is paid, to any answer."""
    cases = orders(2 * COSTLY_CASES + 2)
    rules = plan_of(CONTRACT, {"accuracy": 1.0, "format": 0.5}).rewards
    terms = (Term("accuracy * dear", 1.0), Term("format", 0.5))
    result = run(cases=cases, plan=RewardPlan(terms, (), {**rules, "dear": Dear(tolerance)}))
    assert result.passed, result.failures
    (shuffled,) = (check for check in result.checks if check.name == "shuffled")
    assert shuffled.status == status
    assert (f"of {COSTLY_CASES} pairs" in shuffled.told) == (status == "passed")


def test_balanced_correctness_pays_every_row_as_rules_do() -> None:
    """More rows than a model would be asked about: beyond them, too, another row's answer earns less."""
    cases = orders(2 * COSTLY_CASES + 2)
    plan = build_plan({"balanced": 1.0, "format": 0.5}, (), RewardContext(CONTRACT, cases))
    result = run(cases=cases, plan=plan)
    assert result.passed, result.failures
    assert result.n_at_maximum == len(cases)
    assert {check.name: check.status for check in result.checks}["shuffled"] == "passed"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda case, i: right(case), "all are right: these cases teach nothing more"),
        (lambda case, i: f"<answer>{LABELS[LABELS.index(str(case.gold)) - 1]}</answer>", "none is right"),
        (lambda case, i: "<answer>May Be Appropriate</answer>", "sampling is too cold, or the policy certain"),
    ],
)
def test_a_policy_whose_groups_are_alike_is_a_warning(write: Callable[[Case, int], str], words: str) -> None:
    result = run(sample=sampled(write))
    (warning,) = result.warnings
    assert (warning.name, result.passed) == ("policy", True)
    assert words in warning.causes[0]


def test_a_stand_in_for_the_policy_is_not_held_against_the_recipe() -> None:
    result = run(sample=sampled(lambda case, i: "no idea", is_start=False))
    assert result.passed
    assert [check.name for check in result.warnings] == ["policy"]


def test_forced_failures_are_recorded_and_do_not_stop() -> None:
    result = replace(run(plan=plan_of(CONTRACT, {"format": 1.0})), forced=True)
    require_earnable(result)
    kept = Preflight.from_json(json.loads(json.dumps(result.to_json())))
    assert (kept, kept.verdict) == (result, "forced")


def test_rows_of_one_label_cannot_be_shuffled() -> None:
    result = run(cases=orders()[::3])
    assert {check.name: check.status for check in result.checks}["shuffled"] == "skipped"
    assert result.passed


def test_completions_can_be_left_out() -> None:
    result = run(plan=plan_of(CONTRACT, {"format": 1.0})).without_text()
    (check,) = result.failures
    assert check.evidence is not None
    assert check.evidence.completion == ""


def test_a_label_that_is_all_that_is_answered() -> None:
    """One digit: half of it is nothing, one more is off the scale."""
    contract = EquivalenceContract(max_completion_tokens=4)
    cases = [Case(f"e{i}", {"question": "q", "reference": "r", "candidate": "c"}, gold=str(i % 2)) for i in range(8)]
    result = run(contract, cases, tiny(), plan_of(contract, {"correctness": 1.0, "format": 0.5}))
    assert result.passed, result.failures
    assert "empty -1, cut-off -1, off-schema -1" in result.checks[3].told


# --- the shipped recipes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["baseline", "citations", "embedding"])
def test_no_alarm_on_the_reward_designs_of_acr(variant: str) -> None:
    """On their own rows, more of them than a reward that asks a model is proven on."""
    recipe = load_variants(RECIPES / "acr_rewards.toml")[1][variant]
    rows = [row.values for row in islice(iter_rows(recipe.data.source), 120) if isinstance(row, Row)]
    known = recipe.contract.fields
    cases = [recipe.contract.read_case({k: row[k] for k in row if k in known}, str(i)) for i, row in enumerate(rows)]
    tokenizer = build_tokenizer([*plain_texts(cases), *format_texts(recipe.contract, cases)], 4096)
    rows = RewardedRows.of_split(recipe, cases, tokenizer)
    result = run_preflight(recipe.contract, rows.cases, tokenizer, rows.plan, answers=rows.answers)
    assert (result.failures, result.warnings) == ((), ()), [(c.told, c.causes) for c in result.checks]


ROWS = {
    "acr": (("acr_appropriateness", "acr_appropriateness.jsonl.gz"), "qwen3", {"condition": "topic"}, 90),
    "french_judge": (("fr_oeqa_judge", "fr_oeqa_judge.jsonl"), "phi-3-mini", {}, 10),
    "medmcqa": (("medmcqa_train", "medmcqa_train.jsonl"), "qwen3", {}, 60),
    "rubric_judge": (
        ("prometheus_likert5", "prometheus_likert5.jsonl.gz"),
        "phi-4",
        {"input": "instruction", "output": "response", "reference": "reference_answer", "score": "gold"},
        8,
    ),
}
"""Recipe -> rows, a tokenizer of its base's family where there is one, contract field -> column, every n-th row."""


@pytest.mark.parametrize("profile", [None, "tiny"])
@pytest.mark.parametrize("name", ROWS)
def test_no_alarm_on_the_shipped_recipes(name: str, profile: str | None) -> None:
    place, tokenizer_name, fields, every = ROWS[name]
    overrides = [f"profile={profile}"] if profile else []
    if name == "medmcqa":
        overrides.append("task.first_index=1")
    recipe = load_recipe(RECIPES / f"{name}.toml", overrides)
    rows = shared_rows("data", *place)[::every]
    if name == "rubric_judge":
        rows = [{**row, "gold": row["gpt4_scores"][0]} for row in rows]
    cases = [
        recipe.contract.read_case({**row, **{field: row[column] for field, column in fields.items()}}, str(i))
        for i, row in enumerate(rows)
    ]
    assert len(cases) >= 50
    if profile is None:
        tokenizer = shared_tokenizer(tokenizer_name)
    else:
        tokenizer = build_tokenizer([*plain_texts(cases), *format_texts(recipe.contract, cases)], 4096)
    rows = RewardedRows.of_split(recipe, cases, tokenizer)
    options = PreflightOptions(max_cut_share=recipe.grpo.preflight.max_cut_share)
    result = run_preflight(recipe.contract, rows.cases, tokenizer, rows.plan, options)
    assert rows.n_not_rewardable == 0
    assert (result.failures, result.warnings) == ((), ()), [(c.told, c.causes) for c in result.checks]
    assert {check.name: check.status for check in result.checks} == {
        **dict.fromkeys(CHECKS, "passed"),
        "policy": "skipped",
    }
