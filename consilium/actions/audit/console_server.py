"""Serving the console until it is stopped."""

from __future__ import annotations

import socket

import uvicorn

from audit.console.app import LOOPBACK, create_app
from audit.verification.sources import parse_trust
from consilium.errors import InputError
from consilium.terminal import note
from ledger.exchange.bounded_http import BoundedConnection


def serve(at: str, trust: str | None, *, host: str, port: int, names: tuple[str, ...] = ()) -> None:
    """Serve a copy's console until SIGINT or SIGTERM.

    Args:
        at: what ``audit.verification.sources.open_copies`` takes.
        trust: genesis file or federation id, or None.
        host: address to listen on, and the name it answers to beside this machine's own.
        port: 0 takes a free one.
        names: further names by which browsers reach it, such as a proxy's.

    Raises:
        InputError: the address cannot be taken.
        BadTrustAnchor: the anchor is none.
    """
    anchor = None if trust is None else parse_trust(trust)
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port} ({error.strerror})") from None
    app = create_app(at, trust=anchor, hosts=[*LOOPBACK, host, *names])
    shown = f"[{host}]" if ":" in host else host
    note(f"http://{shown}:{listener.getsockname()[1]}/  (Ctrl-C stops it)")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=BoundedConnection,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listener])
