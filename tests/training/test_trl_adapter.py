"""Private parts of TRL and transformers are used in two files, and nowhere else."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers
import trl
import trl.trainer.utils

import medjudge

SOURCE = Path(medjudge.__file__).parent
TRAINERS = (transformers.Trainer, transformers.TrainingArguments, trl.GRPOTrainer, trl.SFTTrainer)
ALLOWED = {
    "training/trl_adapter.py",
    # Trainers that replace methods of TRL's for speed, held against stock TRL by their tests.
    "training/grouped.py",
    "training/packed_sft.py",
}


def private_names() -> set[str]:
    """Private methods and attributes of the trainers, and private functions of TRL's helpers."""
    names = {name for kind in (*TRAINERS, trl.trainer.utils) for name in dir(kind)}
    for kind in TRAINERS:
        names |= set(re.findall(r"self\.(_\w+)", inspect.getsource(kind)))
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def private_uses(tree: ast.Module, private: set[str]) -> Iterator[str]:
    """Private names of the trainers that a module uses: on any object but its own, or in a trainer of its own."""
    own = {
        id(node)
        for kind in ast.walk(tree)
        if isinstance(kind, ast.ClassDef) and not any("Trainer" in ast.unparse(base) for base in kind.bases)
        for node in ast.walk(kind)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in private:
            is_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not (is_self and id(node) in own):
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("trl", "transformers"):
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
        elif isinstance(node, ast.Constant) and node.value in private:  # getattr(trainer, "_metrics")
            yield str(node.value)


def defined_in_trainers(tree: ast.Module, private: set[str]) -> Iterator[str]:
    """Private methods of the trainers that a subclass replaces."""
    for kind in ast.walk(tree):
        if isinstance(kind, ast.ClassDef) and any("Trainer" in ast.unparse(base) for base in kind.bases):
            yield from (f.name for f in kind.body if isinstance(f, ast.FunctionDef) and f.name in private)


def every_use(text: str, private: set[str]) -> set[str]:
    tree = ast.parse(text)
    return {*private_uses(tree, private), *defined_in_trainers(tree, private)}


def test_private_parts_of_the_trainers_stay_in_their_files() -> None:
    private = private_names()
    used = {
        path.relative_to(SOURCE).as_posix(): names
        for path in sorted(SOURCE.rglob("*.py"))
        if (names := every_use(path.read_text(encoding="utf-8"), private))
    }
    assert {name: names for name, names in used.items() if name not in ALLOWED} == {}
    assert used.keys() == ALLOWED, "a file that needs none any more: take it out of ALLOWED"


@pytest.mark.parametrize(
    "fault",
    [
        "def f(trainer):\n    return trainer._metrics",
        "class C:\n    def f(self):\n        return self.trainer._logs",
        "class C:\n    def f(self):\n        return getattr(self.trainer, '_total_loss_scalar')",
        "class C(GRPOTrainer):\n    def _generate(self, prompts):\n        return prompts",
        "class C(Trainer):\n    def f(self):\n        return self._total_loss_scalar",
        "import trl\ntrl.trainer.utils._use_triton = None",
        "from trl.trainer.utils import _use_triton",
        "def f(arguments):\n    arguments._n_gpu = 1",
    ],
)
def test_a_use_put_in_is_seen(fault: str) -> None:
    assert every_use(fault, private_names())
