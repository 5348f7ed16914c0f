"""An honest federation in memory, with hospitals that verify, which a test attacks in a line or two.

The coordinator's side is a ``tests.federation.Federation`` behind a `Coordinator` that can lie; each
hospital has a real replica, witness, pen and register; the sceptic is ``audit.verification.verify`` over copies on
disk. ``world.caught`` and ``world.exposed`` note who exposes an attack, after how many messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from audit.verification.findings import Check, Verdicts
from audit.verification.sources import close_copies, open_copies
from audit.verification.verify import verify_all
from ledger.entries.operations.experiments import ExperimentApproved
from ledger.entries.operations.federation import Policy
from ledger.entries.operations.log import NodeReady, TimeNoted
from ledger.entries.operations.rounds import RoundOpened
from tests.adversary.coordinator import Coordinator
from tests.adversary.hospital import Hospital
from tests.adversary.registry import Exposure
from tests.federation import COORDINATOR, HOSPITALS, POLICY, Federation

E = TypeVar("E", bound=BaseException)


class World:
    """See the module's first lines.

    Attributes:
        federation: the honest log with everybody's keys.
        coordinator: who keeps it, and may lie.
        hospitals: by name.
        exposures: who exposed what so far.
    """

    def __init__(
        self, directory: Path, hospitals: Sequence[str] = HOSPITALS, policy: Policy = POLICY
    ) -> None:
        self.directory = directory
        self.federation = Federation.found(hospitals, policy=policy, ready=False)
        self.coordinator = Coordinator(self.federation)
        self.exposures: list[Exposure] = []
        self.hospitals = {
            name: Hospital(name, directory / name, self.coordinator) for name in hospitals
        }
        self.settle()
        for hospital in self.hospitals.values():
            hospital.say(NodeReady(type="node.ready", protocol=1))
        self.settle()
        self.let_time_pass(0)
        self.settle()
        self.attack_begins()

    def hospital(self, name: str) -> Hospital:
        """A hospital's node."""
        return self.hospitals[name]

    def settle(self) -> None:
        """Everybody follows, cosigns and follows again: what was said is final."""
        for hospital in self.hospitals.values():
            hospital.follow()
        for hospital in self.hospitals.values():
            hospital.cosign()
        for hospital in self.hospitals.values():
            hospital.follow()

    def let_time_pass(self, ms: int) -> None:
        """Move everybody's clock, and the log's with it."""
        self.federation.now_ms += ms
        self.coordinator.say(TimeNoted(type="time.noted"))

    def experiment(
        self,
        hospitals: Sequence[str] = ("basel", "bern"),
        *,
        approved_by: Sequence[str] | None = None,
        **spec: object,
    ) -> str:
        """An experiment on these hospitals' datasets, which their nodes own and know as final.

        Args:
            hospitals: each with one dataset, ``<hospital>-heart``.
            approved_by: whose stewards approve; by default all of them.
            spec: further arguments of ``Federation.spec``.
        """
        names = [f"{hospital}-heart" for hospital in hospitals]
        for hospital, name in zip(hospitals, names, strict=True):
            if name not in self.federation.state.datasets:
                self.federation.register_dataset(hospital)
        experiment = self.federation.propose(self.federation.spec(names, **spec))  # type: ignore[arg-type]
        for hospital in hospitals if approved_by is None else approved_by:
            self.federation.approve(experiment, f"{hospital}-heart")
        self.settle()
        for hospital, name in zip(hospitals, names, strict=True):
            self.hospital(hospital).own(name)
        self.attack_begins()
        return experiment

    def open_round(self, experiment: str, *cohort: str) -> RoundOpened:
        """The coordinator opens the next training round for these datasets, approved or not."""
        now = self.federation.experiment(experiment)
        op = RoundOpened(
            type="round.opened",
            experiment=experiment,
            round=now.next_round,
            attempt=now.next_attempt,
            kind="train",
            cohort=cohort,
            model=now.model,
            deadline_ms=self.federation.now_ms + now.plan.round_timeout_ms,
        )
        self.federation.say(COORDINATOR, op)
        return op

    def approval(self, experiment: str, hospital: str) -> ExperimentApproved:
        """What a steward says who approves."""
        return ExperimentApproved(
            type="experiment.approved",
            experiment=experiment,
            dataset=f"{hospital}-heart",
            epsilon_max_micro=10_000_000,
            until_ms=2**50,
        )

    def newcomer(self, name: str = "newcomer") -> Hospital:
        """Somebody who copies the log from its first entry: it holds genesis and nothing else.

        It has basel's keys and only listens.
        """
        fresh = Hospital("basel", self.directory / name, self.coordinator)
        fresh.name = "newcomer"
        self.hospitals[name] = fresh
        return fresh

    # --- attacks and their end ------------------------------------------------------------------

    def attack_begins(self) -> None:
        """Count messages from here. A coordinator's lies begin by themselves."""
        self.coordinator.messages = 0

    def exposed(self, by: str) -> None:
        """Note that somebody has the evidence in hands."""
        self.exposures.append(Exposure(by, self.coordinator.messages))

    @contextmanager
    def caught(
        self, error: type[E], *, by: str, match: str | None = None
    ) -> Iterator[pytest.ExceptionInfo[E]]:
        """Expect a typed refusal, which exposes the attack; what hospitals trust must not move."""
        before = {name: each.trusted for name, each in self.hospitals.items()}
        with pytest.raises(error, match=match) as info:
            yield info
        self.exposed(by)
        after = {name: each.trusted for name, each in self.hospitals.items()}
        assert after == before

    # --- the sceptic ----------------------------------------------------------------------------

    def audit(self, *homes: Path) -> Verdicts:
        """Verify copies as a sceptic does who knows the federation's id and nothing else."""
        self.coordinator.messages += len(homes)
        copies = [copy for home in homes for copy in open_copies(str(home))]
        try:
            return verify_all(copies, trust=self.federation.id)[0]
        finally:
            close_copies(copies)

    def close(self) -> None:
        """Close every hospital's files."""
        for hospital in self.hospitals.values():
            hospital.close()


def refuted(verdicts: Verdicts) -> list[tuple[int, str | None]]:
    """Step and place of everything that a verification refutes."""
    found: list[Check] = [check for report in verdicts.reports for check in report.refuted]
    found += [check for check in verdicts.agreement if check.verdict == "refuted"]
    return [(check.step, check.place) for check in found]
