"""What a node owes when it comes back: a round that it may have run, spend that it may have forgotten.

A process that starts cannot know what the one before did last: its register may be a restored backup.
So before anything else it looks at its own reservations from two sides:

* every round since the reservation that named the dataset, and of which the register holds neither an
  intent nor a vector, may have used noise: that much is charged, from the plan's own steps;
* every start after the first has put a nonce into the log, and into the register before that. A nonce
  in the log that the register does not know is a life that it has forgotten, and nobody can say what
  that one used: the reservation is spent in full, and nothing trains on it.

What the log knows better than the register, ``judging.py`` adopts. Promise: whatever backups of the register
are restored, and however often, what is charged is never less than what left. It rests on the log: each
life states itself there, and uses no data before others vouch for a log that holds the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ledger.entries.entry import Body
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.log import NodeResumed
from ledger.entries.operations.rounds import RoundOpened
from ledger.rules.budget import refunds
from ledger.rules.experiment_state import Experiment, Reservation
from ledger.rules.experiments import site_of
from ledger.rules.individual import is_individual
from ledger.rules.purposes import gate
from ledger.rules.rounds import round_kind
from ledger.rules.state import State
from node.duties.judging import is_lost, steps_of
from node.register.accounts import Counted, PrivateView
from node.register.private import PrivateRegister
from privacy.filters import Spend
from privacy.periods import closing


def account_for_earlier_lives(
    state: State,
    me: str,
    register: PrivateRegister,
    said_since: Callable[[int], Iterable[tuple[int, Body]]],
    now_ms: int,
) -> None:
    """Charge what processes before this one may have used without a trace in this register.

    Args:
        state: the fold of this node's own copy.
        me: this node's handle.
        register: private.
        said_since: the copy's entries from an index on and up to this life's own ``node.resumed``, in
            order, each with its index; only rounds opened and restarts are looked at.
        now_ms: this node's clock.
    """
    open_ones = list(_open_reservations(state, me, register.view))
    if not open_ones:
        return
    first = min(experiment.index for experiment, _, _ in open_ones)
    forgotten_at = -1
    named: list[tuple[int, RoundOpened]] = []
    for index, body in said_since(first):
        op = body.op
        if isinstance(op, RoundOpened):
            named.append((index, op))
        elif isinstance(op, NodeResumed) and body.author == me and _is_new(register, op):
            forgotten_at = index
    for experiment, dataset, held in open_ones:
        if forgotten_at > held.index:
            register.adopt(state.federation, experiment.id, dataset, held.charges)
            continue
        asked = [(i, o) for i, o in named if o.experiment == experiment.id and dataset in o.cohort]
        before = [op.round for index, op in asked if index < held.index]
        since = [op.round for index, op in asked if index > held.index]
        # The reservation answered the last round before it; earlier ones had no permission.
        for number in sorted({*before[-1:], *since}):
            _charge_round(experiment, dataset, number, register, now_ms)


def counted_in(state: State, cell: str) -> Iterator[Counted]:
    """The reservations that a cell's spend in the log is made of, oldest experiment first.

    A register that takes the spend from the log takes these with it, or it would count them twice.
    """
    for experiment in sorted(state.experiments.values(), key=lambda e: e.index):
        for dataset, held in sorted(experiment.reservations.items()):
            for charge in held.charges:
                if charge.cell == cell:
                    given = _given_back(experiment, dataset, held, cell)
                    open_ = held.settled_at is None
                    yield Counted(state.federation, experiment.id, dataset, charge, given, open_)
    for identity, told in sorted(state.statistics.items(), key=lambda item: item[1].index):
        for charge in told.terms.charges:
            if charge.cell == cell:
                none, open_ = CellCharge(cell=cell, g=0, r=0), told.result is None
                yield Counted(state.federation, identity, told.terms.dataset, charge, none, open_)


def spend_in(state: State, name: str) -> Spend:
    """What a log says that a cell's patients were charged, for a register that does not know the cell.

    Where patients are accounted for one by one no log can say it. If anything was ever reserved of the
    cell, or it was carried from a log before this one, all of them have spent all. Where a promise renews,
    no log can say what this hospital's clock would have counted in the period under way: it is all that was
    ever charged.
    """
    cell = state.cells[name]
    if cell.periods is not None:
        return closing(Spend(cell.periods.total_g, cell.periods.total_r), gate(cell))
    if not is_individual(cell.terms):
        return cell.spend
    succession = state.succession
    carried = succession is not None and cell.registered_at <= succession.taken
    if carried or any(True for _ in counted_in(state, name)):
        return Spend(cell.terms.limit.g_max)
    return Spend()


def _open_reservations(
    state: State, me: str, view: PrivateView
) -> Iterator[tuple[Experiment, str, Reservation]]:
    """Reservations of this node that both log and register hold open."""
    for experiment in state.experiments.values():
        for dataset, held in experiment.reservations.items():
            key = (experiment.id, dataset)
            if (
                state.datasets[dataset].node == me
                and held.settled_at is None
                and view.charges.get(key) == "reserved"
                and not is_lost(view, key, held)
            ):
                yield experiment, dataset, held


def _is_new(register: PrivateRegister, op: NodeResumed) -> bool:
    return not register.knows_restart(op.nonce)


def _charge_round(
    experiment: Experiment, dataset: str, number: int, register: PrivateRegister, now_ms: int
) -> None:
    """Record an intent for a round that has none, within what is left of the plan's steps."""
    site = site_of(experiment.plan, dataset)
    key = (experiment.id, dataset)
    if site is None or (*key, number) in register.view.outbox:
        return
    recorded = register.intended(*key, number)
    planned = {release.purpose: release.steps for release in site.releases}
    kind = round_kind(experiment.plan, number)
    for purpose, steps in steps_of(site, kind, experiment.plan.steps_per_round).items():
        left = planned.get(purpose, 0) - register.view.used_by(key).get(purpose, 0)
        if purpose not in recorded and min(steps, left) > 0:
            register.record_intent(
                *key, purpose, round_number=number, steps=min(steps, left), at_ms=now_ms
            )


def _given_back(
    experiment: Experiment, dataset: str, held: Reservation, cell: str
) -> CellCharge | None:
    site = site_of(experiment.plan, dataset)
    if held.settled_at is None or site is None:
        return None
    return next((back for back in refunds(site, held.used) if back.cell == cell), None)
