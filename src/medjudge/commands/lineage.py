"""`medjudge lineage MODEL_DIR`: which weights came from which, checked against what lies there now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from medjudge import artifacts
from medjudge.errors import LineageError, ModelError
from medjudge.models.sources import converted, local_model


def print_lineage(model_dir: Path, console: Console) -> bool:
    """Prints the chain of a model folder and re-hashes what is at hand. Returns whether everything still fits."""
    path = model_dir / artifacts.LINEAGE
    if not model_dir.is_dir():
        raise ModelError(
            f"{model_dir} is not a folder, expected a model folder. Name one, such as runs/demo/merge/model."
        )
    if not path.exists():
        raise LineageError(
            f"{model_dir} has no {artifacts.LINEAGE}: it was not made by medjudge, so its parents are not known. "
            "Name a folder that a stage wrote, such as RUN/sft/model."
        )
    from medjudge.models.lineage import holds_weights, read_lineage, weights_sha256
    from medjudge.models.merge_proof import proof_sentences

    lineage = read_lineage(model_dir)
    assert lineage is not None  # its file exists
    revision = f" @ {escape(lineage.base_revision)}" if lineage.base_revision else ""
    tree = Tree(f"[bold]{escape(lineage.base)}[/]{revision}")
    node = tree
    for ancestor in lineage.ancestry:
        parts = [ancestor["stage"], ancestor["kind"], str(ancestor["weights_sha256"])[:16]]
        if digest := ancestor.get("gguf_sha256"):
            parts.append(f"from a GGUF file, sha256 {str(digest)[:16]}")
        node = node.add(escape(" · ".join(map(str, parts))))
    fits = holds_weights(model_dir, lineage.weights_sha256)
    node = node.add(
        f"[bold]{escape(lineage.stage)} · {lineage.kind} · {escape(lineage.weights_sha256[:16])}[/]  "
        + ("[green]weights match[/]" if fits else f"[red]weights changed: now {weights_sha256(model_dir)[:16]}[/]")
    )
    parent_line, parent_fits = _parent_line(model_dir, lineage)
    if parent_line:
        node.add(parent_line)
    for sentence in artifacts.parsed(path, lineage.merge or {}, proof_sentences):
        node.add(sentence)
    if lineage.adapter:
        step = lineage.adapter
        node.add(f"[dim]LoRA rank {step.r}, scale {step.scale:.3g}, learning rate {step.learning_rate:g}[/]")
    for name, digest in (
        ("contract", lineage.contract_sha256),
        ("recipe", lineage.recipe_sha256),
        ("training data", lineage.data_sha256),
    ):
        if digest:
            node.add(f"[dim]{name} {escape(digest[:16])}[/]")
    console.print(tree)
    if fits:
        artifacts.check_outputs(model_dir)  # tokenizer and settings, which the weights' hash does not cover
    return fits and parent_fits


def _parent_line(model_dir: Path, lineage: Any) -> tuple[str | None, bool]:
    if lineage.parent is None or lineage.kind == "merged":
        return None, True
    from medjudge.models.lineage import holds_weights, weights_sha256

    candidates = [str(model_dir / lineage.parent.relative_path)] if lineage.parent.relative_path else []
    found = [local_model(named, lineage.parent.revision).folder for named in (*candidates, lineage.parent.path)]
    if lineage.parent.gguf_sha256:
        found.append(converted(lineage.parent.gguf_sha256))
    folder = next((one for one in found if one is not None), None)
    if folder is None:
        named = escape(f"{lineage.parent.path} {lineage.parent.weights_sha256[:16]}")
        return f"parent {named} [yellow](not at hand)[/]", True
    where, expected = escape(str(folder.resolve())), escape(lineage.parent.weights_sha256)
    if holds_weights(folder, lineage.parent.weights_sha256):
        return f"parent {where} [green]{expected[:16]} matches[/]", True
    return f"parent {where} [red]holds {weights_sha256(folder)}, expected {expected}[/]", False
