"""One judge asks, whatever the entry point: the same contract, the same rule for a mismatch, the same sentence."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from medjudge import Judge, artifacts
from medjudge.cli import main
from medjudge.errors import ConfigError, MedjudgeError
from medjudge.inference.loader import LoadedWhenAsked, LoadSettings
from medjudge.judging import answer_store, judge
from medjudge.judging.answer_store import AnswerStore
from medjudge.judging.judge import JudgeSettings, Question, contract_for
from medjudge.models.contract import TrainedUnder, check_contract, write_contract
from medjudge.records import Case
from medjudge.rewards.composition import RewardContext
from medjudge.rewards.llm import llm_reward
from medjudge.settings.model import ModelConfig
from medjudge.settings.rewards import LlmSettings, RewardSettings
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.marks import ReasoningContract
from medjudge.tasks.rubric import RubricContract
from tests.models.small_models import save_adapter, save_base

KIND = {"1": "curt", "2": "plain", "3": "kind"}
TOML = 'criteria = "Is it kind?"\n[rubric]\n1 = "curt"\n2 = "plain"\n3 = "kind"\n'
ROOM = {"max_prompt_tokens": 8192, "max_completion_tokens": 1024}
"""What a benchmark asks with, whatever its judges were trained with."""
OWN = RubricContract(
    points=3, criteria="Is it kind?", rubric=KIND, form="score_only", instructions="terse", system_prompt="", **ROOM
)
OPTIONS = ["--set", "evaluate.n_resamples=100", "--set", "evaluate.baselines=false", "--mode", "labels"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows, a rubric, and a model that was trained under `OWN`."""
    rows = [{"input": f"q{i}", "output": f"a{i}", "score": 1 + i % 3} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "kind.toml").write_text(TOML, encoding="utf-8")
    write_contract(save_base(tmp_path / "model"), OWN)
    return tmp_path


class EntryPoints:
    """Every way to ask the model of a folder; each gives what was said, whether it refused or not."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        self.folder, self.monkeypatch, self.capsys, self.caplog = folder, monkeypatch, capsys, caplog
        self.model, self.rows = str(folder / "model"), str(folder / "rows.jsonl")

    def command(self, *arguments: str, ok: bool | None = None) -> str:
        self.monkeypatch.setattr(sys, "argv", ["medjudge", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        captured = self.capsys.readouterr()
        assert ok is None or ok is not bool(end.value.code), captured.err
        return captured.out + captured.err

    def evaluate(self, *task: str, ok: bool | None = None) -> str:
        given = ["--model", f"m={self.model}", "--data", self.rows, "--out", str(self.folder / "evaluated")]
        return self.command("evaluate", *given, *OPTIONS, *task, ok=ok)

    def probe(self, *task: str, ok: bool | None = None) -> str:
        given = ["--model", f"m={self.model}", "--data", self.rows, "--out", str(self.folder / "probed")]
        return self.command("probe", *given, "--probe", "verbosity", *OPTIONS, *task, ok=ok)

    def calibrate(self, *task: str, ok: bool | None = None) -> str:
        return self.command("calibrate", self.model, "--data", self.rows, "--mode", "labels", *task, ok=ok)

    def bench(self, *task: str, ok: bool | None = None) -> str:
        given = ["--model", f"m={self.model}", "--data", f"mine={self.rows}"]
        given += ["--rubric", f"mine={self.folder / 'kind.toml'}", "--out", str(self.folder / "benched"), *OPTIONS[:4]]
        task = tuple(part for part in task if part not in ("--task", "rubric"))
        return self.command("bench", "rubric", *given, "--mode", "labels", *task, ok=ok)

    def python(self, kind: str | None = None, **settings: Any) -> str:
        self.caplog.clear()
        with self.caplog.at_level(logging.INFO, logger="medjudge"):
            try:
                Judge(self.model, kind, settings).judge(self.rows, mode="labels")
            except MedjudgeError as error:
                return str(error)
        return "\n".join(record.getMessage() for record in self.caplog.records)

    def reward(self, **settings: Any) -> str:
        self.caplog.clear()
        llm = LlmSettings(judge=self.model, **settings)
        context = RewardContext(EquivalenceContract(), settings=RewardSettings(llm=llm), device="cpu")
        with self.caplog.at_level(logging.INFO, logger="medjudge"):
            try:
                llm_reward(context)
            except MedjudgeError as error:
                return str(error)
        return "\n".join(record.getMessage() for record in self.caplog.records)


@pytest.fixture
def entries(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> EntryPoints:
    return EntryPoints(folder, monkeypatch, capsys, caplog)


def sentence(where: str, own: TaskContract, asked: TaskContract) -> str:
    """What the one rule says, refusing or not."""
    try:
        return check_contract(TrainedUnder(where, own, own.fingerprint()), asked) or ""
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize(
    ("settings", "is_refused", "words"),
    [
        (
            {"form": "feedback"},
            True,
            "the answer form `task.form = score_only`, but is asked for `task.form = feedback`",
        ),
        ({"instructions": "published"}, False, "instructions (asked: published, trained: terse)."),
    ],
    ids=["form", "wording"],
)
def test_every_entry_point_says_the_same_of_a_mismatch(
    entries: EntryPoints, settings: dict[str, Any], is_refused: bool, words: str
) -> None:
    expected = sentence(entries.model, OWN, OWN.model_copy(update=settings))
    assert words in expected
    task = ["--task", "rubric", *(part for key, value in settings.items() for part in ("--set", f"task.{key}={value}"))]
    for entry in (entries.evaluate, entries.probe, entries.calibrate, entries.bench):
        assert expected in entry(*task, ok=not is_refused), entry.__name__
    assert expected in entries.python("rubric", **settings)
    assert expected in entries.python(None, **settings)
    if not is_refused:  # what was said stands with the numbers, too
        assert expected in artifacts.read_json(entries.folder / "evaluated" / artifacts.RESULTS)["statements"]
        assert any(
            expected in note for note in artifacts.read_json(entries.folder / "benched" / artifacts.SUITE)["notes"]
        )


def test_other_labels_are_refused_but_are_what_a_benchmark_is_for(entries: EntryPoints) -> None:
    trained = RubricContract.model_validate({**OWN.model_dump(), "points": 2, "rubric": {"0": "no", "1": "yes"}})
    write_contract(Path(entries.model), trained)
    preset = ["--set", f"task.preset={entries.folder / 'kind.toml'}"]
    expected = sentence(entries.model, trained, OWN)
    assert "the labels 0, 1, but is asked for 1, 2, 3" in expected
    for entry in (entries.evaluate, entries.probe, entries.calibrate):
        assert expected in entry(*preset, ok=False), entry.__name__
    assert expected in entries.python(None, points=3, rubric=KIND)
    printed = entries.bench(ok=True)
    assert (
        "under other settings than it was trained under: points (asked: 3, trained: 2), rubric (texts differ)"
        in printed
    )


def test_another_task_is_refused_everywhere(entries: EntryPoints) -> None:
    own = EquivalenceContract()
    write_contract(Path(entries.model), own)
    asked = RubricContract(criteria="c", rubric="r")
    expected = sentence(entries.model, own, asked)
    assert "the task equivalence, but is asked for rubric" in expected
    texts = ["--set", "task.criteria=c", "--set", "task.rubric=r"]
    for entry in (entries.evaluate, entries.probe, entries.calibrate):
        assert expected in entry("--task", "rubric", "--set", "task.form=score_only", *texts, ok=False), entry.__name__
    assert expected in entries.bench(ok=False)
    assert expected in entries.python("rubric", criteria="c", rubric="r")
    assert entries.reward() == sentence(entries.model, own, ReasoningContract(max_completion_tokens=96))


def test_a_reward_judge_under_other_settings_says_so(entries: EntryPoints) -> None:
    own = ReasoningContract(instructions="terse")
    write_contract(Path(entries.model), own)
    assert entries.reward(instructions="terse") == ""
    expected = sentence(entries.model, own, ReasoningContract())
    assert "instructions (asked: full, trained: terse)" in expected
    assert entries.reward() == expected


def test_a_model_that_knows_its_task_needs_it_nowhere(entries: EntryPoints) -> None:
    """And a calibrator that was fitted so is found again: it was fitted under the same contract."""
    for entry in (entries.calibrate, entries.evaluate, entries.probe, entries.bench):
        assert "other settings" not in entry(ok=True), entry.__name__
    recorded = artifacts.read_json(entries.folder / "evaluated" / artifacts.RESULTS)
    assert recorded["labels"] == ["1", "2", "3"]
    assert any("confidences are calibrated" in line for line in recorded["statements"])
    face = Judge(entries.model)
    assert face.contract == OWN == Judge(entries.model, "rubric").contract
    assert face.calibrator("labels") is not None
    assert entries.python() == ""


def test_where_no_model_says_its_task_it_must_be_named(tmp_path: Path, entries: EntryPoints) -> None:
    endpoint = "openai:m@http://127.0.0.1:9/v1"
    (Path(entries.model) / artifacts.CONTRACT).unlink()
    assert "no contract.json says what the task is" in entries.evaluate(ok=False)
    with pytest.raises(ConfigError, match=r"name the task \(--task KIND"):
        contract_for([endpoint])
    with pytest.raises(ConfigError, match=r"no contract\.json"):
        _ = Judge(endpoint).contract
    assert contract_for([endpoint], "rubric") is None
    assert Judge(endpoint, "equivalence").contract == EquivalenceContract()


def test_a_folder_of_an_earlier_version_is_held_to_its_fingerprint(entries: EntryPoints) -> None:
    folder = Path(entries.model)
    (folder / artifacts.CONTRACT).unlink()
    lineage = artifacts.read_json(folder / artifacts.LINEAGE)
    artifacts.write_json(folder / artifacts.LINEAGE, {**lineage, "contract_sha256": OWN.fingerprint()})
    task = ["--task", "rubric", "--set", f"task.preset={entries.folder / 'kind.toml'}", "--set", "task.system_prompt="]
    task += [part for key, value in ROOM.items() for part in ("--set", f"task.{key}={value}")]
    task += ["--set", "task.form=score_only"]
    assert "holds no contract.json that would say in what they differ" in entries.calibrate(*task, ok=False)
    assert "wrote" in entries.calibrate(*task, "--set", "task.instructions=terse", ok=True)


# --- asking -----------------------------------------------------------------------------------------------------------

CONTRACT = EquivalenceContract(system_prompt="", max_completion_tokens=4)
CASES = [Case(str(i), {"question": f"q{i}?", "reference": "r", "candidate": f"c{i}"}) for i in range(7)]
ON_CPU = JudgeSettings(LoadSettings(model=ModelConfig(device="cpu", dtype="float32")), "labels")


def judge_of(where: Path, store: AnswerStore | None, settings: JudgeSettings = ON_CPU) -> judge.Judge:
    return judge.Judge("m", str(where), CONTRACT, settings, store=store)


def test_parts_on_disk_are_not_asked_again_and_damaged_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_store, "PART", 3)
    model, store = save_base(tmp_path / "model"), AnswerStore(tmp_path / "store")
    asked: list[int] = []
    real = LoadedWhenAsked.label_logprobs

    def count(engine: LoadedWhenAsked, contract: Any, cases: Any) -> Any:
        asked.append(len(cases))
        return real(engine, contract, cases)

    monkeypatch.setattr(LoadedWhenAsked, "label_logprobs", count)
    whole = judge_of(model, None).answers(Question(CASES))
    first = judge_of(model, store).answers(Question(CASES))
    assert asked == [7, 3, 3, 1]
    for one, other in zip(whole.first, first.first, strict=True):
        assert one.probabilities == pytest.approx(dict(other.probabilities), abs=1e-5)  # type: ignore[union-attr]
    again = judge_of(model, store)
    assert again.answers(Question(CASES)).rows == first.rows
    assert again.lineage is not None
    assert len(asked) == 4
    damaged = sorted(store.folder.iterdir())[1]
    damaged.write_text(damaged.read_text()[:-9])
    assert judge_of(model, store).answers(Question(CASES)).rows == first.rows
    assert asked[4:] == [3, 1]
    # Other cases, another mode and another model are other questions.
    judge_of(model, store).answers(Question(CASES[:2]))
    judge_of(save_base(tmp_path / "other", seed=1), store).answers(Question(CASES))
    assert asked[6:] == [2, 3, 3, 1]
    artifacts.write_json(model / artifacts.CALIBRATION, {})  # changes no answer
    assert judge_of(model, store).answers(Question(CASES)).rows == first.rows
    assert len(asked) == 10
    store.clear()
    assert list(store.folder.iterdir()) == []


def test_probed_cases_are_asked_under_contracts_of_their_own(tmp_path: Path) -> None:
    model = save_base(tmp_path / "model")
    other = CONTRACT.model_copy(update={"language": "fr"})
    contracts = [other if i % 2 else CONTRACT for i in range(len(CASES))]
    mixed = judge_of(model, None).answers(Question(CASES, contracts)).first
    plain = judge_of(model, None).answers(Question(CASES)).first
    same = [one == two for one, two in zip(mixed, plain, strict=True)]
    assert same[1::2] == [False] * 3
    for one, two in zip(mixed[::2], plain[::2], strict=True):
        assert one.probabilities == pytest.approx(dict(two.probabilities), abs=1e-5)  # type: ignore[union-attr]


def test_samples_are_those_of_the_seed(tmp_path: Path) -> None:
    settings = JudgeSettings(ON_CPU.load)
    model = save_base(tmp_path / "model")
    question = Question(CASES, None, "samples", 3, 1.5)
    first = judge_of(model, AnswerStore(tmp_path / "store"), settings).answers(question).rows
    assert first == judge_of(model, None, settings).answers(question).rows
    assert [len(row) for row in first] == [3] * len(CASES)


def test_an_adapter_brings_its_contract(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    write_contract(adapter, CONTRACT)
    assert contract_for([str(adapter)]) == contract_for([f"vllm:{adapter}"]) == CONTRACT
