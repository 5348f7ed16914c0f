"""Months in a schedule: a promise that renews, two clocks that need not agree, and what left in each period."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger.rules.experiments import site_of
from ledger.rules.rounds import round_kind
from ledger.rules.state import State
from ledger.rules.state import replace as changed
from node.duties.judging import steps_of
from privacy.periods import DAY_MS, Periods
from tests.schedules.promised import CELL, DATASET, OverAdmitted

if TYPE_CHECKING:
    from tests.schedules.world import World

Left = dict[tuple[str, int], list[tuple[str, int]]]
"""Experiment and round of each vector, by the clock and its period in which it left first."""


def let_time_pass(world: World) -> None:
    """Days or weeks pass; the log's time goes along, runs a period ahead, or stands still."""
    world.clock_ms += world.chance.choice((1, 10, 31)) * DAY_MS
    state = world.states[-1]
    ahead = world.chance.choice((0, 0, 0, 0, 31, None))
    if ahead is not None:
        log_time = max(state.log_time, world.clock_ms + ahead * DAY_MS)
        world.states[-1] = changed(state, log_time=log_time)


def note_left(world: World, periods: Periods, experiment: str, round_number: int) -> None:
    """A vector leaves for the first time: now, by either clock."""
    times = {"the hospital's clock": world.clock_ms, "the log": world.states[-1].log_time}
    for clock, at_ms in times.items():
        world.left_in.setdefault((clock, periods.at(at_ms)), []).append((experiment, round_number))


def check_periods(state: State, left_in: Left) -> None:
    """In no period of either clock more left than one lane admits.

    Raises:
        OverAdmitted: it did.
    """
    limit = state.cells[CELL].terms.limit
    for (clock, number), vectors in left_in.items():
        g = r = 0
        for name, round_number in vectors:
            plan = state.experiments[name].plan
            site = site_of(plan, DATASET)
            assert site is not None
            steps = steps_of(site, round_kind(plan, round_number), 1)
            for release in site.releases:
                for charge in release.charges:
                    g += steps.get(release.purpose, 0) * charge.g
                    r += steps.get(release.purpose, 0) * charge.r
        if g > limit.g_max and r > limit.r_max:
            raise OverAdmitted(f"{g}, {r} left in period {number} by {clock}")
