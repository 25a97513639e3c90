"""A replay as a program: `python -m tests.replays think_block`; `unguarded` plays all without their guards.

Without a name all replays are listed.
"""

from __future__ import annotations

import sys

import pytest

from medjudge.modeling.load import quiet_libraries
from tests.replays.museum import REPLAYS, play, unguarded


def main(names: list[str]) -> int:
    """Prints what the named replays show. Returns the exit status."""
    if unknown := [name for name in names if name not in (*REPLAYS, "unguarded")]:
        sys.stderr.write(f"no replay is called {unknown[0]!r}. There are: {', '.join(REPLAYS)}, unguarded.\n")
        return 2
    quiet_libraries()
    for name in names or REPLAYS:
        if not names:
            print(name)  # noqa: T201  what a program is for
            continue
        try:
            for line in unguarded() if name == "unguarded" else play(name):
                print(line, flush=True)  # noqa: T201
        except pytest.skip.Exception as reason:
            sys.stderr.write(f"{name}: {reason}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
