"""What a reader must know of label probabilities: how much of an answer they are, and how an endpoint told them."""

from __future__ import annotations

from collections.abc import Iterator

from medjudge.inference.endpoint import EndpointClient
from medjudge.metrics.result_types import LabelsResult
from medjudge.metrics.wording import counted

_WAYS = {
    "prompt": "its server scored each label as a finished answer, token by token, as a local model is scored",
    "continue": "its server told the {k} likeliest tokens at each place of a begun answer; what closes an answer is "
    "not counted",
    "first": "the {k} likeliest tokens were read where it wrote its label, so they hold given what it wrote before, "
    "and what follows a label is not counted",
}


def labels_statements(name: str, labels: LabelsResult | None, client: EndpointClient | None) -> Iterator[str]:
    """Sentences about one judge; none where no labels were scored."""
    if labels is None:
        return
    if labels.n:
        least = "" if not labels.n_bounded else f" (at least {_percent(labels.outside_least)})"
        yield f"{name}: {_percent(labels.outside)} of the probability{least} is outside the labels, on average."
    if client is None or client.labels_by is None:
        return
    yield f"{name}'s probabilities: {_WAYS[client.labels_by].format(k=client.settings.top_logprobs)}."
    if labels.n_bounded:
        yield (
            f"{name}: in {labels.n_bounded:,} of {counted(labels.n, 'case')} some label is not among the tokens that "
            "the server told, so the most that its probability can be stands for it; its share is that or less."
        )
    if labels.otherwise_written > 0:
        yield (
            f"{name}: {_percent(labels.otherwise_written)} of the probability is of labels in other case, or after a "
            "space or a line break; it is counted as theirs."
        )
    if labels.n_without:
        yield f"{name}: for {counted(labels.n_without, 'case')} the server told no probabilities of labels."


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if share >= 5e-5 or share <= 0 else "less than 0.01 %"
