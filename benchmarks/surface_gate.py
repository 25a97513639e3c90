"""How far the built-in sets can be labelled without reading them.

`python benchmarks/surface_gate.py [--n 3000] [--seed 7] [SET ..]` prints every baseline of
`medjudge.synthetic.surface`, with sentence embeddings where the offline model is installed.
"""

from __future__ import annotations

import argparse
import json
import time

from medjudge.inference.embeddings import embed_or_why_not
from medjudge.settings.rewards import EmbeddingSettings
from medjudge.synthetic.gate import AIMS, measure_set
from medjudge.synthetic.sets import GENERATORS


def main() -> None:
    """Prints one table per set and a summary in JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[name for name in GENERATORS if name in AIMS])
    parser.add_argument("--n", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    embed = embed_or_why_not(EmbeddingSettings())
    if isinstance(embed, str):
        print(embed)
    best = {}
    for name in options.names:
        start = time.time()
        scored = measure_set(name, options.n, options.seed, None if isinstance(embed, str) else embed)
        print(f"\n{name}: {options.n} rows, {time.time() - start:.0f} s; aim {AIMS[name]:.2f}")
        for baseline, accuracy in sorted(scored.items(), key=lambda item: -item[1]):
            print(f"  {accuracy:.3f}  {baseline}")
        best[name] = max(scored.items(), key=lambda item: item[1])
    print("\n" + json.dumps(best, indent=1))


if __name__ == "__main__":
    main()
