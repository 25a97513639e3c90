"""Writes `builtin/near_values.json`: for each fact, which facts of its block are nearest to what a question names.

`python benchmarks/near_values.py`. Multiple-choice questions take their wrong options from the nearest, so that the
right one is not told by being the only one that sounds like the question. Needs the offline embedding model.
"""

from __future__ import annotations

import json

from medjudge.inference.embeddings import embedder
from medjudge.settings.rewards import EmbeddingSettings
from medjudge.synthetic.facts import Fact, load_facts
from medjudge.synthetic.mcq import N_NEAREST, NEAR_PATH, other_subjects, other_values


def main() -> None:
    """Orders values by their likeness to a fact's subject, and subjects by their likeness to its value."""
    embed = embedder(EmbeddingSettings())

    def nearest(text: str, others: list[Fact], field: str) -> list[str]:
        if not others:
            return []
        scored = embed([getattr(other, field) for other in others]) @ embed([text])[0]
        order = sorted(zip(scored.tolist(), others, strict=True), key=lambda pair: (-pair[0], pair[1].id))
        best: dict[str, str] = {}
        for _, other in order:
            best.setdefault(getattr(other, field), other.id)
        return list(best.values())[:N_NEAREST]

    lines = []
    for fact in load_facts():
        near = {
            "values": nearest(fact.subject, other_values(fact), "value"),
            "subjects": nearest(fact.value, other_subjects(fact), "subject"),
        }
        lines.append(f"{json.dumps(fact.id)}: {json.dumps(near)}")
    NEAR_PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
