"""Hospitals that are equal but for one patient, in one federation: what the outside saw of each.

``python -m tests.twins.play`` plays every unpleasant patient in both halves and compares; the suite plays some.
Every hospital is a whole node: its register, its loop, its training process, its HTTP client, its local API.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import httpx
import structlog
from nacl.pwhash import argon2id

from ledger.exchange.home import Membership
from ledger.experiment.privacy_spec import Baseline, Privacy
from ledger.experiment.schema import CategoryColumn, NumberColumn, PatientColumn, Schema
from ledger.experiment.spec import ExperimentSpec
from ledger.formats import key_file
from node.data.hospital_key import ensure_hospital_key
from node.data.registration import prepare, register
from node.data.saying import say_and_follow
from node.data.snapshot import unit_split
from node.register.private import PRIVATE, PrivateRegister
from node.service.local_api import LocalServer
from node.training.process.frames import Job
from node.training.process.trainer import Task
from node.training.process.worker import OnIntent, Worker
from privacy.selfaudit.checks import Report
from tests.node.town import PASSPHRASE, Running, Town, small_spec
from tests.twins.outside import LogWatch, Outside, Watch

ORDINARY = 180
PATIENTS: Mapping[str, tuple[str, ...]] = {
    "ordinary": ("55,240,1",),
    "every value missing": (",,",),
    "no target": ("40,200,",),
    "not numbers": ("nan,nan,1", "NA,inf,0"),
    "out of every range": ("99999,-99999,1", "1e300,-1e300,0"),
    "a code nobody declared": ("50,200,7",),
    "thousands of rows": ("50,200,1",) * 3000,
    "of both classes": ("50,200,1", "50,200,0"),
}
"""Rows of the patient that one twin has and the other has not: age, cholesterol, whether sick."""
PAGES = ("/healthz", "/readyz", "/status", "/metrics")


@dataclass(frozen=True)
class Twin:
    """One hospital.

    Attributes:
        name: of the same length as the others', and of letters that no key or hash is written in.
        extra: rows of the patient who makes the difference; none for the plain one.
        half: where that patient falls.
        sick: whether anybody else is of the positive class.
        again: whether the rows are one more share of an ordinary patient's, under the same id.
    """

    name: str
    extra: tuple[str, ...] = ()
    half: str = "train"
    sick: bool = True
    again: bool = False


class _Shared:
    """One warm training process for all the hospitals, with test noise."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def start(self) -> Report | None:
        return (
            None  # its self-test is compared nowhere: it says random numbers about synthetic rows
        )

    def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
        return self._worker.run_round(job, on_intent, on_charges=task.on_charges, timeout_s=120)

    def kill(self) -> None:
        """It goes on for the others."""

    def close(self) -> None:
        """It goes on for the others."""


def play(directory: Path, twins: Sequence[Twin], *, individual: bool = False) -> dict[str, Outside]:
    """Run two experiments over all these hospitals; what the outside saw of each, by name.

    With ``individual`` the hospitals account for their patients one by one, and the experiments run for
    so long that patients retire.
    """
    outsides = {twin.name: Outside(twin.name) for twin in twins}
    logs = LogWatch()
    structlog.configure(processors=[logs])
    try:
        with Worker(test_noise=7) as worker, Town(directory, [t.name for t in twins]) as town:
            trainer = _Shared(worker)
            datasets = [
                offer(town, twin, outsides[twin.name], individual=individual) for twin in twins
            ]
            for twin in twins:
                _start(town, twin.name, trainer, outsides[twin.name], logs)
            for spec in _one_by_one(datasets) if individual else _alike(datasets):
                experiment = town.propose(spec)
                for dataset in datasets:
                    town.approve(experiment, dataset)
                town.until(lambda e=experiment: _settled(town, e), seconds=180.0)  # type: ignore[misc]
            for name, node in town.nodes.items():
                town.until(lambda n=node: not n.service.picture.working_on)  # type: ignore[misc]
                local = LocalServer(node.service)
                url = local.start()
                for path in PAGES:
                    outsides[name].page(path, httpx.get(url + path).text)
                local.close()
    finally:
        structlog.reset_defaults()
    return outsides


def _alike(datasets: list[str]) -> tuple[ExperimentSpec, ...]:
    return (
        small_spec(datasets, privacy=Privacy(epsilon=Decimal(1), baseline=Baseline(rounds=3))),
        small_spec(
            datasets,
            name="second",
            strategy={"name": "fedavg", "local_steps": 2},
            sampling="0.5",
        ),
    )


def _one_by_one(datasets: list[str]) -> tuple[ExperimentSpec, ...]:
    return tuple(
        small_spec(
            datasets, name=name, privacy=Privacy(epsilon=Decimal(3), full_rounds=1), rounds=rounds
        )
        for name, rounds in (("first", 4), ("second", 3))
    )


def differences(one: Outside, other: Outside) -> list[str]:
    """Lines in which two hospitals differ for the outside; none where they are neighbours."""
    first, second = (json.dumps(o.seen, indent=1, sort_keys=True) for o in (one, other))
    lines = difflib.unified_diff(first.splitlines(), second.splitlines(), one.name, other.name, n=3)
    return list(lines)


def everybody() -> list[Twin]:
    """Every unpleasant patient in both halves, beside a plain hospital, and the only one of a class."""
    twins = [Twin("clinic-00")]
    for extra in PATIENTS.values():
        for half in ("train", "test"):
            twins.append(Twin(f"clinic-{len(twins):02}", extra, half))
    twins.append(Twin(f"clinic-{len(twins):02}", ("90,600,1",) * 40, again=True))
    twins.append(Twin(f"clinic-{len(twins):02}", sick=False))
    twins.append(Twin(f"clinic-{len(twins):02}", ("70,300,1",), "train", sick=False))
    twins.append(Twin(f"clinic-{len(twins):02}", ("70,300,1",), "test", sick=False))
    return twins


def schema(dataset: str) -> Schema:
    """Everything that may be missing may be missing, in each of the ways."""
    return Schema(
        consilium=1,
        dataset=dataset,
        declared_rows=200,
        missing_marks=("nan", "NA", "inf"),
        columns=(
            PatientColumn(type="patient_id", name="id"),
            NumberColumn(
                type="number",
                name="age",
                low=Decimal(20),
                high=Decimal(90),
                outside="clip",
                missing="impute",
            ),
            NumberColumn(
                type="number",
                name="chol",
                low=Decimal(100),
                high=Decimal(600),
                outside="missing",
                missing="indicator",
            ),
            CategoryColumn(
                type="category", name="sick", values=("0", "1"), outside="missing", missing="impute"
            ),
        ),
    )


def offer(
    town: Town,
    twin: Twin,
    outside: Outside,
    declared: Schema | None = None,
    *,
    individual: bool = False,
) -> str:
    """Register a hospital's table, watched; returns the dataset's name."""
    member = town.home(twin.name).open(PASSPHRASE)
    _watch(member, outside)
    private = PrivateRegister.open(member.home.path / PRIVATE)
    key = ensure_hospital_key(
        member.home.path, member.keyring.sealing, begun=bool(private.view.cells)
    )
    declared = declared or schema(f"{twin.name}-heart")
    path = town.directory / f"{twin.name}.csv"
    path.write_text(_table(twin, key, declared))
    try:
        prepared = prepare(
            path,
            declared,
            organisation=twin.name,
            hospital_key=key,
            cells=private.view.cells,
            epsilon=5.0,
            individual=individual,
        )
        register(
            prepared,
            private,
            state=lambda: member.replica.state,
            publish=member.publish,
            say=lambda op: say_and_follow(member, op),
        )
    finally:
        private.close()
        member.close()
    return declared.dataset


def _table(twin: Twin, key: bytes, declared: Schema) -> str:
    lines = ["id,age,chol,sick"]
    for row in range(ORDINARY):
        age = 20 + (row * 37) % 70
        lines.append(f"p{row},{age},{100 + (row * 101) % 500},{int(twin.sick and age > 55)}")
    wanted = twin.half == "test"
    who = (f"extra{number}" for number in range(10_000))
    patient = next(p for p in who if unit_split(key, [p], declared.test_percent)[0] == wanted)
    lines += [f"{'p7' if twin.again else patient},{row}" for row in twin.extra]
    return "\n".join(lines) + "\n"


def _start(town: Town, name: str, trainer: _Shared, outside: Outside, logs: LogWatch) -> None:
    def watch(running: Running) -> None:
        _watch(running.membership, outside)
        service = running.service
        for part in (service, service._training, service._follower):
            logs.parts[id(part)] = (type(part).__name__, outside)

    town.start_node(name, trainer, before=watch)


def _watch(member: Membership, outside: Outside) -> None:
    http = member.client._connection.http
    http._transport = Watch(http._transport, outside)


def _settled(town: Town, experiment: str) -> bool:
    found = town.experiment(experiment)
    return found.status == "released" and all(
        held.settled_at is not None for held in found.reservations.values()
    )


def main() -> int:
    """Play everybody; 0 if no twin differs from its neighbour."""
    arguments = argparse.ArgumentParser(prog="tests.twins.play", description=__doc__)
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    weakest()
    twins = everybody()
    with tempfile.TemporaryDirectory() as folder:
        seen = play(Path(folder), twins)
    plain = seen[twins[0].name]
    found = {twin.name: differences(plain, seen[twin.name]) for twin in twins[1:]}
    summary = {
        "hospitals": len(twins),
        "requests_each": len(plain.requests),
        "log_lines_each": sum(len(lines) for lines in plain.logs.values()),
        "charged_vectors_each": len(plain.vectors),
        "differing": {name: lines for name, lines in found.items() if lines},
    }
    sys.stdout.write(json.dumps(summary, indent=None if chosen.json else 1) + "\n")
    return 1 if summary["differing"] else 0


def weakest() -> None:
    """Let keys open at once, and noise repeat: a test federation."""
    key_file._STRENGTHS["interactive"] = (argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN)
    os.environ["CONSILIUM_TEST_FEDERATION"] = "1"


if __name__ == "__main__":
    sys.exit(main())
