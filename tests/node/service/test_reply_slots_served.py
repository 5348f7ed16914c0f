"""Reply slots at nodes that serve: experiments go through, and no update is said but as a slot begins."""

from __future__ import annotations

from ledger.entries.entry import parse_entry
from ledger.entries.operations.rounds import UpdateSubmitted
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
