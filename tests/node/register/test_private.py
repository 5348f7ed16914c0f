from __future__ import annotations

import secrets
import sqlite3
import traceback
from contextlib import closing
from pathlib import Path

import pytest
from immutables import Map

from ledger.copies.blobs import blob_ref
from ledger.entries.operations.datasets import CellCharge, CellLimit, CellRegistered
from ledger.entries.operations.values import BlobRef
from ledger.errors import StoreConflict, StoreUnusable
from ledger.formats.merkle import EMPTY_ROOT
from node.errors import IntentsClosed
from node.register.private import PrivateRegister
from privacy.errors import BudgetExceeded, RefundTooLarge
from privacy.filters import limit_for
from privacy.periods import DAY_MS, Periods

FEDERATION, OTHER = "f" * 64, "e" * 64
FIRST, SECOND = "1" * 64, "2" * 64
DATASET, CELL = "basel-heart", "basel-all"


def terms(epsilon: float = 1.0) -> CellRegistered:
    limit = limit_for(epsilon, 1e-5)
    return CellRegistered(
        type="cell.registered",
        cell=CELL,
        block="all",
        half="both",
        declared_patients=300,
        epsilon_micro=round(epsilon * 10**6),
        delta_e15=10**10,
        limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
    )


def part(numerator: int, denominator: int) -> tuple[CellCharge, ...]:
    limit = limit_for(1.0, 1e-5)
    g, r = (m * numerator // denominator for m in (limit.g_max, limit.r_max))
    return (CellCharge(cell=CELL, g=g, r=r),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    register = PrivateRegister.open(tmp_path / "private.db")
    register.add_cell(terms(), None)
    register.close()
    return tmp_path / "private.db"


def intend(register: PrivateRegister, steps: int = 1) -> None:
    register.record_intent(FIRST, DATASET, "train", round_number=1, steps=steps, at_ms=5)


def test_only_its_owner_can_read_the_register(path: Path) -> None:
    assert path.stat().st_mode & 0o077 == 0


def test_a_reservation_charges_the_cell_and_survives_a_restart(path: Path) -> None:
    register = PrivateRegister.open(path)
    register.reserve(FEDERATION, FIRST, DATASET, part(1, 2))
    register.close()
    view = PrivateRegister.open(path).view
    assert view.charges[(FIRST, DATASET)] == "reserved"
    assert view.cells[CELL].spend.g == part(1, 2)[0].g


def test_the_same_reservation_again_charges_nothing(path: Path) -> None:
    register = PrivateRegister.open(path)
    for _ in range(2):
        register.reserve(FEDERATION, FIRST, DATASET, part(1, 2))
    assert register.view.cells[CELL].spend.g == part(1, 2)[0].g


def test_the_promise_is_the_sum_over_federations(path: Path) -> None:
    register = PrivateRegister.open(path)
    register.reserve(FEDERATION, FIRST, DATASET, part(2, 3))
    with pytest.raises(BudgetExceeded, match="lane G asks"):
        register.reserve(OTHER, SECOND, DATASET, part(2, 3))
    register.close()
    view = PrivateRegister.open(path).view
    assert (SECOND, DATASET) not in view.charges
    assert view.cells[CELL].spend.g == part(2, 3)[0].g


def test_an_intent_needs_an_open_reservation(path: Path) -> None:
    register = PrivateRegister.open(path)
    with pytest.raises(IntentsClosed, match="no reservation is open"):
        intend(register)
    register.reserve(FEDERATION, FIRST, DATASET, part(1, 2))
    intend(register)
    register.close_intents(FIRST, DATASET)
    with pytest.raises(IntentsClosed):
        intend(register)
    assert register.view.used_by((FIRST, DATASET)) == Map({"train": 1})


def test_intents_count_and_keep_their_root_through_a_restart(path: Path) -> None:
    register = PrivateRegister.open(path)
    assert register.intents_root(FIRST, DATASET) == EMPTY_ROOT.hex()
    register.reserve(FEDERATION, FIRST, DATASET, part(1, 2))
    intend(register, steps=2)
    one = register.intents_root(FIRST, DATASET)
    intend(register, steps=3)
    root = register.intents_root(FIRST, DATASET)
    assert len({one, root, EMPTY_ROOT.hex()}) == 3
    register.close()
    again = PrivateRegister.open(path)
    assert again.view.used_by((FIRST, DATASET)) == Map({"train": 5})
    assert again.intents_root(FIRST, DATASET) == root


@pytest.mark.parametrize("statement", ["DELETE FROM intents", "UPDATE intents SET steps = 0"])
def test_an_intent_is_never_changed_or_deleted(path: Path, statement: str) -> None:
    register = PrivateRegister.open(path)
    register.reserve(FEDERATION, FIRST, DATASET, part(1, 2))
    intend(register)
    register.close()
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="never changed or deleted"):
        connection.execute(statement)
    connection.close()


def test_a_settlement_gives_back_once(path: Path) -> None:
    register = PrivateRegister.open(path)
    register.reserve(FEDERATION, FIRST, DATASET, part(1, 2))
    intend(register)
    for _ in range(2):
        register.settle(FIRST, DATASET, part(1, 4))
    register.close()
    view = PrivateRegister.open(path).view
    assert view.cells[CELL].spend.g == part(1, 2)[0].g - part(1, 4)[0].g
    assert view.charges[(FIRST, DATASET)] == "settled"


def test_a_settlement_gives_back_no_more_than_was_charged(path: Path) -> None:
    register = PrivateRegister.open(path)
    register.reserve(FEDERATION, FIRST, DATASET, part(1, 4))
    with pytest.raises(RefundTooLarge):
        register.settle(FIRST, DATASET, part(1, 2))
    assert register.view.charges[(FIRST, DATASET)] == "reserved"


def test_a_round_sends_one_update_only(path: Path) -> None:
    register = PrivateRegister.open(path)
    register.reserve(FEDERATION, FIRST, DATASET, part(1, 4))
    register.outbox.store(FIRST, DATASET, 1, blob_ref(b"first"))
    with pytest.raises(StoreConflict):
        register.outbox.store(FIRST, DATASET, 1, blob_ref(b"second"))
    register.close()
    assert PrivateRegister.open(path).view.outbox[(FIRST, DATASET, 1)] == blob_ref(b"first")


def test_a_reservation_that_nobody_can_account_for_is_spent(path: Path) -> None:
    register = PrivateRegister.open(path)
    register.adopt(FEDERATION, FIRST, DATASET, part(1, 1))
    register.adopt(FEDERATION, SECOND, DATASET, part(1, 1))
    view = register.view
    assert view.charges[(FIRST, DATASET)] == "lost"
    assert view.cells[CELL].spend.g == 2 * part(1, 1)[0].g
    assert view.cells[CELL].spend.g_overflowed
    with pytest.raises(IntentsClosed):
        intend(register)


def test_a_register_of_a_newer_release_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE register SET version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(StoreUnusable, match="version 99"):
        PrivateRegister.open(path)


def test_a_promise_that_renews_does_so_by_the_registers_own_clock_and_survives_restarts(
    tmp_path: Path,
) -> None:
    month, now = 30 * DAY_MS, [0]
    file = tmp_path / "renewing.db"

    def opened() -> PrivateRegister:
        return PrivateRegister.open(file, lambda: now[0])

    with closing(opened()) as register:
        register.add_cell(terms(), None, periods=Periods(30, 0))
        register.reserve(FEDERATION, FIRST, DATASET, part(2, 3))
        with pytest.raises(BudgetExceeded):
            register.reserve(FEDERATION, SECOND, DATASET, part(2, 3))
    now[0] = month
    with closing(opened()) as register:
        assert not register.view.admits(
            part(2, 3), now[0]
        )  # the first is open, and counts here, too
        register.settle(FIRST, DATASET, part(1, 3))
        register.settle(FIRST, DATASET, part(1, 3))  # said twice
    now[0] = 2 * month
    with closing(opened()) as register:
        assert register.view.admits(part(2, 3), now[0])
        register.reserve(FEDERATION, SECOND, DATASET, part(2, 3))
    with closing(opened()) as register:
        cell = register.view.cells[CELL]
        (third,), (two,) = part(1, 3), part(2, 3)
        assert cell.spend.g == two.g
        assert cell.periods is not None
        assert (cell.periods.number, cell.periods.earlier) == (2, 2)
        assert cell.periods.open_g == two.g
        assert cell.periods.total_g == 2 * two.g - third.g
        now[0] = 0  # a clock that goes back
        with pytest.raises(BudgetExceeded):
            register.reserve(FEDERATION, OTHER, DATASET, part(2, 3))


def test_an_error_of_the_register_names_no_value_that_it_was_to_hold(path: Path) -> None:
    """With its causes it is shown by ``--debug``, and logged where nothing foresaw it."""
    register, secret = PrivateRegister.open(path), secrets.token_hex(32)
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE outbox")
    with pytest.raises(StoreUnusable, match="no such table") as failed:
        register.outbox.store(FIRST, DATASET, 1, BlobRef(sha256=secret, bytes=1))
    shown = "".join(traceback.format_exception(failed.value))
    assert "[SQL: " in shown
    assert secret not in shown
