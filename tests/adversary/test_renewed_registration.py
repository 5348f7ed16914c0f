"""A hospital looks for another period by registering: a second table, a promise for ever, another federation."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.entries.operations.vocabulary import Operation
from node.data import registration
from node.data.renewal import Asked
from node.errors import PromiseExceeded, RegistrationRefused
from node.register.private import PrivateRegister
from node.register.promises import PromiseBook
from privacy.periods import DAY_MS
from tests.adversary.registry import attack
from tests.adversary.test_renewed_budget import MONTH, NODE, TABLE
from tests.adversary.ward import KEY, Table, patients
from tests.adversary.world import World
from tests.federation import Federation, node_of

pytestmark = pytest.mark.usefixtures("quick_keys")


def offer(
    federation: Federation,
    private: PrivateRegister,
    directory: Path,
    days: int | None,
    *,
    epsilon: float | None = 2.0,
    name: str = TABLE,
    book: PromiseBook | None = None,
    delta: float | None = None,
) -> registration.Prepared:
    """What ``consilium dataset register`` does with a file."""

    def say(op: Operation) -> str | None:
        return federation.take(federation.entry(node_of("basel"), op)).outcome.void

    table = Table(patients(0, 300), name)
    prepared = registration.prepare(
        table.write(directory),
        table.schema,
        organisation="basel",
        hospital_key=KEY,
        cells=private.view.cells,
        epsilon=epsilon,
        delta=delta,
        renewing=Asked.of(days, private.now_ms(), book),
    )
    registration.register(
        prepared,
        private,
        state=lambda: federation.state,
        publish=federation.put,
        say=say,
        book=book,
    )
    return prepared


@attack(
    name="hospital registers its table again, with a shorter period or with one at all",
    exposed_by=NODE,
    evidence="the promise in its register, which says how it renews",
)
def test_a_second_table_inherits_period_and_spend(world: World, tmp_path: Path) -> None:
    federation, basel = world.federation, world.hospital("basel")
    offer(federation, basel.register, tmp_path, 365)
    held = basel.register.view.cells["basel-train"].periods
    assert held is not None
    assert (held.days, held.number) == (365, 0)
    assert federation.state.cells["basel-train"].periods == held
    with world.caught(RegistrationRefused, by=NODE, match="for each 365 days"):
        offer(federation, basel.register, tmp_path, 30, epsilon=None, name="basel-lab")  # the lie
    offer(federation, basel.register, tmp_path, None, epsilon=None, name="basel-lab")
    offer(federation, basel.register, tmp_path, 365, epsilon=None, name="basel-view")
    assert basel.register.view.cells["basel-train"].periods == held
    other = PrivateRegister.open(tmp_path / "lost.db", lambda: federation.now_ms)
    for days, why in ((None, "with --refresh-days 365"), (30, "for each 365 days")):
        with pytest.raises(RegistrationRefused, match=why):
            offer(federation, other, tmp_path, days)
    offer(federation, other, tmp_path, 365)
    assert other.view.cells["basel-train"].periods == held


def test_a_promise_for_ever_gets_no_period_later(world: World, tmp_path: Path) -> None:
    federation, basel = world.federation, world.hospital("basel")
    offer(federation, basel.register, tmp_path, None)
    with pytest.raises(RegistrationRefused, match="promise is for ever"):
        offer(federation, basel.register, tmp_path, 30, epsilon=None, name="basel-lab")
    other = PrivateRegister.open(tmp_path / "lost.db", lambda: federation.now_ms)
    with pytest.raises(RegistrationRefused, match="its promise is for ever"):
        offer(federation, other, tmp_path, 30)


@attack(
    name="hospital's second federation has a period of its own, to have two months in one",
    exposed_by=NODE,
    evidence="its book of promises, which both homes name",
)
def test_federations_that_share_a_promise_share_its_periods(world: World, tmp_path: Path) -> None:
    book = PromiseBook(tmp_path / "promises.db")
    book.promise(5_000_000, 10**10)
    first = world.federation
    second = Federation.found(("basel", "bern"), now_ms=first.now_ms + 40 * DAY_MS)
    offer(first, world.hospital("basel").register, tmp_path, 30, book=book, delta=4e-6)
    other = PrivateRegister.open(tmp_path / "other.db", lambda: second.now_ms)
    for days, why in ((None, "say --refresh-days 30"), (60, "every 30 days, and not every 60")):
        with pytest.raises(RegistrationRefused, match=why):
            offer(second, other, tmp_path, days, book=book, delta=4e-6)
    cells = [cell.terms for cell in first.state.cells.values()]
    held = book.renewal()
    assert held is not None
    for wrong in (None, (30, held[1] + 15 * DAY_MS), (60, held[1])):
        with pytest.raises(PromiseExceeded, match="its promises are for each 30 days"):
            book.allot("elsewhere", cells, wrong)  # the lie
    world.exposed(NODE)
    offer(second, other, tmp_path, 30, book=book, delta=4e-6)
    theirs = second.state.cells["basel-train"].periods
    assert theirs is not None
    assert theirs.from_ms == held[1] + MONTH  # the period under way, with the book's boundaries


def test_accounts_for_each_patient_do_not_renew(world: World, tmp_path: Path) -> None:
    table = Table(patients(0, 300))
    with pytest.raises(RegistrationRefused, match="hold for ever"):
        registration.prepare(
            table.write(tmp_path),
            table.schema,
            organisation="basel",
            hospital_key=KEY,
            cells=world.hospital("basel").register.view.cells,
            epsilon=2.0,
            individual=True,
            renewing=Asked(30, world.federation.now_ms),
        )
