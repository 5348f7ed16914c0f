"""What the outside sees of a node: each request that it sends, each line that it logs, each page that it shows.

`Watch` stands in for the transport of a node's HTTP client, and keeps every request before it leaves:
method, address, headers, body. `Outside` is all that was seen of one node, in a form in which two nodes can be
compared: identifiers, keys, signatures and hashes (random or of random things, always of one length)
become their kind and length, and the k-th different one of a kind becomes "the k-th", so that whether
two of them are equal is compared too; times and positions in the log, which depend on all members
together, become a word. Everything else stays as it is: words, numbers, lengths, order.

What is paid for is the content of a vector, and nothing else about it: its length, when it comes after what, and
that it comes at all are compared.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import structlog

from ledger.entries.entry import parse_leaf
from ledger.errors import LedgerError
from ledger.experiment.tensors import UPDATE_MAGIC

_HEX = re.compile(r"[0-9a-f]{12,}")
_LONG = re.compile(r"[0-9a-f]{12,}|[A-Za-z0-9+/_-]{40,}={0,2}")
_PUBLIC = frozenset({"at_ms", "size", "index", "seen", "final_size", "witnesses", "until_ms"})
"""Positions in the log and times: functions of the log and the clock, not of a hospital's rows."""
_POLLS = ("GET /v1/log", "POST /v1/cosignatures")
"""How often these come depends on when others say something; their form is compared, not their number."""


@dataclass
class Names:
    """Replaces what is random, in one channel: the k-th different value becomes "number k"."""

    own: str
    numbered: bool = True
    seen: dict[str, str] = field(default_factory=dict)

    def plain(self, value: Any, name: str = "", pattern: re.Pattern[str] = _LONG) -> Any:
        """Put a value into comparable form."""
        if name in _PUBLIC:
            return "public"
        if isinstance(value, Mapping):
            return {key: self.plain(one, key, pattern) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(one, name, pattern) for one in value]
        if isinstance(value, str):
            text = re.sub(r"(127\.0\.0\.1|localhost):\d+", "HOST", value).replace(self.own, "SELF")
            return pattern.sub(lambda found: self._number(found[0]), text)
        return value

    def _number(self, text: str) -> str:
        kind = "hex" if re.fullmatch("[0-9a-f]+", text) else "text"
        length = f"<{kind} of {len(text)}"
        if not self.numbered:
            return f"{length}>"
        return self.seen.setdefault(text, f"{length}, number {len(self.seen)}>")


class Outside:
    """See the module's first lines.

    Attributes:
        requests: every request but polls and cosignatures, in order.
        polls: the different forms of those.
        logs: every line that the node's own code logs, in order, by the part that says it.
        pages: what the local API says at the end.
        vectors: bodies that are charged for, in order: what the comparison leaves out.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[Any] = []
        self.polls: set[str] = set()
        self.logs: dict[str, list[Any]] = {}
        self.pages: dict[str, Any] = {}
        self.vectors: list[bytes] = []
        self._names = Names(name)
        self._forms = Names(name, numbered=False)
        self._log_names: dict[str, Names] = {}
        self._lock = threading.Lock()

    @property
    def seen(self) -> dict[str, Any]:
        """Everything that must be equal between neighbours."""
        return {
            "requests": self.requests,
            "polls": sorted(self.polls),
            "logs": self.logs,
            "pages": self.pages,
            "vectors": [len(vector) for vector in self.vectors],
        }

    def request(self, request: httpx.Request) -> None:
        """Keep a request in comparable form."""
        with self._lock:
            body = request.read()
            path = request.url.raw_path.decode()
            poll = f"{request.method} {path.split('?')[0]}" in _POLLS
            names = self._forms if poll else self._names
            path = re.sub(r"(size|final|after|wait)=\d+", r"\1=public", path)
            seen = {
                "line": f"{request.method} {names.plain(path, pattern=_HEX)}",
                "headers": [_header(name, value, names) for name, value in request.headers.items()],
                "body": self._body(body, names),
            }
            if poll:
                self.polls.add(json.dumps(seen))
            elif not self.requests or self.requests[-1] != seen:  # the same bytes, sent again
                self.requests.append(seen)

    def log(self, part: str, event: Mapping[str, Any]) -> None:
        """Keep a log line in comparable form."""
        with self._lock:
            names = self._log_names.setdefault(part, Names(self.name))
            self.logs.setdefault(part, []).append(names.plain(dict(event)))

    def page(self, path: str, text: str) -> None:
        """Keep what a page of the local API says."""
        lines = [line for line in text.splitlines() if "_log_" not in line]
        plain: Any = json.loads(text) if text.startswith("{") else lines
        self.pages[path] = self._forms.plain(plain)

    def _body(self, body: bytes, names: Names) -> Any:
        if body.startswith(UPDATE_MAGIC):
            self.vectors.append(body)
            return {"charged vector": len(body)}
        try:
            return {"entry": names.plain(json.loads(parse_leaf(body).raw))}
        except LedgerError:
            pass  # no entry
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return {"bytes": len(body)}
        return names.plain(json.loads(text) if text.startswith("{") else text)


def _header(name: str, value: str, names: Names) -> Any:
    if name == "content-length":
        return name  # the body is compared as a whole
    if name in ("signature", "signature-input", "content-digest"):
        return [name, len(value)]
    return [name, names.plain(value)]


class Watch(httpx.BaseTransport):
    """Keeps every request of one node, and lets it go on."""

    def __init__(self, inner: httpx.BaseTransport, outside: Outside) -> None:
        self._inner = inner
        self._outside = outside

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._outside.request(request)
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


class LogWatch:
    """A structlog processor that hands each line to the node whose part says it, and prints nothing."""

    def __init__(self) -> None:
        self.parts: dict[int, tuple[str, Outside]] = {}

    def __call__(self, logger: Any, method: str, event: Any) -> Any:
        frame = sys._getframe()
        while frame is not None:
            found = self.parts.get(id(frame.f_locals.get("self")))
            if found is not None:
                part, outside = found
                outside.log(part, {"level": method, **event})
                break
            frame = frame.f_back  # type: ignore[assignment]
        raise structlog.DropEvent
