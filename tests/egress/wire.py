"""HTTP/1.1 requests in what a tap kept of one connection, with the place of every byte.

Strict on purpose: what is not a request with a body of a stated length is not parsed, and whoever counts finds its
bytes left over. Not a general parser: our client sends no chunked bodies and no trailers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(rb"(GET|HEAD|PUT|POST) ([!-~]+) HTTP/1\.1")
_HEADER = re.compile(rb"([a-z0-9-]+): ?(.*)")


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        method, target: of its first line.
        headers: name in lower case, value; in order.
        head_bytes: of line and headers, line ends included.
        body: its content.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    head_bytes: int
    body: bytes


def requests(stream: bytes) -> Iterator[Request | bytes]:
    """Yield the requests of one connection in order, and at last the bytes that are none."""
    at = 0
    while at < len(stream):
        end = stream.find(b"\r\n\r\n", at)
        request = _parse(stream[at:end]) if end >= 0 else None
        if request is None:
            yield stream[at:]
            return
        method, target, headers = request
        lengths = [value for name, value in headers if name == "content-length"]
        length = int(lengths[0]) if len(lengths) == 1 and lengths[0].isdigit() else 0
        begin = end + 4
        if len(lengths) > 1 or begin + length > len(stream):
            yield stream[at:]
            return
        yield Request(method, target, headers, begin - at, stream[begin : begin + length])
        at = begin + length


def _parse(head: bytes) -> tuple[str, str, tuple[tuple[str, str], ...]] | None:
    first, *lines = head.split(b"\r\n")
    line = _LINE.fullmatch(first)
    found = [
        _HEADER.fullmatch(one[: one.find(b":")].lower() + one[one.find(b":") :]) for one in lines
    ]
    if line is None or not all(found):
        return None
    headers = tuple((m[1].decode(), m[2].decode("latin-1")) for m in found if m is not None)
    return line[1].decode(), line[2].decode(), headers
