"""What a member brings and no entry names has a limit of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.errors import StorageExceeded
from coordinator.http.uploads import Uploads
from ledger.copies.blobs import blob_ref
from ledger.entries.cards import DatasetCard, seal_card
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.errors import RequestRefused
from tests.coordinator.serving import Serving
from tests.federation import Federation, node_of


def test_what_entries_name_costs_nothing_and_members_do_not_crowd_one_another() -> None:
    named: set[str] = set()
    uploads = Uploads(10, named.__contains__)
    uploads.claim("basel", "a", 6)
    uploads.claim("basel", "a", 6)  # its next part
    with pytest.raises(StorageExceeded, match="say the entries that name them first"):
        uploads.claim("basel", "b", 5)
    uploads.claim("bern", "b", 10)
    named.add("a")
    uploads.claim("basel", "b", 10)
    uploads.release("basel", "b")
    uploads.claim("basel", "c", 10)


def test_a_member_cannot_fill_the_disk_with_what_nobody_names(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    federation.register_dataset("basel")
    card = seal_card(DatasetCard(title="Herz"))
    with Serving(federation, tmp_path, unnamed_limit=2000) as serving:
        with serving.client(node_of("basel")) as client, serving.client(node_of("bern")) as other:
            client.put_blob(card.blob)
            client.put_blob(card.blob)
            with pytest.raises(RequestRefused, match="no entry names") as refused:
                client.put_blob(os.urandom(1900))
            assert refused.value.status == 429
            other.put_blob(os.urandom(1900))
            terms = federation.state.datasets["basel-heart"].terms.model_dump(by_alias=True)
            op = DatasetRegistered.model_validate({**terms, "card": card.commitment})
            assert serving.say(node_of("basel"), op).applied
            client.put_blob(os.urandom(1900))
        assert serving.coordinator.blobs.has(blob_ref(card.blob))
