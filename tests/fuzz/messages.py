"""Parsers of HTTP: a member's signed request, any request to the coordinator, its answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import unquote

import httpx

from coordinator.service import Coordinator
from coordinator.settings import CoordinatorSettings
from ledger.errors import BadSignature, CallFailed, MalformedInput, UnknownKey
from ledger.exchange import http_auth
from ledger.exchange.client import CoordinatorClient
from ledger.formats.strict import encode_b64
from tests.federation import COORDINATOR, steward_of
from tests.fuzz import samples
from tests.fuzz.parser import Parser

NOW_S = 1_800_000_000
_HANDLE = steward_of("basel")


# --- requests -----------------------------------------------------------------------------------


def _http(method: str, target: str, headers: list[tuple[str, str]], body: bytes = b"") -> bytes:
    lines = [f"{method} {target}", *(f"{name}: {value}" for name, value in headers)]
    return "\n".join(lines).encode("latin-1") + b"\n\n" + body


def _split_http(data: bytes) -> tuple[str, str, list[tuple[str, str]], bytes]:
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    method, _, target = first.partition(" ")
    headers = [(n, v.strip()) for n, colon, v in (li.partition(":") for li in lines) if colon and n]
    return method, target, headers, body


def _signed(method: str, target: str, body: bytes = b"", now_s: int = NOW_S) -> bytes:
    made = samples.federation()
    headers = http_auth.sign(
        method, "http://hub" + target, {"range": "bytes=1-"}, body or None,
        made.rings[_HANDLE].request, _HANDLE, made.id, now_s=now_s,
    )  # fmt: skip
    return _http(method, target, list(headers.items()), body)


def _requests() -> list[bytes]:
    sha256 = samples.federation().spec_of(samples.experiment()).name
    return [_signed("GET", f"/v1/blobs/{sha256}?a=b%20c"), _signed("PUT", "/v1/blobs/x", b"body")]


def _authenticate(data: bytes) -> object:
    method, target, headers, body = _split_http(data)
    made = samples.federation()
    return http_auth.verify(
        method, "http://hub" + target, headers, body, federation=made.id,
        key_of=lambda handle: http_auth.request_key(made.state, handle), now_s=NOW_S,
    )  # fmt: skip


class _Api:
    """A coordinator's application over its own home, called without a network."""

    def __init__(self) -> None:
        made = samples.federation()
        home = samples.FOLDER / "hub"
        made.persist(home).close()
        settings = CoordinatorSettings(federation=made.id, home=home, quota_per_s=1e9)
        self._coordinator = Coordinator(settings, made.rings[COORDINATOR])
        self._coordinator.sequencer.start()
        self._loop = asyncio.new_event_loop()
        self._coordinator.waker.attach(self._loop)

    def call(self, data: bytes) -> int:
        """Answer one request; returns its status."""
        method, target, headers, body = _split_http(data)
        if not target.isascii():
            return 400  # the server's own parser of HTTP answers so
        raw_path, _, query = target.partition("?")
        sent: list[Any] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": unquote(raw_path), "raw_path": raw_path.encode("latin-1"),
            "query_string": query.encode("latin-1"), "root_path": "",
            "headers": [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        self._loop.run_until_complete(self._coordinator.app(scope, receive, send))
        status = int(sent[0]["status"])
        content = b"".join(message.get("body", b"") for message in sent)
        if status >= 500 and status != 503:
            raise AssertionError(f"the API answered {status}: {content[:200]!r}")
        if status >= 400 and method != "HEAD" and not json.loads(content).get("error"):
            raise AssertionError(f"a refusal without its name: {status} {content[:200]!r}")
        return status


@cache
def _api() -> _Api:
    return _Api()


def _api_requests() -> list[bytes]:
    made = samples.federation()
    leaf = made.leaves[-1]
    lines = samples.note().split(b"\n\n")[1]
    now = int(time.time())
    known = next(iter(made.blobs))
    return [
        _http("POST", "/v1/entries", [("content-length", str(len(leaf)))], leaf),
        _http("POST", f"/v1/cosignatures?size={made.log.size}", [], lines),
        _http("POST", "/v1/checkpoint", [], samples.note()),
        _http("GET", "/v1/proofs/inclusion?index=3&size=9", []),
        _http("GET", "/v1/proofs/consistency?old=3&new=9", []),
        _http("GET", "/v1/checkpoint", []),
        _http("GET", "/tile/entries/000.p/9", []),
        _http("GET", "/tile/0/000.p/9", []),
        _http("GET", "/healthz", []),
        *(_signed(m, t, b, now) for m, t, b in (
            ("GET", "/v1/log?size=0&final=0&wait=0", b""),
            ("GET", f"/v1/blobs/{known}", b""),
            ("HEAD", f"/v1/blobs/{known}", b""),
            ("PUT", f"/v1/blobs/{'ab' * 32}?offset=0&total=9", b"part"),
            ("GET", "/v1/state/summary", b""),
            ("GET", f"/v1/state/experiments/{samples.experiment()}", b""),
        )),
    ]  # fmt: skip


# --- answers ------------------------------------------------------------------------------------


def _client(data: bytes, headers: dict[str, str] | None = None) -> CoordinatorClient:
    made = samples.federation()
    client = CoordinatorClient("http://hub.example", federation=made.id)
    client._connection.http = httpx.Client(
        transport=httpx.MockTransport(
            lambda _: httpx.Response(200, stream=httpx.ByteStream(data), headers=headers)
        )
    )
    return client


def _answers() -> list[bytes]:
    made = samples.federation()
    return [
        json.dumps(
            {
                "from": 0,
                "leaves": [encode_b64(leaf) for leaf in made.leaves[:2]],
                "checkpoint": samples.note().decode(),
                "finals": [samples.note().decode()],
            }
        ).encode(),
        b'{"index":3,"applied":true,"reason":null}',
        b'{"size":3}',
    ]


def _hear(data: bytes) -> None:
    """Every question gets the same bytes for an answer; one of them must fit."""
    asks: tuple[Callable[[CoordinatorClient], object], ...] = (
        lambda client: client.follow(0, 0),
        lambda client: client.submit(b"leaf"),
        lambda client: client.summary(),
        lambda client: client.read("members"),
    )
    refused: list[Exception] = []
    for ask in asks:
        with _client(data) as client:
            try:
                ask(client)
            except (MalformedInput, CallFailed) as refusal:
                refused.append(refusal)
    if len(refused) == len(asks):
        raise refused[0]


PARSERS: tuple[Parser, ...] = (
    Parser(
        "request-signature", ("ledger.exchange.http_auth.verify",), _requests, _authenticate,
        (BadSignature, UnknownKey), without="a request is judged, not written again", weight=5,
    ),
    Parser(
        "api", (), _api_requests, lambda data: _api().call(data), (), weight=30,
        without="every request has an answer, and every refusal a name",
    ),
    Parser(
        "answer", ("ledger.exchange.client.CoordinatorClient.read",), _answers, _hear,
        (MalformedInput, CallFailed), weight=60,
        without="JSON by whatever server; entries and notes in it have encodings of their own",
    ),
)  # fmt: skip
