"""The refill's door: what one member may bring through it, whatever its entries name."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from coordinator.refilling.door import create_door
from coordinator.refilling.refill import Refill
from coordinator.settings import GENESIS, JSON, CoordinatorSettings
from ledger.errors import RequestRefused
from ledger.exchange.client import CoordinatorClient
from tests.coordinator.test_refill import copy_of
from tests.coordinator.test_uploads import put
from tests.federation import COORDINATOR, HOSPITALS, Federation, node_of
from tests.patience import PATIENCE_S


@contextmanager
def door(under_way: Refill) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_door(under_way, lambda: None), log_config=None, ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.002)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()


def member(federation: Federation, url: str, handle: str) -> CoordinatorClient:
    return CoordinatorClient(
        url,
        federation=federation.id,
        handle=handle,
        request_key=federation.rings[handle].request,
        timeout_s=PATIENCE_S,
    )


def test_a_member_that_names_much_and_never_ends_it_fills_no_disk_of_a_refill(
    tmp_path: Path,
) -> None:
    """Entries may name any lengths: a refill is no time at which a member has more room than it has."""
    federation = Federation.found(HOSPITALS)
    federation.play(federation.start())
    federation.finalize()
    (tmp_path / GENESIS).write_bytes(federation.leaves[0])
    (tmp_path / JSON).write_text(f'{{"federation":"{federation.id}"}}')
    limit = 2048
    settings = CoordinatorSettings(federation=federation.id, home=tmp_path, unnamed_limit=limit)
    with Refill(settings, federation.rings[COORDINATOR]) as under_way:
        copy = copy_of(federation)
        copy.blobs.clear()
        under_way.take(copy, node_of(HOSPITALS[0]))
        wanted = [name for name in under_way.wanted() if len(federation.blobs[name]) <= limit]
        with (
            door(under_way) as url,
            member(federation, url, node_of("basel")) as basel,
            member(federation, url, node_of("bern")) as bern,
        ):
            begun, refused = 0, set()
            for name in wanted:  # junk, and never the last byte
                total = len(federation.blobs[name])
                try:
                    put(basel, name, 0, total, bytes(total - 1))
                    begun += total
                except RequestRefused as refusal:
                    refused.add((refusal.status, refusal.error))
            assert refused == {(429, "StorageExceeded")}
            assert 0 < begun <= limit
            rest = [name for name in wanted if under_way.blobs.open_upload(name).offset == 0]
            for name in rest:
                bern.put_blob(federation.blobs[name])
            assert sum(len(federation.blobs[name]) for name in rest) > limit, "whole ones count not"


def test_a_refill_leaves_the_log_its_room_on_the_disk(tmp_path: Path) -> None:
    federation = Federation.found(HOSPITALS)
    federation.register_dataset("basel")
    (tmp_path / GENESIS).write_bytes(federation.leaves[0])
    (tmp_path / JSON).write_text(f'{{"federation":"{federation.id}"}}')
    settings = CoordinatorSettings(federation=federation.id, home=tmp_path, keep_free=2**62)
    with Refill(settings, federation.rings[COORDINATOR]) as under_way:
        copy = copy_of(federation)
        copy.blobs.clear()
        under_way.take(copy, node_of(HOSPITALS[0]))
        (name,) = under_way.wanted()
        with (
            door(under_way) as url,
            member(federation, url, node_of("basel")) as basel,
            pytest.raises(RequestRefused, match="disk is full but for"),
        ):
            basel.put_blob(federation.blobs[name])
