"""A large log in a database: filled, verified on one and on two cores, opened; memory and bytes.

Every measurement runs in a process of its own (``ledger_probe``). Verification is timed three times on
each number of cores, in turn, and the best one counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from statistics import median

import sqlalchemy as sa

from benchmarks.ledger_workload import Workload, chunks
from ledger.copies.snapshot import WORTH
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import parse_leaf
from ledger.formats.merkle import leaf_hash

TIMED = 100_000
"""Entries that are verified for a rate; a longer log has the same."""
SIZES = (10_000, 100_000, 1_000_000)
"""Prefixes whose verification's memory is measured, as far as the log goes."""

_HOSPITALS = 16
_MANY_ROUNDS = 100_000
_COMMIT = 4096
_TURNS = 3

Say = Callable[[str, float, str], None]


@dataclass(frozen=True)
class LogFigures:
    """What verifying and opening a log reached.

    Attributes:
        of_raw: verification on one core, as a part of raw Ed25519 checks in the same process, by
            processor time; the median of some processes.
        rss_mib: peak memory of verifying on one core, by entries.
        replay_s: seconds in which a copy opens from its first byte, on all cores.
        open_s: from its snapshot.
    """

    verify_per_s_1: float
    verify_per_s_2: float
    of_raw: float
    rss_mib: dict[int, float]
    replay_s: float
    open_s: float
    bytes_per_entry: float


def measure(url: str, entries: int, say: Say) -> LogFigures:
    """Fill an empty database, or take a filled one as it is, and measure."""
    kind = sa.make_url(url).get_backend_name()
    began = time.perf_counter()
    federation = fill(url, entries)
    say(f"{kind}: filled with {entries:,} entries in", time.perf_counter() - began, "s")
    timed = min(entries, TIMED)
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(_TURNS):
        for cores, done in runs.items():
            done.append(_probe("verify", cores, timed, url))
    seconds = {cores: min(run["seconds"] for run in runs[cores]) for cores in runs}
    of_raw = median(run["cpu_s_raw"] / run["cpu_s_per_entry"] for run in runs[1])
    memory = {timed: runs[1][0]["rss_mib"]}
    for size in SIZES:
        if size <= entries and size not in memory:
            memory[size] = _probe("verify", 1, size, url)["rss_mib"]
    with tempfile.TemporaryDirectory() as folder:
        replayed = _probe("replay", folder, federation, url)
        opened = replayed if entries < WORTH else _probe("open", folder, federation, url)
    with tempfile.TemporaryDirectory() as folder:
        hub_replayed = _probe("coordinator-replay", folder, federation, url)
        hub = hub_replayed
        if entries >= WORTH:
            hub = _probe("coordinator-open", folder, federation, url)
    figures = LogFigures(
        verify_per_s_1=timed / seconds[1],
        verify_per_s_2=timed / seconds[2],
        of_raw=of_raw,
        rss_mib=dict(sorted(memory.items())),
        replay_s=replayed["seconds"],
        open_s=opened["seconds"],
        bytes_per_entry=_bytes(url) / entries,
    )
    say(f"{kind}: verify, 1 core", figures.verify_per_s_1, "entries/s")
    say(f"{kind}: verify, 1 core, of raw Ed25519 (CPU time)", 100 * figures.of_raw, "%")
    say(f"{kind}: verify, 2 cores", figures.verify_per_s_2, "entries/s")
    say(f"{kind}: verify, 2 cores, times 1 core", seconds[1] / seconds[2], "x")
    say(f"{kind}: memory before anything is verified", runs[1][0]["rss_before_mib"], "MiB")
    for size, mib in figures.rss_mib.items():
        say(f"{kind}: peak memory, verify {size:,} entries", mib, "MiB")
    say(f"{kind}: opening {entries:,} entries, all replayed", figures.replay_s, "s")
    say(f"{kind}: opening {entries:,} entries, from a snapshot", figures.open_s, "s")
    say(f"{kind}: its coordinator opening, all replayed", hub_replayed["seconds"], "s")
    say(f"{kind}: its coordinator opening, from a snapshot", hub["seconds"], "s")
    say(f"{kind}: its snapshot's size", hub["snapshot_mib"], "MiB")
    say(f"{kind}: bytes on disk per entry", figures.bytes_per_entry, "bytes")
    return figures


def large_name(entries: int) -> str:
    """A name for a log of so many entries. It changes with the entries, so that none is mixed up."""
    beginning = b"".join(Workload(_HOSPITALS, _MANY_ROUNDS).setup)
    return f"ledger_{entries}_{sha256(beginning).hexdigest()[:8]}"


def fill(url: str, entries: int) -> str:
    """Store the workload's first entries as far as they are not there; returns the federation's id.

    Entries are not judged: a verifier will.

    Raises:
        RuntimeError: something else is there.
    """
    work = filled()
    store = LogStore.open(url)
    size = store.size()
    beginning = [leaf_hash(leaf) for leaf in work.setup]
    if size and (size > entries or list(store.leaves(0, len(beginning))) != beginning):
        raise RuntimeError(f"{url} holds another log; choose another folder, or delete it")
    drawn = 0
    for chunk in chunks(islice(work.leaves(), entries if size < entries else 0), _COMMIT):
        rows = []
        drawn += len(chunk)
        if drawn <= size:  # a run that was broken off left whole chunks
            continue
        for leaf in chunk:
            entry = parse_leaf(leaf)
            body = entry.body
            digest = bytes.fromhex(entry.hash)
            rows.append(Row(entry.raw, entry.signature, digest, body.key, body.seq))
        size += len(rows)
        store.append(size - len(rows), rows, (size, work.note_at(size)))
    store.close()
    return work.federation


def filled() -> Workload:
    """The workload that `fill` stores, before anything was drawn from it."""
    return Workload(_HOSPITALS, _MANY_ROUNDS)


def _probe(*arguments: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ledger_probe", *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _bytes(url: str) -> float:
    parsed = sa.make_url(url)
    if parsed.drivername == "sqlite":
        path = Path(parsed.database or "")
        return float(sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*")))
    engine = sa.create_engine(parsed)
    with engine.connect() as connection:
        size = connection.exec_driver_sql(
            "SELECT sum(pg_total_relation_size(relid)) FROM pg_statio_user_tables"
        )
        found = float(size.scalar_one())
    engine.dispose()
    return found
