"""What a hospital's private register says, as frozen values: no database, no clock.

`PrivateView` is one consistent picture of the register (``private.py``), cheap to take because its
maps are persistent. What a node must do is judged from it alone (``judging.py``). Counts and paths in
here never leave the hospital.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from immutables import Map

from ledger.entries.operations.budgets import Used
from ledger.entries.operations.datasets import CellCharge, CellRegistered
from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.values import BlobRef
from ledger.rules.individual import is_individual
from privacy.errors import BudgetExceeded
from privacy.filters import Charge, Limit, Spend, reserve, settle
from privacy.periods import Periods, closed, closing, entered, reserved
from privacy.periods import charged as released

Key = tuple[str, str]
"""An experiment's id and a dataset's name."""

ChargeStatus = Literal["reserved", "lost", "settling", "settled"]


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """A registered file, and what is needed to use it again.

    Attributes:
        name: of the dataset.
        path: the file, absolute.
        sha256: of its content at registration.
        schema_document: canonical bytes of the public schema.
        rows, train_units, test_units: counted; they never leave the hospital.
        snapshot: root of the salted commitment, hex; it is in the log.
        salt: the commitment's secret, with which a record is shown to be in it or not.
        registration: hash of the entry that registered it, or None while that is under way.
    """

    name: str
    path: str
    sha256: str
    schema_document: bytes
    rows: int
    train_units: int
    test_units: int
    snapshot: str
    salt: bytes
    registration: str | None = None


@dataclass(frozen=True, slots=True)
class PrivateCell:
    """A cell's promise and its spend in the federation of this home.

    Attributes:
        terms: as registered; made once and for ever.
        test_percent: how its patients are divided into halves; None for one undivided cell.
        spend: reserved and spent; of a cell whose patients are accounted for one by one, what was
            charged to all of them alike; of one whose promise renews, that of its period.
        periods: of a promise that renews, by this hospital's clock; None where it is for ever.
    """

    terms: CellRegistered
    test_percent: int | None
    spend: Spend = Spend()
    periods: Periods | None = None

    @property
    def limit(self) -> Limit:
        """The integer gates of the promise."""
        limit = self.terms.limit
        return Limit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi)

    def now(self, at_ms: int) -> PrivateCell:
        """The cell in the period of an instant; as it is where its promise is for ever."""
        if self.periods is None:
            return self
        spend, periods = entered(self.spend, self.periods, self.limit, at_ms)
        return replace(self, spend=spend, periods=periods)


@dataclass(frozen=True, slots=True)
class Counted:
    """A reservation that a cell's spend, taken from a log, holds already.

    Attributes:
        charge: what was reserved of the one cell.
        refund: what its settlement gave back, or None while it is not settled.
        open: whether anything of it may still be released.
    """

    federation: str
    experiment: str
    dataset: str
    charge: CellCharge
    refund: CellCharge | None
    open: bool


@dataclass(frozen=True, slots=True)
class PrivateView:
    """The register at one moment.

    Attributes:
        datasets: the newest registered file of each dataset.
        cells: by id.
        charges: where each reservation stands.
        used: steps by purpose that have an intent, for reservations that are not settled.
        outbox: noisy updates kept for sending, by experiment, dataset and round.
        masks: context of the masked round whose secrets are held.
        masked_in: context of the one attempt that an update of the outbox belongs to, once it does.
    """

    datasets: Map[str, DatasetRecord] = Map()
    cells: Map[str, PrivateCell] = Map()
    charges: Map[Key, ChargeStatus] = Map()
    used: Map[Key, Map[Purpose, int]] = Map()
    outbox: Map[tuple[str, str, int], BlobRef] = Map()
    masks: Map[Key, str] = Map()
    masked_in: Map[tuple[str, str, int], str] = Map()

    def used_by(self, key: Key) -> Map[Purpose, int]:
        """Steps with an intent, by purpose."""
        return self.used.get(key, Map())

    def admits(self, charges: Iterable[CellCharge], at_ms: int) -> bool:
        """Whether every cell can pay at that time: the same filter that charges it."""
        try:
            charged(self.cells, charges, at_ms)
        except (BudgetExceeded, KeyError):
            return False
        return True


def charged(
    cells: Map[str, PrivateCell], charges: Iterable[CellCharge], at_ms: int
) -> Map[str, PrivateCell]:
    """Charge cells with a reservation, or refuse all of it.

    Raises:
        BudgetExceeded: a cell cannot pay.
        KeyError: a cell is not this hospital's.
    """
    for charge in charges:
        cell = cells[charge.cell]
        if is_individual(cell.terms):
            _check_open(cell, charge)
            continue
        cell, cost = cell.now(at_ms), Charge(charge.g, charge.r)
        spend = reserve(cell.spend, cost, cell.limit)
        periods = None if cell.periods is None else reserved(cell.periods, cost)
        cells = cells.set(charge.cell, replace(cell, spend=spend, periods=periods))
    return cells


def reserving(
    view: PrivateView, key: Key, charges: Iterable[CellCharge], at_ms: int
) -> PrivateView:
    """The register after a reservation was charged.

    Raises:
        BudgetExceeded: a cell cannot pay.
        KeyError: a cell is not this hospital's.
    """
    cells = charged(view.cells, charges, at_ms)
    return replace(view, cells=cells, charges=view.charges.set(key, "reserved"))


def adopting(
    view: PrivateView,
    key: Key,
    charges: Iterable[CellCharge],
    refunds: Iterable[CellCharge] | None,
    counted: Mapping[str, bool],
    at_ms: int,
    still_open: Container[str] = frozenset(),
) -> PrivateView:
    """The register after it counted a reservation that the log knows better.

    Where a promise renews, it counts in the period of this hospital's clock, whenever it was made.

    Args:
        view: before.
        key: whose.
        charges: of the reservation.
        refunds: what its settlement gave back; None while it is not settled.
        counted: cells in which it is counted already, and whether with what it gave back.
        at_ms: this hospital's clock.
        still_open: of these, cells in which it is counted as one that may still be used.
    """
    if key in view.charges:
        cells = _charged_to_all(view.cells, charges)
        return replace(view, cells=cells, charges=view.charges.set(key, "lost"))
    back = {refund.cell: refund for refund in refunds or ()}
    cells = view.cells
    for charge in charges:
        cell = cells.get(charge.cell)
        if cell is None or counted.get(charge.cell):
            continue
        refund = back.get(charge.cell, CellCharge(cell=charge.cell, g=0, r=0))
        if is_individual(cell.terms):
            if charge.cell not in counted:
                cells = charged_alike(cells, charge.cell, charge.g)
            continue
        if charge.cell not in counted:
            rest = Charge(charge.g - refund.g, charge.r - refund.r)
            cell = _forced(cell.now(at_ms), rest, still_open=refunds is None)
        elif refunds is not None:
            cell = _settled(cell, charge, refund, at_ms, was_open=charge.cell in still_open)
        cells = cells.set(charge.cell, cell)
    status: ChargeStatus = "lost" if refunds is None else "settled"
    return replace(view, cells=cells, charges=view.charges.set(key, status))


def settling(
    view: PrivateView,
    key: Key,
    refunds: Iterable[CellCharge],
    held: Iterable[CellCharge],
    at_ms: int,
) -> PrivateView:
    """The register after a settlement gave back what it gives back.

    Args:
        view: before.
        key: whose.
        refunds: what is given back.
        held: what of the reservation is open.
        at_ms: this hospital's clock.

    Raises:
        RefundTooLarge: more than was charged.
    """
    cells = view.cells
    given = {refund.cell: refund for refund in refunds}
    opened = {charge.cell: charge for charge in held if charge.cell in cells}
    for name in sorted({*given, *opened}):
        nothing = CellCharge(cell=name, g=0, r=0)
        refund, charge = given.get(name, nothing), opened.get(name, nothing)
        cells = cells.set(name, _settled(cells[name], charge, refund, at_ms, was_open=True))
    outbox, masked_in = view.outbox, view.masked_in
    for sent in [o for o in outbox if o[:2] == key]:
        outbox = outbox.delete(sent)
    for left in [o for o in masked_in if o[:2] == key]:
        masked_in = masked_in.delete(left)
    used = view.used.delete(key) if key in view.used else view.used
    masks = view.masks.delete(key) if key in view.masks else view.masks
    charges = view.charges.set(key, "settled")
    return replace(
        view,
        cells=cells,
        charges=charges,
        outbox=outbox,
        used=used,
        masks=masks,
        masked_in=masked_in,
    )


def intending(view: PrivateView, key: Key, purpose: Purpose, steps: int) -> PrivateView:
    """The register after an intent for so many steps."""
    before = view.used_by(key)
    after = before.set(purpose, before.get(purpose, 0) + steps)
    return replace(view, used=view.used.set(key, after))


def charged_alike(cells: Map[str, PrivateCell], name: str, g: int) -> Map[str, PrivateCell]:
    """Charge lane G of all patients of a cell, each of whom has an account; below 0, take it back."""
    cell = cells[name]
    return cells.set(name, replace(cell, spend=Spend(cell.spend.g + g)))


def stated(used: Mapping[Purpose, int]) -> tuple[Used, ...]:
    """Used steps as operations state them: sorted, without zeros."""
    return tuple(Used(purpose=p, steps=n) for p, n in sorted(used.items()) if n > 0)


def _settled(
    cell: PrivateCell, held: CellCharge, refund: CellCharge, at_ms: int, *, was_open: bool
) -> PrivateCell:
    """A cell after a reservation ended; it enters its period first, where what is open counts in full."""
    cell, back = cell.now(at_ms), Charge(refund.g, refund.r)
    periods = cell.periods
    if periods is not None:
        was = Charge(held.g, held.r) if was_open else Charge(0, 0)
        periods = closed(periods, was, back)
    return replace(cell, spend=settle(cell.spend, back), periods=periods)


def _forced(cell: PrivateCell, charge: Charge, *, still_open: bool) -> PrivateCell:
    """A cell after a charge that happened whatever the filter says."""
    spend = Spend(
        cell.spend.g + charge.g,
        cell.spend.r + charge.r,
        cell.spend.g_overflowed,
        cell.spend.r_overflowed,
    )
    periods = cell.periods
    if periods is not None:
        periods = reserved(periods, charge) if still_open else released(periods, charge)
    return replace(cell, spend=closing(spend, cell.limit), periods=periods)


def _check_open(cell: PrivateCell, charge: CellCharge) -> None:
    """A cell whose patients are accounted for one by one is shut when all of them were charged all of it.

    Nothing else is asked, because who has something left depends on rows.
    """
    if cell.spend.g >= cell.limit.g_max:
        wanted = Charge(charge.g, charge.r)
        raise BudgetExceeded(cell.spend, cell.limit, wanted, Charge(0, 0))


def _charged_to_all(
    cells: Map[str, PrivateCell], charges: Iterable[CellCharge]
) -> Map[str, PrivateCell]:
    """What a reservation may have cost any patient, charged to all of them."""
    for charge in charges:
        cell = cells.get(charge.cell)
        if cell is not None and is_individual(cell.terms):
            cells = charged_alike(cells, charge.cell, charge.g)
    return cells
