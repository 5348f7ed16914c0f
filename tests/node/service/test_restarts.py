"""Nodes and their coordinator stop, start and lose a training process, and the experiment goes on."""

from __future__ import annotations

from ledger.entries.operations.log import (
    NodeReady,
    NodeResumed,
)
from ledger.entries.operations.rounds import UpdateSubmitted
from node.errors import WorkerDied
from tests.federation import node_of
from tests.node.service.played import Misbehaving, finish, said, start
from tests.node.town import Town


def test_a_node_says_ready_once_and_resumed_after_every_restart(town: Town) -> None:
    town.start_node("basel")
    town.until(lambda: town.state.members[node_of("basel")].ready)
    for _ in range(2):
        town.stop_node("basel")
        town.start_node("basel")
        town.until(lambda: town.nodes["basel"].service.picture.vouched)
    assert len(said(town, NodeReady)) == 1
    nonces = {op.nonce for _, op in said(town, NodeResumed)}
    assert len(nonces) == 2


def test_a_node_that_restarts_in_the_middle_goes_on(town: Town) -> None:
    experiment = start(town, rounds=6)
    town.until(lambda: town.experiment(experiment).next_round >= 3)
    town.stop_node("basel")
    town.start_node("basel")
    finish(town, experiment)
    used = dict(town.experiment(experiment).reservations["basel-heart"].used)
    assert 6 <= used["train"] <= 7


def test_a_coordinator_that_restarts_in_the_middle_finds_its_nodes_again(town: Town) -> None:
    experiment = start(town, rounds=6)
    town.until(lambda: town.experiment(experiment).next_round >= 3)
    town.stop_coordinator()
    assert town.nodes["basel"].service.picture.size > 1
    town.start_coordinator()
    finish(town, experiment)
    assert dict(town.experiment(experiment).reservations["bern-heart"].used)["train"] == 6


def test_a_node_that_starts_without_its_coordinator_waits_for_it(town: Town) -> None:
    town.stop_coordinator()
    node = town.start_node("basel")
    town.until(lambda: node.service.picture.problem is not None)
    assert not node.service.picture.reached
    assert "check its address and that it runs" in (node.service.picture.problem or "")
    town.start_coordinator()
    town.until(lambda: town.state.members[node_of("basel")].ready)


def test_an_update_after_the_deadline_is_void_and_the_same_bytes_serve_the_next_attempt(
    town: Town,
) -> None:
    slow = Misbehaving(before=[3.6])
    experiment = start(town, {"basel": slow}, round_timeout_s=3)
    finish(town, experiment)
    updates = [
        op for who, op in said(town, UpdateSubmitted) if who == node_of("basel") and op.round == 1
    ]
    assert {op.attempt for op in updates} >= {2}
    assert len({op.update.sha256 for op in updates}) == 1
    assert sum(job.kind == "train" for job in slow.jobs) == 2
    assert dict(town.experiment(experiment).reservations["basel-heart"].used)["train"] == 2


def test_a_crashed_training_process_costs_the_spare_round(town: Town) -> None:
    crashing = Misbehaving(fail=[WorkerDied(-9, "killed by a test")])
    experiment = start(town, {"basel": crashing})
    finish(town, experiment)
    assert dict(town.experiment(experiment).reservations["basel-heart"].used)["train"] == 3
