"""A hospital of the honest world: a real replica, witness, pen and private register on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from immutables import Map

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.author import Author
from ledger.entries.entry import parse_leaf
from ledger.entries.operations.values import BlobRef
from ledger.entries.operations.vocabulary import Operation
from ledger.exchange.receipts import ReceiptBook
from ledger.formats.checkpoint import open_checkpoint
from ledger.rules.experiments import site_of, totals
from ledger.rules.log import Sequenced
from node.duties.duty import Duty
from node.duties.individual import steps_of_patients
from node.duties.judging import approvals, duties
from node.duties.plan_check import CheckedPlan, check
from node.duties.situation import LocalPolicy, Memory, Standing
from node.following.witness import Witness
from node.register.private import PrivateRegister
from tests.adversary.coordinator import Coordinator, Receipt
from tests.federation import node_of
from tests.owned import own


class Hospital:
    """One hospital's node. It believes only what its replica verified."""

    def __init__(self, name: str, directory: Path, coordinator: Coordinator) -> None:
        self.name = name
        self.handle = node_of(name)
        self.directory = directory
        self.coordinator = coordinator
        self.ring = coordinator.federation.rings[self.handle]
        self.memory = Memory()
        self.restored = False
        directory.mkdir(parents=True)
        federation = coordinator.federation
        store = LogStore.open(self._url)
        self._open(store, Replica.create(store, federation.leaves[0], federation.id))

    # --- its copy of the log --------------------------------------------------------------------

    @property
    def checkpoint(self) -> bytes:
        """The newest signed note that it verified."""
        note = self.replica.checkpoint
        assert note is not None
        return note

    @property
    def size(self) -> int:
        """Entries that it verified."""
        return self.replica.size

    @property
    def trusted(self) -> tuple[int, bytes, int]:
        """What it relies on: size, root, final size. An attack that is caught moves none of it."""
        return self.replica.size, self.replica.root(), self.replica.final.size

    def follow(self) -> list[Sequenced]:
        """One poll of the coordinator."""
        answer = self.coordinator.answer(self.name, self.size, self.replica.final.size)
        taken = self.replica.extend(answer.leaves, answer.note)
        for note in answer.finals:
            self.replica.accept_final(note)
        self.receipts.look()
        return taken

    def follow_entries(self) -> None:
        """One poll, without looking at what the coordinator calls final."""
        answer = self.coordinator.answer(self.name, self.size, self.replica.final.size)
        self.replica.extend(answer.leaves, answer.note)

    def cosign(self) -> None:
        """Cosign what it holds, if there is anything new, and hand that in."""
        said = self.witness.cosign(self.now_ms)
        if said is not None:
            self.coordinator.cosigned(self.name, self.handle, said.size, said.line)

    def compare(self, other: Hospital) -> None:
        """Look at the checkpoint that another hospital holds, as people who meet may do."""
        self.coordinator.messages += 1
        note = other.checkpoint
        size = open_checkpoint(note, self.replica.log_key).size
        assert size <= self.size, "compare from the hospital that holds more"
        self.replica.extend([], note)

    def say(self, op: Operation) -> Receipt:
        """Sign its next entry and hand it in."""
        if not self.restored:
            self.remember()
        receipt = self.author.submit(op)
        assert isinstance(receipt, Receipt)
        return receipt

    def remember(self) -> None:
        """What the federation's story signed for this node is its own: its pen knows the last one."""
        key = self.author.key
        said = [
            leaf for leaf in self.coordinator.federation.leaves if parse_leaf(leaf).body.key == key
        ]
        held = self.replica.state.keys.get(key)
        if held is not None and held.next_seq and self.author.pending is None:
            self.author.close()
            (self.directory / "pending.leaf").write_bytes(said[held.next_seq - 1])
            self._take_pen()

    # --- its work -------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """Its clock."""
        return self.coordinator.federation.now_ms

    def own(self, dataset: str) -> None:
        """Put a registered dataset and its cells into the private register, if they are not there."""
        state, federation = self.replica.state, self.coordinator.federation
        registered = state.datasets[dataset]
        known = self.register.view.datasets.get(dataset)
        if known is not None and known.registration == registered.registration:
            return
        own(self.register, state, federation.schema(dataset), dataset)

    def check_plan(self, experiment: str) -> CheckedPlan:
        """Compare a plan with its spec, and remember the outcome."""
        found = check(self.replica, self.replica.state.experiments[experiment], self._fetch)
        plans = self.memory.plans.set(experiment, found.refused is None)
        self.memory = Memory(plans, self.memory.refuse, self.memory.answered)
        return found

    def reserve(self, experiment: str, dataset: str) -> None:
        """Charge the private register for the most that a plan may cost."""
        site = site_of(self.replica.state.experiments[experiment].plan, dataset)
        assert site is not None
        self.register.reserve(
            self.replica.federation,
            experiment,
            dataset,
            totals(site.releases),
            steps_of_patients(site),
        )

    def duties(self, *, late_ms: int = 0) -> tuple[Duty, ...]:
        """What it has to do, from its own copy, its register and its clock.

        Args:
            late_ms: how much later than now it asks.
        """
        now_ms = self.now_ms + late_ms
        final, policy = self.replica.final, self.replica.state.policy
        times = {i: self.replica.cosigned_s(i) for i in approvals(self.replica.state, self.handle)}
        standing = Standing(
            final.size,
            final.fresh((now_ms - policy.max_age_ms) // 1000),
            cosigned_s=Map({i: time_s for i, time_s in times.items() if time_s is not None}),
        )
        return duties(
            self.replica.state,
            self.handle,
            self.register.view,
            standing,
            self.memory,
            LocalPolicy(),
            now_ms,
        )

    # --- its disk -------------------------------------------------------------------------------

    def back_up(self, to: Path) -> Path:
        """Copy its whole home as it is now."""
        self.remember()
        self.close()
        shutil.copytree(self.directory, to)
        self.open()
        return to

    def restore(self, backup: Path) -> None:
        """Go back to a backup of its home."""
        self.close()
        shutil.rmtree(self.directory)
        shutil.copytree(backup, self.directory)
        self.memory = Memory()
        self.restored = True
        self.open()

    def open(self) -> None:
        """Open its home as a started process does: all of the copy is verified again."""
        store = LogStore.open(self._url)
        try:
            replica = Replica.open(store, self.coordinator.federation.id)
        except BaseException:
            store.close()
            raise
        self._open(store, replica)

    def close(self) -> None:
        """Close its files."""
        self.author.close()
        self.register.close()
        self.store.close()

    def _open(self, store: LogStore, replica: Replica) -> None:
        self.store, self.replica = store, replica
        self.register = PrivateRegister.open(self.directory / "private.db", lambda: self.now_ms)
        self.witness = Witness(self.ring.witness, self.handle, replica)
        self.receipts = ReceiptBook(
            self.directory / "receipts",
            replica,
            lambda leaf: self.coordinator.submit(leaf),
            lambda: self.now_ms,
        )
        self._take_pen()

    def _take_pen(self) -> None:
        self.author = Author(
            self.ring,
            self.replica,
            self.receipts.send,
            self.directory / "pending.leaf",
            lambda: self.now_ms,
        )

    def _fetch(self, ref: BlobRef) -> bytes:
        return self.coordinator.federation.blobs[ref.sha256]

    @property
    def _url(self) -> str:
        return f"sqlite:///{self.directory / 'ledger.db'}"
