"""A real coordinator on loopback for a test: a persisted `Federation`, uvicorn in a thread.

``Serving`` keeps the federation's in-memory copy in step: ``say`` signs with the copy, submits over
HTTP and takes what the log then holds, the coordinator's own entries included.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coordinator.service import Coordinator, Server
from coordinator.settings import CoordinatorSettings
from ledger.entries.entry import parse_leaf
from ledger.entries.operations.vocabulary import Operation
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.messages import Receipt
from ledger.formats.checkpoint import cosign
from ledger.formats.witness import witness_name
from tests.federation import COORDINATOR, Federation
from tests.patience import PATIENCE_S


class Serving:
    """A running coordinator. Use as a context manager."""

    def __init__(
        self,
        federation: Federation,
        home: Path,
        *,
        certificate_ends: datetime | None = None,
        **settings: Any,
    ) -> None:
        self.federation = federation
        self.home = home
        if not (home / "ledger.db").exists():
            federation.persist(home).close()
        self.settings = CoordinatorSettings(
            federation=federation.id, home=home, **{"final_interval_s": 0.0, **settings}
        )
        self.coordinator = Coordinator(
            self.settings, federation.rings[COORDINATOR], certificate_ends=certificate_ends
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = Server(self.coordinator)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        sequencer = self.coordinator.sequencer
        size = sequencer.view.size
        greets = sequencer.view.final_size < size and sequencer.speaks
        self.coordinator.start()
        self._thread.start()
        while not self._server.started:
            time.sleep(0.002)
        self.follow()
        if greets:  # once our question agreed with its clock
            self.until(lambda: sequencer.view.size > size)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        self.coordinator.close()

    def client(self, handle: str | None = None) -> CoordinatorClient:
        """A connection of a member, or of a stranger."""
        key = None if handle is None else self.federation.rings[handle].request
        return CoordinatorClient(
            self.url,
            federation=self.federation.id,
            handle=handle,
            request_key=key,
            timeout_s=PATIENCE_S,
        )

    def follow(self) -> None:
        """Take what the log holds beyond our copy, as a researcher may."""
        members = self.federation.state.members.values()
        # Not one whose end may be among what comes: hospitals' members are the ones that tests revoke.
        anybody = max(
            (m for m in members if m.role != "coordinator" and m.revoked_at is None),
            key=lambda member: (member.role == "researcher", member.handle),
        )
        with self.client(anybody.handle) as client:
            while True:
                news = client.follow(self.federation.log.size, 2**40)
                for leaf in news.leaves:
                    self.federation.take(parse_leaf(leaf))
                if not news.leaves:
                    self.federation.now_ms = time.time_ns() // 1_000_000
                    return

    def say(self, handle: str, op: Operation) -> Receipt:
        """Say something over HTTP; an entry that came in between is followed first."""
        self.follow()
        with self.client() as client:
            receipt = client.submit(self.federation.entry(handle, op).leaf)
        self.follow()
        return receipt

    def cosign(self, *handles: str) -> None:
        """Let nodes cosign the newest checkpoint."""
        with self.client() as client:
            note = client.checkpoint()
            size = int(note.split(b"\n")[1])
            for handle in handles:
                origin = self.federation.origin
                witness = self.federation.rings[handle].witness
                line = cosign(note, witness, witness_name(origin, handle), int(time.time()))
                client.cosign(size, line)

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Wait for something that the coordinator does by itself."""
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, "it did not happen"
            time.sleep(0.005)
            self.follow()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._server.serve(sockets=[self._listener]))
