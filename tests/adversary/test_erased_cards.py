"""Somebody has what is not theirs forgotten: another's card, or a model that is called a card."""

from __future__ import annotations

from pathlib import Path

from ledger.copies.blobs import BlobStore
from ledger.copies.erasing import CardEraser
from ledger.entries.cards import DatasetCard, seal_card
from ledger.entries.operations.members import CardErased
from ledger.formats.value import replace
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import node_of, steward_of


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
