"""Reply slots at nodes that serve: experiments go through, and no update is said but as a slot begins."""

from __future__ import annotations

import time

from coordinator.settings import BLOBS
from ledger.copies.blobs import BlobStore
from ledger.entries.entry import parse_entry
from ledger.entries.operations.experiments import ExperimentRefused
from ledger.entries.operations.rounds import UpdateSubmitted
from tests.federation import steward_of
from tests.node.town import Town, small_spec

SLOT_S = 1


def asked(town: Town, slot_s: int) -> str:
    """Nodes with slots run, and an experiment is approved."""
    datasets = [town.offer(name) for name in town.hospitals]
    for name in town.hospitals:
        town.start_node(name, reply_slot_s=slot_s)
    experiment = town.propose(small_spec(datasets))
    for dataset in datasets:
        town.approve(experiment, dataset)
    return experiment


def slots_of_updates(town: Town) -> list[tuple[str, int]]:
    """Author of each update, and the slot in which its node signed it."""
    ada = town.people["ada"]
    ada.follow()
    bodies = [parse_entry(row.body, row.signature).body for row in ada.replica.store.rows()]
    return [
        (body.author, body.at_ms // (1000 * SLOT_S))
        for body in bodies
        if isinstance(body.op, UpdateSubmitted)
    ]


def test_every_round_of_a_node_with_slots_is_said_in_a_slot_of_its_own(town: Town) -> None:
    experiment = asked(town, SLOT_S)
    town.until(lambda: town.experiment(experiment).status == "released")
    found = slots_of_updates(town)
    assert len(found) == len(set(found)) == 3 * len(town.hospitals)


def test_a_vector_that_waits_for_its_slot_stays_when_the_approval_is_taken_back(town: Town) -> None:
    """A steward's no acts on sight, also where the slot is an hour away."""
    experiment = asked(town, 3600)
    key = (experiment, "basel-heart", 1)
    town.until(
        lambda: all(
            (experiment, f"{h}-heart", 1) in n.register.view.outbox for h, n in town.nodes.items()
        )
    )
    vector = town.nodes["basel"].register.view.outbox[key]
    no = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset="basel-heart", reason="other"
    )
    town.say(steward_of("basel"), no)
    town.until(lambda: "basel-heart" in town.experiment(experiment).budget_refusals)
    for node in town.nodes.values():  # the slot begins
        node.service._training._now_ms = lambda: time.time_ns() // 10**6 + 3_600_000
    town.until(lambda: not any(node.service._actor.busy for node in town.nodes.values()))
    kept = BlobStore(town.directory / "hub" / BLOBS)
    assert kept.size(vector.sha256) is None
    bern = town.nodes["bern"].register.view.outbox[(experiment, "bern-heart", 1)]
    assert kept.size(bern.sha256) is not None


def test_a_node_that_is_stopped_while_it_holds_a_reply_says_it_after_its_restart(
    town: Town,
) -> None:
    experiment = asked(town, 3600)
    key = (experiment, "basel-heart", 1)
    town.until(lambda: key in town.nodes["basel"].register.view.outbox)
    for name in town.hospitals:
        town.stop_node(name)
    assert slots_of_updates(town) == []
    for name in town.hospitals:
        town.start_node(name)
    town.until(lambda: town.experiment(experiment).status == "released")
    assert dict(town.experiment(experiment).reservations["basel-heart"].used or {}) == {
        "train": 2,
        "evaluate": 1,
    }
