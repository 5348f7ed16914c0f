"""The coordinator as a process: opened, served, closed.

`Coordinator` is everything behind one home: lock, store, sequencer, conductor, blobs, application.
`run` serves it until a signal, prints one ready line (JSON) on standard output, and logs structured
lines on standard error. No secret is logged; keys arrive opened, the passphrase never comes here.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from types import FrameType, TracebackType
from typing import Self

import orjson
import structlog
import uvicorn
from fastapi import FastAPI
from structlog.tracebacks import ExceptionDictTransformer

from coordinator.errors import Halted, HomeUnusable
from coordinator.http.api import Services, create_app
from coordinator.http.metrics import Metrics
from coordinator.http.tls import check_tls
from coordinator.http.upload_journal import UploadJournal
from coordinator.http.uploads import Uploads, free_bytes
from coordinator.refilling.home import require_no_refill
from coordinator.renewing import settle, snapshot_file
from coordinator.rounds.aggregate import Aggregator
from coordinator.rounds.agreed_clock import AgreedClock
from coordinator.rounds.conduct import Conductor
from coordinator.sequencing.sequencer import Sequencer
from coordinator.sequencing.waking import Waker
from coordinator.settings import BLOBS, HEAD, UPLOADS, CoordinatorSettings
from ledger.copies.blobs import BlobStore
from ledger.copies.erasing import CardEraser
from ledger.copies.store import LogStore, exclusive_lock
from ledger.copies.stored_tiles import StoredTiles
from ledger.exchange.bounded_http import BoundedConnection
from ledger.exchange.http_auth import NonceCache
from ledger.formats.keys import KeyRing

KEEP_ALIVE_S = 75
"""Longer than our clients keep a connection, so that none dies under a request."""
GRACE_S = 10
STUCK_S = 120.0
"""What no write takes; a database's own patience for locks is a quarter of it."""

_log = structlog.get_logger("coordinator.service")


class Coordinator:
    """A coordinator behind its home. Use as a context manager.

    Args:
        settings: of the home.
        keyring: its keys.
        coming: new ones, used where the log knows them (``renewing``).
        certificate_ends: when the TLS certificate that it is served with does.

    Raises:
        AlreadyRunning: another process serves this log.
        RolledBack, LedgerError: the database cannot be trusted; says why.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        keyring: KeyRing,
        coming: KeyRing | None = None,
        *,
        certificate_ends: datetime | None = None,
    ) -> None:
        self.settings = settings
        self.stuck = False
        """Whether the sequencer's thread does not come back; then nothing here can be closed."""
        require_no_refill(settings.home)
        clock = AgreedClock()
        with ExitStack() as undo:
            store = LogStore.open(settings.database_url)
            undo.callback(store.close)
            undo.enter_context(exclusive_lock(settings.database_url))
            self.sequencer = Sequencer(
                store,
                keyring,
                settings.federation,
                head=settings.home / HEAD,
                snapshots=snapshot_file(settings, keyring),
                quota=settings.quota,
                final_interval_s=settings.final_interval_s,
                merge_delay_s=settings.merge_delay_s,
                may_say=clock.may_say,
            )
            state = self.sequencer.view.state
            self.sequencer.use_keys(settle(settings.home, state, keyring, coming))
            if not self.sequencer.speaks:
                _log.warning(
                    "silent: the coordinator's entry key has ended, and no round opens; ask for new "
                    "ones: consilium coordinator new-keys"
                )
            self.tiles = StoredTiles(store)
            self.blobs = BlobStore(settings.home / BLOBS, limit=settings.blob_limit)
            self._eraser = CardEraser(self.blobs)
            self._forget_cards()
            self.sequencer.on_change(self._forget_cards)
            self.blobs.expire_uploads(time.time() - settings.upload_days * 86_400)
            self._undo = undo.pop_all()
        self.waker = Waker()
        aggregator = Aggregator(self.blobs, self.sequencer.history)
        uploads = Uploads(
            settings.upload_limits,
            self._names,
            free=lambda: free_bytes(settings.home),
            journal=UploadJournal(settings.home / UPLOADS),
        )
        uploads.resume(self.blobs)
        self.conductor = Conductor(self.sequencer, aggregator, clock=clock)
        self.app: FastAPI = create_app(
            Services(
                self.sequencer,
                self.blobs,
                self.waker,
                Metrics(),
                NonceCache(),
                uploads,
                self.tiles,
                rounds=lambda: self.conductor.trouble,
                certificate_ends=certificate_ends,
                clock=clock,
            )
        )

    @property
    def failed(self) -> str | None:
        """Why this process is to end and another to begin from what is stored, or None.

        A database that does not answer has failed, too: whoever waits for it is told so.
        """
        if not self.stuck and self.sequencer.busy_s() > STUCK_S:
            self.stuck = True
            self.sequencer.give_up(f"the database has not answered for {STUCK_S:g} seconds")
        view = self.sequencer.view
        return view.stopped if view.failed else None

    def _forget_cards(self) -> None:
        """In the sequencer's thread, once the entry that erases is durable."""
        self._eraser.look(self.sequencer.view.state)

    def _names(self, sha256: str) -> bool:
        """Whether an entry names a blob."""
        return bool(self.sequencer.history.uses(sha256))

    def start(self) -> None:
        """Take entries and move rounds."""
        self.sequencer.start()
        self.conductor.start()

    def close(self) -> None:
        """Finish what is under way and give the lock back."""
        self.sequencer.close()
        self.conductor.close()
        self._undo.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Server(uvicorn.Server):
    """uvicorn that lets waiting requests go when it is told to stop, and stops with a log that failed."""

    def __init__(self, coordinator: Coordinator) -> None:
        settings = coordinator.settings
        super().__init__(
            uvicorn.Config(
                coordinator.app,
                host=settings.host,
                port=settings.port,
                loop="uvloop" if sys.platform != "win32" else "asyncio",
                http=BoundedConnection,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                ssl_certfile=settings.tls_certificate,
                ssl_keyfile=settings.tls_key,
            )
        )
        self._coordinator = coordinator

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to go, asked ten times a second."""
        return await super().on_tick(counter) or self._coordinator.failed is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wake who waits for news, then stop as uvicorn does."""
        self._coordinator.waker.close()
        await super().shutdown(sockets)


def allow_connections(most: int = 65_536) -> None:
    """Let the process hold as many connections as the machine's rules let it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run(settings: CoordinatorSettings, keyring: KeyRing, coming: KeyRing | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: of the home.
        keyring: its keys.
        coming: new ones that may be in force.

    Raises:
        HomeUnusable: the address cannot be taken, or the certificate cannot serve.
        CoordinatorError, LedgerError: the log cannot be served; says why.
        Halted: it could, and failed; whoever waited was answered.
    """
    log_to_stderr()
    ends = check_tls(settings)
    allow_connections()
    listener = listen(settings)
    try:
        with Coordinator(settings, keyring, coming, certificate_ends=ends) as coordinator:
            host, port = listener.getsockname()[:2]
            scheme = "http" if settings.tls_certificate is None else "https"
            ready = {
                "event": "ready",
                "url": f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}",
                "federation": settings.federation,
                "size": coordinator.sequencer.view.size,
            }
            # The replayed log stays: the collector need not look through it again and again.
            gc.collect()
            gc.freeze()
            server = Server(coordinator)

            def stop(number: int, frame: FrameType | None) -> None:
                server.should_exit = True

            # uvicorn takes the signals over, stops in order and raises them anew: for this, which
            # also hears the one that comes before uvicorn has.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, stop)
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(_serve(server, listener, ready))
            if coordinator.stuck:
                _log.error("ended", reason=coordinator.failed)
                os._exit(1)  # what waits for a database cannot be closed
            _log.info("closed", size=coordinator.sequencer.view.size)
            if coordinator.failed is not None:
                raise Halted(coordinator.failed)
    finally:
        listener.close()


async def _serve(server: Server, listener: socket.socket, ready: dict[str, object]) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    if server.started:
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
        sys.stdout.flush()
    await serving


def log_to_stderr(level: int = logging.INFO) -> None:
    """Structured lines in JSON on standard error, ours and the server's.

    An error is logged with its frames and without their variables: keys, tokens and members' bytes are among them.
    """
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
        structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=logging.WARNING,
        stream=sys.stderr,
        format='{"level": "%(levelname)s", "logger": "%(name)s", "event": "%(message)s"}',
        force=True,
    )


def listen(settings: CoordinatorSettings) -> socket.socket:
    """The coordinator's address, taken.

    Raises:
        HomeUnusable: it cannot be.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise HomeUnusable(
            settings.home,
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); "
            "choose another --port",
        ) from None
    return listener
