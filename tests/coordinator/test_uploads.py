"""What a member brings and no entry names has a limit of its own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from coordinator.errors import StorageExceeded
from coordinator.http.uploads import Uploads
from ledger.copies.blobs import blob_ref
from ledger.entries.cards import DatasetCard, seal_card
from ledger.entries.operations.datasets import DatasetRegistered
from ledger.errors import RequestRefused
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.messages import LEAF_TYPE
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
    with pytest.raises(StorageExceeded):  # it is named, and not whole
        uploads.claim("basel", "b", 10)
    uploads.arrived("a")
    uploads.claim("basel", "b", 10)
    uploads.release("basel", "b")
    uploads.claim("basel", "c", 10)


def test_what_was_stated_once_of_an_unfinished_upload_holds() -> None:
    uploads = Uploads(10, lambda _: False)
    uploads.claim("basel", "a", 8)
    uploads.claim("basel", "a", 1)
    with pytest.raises(StorageExceeded):
        uploads.claim("basel", "b", 5)
    uploads.release("basel", "b")
    uploads.hold("basel", "b", 5)  # taken while another request let go of it
    with pytest.raises(StorageExceeded):
        uploads.claim("basel", "c", 1)


def test_many_small_blobs_are_bounded_by_their_number() -> None:
    uploads = Uploads(2**32, lambda _: False, most=3)
    for name in "abc":
        uploads.claim("basel", name, 1)
    with pytest.raises(StorageExceeded, match="3 blobs"):
        uploads.claim("basel", "d", 1)
    uploads.claim("basel", "c", 2)


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


def test_no_refused_request_lets_parts_pile_up_that_nobody_counts(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    federation.register_dataset("basel")
    with (
        Serving(federation, tmp_path, unnamed_limit=2000) as serving,
        serving.client(node_of("basel")) as client,
    ):
        blobs = serving.coordinator.blobs
        kept = 0
        for _ in range(4):
            begun = os.urandom(32).hex()
            with suppress(RequestRefused):  # 429 in time
                put(client, begun, 0, 901, bytes(900))
                put(client, begun, 0, 1, b"x")  # refused, as if nothing were here
            kept += blobs.open_upload(begun).offset
            with suppress(RequestRefused):
                whole = client.put_blob(os.urandom(900)).sha256
                kept += blobs.size(whole) or 0
                put(client, whole, 0, 1, b"x")
        assert 0 < kept <= 2000


def test_a_blob_that_is_here_takes_no_parts_that_nobody_counts(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    federation.register_dataset("basel")
    with (
        Serving(federation, tmp_path, unnamed_limit=2000) as serving,
        serving.client(node_of("basel")) as client,
    ):
        schema = federation.state.datasets["basel-heart"].terms.schema_
        client.put_blob(federation.blobs[schema.sha256])
        with pytest.raises(RequestRefused) as refused:
            put(client, schema.sha256, 0, 2001, bytes(1900))
        assert refused.value.status == 429


def put(client: CoordinatorClient, sha256: str, offset: int, total: int, data: bytes) -> None:
    """One part of a blob, as a client of its own making sends it."""
    client._connection.call(
        "PUT",
        f"/v1/blobs/{sha256}?offset={offset}&total={total}",
        body=data,
        content_type=LEAF_TYPE,
        signed=True,
    )
