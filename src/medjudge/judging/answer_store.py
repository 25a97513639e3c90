"""Answers on disk as they come, in parts: what was answered before a cut-off is not asked again.

A part is named by all that decides its answers (model, engine, contracts, mode, cases, sampling), so nothing else makes
it stale, and no other model's answers are taken for it. Endpoints keep theirs in a cache of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medjudge import artifacts
from medjudge.records import Completion, LabelScores
from medjudge.settings.engine import local_name

Answer = Completion | LabelScores
"""A model's answer to a case in mode `generate`, or in mode `labels`."""
PART = 200
"""Cases whose answers are stored at once: what a cut-off run may have to do again."""


@dataclass(frozen=True, slots=True)
class Part:
    """Answers to neighbouring cases, in their order."""

    answers: list[list[Answer]]
    """(n_cases, n_samples)."""
    lineage: dict[str, Any] | None
    """Of the model that gave them."""
    seconds: float
    """That it took, loading left out."""


class AnswerStore:
    """A folder of parts. Several models and sets of cases may share it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made when the first part is written."""
        self.folder = folder

    def parts(self, key: str, kind: Callable[..., Answer]) -> Iterator[Part]:
        """The stored parts of one question up to the first that is missing or damaged, from which on is asked anew."""
        done = 0
        while isinstance(tree := artifacts.read_kept(self._path(key, done)), dict):
            try:
                answers = [[kind(**answer) for answer in row] for row in tree["answers"]]
                part = Part(answers, tree["lineage"], float(tree["seconds"]))
            except (TypeError, KeyError, ValueError):
                return
            if not answers:
                return
            yield part
            done += len(answers)

    def write(self, key: str, start: int, part: Part) -> None:
        """Stores a part, on disk when this returns. start: number of its first case."""
        artifacts.make_folder(self.folder)
        tree = {
            "answers": [[asdict(answer) for answer in row] for row in part.answers],
            "lineage": part.lineage,
            "seconds": round(part.seconds, 3),
        }
        artifacts.write_kept(self._path(key, start), tree)

    def clear(self) -> None:
        """Removes every part: what they were stored for is written."""
        for path in self.folder.glob(f"{artifacts.ANSWERS}-*.json"):
            path.unlink()

    def _path(self, key: str, start: int) -> Path:
        return self.folder / f"{artifacts.ANSWERS}-{key}-{start:07}.json"


def model_identity(where: str) -> list[Any]:
    """What tells that a model changed: size and time of its folder's files; of a hub id its name.

    Its calibrator is left out: it changes no answer, and a run writes it between its own answers.
    """
    folder = Path(local_name(where)).expanduser()
    if not folder.is_dir():
        return [where]
    files: Sequence[Path] = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        where,
        [
            (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns)
            for path in files
            if path.name != artifacts.CALIBRATION
        ],
    ]
