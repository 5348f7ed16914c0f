"""Requests signed by members: what is let in, once, and what is not."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ledger.entries.operations.members import KeyRevoked
from ledger.errors import BadSignature, UnknownKey
from ledger.exchange.http_auth import (
    FEDERATION_HEADER,
    MAX_AGE_S,
    Authenticated,
    NonceCache,
    request_key,
    sign,
    verify,
)
from ledger.formats.keys import SigningKey
from tests.federation import Federation, node_of, steward_of

KEY = SigningKey.from_seed(bytes(32))
OURS = "ab" * 32
URL = "https://hub.example/v1/blobs/00?offset=0&total=3"
NOW_S = 1_767_225_600


def signed(
    method: str = "PUT", url: str = URL, body: bytes | None = b"abc", key: SigningKey = KEY
) -> dict[str, str]:
    return sign(method, url, {"accept": "*/*"}, body, key, "basel", OURS, now_s=NOW_S)


def check(
    headers: dict[str, str],
    method: str = "PUT",
    url: str = URL,
    body: bytes | None = b"abc",
    federation: str = OURS,
    now_s: int = NOW_S,
) -> Authenticated:
    def key_of(handle: str) -> bytes:
        if handle != "basel":
            raise UnknownKey("request", f"{handle} is nobody")
        return KEY.public

    return verify(
        method,
        url,
        headers.items(),
        body,
        federation=federation,
        key_of=key_of,
        now_s=now_s,
    )


def test_a_signed_request_is_let_in_and_names_its_member() -> None:
    assert check(signed()).handle == "basel"
    assert check(signed("GET", body=None), "GET", body=b"").created_s == NOW_S


def test_another_host_name_is_no_hindrance() -> None:
    assert check(signed(), url=URL.replace("hub.example", "127.0.0.1:8460")).handle == "basel"


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "POST"},
        {"url": URL.replace("00?", "01?")},
        {"url": URL.replace("total=3", "total=4")},
        {"body": b"abd"},
        {"body": b""},
        {"federation": "cd" * 32},
    ],
)
def test_nothing_that_is_signed_can_be_changed(changed: dict[str, str]) -> None:
    with pytest.raises(BadSignature, match="request: "):
        check(signed(), **changed)  # type: ignore[arg-type]


def test_a_header_of_another_federation_is_refused_by_name() -> None:
    headers = signed() | {FEDERATION_HEADER: "cd" * 32}
    with pytest.raises(BadSignature, match="not for federation abababababab"):
        check(headers)
    with pytest.raises(BadSignature, match="does not verify"):
        check(headers, federation="cd" * 32)


def test_another_members_key_does_not_sign_for_basel() -> None:
    with pytest.raises(BadSignature, match="does not verify by the member's key in force; if keys"):
        check(signed(key=SigningKey.from_seed(b"x" * 32)))


def test_an_unsigned_request_is_told_to_sign() -> None:
    with pytest.raises(UnknownKey, match="it is not signed; sign it"):
        check({"accept": "*/*", FEDERATION_HEADER: OURS})


def test_a_stranger_is_told_so() -> None:
    headers = signed()
    headers["Signature-Input"] = headers["Signature-Input"].replace('"basel"', '"bern"')
    with pytest.raises(UnknownKey, match="bern is nobody"):
        check(headers)


@pytest.mark.parametrize("away_s", [-MAX_AGE_S - 1, MAX_AGE_S + 1])
def test_a_request_from_another_time_is_refused(away_s: int) -> None:
    with pytest.raises(BadSignature, match=r"121 s from this clock.*set the clocks"):
        check(signed(), now_s=NOW_S + away_s)


@pytest.mark.parametrize("dropped", ["@method", "@path", "@query", FEDERATION_HEADER])
def test_a_signature_that_covers_too_little_is_refused(dropped: str) -> None:
    """An attacker who holds a key but wants the request to be reusable elsewhere."""
    covered = [c for c in ("@method", "@path", "@query", FEDERATION_HEADER) if c != dropped]
    headers = resigned(covered)
    with pytest.raises(BadSignature, match="was not covered"):
        check(headers, "GET", body=None)


@pytest.mark.parametrize("parameter", ["created", "nonce", "keyid"])
def test_a_signature_without_a_parameter_is_refused(parameter: str) -> None:
    headers = resigned(["@method", "@path", "@query", FEDERATION_HEADER], without=parameter)
    with pytest.raises(BadSignature, match="request: "):
        check(headers, "GET", body=None)


def resigned(covered: list[str], without: str = "") -> dict[str, str]:
    values = {
        "@method": "GET",
        "@path": "/v1/blobs/00",
        "@query": "?offset=0&total=3",
        FEDERATION_HEADER: OURS,
    }
    parameters = {"created": str(NOW_S), "keyid": '"basel"', "nonce": '"n"', "tag": '"consilium"'}
    stated = "".join(f";{name}={value}" for name, value in parameters.items() if name != without)
    inner = "(" + " ".join(f'"{name}"' for name in covered) + ")" + stated
    base = "\n".join([f'"{name}": {values[name]}' for name in covered])
    base += f'\n"@signature-params": {inner}'
    signature = base64.b64encode(KEY.sign_raw(base.encode())).decode()
    return {
        FEDERATION_HEADER: OURS,
        "signature-input": f"consilium={inner}",
        "signature": f"consilium=:{signature}:",
    }


def test_the_form_is_that_of_rfc_9421() -> None:
    """The signature base is built here by hand, and another library verifies it."""
    headers = {name.lower(): value for name, value in signed().items()}
    inner = headers["signature-input"].removeprefix("consilium=")
    digest = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
    assert headers["content-digest"] == f"sha-256=:{digest}:"
    base = (
        f'"@method": PUT\n"@path": /v1/blobs/00\n"@query": ?offset=0&total=3\n'
        f'"{FEDERATION_HEADER}": {OURS}\n"content-digest": {headers["content-digest"]}\n'
        f'"@signature-params": {inner}'
    )
    found = re.fullmatch(r"consilium=:(.*):", headers["signature"])
    assert found is not None
    signature = base64.b64decode(found[1])
    Ed25519PublicKey.from_public_bytes(KEY.public).verify(signature, base.encode())


def test_a_request_is_let_in_once() -> None:
    cache = NonceCache()
    request = check(signed())
    cache.use(request, NOW_S)
    with pytest.raises(BadSignature, match="received before"):
        cache.use(request, NOW_S + MAX_AGE_S)
    cache.use(check(signed()), NOW_S)


def test_a_nonce_is_forgotten_only_when_its_signature_is_too_old() -> None:
    cache = NonceCache(limit=1)
    cache.use(Authenticated("basel", "a", NOW_S + MAX_AGE_S), NOW_S)
    with pytest.raises(BadSignature, match="too many signed requests"):
        cache.use(Authenticated("basel", "b", NOW_S), NOW_S + 2 * MAX_AGE_S)
    cache.use(Authenticated("basel", "b", NOW_S), NOW_S + 2 * MAX_AGE_S + 1)


def test_a_busy_member_crowds_nobody_else() -> None:
    cache = NonceCache(limit=2)
    for nonce in "ab":
        cache.use(Authenticated("basel", nonce, NOW_S), NOW_S)
    with pytest.raises(BadSignature, match="too many signed requests"):
        cache.use(Authenticated("basel", "c", NOW_S), NOW_S)
    cache.use(Authenticated("bern", "a", NOW_S), NOW_S)
    with pytest.raises(BadSignature, match="received before"):
        cache.use(Authenticated("bern", "a", NOW_S), NOW_S)
    later = NOW_S + 2 * MAX_AGE_S + 1
    cache.use(Authenticated("basel", "c", later), later)


def test_only_members_who_are_not_revoked_have_a_request_key() -> None:
    federation = Federation.found(("basel",))
    node = node_of("basel")
    assert request_key(federation.state, node) == federation.rings[node].request.public
    revoked = KeyRevoked(type="key.revoked", member=node, compromised_since_ms=None)
    federation.say(steward_of("basel"), revoked)
    with pytest.raises(UnknownKey, match="keys of basel-node were revoked"):
        request_key(federation.state, node)
    with pytest.raises(UnknownKey, match="'nobody' is not a member"):
        request_key(federation.state, "nobody")
