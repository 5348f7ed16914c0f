"""A real federation on loopback: a coordinator, members' homes on disk, node services in threads.

Everything is what a hospital would run, but for processes: the coordinator and each node service have
a thread of their own. Training is `noop` (noise alone) unless a test asks for the worker.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Self

from coordinator.found import found_federation
from coordinator.service import Coordinator, Server
from coordinator.settings import CoordinatorSettings
from ledger.entries.invitation import InvitationFile, join_operation
from ledger.entries.operations.experiments import ExperimentApproved, ExperimentProposed
from ledger.entries.operations.federation import Policy, Seat
from ledger.entries.operations.vocabulary import Operation
from ledger.exchange.home import MemberHome, Membership
from ledger.experiment.adaptive_clip import round_shapes
from ledger.experiment.average import initial_model
from ledger.experiment.plan.compilation import compile_plan
from ledger.experiment.plan.shape import network_of
from ledger.experiment.plan.sites import sites_from
from ledger.experiment.schema import CategoryColumn, NumberColumn, Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import pack_model
from ledger.formats.documents import encode_document
from ledger.formats.keys import KeyRing
from ledger.rules.experiment_state import Experiment
from ledger.rules.state import State
from node.data.hospital_key import ensure_hospital_key
from node.data.registration import prepare, register
from node.data.renewal import Asked
from node.data.saying import say_and_follow
from node.register.private import PRIVATE, PrivateRegister
from node.service.loop import NodeService
from node.service.settings import NodeSettings
from node.training.process.trainer import NoopTrainer, Trainer
from tests.federation import Federation, node_of, steward_of
from tests.patience import PATIENCE_S

PASSPHRASE = b"correct horse"
POLICY = Policy(
    endorsements=1,
    max_lag=100_000,
    max_delay_ms=3_600_000,
    max_age_ms=3_600_000,
    skew_ms=30_000,
)


class Running:
    """A node service in a thread."""

    def __init__(
        self,
        home: MemberHome,
        settings: NodeSettings,
        trainer: Trainer,
        before: Callable[[Self], None] = lambda running: None,
    ) -> None:
        self.membership = home.open(PASSPHRASE)
        self.register = PrivateRegister.open(home.path / PRIVATE)
        self.service = NodeService(self.membership, self.register, settings, trainer)
        self._thread = threading.Thread(target=self.service.run, daemon=True)
        before(self)
        self._thread.start()

    def stop(self) -> None:
        """Stop and close everything, as the end of a process does."""
        self.service.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self.register.close()
        self.membership.close()


class Town:
    """See the module's first lines. Use as a context manager."""

    def __init__(self, directory: Path, hospitals: Sequence[str] = ("basel", "bern")) -> None:
        self.directory = directory
        self.hospitals = tuple(hospitals)
        self.nodes: dict[str, Running] = {}
        self.people: dict[str, Membership] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        seats = {
            name: (
                Seat(handle=node_of(name), role="node"),
                Seat(handle=steward_of(name), role="steward"),
            )
            for name in hospitals
        }
        seats["institute"] = (Seat(handle="ada", role="researcher"),)  # type: ignore[assignment]
        self.founded = found_federation(
            directory / "hub",
            PASSPHRASE,
            name="town",
            organisation="operator",
            policy=POLICY,
            seats=seats,
            url=f"http://127.0.0.1:{self.port}",
            strength="interactive",
        )
        self.start_coordinator(self._listener)

    def __enter__(self) -> Self:
        for invitation in self.founded.invitations:
            for seat in invitation.seats:
                self.join(invitation, seat)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes.values():
            node.stop()
        for person in self.people.values():
            person.close()
        self.stop_coordinator()

    # --- the coordinator ------------------------------------------------------------------------

    def start_coordinator(self, listener: socket.socket | None = None) -> None:
        """Start it, or start it again at the same place."""
        listener = listener or socket.create_server(("127.0.0.1", self.port))
        settings = CoordinatorSettings(
            federation=self.founded.federation, home=self.directory / "hub"
        )
        self.coordinator = Coordinator(settings, self.founded.keyring)
        server = self._server = Server(self.coordinator)
        self.coordinator.start()

        def serve() -> None:
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(server.serve(sockets=[listener]))

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        while not server.started:
            time.sleep(0.002)

    def stop_coordinator(self) -> None:
        """Stop it; nodes go on without."""
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        self.coordinator.close()

    @property
    def state(self) -> State:
        """The coordinator's own fold."""
        return self.coordinator.sequencer.view.state

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Wait for something that somebody does by itself."""
        ends = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > ends:
                pictures = {name: node.service.picture for name, node in self.nodes.items()}
                brief = {n: (p.problem, p.waiting, p.working_on) for n, p in pictures.items()}
                raise AssertionError(f"it did not happen; {brief}")
            time.sleep(0.005)

    # --- people ---------------------------------------------------------------------------------

    def join(self, invitation: InvitationFile, seat: Seat) -> None:
        """Make a home and take the seat; people stay open, nodes are started later."""
        ring = KeyRing.generate(seat.handle, seat.role)
        path = self.directory / seat.handle
        home = MemberHome.create(path, invitation, ring, PASSPHRASE, strength="interactive")
        member = home.open(PASSPHRASE)
        assert say_and_follow(member, join_operation(invitation, ring)) is None
        if seat.role == "node":
            member.close()
        else:
            self.people[seat.handle] = member

    def say(self, handle: str, op: Operation) -> str:
        """Let a person say something; returns the entry's hash."""
        member = self.people[handle]
        member.follow()
        assert say_and_follow(member, op) is None
        entry = member.author.pending
        assert entry is None
        return member.replica.state.keys[member.author.key].head

    def home(self, hospital: str) -> MemberHome:
        """The home of a hospital's node."""
        return MemberHome(self.directory / node_of(hospital))

    def start_node(
        self,
        hospital: str,
        trainer: Trainer | None = None,
        before: Callable[[Running], None] = lambda running: None,
        **settings: object,
    ) -> Running:
        """Run a hospital's node; ``before`` sees it before it does anything."""
        given = NodeSettings(**settings)  # type: ignore[arg-type]
        running = Running(self.home(hospital), given, trainer or NoopTrainer(), before)
        self.nodes[hospital] = running
        return running

    def stop_node(self, hospital: str) -> None:
        """Stop a hospital's node."""
        self.nodes.pop(hospital).stop()

    def offer(
        self,
        hospital: str,
        path: Path | None = None,
        schema: Schema | None = None,
        epsilon: float = 5.0,
        *,
        individual: bool = False,
        renewing: Asked | None = None,
    ) -> str:
        """Register a dataset before the node runs, as the command line does."""
        schema = schema or small_schema(f"{hospital}-heart")
        path = path or small_table(self.directory / f"{hospital}.csv")
        member = self.home(hospital).open(PASSPHRASE)
        private = PrivateRegister.open(member.home.path / PRIVATE)
        prepared = prepare(
            path,
            schema,
            organisation=hospital,
            hospital_key=ensure_hospital_key(
                member.home.path, member.keyring.sealing, begun=bool(private.view.cells)
            ),
            cells=private.view.cells,
            epsilon=epsilon,
            individual=individual,
            renewing=renewing,
        )
        register(
            prepared,
            private,
            state=lambda: member.replica.state,
            publish=member.publish,
            say=lambda op: say_and_follow(member, op),
        )
        private.close()
        member.close()
        return schema.dataset

    def propose(self, spec: ExperimentSpec) -> str:
        """Propose an experiment as the researcher; returns its id."""
        ada = self.people["ada"]
        ada.follow()
        names = spec.federation.datasets
        state = ada.replica.state
        schemas = {
            name: Schema.model_validate_json(ada.fetch(state.datasets[name].terms.schema_))
            for name in names
        }
        sites = sites_from(state, schemas, names)
        tree = network_of(spec, sites[0].schema)
        first = ada.publish(pack_model(round_shapes(spec, tree), initial_model(spec, tree)))
        return self.say(
            "ada",
            ExperimentProposed(
                type="experiment.proposed",
                name=spec.name,
                spec=ada.publish(encode_document(spec)),
                plan=compile_plan(spec, sites, first),
            ),
        )

    def approve(self, experiment: str, dataset: str, *, epsilon_max: float = 10.0) -> None:
        """The hospital's steward says yes."""
        self.say(
            steward_of(dataset.removesuffix("-heart")),
            ExperimentApproved(
                type="experiment.approved",
                experiment=experiment,
                dataset=dataset,
                epsilon_max_micro=round(epsilon_max * 10**6),
                until_ms=2**50,
            ),
        )

    def experiment(self, experiment: str) -> Experiment:
        """An experiment as the coordinator's fold has it."""
        return self.state.experiments[experiment]


def small_spec(datasets: Sequence[str], **changes: object) -> ExperimentSpec:
    """A small logistic regression."""
    return Federation().spec(datasets, **changes)  # type: ignore[arg-type]


def small_schema(dataset: str) -> Schema:
    """Two measured columns and a target."""
    return Schema(
        consilium=1,
        dataset=dataset,
        declared_rows=200,
        columns=(
            NumberColumn(type="number", name="age", low=Decimal(20), high=Decimal(90)),
            NumberColumn(type="number", name="chol", low=Decimal(100), high=Decimal(600)),
            CategoryColumn(type="category", name="sick", values=("0", "1")),
        ),
    )


def small_table(path: Path, rows: int = 180) -> Path:
    """Rows in which age tells who is sick."""
    lines = ["age,chol,sick"]
    for row in range(rows):
        age = 20 + (row * 37) % 70
        lines.append(f"{age},{100 + (row * 101) % 500},{int(age > 55)}")
    path.write_text("\n".join(lines) + "\n")
    return path
