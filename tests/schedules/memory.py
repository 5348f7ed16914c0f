"""The private register without a disk: the same pure steps, and a memory that a crash leaves as it is.

``PrivateRegister`` makes each step durable and then true; here a step is an assignment, so that every
state between two assignments is one that a crash, or a backup, can leave behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from immutables import Map

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.values import BlobRef
from node.errors import IntentsClosed
from node.register.accounts import Key, PrivateView, adopting, intending, reserving, settling


@dataclass(frozen=True)
class Disk:
    """All that a register keeps.

    Attributes:
        view: its picture.
        counted: charges that were counted, by reservation and cell: whether with a refund.
        held: what is open of each reservation.
        intents: (reservation, purpose, round, steps), in order.
        restarts: nonces of starts.
    """

    view: PrivateView
    counted: Map[tuple[Key, str], bool] = Map()
    held: Map[Key, tuple[CellCharge, ...]] = Map()
    intents: tuple[tuple[Key, Purpose, int, int], ...] = ()
    restarts: frozenset[str] = frozenset()


class MemoryRegister:
    """What ``node.duties`` and ``node.service`` use of the register."""

    def __init__(self, disk: Disk, clock: Callable[[], int] = lambda: 0) -> None:
        self.disk = disk
        self.clock = clock

    @property
    def view(self) -> PrivateView:
        return self.disk.view

    def reserve(self, key: Key, charges: Sequence[CellCharge]) -> None:
        if key not in self.view.charges:
            view = reserving(self.view, key, charges, self.clock())
            counted = self.disk.counted.update({(key, c.cell): False for c in charges})
            held = self.disk.held.set(key, tuple(charges))
            self.disk = replace(self.disk, view=view, counted=counted, held=held)

    def adopt(
        self,
        federation: str,
        experiment: str,
        dataset: str,
        charges: Sequence[CellCharge],
        refunds: Iterable[CellCharge] | None = None,
    ) -> None:
        key = (experiment, dataset)
        before = {cell: back for (k, cell), back in self.disk.counted.items() if k == key}
        given = None if refunds is None else tuple(refunds)
        view = adopting(self.view, key, charges, given, before, self.clock())
        back = {refund.cell: refund.g > 0 or refund.r > 0 for refund in given or ()}
        new = {(key, c.cell): back.get(c.cell, False) for c in charges if c.cell not in before}
        held = self.disk.held if given is not None else self.disk.held.set(key, tuple(charges))
        counted = self.disk.counted.update(new)
        self.disk = replace(self.disk, view=view, counted=counted, held=held)

    def close_intents(self, key: Key) -> None:
        if self.view.charges.get(key) == "reserved":
            charges = self.view.charges.set(key, "settling")
            self.disk = replace(self.disk, view=replace(self.view, charges=charges))

    def settle(self, key: Key, refunds: Iterable[CellCharge]) -> None:
        if self.view.charges.get(key, "settled") == "settled":
            return
        given = tuple(refunds)
        counted = self.disk.counted.update({(key, r.cell): True for r in given if r.g or r.r})
        view = settling(self.view, key, given, self.disk.held.get(key, ()), self.clock())
        self.disk = replace(self.disk, view=view, counted=counted)

    def record_intent(
        self,
        experiment: str,
        dataset: str,
        purpose: Purpose,
        *,
        round_number: int,
        steps: int,
        at_ms: int,
    ) -> None:
        key = (experiment, dataset)
        if self.view.charges.get(key) != "reserved":
            raise IntentsClosed(experiment, dataset)
        self.disk = replace(
            self.disk,
            view=intending(self.view, key, purpose, steps),
            intents=(*self.disk.intents, (key, purpose, round_number, steps)),
        )

    def intended(self, experiment: str, dataset: str, round_number: int) -> Map[Purpose, int]:
        found: Map[Purpose, int] = Map()
        for key, purpose, number, steps in self.disk.intents:
            if key == (experiment, dataset) and number == round_number:
                found = found.set(purpose, found.get(purpose, 0) + steps)
        return found

    def store_update(self, key: Key, number: int, ref: BlobRef) -> None:
        outbox = self.view.outbox.set((*key, number), ref)
        self.disk = replace(self.disk, view=replace(self.view, outbox=outbox))

    def note_restart(self, nonce: str) -> None:
        self.disk = replace(self.disk, restarts=self.disk.restarts | {nonce})

    def knows_restart(self, nonce: str) -> bool:
        return nonce in self.disk.restarts
