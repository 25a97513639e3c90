"""The task contract beside a model's weights, `contract.json`, and the one rule for asking under another one.

A judge is trained under one wording, one form of answer and one set of labels. The file says which, so that nobody has
to repeat the settings when the model is asked. Asking under other settings is allowed and said; where the kind of task,
the labels or the form of the answer differ, what the model writes could not be read, and it is refused. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from medjudge import artifacts
from medjudge.errors import ConfigError, ModelError, RunError
from medjudge.records import Case, Verdict
from medjudge.settings.endpoint import is_endpoint
from medjudge.settings.engine import local_name
from medjudge.tasks.catalog import TASKS
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.rubric import RubricContract

FILE_VERSION = 1
SHORT = 24
"""A setting's value of at most so many characters is shown in a message; of a longer one only the name is."""
SCALE_SETTINGS = ("points", "criteria", "rubric")
"""What a set of the rubric benchmark brings of its own: a judge is asked on scales that it was not trained on."""
MODEL_FILES = ("config.json", "adapter_config.json", artifacts.CONTRACT, artifacts.LINEAGE)
"""A folder with one of these is taken for a model's; `resolve` says of others what is missing."""
_PLACEHOLDER = "text"


@dataclass(frozen=True, slots=True)
class TrainedUnder:
    """What a model's folder says of the contract that it was trained under."""

    where: str
    """The model as it was named."""
    contract: TaskContract | None = None
    """None for a model from elsewhere, or a folder of an earlier version."""
    fingerprint: str | None = None
    """Of the contract; of a folder without `contract.json`, as its lineage has it."""


def write_contract(folder: Path, contract: TaskContract) -> None:
    """Stores the contract beside the weights: kind, settings in full, fingerprint."""
    tree = {
        "version": FILE_VERSION,
        "kind": contract.kind,
        "fingerprint": contract.fingerprint(),
        "settings": contract.model_dump(mode="json"),
    }
    artifacts.write_json(folder / artifacts.CONTRACT, tree)


def read_contract(folder: Path) -> TaskContract | None:
    """The contract stored in a model folder; None where there is none.

    Raises RunError for a damaged file, ModelError for a contract that this version of the program words or reads in
    another way.
    """
    path = folder / artifacts.CONTRACT
    if not path.exists():
        return None
    tree = artifacts.read_json(path)
    if not isinstance(tree, Mapping) or tree.get("version") != FILE_VERSION or str(tree.get("kind")) not in TASKS:
        raise RunError(
            f"{path} is not a contract of this version: expected version {FILE_VERSION} and one of "
            f"{', '.join(TASKS)}. Train again, or remove the file and name the task."
        )
    try:
        contract = TASKS[str(tree["kind"])].model_validate(tree["settings"])
    except (ValidationError, KeyError) as error:
        raise RunError(
            f"{path} holds settings that this version does not know ({type(error).__name__}), expected its own. Train "
            "again, or remove the file and name the task with its settings."
        ) from None
    if contract.fingerprint() != tree.get("fingerprint"):
        raise ModelError(
            f"{path} has fingerprint {str(tree.get('fingerprint'))[:16]}, but its settings come to "
            f"{contract.fingerprint()[:16]} here: the file was changed, or this version words or reads the task in "
            "another way. Train again, or ask with the version that trained it."
        )
    return contract


def trained_under(where: str) -> TrainedUnder:
    """What the model `where` (folder, hub id, `vllm:` of either, or endpoint) was trained under, as far as is known.

    A hub's snapshot is downloaded where it is not here yet. Raises ModelError where there is no such model.
    """
    if is_endpoint(where):
        return TrainedUnder(where)
    folder = Path(local_name(where))
    if not any((folder / name).exists() for name in MODEL_FILES):
        from medjudge.models.load import resolve  # torch: only for what is no model's folder

        folder = resolve(local_name(where))
    contract = read_contract(folder)
    return TrainedUnder(where, contract, contract.fingerprint() if contract is not None else _from_lineage(folder))


def _from_lineage(folder: Path) -> str | None:
    """The fingerprint that an earlier version noted; a damaged lineage is refused where the weights are loaded."""
    try:
        tree = artifacts.read_json(folder / artifacts.LINEAGE)
    except RunError:
        return None
    fingerprint = tree.get("contract_sha256") if isinstance(tree, Mapping) else None
    return fingerprint if isinstance(fingerprint, str) else None


# --- one rule for a mismatch ------------------------------------------------------------------------------------------


def check_contract(trained: TrainedUnder, asked: TaskContract, *, any_scale: bool = False) -> str | None:
    """A sentence that names the settings in which `asked` differs from the model's own; None where none does.

    any_scale: a rubric judge may be asked on another scale and rubric than its own, as a benchmark does; that is then
    part of the sentence. Raises ConfigError where kind, labels or the form of the answer differ.
    """
    if trained.fingerprint in (None, asked.fingerprint()):
        return None
    if trained.contract is None:
        return _by_fingerprint(trained, asked, any_scale=any_scale)
    own = trained.contract
    if own.kind != asked.kind:
        raise _refused(trained, "the task", own.kind, asked.kind)
    other_scale = any_scale and isinstance(own, RubricContract)
    if own.labels != asked.labels and not other_scale:
        raise _refused(trained, "the labels", ", ".join(own.labels), ", ".join(asked.labels))
    own_form, asked_form = _on_the_scale_of(own, asked) if other_scale else own, asked
    if not _reads(asked_form, own_form):
        settings = _differing(own_form, asked_form)
        names = [name for name in settings if _decides_form(own_form, asked_form, name)] or settings
        raise _refused(trained, "the answer form", _values(own_form, names), _values(asked_form, names))
    settings = _differing(own, asked)
    if not settings:
        return None
    return f"{trained.where} is asked under other settings than it was trained under: {_listed(own, asked, settings)}."


def _by_fingerprint(trained: TrainedUnder, asked: TaskContract, *, any_scale: bool) -> str:
    """The rule for folders of earlier versions, whose settings are not known."""
    if any_scale:
        return (
            f"{trained.where} is asked under another contract than it was trained under, and holds no "
            f"{artifacts.CONTRACT} that would say in what they differ: its answers may have another form."
        )
    raise ConfigError(
        f"{trained.where} was trained under contract {str(trained.fingerprint)[:16]}, but is asked under "
        f"{asked.fingerprint()[:16]}, and it holds no {artifacts.CONTRACT} that would say in what they differ: "
        "expected the same contract. Give the task settings of its recipe's [task], or train it again."
    )


def _refused(trained: TrainedUnder, what: str, own: str, asked: str) -> ConfigError:
    return ConfigError(
        f"{trained.where} was trained for {what} {own}, but is asked for {asked}: expected {what} that it was trained "
        f"for ({artifacts.CONTRACT} in its folder). Leave out the task and its settings, and it is asked as it was "
        "trained; or take a model that was trained for what you ask."
    )


def agreed_contract(models: Sequence[TrainedUnder], kind: str | None = None) -> TaskContract | None:
    """The contract that all models of this kind (of any, where it is None) were trained under; None where none says.

    Raises ConfigError where no kind is named and they differ.
    """
    known = [one for one in models if one.contract is not None and kind in (None, one.contract.kind)]
    if not known:
        return None
    first = cast(TaskContract, known[0].contract)
    for other in known[1:]:
        own = cast(TaskContract, other.contract)
        if own.fingerprint() == first.fingerprint():
            continue
        if kind is not None:
            return None
        differing = (
            "kind" if own.kind != first.kind else _listed(own, first, _differing(first, own), ("first", "second"))
        )
        raise ConfigError(
            f"{known[0].where} and {other.where} were trained under different contracts ({differing}): expected one "
            "contract for all models. Name the task and its settings that all are asked under, or ask them one by one."
        )
    return first


def _differing(own: TaskContract, asked: TaskContract) -> list[str]:
    """Settings of one kind that differ and matter: what is asked or accepted, not how rows are read."""
    mine, theirs = own.model_dump(mode="json"), asked.model_dump(mode="json")
    return [name for name in mine if name not in own.rows_and_targets_only and mine[name] != theirs[name]]


def _listed(
    own: TaskContract, asked: TaskContract, names: Sequence[str], who: tuple[str, str] = ("asked", "trained")
) -> str:
    shown = []
    for name in names:
        values = [getattr(asked, name), getattr(own, name)]
        is_short = all(not isinstance(value, Mapping) and len(_shown(value)) <= SHORT for value in values)
        pair = f"{who[0]}: {_shown(values[0])}, {who[1]}: {_shown(values[1])}"
        shown.append(f"{name} ({pair})" if is_short else f"{name} (texts differ)")
    return ", ".join(shown)


def _values(contract: TaskContract, names: Sequence[str]) -> str:
    return ", ".join(f"`task.{name} = {_shown(getattr(contract, name))}`" for name in names)


def _shown(value: Any) -> str:
    """As a recipe writes it."""
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    return str(value) or '""'


# --- the form of an answer: what `parse` accepts ----------------------------------------------------------------------


def _reads(asked: TaskContract, own: TaskContract) -> bool:
    """Whether `asked` reads the answers that `own` teaches, for every label.

    The form is what `parse` accepts, so it is asked, not listed: another wording or limit changes nothing, a lenient
    contract reads more forms than its own, and a new setting of a task needs no entry here.
    """
    for label in own.labels:
        answer = _taught_answer(own, label)
        taught = own.parse("", answer) if answer is not None else None
        if answer is None or not isinstance(taught, Verdict):
            continue
        judgement = asked.parse("", answer)
        if not isinstance(judgement, Verdict) or judgement.label != taught.label:
            return False
    return True


def _taught_answer(contract: TaskContract, label: str) -> str | None:
    try:
        return contract.target(Case("", dict.fromkeys(contract.fields, _PLACEHOLDER), gold=label))
    except (ValueError, KeyError):
        return None


def _decides_form(own: TaskContract, asked: TaskContract, name: str) -> bool:
    """Whether `own` with this one setting of `asked` no longer reads what `own` teaches."""
    try:
        changed = type(own).model_validate({**own.model_dump(), name: asked.model_dump()[name]})
    except ValidationError:  # the setting cannot stand alone, as thinking without its block
        return True
    return not _reads(changed, own)


def _on_the_scale_of(own: TaskContract, asked: TaskContract) -> TaskContract:
    scale = {name: getattr(asked, name) for name in SCALE_SETTINGS}
    return type(own).model_validate({**own.model_dump(), **scale})
