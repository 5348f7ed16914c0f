"""An experiment in a town: begun, played to its end, and what was said of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ledger.entries.entry import parse_entry
from ledger.entries.operations.vocabulary import Operation
from node.errors import NodeError
from node.training.process.frames import Job
from node.training.process.trainer import NoopTrainer, Task
from node.training.process.worker import OnIntent
from tests.node.town import Town, small_spec


def start(town: Town, trainers: dict[str, NoopTrainer] | None = None, **spec: object) -> str:
    """Every hospital offers data and runs; an experiment is proposed and approved."""
    datasets = [town.offer(name) for name in town.hospitals]
    for name in town.hospitals:
        town.start_node(name, (trainers or {}).get(name))
    experiment = town.propose(small_spec(datasets, **spec))
    for dataset in datasets:
        town.approve(experiment, dataset)
    return experiment


def said(town: Town, kind: type[Operation]) -> list[tuple[str, Operation]]:  # type: ignore[valid-type]
    """Author and operation of every entry of a kind in the log."""
    ada = town.people["ada"]
    ada.follow()
    entries = [parse_entry(row.body, row.signature) for row in ada.replica.store.rows()]
    return [(e.body.author, e.body.op) for e in entries if isinstance(e.body.op, kind)]


def finish(town: Town, experiment: str) -> None:
    """Wait until the model is released and every account is settled, here and in the log."""
    town.until(lambda: town.experiment(experiment).status == "released")

    def settled() -> bool:
        held = town.experiment(experiment).reservations
        return all(r.settled_at is not None for r in held.values()) and all(
            node.register.view.charges.get((experiment, f"{name}-heart"), "settled") == "settled"
            for name, node in town.nodes.items()
        )

    town.until(settled)


@dataclass
class Misbehaving(NoopTrainer):
    """Does something before or instead of making an update, once for each item."""

    before: list[float] = field(default_factory=list)
    fail: list[NodeError] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
        self.jobs.append(job)
        update = super().run(task, job, on_intent)
        if self.before:
            time.sleep(self.before.pop(0))
        if self.fail:
            raise self.fail.pop(0)
        return update
