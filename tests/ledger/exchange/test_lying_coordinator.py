"""What a coordinator that lies below the log's formats can do to a member: make it try again, no more."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from types import SimpleNamespace

import pytest

from ledger.entries.operations.values import BlobRef
from ledger.errors import CoordinatorUnreachable, LedgerError, MalformedInput, RequestRefused
from ledger.exchange import connection
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.messages import CHUNK
from tests.patience import PATIENCE_S

Reply = Callable[[socket.socket], None]


@contextmanager
def lying(reply: Reply, timeout_s: float = PATIENCE_S) -> Iterator[CoordinatorClient]:
    """A client of somebody who answers each request so, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                threading.Thread(target=answer, args=(caller,), daemon=True).start()

    def answer(caller: socket.socket) -> None:
        with caller, suppress(OSError):
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += caller.recv(65536)
            reply(caller)
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(65536):
                pass

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with CoordinatorClient(url, federation="0" * 64, timeout_s=timeout_s) as client:
        yield client
    listener.close()


def whole(body: bytes, *lines: str, status: str = "200 OK") -> Reply:
    head = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]
    return lambda caller: caller.sendall("\r\n".join(head).encode() + body)


def test_an_answer_that_was_packed_again_and_again_is_not_unpacked() -> None:
    packed = gzip.compress(gzip.compress(bytes(64 * 1024 * 1024)))
    with lying(whole(packed, "Content-Encoding: gzip, gzip")) as client:
        tracemalloc.start()
        with pytest.raises(MalformedInput, match="packed as 'gzip, gzip'"):
            client.follow(0, 0)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 8 * 1024 * 1024


def test_an_answer_that_is_packed_once_has_the_same_limit() -> None:
    packed = gzip.compress(bytes(64 * 1024 * 1024), 1)
    reply = whole(packed, "Content-Encoding: gzip")
    with lying(reply) as client, pytest.raises(MalformedInput, match="longer"):
        client.follow(0, 0)
    reply = whole(gzip.compress(b"{}")[:-4], "Content-Encoding: gzip")
    with lying(reply) as client, pytest.raises(CoordinatorUnreachable, match="cut off"):
        client.follow(0, 0)


def test_an_answer_that_drips_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count(0, 10)
    monkeypatch.setattr(connection, "ATTEMPTS", 1)
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: next(ticks)))

    def drip(caller: socket.socket) -> None:
        caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            caller.sendall(b" ")
            time.sleep(0.02)

    with lying(drip) as client, pytest.raises(CoordinatorUnreachable, match="slow"):
        client.follow(0, 0)


@pytest.mark.parametrize("offset", ["9" * 5000, "-1", "1.5", "9000001", "x"])
def test_an_offset_that_is_none_is_refused(offset: str) -> None:
    reply = whole(b"", f"Upload-Offset: {offset}", status="404 Not Found")
    with lying(reply) as client, pytest.raises(MalformedInput, match="upload-offset"):
        client.put_blob(bytes(CHUNK + 1))


@pytest.mark.parametrize("status", ["202 Accepted", "409 Conflict"])
def test_an_upload_that_is_never_taken_ends(status: str) -> None:
    reply = whole(b"", "Upload-Offset: 0", status=status)
    with lying(reply) as client, pytest.raises(MalformedInput, match="for ever"):
        client.put_blob(b"abc")


def test_a_blob_that_comes_a_byte_at_a_time_is_not_waited_for() -> None:
    with lying(whole(b"a")) as client, pytest.raises(MalformedInput, match="other bytes"):
        client.get_blob(BlobRef(sha256="0" * 64, bytes=10_000))


@pytest.mark.parametrize(
    "receipt",
    [
        '{"index":1e300,"applied":true,"reason":null,"receipt":""}',
        '{"index":"1","applied":true,"reason":null,"receipt":""}',
        '{"index":-1,"applied":true,"reason":null,"receipt":""}',
        '{"index":1,"applied":"no","reason":null,"receipt":""}',
        '{"index":1,"applied":false,"reason":5,"receipt":""}',
        '{"index":1,"applied":false,"reason":"\\u001b[2J","receipt":""}',
        "[]",
    ],
)
def test_a_receipt_of_other_types_is_none(receipt: str) -> None:
    with lying(whole(receipt.encode())) as client, pytest.raises(MalformedInput, match="receipt"):
        client.submit(b"entry")


def test_a_refusal_steers_no_terminal() -> None:
    body = b'{"error":"E\\u001b]0;x","where":"a\\nb","reason":"\\u001b[2Jgone\\u202e"}'
    reply = whole(body, status="400 Bad Request")
    with lying(reply) as client, pytest.raises(RequestRefused) as refused:
        client.follow(0, 0)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("body", [b"[]", b"1", b"[" * 5000, b"\xff", b'{"from":0,"leaves":[1]}'])
def test_nonsense_is_a_typed_refusal(body: bytes) -> None:
    with lying(whole(body)) as client, pytest.raises(LedgerError):
        client.follow(0, 0)
