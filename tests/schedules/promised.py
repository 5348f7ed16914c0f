"""The federation that schedules begin with, the disk of its node, and what must never be reached."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from immutables import Map

from ledger.rules.experiments import site_of
from ledger.rules.rounds import round_kind
from ledger.rules.state import State
from node.duties.judging import steps_of
from tests.federation import Federation, node_of
from tests.schedules.memory import Disk

WRITERS = 8
ME = node_of("basel")
DATASET, CELL = "basel-heart", "basel-all"


class OverAdmitted(AssertionError):
    """More left than the cell's promise allows."""


class UnderCharged(AssertionError):
    """More left than was charged for it."""


class Crash(Exception):
    """The process died here."""


@cache
def template(days: int | None = None) -> State:
    """A federation in which eight experiments are approved; about half of them fit the promise.

    Args:
        days: after which the promise renews; None for never.
    """
    federation = Federation.found(("basel",))
    federation.register_dataset("basel", refresh_days=days)
    for number in range(WRITERS):
        epsilon = ("1.2", "2", "2.5", "1.6")[number % 4]
        spec = federation.spec([DATASET], name=f"writer-{number}", epsilon=epsilon)
        federation.approve(federation.propose(spec), DATASET)
    return federation.state


@cache
def approvals_seen(days: int | None) -> Map[int, int]:
    """When hospitals cosigned the approvals: at once."""
    state = template(days)
    return Map(
        {
            approval.index: state.log_time // 1000
            for experiment in state.experiments.values()
            for approval in experiment.approvals.values()
        }
    )


@dataclass
class Home:
    """What lies on the node's disk.

    Attributes:
        disk: the register.
        size: entries of its copy of the log.
        said: how many entries its pen has signed, as it knows.
    """

    disk: Disk
    size: int
    said: int = 0


def check_log(state: State, released: dict[tuple[str, int], set[str]], restores: int) -> int:
    """Compare what left with what the log charged for it.

    Args:
        state: the log's, now.
        released: experiment and round -> the different vectors that left.
        restores: how often something was put back so far, for the message.

    Returns:
        What left, in lane G.

    Raises:
        UnderCharged, OverAdmitted: what a schedule must never reach.
    """
    g = r = 0
    for experiment in state.experiments.values():
        site = site_of(experiment.plan, DATASET)
        assert site is not None
        used: dict[str, int] = {}
        for (name, number), vectors in released.items():
            if name == experiment.id:
                kind = round_kind(experiment.plan, number)
                for purpose, each in steps_of(site, kind, 1).items():
                    used[purpose] = used.get(purpose, 0) + each * len(vectors)
        if not used:
            continue
        held = experiment.reservations.get(DATASET)
        if held is None:
            raise UnderCharged(f"{experiment.name}: vectors left without a reservation")
        for release in site.releases:
            left = used.get(release.purpose, 0)
            charged = (
                release.steps if held.settled_at is None else held.used.get(release.purpose, 0)
            )
            if left > charged:
                raise UnderCharged(
                    f"{experiment.name}: {left} steps of {release.purpose} left, {charged} are "
                    f"charged after {restores} restores"
                )
            for charge in release.charges:
                g, r = g + left * charge.g, r + left * charge.r
    if state.cells[CELL].periods is not None:
        return g  # what each period admits is judged by ``months.check_periods``
    limit = state.cells[CELL].terms.limit
    if g > limit.g_max and r > limit.r_max:
        raise OverAdmitted(f"{g}, {r} left of {limit.g_max}, {limit.r_max}")
    spend = state.cells[CELL].spend
    if spend.g > limit.g_max and spend.r > limit.r_max and spend.g_overflowed < 1:
        raise OverAdmitted("the log holds more than the promise in both lanes")
    return g
