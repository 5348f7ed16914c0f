"""Requests signed by members: RFC 9421 with Ed25519 by PyNaCl, and RFC 9530 for bodies.

Promise: a request that `verify` lets in was signed by the named member's enrolled request key, for
this federation, within ``MAX_AGE_S`` of the verifier's clock, over method, path, query and, where
there is one, the whole body; and, through one `NonceCache`, it was let in once. The signature's
``keyid`` is the member's handle, its ``tag`` is ``consilium``.

Not promised: secrecy (TLS does that), or what the member may do. ``@authority`` is not covered, so
that a coordinator may stand behind a proxy of another name; a proxy that changes the path breaks the
signature. Headers other than those named here are not covered and mean nothing to us.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from http_message_signatures import (
    ContentDigest,
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureAlgorithm,
    HTTPSignatureKeyResolver,
)
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from ledger.errors import BadSignature, UnknownKey
from ledger.formats.keys import SigningKey, verify_raw
from ledger.rules.state import State

MAX_AGE_S = 120
"""How far a request's time of signing may be from the verifier's clock, either way."""
TAG = "consilium"
FEDERATION_HEADER = "consilium-federation"
"""The federation's id travels as a header that every signature covers."""
MAX_NONCES = 50_000
"""Requests remembered of one member; more than that within twice ``MAX_AGE_S`` are refused."""

_ALWAYS = ("@method", "@path", "@query", FEDERATION_HEADER)


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Who signed a request, and what makes it unique; ``digest`` is that of its body (RFC 9530)."""

    handle: str
    nonce: str
    created_s: int
    digest: str = ""

    def require_body(self, body: bytes) -> None:
        """See that a body is the one that was signed.

        Raises:
            BadSignature: it is another.
        """
        try:
            ContentDigest.verify(self.digest, body)
        except HTTPMessageSignaturesException as error:
            raise BadSignature("request", _said(error)) from None


class NonceCache:
    """Remembers who used which nonce for as long as a signature stays valid. One owner.

    Each member has its own room, so that a busy one crowds nobody else.

    Args:
        limit: nonces remembered of one member.
    """

    def __init__(self, limit: int = MAX_NONCES) -> None:
        self._limit = limit
        self._seen: dict[str, set[str]] = {}
        self._order: deque[tuple[int, str, str]] = deque()

    def use(self, request: Authenticated, now_s: int) -> None:
        """Let a verified request in once.

        Raises:
            BadSignature: it was let in before, or too many of its member's are remembered to know.
        """
        while self._order and self._order[0][0] < now_s:
            _, handle, nonce = self._order.popleft()
            self._seen[handle].discard(nonce)
            if not self._seen[handle]:
                del self._seen[handle]
        seen = self._seen.setdefault(request.handle, set())
        if request.nonce in seen:
            raise BadSignature("request", "it was received before; sign each request anew")
        if len(seen) >= self._limit:
            raise BadSignature("request", "too many signed requests at once; wait two minutes")
        seen.add(request.nonce)
        self._order.append((now_s + 2 * MAX_AGE_S, request.handle, request.nonce))


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None,
    key: SigningKey,
    handle: str,
    federation: str,
    *,
    now_s: int | None = None,
) -> dict[str, str]:
    """Sign a request.

    Args:
        method: upper-case HTTP method.
        url: absolute, percent-encoded, as it will be sent.
        headers: other headers; not covered.
        body: the whole body, or None for a request without one.
        key: the member's request key.
        handle: the member.
        federation: the federation's id, 64 hex digits.
        now_s: the signer's clock, POSIX seconds; by default the system's.

    Returns:
        The headers to send: those given, the federation's, and the signature's.
    """
    message = _Message(method, url, _Headers({**headers, FEDERATION_HEADER: federation}))
    signer = HTTPMessageSigner(signature_algorithm=_Ed25519, key_resolver=_Resolver(private=key))
    signer.sign(
        message,
        key_id=handle,
        created=datetime.now(UTC) if now_s is None else datetime.fromtimestamp(now_s, UTC),
        nonce=secrets.token_hex(16),
        label=TAG,
        tag=TAG,
        covered_component_ids=_ALWAYS,
        body=body,
    )
    return dict(message.headers)


def verify(
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes | None,
    *,
    federation: str,
    key_of: Callable[[str], bytes],
    now_s: int,
    body_follows: bool = False,
) -> Authenticated:
    """Decide who signed a request. Whether it was seen before is for `NonceCache.use`.

    Args:
        method: upper-case HTTP method.
        url: absolute; only path and query count.
        headers: every header line, in order.
        body: the whole body; empty and None mean the same.
        federation: the id that the request must be for.
        key_of: a handle's request key, 32 bytes; raises `UnknownKey` for nobody's.
        now_s: the verifier's clock, POSIX seconds.
        body_follows: judge the head alone, which must cover the body's digest; the caller reads the
            body afterwards and asks `Authenticated.require_body`.

    Raises:
        UnknownKey: no signature, or not by a member who may sign.
        BadSignature: the signature does not verify, covers too little, or is too old.
    """
    message = _Message(method, url, _Headers())
    for name, value in headers:
        before = message.headers.get(name.lower())
        message.headers[name.lower()] = value if before is None else f"{before}, {value}"
    if "signature" not in message.headers:
        raise UnknownKey("request", "it is not signed; sign it with the member's request key")
    stated = message.headers.get(FEDERATION_HEADER)
    if stated != federation:
        raise BadSignature("request", f"it is not for federation {federation[:12]}")
    resolver = _Resolver(key_of=key_of)
    verifier = _Verifier(signature_algorithm=_Ed25519, key_resolver=resolver)
    try:
        results = verifier.verify(
            message,
            max_age=None,
            expect_tag=TAG,
            require_components=(*_ALWAYS, "content-digest") if body or body_follows else _ALWAYS,
            body=None if body_follows else body or b"",
        )
    except HTTPMessageSignaturesException as error:
        if resolver.refusal is not None:
            raise resolver.refusal from None
        raise BadSignature("request", _said(error)) from None
    if len(results) != 1:
        raise BadSignature("request", "it carries more than one signature of ours")
    stated_parameters = results[0].parameters
    handle, created_s = stated_parameters["keyid"], stated_parameters["created"]
    nonce = results[0].nonce
    if not isinstance(handle, str) or not isinstance(created_s, int) or not nonce:
        raise BadSignature("request", "its signature states no keyid, created and nonce")
    if len(nonce) > 64:
        raise BadSignature("request", "its nonce is longer than 64 characters")
    if abs(now_s - created_s) > MAX_AGE_S:
        raise BadSignature(
            "request",
            f"it was signed {abs(now_s - created_s)} s from this clock; at most {MAX_AGE_S} s "
            "are allowed: set the clocks",
        )
    return Authenticated(handle, nonce, created_s, message.headers.get("content-digest", ""))


def request_key(state: State, handle: str) -> bytes:
    """The key by which a member signs its requests.

    Raises:
        UnknownKey: no such member, or its keys were revoked.
    """
    member = state.members.get(handle)
    if member is None:
        raise UnknownKey("request", f"{handle[:40]!r} is not a member of this federation")
    if member.revoked_at is not None:
        raise UnknownKey("request", f"the keys of {handle} were revoked")
    return bytes.fromhex(member.keys.request.public)


class _Ed25519(HTTPSignatureAlgorithm):  # type: ignore[misc]
    """Ed25519 (RFC 9421 section 3.3.6) by the one verifier of this system."""

    algorithm_id = "ed25519"

    def __init__(
        self, public_key: bytes | None = None, private_key: SigningKey | None = None
    ) -> None:
        self._public = public_key
        self._private = private_key

    def sign(self, message: bytes) -> bytes:
        if self._private is None:
            raise HTTPMessageSignaturesException("there is no private key to sign with")
        return self._private.sign_raw(message)

    def verify(self, signature: bytes, message: bytes) -> None:
        if self._public is None or not verify_raw(self._public, message, signature):
            raise HTTPMessageSignaturesException(
                "the signature does not verify by the member's key in force; if keys were changed "
                "since, use the home that has the new ones"
            )


class _Resolver(HTTPSignatureKeyResolver):  # type: ignore[misc]
    """Hands out the one private key, or asks who a handle is and keeps the refusal."""

    def __init__(
        self,
        *,
        private: SigningKey | None = None,
        key_of: Callable[[str], bytes] | None = None,
    ) -> None:
        self._private = private
        self._key_of = key_of
        self.refusal: UnknownKey | None = None

    def resolve_private_key(self, key_id: str) -> SigningKey | None:
        return self._private

    def resolve_public_key(self, key_id: str) -> bytes | None:
        if self._key_of is None:
            return None
        try:
            return self._key_of(key_id)
        except UnknownKey as refusal:
            self.refusal = refusal
            return None


class _Verifier(HTTPMessageVerifier):  # type: ignore[misc]
    """Times are judged by our caller's clock, not by the library's."""

    def validate_created_and_expires(self, sig_input: Any, max_age: object = None) -> None:
        if "created" not in sig_input.params:
            raise HTTPMessageSignaturesException("the signature states no time of signing")


class _Headers(dict[str, str]):
    """A plain dictionary whose names are lower case."""


@dataclass(slots=True)
class _Message:
    """A request as the library looks at it."""

    method: str
    url: str
    headers: _Headers


def _said(error: HTTPMessageSignaturesException) -> str:
    text = str(error) or "the signature does not verify"
    return text[:1].lower() + text[1:160]
