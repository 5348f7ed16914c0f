"""What strangers do with connections: heads without end, silence, bodies that nobody signed."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import httpx
import pytest

from coordinator.http import requests
from ledger.exchange import bounded_http
from ledger.exchange.bounded_http import BoundedConnection
from ledger.exchange.messages import CHUNK
from tests.coordinator.asking import raw, refusal
from tests.coordinator.serving import Serving
from tests.patience import PATIENCE_S

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
BODY = b"POST /v1/entries HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def connected(serving: Serving) -> socket.socket:
    host, port = serving.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def sent(serving: Serving, begin: bytes, piece: bytes, most: int) -> int:
    """How much of what has no end was sent before the connection was cut."""
    with connected(serving) as stranger:
        stranger.sendall(begin)
        count = 0
        try:
            while count < most:
                stranger.sendall(piece)
                count += len(piece)
                time.sleep(0.001)
        except OSError:
            return count
    raise AssertionError(f"{count} bytes were taken")


def alive(serving: Serving) -> bool:
    return httpx.get(serving.url + "/healthz", timeout=PATIENCE_S).status_code == 200


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (HEAD + b"X: ", b"a" * 8192),
        (HEAD, b"X: a\r\n" * 50),
        (b"GET /", b"a" * 8192),
        (BODY + b"1;", b"a" * 8192),
        (BODY + b"1\r\na\r\n0\r\n", b"X: a\r\n" * 50),
    ],
    ids=["a header", "headers", "a path", "a chunk's extension", "trailers"],
)
def test_a_request_beside_its_body_has_an_end(serving: Serving, begin: bytes, piece: bytes) -> None:
    assert sent(serving, begin, piece, 64 * 1024 * 1024) < 16 * 1024 * 1024
    assert alive(serving)


def test_a_burst_of_requests_on_one_connection_is_cut(serving: Serving) -> None:
    with connected(serving) as stranger:
        stranger.sendall((HEAD + b"\r\n") * 2000)
        answers = b""
        with suppress(ConnectionError):
            while part := stranger.recv(65536):
                answers += part
    assert answers.count(b"HTTP/1.1 200") < 100
    assert alive(serving)


@pytest.mark.parametrize("said", [b"", HEAD, b"\r\n", BODY + b"5\r\nab"])
def test_who_brings_nothing_for_a_while_is_let_go(
    serving: Serving, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "LOOK_S", 0.05)
    with connected(serving) as stranger:
        stranger.sendall(said)
        with suppress(ConnectionError):
            assert stranger.recv(100) == b""


def test_who_began_a_request_just_before_somebody_looks_is_not_taken_for_silent(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = BoundedConnection.data_received

    def looked_at(self: BoundedConnection, data: bytes) -> None:
        received(self, data)
        if data == HEAD:
            self._looking.cancel()
            self._look()

    monkeypatch.setattr(BoundedConnection, "data_received", looked_at)
    with connected(serving) as member:
        for _ in range(2):
            member.sendall(HEAD + b"\r\n")
            assert member.recv(65536).startswith(b"HTTP/1.1 200")
            member.sendall(HEAD)
            time.sleep(0.05)
            member.sendall(b"\r\n")
            assert member.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_held_question_is_not_taken_for_silence(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "LOOK_S", 0.05)
    size, final = serving.coordinator.sequencer.view.size, 2**40
    url, headers, _ = raw(serving, "GET", f"/v1/log?size={size}&final={final}&wait=0.5")
    assert httpx.get(url, headers=headers, timeout=PATIENCE_S).status_code == 200


def test_idle_connections_keep_nobody_out(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "MOST_WAITED_FOR", 5)
    strangers = [connected(serving) for _ in range(20)]
    try:
        assert alive(serving)
        deadline = time.monotonic() + PATIENCE_S
        while sum(map(_is_open, strangers)) > 6:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_stranger_s_part_of_a_blob_is_refused_before_it_comes(serving: Serving) -> None:
    with connected(serving) as stranger:
        head = f"PUT /v1/blobs/{'0' * 64}?offset=0&total={CHUNK} HTTP/1.1\r\nHost: x\r\n"
        stranger.sendall(f"{head}Content-Length: {CHUNK}\r\n\r\n".encode())
        assert stranger.recv(100).startswith(b"HTTP/1.1 403")


def test_a_member_brings_a_few_parts_at_a_time(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MOST_COMING", 1)
    url, headers, body = raw(serving, "PUT", f"/v1/blobs/{'0' * 64}?offset=0&total=3", b"abc")
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    path = url.removeprefix(serving.url)
    with connected(serving) as slow:
        slow.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 3\r\n\r\na".encode())
        time.sleep(0.2)
        url, headers, body = raw(serving, "PUT", f"/v1/blobs/{'1' * 64}?offset=0&total=3", b"abc")
        answer = httpx.put(url, headers=headers, content=body, timeout=PATIENCE_S)
        assert refusal(answer)[:2] == (503, "Overloaded")
        slow.sendall(b"bc")
        assert slow.recv(100).startswith(b"HTTP/1.1 400")
    url, headers, body = raw(serving, "PUT", f"/v1/blobs/{'1' * 64}?offset=0&total=3", b"abc")
    assert httpx.put(url, headers=headers, content=body, timeout=PATIENCE_S).status_code == 400


def _is_open(stranger: socket.socket) -> bool:
    stranger.setblocking(False)
    try:
        return stranger.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
