"""A witness outside the federation as a process: it looks at its logs, and answers requests.

Either or both: every so often it fetches each log that has an address; and it listens for
add-checkpoint requests and monitors (``ledger.exchange.witness_http``), with ``GET /healthz``: 200, or
503 once a log has forked or while one cannot be followed, with the reason.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from audit.errors import WitnessUnusable
from audit.witness.outside import Looked, OutsideWitness
from ledger.errors import LedgerError
from ledger.exchange.bounded_http import BoundedConnection
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.witness_http import add_witness_routes
from ledger.formats.tlog_policy import Log

_START_S = 60.0


class Report(Protocol):
    """Hears what each look found."""

    def __call__(self, log: Log, found: Looked | LedgerError) -> None:
        """Called after each look."""
        ...


@dataclass
class Health:
    """How the logs are, by origin; safe to read from any thread."""

    problems: dict[str, str] = field(default_factory=dict)


def look_once(
    witness: OutsideWitness, health: Health, report: Report, *, logs: Iterable[Log]
) -> None:
    """Look at each log that has an address."""
    for log in logs:
        if log.url is None:
            continue
        origin = log.key.name
        found: Looked | LedgerError
        try:
            with CoordinatorClient(log.url, federation="") as client:
                found = witness.look(log.key, client.tile)
        except LedgerError as error:
            found = error
        problem = found.problem if isinstance(found, Looked) else str(found)
        if problem is None:
            health.problems.pop(origin, None)
        else:
            health.problems[origin] = problem
        report(log, found)


def make_app(witness: OutsideWitness, health: Health) -> FastAPI:
    """The application of a witness that listens."""
    app = FastAPI(title="Consilium witness", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> PlainTextResponse:
        if witness.forks:
            places = ", ".join(str(place) for place in witness.forks)
            return PlainTextResponse(f"forked: {places}\n", 503)
        if health.problems:
            said = "".join(f"{origin}: {why}\n" for origin, why in health.problems.items())
            return PlainTextResponse(said, 503)
        return PlainTextResponse("ok\n")

    add_witness_routes(app, witness)
    return app


class Listening:
    """The application in a thread of its own, until `close`.

    Args:
        app: what answers.
        host: to listen on.
        port: 0 takes a free one.

    Raises:
        WitnessUnusable: the address cannot be taken.
    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        try:
            sock = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            )
        except OSError as error:
            raise WitnessUnusable(
                Path(f"{host}:{port}"), f"cannot be listened on ({error.strerror})"
            ) from None
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [sock]}, name="witness", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise WitnessUnusable(Path(self.url), "does not come up")
            time.sleep(0.005)

    def close(self) -> None:
        """Stop listening."""
        self._server.should_exit = True
        self._thread.join(_START_S)


def follow(
    witness: OutsideWitness,
    health: Health,
    report: Report,
    *,
    every_s: float,
    wait: Callable[[float], bool],
    stop_at_fork: bool,
) -> None:
    """Look at the logs again and again.

    Args:
        witness: whose logs.
        health: kept up to date.
        report: hears what each look found.
        every_s: seconds between looks.
        wait: waits so long; true when it is time to end.
        stop_at_fork: end at the first fork, for a witness that answers no requests.
    """
    while True:
        look_once(witness, health, report, logs=witness.logs)
        if (stop_at_fork and witness.forks) or wait(every_s):
            return
