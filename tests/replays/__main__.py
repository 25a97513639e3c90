"""A replay as a program: `python -m tests.replays think_block`.

`unguarded` plays each without its guards, `page` writes all outputs into docs/failures.md anew. Without a name all
replays are listed.
"""

from __future__ import annotations

import sys

import pytest

from medjudge.models.load import quiet_libraries
from tests.replays.museum import REPLAYS, output, rewrite_page


def main(names: list[str]) -> int:
    """Prints what the named replays show. Returns the exit status."""
    if unknown := [name for name in names if name not in (*REPLAYS, "unguarded", "page")]:
        sys.stderr.write(f"no replay is called {unknown[0]!r}. There are: {', '.join(REPLAYS)}, unguarded, page.\n")
        return 2
    if not names:
        sys.stdout.write("\n".join([*REPLAYS, "unguarded", "page"]) + "\n")
    quiet_libraries()
    for name in names:
        if name == "page":
            rewrite_page()
            continue
        try:
            sys.stdout.write(output(name))
        except pytest.skip.Exception as reason:
            sys.stderr.write(f"{name}: {reason}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
