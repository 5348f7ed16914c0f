"""An erased card at the coordinator: gone once the entry is durable, and never taken or given again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.copies.blobs import BlobStore, blob_ref
from ledger.copies.erasing import CardEraser
from ledger.entries.cards import DatasetCard, seal_card
from ledger.entries.operations.members import CardErased
from ledger.errors import RequestRefused
from ledger.formats.value import replace
from tests.coordinator.serving import Serving
from tests.federation import Federation, node_of, steward_of


def test_an_erased_card_is_deleted_refused_and_swept_at_the_next_start(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern", "chur"))
    federation.register_dataset("basel")
    card = seal_card(DatasetCard(title="Herz"))
    ref = blob_ref(card.blob)
    terms = federation.state.datasets["basel-heart"].terms
    with Serving(federation, tmp_path) as serving:
        with serving.client(node_of("basel")) as client:
            client.put_blob(card.blob)
        op = replace(terms, card=card.commitment)
        assert serving.say(node_of("basel"), op).applied
        with serving.client(steward_of("chur")) as client:
            assert client.get_blob(ref) == card.blob
        erasure = CardErased(type="card.erased", card=card.commitment)
        assert not serving.say(steward_of("chur"), erasure).applied
        assert serving.coordinator.blobs.has(ref)
        receipt = serving.say(steward_of("basel"), erasure)
        assert not serving.coordinator.blobs.has(ref)
        for handle in (steward_of("chur"), node_of("basel")):
            with serving.client(handle) as client:
                with pytest.raises(RequestRefused, match=f"erased by entry {receipt.index}"):
                    client.get_blob(ref)
                with pytest.raises(RequestRefused, match=f"erased by entry {receipt.index}"):
                    client.put_blob(card.blob)
        blobs = serving.coordinator.blobs
    blobs.put(card.blob)  # a backup of the folder is put back
    with Serving(federation, tmp_path) as serving:
        assert not serving.coordinator.blobs.has(ref)


def test_calling_a_blob_a_card_and_erasing_that_keeps_it_from_nobody(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern", "chur"))
    federation.register_dataset("basel")
    federation.register_dataset("chur")
    terms = federation.state.datasets["chur-heart"].terms
    others = federation.state.datasets["basel-heart"].terms.schema_
    with Serving(federation, tmp_path) as serving:
        schema = federation.blobs[others.sha256]
        with serving.client(node_of("basel")) as client:
            client.put_blob(schema)
        op = replace(terms, card=others.sha256)
        assert serving.say(node_of("chur"), op).applied
        erasure = CardErased(type="card.erased", card=others.sha256)
        assert serving.say(steward_of("chur"), erasure).applied
        assert serving.coordinator.blobs.has(others)
        with serving.client(steward_of("bern")) as client:
            assert client.get_blob(others) == schema
            client.put_blob(schema)


def test_one_erased_card_that_cannot_be_deleted_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation.found(("basel", "bern", "chur"))
    federation.register_dataset("basel")
    terms = federation.state.datasets["basel-heart"].terms
    cards = sorted(
        (seal_card(DatasetCard(title=title)) for title in ("Herz", "Lunge")),
        key=lambda card: card.commitment,
    )
    blobs = BlobStore(tmp_path)
    for card in cards:
        blobs.put(card.blob)
        op = replace(terms, card=card.commitment)
        federation.say(node_of("basel"), op)
        federation.say(steward_of("basel"), CardErased(type="card.erased", card=card.commitment))
    first, second = cards
    delete = blobs.delete

    def fails_for_the_first(sha256: str) -> bool:
        if sha256 == first.commitment:
            raise OSError("read-only")
        return delete(sha256)

    eraser = CardEraser(blobs)
    with monkeypatch.context() as patch:
        patch.setattr(blobs, "delete", fails_for_the_first)
        assert eraser.look(federation.state) == (second.commitment,)
    assert eraser.look(federation.state) == (first.commitment,)
