"""Which of several processes of one run this is, as `torchrun`, `accelerate` and SLURM's launchers say by environment.

The first process of a run, or its launcher, holds the lock and writes what the run is known by: recipe, commands and
manifests. The others compute with it, in the same work folders, and write none of these.
"""

from __future__ import annotations

import os

LAUNCH = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
)
"""Environment variables that launchers set alike in all processes, and otherwise in each launch."""


def rank() -> int:
    """The number of this process among those of its run, from 0; 0 where it is the only one."""
    if n_ranks() == 1:
        return 0
    return _number("RANK", _number("LOCAL_RANK", 0))


def n_ranks() -> int:
    """Processes of the run; 1 where no launcher says otherwise."""
    return max(1, _number("WORLD_SIZE", 1))


def is_first_rank() -> bool:
    """Whether this process takes the run's lock and writes its manifests."""
    return rank() == 0


def launch_key() -> str:
    """What tells one launch of several processes from the next: the same in all of them."""
    return ":".join(os.environ.get(name, "") for name in LAUNCH)


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        return default
