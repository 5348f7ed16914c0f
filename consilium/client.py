"""The researcher's client, for scripts and notebooks; the command line uses it too.

::

    from consilium import Client, Experiment

    with Client("~/.consilium", passphrase_file="secret.txt") as client:
        experiment = client.propose(Experiment.from_yaml("experiment.yaml"))
        for progress in client.watch(experiment):
            print(progress)
        client.download(experiment, "model.safetensors")
        print(client.metrics(experiment))

What it reports comes from this member's own verified copy of the log, never from a coordinator's
word. One client, one process, one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from consilium.actions.files import write_file
from consilium.actions.homes import find_home
from consilium.actions.reading import LedgerView, member_view
from consilium.actions.speaking import say
from consilium.errors import InputError, RunFailed
from consilium.experiment import Experiment
from consilium.naming import the_experiment
from consilium.passphrase import read_passphrase
from consilium.rehearsal import pooled_noise
from consilium.summaries.datasets import DatasetSummary, dataset_summary
from consilium.summaries.experiments import ExperimentSummary, experiment_summary
from ledger.entries.operations.experiments import ExperimentStopped
from ledger.entries.operations.plans import Purpose
from ledger.entries.operations.rounds import RoundAggregated, RoundKind, UpdateSubmitted
from ledger.entries.operations.vocabulary import Operation
from ledger.exchange.home import Membership
from ledger.experiment.noise_shares import site_in_round
from ledger.experiment.plan.shape import metric_layout
from ledger.experiment.schema import Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import decode_update
from ledger.formats.documents import parse_document
from ledger.rules.experiment_state import Experiment as ExperimentState
from ledger.rules.experiments import site_of
from ledger.rules.log import Sequenced
from ledger.rules.rounds import round_kind, waiting_for
from ledger.rules.state import State
from privacy.histogram import Measure, measures

_POLL_S = 20.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an experiment stands.

    Attributes:
        status: proposed, running, completed, released or stopped.
        reason: why it stopped, or None.
        round, rounds: the round that is under way or due, of all, measuring ones included.
        training_rounds: those that train, which are the spec's rounds.
        kind: of that round, or None when none is open.
        attempt: of that round.
        waiting_for: datasets whose answer is missing.
        approved: datasets whose steward said yes.
    """

    status: str
    reason: str | None
    round: int
    rounds: int
    training_rounds: int
    kind: RoundKind | None
    attempt: int
    waiting_for: tuple[str, ...]
    approved: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Nothing more will happen."""
        return self.status in ("released", "stopped")


class Client:
    """A member's connection to its federation."""

    def __init__(
        self,
        home: str | Path,
        *,
        passphrase: bytes | str | None = None,
        passphrase_file: str | Path | None = None,
    ) -> None:
        """Unlock a home and catch up with the coordinator.

        Args:
            home: as ``--home``.
            passphrase: of its keys; otherwise from the file, a systemd credential or a prompt.
            passphrase_file: a file that holds it.

        Raises:
            InputError, LedgerError: the home cannot be opened; CoordinatorUnreachable: nobody
                answers.
        """
        found = find_home(Path(home).expanduser())
        if passphrase is None:
            file = None if passphrase_file is None else Path(passphrase_file).expanduser()
            passphrase = read_passphrase(file, of=str(found.path))
        secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
        self._membership = found.open(secret)
        try:
            self._membership.follow()
        except BaseException:
            self._membership.close()
            raise

    @classmethod
    def of(cls, membership: Membership) -> Self:
        """A client of a home that is open already."""
        self = cls.__new__(cls)
        self._membership = membership
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the home."""
        self._membership.close()

    @property
    def state(self) -> State:
        """The federation's state in this member's verified copy."""
        return self._membership.replica.state

    @property
    def view(self) -> LedgerView:
        """The verified copy, to read."""
        return member_view(self._membership)

    def follow(self, wait_s: float = 0.0) -> list[Sequenced]:
        """Catch up; waits up to ``wait_s`` for the first news."""
        return self._membership.follow(wait_s)

    def datasets(self) -> list[DatasetSummary]:
        """The registered datasets."""
        state = self.state
        return [dataset_summary(state, n, d) for n, d in sorted(state.datasets.items())]

    def experiments(self) -> list[ExperimentSummary]:
        """All experiments, oldest first."""
        everyone = sorted(self.state.experiments.values(), key=lambda e: e.index)
        return [experiment_summary(experiment) for experiment in everyone]

    def schema(self, dataset: str) -> Schema:
        """A dataset's public schema."""
        known = self.state.datasets.get(dataset)
        if known is None:
            raise InputError(f"dataset {dataset!r} is not registered")
        return parse_document(self._membership.fetch(known.terms.schema_), Schema)

    def propose(self, experiment: Experiment) -> str:
        """Compile an experiment for the registered datasets and ask their hospitals for it.

        Returns:
            Its id.

        Raises:
            InputError: its last day is over, or one by that name of yours has not ended.
            PlanRefused: it does not fit the datasets; nothing was proposed.
            RefusedByFederation: the rules do not allow it.
        """
        experiment.refuse_past()
        self._membership.follow()
        self._refuse_second(experiment.spec.name)
        proposal = experiment.propose(experiment.sites_in(self.view))
        self._membership.publish(proposal.spec)
        self._membership.publish(proposal.model)
        return self._say(proposal.operation).entry.hash

    def stop(self, experiment: str) -> None:
        """End one's own experiment before its plan does."""
        found = the_experiment(self.state, experiment)
        self._say(
            ExperimentStopped(type="experiment.stopped", experiment=found.id, reason="researcher")
        )

    def progress(self, experiment: str) -> Progress:
        """Where an experiment stands in this copy."""
        return progress_of(the_experiment(self.state, experiment))

    def watch(self, experiment: str, *, poll_s: float = _POLL_S) -> Iterator[Progress]:
        """Yield an experiment's progress, now and at every change, until it has ended.

        Ends after ``released`` or ``stopped``; how long that takes is up to the hospitals.
        """
        found = the_experiment(self.state, experiment).id
        last: Progress | None = None
        while last is None or not last.ended:
            now = self.progress(found)
            if now != last:
                yield now
                last = now
            if not now.ended:
                self._membership.follow(wait_s=poll_s)

    def spec(self, experiment: str) -> ExperimentSpec:
        """The spec behind an experiment's id."""
        found = the_experiment(self.state, experiment)
        return parse_document(self._membership.fetch(found.spec), ExperimentSpec)

    def model(self, experiment: str) -> bytes:
        """The released model (safetensors). The coordinator logs who took it.

        Raises:
            RunFailed: it is not released (yet).
        """
        found = the_experiment(self.state, experiment)
        if found.status != "released":
            why = f" ({found.reason})" if found.reason else ""
            raise RunFailed(
                f"experiment {found.name} is {found.status}{why}; "
                "its model can be taken once it is released"
            )
        # Not from the blobs that are kept here: taking the model is to be in the log.
        return self._membership.client.get_blob(found.model)

    def download(self, experiment: str, out: str | Path) -> Path:
        """Write the released model to a new file."""
        path = Path(out).expanduser()
        if path.exists():
            raise InputError(f"{path} exists already; name another file with --out")
        model = self.model(experiment)
        write_file(path, model)
        return path

    def metrics(self, experiment: str) -> dict[str, dict[str, Measure]]:
        """Measures pooled over the hospitals; see `pooled_metrics`."""
        return pooled_metrics(self.view, the_experiment(self.state, experiment).id)

    def _refuse_second(self, name: str) -> None:
        own = self._membership.config.handle
        for known in self.state.experiments.values():
            if known.name == name and known.researcher == own and not known.ended:
                raise InputError(
                    f"you have an experiment {name!r} already that has not ended ({known.id[:8]}); "
                    f"give this one another name, or stop that one: consilium experiment stop "
                    f"{known.id[:8]}"
                )

    def _say(self, operation: Operation) -> Sequenced:
        return say(self._membership, operation)


def progress_of(experiment: ExperimentState) -> Progress:
    """Where an experiment stands."""
    plan, under_way = experiment.plan, experiment.round
    rounds = plan.rounds + plan.evaluate + plan.baseline
    return Progress(
        status=experiment.status,
        reason=experiment.reason,
        round=min(experiment.next_round, rounds),
        rounds=rounds,
        training_rounds=plan.rounds,
        kind=None if under_way is None else under_way.kind,
        attempt=experiment.next_attempt if under_way is None else under_way.attempt,
        waiting_for=() if under_way is None else tuple(sorted(waiting_for(experiment))),
        approved=tuple(sorted(experiment.approvals)),
    )


def pooled_metrics(view: LedgerView, experiment: str) -> dict[str, dict[str, Measure]]:
    """Measures of an experiment, from the sums of the hospitals' noisy histograms.

    Returns:
        ``federated`` for the released model and, where the spec asked for it, ``local`` for each
        hospital's own model, pooled; empty when nothing was measured. Costs no privacy: the
        histograms are in the log already.
    """
    found = the_experiment(view.state, experiment)
    spec = parse_document(view.blob(found.spec), ExperimentSpec)
    layout = metric_layout(spec)
    if layout is None:
        return {}
    authors: dict[str, str] = {}
    measured: dict[str, dict[str, Measure]] = {}
    for item in view.entries():
        op = item.entry.body.op
        if not item.outcome.applied:
            continue
        if isinstance(op, UpdateSubmitted) and op.experiment == found.id:
            authors[item.entry.hash] = op.dataset
        if not isinstance(op, RoundAggregated) or op.experiment != found.id:
            continue
        kind = round_kind(found.plan, op.round)
        if kind == "train":
            continue
        name, purpose = _MEASURED[kind]
        vector = decode_update(view.blob(op.aggregate), layout.size)
        sites = [site_of(found.plan, authors[update]) for update in op.updates]
        summed = [site_in_round(found.plan, site) for site in sites if site is not None]
        noise = pooled_noise(summed, purpose)
        measured[name] = measures(layout, vector, noise, len(op.updates))
    return measured


_MEASURED: Mapping[RoundKind, tuple[str, Purpose]] = {
    "evaluate": ("federated", "evaluate"),
    "baseline": ("local", "baseline_evaluate"),
}
