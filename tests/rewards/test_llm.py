"""A judge model as a reward: marks become numbers, failures stay apart from rows without gold, and none becomes 0."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medjudge import artifacts
from medjudge.errors import ConfigError, ModelError
from medjudge.recipe import recipe_from_tree
from medjudge.records import Case, Completion, Rollout, Unparsed, Verdict
from medjudge.rewards.composition import RewardContext, RewardPlan, RuleReward, Term
from medjudge.rewards.llm import LlmReward, ReasoningScorer, llm_reward, reasoning_case
from medjudge.rewards.rules import REWARDS
from medjudge.runs.pipeline import run_recipe
from medjudge.settings.base import EndpointSettings
from medjudge.settings.rewards import LlmSettings, RewardSettings
from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from tests.inference.scripted_endpoint import Action, Say, Status, scripted
from tests.models.small_models import save_base
from tests.small_runs import small_tree, write_rows


def reply(a: int, b: int, c: int) -> str:
    return json.dumps({"medical_concepts": a, "logic_alignment": b, "supporting_evidence": c})


def said(text: str) -> Completion:
    return Completion(text, 1, stopped=True)


class Double:
    """An engine that answers by what the trainee wrote, and on being asked again by its second word."""

    def __init__(self, answers: dict[str, Sequence[Completion]]) -> None:
        self.answers, self.asked = answers, []  # type: ignore[var-annotated]

    def generate(self, contract: TaskContract, cases: Sequence[Case]) -> list[Completion]:
        self.asked.append([case.inputs for case in cases])
        return [self.answers[case.inputs["trainee"]]["problem" in case.inputs] for case in cases]


def rollout(reasoning: str | None, *, reason: str | None = "expert words", case_id: str = "c") -> Rollout:
    """A rollout whose policy wrote `reasoning`; None is an unreadable completion."""
    case = Case(case_id, {"condition": "pain", "variant": "adult"}, gold="1", reason=reason)
    judgement = Unparsed(case_id, "junk", "no tags") if reasoning is None else Verdict(case_id, "1", None, reasoning)
    return Rollout(case, judgement, said("x"))


def reward_of(double: Double, **over: Any) -> LlmReward:
    return LlmReward(ReasoningScorer(double, **over))


def test_marks_are_averaged_to_a_share() -> None:
    reward = reward_of(Double({"good": [said(reply(7, 8, 6))], "bad": [said(reply(0, 0, 1))]}))
    # (7 + 8 + 6) / 30 and 1 / 30
    assert reward([rollout("good"), rollout("bad"), rollout("good")]) == pytest.approx([0.7, 1 / 30, 0.7])
    assert reward.most(rollout("x").case) == 1.0


def test_the_judge_sees_the_case_the_experts_words_and_the_generated_ones() -> None:
    double = Double({"mine": [said(reply(5, 5, 5))]})
    reward_of(double)([rollout("  mine\n")])
    assert double.asked == [[{"case": "condition: pain\nvariant: adult", "expert": "expert words", "trainee": "mine"}]]


def test_equal_reasonings_are_asked_once() -> None:
    double = Double({"a": [said(reply(1, 1, 1))], "b": [said(reply(2, 2, 2))]})
    values = reward_of(double)([rollout(text, case_id=str(i)) for i, text in enumerate("abaab")])
    assert values == pytest.approx([0.1, 0.2, 0.1, 0.1, 0.2])
    assert [len(batch) for batch in double.asked] == [2]


def test_what_cannot_be_read_or_says_nothing_earns_0_unasked_and_no_gold_is_none() -> None:
    double = Double({})
    reward = reward_of(double)
    assert reward([rollout(None), rollout(" \n"), rollout("words", reason=None), rollout(None, reason="")]) == [
        *(0.0, 0.0),
        *(None, None),
    ]
    assert double.asked == []
    report = reward.report()
    assert (report["n_unread"], report["n_without_gold"], report["n_failed"]) == (2, 2, 0)
    assert reward.most(rollout("x", reason=None).case) is None


def test_failures_are_none_and_stand_apart_from_rows_without_gold() -> None:
    double = Double(
        {
            "ok": [said(reply(10, 10, 10))],
            "failed": [Completion("", 0, stopped=True, failure="HTTP 500, 7 attempts")],
            "refused": [Completion("", 0, stopped=True, refused=True)],
            "cut": [Completion('{"medical', 9, stopped=False)] * 2,
            "chatty": [said("I would say 8.")] * 2,
        }
    )
    reward = reward_of(double, max_failed_share=0.25)
    values = reward([rollout("ok"), rollout("ok", reason=None), *(rollout(t) for t in list(double.answers)[1:])])
    assert values == [1.0, None, None, None, None, None]
    report = reward.report()
    assert (report["n_marked"], report["n_failed"], report["n_without_gold"], report["n_asked_again"]) == (1, 4, 1, 2)
    assert report["failures"] == {
        "the call failed: HTTP 500, 7 attempts": 1,
        "the judge or its provider refused to answer": 1,
        "the reply was cut off at the token limit": 1,
        "not one JSON object: Expecting value at character 0": 1,
    }
    # A call that failed, and a refusal, are not asked again by the scorer.
    assert [len(batch) for batch in double.asked] == [5, 2]


def test_asking_again_is_bounded_counted_and_says_what_was_wrong() -> None:
    double = Double({"a": [said("eight"), said(reply(8, 8, 8))], "b": [said(reply(1, 2, 3))]})
    reward = reward_of(double)
    assert reward([rollout("a"), rollout("b")]) == pytest.approx([0.8, 0.2])
    assert double.asked[1][0]["problem"] == "not one JSON object: Expecting value at character 0"
    assert reward.report()["n_asked_again"] == 1
    never = Double({"a": [said("eight"), said("still eight")]})
    assert reward_of(never, max_reasks=3)([rollout("a")]) == [None]
    assert len(never.asked) == 4
    assert reward_of(Double({"a": [said("eight")]}), max_reasks=0)([rollout("a")]) == [None]


def test_too_many_failures_stop_the_run_over_all_calls() -> None:
    double = Double({"ok": [said(reply(5, 5, 5))], "bad": [said("?")] * 2})
    reward = reward_of(double, max_failed_share=0.1, name="judge-1")
    # 10 % of the least 20 bears two; of 40 four, whatever number of calls they are spread over.
    assert reward([rollout("bad"), rollout("bad")]) == [None, None]
    reward([rollout("ok")] * 36)
    assert reward([rollout("bad")] * 2) == [None, None]
    with pytest.raises(ModelError, match=r"judge-1 failed to mark 5 of 41 reasonings.*0\.1 .*5 x not one JSON object"):
        reward([rollout("bad")])


def test_an_expert_may_not_be_marked_by_position() -> None:
    """Each rollout is marked against the reasons of its own case, whatever its place in the batch."""
    cases = [Case(str(i), {"q": "x"}, gold="1", reason=f"expert {i}") for i in range(6)]

    class OwnExpert:
        def generate(self, contract: TaskContract, asked: Sequence[Case]) -> list[Completion]:
            own = (case.inputs["expert"].split()[1] == case.inputs["trainee"].split()[1] for case in asked)
            return [said(reply(10, 10, 10) if same else reply(0, 0, 0)) for same in own]

    rollouts = [Rollout(case, Verdict(case.case_id, "1", None, f"trainee {case.case_id}"), said("")) for case in cases]
    reward = LlmReward(ReasoningScorer(OwnExpert()))
    assert reward(rollouts[::-1]) == [1.0] * 6
    swapped = [Rollout(a.case, b.judgement, a.completion) for a, b in itertools.pairwise(rollouts)]
    assert reward(swapped) == [0.0] * 5


def test_a_failed_judge_leaves_a_rollout_out_whatever_else_it_earned() -> None:
    double = Double({"ok": [said(reply(6, 6, 6))], "bad": [said("?")] * 2})
    plan = RewardPlan(
        (Term("accuracy", 1.0), Term("llm", 0.5)),
        (),
        {"accuracy": RuleReward(REWARDS["accuracy"]), "llm": reward_of(double)},
    )
    scored = plan.score([rollout("ok"), rollout("bad"), rollout(None)])
    # 1 + 0.5 x 0.6; left out, not 1 + 0; an unreadable completion earns nothing at all.
    assert [row.total for row in scored] == [pytest.approx(1.3), None, 0.0]
    assert plan.maximum == 1.5


# --- with judges that exist -------------------------------------------------------------------------------------------


def context(**settings: Any) -> RewardContext:
    return RewardContext(AppropriatenessContract(), settings=RewardSettings(llm=LlmSettings(**settings)), device="cpu")


def test_a_reward_without_a_judge_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"grpo\.reward_settings\.llm\.judge"):
        llm_reward(context())


def test_an_endpoint_marks_and_the_second_pass_is_free(tmp_path: Path) -> None:
    def script(text: str, before: int) -> Action:
        if "bad call" in text:
            return Status(400)
        if "fenced" in text and "could not be read" not in text:
            return Say(f"```json\n{reply(9, 9, 9)}\n```")
        return Say(reply(9, 9, 9) if "fenced" in text else reply(3, 3, 3), n_in=200, n_out=20)

    settings = EndpointSettings(cache=tmp_path / "c", usd_per_million_in=1.0, usd_per_million_out=10.0)
    rollouts = [rollout(text) for text in ("plain", "fenced", "bad call")]
    make: Callable[[str], LlmReward] = lambda url: llm_reward(context(judge=f"openai:j@{url}", endpoint=settings))  # noqa: E731
    with scripted(script) as server:
        reward = make(server.url)
        assert reward(rollouts) == [pytest.approx(0.3), pytest.approx(0.9), None]
        n_requests = len(server.bodies)
        again = make(server.url)
        assert again(rollouts[:2]) == [pytest.approx(0.3), pytest.approx(0.9)]
        assert len(server.bodies) == n_requests == 4
    report = reward.report()
    assert (report["n_marked"], report["n_failed"], report["n_asked_again"]) == (2, 1, 1)
    assert report["endpoint"]["model"] == "j"
    # Three answers, one of them without the larger count: 2 x 200 + 10 in, 2 x 20 + 2 out.
    assert report["usage"]["cost_usd"] == pytest.approx((410 * 1 + 42 * 10) / 1e6)
    assert (again.report()["usage"]["n_from_cache"], again.report()["usage"]["new_cost_usd"]) == (3, 0.0)


def test_a_local_judge_that_cannot_keep_to_the_form_is_counted_never_0(tmp_path: Path) -> None:
    judge = str(save_base(tmp_path / "judge"))
    reward = llm_reward(context(judge=judge, max_completion_tokens=4, max_failed_share=1.0))
    assert reward([rollout("a"), rollout("b")]) == [None, None]
    report = reward.report()
    assert (report["n_failed"], report["n_asked_again"], report["judge"]) == (2, 2, judge)
    strict = llm_reward(context(judge=judge, max_completion_tokens=4))
    with pytest.raises(ModelError, match="failed to mark 3 of 3 reasonings"):
        strict([rollout("a"), rollout("b"), rollout("c")])


def test_a_local_judge_that_is_not_there_is_named_before_training() -> None:
    with pytest.raises(ModelError, match=r"neither a model folder, nor a \.gguf file, nor a hub id"):
        llm_reward(context(judge="./nowhere/at/all"))


def test_the_judge_sees_what_the_policy_saw() -> None:
    asked = rollout("generated")
    shown = replace(asked.completion, shown={"condition": "pain"})
    assert reasoning_case(asked).inputs["case"] == "condition: pain\nvariant: adult"
    assert reasoning_case(replace(asked, completion=shown)).inputs["case"] == "condition: pain"


# --- in a run ---------------------------------------------------------------------------------------------------------


def llm_tree(tmp_path: Path, url: str, **over: Any) -> dict[str, Any]:
    """A small run whose policy gives reasons; SFT teaches it the form."""
    rows = write_rows(tmp_path / "rows.jsonl")
    reasoned = [
        {**row, "reasoning": f"{row['procedure']} shows it."}
        for row in map(json.loads, rows.read_text(encoding="utf-8").splitlines())
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in reasoned), encoding="utf-8")
    settings = {
        "judge": f"openai:judge@{url}",
        "endpoint": {"cache": str(tmp_path / "cache.sqlite"), "retry_wait_s": 0.01, "usd_per_million_in": 1.0},
    }
    tree = small_tree(rows, tmp_path / "runs", stages=["prepare", "base", "sft", "grpo"])
    tree["task"] |= {"form": "reasoning", "max_prompt_tokens": 200, "max_completion_tokens": 32}
    tree["grpo"] |= {"rewards": {"accuracy": 1.0, "llm": 0.5}, "reward_settings": {"llm": settings}, "max_steps": 2}
    tree["grpo"] |= {"preflight": {"prompts": 0}}  # its sample would be marked too
    return {**tree, **over}


def test_what_a_judge_lacks_is_said_before_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    quiet = Console(quiet=True)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        run_recipe(recipe_from_tree(llm_tree(tmp_path, "https://far.example/v1")), quiet)
    with pytest.raises(ConfigError, match=r"grpo\.reward_settings\.llm\.judge"):
        run_recipe(recipe_from_tree(llm_tree(tmp_path, "http://x/v1"), ["grpo.reward_settings.llm={}"]), quiet)
    extra = {"extra_models": {"gpt": "openai:m@https://far.example/v1"}}
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        run_recipe(recipe_from_tree(small_tree(tmp_path / "rows.jsonl", tmp_path / "runs", evaluate=extra)), quiet)
    assert not list((tmp_path / "runs").glob("*/prepare"))


@pytest.mark.slow
def test_grpo_trains_on_a_judge_that_sometimes_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lock, n_calls = threading.Lock(), 0

    def script(text: str, before: int) -> Action:
        nonlocal n_calls
        with lock:
            n_calls += 1
            if n_calls % 5 == 0:
                return Status(500)
        return Say(reply(len(text) % 11, 5, 5), n_in=100, n_out=10)

    with scripted(script) as server:
        recipe = recipe_from_tree(llm_tree(tmp_path, server.url))
        run_dir = run_recipe(recipe, Console(quiet=True))
    summary = artifacts.read_json(run_dir / "grpo" / artifacts.MANIFEST)["summary"]
    report = artifacts.read_json(run_dir / "grpo" / artifacts.JUDGES)["llm"]
    # 2 steps x 4 prompts x 4 completions.
    assert report["n_marked"] + report["n_failed"] + report["n_unread"] == 32
    assert summary["llm n_marked"] == report["n_marked"] > 0
    assert report["usage"]["n_retries"] > 0
    assert "variant" not in "".join(capfd.readouterr())
