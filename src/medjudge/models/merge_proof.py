"""What a merge was measured against, in words. No torch here: reports read a lineage without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def proof_sentences(merge: Mapping[str, Any]) -> list[str]:
    """One sentence per reference that `Lineage.merge` holds a difference to.

    The merge itself is proven against the full-precision parent with its adapter. What rounding to the stored format
    changed, and how far the result is from the model that was trained (with quantised or 16-bit weights), is measured.
    """
    sentences = []
    n = merge.get("n_positions")
    for prefix, what in (
        (
            "",
            "merge proven: logits differ by at most {logits} from those of the full-precision parent with its adapter",
        ),
        ("stored_", f"stored in {merge.get('dtype')}: logits differ by at most {{logits}} from those"),
        (
            "trained_",
            f"from the model that was trained ({merge.get('trained_as')}): logits differ by at most {{logits}}",
        ),
    ):
        logits, share = merge.get(f"{prefix}max_logit_difference"), merge.get(f"{prefix}share_unchanged_tokens")
        if logits is None:
            continue
        same = "" if share is None or n is None else f"; {share:.1%} of {n:,} next-token choices are the same"
        sentences.append(what.format(logits=f"{logits:.2g}") + same)
    if reason := merge.get("trained_not_measured"):
        sentences.append(f"from the model that was trained ({merge.get('trained_as')}): not measured, {reason}")
    return sentences
