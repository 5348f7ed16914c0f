"""Serving the refill's door until every node has shown its copy, or a signal."""

from __future__ import annotations

import signal
import sys
import threading
import time

import orjson
import uvicorn

from coordinator.http.tls import check_tls
from coordinator.refilling.door import create_door
from coordinator.refilling.refill import Refill
from coordinator.service import KEEP_ALIVE_S, listen, log_to_stderr
from coordinator.settings import CoordinatorSettings
from ledger.exchange.bounded_http import BoundedConnection


def listen_for_copies(settings: CoordinatorSettings, refill: Refill) -> None:
    """Take what nodes bring, until the refill is complete.

    Prints one ready line (JSON) on standard output; the address is that of ``coordinator run``.

    Raises:
        HomeUnusable: the address cannot be taken, or the certificate cannot serve.
    """
    log_to_stderr()
    check_tls(settings)
    listener = listen(settings)
    done = threading.Event()

    def progress() -> None:
        if refill.standing.complete:
            done.set()

    server = uvicorn.Server(
        uvicorn.Config(
            create_door(refill, progress),
            http=BoundedConnection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    previous = {
        number: signal.signal(number, lambda *_: done.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        host, port = listener.getsockname()[:2]
        ready = {"event": "refilling", "url": f"http://{host}:{port}", "size": refill.standing.size}
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
        sys.stdout.flush()
        progress()
        while not done.wait(0.5) and thread.is_alive():
            pass
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
