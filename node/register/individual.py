"""The register's part for cells whose patients are accounted for one by one.

What a patient has spent is two things: what was charged to all patients of a cell alike (the cell's own
sum in the register, which depends on no row), and what the patient's own gradients cost, in one sealed
record for all the hospital's patients. Beside it stands the same for each open experiment.

Promise: a round is charged to everybody in full with its intent, durably, before its noise may be used
(``intend``); only the durable record of what it cost each patient takes that back (``take_back``), in one
transaction with that record. So a crash in between leaves the worst case of the round with everybody. What
a restored register does not know is charged to everybody, too: an experiment that it cannot account for
at the most that it may cost a patient, a round that the log knows and it does not at the clip norm. Nothing
is ever refunded to a patient.

Records are sealed (XChaCha20-Poly1305) under a key of the hospital's own, each to its account's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from immutables import Map
from nacl.exceptions import CryptoError
from nacl.secret import Aead
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection

from ledger.entries.operations.datasets import CellCharge
from ledger.formats.snapshot_proof import salted
from ledger.rules.individual import is_individual
from node.data.patient_spend import PatientSpend
from node.errors import IntentsClosed, PatientSpendUnreadable
from node.register import tables
from node.register.accounts import Key, PrivateCell, charged_alike
from node.register.held import Held

LIFETIME = "lifetime"
"""The account of what patients spent of the cells' promises."""


@dataclass(frozen=True, slots=True)
class HeldForPatients:
    """What an open reservation may cost the patients of one cell.

    Attributes:
        step_g: of one sum to whoever is as long as the clip norm; units of 2^-40.
        cap_g: of all of them together to any patient.
        base_g: charged to all patients alike so far.
        pending_g: the part of ``base_g`` that the record of ``pending_round`` takes back.
    """

    cell: str
    step_g: int
    cap_g: int
    base_g: int
    pending_round: int
    pending_g: int


class PatientRecords:
    """The part of the register that holds what patients spent who have accounts of their own."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def held_by(self, key: Key) -> tuple[HeldForPatients, ...]:
        """What a reservation may cost patients, by cell; nothing where none have accounts."""
        with self._held.database.read() as connection:
            return held_by(connection, key)

    def record_of(self, account: str) -> bytes:
        """A sealed record of what patients spent; empty where there is none."""
        with self._held.database.read() as connection:
            return record_of(connection, account)

    def take_back(self, key: Key, round_number: int, records: Mapping[str, bytes]) -> None:
        """Keep what a round cost each patient, in place of its worst case for all; durable on return.

        Args:
            key: whose.
            round_number: of the intent that was recorded last.
            records: sealed, by account.

        Raises:
            IntentsClosed: there is no open reservation for it.
            PatientSpendUnreadable: that round's charge is not open.
        """
        with self._held.current():
            view = self._held.view
            if view.charges.get(key) != "reserved":
                raise IntentsClosed(*key)
            with self._held.writing() as connection:
                cells = take_back(connection, key, view.cells, round_number, records)
                self._held.write_spends(connection, cells)
            self._held.view = replace(view, cells=cells)


def account_of(key: Key) -> str:
    """Name of the account of one dataset in one experiment."""
    return "/".join(key)


def seal_spend(hospital_key: bytes, account: str, spend: PatientSpend) -> bytes:
    """Encrypt a record to its account."""
    sealed: bytes = _box(hospital_key).encrypt(spend.encode(), account.encode())
    return sealed


def open_spend(hospital_key: bytes, account: str, sealed: bytes) -> PatientSpend:
    """Decrypt a record; an account that has none is nobody's.

    Raises:
        PatientSpendUnreadable: it is not this account's, or another hospital key's.
    """
    if not sealed:
        return PatientSpend.nobody()
    try:
        return PatientSpend.decode(_box(hospital_key).decrypt(sealed, account.encode()))
    except CryptoError:
        raise PatientSpendUnreadable(
            f"{account} does not open with this hospital's key; restore hospital.key and private.db "
            "of the same day"
        ) from None


def hold(
    connection: Connection,
    key: Key,
    cells: Map[str, PrivateCell],
    charges: Iterable[CellCharge],
    steps: Mapping[str, int],
) -> None:
    """Note with a reservation what its rounds may cost.

    Args:
        connection: of the reservation's transaction.
        key: whose.
        cells: of the register.
        charges: of the reservation.
        steps: by cell, the cost of one sum at the clip norm.

    Raises:
        KeyError: an individual cell is charged of which ``steps`` does not tell the cost.
    """
    rows = [
        {
            "experiment": key[0],
            "dataset": key[1],
            "cell": charge.cell,
            "step_g": steps[charge.cell],
            "cap_g": charge.g,
        }
        for charge in charges
        if is_individual(cells[charge.cell].terms)
    ]
    if rows:
        connection.execute(sa.insert(tables.held_for_patients), rows)


def held_by(connection: Connection, key: Key) -> tuple[HeldForPatients, ...]:
    """What a reservation may cost patients, by cell; nothing where none are accounted for alone."""
    table = tables.held_for_patients
    query = (
        sa.select(*(table.c[name] for name in HeldForPatients.__slots__))
        .where(table.c.experiment == key[0], table.c.dataset == key[1])
        .order_by(table.c.cell)
    )
    return tuple(HeldForPatients(*row) for row in connection.execute(query))


def intend(
    connection: Connection, key: Key, cells: Map[str, PrivateCell], round_number: int, steps: int
) -> Map[str, PrivateCell]:
    """Charge everybody for a round in full; the register's cells after it."""
    for held in held_by(connection, key):
        more = steps * held.step_g
        _write(
            connection,
            key,
            held.cell,
            base_g=held.base_g + more,
            pending_round=round_number,
            pending_g=more,
        )
        cells = charged_alike(cells, held.cell, more)
    return cells


def take_back(
    connection: Connection,
    key: Key,
    cells: Map[str, PrivateCell],
    round_number: int,
    records: Mapping[str, bytes],
) -> Map[str, PrivateCell]:
    """Keep what a round cost each patient in place of what it was charged to all; the cells after it.

    Args:
        connection: of one transaction.
        key: whose.
        cells: of the register.
        round_number: the round whose intent was recorded last.
        records: sealed, by account.

    Raises:
        PatientSpendUnreadable: that round's charge is not open: nothing may be taken back for it.
    """
    held = held_by(connection, key)
    if not held or any(h.pending_round != round_number or not h.pending_g for h in held):
        raise PatientSpendUnreadable(f"round {round_number} has no charge that waits for it")
    for one in held:
        _write(
            connection,
            key,
            one.cell,
            base_g=one.base_g - one.pending_g,
            pending_round=0,
            pending_g=0,
        )
        cells = charged_alike(cells, one.cell, -one.pending_g)
    for account, sealed in records.items():
        connection.execute(_SET_RECORD, {"account": account, "sealed": sealed})
    return cells


def charge_unknown(
    connection: Connection, key: Key, cells: Map[str, PrivateCell], steps: int
) -> Map[str, PrivateCell]:
    """Charge everybody for sums that the log knows and this register does not; the cells after it."""
    for held in held_by(connection, key):
        cells = charged_alike(cells, held.cell, min(held.cap_g, steps * held.step_g))
    return cells


def record_of(connection: Connection, account: str) -> bytes:
    """A sealed record; empty where there is none."""
    table = tables.patient_spends
    query = sa.select(table.c.sealed).where(table.c.account == account)
    found = connection.execute(query).scalar_one_or_none()
    return b"" if found is None else bytes(found)


def forget(connection: Connection, key: Key) -> None:
    """An experiment's own account is closed; what it cost stays in the lifetime's."""
    table, records = tables.held_for_patients, tables.patient_spends
    connection.execute(
        sa.delete(table).where(table.c.experiment == key[0], table.c.dataset == key[1])
    )
    connection.execute(sa.delete(records).where(records.c.account == account_of(key)))


def _write(connection: Connection, key: Key, cell: str, **values: int) -> None:
    table = tables.held_for_patients
    where = (table.c.experiment == key[0], table.c.dataset == key[1], table.c.cell == cell)
    connection.execute(sa.update(table).where(*where).values(values))


def _box(hospital_key: bytes) -> Any:
    return Aead(salted(hospital_key, "patient spend", ""))


_NEW_RECORD = sqlite.insert(tables.patient_spends)
_SET_RECORD = _NEW_RECORD.on_conflict_do_update(
    index_elements=["account"], set_={"sealed": _NEW_RECORD.excluded.sealed}
)
