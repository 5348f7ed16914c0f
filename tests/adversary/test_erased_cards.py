"""Somebody has what is not theirs forgotten: another's card, or a model that is called a card."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.copies.blobs import BlobStore
from ledger.copies.erasing import CardEraser
from ledger.entries.cards import DatasetCard, seal_card
from ledger.entries.operations.members import CardErased
from ledger.entries.operations.rounds import UpdateRefused
from ledger.entries.operations.values import BlobRef
from ledger.formats.value import replace
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import COORDINATOR, node_of, steward_of


def bind(world: World, hospital: str, card: str) -> None:
    """A hospital registers its dataset with a card."""
    world.federation.register_dataset(hospital)
    terms = world.federation.state.datasets[f"{hospital}-heart"].terms
    op = replace(terms, card=card)
    world.federation.say(node_of(hospital), op)


@attack(
    name="a hospital binds another's card and has it erased",
    exposed_by="every follower",
    evidence="void: not_owner",
)
def test_a_card_is_its_first_binders(world: World) -> None:
    card = seal_card(DatasetCard(title="Herz"))
    bind(world, "basel", card.commitment)
    bind(world, "bern", card.commitment)
    op = CardErased(type="card.erased", card=card.commitment)
    world.federation.say(steward_of("bern"), op, void="not_owner")  # the lie
    assert world.hospital("chur").follow()[-1].outcome.void == "not_owner"
    world.exposed("every follower")
    assert world.hospital("chur").replica.state.cards[card.commitment].erased_at is None


@attack(
    name="a hospital calls a model its card and has that erased",
    exposed_by="every follower",
    evidence="the bytes are no card: no store deletes them",
)
def test_nothing_but_a_card_is_ever_deleted(world: World, tmp_path: Path) -> None:
    experiment = world.experiment()
    model = world.federation.experiment(experiment).model
    blobs = BlobStore(tmp_path / "blobs")
    blobs.put(world.federation.blobs[model.sha256])
    bind(world, "chur", model.sha256)
    op = CardErased(type="card.erased", card=model.sha256)
    world.federation.say(steward_of("chur"), op)  # the lie
    world.hospital("bern").follow()
    world.exposed("every follower")
    assert CardEraser(blobs).look(world.hospital("bern").replica.state) == ()
    assert blobs.has(model)


@attack(
    name="a node hands a card in as its update, and has it erased once it is refused",
    exposed_by="the sceptic",
    evidence="the update's entry, which names another length; else the erasure: no update is a card",
)
@pytest.mark.parametrize("honest_length", [True, False])
def test_a_refused_update_that_was_a_card_leaves_no_doubt_about_who_refused_it(
    world: World, honest_length: bool
) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.open_round(experiment)
    for dataset in ("basel-heart", "bern-heart"):
        federation.reserve(experiment, dataset)
    op = federation.update(experiment, "basel-heart")
    card = seal_card(DatasetCard(title="Herz"))
    named = federation.put(card.blob)
    if not honest_length:
        named = BlobRef(sha256=named.sha256, bytes=op.update.bytes)
    said = federation.say(node_of("basel"), replace(op, update=named)).entry
    refusal = UpdateRefused(
        type="update.refused",
        update=said.hash,
        reason="wrong_size" if honest_length else "malformed",
    )
    federation.say(COORDINATOR, refusal)
    bind(world, "basel", card.commitment)
    federation.say(steward_of("basel"), CardErased(type="card.erased", card=card.commitment))
    del federation.blobs[card.commitment]  # the lie
    world.settle()
    federation.persist(world.directory / "hub").close()
    verdicts = world.audit(world.directory / "hub")
    world.exposed("the sceptic")
    found = [check for check in verdicts.reports[0].checks if "refused" in check.detail]
    details = " ".join(check.detail for check in found if check.step == 12)
    if honest_length:
        assert "1 refused updates are what their refusals say" in details
    else:
        assert "somebody called it a card and had that erased: no update is a card" in details
