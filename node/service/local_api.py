"""The node's local HTTP service, for the hospital's own IT: health, status, metrics, pause, datasets.

Below ``/witness`` it is a tlog-witness for third parties, if the hospital lets them reach it.

It listens on this machine alone unless a setting says otherwise, and answers only requests that name
this machine as their host, so that a web page elsewhere cannot read it through a browser. Reading is
open to whoever may log in here; what changes something needs the token of ``local.json``, which only
the node's user can read. Nothing here depends on rows: declared sizes, hashes, reasons.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from ledger.copies.whole_file import replace_file
from ledger.entries.operations.purposes import PurposeCode
from ledger.entries.operations.values import Count
from ledger.errors import CoordinatorUnreachable, LedgerError
from ledger.exchange.bounded_http import BoundedConnection
from ledger.exchange.named_host import ANY, NamedHost
from ledger.exchange.witness_http import add_witness_routes
from ledger.experiment.schema import Schema
from ledger.formats.witness import Answer
from ledger.rules.blocks import Period
from ledger.rules.finality import standing_quorum
from node.data.blocks import Calendar
from node.data.hospital_key import ensure_hospital_key, has_cells
from node.data.registration import prepare
from node.data.renewal import Asked
from node.errors import DatasetError, NodeError, PromiseExceeded, RegistrationRefused, ServiceError
from node.register.patients import PATIENTS
from node.register.promises import PromiseBook
from node.service.status import INDEPENDENT, NodeStatus, Work, cells_of, datasets_of, render_metrics
from privacy.periods import DAYS_LEAST, DAYS_MOST

if TYPE_CHECKING:
    from node.service.loop import NodeService
    from node.service.picture import Picture

LOCAL_FILE = "local.json"
WITNESS = "/witness"
"""Prefix of what third parties may ask, so that a proxy can let that through and nothing else."""
_START_S = 60.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_log = structlog.get_logger("node")


class Offer(BaseModel):
    """A dataset to register.

    Attributes:
        path: file on this machine.
        schema_: its public schema.
        epsilon: the lifetime promise to patients; for the hospital's first dataset.
        delta: its delta, or None for the most that is allowed.
        blocks, new_patients: see ``node.data.blocks.Calendar``.
        purposes: the epsilon, in millionths, of each cell that a purpose may use at most.
        individual: account for each training patient alone; with the hospital's first dataset.
        refresh_days: days after which the promise renews; with the hospital's first dataset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    schema_: Annotated[Schema, Field(alias="schema")]
    epsilon: float | None = None
    delta: float | None = None
    blocks: Period | None = None
    new_patients: Annotated[int | None, Field(ge=0)] = None
    purposes: dict[PurposeCode, Count] = Field(default_factory=dict)
    individual: bool = False
    refresh_days: Annotated[int | None, Field(ge=DAYS_LEAST, le=DAYS_MOST)] = None


def status_of(service: NodeService) -> NodeStatus:
    """The node's status now; safe from any thread."""
    picture = service.picture
    config = service.membership.config
    state, view = picture.state, service.private.view
    witnesses = state.witnesses_at(picture.final_size)
    return NodeStatus(
        handle=config.handle,
        organisation=config.organisation,
        federation=config.federation,
        federation_name=state.name,
        healthy=_illness(picture) is None,
        coordinator_reached=picture.reached,
        problem=picture.problem,
        fork=picture.fork,
        broken_promise=picture.broken_promise,
        self_test_failed=picture.unsound,
        size=picture.size,
        final_size=picture.final_size,
        witnesses=tuple(sorted(witnesses)),
        independently_witnessed=len(witnesses) >= INDEPENDENT,
        quorum_trouble=standing_quorum(state, picture.final_size).in_words,
        vouched_since_restart=picture.vouched,
        paused=picture.paused,
        working_on=picture.working_on,
        waiting=picture.waiting,
        datasets=datasets_of(state, view, config.handle),
        cells=cells_of(view, service.private.now_ms()),
    )


def make_app(service: NodeService, token: str, hosts: list[str]) -> FastAPI:
    """The application; ``hosts`` are the names under which it answers."""
    app = FastAPI(title="Consilium node", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(NamedHost, names=hosts)

    def trusted(authorization: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, f"give the token of {LOCAL_FILE} as a bearer token")

    @app.get("/healthz")
    def healthz() -> Response:
        illness = _illness(service.picture)
        return PlainTextResponse(f"{illness or 'ok'}\n", 200 if illness is None else 503)

    @app.get("/readyz")
    def readyz() -> Response:
        picture = service.picture
        ready = picture.reached and picture.fork is None and picture.problem is None
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    @app.get("/status")
    def status() -> NodeStatus:
        return status_of(service)

    @app.get("/metrics")
    def metrics() -> Response:
        picture = service.picture
        work = Work(picture.rounds_done, picture.train_seconds)
        text = render_metrics(status_of(service), work)
        return PlainTextResponse(text, media_type=_METRICS_TYPE)

    @app.post("/pause", status_code=204, dependencies=[Depends(trusted)])
    def pause() -> None:
        service.pause(True)

    @app.post("/resume", status_code=204, dependencies=[Depends(trusted)])
    def resume() -> None:
        service.pause(False)

    @app.post("/datasets", dependencies=[Depends(trusted)])
    def register(offer: Offer) -> Response:
        return _register(service, offer)

    add_witness_routes(app, _Asked(service), WITNESS)
    return app


class _Asked:
    """The node as third parties ask it (``ledger.exchange.witness_http.Witnessing``)."""

    def __init__(self, service: NodeService) -> None:
        self._service = service

    def add_checkpoint(self, body: bytes) -> Answer:
        """See the protocol."""
        try:
            return self._service.add_checkpoint(body)
        except (LedgerError, TimeoutError) as error:
            _log.warning("witness.unable", error=str(error))
            return Answer(503, b"this witness cannot answer now\n")

    def newest(self, path: str) -> bytes | None:
        """See the protocol."""
        return self._service.newest_cosigned(path)


class LocalServer:
    """The application in a thread of its own."""

    def __init__(self, service: NodeService) -> None:
        self._service = service
        self._file = service.membership.home.path / LOCAL_FILE
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Listen; returns the URL once it answers.

        Raises:
            ServiceError: the address cannot be listened on.
        """
        settings = self._service.settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((settings.host, settings.port))
        except OSError as error:
            listening.close()
            raise ServiceError(
                f"it cannot listen on {settings.listen} ({error.strerror}); choose another listen"
            ) from None
        shown = f"[{settings.host}]" if family == socket.AF_INET6 else settings.host
        url = f"http://{shown}:{listening.getsockname()[1]}"
        token = secrets.token_urlsafe(32)
        hosts = ["127.0.0.1", "localhost", "::1", settings.host]
        if settings.allow_remote:
            hosts = [ANY]
        config = uvicorn.Config(
            make_app(self._service, token, hosts),
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http=BoundedConnection,
            ws="none",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}, name="local-api", daemon=True
        )
        thread.start()
        deadline = time.monotonic() + _START_S
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise ServiceError(f"its local service on {settings.listen} does not come up")
            time.sleep(0.005)
        self._server, self._thread = server, thread
        told = {"url": url, "token": token, "pid": os.getpid()}
        replace_file(self._file, json.dumps(told).encode(), private=True)
        return url

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(_START_S)
            self._file.unlink(missing_ok=True)


def _register(service: NodeService, offer: Offer) -> Response:
    home, config = service.membership.home.path, service.membership.config
    organisation, view = config.organisation, service.private.view
    try:
        if not service.picture.reached:  # the own copy may not tell yet that the hospital has cells
            raise CoordinatorUnreachable(config.url, "it did not answer this node the last time")
        prepared = prepare(
            Path(offer.path),
            offer.schema_,
            organisation=organisation,
            hospital_key=ensure_hospital_key(
                home,
                service.membership.keyring.sealing,
                begun=has_cells(organisation, service.picture.state, view),
            ),
            cells=view.cells,
            epsilon=offer.epsilon,
            delta=offer.delta,
            calendar=Calendar(
                home / PATIENTS,
                datetime.now(UTC).date(),
                said=service.registrations_said,
                period=offer.blocks,
                new_patients=offer.new_patients,
            ),
            purposes=offer.purposes,
            individual=offer.individual,
            renewing=Asked.of(
                offer.refresh_days,
                service.private.now_ms(),
                PromiseBook.named(service.settings.promises),
            ),
        )
        record = service.register_dataset(prepared)
    except (DatasetError, RegistrationRefused, PromiseExceeded) as error:
        return _says(400, error)
    except (NodeError, LedgerError, TimeoutError) as error:
        return _says(503, error)
    return JSONResponse(
        {
            "dataset": record.name,
            "registration": record.registration,
            "snapshot": record.snapshot,
            "cells": [use.cell for use in prepared.dataset.cells],
            "left_out": prepared.left_out,
            "shortened": prepared.shortened,
        }
    )


def _says(status: int, error: Exception) -> Response:
    return JSONResponse({"error": type(error).__name__, "reason": str(error)}, status)


def _illness(picture: Picture) -> str | None:
    """Why the node will not work again by itself, in a word or two; None while it can."""
    if picture.fork is not None:
        return "forked"
    if picture.broken_promise is not None:
        return "promise broken"
    if picture.newer_protocol is not None:
        return f"needs a release that knows protocol {picture.newer_protocol}"
    if standing_quorum(picture.state, picture.final_size).lost:
        return "the witness quorum is lost"
    if picture.unsound is not None:
        return f"self-test failed: {picture.unsound}"
    return None
