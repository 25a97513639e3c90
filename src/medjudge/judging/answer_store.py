"""A local model's answers to many sets of cases: loaded once, asked in parts, each part on disk before the next.

What lies there is named by all that decides it: nothing else makes it stale, and no other model's answers touch it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from medjudge import artifacts
from medjudge.machine import fit_threads
from medjudge.progress import Bar
from medjudge.recipe import Recipe
from medjudge.records import Case, Completion, LabelScores
from medjudge.version import __version__

if TYPE_CHECKING:
    from medjudge.inference.local import Engine

PART = 200
"""Cases whose answers are kept at once: what a cut-off run may have to do again."""


@dataclass(frozen=True, slots=True)
class Kept:
    """All answers of one model to one set, in the order of its cases."""

    answers: list[Completion | LabelScores]
    lineage: dict[str, Any] | None
    seconds: float


class LocalJudge:
    """A model folder or hub id. Its weights are loaded when the first answer is missing."""

    def __init__(self, name: str, where: str, folder: Path, console: Console, *, parent: str | None = None) -> None:
        """folder: where answers are kept. parent: the weights that an adapter is loaded on."""
        self.name, self.where, self.folder, self.console, self.parent = name, where, folder, console, parent
        self._identity = [name, where, artifacts.path_signature(Path(where).expanduser()), parent]
        self._engine: Engine | None = None
        self._lineage: dict[str, Any] | None = None

    def answers(self, recipe: Recipe, cases: Sequence[Case], title: str) -> Kept:
        """One answer per case under the recipe's contract and mode; what is on disk is not asked for again."""
        folder = self.folder / self._key(recipe, cases)
        kind = LabelScores if recipe.evaluate.mode == "labels" else Completion
        parts, done = _kept_parts(folder, kind)
        if done < len(cases):
            engine = self._loaded(recipe)
            artifacts.make_folder(folder)
            if done:
                self.console.print(f"  {title} {self.name}: goes on after {done:,} of {len(cases):,} answers")
            with Bar(f"{title} {self.name}", len(cases), self.console) as bar:
                bar.advance(done)
                engine.on_progress = bar.advance
                for start in range(done, len(cases), PART):
                    started = time.monotonic()
                    said = _ask(engine, recipe, cases[start : start + PART])
                    part = {
                        "answers": [asdict(answer) for answer in said],
                        "lineage": self._lineage,
                        "seconds": round(time.monotonic() - started, 3),
                    }
                    artifacts.write_kept(folder / f"part-{start:07}.json", part)
                    parts.append(part)
        answers = [kind(**answer) for part in parts for answer in part["answers"]]
        return Kept(answers, parts[0]["lineage"], sum(part["seconds"] for part in parts))

    def _key(self, recipe: Recipe, cases: Sequence[Case]) -> str:
        decides = {
            "model": [self._identity, recipe.model.model_dump(mode="json")],
            "contract": recipe.contract.fingerprint(),
            "mode": recipe.evaluate.mode,
            "cases": [[case.case_id, dict(case.inputs)] for case in cases],
            "version": __version__,
        }
        return artifacts.sha256_json(decides)[:16]

    def _loaded(self, recipe: Recipe) -> Engine:
        if self._engine is None:
            from medjudge.inference.local import Engine, fit_for_inference
            from medjudge.models.lineage import load_any
            from medjudge.models.load import quiet_libraries, resolve

            quiet_libraries()
            folder = resolve(self.where)
            if (threads := fit_threads(recipe.model.device, recipe.model.threads, folder)) is not None:
                self.console.print(f"  [dim]{threads.sentence}[/]")
            is_adapter = (folder / "adapter_config.json").exists()
            model, tokenizer, lineage = load_any(folder, recipe.model, parent=self.parent if is_adapter else None)
            if is_adapter and lineage is None:
                self.console.print(
                    f"  {self.name}: this adapter has no {artifacts.LINEAGE}: its parent is not checked."
                )
            self._lineage = None if lineage is None else lineage.to_json()
            self._engine = Engine(fit_for_inference(model), tokenizer, batch_tokens=recipe.evaluate.batch_tokens)
        return self._engine


def _kept_parts(folder: Path, kind: type) -> tuple[list[dict[str, Any]], int]:
    """(parts, number of answers in them), up to the first part that is missing or damaged, from which on is asked."""
    parts: list[dict[str, Any]] = []
    done = 0
    while isinstance(part := artifacts.read_kept(folder / f"part-{done:07}.json"), dict):
        try:
            answers = [kind(**answer) for answer in part["answers"]]
            float(part["seconds"])
        except (TypeError, KeyError, ValueError):
            break
        if not answers:
            break
        parts.append(part)
        done += len(answers)
    return parts, done


def _ask(engine: Engine, recipe: Recipe, cases: Sequence[Case]) -> Sequence[Completion | LabelScores]:
    if recipe.evaluate.mode == "labels":
        return engine.label_logprobs(recipe.contract, cases)
    return engine.generate(recipe.contract, cases)
