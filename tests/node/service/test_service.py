"""Whole nodes and a coordinator in memory: an experiment runs, and what a node will not do stands in the log."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from coordinator.sequencing.promises import Place, Promises
from ledger.copies.evidence import frame
from ledger.copies.store import LogStore
from ledger.entries.entry import NOTHING_SEEN, Body, sign_entry
from ledger.entries.operations.budgets import BudgetRefused
from ledger.entries.operations.experiments import ExperimentProposed, ExperimentStopped
from ledger.entries.operations.log import (
    ForkReported,
    NodeResumed,
    ReceiptBroken,
    TimeNoted,
)
from ledger.entries.operations.members import KeyConflicted
from ledger.entries.operations.rounds import RoundOpened
from ledger.exchange.messages import Followed, Receipt
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.documents import encode_document
from ledger.rules.log import Sequenced
from node.errors import DatasetChanged, JobRefused, NodeError
from node.following.follower import News
from node.service.local_api import _illness
from node.training.process.frames import Job
from node.training.process.trainer import NoopTrainer, Task
from node.training.process.worker import OnIntent
from tests.federation import node_of
from tests.node.service.played import finish, said, start
from tests.node.town import Town, small_spec
from tests.patience import PATIENCE_S


def test_an_experiment_runs_to_its_released_model(town: Town) -> None:
    experiment = start(town)
    finish(town, experiment)
    held = town.experiment(experiment).reservations["basel-heart"]
    assert dict(held.used) == {"train": 2, "evaluate": 1}
    here = town.nodes["basel"].register.view.cells["basel-all"].spend
    assert here == town.state.cells["basel-all"].spend
    assert here.g > 0


def open_first_round(town: Town, experiment: str, datasets: list[str]) -> None:
    """The coordinator opens it, whoever approved."""
    asked = RoundOpened(
        type="round.opened",
        experiment=experiment,
        round=1,
        attempt=1,
        kind="train",
        cohort=tuple(sorted(datasets)),
        model=town.experiment(experiment).plan.initial_model,
        deadline_ms=2**50,
    )
    town.coordinator.sequencer.say(asked).result()


def test_a_round_that_the_steward_did_not_approve_is_refused_in_the_log(town: Town) -> None:
    datasets = [town.offer(name) for name in town.hospitals]
    for name in town.hospitals:
        town.start_node(name)
    experiment = town.propose(small_spec(datasets, quorum=1))
    open_first_round(town, experiment, datasets)
    town.until(lambda: len(town.experiment(experiment).budget_refusals) == 2)
    reasons = {op.reason for _, op in said(town, BudgetRefused)}
    assert reasons == {"not_approved"}
    assert not town.experiment(experiment).reservations


def test_an_experiment_that_the_budget_cannot_pay_is_refused_in_the_log(town: Town) -> None:
    finish(town, start(town, epsilon="4"))
    second = town.propose(small_spec(["basel-heart", "bern-heart"], name="second", epsilon="4"))
    for dataset in ("basel-heart", "bern-heart"):
        town.approve(second, dataset)
    town.until(lambda: town.experiment(second).status == "stopped")
    assert {op.reason for _, op in said(town, BudgetRefused)} == {"budget_exhausted"}
    assert town.experiment(second).reason == "quorum_lost"


def test_a_plan_that_is_not_what_the_spec_implies_is_refused_in_the_log(town: Town) -> None:
    datasets = [town.offer(name) for name in town.hospitals]
    for name in town.hospitals:
        town.start_node(name)
    good = town.propose(small_spec(datasets))
    ada, plan = town.people["ada"], town.experiment(good).plan
    looser = tuple(structs.replace(s, update_bound=2 * s.update_bound) for s in plan.sites)
    town.coordinator.conductor.close()  # an honest coordinator would stop it by itself
    experiment = town.say(
        "ada",
        ExperimentProposed(
            type="experiment.proposed",
            name="looser",
            spec=ada.publish(encode_document(small_spec(datasets))),
            plan=structs.replace(plan, sites=looser),
        ),
    )
    for dataset in datasets:
        town.approve(experiment, dataset)
    open_first_round(town, experiment, datasets)
    town.until(lambda: len(town.experiment(experiment).budget_refusals) == 2)
    assert {op.reason for _, op in said(town, BudgetRefused)} == {"plan_mismatch"}


def test_a_failure_that_no_rule_foresees_is_seen_and_the_others_go_on(town: Town) -> None:
    class Full(NoopTrainer):
        def start(self) -> None:
            raise OSError(24, "Too many open files")

        def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
            raise OSError(28, "No space left on device")

    experiment = start(town, {"basel": Full()}, quorum=1)
    finish(town, experiment)
    refused = town.experiment(experiment).budget_refusals
    assert {name: r.reason for name, r in refused.items()} == {"basel-heart": "unavailable"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DatasetChanged("/x", expected="0" * 64, found=None), "dataset_changed"),
        (JobRefused("widths do not chain"), "plan_mismatch"),
    ],
)
def test_a_round_that_cannot_be_run_is_refused_and_the_others_go_on(
    town: Town, error: NodeError, reason: str
) -> None:
    class Refusing(NoopTrainer):
        def run(self, task: Task, job: Job, on_intent: OnIntent) -> bytes:
            raise error

    experiment = start(town, {"basel": Refusing()}, quorum=1)
    finish(town, experiment)
    refused = town.experiment(experiment).budget_refusals
    assert {name: r.reason for name, r in refused.items()} == {"basel-heart": reason}
    held = town.experiment(experiment).reservations["basel-heart"]
    assert held.settled_at is not None
    assert dict(held.used) == {}
    assert town.state.cells["basel-all"].spend.g == 0


def test_a_forked_log_ends_all_work_and_is_reported(town: Town) -> None:
    node = town.start_node("basel")
    town.until(lambda: town.state.members[node_of("basel")].ready)
    town.until(lambda: node.membership.replica.size == town.state.size)
    replica, log_key = node.membership.replica, town.founded.keyring.log
    assert log_key is not None
    forged = sign_checkpoint(log_key, Checkpoint(replica.origin, replica.size, bytes(32)))
    node.service._inbox.put(News(replica.size, Followed((), forged, ())))
    town.until(lambda: node.service.picture.fork is not None)
    town.until(lambda: len(said(town, ForkReported)) == 1)
    (conflict,) = replica.store.conflicts()
    assert forged in conflict.evidence
    seen = replica.size  # a cosignature of what came before the fork may still be under way
    town.offer("bern")
    town.stop_node("basel")
    again = town.start_node("basel")
    town.until(lambda: len(said(town, ForkReported)) == 2)
    assert again.service.picture.fork is not None, "a restart does not heal a log"
    assert town.state.size > seen
    assert town.coordinator.sequencer.view.final_size <= seen, "it cosigns nothing more"


def test_a_broken_receipt_turns_the_node_red_and_is_put_on_record_once(town: Town) -> None:
    node = town.start_node("basel")
    # Ready in its own copy: before that its first receipt may not even have come back.
    town.until(lambda: node.service.picture.state.members[node_of("basel")].ready)
    town.until(lambda: node.membership.receipts.waiting == ())
    sequencer = town.coordinator.sequencer
    true = sequencer._promises
    sequencer._promises = Lying(true)
    town.stop_node("basel")
    node = town.start_node("basel")  # says that it restarted, and is promised a place far ahead
    town.until(lambda: len(node.membership.receipts.waiting) == 1)
    sequencer._promises = true
    assert node.service.picture.broken_promise is None
    time.sleep(0.002)
    sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
    town.until(lambda: node.service.picture.broken_promise is not None)
    town.until(lambda: len(said(town, ReceiptBroken)) == 1)
    town.until(lambda: node.membership.receipts.unpublished == ())
    assert _illness(node.service.picture) == "promise broken"
    town.stop_node("basel")
    again = town.start_node("basel")
    town.until(lambda: again.service.picture.reached)
    assert again.service.picture.broken_promise is not None, "a restart mends no promise"
    assert len(said(town, ReceiptBroken)) == 1


class Lying(Promises):
    """Promises places far ahead, at once, as no honest coordinator does."""

    def __init__(self, true: Promises) -> None:
        super().__init__(true._key, true._origin, 0.0, true._now_ms)

    def answer(self, taken: Sequence[Sequenced], places: Sequence[Place]) -> list[Receipt]:
        """Move every place by a thousand."""
        ahead = [(replace(answer, index=answer.index + 1000), leaf) for answer, leaf in places]
        return super().answer((), ahead)


def test_a_paused_node_takes_on_nothing_new(town: Town) -> None:
    datasets = [town.offer(name) for name in town.hospitals]
    for name in town.hospitals:
        town.start_node(name)
    town.nodes["basel"].service.pause(True)
    experiment = town.propose(small_spec(datasets, quorum=1))
    for dataset in datasets:
        town.approve(experiment, dataset)
    finish(town, experiment)
    refused = town.experiment(experiment).budget_refusals
    assert {name: r.reason for name, r in refused.items()} == {"basel-heart": "local_policy"}
    town.nodes["basel"].service.pause(False)
    town.until(lambda: not town.nodes["basel"].service.picture.paused)


def test_a_node_that_holds_two_entries_at_one_place_ends_their_key(town: Town) -> None:
    town.start_node("basel")
    town.until(lambda: town.state.members[node_of("basel")].ready)
    town.stop_node("basel")
    ada = town.people["ada"]
    ada.follow()
    head = town.state.keys[ada.keyring.entry.id]
    bodies = [
        Body(
            v=1,
            federation=town.state.federation,
            author="ada",
            key=ada.keyring.entry.id,
            seq=head.next_seq,
            prev=head.head,
            seen=NOTHING_SEEN,
            at_ms=at_ms,
            op=ExperimentStopped(
                type="experiment.stopped", experiment="0" * 64, reason="researcher"
            ),
        )
        for at_ms in (1, 2)
    ]
    first, second = (sign_entry(body, ada.keyring.entry).leaf for body in bodies)
    store = LogStore.open(f"sqlite:///{town.home('basel').path / 'ledger.db'}")
    store.put_conflict("equivocation", frame(first, second))
    store.close()
    town.start_node("basel")
    town.until(lambda: town.state.keys[ada.keyring.entry.id].conflicted_at is not None)
    ((author, _),) = said(town, KeyConflicted)
    assert author == node_of("basel")


def test_a_restored_node_neither_signs_nor_cosigns(town: Town, tmp_path: Path) -> None:
    town.start_node("basel")
    town.until(lambda: town.state.members[node_of("basel")].ready)
    town.stop_node("basel")
    home = town.home("basel").path
    shutil.copytree(home, tmp_path / "backup")
    for _ in range(2):
        resumed = len(said(town, NodeResumed))
        town.start_node("basel")
        town.until(lambda before=resumed: len(said(town, NodeResumed)) > before)
        town.stop_node("basel")
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "backup", home)
    before, final = town.state.size, town.coordinator.sequencer.view.final_size
    town.start_node("basel")
    node = town.nodes["basel"]
    town.until(lambda: "restored or copied" in (node.service.picture.problem or ""))
    assert (town.state.size, town.coordinator.sequencer.view.final_size) == (before, final)
