"""Verdicts on pairs as tables: what order and length do to each judge, and what each judge makes of the systems."""

from __future__ import annotations

from medjudge.metrics.preferences import SHARES, TITLES, Preferences
from medjudge.reporting.audit_tables import Grid, statistic_cell

NOTE = (
    "In per cent, but log-odds. Each pair is asked in both orders; an answer that cannot be read is inconsistent and "
    "wrong. Log-odds are what length and first place add to the choice where the experts' verdict is the same."
)
SYSTEMS_NOTE = (
    "Win rates in per cent, a tie is half a win. Strengths are Bradley-Terry log-odds against the mean of the systems; "
    "the second has length and place in the regression. Intervals by groups; none is tested."
)


def preference_grids(preferences: Preferences | None) -> list[Grid]:
    """Judges by what order and length do to them; then systems by judge, where the rows name systems."""
    if preferences is None:
        return []
    names = [name for name in TITLES if any(name in one.metrics for one in preferences.judges.values())]
    rows = tuple(
        (judge, tuple(statistic_cell(one.metrics.get(name), percent=name in SHARES, digits=2) for name in names))
        for judge, one in preferences.judges.items()
    )
    grids = [Grid("Order and length", tuple(TITLES[name] for name in names), rows, NOTE)]
    for judge, one in preferences.judges.items():
        if one.systems:
            cells = tuple(
                (
                    system,
                    (
                        statistic_cell(result.win_rate, percent=True),
                        statistic_cell(result.strength, percent=False, digits=2),
                        statistic_cell(result.strength_length, percent=False, digits=2),
                    ),
                )
                for system, result in sorted(one.systems.items(), key=lambda item: -(item[1].strength.value or 0.0))
            )
            heads = ("Win rate", "Strength", "Strength, length-controlled")
            grids.append(Grid(f"Systems by {judge}", heads, cells, SYSTEMS_NOTE))
    return grids
