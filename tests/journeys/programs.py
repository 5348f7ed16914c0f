"""What the killed processes run: the product's own services, without their command line."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

from coordinator import service as coordinator_service
from coordinator import settings as coordinator_settings
from ledger.copies.store import LogStore
from ledger.exchange.home import MemberHome
from node.service import main as node_main
from node.service import settings as node_settings
from tests.federation_log import COORDINATOR, ring_of


def coordinator(home: str, port: str) -> None:
    """``consilium coordinator run`` with the test's keys and without a quota."""
    settings = coordinator_settings.load_settings(
        Path(home), port=int(port), quota_per_s=1e6, quota_burst=1e6, final_interval_s=0.02
    )
    coordinator_service.run(settings, ring_of(COORDINATOR, "coordinator"))


def node(home: str, passphrase: str) -> None:
    """``consilium node run``."""
    member = MemberHome(Path(home)).open(passphrase.encode())
    node_main.run(member, node_settings.load_settings(Path(home)))
    member.close()


def hasty_coordinator(home: str, port: str) -> None:
    """A coordinator that answers a moment before it writes: what a storm must find."""
    waiting: queue.SimpleQueue[tuple[object, ...]] = queue.SimpleQueue()
    append = LogStore.append

    def write() -> None:
        while True:
            arguments = waiting.get()
            time.sleep(0.02)
            append(*arguments)  # type: ignore[arg-type]

    def promise(*arguments: object) -> None:
        waiting.put(arguments)

    LogStore.append = promise  # type: ignore[method-assign, assignment]
    threading.Thread(target=write, daemon=True).start()
    coordinator(home, port)
