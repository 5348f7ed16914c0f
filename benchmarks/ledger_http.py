"""Submissions to a real coordinator over loopback, beside an empty POST to the same server.

The coordinator runs in a process of its own (``python -m benchmarks.ledger_http HOME``) as it does
in use: uvicorn, its application, SQLite. One route is added, which answers an empty POST with
nothing. The client writes prepared requests to plain sockets, so that it costs little.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fastapi import Request, Response

from benchmarks.ledger_workload import COORDINATOR, Workload
from coordinator.service import Coordinator, Server, log_to_stderr
from coordinator.settings import CoordinatorSettings
from ledger.exchange.messages import LEAF_TYPE

EMPTY = "/benchmark/empty"
HOSPITALS = 64
ROUNDS = 27
"""Short ones: empty and full requests take turns, since other work on the machine comes and goes."""


@dataclass(frozen=True)
class HttpRates:
    """Requests per second in rounds taken in turn, over one connection and over 64."""

    empty_1: tuple[float, ...]
    submit_1: tuple[float, ...]
    empty_64: tuple[float, ...]
    submit_64: tuple[float, ...]

    def ratios(self, connections: int) -> list[float]:
        """Submissions beside the empty requests just before them, round by round, least first."""
        empty, submit = (
            (self.empty_1, self.submit_1) if connections == 1 else (self.empty_64, self.submit_64)
        )
        return sorted(ours / theirs for ours, theirs in zip(submit, empty, strict=True))


def say_rates(
    rates: HttpRates,
    commits_per_s: float,
    fsyncs_per_s: float,
    say: Callable[[str, float, str], None],
) -> None:
    """Medians, the spread of the ratios, and what of a lone submission nobody could save.

    Args:
        rates: as measured.
        commits_per_s: raw commits of one row on the same disk, one after another.
        fsyncs_per_s: raw flushes of one page there.
        say: prints a line.
    """
    for name in ("empty_1", "submit_1", "empty_64", "submit_64"):
        say(f"http: {name}, median", median(getattr(rates, name)), "requests/s")
    for connections in (1, 64):
        ratios = rates.ratios(connections)
        which = f"http: submit of empty, {connections} connections"
        say(f"{which}, median", 100 * median(ratios), "%")
        say(f"{which}, least", 100 * ratios[0], "%")
        say(f"{which}, most", 100 * ratios[-1], "%")
    submit = 1e6 / median(rates.submit_1)
    say("http: one submit, 1 connection", submit, "us")
    say("http: of that an empty request", 1e6 / median(rates.empty_1), "us")
    say("http: of that a raw commit of one row", 1e6 / commits_per_s, "us")
    say("http: of which a raw flush", 1e6 / fsyncs_per_s, "us")


def measure(work: Workload, home: Path, requests: int) -> HttpRates:
    """Serve ``home``, whose database holds the workload's setup, and submit to it.

    Args:
        work: with `HOSPITALS` hospitals.
        home: of the coordinator.
        requests: to be made over one connection; four times as many over 64.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ledger_http", str(home), work.federation],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    assert server.stdout is not None
    try:
        port = int(json.loads(server.stdout.readline())["port"])
        nodes = [f"{name}-node" for name in work.names]
        empty = _request(EMPTY, b"")

        def entries(handle: str, count: int) -> list[bytes]:
            return [_request("/v1/entries", work.single(handle)) for _ in range(count)]

        part, share = requests // ROUNDS, 4 * requests // len(nodes) // ROUNDS
        _run(port, [[empty] * 200])
        rounds = [
            (
                _run(port, [[empty] * part]),
                _run(port, [entries(nodes[0], part)]),
                _run(port, [[empty] * share for _ in nodes]),
                _run(port, [entries(node, share) for node in nodes]),
            )
            for _ in range(ROUNDS)
        ]
    finally:
        server.terminate()
        server.wait(15)
    return HttpRates(*zip(*rounds, strict=True))


def _request(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {LEAF_TYPE}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _run(port: int, connections: Sequence[Sequence[bytes]]) -> float:
    """Make every connection's requests one after another; returns requests per second."""

    async def one(requests: Sequence[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 2"):
                raise RuntimeError(f"the server answered {head[:200]!r}")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            if length:
                await reader.readexactly(int(length))
        writer.close()

    async def everything() -> None:
        await asyncio.gather(*map(one, connections))

    began = time.perf_counter()
    asyncio.run(everything())
    return sum(map(len, connections)) / (time.perf_counter() - began)


def _serve(home: Path, federation: str) -> None:
    log_to_stderr(logging.ERROR)  # the workload's blobs exist in name only, and it is told so
    settings = CoordinatorSettings(
        federation=federation, home=home, quota_per_s=1e9, quota_burst=1e9
    )
    with Coordinator(settings, Workload(HOSPITALS, 1).ring(COORDINATOR)) as coordinator:

        @coordinator.app.post(EMPTY)
        async def empty(request: Request) -> Response:
            await request.body()
            return Response(status_code=204)

        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        gc.collect()
        gc.freeze()  # as ``run`` does
        Server(coordinator).run(sockets=[listener])


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
