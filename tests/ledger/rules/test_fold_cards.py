"""Cards and proposals that are taken back, in the fold: whose they are, and who may end them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ledger.copies.blobs import BlobStore, blob_ref
from ledger.copies.erasing import CardEraser, erased_cards
from ledger.entries.cards import DatasetCard, MemberCard, seal_card
from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    ChangeWithdrawn,
    ExpelChange,
    PolicyChange,
)
from ledger.entries.operations.members import CardErased, KeyRevoked
from ledger.rules.cards import bind_card
from ledger.rules.encoding import digest
from ledger.rules.state import BoundCard, replace
from ledger.rules.succession import carry
from tests.federation import POLICY, RESEARCHER, Federation, node_of, steward_of

CARD = seal_card(DatasetCard(title="Herz"), bytes(32))


def erasure(card: str = CARD.commitment) -> CardErased:
    return CardErased(type="card.erased", card=card)


def bind(federation: Federation, hospital: str, card: str = CARD.commitment) -> None:
    """The hospital's dataset is registered anew with a card."""
    name = f"{hospital}-heart"
    if name not in federation.state.datasets:
        federation.register_dataset(hospital)
    terms = federation.state.datasets[name].terms
    op = replace(terms, card=card)
    federation.say(node_of(hospital), op)


@pytest.fixture
def federation() -> Federation:
    made = Federation.found()
    bind(made, "basel")
    return made


@pytest.mark.parametrize("who", [node_of("basel"), steward_of("basel")])
def test_a_hospital_has_its_datasets_card_erased_once(federation: Federation, who: str) -> None:
    assert federation.state.cards[CARD.commitment] == BoundCard("basel", "basel-heart", None)
    index = federation.say(who, erasure()).index
    assert federation.state.cards[CARD.commitment].erased_at == index
    assert federation.state.datasets["basel-heart"].terms.card == CARD.commitment
    federation.say(who, erasure(), void="repeated")
    federation.register_dataset("bern")
    assert erased_cards(federation.state) == {CARD.commitment}


def test_nobody_else_has_it_erased_while_the_hospital_has_a_voice(federation: Federation) -> None:
    for who in (steward_of("bern"), node_of("bern"), RESEARCHER):
        federation.say(who, erasure(), void="not_owner")
    federation.say(steward_of("basel"), erasure("1" * 64), void="unknown_card")
    for handle in (node_of("basel"), steward_of("basel")):
        op = KeyRevoked(type="key.revoked", member=handle, compromised_since_ms=None)
        federation.say(steward_of("basel"), op)
    federation.say(node_of("bern"), erasure(), void="not_owner")
    federation.say(steward_of("bern"), erasure())


def test_who_binds_anothers_card_later_gains_nothing(federation: Federation) -> None:
    bind(federation, "bern")
    federation.say(steward_of("bern"), erasure(), void="not_owner")
    federation.say(steward_of("basel"), erasure())


def test_a_member_has_its_own_card_erased_and_a_steward_its_peoples() -> None:
    federation = Federation.found()
    for hospital, who in (("chur", node_of("chur")), ("davos", steward_of("davos"))):
        card = seal_card(MemberCard(name=hospital)).commitment
        member = replace(federation.state.members[node_of(hospital)], card=card)
        state = replace(
            bind_card(federation.state, card, hospital, member=node_of(hospital)),
            members=federation.state.members.set(member.handle, member),
        )
        federation.log._state = state
        federation.say(steward_of("bern"), erasure(card), void="not_owner")
        federation.say(who, erasure(card))


def test_a_colleague_who_names_a_card_as_its_own_does_not_own_it() -> None:
    federation = Federation.found(("aarau", "basel", "chur"))
    card = seal_card(MemberCard(name="Anna")).commitment
    owner, colleague = federation.state.members[RESEARCHER], federation.state.members["aarau-node"]
    people = federation.state.members.set(RESEARCHER, replace(owner, card=card))
    theirs = replace(colleague, card=card, organisation=owner.organisation)
    state = bind_card(federation.state, card, owner.organisation, member=RESEARCHER)
    federation.log._state = replace(state, members=people.set("aarau-node", theirs))
    federation.say("aarau-node", erasure(card), void="not_owner")
    carried = {m.handle: m.card for part in carry(federation.state) for m in part.members}
    assert (carried["aarau-node"], carried[RESEARCHER]) == (None, card)
    federation.say(RESEARCHER, erasure(card))


def test_a_log_without_erasures_has_the_digest_that_its_cards_give(federation: Federation) -> None:
    before = digest(federation.state)
    federation.say(steward_of("basel"), erasure())
    assert digest(federation.state) != before


def test_a_successor_carries_no_erased_card(federation: Federation) -> None:
    carried = [d for part in carry(federation.state) for d in part.datasets]
    assert [d.terms.card for d in carried] == [CARD.commitment]
    federation.say(steward_of("basel"), erasure())
    carried = [d for part in carry(federation.state) for d in part.datasets]
    assert [d.terms.card for d in carried] == [None]


def test_in_a_successor_a_card_is_still_its_first_binders() -> None:
    federation = Federation.found(("aarau", "basel", "chur"))
    bind(federation, "basel")
    bind(federation, "aarau")  # which comes first in what is carried
    carried = [d for part in carry(federation.state) for d in part.datasets]
    cards = {d.organisation: d.terms.card for d in carried}
    assert cards == {"aarau": None, "basel": CARD.commitment}


def test_only_a_card_that_the_log_says_is_erased_leaves_a_store(
    federation: Federation, tmp_path: Path
) -> None:
    blobs = BlobStore(tmp_path)
    member = seal_card(MemberCard(name="Anna"))
    model = b"\x00 a model, not a card"
    not_a_card = hashlib.sha256(model).hexdigest()
    for data in (CARD.blob, member.blob, model):
        blobs.put(data)
    bind(federation, "bern", not_a_card)  # the hash of somebody's model
    eraser = CardEraser(blobs)
    assert eraser.look(federation.state) == ()
    federation.say(steward_of("basel"), erasure())
    federation.say(steward_of("bern"), erasure(not_a_card))
    assert eraser.look(federation.state) == (CARD.commitment,)
    assert blobs.size(CARD.commitment) is None
    assert blobs.has(blob_ref(member.blob))
    assert blobs.has(blob_ref(model))
    blobs.put(CARD.blob)  # from a backup
    assert eraser.look(federation.state) == ()
    assert CardEraser(blobs).look(federation.state) == (CARD.commitment,)


def proposal(federation: Federation) -> str:
    change = PolicyChange(policy=replace(POLICY, endorsements=3))
    op = ChangeProposed(type="change.proposed", change=change)
    return federation.say(steward_of("basel"), op).entry.hash


def test_a_proposer_takes_a_change_back_and_nobody_endorses_it_any_more(
    federation: Federation,
) -> None:
    change = proposal(federation)
    back = ChangeWithdrawn(type="change.withdrawn", change=change)
    federation.say(steward_of("bern"), back, void="not_owner")
    federation.say(node_of("basel"), back, void="not_permitted")
    federation.say(steward_of("basel"), back)
    assert not federation.state.changes
    federation.say(steward_of("basel"), back, void="unknown_change")
    endorsed = ChangeEndorsed(type="change.endorsed", change=change)
    federation.say(steward_of("bern"), endorsed, void="unknown_change")


def test_a_change_in_force_is_not_taken_back(federation: Federation) -> None:
    change = proposal(federation)
    federation.say(steward_of("bern"), ChangeEndorsed(type="change.endorsed", change=change))
    assert federation.state.policy.endorsements == 3
    back = ChangeWithdrawn(type="change.withdrawn", change=change)
    federation.say(steward_of("basel"), back, void="change_spent")


def test_an_expelled_hospitals_cards_can_be_erased_by_others(federation: Federation) -> None:
    op = ChangeProposed(type="change.proposed", change=ExpelChange(organisation="basel"))
    change = federation.say(steward_of("bern"), op).entry.hash
    federation.say(steward_of("chur"), ChangeEndorsed(type="change.endorsed", change=change))
    federation.say(steward_of("chur"), erasure())


def test_a_damaged_erased_card_and_a_part_of_one_leave_the_store_too(
    federation: Federation, tmp_path: Path
) -> None:
    blobs = BlobStore(tmp_path)
    blobs.put(CARD.blob)
    blobs.path(CARD.commitment).write_bytes(CARD.blob[:-4] + b"rotx")
    federation.say(steward_of("basel"), erasure())
    assert CardEraser(blobs).look(federation.state) == (CARD.commitment,)
    assert blobs.size(CARD.commitment) is None
    upload = blobs.open_upload(CARD.commitment)
    upload.append(0, CARD.blob[:40])
    CardEraser(blobs).look(federation.state)
    assert upload.offset == 0
