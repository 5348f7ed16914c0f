"""Services of the demo as processes of this machine: started, waited for, and stopped."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from consilium.errors import RunFailed

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0
_TAIL = 2000


@dataclass
class Service:
    """A ``consilium ... run`` process.

    Attributes:
        name: for messages.
        log: where its standard error goes.
    """

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    def ready(self) -> dict[str, Any]:
        """Wait for the one line that a service prints when it serves.

        Raises:
            RunFailed: it ended, or did not come up in time.
        """
        output = self.process.stdout
        assert output is not None
        line = _read_line(output, time.monotonic() + START_TIMEOUT_S)
        try:
            found = json.loads(line)
        except ValueError:
            raise self._failed("did not come up") from None
        if not isinstance(found, dict):
            raise self._failed("said something else than that it is ready")
        return found

    def check(self) -> None:
        """Return while it runs.

        Raises:
            RunFailed: it has ended.
        """
        code = self.process.poll()
        if code is not None:
            raise self._failed(f"ended with status {code}")

    def _failed(self, what: str) -> RunFailed:
        tail = self.log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
        return RunFailed(f"{self.name} {what}; see {self.log}\n{tail}")


@dataclass
class Services:
    """Services that end together. Use as a context manager."""

    logs: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    running: list[Service] = field(default_factory=list)

    def start(self, name: str, arguments: Sequence[str]) -> Service:
        """Start ``consilium`` with these arguments; returns before it is ready."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "consilium", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **self.environment},
                # A Ctrl-C is for the demo, which then stops its services in order.
                start_new_session=True,
            )
        service = Service(name, log, process)
        self.running.append(service)
        return service

    def check(self) -> None:
        """Return while all of them run; else raise RunFailed."""
        for service in self.running:
            service.check()

    def stop(self) -> None:
        """End all of them: politely, the last started first, then by force."""
        for service in reversed(self.running):
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for service in self.running:
            try:
                service.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()
            if service.process.stdout is not None:
                service.process.stdout.close()
        self.running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    """A port of this machine that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _read_line(output: IO[bytes], deadline: float) -> bytes:
    """One line from a pipe, or what came of it until the deadline or its end."""
    line = bytearray()
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        readable, _, _ = select.select([output], [], [], max(0.0, left))
        piece = os.read(output.fileno(), 1) if readable else b""
        if not piece:
            break
        line += piece
    return bytes(line)
