"""Requests as a member's client signs them, and how refusals look."""

from __future__ import annotations

import httpx

from ledger.exchange.http_auth import sign
from ledger.formats.keys import SigningKey
from tests.coordinator.serving import Serving
from tests.federation import steward_of

BASEL = steward_of("basel")


def raw(
    serving: Serving,
    method: str,
    path: str,
    body: bytes | None = None,
    handle: str = BASEL,
    key: SigningKey | None = None,
    federation: str | None = None,
) -> tuple[str, dict[str, str], bytes | None]:
    url = serving.url + path
    key = key or serving.federation.rings[handle].request
    federation = federation or serving.federation.id
    return url, sign(method, url, {}, body, key, handle, federation), body


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    plain = answer.json()
    assert set(plain) == {"error", "where", "reason"}
    return answer.status_code, plain["error"], plain["reason"]
