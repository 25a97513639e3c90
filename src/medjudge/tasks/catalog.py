"""The tasks on one screen: a new one is a line here."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from medjudge.tasks.appropriateness import AppropriatenessContract
from medjudge.tasks.classification import ClassificationContract
from medjudge.tasks.contract import TaskContract
from medjudge.tasks.equivalence import EquivalenceContract
from medjudge.tasks.marks import ReasoningContract
from medjudge.tasks.mcq import McqContract
from medjudge.tasks.pairwise import PairwiseContract
from medjudge.tasks.rubric import RubricContract

TASKS: dict[str, type[TaskContract]] = {
    "mcq": McqContract,
    "equivalence": EquivalenceContract,
    "rubric": RubricContract,
    "appropriateness": AppropriatenessContract,
    "classification": ClassificationContract,
    "pairwise": PairwiseContract,
    "marks": ReasoningContract,
}

if TYPE_CHECKING:
    Task = TaskContract
else:
    # pydantic reads the union; a type checker cannot read one that is made from a table.
    Task = Annotated[reduce(or_, TASKS.values()), Field(discriminator="kind")]
    """The `[task]` section of a recipe."""
