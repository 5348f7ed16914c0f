"""Files of a log from any web server: compressed or not, refused in other words, or endless."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator

import pytest

from ledger.errors import MalformedInput, RequestRefused
from ledger.exchange.client import CoordinatorClient
from ledger.formats.keys import SigningKey
from ledger.formats.tiles import MAX_BUNDLE

BUNDLE = b"\x00\x020!" * 256
BOMB = gzip.compress(bytes(4 * MAX_BUNDLE), 9)
ANSWERS: dict[str, tuple[int, str | None, bytes]] = {
    "/tile/entries/000": (200, None, BUNDLE),
    "/tile/entries/001": (200, "gzip", gzip.compress(BUNDLE)),
    "/tile/entries/002": (200, "gzip", BOMB),
    "/tile/0/001": (403, None, b"<Error><Code>AccessDenied</Code></Error>"),
    "/tile/0/002": (403, None, b'{"error":"UnknownKey","where":"request","reason":"unsigned"}'),
}


class Bucket(http.server.BaseHTTPRequestHandler):
    signed: set[str] = set()  # noqa: RUF012

    def do_GET(self) -> None:
        status, encoding, body = ANSWERS.get(self.path, (404, None, b"gone"))
        if "signature" in self.headers:
            self.signed.add(self.path)
        self.send_response(status)
        if encoding is not None:
            self.send_header("content-encoding", encoding)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def client() -> Iterator[CoordinatorClient]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    key = SigningKey.from_seed(bytes(32))
    with CoordinatorClient(url, federation="ab" * 32, handle="ada", request_key=key) as made:
        yield made
    server.shutdown()
    server.server_close()


def test_a_bundle_may_come_compressed_and_never_larger_than_one_can_be(
    client: CoordinatorClient,
) -> None:
    assert client.tile("tile/entries/000") == BUNDLE
    assert client.tile("tile/entries/001") == BUNDLE
    assert len(BOMB) < 100_000
    with pytest.raises(MalformedInput, match="it is longer than"):
        client.tile("tile/entries/002")


def test_what_a_bucket_lacks_is_missing_and_what_a_coordinator_refuses_is_refused(
    client: CoordinatorClient,
) -> None:
    assert client.tile("tile/0/000") is None
    assert client.tile("tile/0/001") is None
    assert client.find_genesis() is None
    with pytest.raises(RequestRefused, match="unsigned"):
        client.tile("tile/0/002")


def test_only_requests_for_entries_are_signed(client: CoordinatorClient) -> None:
    Bucket.signed.clear()
    for name in ("tile/entries/000", "tile/0/000", "checkpoint"):
        client.tile(name)
    assert Bucket.signed == {"/tile/entries/000"}
