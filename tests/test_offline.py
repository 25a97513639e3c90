"""Nothing is looked up outside of this machine but what is named; no code of a model is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import medjudge
from medjudge import network
from medjudge.commands.plan import print_plan
from medjudge.errors import ModelError
from medjudge.models import load
from medjudge.recipe import recipe_from_tree
from tests.models.small_models import save_adapter, save_base
from tests.small_runs import small_tree, write_rows, write_toml

GUARD = '''
"""Notes and refuses every look-up and connection that leaves this machine, in this process and its children."""
import os, socket

_HERE = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", b"localhost", b"127.0.0.1"}


def _note(kind, host):
    with open(os.environ["LOOKUPS"], "a", encoding="utf-8") as log:
        log.write(f"{kind} {host}\\n")


def _guarded(name):
    real = getattr(socket, name)

    def ask(host, *args, **kwargs):
        if host not in _HERE:
            _note(name, host)
            raise socket.gaierror(-2, "no look-ups here")
        return real(host, *args, **kwargs)

    setattr(socket, name, ask)


for _name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
    _guarded(_name)


class _Socket(socket.socket):
    def _refuse(self, address):
        if isinstance(address, tuple) and address[0] not in _HERE:
            _note("connect", address[0])
            raise ConnectionRefusedError(111, "no connections here")

    def connect(self, address):
        self._refuse(address)
        return super().connect(address)

    def connect_ex(self, address):
        self._refuse(address)
        return super().connect_ex(address)

    def sendto(self, data, *rest):
        self._refuse(rest[-1])
        return super().sendto(data, *rest)


socket.socket = _Socket
'''

DRIVER = '''
"""Commands given one after the other to the program's door; then the same from Python."""
import json, sys, time
from pathlib import Path

from medjudge.cli import main

_, commands, model, rows, recipe = sys.argv
for command in json.load(open(commands, encoding="utf-8")):
    sys.argv = ["medjudge", *command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{command} ended with {end.code}")

from rich.console import Console

from medjudge import Judge, load_cases
from medjudge.recipe import load_recipe
from medjudge.runs.pipeline import run_recipe

settings = {"form": "answer_only", "instructions": "terse", "max_completion_tokens": 12}
cases = load_cases(rows, "appropriateness", fields={"condition": "topic"}, settings=settings)
run_recipe(load_recipe(Path(recipe), ["name=again"]), Console(quiet=True), last="sft", force=True)
Judge(model, "appropriateness", {**settings, "max_prompt_tokens": 120}).judge(cases[:4]).score(n_resamples=20).plots()
time.sleep(1)  # for a library that reports in a thread of its own
'''


def environment(tmp_path: Path) -> dict[str, str]:
    """A user's who has set nothing, with the guard in every Python process."""
    kept = {k: v for k, v in os.environ.items() if not re.match(r"HF_|TRANSFORMERS_|DISABLE_TEL|DO_NOT|CI$|WANDB", k)}
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    path = [str(tmp_path / "guard"), str(Path(medjudge.__file__).parents[1])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(path),
        "LOOKUPS": str(tmp_path / "lookups"),
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


def test_every_command_runs_without_a_look_up(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 20)
    tree = small_tree(rows, tmp_path / "runs")
    tree["sft"] |= {"epochs": 2}
    tree["grpo"] |= {"max_steps": 2, "preflight": {"prompts": 2}}
    recipe = str(write_toml(tmp_path / "small.toml", tree))
    model = str(tmp_path / "runs" / "small" / "merge" / "model")
    judged = ["--recipe", recipe, "--data", str(rows)]
    quick = ["--set", "evaluate.n_resamples=100"]
    verdicts = tmp_path / "verdicts.csv"
    verdicts.write_text("id,label,gold\n" + "".join(f"{i},{i % 2},{i % 2}\n" for i in range(12)), encoding="utf-8")
    passages = [
        {"passage": "p", "question": "q", "answer": "a", "label": label, "source_ds": "covidQA"}
        for label in ("PASS", "FAIL") * 4
    ]
    bench = tmp_path / "bench.jsonl"
    bench.write_text("".join(json.dumps(row) + "\n" for row in passages), encoding="utf-8")
    base = save_base(tmp_path / "base")
    demo = ["sft.max_steps=1", "grpo.max_steps=1", "evaluate.max_cases=4", "evaluate.n_resamples=100"]
    demo += ["grpo.preflight.prompts=0", "sft.completions_per_step=4", "data.max_rows=300"]
    demo += ["grpo.prompts_per_step=1", "sft.micro_batch=4", "grpo.micro_batch=8", f"model.base={base}"]
    commands = [
        ["info"],
        ["init", "mcq", "--out", str(tmp_path / "mcq.toml")],
        ["data", "build", "mcq", "--n", "8", "--out", str(tmp_path / "mcq.jsonl")],
        ["check-data", str(rows), "--recipe", recipe],
        ["run", recipe, "--dry-run"],
        ["run", recipe, "--force"],
        ["preflight", recipe, "--force"],
        ["report", str(tmp_path / "runs" / "small")],
        ["lineage", model],
        ["evaluate", *judged, "--model", f"a={model}", "--out", str(tmp_path / "evaluated"), *quick],
        ["probe", *judged, "--model", f"a={model}", "--out", str(tmp_path / "probed"), *quick, "--max-cases", "4"],
        ["calibrate", model, *judged, "--mode", "labels"],
        ["score", str(verdicts), "--gold", "gold", "--labels", "0,1", "--out", str(tmp_path / "scored")],
        ["bench", "rubric", "--model", f"a={base}", "--data", f"halubench-covidqa={bench}", "--mode", "labels"],
        ["export", "lm-eval", str(tmp_path / "exported"), *judged, "--tokenizer", model],
        ["demo", "--out", str(tmp_path / "demos"), *(part for one in demo for part in ("--set", one))],
    ]
    (found,) = (command for command in commands if command[0] == "bench")
    found += ["--out", str(tmp_path / "suite"), "--set", "task.instructions=terse", *quick]
    (tmp_path / "commands.json").write_text(json.dumps(commands), encoding="utf-8")
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path / "commands.json"), model, str(rows), recipe],
        env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    looked_up = (tmp_path / "lookups").read_text() if (tmp_path / "lookups").exists() else ""
    assert looked_up == ""
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_the_hub_is_in_reach_for_what_is_asked_for_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    in_reach: list[bool] = []

    def snapshot_download(name: str, **options: Any) -> str:
        in_reach.append(not huggingface_hub.constants.HF_HUB_OFFLINE)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    with network.offline():
        assert load.resolve("owner/model") == tmp_path
        assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert in_reach == [True]


def test_the_users_own_environment_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.config
    import huggingface_hub.constants

    def hub_is_off() -> bool:
        flags = {huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE}
        flags.add(os.environ.get("HF_HUB_OFFLINE") == "1")
        assert len(flags) == 1
        return flags.pop()

    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with network.offline():
        assert hub_is_off()
        with network.hub_access():
            assert not hub_is_off()
        with network.offline():
            assert hub_is_off()
        assert hub_is_off()
    assert not hub_is_off()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with network.offline(), network.hub_access():
        assert hub_is_off()  # who is offline by choice stays so
    monkeypatch.undo()
    with network.offline():
        pass


def test_telemetry_is_off_once_the_package_is_imported() -> None:
    import huggingface_hub.constants

    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
    assert (os.environ["HF_HUB_DISABLE_TELEMETRY"], os.environ["DO_NOT_TRACK"]) == ("1", "1")


def test_a_hub_id_that_only_a_file_names_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = save_adapter(tmp_path / "adapter", save_base(tmp_path / "base"))
    (adapter / "lineage.json").unlink()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "owner/no-model"}))
    asked: list[Any] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append(options["local_files_only"])
        raise FileNotFoundError

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    from medjudge.models.lineage import load_any
    from medjudge.settings.model import ModelConfig

    with pytest.raises(ModelError, match=r"'owner/no-model' is a hub id that only a file names.*--base"):
        load_any(adapter, ModelConfig(device="cpu"))
    assert asked == [True]


def test_a_misspelt_path_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelError, match="there is no folder runs/demmo"):
        load.resolve("runs/demmo")


OWN_CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.Tokenizer", None]}
MARK = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@pytest.fixture
def with_own_code(tmp_path: Path) -> Path:
    """A model folder whose config names a class of a file beside it; the file leaves a mark when it is run."""
    folder = save_base(tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": OWN_CODE, "architectures": ["Model"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(MARK)
    (folder / "lineage.json").unlink()
    return folder


def test_a_model_with_code_of_its_own_is_refused_and_auto_map_is_named(with_own_code: Path, tmp_path: Path) -> None:
    from medjudge.settings.model import ModelConfig

    with pytest.raises(ModelError, match=r"`auto_map`.*trust_remote_code=False"):
        load.load_weights(with_own_code, ModelConfig(device="cpu"), load.load_tokenizer(save_base(tmp_path / "b")))
    tree = small_tree(write_rows(tmp_path / "rows.jsonl", 20), tmp_path / "runs")
    tree["model"]["base"] = str(with_own_code)
    from rich.console import Console

    with pytest.raises(ModelError, match="`auto_map`"):
        print_plan(recipe_from_tree(tree), Console(quiet=True), first=None, last=None)
    assert not (with_own_code / "ran").exists()


def test_a_tokenizer_with_code_of_its_own_is_refused_and_auto_map_is_named(tmp_path: Path) -> None:
    folder = save_base(tmp_path / "own")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").unlink()  # without it nothing but the named class could read the rest
    (folder / "own.py").write_text(MARK)
    with pytest.raises(ModelError, match=r"tokenizer_config.json has `auto_map`"):
        load.load_tokenizer(folder)
    assert not (folder / "ran").exists()


def test_no_loader_is_left_to_its_default() -> None:
    """Wherever a library could run a model's own code, it is told not to."""
    source = Path(medjudge.__file__).parent
    calls = re.compile(r"(?:Auto\w+|Config)\.from_(?:pretrained|config)\(|load_dataset\(|SentenceTransformer\(\n?")
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for call in calls.finditer(text):
            following = text[call.start() : call.start() + 300]
            assert re.search(r"trust_remote_code=False|\*\*options", following), f"{path.name}: {call[0]}"
