"""One measurement of the ledger benchmark in a process of its own, so that its memory is its own.

    python -m benchmarks.ledger_probe verify CORES ENTRIES FEDERATION DATABASE-URL
    python -m benchmarks.ledger_probe replay|open FOLDER FEDERATION DATABASE-URL
    python -m benchmarks.ledger_probe coordinator-replay|coordinator-open FOLDER FEDERATION DATABASE-URL

``verify`` checks a log's first entries from their rows: strict parse, admission, signature, fold, tree.
On one core it takes turns with raw Ed25519 checks, with key objects kept: other work on the machine comes and goes, and
both are means over the same seconds. What the raw checks take is left out of its time. ``replay`` opens a copy from its first byte, on all cores,
and writes its snapshot into FOLDER; ``open`` opens it from there. ``coordinator-`` before either opens the
log as its coordinator does, which keeps more beside the state and signs nothing here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from nacl.signing import VerifyKey

from benchmarks.ledger_log import filled
from benchmarks.ledger_workload import COORDINATOR
from coordinator.sequencing.sequencer import Sequencer
from coordinator.settings import HEAD
from ledger.copies.replica import Replica
from ledger.copies.snapshot import SnapshotFile
from ledger.copies.store import LogStore, Row
from ledger.formats.keys import SigningKey, signed_message
from ledger.rules.reverify import replay_rows
from ledger.rules.signatures import SignatureWorkers

RAW = 500
"""Entries whose signatures are checked raw."""
EVERY = 2000
"""Entries that are verified before they are checked again."""


def verify(cores: int, entries: int, url: str) -> dict[str, float]:
    """Verify the first entries of a log.

    Returns:
        Seconds it took (without starting workers), this process's processor time an entry, that of a
        raw check in turn with them (on one core only), and its peak memory before and after.
    """
    store = LogStore.open(url)
    raw = _Raw(store)
    before = _peak_mib()
    with SignatureWorkers(cores) as workers:
        workers.warm()
        rows = store.rows(0, entries)
        began, busy = time.perf_counter(), time.process_time()
        log = replay_rows(raw.between(rows) if cores == 1 else rows, workers, store=store)
        spent, busy = time.perf_counter() - began, time.process_time() - busy
    after = _peak_mib()
    if log.size != entries:
        raise RuntimeError(f"the log has {log.size} entries, not {entries}")
    return {
        "seconds": spent - raw.seconds,
        "cpu_s_per_entry": (busy - raw.cpu_s) / entries,
        "cpu_s_raw": raw.cpu_s / max(raw.checks, 1),
        "rss_mib": after,
        "rss_before_mib": before,
    }


def open_copy(folder: Path, federation: str, url: str, *, resume: bool) -> dict[str, float]:
    """Open a copy, and leave its snapshot."""
    snapshots = SnapshotFile.of(folder, SigningKey.from_seed(bytes(32)))
    if resume != snapshots.path.exists():
        raise RuntimeError(f"{snapshots.path} is {'not ' if resume else ''}there")
    store = LogStore.open(url)
    began = time.perf_counter()
    replica = Replica.open(store, federation, snapshots)
    spent = time.perf_counter() - began
    replica.save_snapshot()
    return {"seconds": spent, "rss_mib": _peak_mib(), "entries": replica.size}


def open_coordinator(folder: Path, federation: str, url: str, *, resume: bool) -> dict[str, float]:
    """Open a log for writing, and leave its snapshot; ``ledger_log.fill`` made it."""
    keyring = filled().ring(COORDINATOR)
    snapshots = SnapshotFile.of(folder, keyring.entry)
    if resume != snapshots.path.exists():
        raise RuntimeError(f"{snapshots.path} is {'not ' if resume else ''}there")
    store = LogStore.open(url)
    began = time.perf_counter()
    sequencer = Sequencer(store, keyring, federation, head=folder / HEAD, snapshots=snapshots)
    spent = time.perf_counter() - began
    sequencer.close()
    size = snapshots.path.stat().st_size / 2**20 if snapshots.path.exists() else 0.0
    return {"seconds": spent, "rss_mib": _peak_mib(), "snapshot_mib": size}


class _Raw:
    """Raw checks of a log's first signatures, and what they took."""

    def __init__(self, store: LogStore) -> None:
        rows = list(islice(store.rows(), RAW))
        keys = {
            key: VerifyKey(bytes.fromhex(held.public))
            for key, held in replay_rows(rows).state.keys.items()
        }
        self._signed = [
            (keys[row.key], signed_message("entry", row.body), row.signature) for row in rows
        ]
        self.checks = 0
        self.seconds = self.cpu_s = 0.0

    def between(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Check all of them after every so many rows: the machine is then as fast for both."""
        for row in rows:
            yield row
            yield from islice(rows, EVERY - 1)
            began, busy = time.perf_counter(), time.process_time()
            for key, message, signature in self._signed:
                key.verify(message, signature)
            self.seconds += time.perf_counter() - began
            self.cpu_s += time.process_time() - busy
            self.checks += len(self._signed)


def _peak_mib() -> float:
    """Peak resident memory. ``getrusage`` would give our parent's: it survives exec."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    what, first, second, *rest = sys.argv[1:]
    if what == "verify":
        print(json.dumps(verify(int(first), int(second), rest[-1])))
    elif what.startswith("coordinator-"):
        resume = what == "coordinator-open"
        print(json.dumps(open_coordinator(Path(first), second, rest[0], resume=resume)))
    else:
        print(json.dumps(open_copy(Path(first), second, rest[0], resume=what == "open")))
