"""The four tasks, and the marking of reasoning, on one screen."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.marks import ReasoningContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.rubric import RubricContract

TASKS: dict[str, type[TaskContract]] = {
    "mcq": McqContract,
    "equivalence": EquivalenceContract,
    "rubric": RubricContract,
    "appropriateness": AppropriatenessContract,
    "marks": ReasoningContract,
}

Task = Annotated[
    McqContract | EquivalenceContract | RubricContract | AppropriatenessContract | ReasoningContract,
    Field(discriminator="kind"),
]
"""The `[task]` section of a recipe."""
