"""Promises that renew: what every period of the log's time held, against the promise to it. Part of step 11.

The fold compares integers, period by period. Here each period is put together anew from the reservations that
reach it, and judged by the lanes' closed form and by privacy loss distributions, like a promise for ever. Periods
are those of log time; that a hospital's own clock agreed is kept by its node, and not in the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from audit.reports.budget import cell_events, merged, pld
from audit.reports.periods import lives, numbers, renewal, reservations_of
from audit.verification.charges import Charged
from audit.verification.findings import Check
from audit.verification.history import History
from ledger.rules.state import Cell, State
from privacy.calibrate import compose_epsilon
from privacy.errors import CrossCheckFailed
from privacy.filters import Spend

_RELATIVE = 1e-6
"""What two machines' floating-point functions may make of one curve."""


def promise(history: History, state: State, cell: str, unit: str) -> Iterator[Check]:
    """Every period's spend of one cell whose promise renews."""
    held = state.cells[cell]
    periods, shown = held.periods, renewal(held, state.log_time)
    if periods is None or shown is None:
        return
    place, delta = f"cell {cell}", held.terms.delta_e15 / 1e15
    limit = held.terms.epsilon_micro / 1e6
    found, events = lives(history, periods), tuple(cell_events(history, cell))
    mine = {key: found[key] for key in reservations_of(history, cell)}
    worst = worst_pld = 0.0
    count = refuted = 0
    for number in numbers(mine, shown.number):
        reaching = [e for e in events if found[e.reservation].reaches(number)]
        kinds = merged(reaching)
        if not kinds:
            continue
        count += 1
        try:
            by_pld = pld(kinds, delta)
        except CrossCheckFailed as error:
            yield Check(11, "not_checkable", f"{place}, period {number + 1}: {error}")
            continue
        epsilon = compose_epsilon(kinds, delta)
        worst, worst_pld = max(worst, epsilon), max(worst_pld, by_pld)
        if max(epsilon, by_pld) > limit * (1 + _RELATIVE):
            refuted += 1
            day = datetime.fromtimestamp(periods.begins_ms(number) / 1000, UTC).date()
            yield Check(
                11,
                "refuted",
                f"epsilon {epsilon:.4f} by closed form, {by_pld:.4f} by PLD, in the period from "
                f"{day}, to each of which {limit:g} is promised at delta {delta:.3g}",
                place,
            )
    if refuted:
        return
    carried = " (what the log before this one charged is in the sum of all periods alone)"
    yield Check(
        11,
        "proved",
        f"{place}: at most epsilon {worst:.4f} by closed form, {worst_pld:.4f} by PLD, in each of {count} "
        f"periods of {periods.days} days, of {limit:g} promised to each at delta {delta:.3g}, per {unit}; "
        f"all together epsilon {shown.epsilon_together:.4f} at delta {shown.delta_together:.3g}"
        + (carried if cell in history.carried_spend else ""),
    )


def newest(history: History, name: str, held: Cell, costs: Sequence[Charged]) -> Iterator[Check]:
    """Step 10: the sums of the newest period in which anything changed.

    Noise beyond a reservation counts in the period in which it was stated; where there is any, that is
    refuted by itself, and these sums are not compared.
    """
    periods = held.periods
    if periods is None or not all(cost.within for cost in costs):
        return
    due = inherited(history, name, held, history.carried_spend.get(name, Spend()))
    for cost in reaching(history, held, costs):
        due = due[0] + cost.g, due[1] + cost.r
    if due != (held.spend.g, held.spend.r):
        yield Check(
            10,
            "refuted",
            f"its lanes hold {held.spend.g}, {held.spend.r} in period {periods.number + 1}, but what was "
            f"charged in it or still open when it began adds up to {due}",
            f"cell {name}",
        )


def reaching(history: History, held: Cell, costs: Sequence[Charged]) -> Iterator[Charged]:
    """Those that count in the cell's newest period; all where its promise is for ever."""
    found = {} if held.periods is None else lives(history, held.periods)
    for cost in costs:
        if held.periods is None or found[cost.reservation].reaches(held.periods.number):
            yield cost


def inherited(history: History, name: str, held: Cell, carried: Spend) -> tuple[int, int]:
    """What of a log before this one counts in the cell's newest period."""
    if (
        held.periods is not None
        and history.carried_periods.get(name, (-1,))[0] != held.periods.number
    ):
        return 0, 0
    return carried.g, carried.r
