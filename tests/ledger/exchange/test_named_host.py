"""A service answers under its own names, an IPv6 address among them, and under no other."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ledger.exchange.named_host import ANY, NamedHost


def _asked(names: list[str], host: str) -> int:
    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    app = NamedHost(Starlette(routes=[Route("/", answer)]), names)
    return TestClient(app).get("/", headers={"host": host}).status_code


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8461", "127.0.0.1:1", "[::1]", "[::1]:8461", "[0:0::1]:8461"]
)
def test_it_answers_to_its_own_names(host: str) -> None:
    assert _asked(["127.0.0.1", "localhost", "::1"], host) == 200


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example", "[::2]:80", "[", "[::1", "::1", "[evil]"]
)
def test_it_answers_to_no_other(host: str) -> None:
    assert _asked(["127.0.0.1", "localhost", "[::1]"], host) == 400


def test_one_that_is_told_so_answers_to_all() -> None:
    assert _asked([ANY], "anything.example") == 200
