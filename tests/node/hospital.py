"""A node's side of the in-memory federation: its private register, as it would stand."""

from __future__ import annotations

from pathlib import Path

from immutables import Map

from ledger.entries.operations.log import NodeResumed
from node.duties.duty import Duty
from node.duties.judging import approvals, duties
from node.duties.recovery import account_for_earlier_lives
from node.duties.situation import LocalPolicy, Memory, Standing
from node.register.private import PrivateRegister
from tests.federation import Federation, node_of
from tests.owned import own


class Hospital:
    """One node of a federation with a register on disk, which it keeps in step by hand."""

    def __init__(self, federation: Federation, name: str, directory: Path) -> None:
        self.federation = federation
        self.name = name
        self.path = directory / f"{name}.db"
        self.register = PrivateRegister.open(self.path, lambda: self.federation.now_ms)
        self.memory = Memory()

    def own(self, dataset: str) -> None:
        """Put a registered dataset and its cells into the register."""
        state = self.federation.state
        own(self.register, state, self.federation.schema(dataset), dataset)

    def checked(self, experiment: str, good: bool = True) -> None:
        """Remember that the plan was compared with its spec."""
        plans = self.memory.plans.set(experiment, good)
        self.memory = Memory(plans, self.memory.refuse, self.memory.answered)

    def duties(
        self,
        *,
        final_size: int | None = None,
        fresh: bool = True,
        vouched: bool = True,
        policy: LocalPolicy = LocalPolicy(),  # noqa: B008 - frozen
        now_ms: int | None = None,
        cosigned_ms: int | None = None,
    ) -> tuple[Duty, ...]:
        """What it has to do, by default with everything final and fresh, and cosigned now.

        ``cosigned_ms`` is when a quorum first cosigned the approvals; -1 for never.
        """
        now_ms = self.federation.now_ms if now_ms is None else now_ms
        cosigned_s = (self.federation.now_ms if cosigned_ms is None else cosigned_ms) // 1000
        mine = approvals(self.federation.state, node_of(self.name))
        size = self.federation.state.size if final_size is None else final_size
        return duties(
            self.federation.state,
            node_of(self.name),
            self.register.view,
            Standing(
                size,
                fresh,
                vouched,
                Map({i: cosigned_s for i in mine if i < size and cosigned_s >= 0}),
            ),
            self.memory,
            policy,
            now_ms,
        )

    def reserve(self, experiment: str, dataset: str) -> None:
        """Reserve in the register and in the log."""
        charges = self.charges(experiment, dataset)
        self.register.reserve(self.federation.id, experiment, dataset, charges)
        self.federation.reserve(experiment, dataset)

    def charges(self, experiment: str, dataset: str) -> tuple:
        """What the plan may cost the dataset's cells."""
        from ledger.rules.experiments import site_of, totals

        site = site_of(self.federation.experiment(experiment).plan, dataset)
        assert site is not None
        return totals(site.releases)

    def intend(self, experiment: str, dataset: str, purpose: str, number: int, steps: int) -> None:
        """Record an intent."""
        self.register.record_intent(
            experiment,
            dataset,
            purpose,
            round_number=number,
            steps=steps,
            at_ms=1,  # type: ignore[arg-type]
        )

    def come_back(self) -> None:
        """Account for earlier lives, as a start does before anything else."""
        entries = self.federation.entries()
        account_for_earlier_lives(
            self.federation.state,
            node_of(self.name),
            self.register,
            lambda start: ((i, e.body) for i, e in enumerate(entries) if i >= start),
            self.federation.now_ms,
        )

    def resume(self) -> None:
        """Start as the service does: account, note a nonce, say it."""
        self.restart()
        self.come_back()
        nonce = self.register.note_restart(self.federation.now_ms)
        self.federation.say(node_of(self.name), NodeResumed(type="node.resumed", nonce=nonce))

    def back_up(self) -> bytes:
        """The register's file as it stands."""
        self.restart()  # closing it empties the journal
        return self.path.read_bytes()

    def restore(self, backup: bytes) -> None:
        """Put an older file in its place."""
        self.register.close()
        self.path.write_bytes(backup)
        self.register = PrivateRegister.open(self.path, lambda: self.federation.now_ms)

    def restart(self) -> None:
        """Open the register anew, as a restarted process does."""
        self.register.close()
        self.register = PrivateRegister.open(self.path, lambda: self.federation.now_ms)
        self.memory = Memory(plans=Map(self.memory.plans))
