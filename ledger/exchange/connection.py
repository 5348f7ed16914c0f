"""One member's HTTP connection to a coordinator: requests signed, repeated and read within limits.

Promise: a lost connection, a 5xx answer and a cut-off body are repeated a few times before the caller hears
of them; a refusal is an answer, and is raised as one. Requests carry the member's signature
(``http_auth.py``). No answer takes more memory than its limit: it is asked for as it is, and one that comes
packed all the same (a server of files does that with tiles) is unpacked once, so far. Nor does its body take longer than its timeout and a second for each
`SLOWEST` bytes. What a refusal says is shown without what would steer a terminal.
"""

from __future__ import annotations

import ssl
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import stamina

from ledger.errors import CoordinatorUnreachable, MalformedInput, RequestRefused
from ledger.exchange.http_auth import sign
from ledger.exchange.messages import MAX_ANSWER
from ledger.formats.keys import SigningKey

ATTEMPTS = 5
SLOWEST = 4096
"""Bytes a second below which an answer's body counts as lost."""

# The library would print each retry; the caller hears of what failed in the end.
stamina.instrumentation.set_on_retry_hooks([])


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    reason: str
    headers: httpx.Headers
    content: bytes

    def json(self) -> Any:
        """Its content as JSON.

        Raises:
            MalformedInput: it is none.
        """
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError:
            raise MalformedInput(
                "answer", "it is not JSON; is this a Consilium coordinator?"
            ) from None


class Connection:
    """See `CoordinatorClient` for the arguments. May be used from several threads.

    Attributes:
        http: the pool of connections.
        key: the member's request key, or None.
    """

    def __init__(
        self,
        url: str,
        *,
        federation: str,
        handle: str | None,
        request_key: SigningKey | None,
        ca: Path | None,
        timeout_s: float,
    ) -> None:
        self.url = url.rstrip("/")
        self.federation = federation
        self.key = request_key
        self._handle = handle
        self._timeout_s = timeout_s
        self.http = httpx.Client(
            verify=_trust(self.url, ca),
            timeout=timeout_s,
            follow_redirects=False,
            headers={"accept-encoding": "identity"},
            mounts={"all://127.0.0.1": None, "all://localhost": None},
            limits=httpx.Limits(max_keepalive_connections=8, keepalive_expiry=60.0),
        )

    def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        signed: bool = False,
        missing_ok: bool = False,
        conflict_ok: bool = False,
        limit: int = MAX_ANSWER,
    ) -> Answer:
        """Send one request until it is answered; a refusal is an answer."""
        wanted = dict(headers or {})
        if content_type is not None:
            wanted["content-type"] = content_type
        for attempt in stamina.retry_context(
            on=CoordinatorUnreachable, attempts=ATTEMPTS, wait_initial=0.05, wait_max=2.0
        ):
            with attempt:
                answer = self._send(method, path, body, wanted, wait_s, signed, limit)
        if missing_ok and answer.status == 404:
            return answer
        if conflict_ok and answer.status == 409 and "upload-offset" in answer.headers:
            return answer
        if answer.status >= 300:
            raise _refusal(f"{self.url}{path.partition('?')[0]}", answer)
        return answer

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        wait_s: float,
        signed: bool,
        limit: int,
    ) -> Answer:
        where = f"{self.url}{path.partition('?')[0]}"
        try:
            request = self.http.build_request(
                method,
                self.url + path,
                content=body,
                headers=headers,
                timeout=self._timeout_s + wait_s,
            )
            if signed and self.key is not None and self._handle is not None:
                url = str(request.url)
                request.headers.update(
                    sign(method, url, {}, body, self.key, self._handle, self.federation)
                )
            response = self.http.send(request, stream=True)
            try:
                content = _read(response, limit, self._timeout_s + wait_s)
            finally:
                response.close()
            answer = Answer(response.status_code, response.reason_phrase, response.headers, content)
        except httpx.RequestError as error:
            raise CoordinatorUnreachable(where, str(error) or type(error).__name__) from None
        except httpx.InvalidURL as error:
            raise MalformedInput("coordinator url", f"{self.url}: {error}") from None
        if answer.status in (500, 502, 504) or (
            answer.status == 503 and "application/json" not in _type(answer)
        ):
            raise CoordinatorUnreachable(where, f"HTTP {answer.status}")
        return answer


def _trust(url: str, ca: Path | None) -> ssl.SSLContext | bool:
    """Whose certificates count. Without TLS nobody's, which saves reading them all."""
    if not url.startswith("https:"):
        return False
    return True if ca is None else ssl.create_default_context(cafile=str(ca))


def _read(answer: httpx.Response, limit: int, timeout_s: float) -> bytes:
    """Take an answer's body into memory, never more than the limit."""
    packing = answer.headers.get("content-encoding", "identity").lower()
    if packing not in ("identity", "gzip"):
        raise MalformedInput("answer", f"it is packed as {packing[:40]!a}, which was not asked for")
    unpacked = zlib.decompressobj(16 + zlib.MAX_WBITS) if packing == "gzip" else None
    parts = []
    came = size = 0
    ends_s = time.monotonic() + timeout_s
    for part in answer.iter_raw():
        came += len(part)
        if unpacked is not None:
            try:
                part = unpacked.decompress(part, limit - size + 1)
            except zlib.error:
                raise MalformedInput("answer", "it says that it is gzip, and is not") from None
        size += len(part)
        if size > limit:
            raise MalformedInput("answer", f"it is longer than the {limit} bytes accepted")
        parts.append(part)
        if time.monotonic() > ends_s + came / SLOWEST:
            raise httpx.ReadTimeout(f"its answer came too slowly, {came} bytes of it")
    if unpacked is not None and not unpacked.eof:
        raise httpx.ReadError("the packed answer was cut off")
    return b"".join(parts)


def _type(answer: Answer) -> str:
    kind: str = answer.headers.get("content-type", "")
    return kind


def _refusal(url: str, answer: Answer) -> RequestRefused:
    """Read the coordinator's refusal, or make one of what a stranger answered."""
    error, where, reason = "HTTP", "request", answer.reason or "no reason given"
    try:
        plain = orjson.loads(answer.content)
        if isinstance(plain, dict):
            error = str(plain.get("error", error))[:80]
            where = str(plain.get("where", where))[:200]
            reason = str(plain.get("reason", reason))[:500]
    except orjson.JSONDecodeError:
        reason = f"{reason}; is this a Consilium coordinator?"
    error, where, reason = (
        "".join(each if each.isprintable() else "?" for each in said)
        for said in (error, where, reason)
    )
    return RequestRefused(url, status=answer.status, error=error, where=where, reason=reason)
