from __future__ import annotations

import re

from fastapi import FastAPI
from starlette.routing import Route

from coordinator.http import api
from coordinator.http.answers import STATUS
from coordinator.http.tiles import add_tiles
from coordinator.refilling.door import create_door
from ledger.exchange.http_auth import FEDERATION_HEADER, MAX_AGE_S, TAG
from tests.docs import pages

PAGE = "docs/api.md"


def application() -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    nothing = object.__new__(Nothing)
    api._add_log(app, nothing)  # type: ignore[arg-type]
    add_tiles(app, nothing, nothing, lambda request: "")  # type: ignore[arg-type]
    api._add_blobs(app, nothing)  # type: ignore[arg-type]
    api._add_state(app, nothing)  # type: ignore[arg-type]
    return app


class Nothing:
    """Services that no request reaches."""

    def __getattr__(self, name: str) -> Nothing:
        return self


def test_every_route_is_documented_and_no_other() -> None:
    documented = [row[0] for row in pages.rows(pages.section(PAGE, "Routes"))]
    served = [
        f"{method} {route.path}"
        for route in application().routes
        if isinstance(route, Route)
        for method in (route.methods or set())
    ]
    assert sorted(documented) == sorted(served)


def test_every_route_of_a_refill_is_documented_and_no_other() -> None:
    text = pages.section(PAGE, "While a database is refilled")
    documented = {row[0] for row in pages.rows(text)}
    served = {
        f"{method} {route.path}"
        for route in create_door(Nothing(), lambda: None).routes  # type: ignore[arg-type]
        if isinstance(route, Route)
        and route.path.startswith("/v1/")
        and "genesis" not in route.path
        for method in (route.methods or set())
    }
    assert documented == served


def test_every_refusal_is_documented_with_its_status_and_no_other() -> None:
    found = {}
    for line in pages.section(PAGE, "Refusals").splitlines():
        row = re.match(r"\| (\d+) \| ([^:]+):", line)
        if row:
            found.update(dict.fromkeys(pages.code_in(row[2]), int(row[1])))
    assert found == {kind.__name__: status for kind, status in STATUS}


def test_the_signature_of_a_request_is_described_as_it_is() -> None:
    text = pages.section(PAGE, "Who is asking")
    assert f"`tag` are `{TAG}`" in text
    assert f"`{FEDERATION_HEADER}`" in text
    assert f"within {MAX_AGE_S} seconds" in text
