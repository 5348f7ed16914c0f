"""A service for this machine answers under its own names only (DNS rebinding).

A page of a stranger's site may have its own name resolve to this machine's address, and then read what a
service here answers to a browser. The name that the browser asks for gives it away: it stands in the
``Host`` header (RFC 9110 section 7.2), and a name that is not ours gets a refusal. Starlette's own check cuts
the header at its first colon, and so refuses every IPv6 address (RFC 3986 section 3.2.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

ANY = "*"
"""In place of a name: answer under every one."""


class NamedHost:
    """ASGI middleware: 400 for a ``Host`` that is none of ours.

    Args:
        app: what answers to the others.
        names: host names and addresses, IPv6 with or without brackets, without ports; or `ANY`.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = {_plain(name) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "http" and ANY not in self._names:
            host = Headers(scope=scope).get("host", "")
            if _plain(_without_port(host)) not in self._names:
                refusal = PlainTextResponse("this service does not answer to that host name\n", 400)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]


def _plain(name: str) -> str:
    """One spelling for each name: an address as Python writes it, a name in lower case."""
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        return str(ip_address(bare))
    except ValueError:
        return name.lower()
