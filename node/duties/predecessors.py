"""What patients spent in logs that were succeeded, as far as the log in force cannot tell.

A log that took over carries the spend of each cell. Two things it does not say:

* Of patients who are accounted for one by one no log holds a sum, and the experiments of the log before are not
  in it.
* Of a promise that renews it says what was spent up to the period in which it begins. A hospital may come into it
  later, and have released until then what was open in the log before: in a period that the log in force knows
  nothing of, and a register that was restored neither.

So a register that was restored from a backup of before the succession would have forgotten what nothing in the new
log shows. The home keeps its copies of the logs before (``MemberHome.succeed``): until the register has noted that it
came into this log, it is held against each of them as `judging` and `recovery` hold it against the present one,
before the node says anything. Nothing more is released of what those logs hold open; so where a promise renews, it
counts in full in the period in which the hospital came into this log, and in none after it.

Promise: what is charged is never less than what left, whatever backup of the register is restored; where a copy is gone,
all patients of such cells have spent all, where it renews of the period under way. Holding the register against a
copy again charges nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ledger.copies.replica import Replica
from ledger.entries.entry import Body, parse_entry
from ledger.entries.operations.datasets import CellCharge
from ledger.exchange.home import LEDGER, PREDECESSORS, MemberHome
from ledger.rules.budget import refunds
from ledger.rules.experiment_state import Reservation
from ledger.rules.experiments import site_of
from ledger.rules.individual import is_individual, renyi_of
from ledger.rules.state import State
from node.duties.judging import is_lost
from node.duties.recovery import account_for_earlier_lives
from node.register.accounts import Key
from node.register.private import PrivateRegister

_LIVES = (b'"round.opened"', b'"node.resumed"')
_ALL = "predecessor"
"""Names the reservation that stands for a log of which no copy is left."""


def account_for_predecessors(
    home: Path, state: State, me: str, register: PrivateRegister, now_ms: int
) -> None:
    """Charge what logs before this one know better than the register, once for each register and log.

    Args:
        home: the node's.
        state: the fold of its copy of the log in force.
        me: its handle.
        register: private.
        now_ms: its clock.

    Raises:
        LedgerError: a copy cannot be read.
    """
    if state.succession is None or register.knows_restart(state.federation):
        return
    if _not_carried(register):
        copies = sorted((home / PREDECESSORS).glob(f"*/{LEDGER}"))
        found = set()
        for copy in copies:
            old = MemberHome(copy.parent).open_replica()
            with closing(old.store):
                account_for_log_before(old, me, register, now_ms)
                found.add(old.federation)
        if state.succession.predecessor.federation not in found:
            _charge_all(state, register)
    register.note_log(state.federation, now_ms)


def account_for_log_before(old: Replica, me: str, register: PrivateRegister, now_ms: int) -> None:
    """Charge what one log before this one knows better than the register, and close it."""
    state, cells = old.state, frozenset(_not_carried(register))
    account_for_earlier_lives(state, me, register, partial(_said_since, old), now_ms)
    for key, held in _held_before(state, me):
        # Other cells' spend is in the log in force, which was carried from this one.
        charges = tuple(charge for charge in held.charges if charge.cell in cells)
        if not charges:
            continue
        status = register.view.charges.get(key)
        if status is None:
            back = tuple(refund for refund in held.refunds if refund.cell in cells)
            register.adopt(state.federation, *key, charges, back)
        elif status in ("reserved", "settling") and is_lost(register.view, key, held.reservation):
            register.adopt(state.federation, *key, charges)
        if any(_renews(register, charge.cell) for charge in charges):
            register.settle(*key, held.refunds)


@dataclass(frozen=True, slots=True)
class _Before:
    """What a log before this one reserved of this node's cells.

    Attributes:
        charges: in full.
        refunds: what it gave back.
        reservation: what it says of the noise that was used.
    """

    charges: tuple[CellCharge, ...]
    refunds: tuple[CellCharge, ...]
    reservation: Reservation


def _held_before(state: State, me: str) -> Iterator[tuple[Key, _Before]]:
    """Reservations and statistics of this node's datasets, oldest first."""
    for experiment in sorted(state.experiments.values(), key=lambda e: e.index):
        for dataset, held in sorted(experiment.reservations.items()):
            site = site_of(experiment.plan, dataset)
            if state.datasets[dataset].node == me and site is not None:
                back = () if held.settled_at is None else refunds(site, held.used)
                yield (experiment.id, dataset), _Before(held.charges, tuple(back), held)
    for identity, told in sorted(state.statistics.items(), key=lambda item: item[1].index):
        dataset, charges = told.terms.dataset, told.terms.charges
        if state.datasets[dataset].node == me:
            yield (identity, dataset), _Before(charges, (), Reservation(told.index, charges))


def _not_carried(register: PrivateRegister) -> tuple[str, ...]:
    """The cells of which a log that takes over does not tell all that was spent."""
    return tuple(
        name
        for name, cell in sorted(register.view.cells.items())
        if is_individual(cell.terms) or cell.periods is not None
    )


def _renews(register: PrivateRegister, name: str) -> bool:
    return register.view.cells[name].periods is not None


def _charge_all(state: State, register: PrivateRegister) -> None:
    """Nobody can say what they spent: as if all of it."""
    charges = []
    for name in _not_carried(register):
        limit = register.view.cells[name].limit
        lane_r = limit.r_max
        if not _renews(register, name):
            lane_r = renyi_of(limit.g_max, limit.order_centi)
        charges.append(CellCharge(cell=name, g=limit.g_max, r=lane_r))
    if (state.federation, _ALL) not in register.view.charges:
        register.adopt(state.federation, state.federation, _ALL, charges, ())


def _said_since(old: Replica, start: int) -> Iterator[tuple[int, Body]]:
    for index, row in enumerate(old.store.rows(start), start):
        if any(kind in row.body for kind in _LIVES):
            yield index, parse_entry(row.body, row.signature).body
