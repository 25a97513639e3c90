"""The command line: every command, in the order in which a project needs them.

    medjudge init appropriateness          a commented recipe to start from
    medjudge check-data rows.jsonl ...     is this data fit to train and to test on?
    medjudge data build mcq                synthetic rows of a built-in set
    medjudge preflight recipe.toml         can the rewards be earned, and by the right answers only?
    medjudge demo                          all of what follows, on built-in data, in minutes
    medjudge run recipe.toml               prepare -> base -> sft -> grpo -> merge -> evaluate -> report
    medjudge evaluate ...                  any models on any labelled rows
    medjudge calibrate MODEL_DIR ...       fit its confidences on a validation split, saved with the model
    medjudge probe ...                     do changes that should not matter move a judge?
    medjudge score verdicts.csv --gold ..  any judge's verdicts, from any program, against the experts
    medjudge bench rubric ...              judges on the published rubric benchmark
    medjudge export lm-eval DIR            the same tasks for lm-evaluation-harness
    medjudge report runs/NAME              the page of a run, again
    medjudge lineage MODEL_DIR             which weights came from which
    medjudge push MODEL_DIR OWNER/NAME     a model or adapter to a model hub, with card and lineage
    medjudge info                          versions, devices, optional parts

Nothing heavy is imported before the arguments and the recipe have been checked.
"""

from __future__ import annotations

# Each of these modules adds its commands to `app`, in the order in which the help lists them.
from medjudge.cli import train as train  # isort: skip
from medjudge.cli import measure as measure  # isort: skip
from medjudge.cli import score as score  # isort: skip
from medjudge.cli import more as more  # isort: skip
from medjudge.cli.app import app as app
from medjudge.cli.entry import main as main
