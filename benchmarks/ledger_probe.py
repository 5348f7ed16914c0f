"""One measurement of the ledger benchmark in a process of its own, so that its memory is its own.

python -m benchmarks.ledger_probe open|verify-1|verify-2 FEDERATION DATABASE-URL
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.rules.reverify import replay_rows
from ledger.rules.signatures import SignatureWorkers


def probe(mode: str, federation: str, url: str) -> dict[str, float]:
    """Open or verify a whole log.

    Returns:
        Seconds it took (without starting workers), and this process's peak memory before and after.
    """
    store = LogStore.open(url)
    before = _peak_mib()
    if mode == "open":
        began = time.perf_counter()
        Replica.open(store, federation)
        spent = time.perf_counter() - began
    elif mode == "verify-1":
        began = time.perf_counter()
        replay_rows(store.rows(), store=store)
        spent = time.perf_counter() - began
    else:
        with SignatureWorkers(2) as workers:
            workers.warm()
            began = time.perf_counter()
            replay_rows(store.rows(), workers, store=store)
            spent = time.perf_counter() - began
    return {"seconds": spent, "rss_mib": _peak_mib(), "rss_before_mib": before}


def _peak_mib() -> float:
    """Peak resident memory. ``getrusage`` would give our parent's: it survives exec."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(probe(*sys.argv[1:])))
