"""May this experiment run? The answer, with its durable reservation, at 100,000 events.

    python -m benchmarks.admission --json

Fills a hospital's private register (SQLite, one file, as a node keeps it) with reservations and intents up to
the given number of privacy events, opens it as a node does, and then asks and reserves one experiment
after another: the filter over every cell, and one durable transaction. Beside it, in the same run and on
the same disk: one row committed by plain ``sqlite3`` with the same settings, and a bare fsync.

``--processor-time`` counts what the thread computed and not what it waited for: on a busy machine, with
``--dir /dev/shm``, what an admission costs beside the disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ledger.entries.operations.datasets import CellCharge, CellLimit, CellRegistered
from node.register import tables
from node.register.private import PrivateRegister
from privacy.events import CHARGE_UNIT
from privacy.filters import Spend, limit_for

FEDERATION = "f" * 64
HALVES = ("train", "test")
INTENTS_EACH = 20
CHUNK = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill, ask, print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=2_000, help="experiments asked and reserved")
    parser.add_argument("--dir", type=Path, help="a folder on the disk that matters")
    parser.add_argument(
        "--processor-time", action="store_true", help="of the thread, in place of time"
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="consilium-bench-", dir=options.dir) as folder:
        clock = time.thread_time if options.processor_time else time.perf_counter
        result = measure(Path(folder), options.events, options.asked, clock)
    if not options.json:
        for name, value in result.items():
            print(f"{name:26} {value}")
    print(json.dumps(result))
    return 0


def measure(
    folder: Path, events: int, asked: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Milliseconds of ``asked`` admissions on a register of ``events`` events."""
    path = folder / "private.db"
    held = fill(path, events)
    begin = time.perf_counter()
    register = PrivateRegister.open(path)
    open_s = time.perf_counter() - begin
    charges = [CellCharge(cell=f"basel-{half}", g=7, r=9) for half in HALVES]
    names = iter(_identities("asked", asked))

    def ask() -> None:
        if not register.view.admits(charges, 0):
            raise SystemExit("the register is full: ask for fewer experiments")
        register.reserve(FEDERATION, next(names), "basel-heart", charges)

    with closing(register):
        admissions = _timed(ask, asked, clock)
        spend = register.view.cells["basel-train"].spend
    if spend.g != 7 * (held + asked):
        raise SystemExit(f"the cell holds {spend.g}, not the sum of its {held + asked} charges")
    with closing(sqlite3.connect(folder / "raw.db", isolation_level=None)) as raw:
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            raw.execute(f"PRAGMA {pragma}")
        raw.execute("CREATE TABLE one (id INTEGER PRIMARY KEY, value TEXT)")
        commits = _timed(lambda: raw.execute("INSERT INTO one (value) VALUES ('x')"), asked, clock)
    with (folder / "flushed").open("ab", buffering=0) as file:

        def flush() -> None:
            file.write(b"x")
            os.fsync(file.fileno())

        flushes = _timed(flush, asked, clock)
    return {
        "events": events,
        "reservations": held,
        "open_s": round(open_s, 3),
        "admission_ms_p50": _quantile(admissions, 0.5),
        "admission_ms_p99": _quantile(admissions, 0.99),
        "admission_ms_max": _quantile(admissions, 1.0),
        "commit_ms_p50": _quantile(commits, 0.5),
        "commit_ms_p99": _quantile(commits, 0.99),
        "fsync_ms_p50": _quantile(flushes, 0.5),
        "fsync_ms_p99": _quantile(flushes, 0.99),
    }


def fill(path: Path, events: int) -> int:
    """A register with ``events`` intents, written in bulk; returns how many reservations hold them."""
    register = PrivateRegister.open(path)
    limit = limit_for(8.0, 1e-5)
    gates = CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi)
    count = max(1, events // INTENTS_EACH)
    spent = Spend(7 * count, 9 * count)
    if spent.g * 2 > limit.g_max or limit.g_max < CHARGE_UNIT:
        raise SystemExit("too many events for one promise")
    for half in HALVES:
        terms = CellRegistered(
            type="cell.registered",
            cell=f"basel-{half}",
            block="all",
            half=half,
            declared_patients=1000,
            epsilon_micro=8_000_000,
            delta_e15=10**10,
            limit=gates,
        )
        register.add_cell(terms, 30, spent)
    register.close()
    database = tables.open_tables(path)
    with closing(database):
        for table, rows in (
            (tables.charges, _charges(count)),
            (tables.standing, _standing(count)),
            (tables.intents, _intents(count)),
        ):
            for chunk in _chunks(rows):
                with database.write() as connection:
                    connection.execute(sa.insert(table), chunk)
    return count


def _charges(count: int) -> Iterator[dict[str, Any]]:
    for experiment in _identities("held", count):
        for half in HALVES:
            yield {
                "federation": FEDERATION,
                "experiment": experiment,
                "dataset": "basel-heart",
                "cell": f"basel-{half}",
                "g": 7,
                "r": 9,
                "g_refunded": 0,
                "r_refunded": 0,
            }


def _standing(count: int) -> Iterator[dict[str, Any]]:
    for place, experiment in enumerate(_identities("held", count)):
        status = "settled" if place < count - 50 else "reserved"
        yield {"experiment": experiment, "dataset": "basel-heart", "status": status}


def _intents(count: int) -> Iterator[dict[str, Any]]:
    for experiment in _identities("held", count):
        for number in range(INTENTS_EACH):
            yield {
                "experiment": experiment,
                "dataset": "basel-heart",
                "purpose": "train",
                "round": number + 1,
                "steps": 1,
                "nonce": hashlib.sha256(f"{experiment}{number}".encode()).hexdigest(),
                "at_ms": 1_700_000_000_000,
            }


def _identities(kind: str, count: int) -> Iterator[str]:
    return (hashlib.sha256(f"{kind} {number}".encode()).hexdigest() for number in range(count))


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _timed(act: Callable[[], object], times: int, clock: Callable[[], float]) -> list[float]:
    found = []
    for _ in range(times):
        begin = clock()
        act()
        found.append((clock() - begin) * 1e3)
    return sorted(found)


def _quantile(ordered: Sequence[float], part: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3)


if __name__ == "__main__":
    sys.exit(main())
