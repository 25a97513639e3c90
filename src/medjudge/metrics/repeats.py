"""Several verdicts of one judge on one case: repeated samples, epochs, two orders of a pair. How far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from medjudge.metrics.intervals import clustered_wilson
from medjudge.metrics.metric_result import measured
from medjudge.metrics.result_types import RepeatResult
from medjudge.metrics.wording import counted, percent, with_ends


def repeat_consistency(
    labels: Mapping[str, Sequence[str | None]], groups: Mapping[str, str], *, level: float
) -> RepeatResult:
    """How far a judge's verdicts on one case agree, over the cases that have two or more of them.

    labels: case id -> its labels, None where there was no verdict; groups: case id -> what is resampled together, each
    case alone where it is absent or empty. Verdicts that could not be read are counted, and neither agree nor differ.
    """
    read = {case_id: [label for label in given if label is not None] for case_id, given in labels.items()}
    compared = {case_id: given for case_id, given in read.items() if len(given) > 1}
    codes: dict[str, int] = {}
    keys = [codes.setdefault(groups.get(case_id) or f"case {case_id}", len(codes)) for case_id in compared]
    shares = []
    tied = []
    for case_id, given in compared.items():
        counts = Counter(given)
        n = len(given)
        shares.append(sum(k * (k - 1) for k in counts.values()) / (n * (n - 1)))
        best = counts.most_common(2)
        if len(best) == 2 and best[0][1] == best[1][1]:
            tied.append(case_id)
    return RepeatResult(
        n_cases=len(labels),
        n_verdicts=sum(map(len, labels.values())),
        n_without=sum(label is None for given in labels.values() for label in given),
        consistent=measured(clustered_wilson([len(set(given)) == 1 for given in compared.values()], keys, level=level)),
        pairwise=sum(shares) / len(shares) if shares else None,
        tied=tuple(tied),
    )


def repeat_sentence(name: str, result: RepeatResult) -> str:
    """What was measured, and how the verdicts were joined, in words; with ties the caller names the cases."""
    start = f"{name} gave {result.n_verdicts:,} verdicts on {counted(result.n_cases, 'case')}"
    without = f" ({result.n_without:,} of them could not be read or failed)" if result.n_without else ""
    n = result.consistent.n
    agree = (
        f": on {with_ends(result.consistent)} of the {counted(n, 'case')} with two readable ones or more all are the "
        f"same, and two of one case agree in {percent(result.pairwise)}"
        if n
        else ""
    )
    joined = " Each case counts once, with what most of its verdicts say"
    if not result.tied:
        return f"{start}{without}{agree}.{joined}; none ties."
    return (
        f"{start}{without}{agree}.{joined}; {counted(len(result.tied), 'case')} "
        f"{'ties and has' if len(result.tied) == 1 else 'tie and have'} no verdict"
    )
