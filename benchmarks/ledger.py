"""How fast the ledger is, beside what this machine can do at best.

    python -m benchmarks.ledger [--entries 100000 | --million] [--directory DIR] [--json]

The limits are measured in the same run: PyNaCl's verification of the same messages with key objects
kept, SHA-256 of the same leaves, SQLite's commits of one row and fsyncs on the same disk. Then, for
SQLite and PostgreSQL: durable appends (judged, folded, signed checkpoint, committed) of one author,
entry by entry, and of 64, in one commit; verification of a whole log from its rows on one and on
two cores, signatures in worker processes; the fold alone over parsed entries; opening a copy; peak
memory; bytes on disk. Entries are those of ``ledger_workload``: rounds of updates, all applied.

With ``--json`` the last line is one JSON object; the table goes to standard error. The fields
``open_s_1e6`` and ``rss_mib_verify_1e6`` are null without ``--million``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from nacl.signing import VerifyKey

from benchmarks import ledger_http
from benchmarks.ledger_postgres import postgresql
from benchmarks.ledger_workload import Workload, chunks
from coordinator.sequencing.head import write_head
from coordinator.settings import HEAD, LEDGER
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Entry, parse_leaf
from ledger.formats.keys import signed_message
from ledger.formats.merkle import verify_inclusion
from ledger.rules.fold import found, step
from ledger.rules.log import Log, Sequenced

HOSPITALS = 16
AUTHORS = 64
MANY_ROUNDS = 100_000
LOAD = 512
"""Entries in one commit when a log is only filled."""


@dataclass(frozen=True)
class Limits:
    """What the machine can do at best, per second, one core."""

    ed25519_verify_per_s: float
    sha256_per_s: float
    commits_per_s: float
    fsyncs_per_s: float
    verify_and_parse_per_s: float


@dataclass(frozen=True)
class Figures:
    """What one kind of database reached."""

    append_per_s: float
    append_64_per_s: float
    verify_per_s_1: float
    verify_per_s_2: float
    replay_per_s: float
    open_s: float
    rss_mib_verify: float
    bytes_per_entry: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=100_000, help="entries of the large log")
    parser.add_argument("--million", action="store_true", help="1,000,000 entries (minutes)")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: temp")
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    given = parser.parse_args()
    entries = 1_000_000 if given.million else given.entries
    out = sys.stderr if given.json else sys.stdout

    def say(name: str, value: float, unit: str) -> None:
        print(f"{name:52} {value:12,.{1 if value < 1000 else 0}f} {unit}", file=out, flush=True)

    folder = Path(tempfile.mkdtemp(prefix="consilium-bench-", dir=given.directory))
    try:
        limits = _limits(folder)
        for name, value in asdict(limits).items():
            say(f"limit: {name}", value, "/s")
        say("inclusion proofs made and checked", _proofs(), "/s")
        replay = _fold_alone()
        rates = _http(folder)
        for name, value in asdict(rates).items():
            say(f"http: {name}", value, "requests/s")
        sqlite = _database(f"sqlite:///{folder / 'log'}", entries, replay, folder, say, limits)
        small: Figures | None = None
        with postgresql(folder) as url:
            if url is None:
                print("postgresql: not installed, left out", file=out)
            else:
                count = entries if given.million else entries // 5
                small = _database(url, count, replay, None, say, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        print(json.dumps(_document(limits, sqlite, small, given.million)))


def _document(
    limits: Limits, sqlite: Figures, postgres: Figures | None, million: bool
) -> dict[str, Any]:
    def named(figures: Figures) -> dict[str, float | None]:
        plain: dict[str, float | None] = {
            name: round(value, 1) for name, value in asdict(figures).items()
        }
        opened, memory = plain.pop("open_s"), plain.pop("rss_mib_verify")
        size = plain.pop("bytes_per_entry")
        return plain | {
            "open_s_1e6": opened if million else None,
            "rss_mib_verify_1e6": memory if million else None,
            "bytes_per_entry": size,
        }

    return {
        "limits": {
            "ed25519_verify_per_s": round(limits.ed25519_verify_per_s),
            "commits_per_s": round(limits.commits_per_s),
        },
        "sqlite": named(sqlite),
        "postgresql": None if postgres is None else named(postgres),
    }


# --- limits -------------------------------------------------------------------------------------


def _limits(folder: Path) -> Limits:
    work = Workload(HOSPITALS, MANY_ROUNDS)
    leaves = list(islice(work.leaves(), 4000))
    entries = [parse_leaf(leaf) for leaf in leaves]
    keys = _keys(entries)
    signed = [(keys[e.body.key], signed_message("entry", e.raw), e.signature, e) for e in entries]

    def verify() -> None:
        for key, message, signature, _ in signed:
            key.verify(message, signature)

    def verify_and_parse() -> None:
        for (key, message, signature, _), leaf in zip(signed, leaves, strict=True):
            parse_leaf(leaf)
            key.verify(message, signature)

    def digest() -> None:
        for leaf in leaves:
            hashlib.sha256(b"\x00" + leaf).digest()

    return Limits(
        ed25519_verify_per_s=_rate(verify, len(leaves)),
        sha256_per_s=_rate(digest, len(leaves)),
        commits_per_s=_commits(folder, [e.raw for e in entries[-1000:]]),
        fsyncs_per_s=_fsyncs(folder),
        verify_and_parse_per_s=_rate(verify_and_parse, len(leaves)),
    )


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

        return _rate(insert, len(bodies))


def _fsyncs(folder: Path) -> float:
    with (folder / "fsync").open("wb", buffering=0) as file:

        def write() -> None:
            for _ in range(500):
                file.write(bytes(4096))
                os.fsync(file.fileno())

        return _rate(write, 500)


def _rate(work: Callable[[], None], count: int, rounds: int = 3) -> float:
    """Best of a few rounds, after a first that does not count."""
    best = float("inf")
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return count / best


# --- in memory ----------------------------------------------------------------------------------


def _proofs() -> float:
    work = Workload(HOSPITALS, 1)
    tree = work.tree
    tree.extend(hashlib.sha256(b"%d" % at).digest() for at in range(100_000))
    size, root = tree.size, tree.root()

    def prove() -> None:
        for index in range(0, size, 50):
            path = tree.inclusion(index, size)
            verify_inclusion(index=index, size=size, leaf=tree.leaf(index), proof=path, root=root)

    return _rate(prove, len(range(0, size, 50)))


def _fold_alone() -> float:
    """The fold over parsed entries, read a batch at a time as a replay does."""
    leaves = islice(Workload(HOSPITALS, MANY_ROUNDS).leaves(), 30_000)
    state, spent, count = None, 0.0, 0
    for batch in chunks(leaves, AUTHORS):
        entries = [parse_leaf(leaf) for leaf in batch]
        if state is None:
            state = found(entries.pop(0))
        began = time.perf_counter()
        for entry in entries:
            state, _ = step(state, entry)
        spent += time.perf_counter() - began
        count += len(entries)
    return count / spent


def _http(folder: Path) -> ledger_http.HttpRates:
    home = folder / "home"
    home.mkdir()
    work = Workload(ledger_http.HOSPITALS, 1)
    store = LogStore.open(f"sqlite:///{home / LEDGER}")
    writer = _Writer(store, work)
    writer.commit(work.setup)
    store.close()
    write_head(home / HEAD, writer.note)
    return ledger_http.measure(work, home, 2000)


# --- a database ---------------------------------------------------------------------------------


class _Writer:
    """What a sequencer does with entries: judge, fold, append, sign, make durable."""

    def __init__(self, store: LogStore, work: Workload) -> None:
        self.log = Log()
        self.note = b""
        self._store = store
        self._work = work

    def commit(self, leaves: Sequence[bytes]) -> None:
        first = self.log.size
        taken = [self.log.append(self.log.judge(leaf)) for leaf in leaves]
        applied = all(item.outcome.applied for item in taken)
        if not applied:
            raise RuntimeError(f"an entry of the benchmark after {first} is void")
        self.note = self._work.note(self.log.tree)
        self._store.append(first, [_row(item) for item in taken], (self.log.size, self.note))

    def fill(self, leaves: Sequence[bytes]) -> None:
        """Store entries without judging them: a verifier will."""
        first = self.log.tree.size
        rows = []
        for leaf in leaves:
            entry = parse_leaf(leaf)
            self.log.tree.append(bytes.fromhex(entry.hash))
            rows.append(_entry_row(entry))
        note = self._work.note(self.log.tree)
        self._store.append(first, rows, (self.log.tree.size, note))


def _database(
    url: str,
    entries: int,
    replay: float,
    folder: Path | None,
    say: Callable[[str, float, str], None],
    limits: Limits,
) -> Figures:
    kind = url.partition(":")[0].partition("+")[0]
    one, many = _appends(url)
    say(f"{kind}: durable appends, one author, one a commit", one, "entries/s")
    say(f"{kind}: durable appends, {AUTHORS} authors, {AUTHORS} a commit", many, "entries/s")
    url = _other(url)
    began = time.perf_counter()
    federation, size = _fill(url, entries)
    say(f"{kind}: filled with {size:,} entries in", time.perf_counter() - began, "s")
    stored = _bytes(url, folder)
    probes = {
        mode: _in_own_process(url, federation, mode) for mode in ("verify-1", "verify-2", "open")
    }
    figures = Figures(
        append_per_s=one,
        append_64_per_s=many,
        verify_per_s_1=size / probes["verify-1"]["seconds"],
        verify_per_s_2=size / probes["verify-2"]["seconds"],
        replay_per_s=replay,
        open_s=probes["open"]["seconds"],
        rss_mib_verify=probes["verify-1"]["rss_mib"],
        bytes_per_entry=stored / size,
    )
    raw = limits.ed25519_verify_per_s
    say(f"{kind}: verify, 1 core", figures.verify_per_s_1, "entries/s")
    say(f"{kind}: verify, 1 core, of raw Ed25519", 100 * figures.verify_per_s_1 / raw, "%")
    say(f"{kind}: verify, 2 cores", figures.verify_per_s_2, "entries/s")
    say(f"{kind}: fold alone", replay, "entries/s")
    say(f"{kind}: opening a copy of {size:,} entries", figures.open_s, "s")
    say(f"{kind}: peak memory, verify", figures.rss_mib_verify, "MiB")
    say(f"{kind}: before anything was read", probes["verify-1"]["rss_before_mib"], "MiB")
    say(f"{kind}: bytes on disk per entry", figures.bytes_per_entry, "bytes")
    return figures


def _appends(url: str) -> tuple[float, float]:
    """Durable appends of one author singly, and of many in one commit."""
    store = LogStore.open(url)
    work = Workload(AUTHORS, 40)
    writer = _Writer(store, work)
    writer.commit(work.setup)
    node = f"{work.names[0]}-node"
    singles = [[work.single(node)] for _ in range(1000)]
    batches = list(work.batches())
    one = _commit_rate(writer, singles)
    many = _commit_rate(writer, batches)
    store.close()
    return one, many


def _commit_rate(writer: _Writer, batches: Sequence[Sequence[bytes]]) -> float:
    """Entries per second in batches of the largest size; what lies between is not counted."""
    largest = max(map(len, batches))
    spent, count = 0.0, 0
    for batch in batches:
        began = time.perf_counter()
        writer.commit(batch)
        if len(batch) == largest:
            spent += time.perf_counter() - began
            count += largest
    return count / spent


def _fill(url: str, entries: int) -> tuple[str, int]:
    store = LogStore.open(url)
    work = Workload(HOSPITALS, MANY_ROUNDS)
    writer = _Writer(store, work)
    for chunk in chunks(islice(work.leaves(), entries), LOAD):
        writer.fill(chunk)
    store.close()
    return work.federation, entries


def _in_own_process(url: str, federation: str, mode: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ledger_probe", mode, federation, url],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _bytes(url: str, folder: Path | None) -> float:
    if folder is not None:
        name = sa.make_url(url).database or ""
        return float(sum(path.stat().st_size for path in Path(name).parent.glob(Path(name).name)))
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        size = connection.exec_driver_sql(
            "SELECT sum(pg_total_relation_size(relid)) FROM pg_statio_user_tables"
        )
        found = float(size.scalar_one())
    engine.dispose()
    return found


def _other(url: str) -> str:
    """A second, empty database of the same kind."""
    parsed = sa.make_url(url)
    if parsed.drivername == "sqlite":
        return f"{url}-large"
    engine = sa.create_engine(parsed, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE large")
    engine.dispose()
    return parsed.set(database="large").render_as_string(hide_password=False)


def _row(item: Sequenced) -> Row:
    return _entry_row(item.entry)


def _entry_row(entry: Entry) -> Row:
    return Row(
        entry.raw, entry.signature, bytes.fromhex(entry.hash), entry.body.key, entry.body.seq
    )


if __name__ == "__main__":
    main()
