"""Who is let in: a signed request, once, by a member whose key is good."""

from __future__ import annotations

import hashlib

import httpx
import pytest

from ledger.entries.operations.members import KeyRevoked
from ledger.errors import RequestRefused
from ledger.formats.keys import SigningKey
from tests.coordinator.asking import BASEL, raw, refusal
from tests.coordinator.serving import Serving
from tests.federation import node_of
from tests.patience import PATIENCE_S


def test_a_request_is_let_in_once(serving: Serving) -> None:
    url, headers, _ = raw(serving, "GET", "/v1/state/summary")
    assert httpx.get(url, headers=headers, timeout=PATIENCE_S).status_code == 200
    again = refusal(httpx.get(url, headers=headers, timeout=PATIENCE_S))
    assert again == (403, "BadSignature", "it was received before; sign each request anew")


def test_nobody_else_is_let_in(serving: Serving) -> None:
    url, headers, _ = raw(serving, "GET", "/v1/state/summary")
    assert refusal(httpx.get(url, timeout=PATIENCE_S))[:2] == (403, "UnknownKey")
    wrong = raw(serving, "GET", "/v1/state/summary", key=SigningKey.from_seed(bytes(32)))
    assert refusal(httpx.get(url, headers=wrong[1], timeout=PATIENCE_S))[:2] == (
        403,
        "BadSignature",
    )
    other = raw(serving, "GET", "/v1/state/summary", federation="ab" * 32)
    assert refusal(httpx.get(url, headers=other[1], timeout=PATIENCE_S))[:2] == (
        403,
        "BadSignature",
    )
    stolen = refusal(
        httpx.get(serving.url + "/v1/state/members", headers=headers, timeout=PATIENCE_S)
    )
    assert stolen[:2] == (403, "BadSignature")


def test_a_body_that_was_changed_on_the_way_is_refused(serving: Serving) -> None:
    name = hashlib.sha256(b"changed").hexdigest()
    url, headers, _ = raw(serving, "PUT", f"/v1/blobs/{name}?offset=0&total=7", b"genuine")
    answer = httpx.put(url, headers=headers, content=b"changed", timeout=PATIENCE_S)
    assert refusal(answer)[:2] == (403, "BadSignature")


def test_a_revoked_member_is_not_let_in(serving: Serving) -> None:
    with serving.client(node_of("basel")) as client:
        client.summary()
        revoked = KeyRevoked(type="key.revoked", member=node_of("basel"), compromised_since_ms=None)
        assert serving.say(BASEL, revoked).applied
        with pytest.raises(RequestRefused, match="keys of basel-node were revoked") as caught:
            client.summary()
    assert (caught.value.status, caught.value.error) == (403, "UnknownKey")
