"""An erased card at the coordinator: gone once the entry is durable, and never taken or given again."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.copies.blobs import blob_ref
from ledger.entries.cards import DatasetCard, seal_card
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.entries.operations.members import CardErased
from ledger.errors import RequestRefused
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
        op = DatasetRegistered.model_validate(
            {**terms.model_dump(by_alias=True), "card": card.commitment}
        )
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
