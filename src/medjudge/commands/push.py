"""`medjudge push DIR OWNER/NAME`: a finished model or adapter to a model hub, with its card, contract and lineage.

Only files of a list are sent, none that holds rows, verdicts, logs or a trainer's state, and where a model lay on this
machine is taken out of those that say it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rich.console import Console
from rich.markup import escape

from medjudge import artifacts
from medjudge.errors import ConfigError, LineageError, ModelError
from medjudge.models.sources import hub_id
from medjudge.network import hub_access
from medjudge.settings.model import BUILTIN

README = "README.md"
_ADAPTER = "adapter_config.json"
SENT = (
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"),
    *("config.json", "generation_config.json", _ADAPTER, "chat_template.jinja"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "merges.txt", artifacts.CONTRACT, artifacts.LINEAGE),
)
"""Names of the files that are sent; anything else in the folder stays here."""
_PLACES = ("_name_or_path", "name_or_path")
"""Keys by which libraries note where a model lay."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ABSOLUTE = re.compile(r"(?<![\w/:.])(?:/|~/|[A-Za-z]:\\)[\w.@+-]+(?:[/\\][\w.@+-]+)+")


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What `medjudge push` is told besides the folder and the name."""

    private: bool = False
    token_env: str | None = None
    """Environment variable that holds the token; else what `hf auth login` stored."""
    parent: str | None = None
    """Hub id of an adapter's parent, where that lies only here."""
    dry_run: bool = False


def push(folder: Path, name: str, options: PushOptions, console: Console) -> None:
    """Sends a folder's model to `name` on the hub, or says what would be sent.

    Raises ConfigError for a name or an environment variable that cannot be used, ModelError for a folder that is no
    finished model, and where the hub refuses.
    """
    for given in (name, *([options.parent] if options.parent else [])):
        if not _HUB_ID.fullmatch(given):
            raise ConfigError(f"{given!r} is no name on a hub, expected OWNER/NAME, such as my-team/french-judge.")
    token = _token(options.token_env)
    lineage = _finished(folder)
    texts = published_texts(folder, lineage, options.parent)
    weights = [path for path in _listed(folder) if path.name not in texts]
    sizes = {one: len(text.encode()) for one, text in texts.items()} | {one.name: one.stat().st_size for one in weights}
    kind = "private" if options.private else "public"
    verb = "would send" if options.dry_run else "sends"
    console.print(f"{verb} {len(sizes)} files, {_bytes(sum(sizes.values()))}, to the {kind} model {name} on {_host()}:")
    for one, size in sorted(sizes.items()):
        console.print(f"  {escape(one)}  {_bytes(size)}", highlight=False)
    if kept := sorted(path.name for path in folder.iterdir() if path.name not in sizes):
        console.print(f"[dim]stays here: {escape(', '.join(kept))}[/]")
    if options.dry_run:
        console.print("nothing was sent (--dry-run)")
        return
    with tempfile.TemporaryDirectory(prefix="medjudge-push.") as work:
        for one, text in texts.items():
            artifacts.write_text(Path(work) / one, text)
        for path in weights:
            (Path(work) / path.name).symlink_to(path.resolve())
        url = _send(Path(work), name, token, options)
    console.print(f"sent: {url}")


def _send(work: Path, name: str, token: str | None, options: PushOptions) -> str:
    import huggingface_hub

    try:
        with hub_access():
            hub = huggingface_hub.HfApi(token=token)
            hub.create_repo(name, repo_type="model", private=options.private, exist_ok=True)
            # A repository that was there before keeps its visibility: nothing private goes to a public one.
            if options.private and not hub.repo_info(name, repo_type="model").private:
                raise ModelError(
                    f"{name} is there and public, expected a private one with --private: nothing was sent. Make it "
                    "private in its settings, or name another."
                )
            hub.upload_folder(
                repo_id=name, folder_path=work, repo_type="model", commit_message="A judge made by medjudge"
            )
    except ModelError:
        raise
    except Exception as error:  # the hub client raises some twenty types, with addresses and headers in their texts
        raise ModelError(
            f"the hub did not take {name} ({type(error).__name__}). Check the name, that the token may write there "
            "(`hf auth login`, or --token-env NAME), and that this machine may reach the hub."
        ) from None
    return f"{_host()}/{name}"


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    if not (token := os.environ.get(variable, "").strip()):
        raise ConfigError(f"--token-env names {variable}, which is not set: expected a token of the hub in it.")
    return token


def _host() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _finished(folder: Path) -> dict[str, Any]:
    """The lineage of a finished model's folder. Raises ModelError for any other folder."""
    advice = "Name the folder of a finished stage, such as RUN/merge/model or RUN/sft/adapter."
    if not folder.is_dir():
        raise ModelError(f"{folder} is no folder, expected one with a model. {advice}")
    if any(part.startswith(".") and part.endswith(".work") for part in folder.resolve().parts) or any(
        folder.glob("trainer_state.json")
    ):
        raise ModelError(f"{folder} is of a training that has not ended, expected a finished model. {advice}")
    if not any((folder / name).is_file() for name in ("config.json", _ADAPTER)):
        raise ModelError(f"{folder} has neither config.json nor {_ADAPTER}, expected a model's folder. {advice}")
    for name in (artifacts.LINEAGE, artifacts.CONTRACT):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}, expected a model that medjudge trained or merged. {advice}")
    if not any(path.suffix == ".safetensors" for path in _listed(folder)):
        raise ModelError(f"{folder} has no weights in safetensors, expected some: no other kind is sent. {advice}")
    artifacts.check_outputs(folder)
    from medjudge.models.lineage import holds_weights, read_lineage

    lineage = read_lineage(folder)
    assert lineage is not None  # its file exists
    if not holds_weights(folder, lineage.weights_sha256):
        raise LineageError(
            f"{folder} does not hold the weights that its {artifacts.LINEAGE} names: they were changed after training, "
            f"expected those. Train or merge again."
        )
    return lineage.to_json()


def _listed(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.iterdir()) if path.is_file() and any(fnmatch(path.name, one) for one in SENT)
    ]


def published_texts(folder: Path, lineage: Mapping[str, Any], parent: str | None) -> dict[str, str]:
    """File name -> text of the files that are rewritten for others: no place on this machine is left in them.

    parent: the hub id of an adapter's parent. Raises ModelError where an adapter's parent has no name that others know,
    or a file says where something lies in a way that is not known here.
    """
    texts = {}
    for path in _listed(folder):
        if path.suffix != ".json" or path.name.startswith("tokenizer.") or path.name in ("vocab.json",):
            continue
        tree = artifacts.read_json(path, constants=True)
        if path.name == artifacts.LINEAGE:
            tree = _lineage(dict(lineage), parent)
        elif path.name == _ADAPTER:
            tree = {**tree, "base_model_name_or_path": _public_base(folder, tree, lineage, parent)}
        tree = {key: value for key, value in tree.items() if key not in _PLACES}
        if (found := _local_place(tree)) is not None:
            raise ModelError(
                f"{path} names a place on this machine under `{found}`, expected none in what is published: nothing "
                "was sent. Change it there, or take it out."
            )
        texts[path.name] = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    texts[README] = _card(folder, lineage, texts)
    return texts


def _lineage(tree: dict[str, Any], parent: str | None) -> dict[str, Any]:
    for ancestor in tree["ancestry"]:
        if "name" in ancestor:
            ancestor["name"] = _last_part(ancestor["name"])
    tree["base"] = _last_part(tree["base"])
    if tree["parent"] is not None:
        tree["parent"] = {**tree["parent"], "path": parent or _last_part(tree["parent"]["path"]), "relative_path": None}
    tree["merge"] = _scrubbed(tree["merge"])  # where a measurement failed, it says why
    return tree


def _public_base(folder: Path, adapter: Mapping[str, Any], lineage: Mapping[str, Any], parent: str | None) -> str:
    """What plain PEFT is to load the adapter on."""
    named = str(adapter.get("base_model_name_or_path") or "")
    origin = str((lineage["parent"] or {}).get("path", ""))
    known = parent or next((hub_id(one) for one in (named, origin) if _HUB_ID.fullmatch(hub_id(one))), None)
    if known is None or (parent is None and not _HUB_ID.fullmatch(named) and not origin.startswith(BUILTIN)):
        raise ModelError(
            f"the adapter {folder} was trained on weights that lie only on this machine, expected a parent that others "
            "can load. Push the parent first and name it with --parent OWNER/NAME, or push the merged model."
        )
    return known


def _is_absolute(text: str) -> bool:
    return text.startswith("~") or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


def _last_part(name: str) -> str:
    is_local = _is_absolute(name) or name.startswith(".") or Path(name).exists() or name.count("/") > 1
    return PureWindowsPath(name).name if is_local else name


def _local_place(value: Any, key: str = "") -> str | None:
    """The first key whose value is a place on this machine."""
    if isinstance(value, Mapping):
        return next((found for name, one in value.items() if (found := _local_place(one, str(name)))), None)
    if isinstance(value, list):
        return next((found for one in value if (found := _local_place(one, key))), None)
    return key or "a value" if isinstance(value, str) and _is_place(value) else None


def _is_place(text: str) -> bool:
    """Whether a text is a path and not, say, the token `</s>`: of several parts, or one that is here."""
    return _is_absolute(text) and (bool(_ABSOLUTE.fullmatch(text)) or (len(text) > 1 and os.path.exists(text)))  # noqa: PTH110 - Path.exists raises for a long text


def _scrubbed(value: Any) -> Any:
    """The value with each path in its texts shortened to its last part."""
    if isinstance(value, Mapping):
        return {key: _scrubbed(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(one) for one in value]
    return _without_places(value) if isinstance(value, str) else value


def _without_places(text: str) -> str:
    return _ABSOLUTE.sub(lambda found: PureWindowsPath(found[0]).name, text)


def _card(folder: Path, lineage: Mapping[str, Any], texts: Mapping[str, str]) -> str:
    """The card of the run where that lies beside the model, else a short one of what the lineage says."""
    for run in folder.resolve().parents[:2]:
        if (text := _card_of_run(run, str(lineage["weights_sha256"]))) is not None:
            return _without_places(text)
    adapter = json.loads(texts[_ADAPTER]) if _ADAPTER in texts else None
    contract = json.loads(texts[artifacts.CONTRACT])
    base = adapter["base_model_name_or_path"] if adapter else hub_id(_last_part(str(lineage["base"])))
    head = {
        **({"base_model": base} if _HUB_ID.fullmatch(base) else {}),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["medical", "llm-as-a-judge", "medjudge", "research-only"],
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
    what = "A LoRA adapter" if adapter else "A model"
    trained = f"{what} of kind {lineage['kind']!r} from stage `{lineage['stage']}`, made by medjudge on `{base}`"
    return "\n".join(
        [
            *("---", *lines, "---", "", f"# A medical judge: {contract['kind']}", ""),
            "**For research use.** Not a medical device. Nothing here has been validated for clinical decisions.",
            "",
            f"{trained}. `{artifacts.CONTRACT}` has the prompt, the labels and the form of the answer, "
            f"`{artifacts.LINEAGE}` which weights it came from.",
            *_parent_note(lineage, base, bool(adapter)),
            "",
            "No test results are given here.",
            "",
        ]
    )


def _card_of_run(run: Path, weights: str) -> str | None:
    """The card of a run's report, where it describes the model with these weights."""
    results, card = run / "evaluate" / artifacts.RESULTS, run / "report" / artifacts.CARD
    if not (results.is_file() and card.is_file()):
        return None
    text = card.read_text(encoding="utf-8")
    described = re.search(r"^This card describes `(.+?)`", text, re.MULTILINE)
    model = artifacts.read_json(results)["models"].get(described[1]) if described else None
    return text if model and (model.get("lineage") or {}).get("weights_sha256") == weights else None


def _parent_note(lineage: Mapping[str, Any], base: str, is_adapter: bool) -> list[str]:
    digest = (lineage["parent"] or {}).get("gguf_sha256") if is_adapter else None
    if digest is None:
        return []
    return [
        "",
        f"It was trained on the weights of a GGUF file (sha256 `{digest}`), which are rounded. `{base}` is the same "
        "model, not rounded: answers on it can differ slightly.",
    ]


def _bytes(n: int) -> str:
    return f"{n / 2**20:,.1f} MiB" if n >= 2**20 else f"{n:,} bytes"
