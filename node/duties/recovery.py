"""What a node owes when it comes back: a round that it may have run, spend that it may have forgotten.

A process that starts cannot know what the one before did last: its register may be a restored backup.
Where a round waits for it and the register holds no vector of that round, noise for the round may have
been used; so that much is charged before anything else, from the plan's spare steps. What the log
knows better than the register, ``duty.py`` adopts.

Promise: one restart from a backup within a round never makes a second vector of it free. Not promised:
that several restores of the same backup within one round are each counted; a vector that the log has
is counted always.
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger.entries.operations import CellCharge
from ledger.rules.budget import refunds
from ledger.rules.experiments import site_of
from ledger.rules.state import Experiment, OpenRound, Reservation, State
from node.duties.duty import is_lost, steps_of
from node.register.accounts import Counted, PrivateView
from node.register.private import PrivateRegister


def charge_rounds_under_way(state: State, me: str, register: PrivateRegister, now_ms: int) -> None:
    """Record an intent for each open round that may have used noise without a trace here.

    A round that has an intent for a purpose, or whose vector is kept, is charged no more for it. The
    steps never exceed what is left of the plan's.

    Args:
        state: the fold of this node's own copy, followed to its newest entry.
        me: this node's handle.
        register: private.
        now_ms: this node's clock.
    """
    for experiment, current, dataset in _under_way(state, me, register.view):
        site = site_of(experiment.plan, dataset)
        if site is None:
            continue
        key = (experiment.id, dataset)
        recorded = register.intended(*key, current.number)
        planned = {release.purpose: release.steps for release in site.releases}
        wanted = steps_of(site, current.kind, experiment.plan.steps_per_round)
        for purpose, steps in wanted.items():
            left = planned.get(purpose, 0) - register.view.used_by(key).get(purpose, 0)
            if purpose not in recorded and min(steps, left) > 0:
                register.record_intent(
                    *key,
                    purpose,
                    round_number=current.number,
                    steps=min(steps, left),
                    at_ms=now_ms,
                )


def counted_in(state: State, cell: str) -> Iterator[Counted]:
    """The reservations that a cell's spend in the log is made of, oldest experiment first.

    A register that takes the spend from the log takes these with it, or it would count them twice.
    """
    for experiment in sorted(state.experiments.values(), key=lambda e: e.index):
        for dataset, held in sorted(experiment.reservations.items()):
            for charge in held.charges:
                if charge.cell == cell:
                    given = _given_back(experiment, dataset, held, cell)
                    yield Counted(state.federation, experiment.id, dataset, charge, given)


def _under_way(
    state: State, me: str, view: PrivateView
) -> Iterator[tuple[Experiment, OpenRound, str]]:
    """Open rounds that wait for a reserved dataset of this node and have no vector here."""
    for experiment in state.experiments.values():
        current = experiment.round
        if current is None or experiment.ended:
            continue
        for dataset, held in experiment.reservations.items():
            key = (experiment.id, dataset)
            if (
                state.datasets[dataset].node == me
                and dataset in current.cohort
                and dataset not in current.updates
                and held.settled_at is None
                and view.charges.get(key) == "reserved"
                and not is_lost(view, key, held)
                and (*key, current.number) not in view.outbox
            ):
                yield experiment, current, dataset


def _given_back(
    experiment: Experiment, dataset: str, held: Reservation, cell: str
) -> CellCharge | None:
    site = site_of(experiment.plan, dataset)
    if held.settled_at is None or site is None:
        return None
    return next((back for back in refunds(site, held.used) if back.cell == cell), None)
