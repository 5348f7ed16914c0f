"""One measurement of the ledger benchmark in a process of its own, so that its memory is its own.

    python -m benchmarks.ledger_probe verify CORES ENTRIES FEDERATION DATABASE-URL
    python -m benchmarks.ledger_probe replay|open FOLDER FEDERATION DATABASE-URL
    python -m benchmarks.ledger_probe coordinator-replay|coordinator-open FOLDER FEDERATION DATABASE-URL

``verify`` checks a log's first entries from their rows: strict parse, admission, signature, fold, tree.
Raw Ed25519 checks of the same entries, with key objects kept, are timed before and after, in seconds of
processor time as well, since other work on the machine comes and goes. ``replay`` opens a copy from its first byte, on all cores,
and writes its snapshot into FOLDER; ``open`` opens it from there. ``coordinator-`` before either opens the
log as its coordinator does, which keeps more beside the state and signs nothing here.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from pathlib import Path

from nacl.signing import VerifyKey

from benchmarks.ledger_log import filled
from benchmarks.ledger_workload import COORDINATOR
from coordinator.sequencing.sequencer import Sequencer
from coordinator.settings import HEAD
from ledger.copies.replica import Replica
from ledger.copies.snapshot import SnapshotFile
from ledger.copies.store import LogStore
from ledger.formats.keys import SigningKey, signed_message
from ledger.rules.reverify import replay_rows
from ledger.rules.signatures import SignatureWorkers

RAW = 1500
"""Entries whose signatures are checked raw."""


def verify(cores: int, entries: int, url: str) -> dict[str, float]:
    """Verify the first entries of a log.

    Returns:
        Seconds it took (without starting workers), this process's processor time an entry, that of a
        raw check (the better of before and after), and its peak memory before and after.
    """
    store = LogStore.open(url)
    raw = _raw(store)
    before = _peak_mib()
    with SignatureWorkers(cores) as workers:
        workers.warm()
        began, busy = time.perf_counter(), time.process_time()
        log = replay_rows(store.rows(0, entries), workers, store=store)
        spent, busy = time.perf_counter() - began, time.process_time() - busy
    after = _peak_mib()
    if log.size != entries:
        raise RuntimeError(f"the log has {log.size} entries, not {entries}")
    return {
        "seconds": spent,
        "cpu_s_per_entry": busy / entries,
        "cpu_s_raw": min(raw, _raw(store)),
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


def _raw(store: LogStore) -> float:
    rows = list(islice(store.rows(), RAW))
    state = replay_rows(rows).state
    keys = {key: VerifyKey(bytes.fromhex(held.public)) for key, held in state.keys.items()}
    signed = [(keys[row.key], signed_message("entry", row.body), row.signature) for row in rows]
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for key, message, signature in signed:
            key.verify(message, signature)
        best = min(best, time.process_time() - began)
    return best / len(signed)


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
