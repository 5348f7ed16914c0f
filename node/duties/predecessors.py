"""What patients with accounts of their own spent in logs that were succeeded.

A log that took over carries the spend of other cells. Of patients who are accounted for one by one no log holds a
sum, and the experiments of the log before are not in it. So a register that was restored from a backup of before
the succession would have forgotten rounds that nothing in the new log shows. The home keeps its copies of the logs
before (``MemberHome.succeed``): until the register has noted that it came into this log, it is held against each of
them as `judging` and `recovery` hold it against the present one, before the node says anything.

Promise: what is charged is never less than what left, whatever backup of the register is restored; where a copy is gone,
all patients of such cells have spent all. Holding the register against a copy again charges nothing again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from ledger.copies.replica import Replica
from ledger.entries.entry import Body, parse_entry
from ledger.entries.operations.datasets import CellCharge
from ledger.exchange.home import LEDGER, PREDECESSORS, MemberHome
from ledger.rules.individual import is_individual, renyi_of
from ledger.rules.state import State
from node.duties.judging import is_lost
from node.duties.recovery import account_for_earlier_lives
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
    if any(is_individual(cell.terms) for cell in register.view.cells.values()):
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
    """Charge what one log before this one knows better than the register."""
    state, cells = old.state, register.view.cells
    alone = {name for name, cell in cells.items() if is_individual(cell.terms)}
    account_for_earlier_lives(state, me, register, partial(_said_since, old), now_ms)
    for experiment in sorted(state.experiments.values(), key=lambda e: e.index):
        for dataset, held in sorted(experiment.reservations.items()):
            key = (experiment.id, dataset)
            # Other cells' spend is in the log in force, which was carried from this one.
            charges = tuple(charge for charge in held.charges if charge.cell in alone)
            if not charges or state.datasets[dataset].node != me:
                continue
            status = register.view.charges.get(key)
            if status is None:
                register.adopt(state.federation, *key, charges, ())
            elif status in ("reserved", "settling") and is_lost(register.view, key, held):
                register.adopt(state.federation, *key, charges)


def _charge_all(state: State, register: PrivateRegister) -> None:
    """Nobody can say what they spent: as if all of it."""
    charges = tuple(
        CellCharge(
            cell=name,
            g=cell.limit.g_max,
            r=renyi_of(cell.limit.g_max, cell.limit.order_centi),
        )
        for name, cell in sorted(register.view.cells.items())
        if is_individual(cell.terms)
    )
    if (state.federation, _ALL) not in register.view.charges:
        register.adopt(state.federation, state.federation, _ALL, charges, ())


def _said_since(old: Replica, start: int) -> Iterator[tuple[int, Body]]:
    for index, row in enumerate(old.store.rows(start), start):
        if any(kind in row.body for kind in _LIVES):
            yield index, parse_entry(row.body, row.signature).body
