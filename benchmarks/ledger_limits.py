"""What this machine can do at best, and whether it was quiet: what the ledger's figures stand beside.

    python -m benchmarks.ledger_limits alone SECONDS

Raw Ed25519 is PyNaCl's verification of the workload's entries with key objects kept; on two cores, two
processes do it at once, started before either begins. Where they do not reach nearly twice what one
reaches, other work had a core, and a figure for two cores says nothing: `Machine.quiet` tells.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nacl.signing import VerifyKey

from benchmarks.ledger_workload import Workload
from ledger.entries.entry import Entry, parse_leaf
from ledger.formats.keys import signed_message
from ledger.rules.log import Log

HOSPITALS = 16
MANY_ROUNDS = 100_000
ENTRIES = 4000
ALONE_S = 1.5
"""Seconds for which each of two processes verifies."""
QUIET_SCALING = 1.9
"""What two processes of nothing but arithmetic reach at least, of one, where nothing else runs."""


@dataclass(frozen=True)
class Limits:
    """What the machine can do at best, per second, on one core unless its name says two."""

    ed25519_verify_per_s: float
    ed25519_verify_per_s_2: float
    sha256_per_s: float
    commits_per_s: float
    fsyncs_per_s: float
    verify_and_parse_per_s: float


@dataclass(frozen=True)
class Machine:
    """What two cores gave to two processes of raw checks, as a multiple of one, and the load then."""

    scaling: float
    load: float

    @property
    def quiet(self) -> bool:
        """Whether two cores were ours."""
        return self.scaling >= QUIET_SCALING


def measure(folder: Path) -> tuple[Limits, Machine]:
    """Measure all limits; ``folder`` is on the disk that is to be measured."""
    leaves = list(islice(Workload(HOSPITALS, MANY_ROUNDS).leaves(), ENTRIES))
    entries = [parse_leaf(leaf) for leaf in leaves]
    keys = _keys(entries)
    signed = [(keys[e.body.key], signed_message("entry", e.raw), e.signature) for e in entries]

    def verify() -> None:
        for key, message, signature in signed:
            key.verify(message, signature)

    def verify_and_parse() -> None:
        for (key, message, signature), leaf in zip(signed, leaves, strict=True):
            parse_leaf(leaf)
            key.verify(message, signature)

    def digest() -> None:
        for leaf in leaves:
            hashlib.sha256(b"\x00" + leaf).digest()

    raw = rate(verify, len(leaves))
    one, two, load = two_cores()
    limits = Limits(
        ed25519_verify_per_s=raw,
        ed25519_verify_per_s_2=two,
        sha256_per_s=rate(digest, len(leaves)),
        commits_per_s=_commits(folder, [e.raw for e in entries[-1000:]]),
        fsyncs_per_s=_fsyncs(folder),
        verify_and_parse_per_s=rate(verify_and_parse, len(leaves)),
    )
    return limits, Machine(two / one, load)


def two_cores() -> tuple[float, float, float]:
    """Raw checks per second of one process alone, of two at once together, and the load before."""
    load = os.getloadavg()[0]
    return sum(_alone(1)), sum(_alone(2)), load


def rate(work: Callable[[], None], count: int, rounds: int = 3) -> float:
    """Best of a few rounds, after a first that does not count."""
    best = float("inf")
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return count / best


def _alone(processes: int) -> list[float]:
    """Rates of processes that begin together, when the last one has said that it is ready."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ledger_limits", "alone", str(ALONE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        for _ in range(processes)
    ]
    for each in started:
        assert each.stdout is not None
        each.stdout.readline()
    for each in started:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    return [float(json.loads(each.communicate()[0])["per_s"]) for each in started]


def _verify_alone(seconds: float) -> None:
    """One of the processes: ready, wait for the word, verify for so long, say how fast."""
    work = Workload(HOSPITALS, 10)
    entries = [parse_leaf(leaf) for leaf in work.leaves()]
    keys = _keys(entries)
    signed = [(keys[e.body.key], signed_message("entry", e.raw), e.signature) for e in entries]
    print("ready", flush=True)
    sys.stdin.readline()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for key, message, signature in signed:
            key.verify(message, signature)
        count += len(signed)
    print(json.dumps({"per_s": count / (time.perf_counter() - began)}), flush=True)


def _keys(entries: Sequence[Entry]) -> dict[str, VerifyKey]:
    log = Log()
    for entry in entries:
        log.append(entry)
    return {key: VerifyKey(bytes.fromhex(held.public)) for key, held in log.state.keys.items()}


def _commits(folder: Path, bodies: Sequence[bytes]) -> float:
    """One row a commit, by the plain driver with the store's own settings."""
    import sqlite3

    with sqlite3.connect(folder / "raw", isolation_level=None) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("CREATE TABLE entries (at INTEGER PRIMARY KEY, body BLOB NOT NULL)")

        def insert() -> None:
            for body in bodies:
                raw.execute("INSERT INTO entries (body) VALUES (?)", (body,))

        return rate(insert, len(bodies))


def _fsyncs(folder: Path) -> float:
    with (folder / "fsync").open("wb", buffering=0) as file:

        def write() -> None:
            for _ in range(500):
                file.write(bytes(4096))
                os.fsync(file.fileno())

        return rate(write, 500)


if __name__ == "__main__":
    _verify_alone(float(sys.argv[2]))
