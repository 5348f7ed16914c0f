"""How fast the ledger is, beside what this machine can do at best.

    python -m benchmarks.ledger [--size 100000 | --million] [--dir DIR] [--json]
    python -m benchmarks.ledger --million --dir DIR --prepare

The limits are measured in the same run (``ledger_limits``): PyNaCl's verification of the same messages
with key objects kept, in one process and in two at once, SHA-256 of the same leaves, SQLite's commits
of one row and fsyncs on the same disk. Then single submissions over HTTP beside empty requests and, for
SQLite and PostgreSQL: durable appends (judged, folded, signed checkpoint, committed) of one author,
entry by entry, and of 64, in one commit; verification of a whole log from its rows on one and on two
cores; the fold alone over parsed entries; opening a copy by a replay and from a snapshot; peak memory of
verifying ten thousand, a hundred thousand and a million entries; bytes on disk. Entries are those of
``ledger_workload``: rounds of updates, all applied.

With ``--dir`` everything is measured on that disk, and the large logs of both databases stay there for
the next run; ``--prepare`` fills them and measures nothing. With ``--json`` the last line is one JSON
object; the table goes to standard error. The fields ``open_s_1e6`` and ``rss_mib_verify_1e6`` are null
without ``--million``. ``--without http``, ``--without postgresql`` or both leave parts out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import sqlalchemy as sa

from benchmarks import ledger_appends, ledger_http, ledger_limits
from benchmarks.ledger_appends import AUTHORS, Writer
from benchmarks.ledger_limits import HOSPITALS, MANY_ROUNDS, Limits, rate
from benchmarks.ledger_log import LogFigures, Say, fill, large_name, measure
from benchmarks.ledger_postgres import postgresql
from benchmarks.ledger_workload import Workload, chunks
from coordinator.sequencing.head import write_head
from coordinator.settings import HEAD, LEDGER
from ledger.copies.store import LogStore
from ledger.entries.entry import parse_leaf
from ledger.formats.merkle import verify_inclusion
from ledger.rules.fold import found, step

MILLION = 1_000_000


@dataclass(frozen=True)
class Figures:
    """What one kind of database reached."""

    append_per_s: float
    append_64_per_s: float
    replay_per_s: float
    log: LogFigures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=100_000, help="entries of the large log")
    parser.add_argument("--million", action="store_true", help="1,000,000 entries")
    parser.add_argument("--dir", type=Path, help="on the disk to measure; default: temp")
    parser.add_argument("--prepare", action="store_true", help="fill the large logs in --dir, only")
    parser.add_argument(
        "--without", action="append", default=[], choices=("http", "postgresql"), help="leave out"
    )
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    given = parser.parse_args()
    if given.prepare and given.dir is None:
        parser.error("--prepare fills logs to keep: say where, with --dir")
    entries = MILLION if given.million else given.size
    out = sys.stderr if given.json else sys.stdout

    def say(name: str, value: float, unit: str) -> None:
        print(f"{name:52} {value:12,.{1 if value < 1000 else 0}f} {unit}", file=out, flush=True)

    folder = Path(tempfile.mkdtemp(prefix="consilium-bench-", dir=given.dir))
    keep = (given.dir or folder).absolute()
    name = large_name(entries)
    large = f"sqlite:///{keep / f'{name}.db'}"
    began = time.perf_counter()
    try:
        if given.prepare:
            fill(large, entries)
            with postgresql(keep) as server:
                if server is not None:
                    fill(server.database(name), entries)
            return
        limits, machine = ledger_limits.measure(folder)
        for limit, value in asdict(limits).items():
            say(f"limit: {limit}", value, "/s")
        _say_machine(machine, out)
        say("inclusion proofs made and checked", _proofs(), "/s")
        replay, alone = _fold_alone(), limits.verify_and_parse_per_s
        if "http" not in given.without:
            ledger_http.say_rates(_http(folder), limits.commits_per_s, limits.fsyncs_per_s, say)
        sqlite = _database(f"sqlite:///{folder / 'log'}", large, entries, replay, alone, say)
        small: Figures | None = None
        if "postgresql" not in given.without:
            with postgresql(keep) as server:
                if server is None:
                    print("postgresql: not installed, left out", file=out)
                else:
                    fresh = server.database("appends", fresh=True)
                    small = _database(fresh, server.database(name), entries, replay, alone, say)
        one, two, load = ledger_limits.two_cores()
        _say_machine(ledger_limits.Machine(two / one, load), out)
        say("all of it took", time.perf_counter() - began, "s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        print(json.dumps(_document(limits, sqlite, small)))


def _say_machine(machine: ledger_limits.Machine, out: TextIO) -> None:
    verdict = "quiet" if machine.quiet else "NOT QUIET: figures for two cores say nothing"
    print(
        f"machine: load {machine.load:.1f}; two processes of raw Ed25519 reach "
        f"{machine.scaling:.2f} x one: {verdict}",
        file=out,
        flush=True,
    )


def _document(limits: Limits, sqlite: Figures, postgres: Figures | None) -> dict[str, Any]:
    def named(figures: Figures) -> dict[str, float | None]:
        log = figures.log
        million = MILLION in log.rss_mib
        return {
            "append_per_s": round(figures.append_per_s, 1),
            "append_64_per_s": round(figures.append_64_per_s, 1),
            "verify_per_s_1": round(log.verify_per_s_1, 1),
            "verify_per_s_2": round(log.verify_per_s_2, 1),
            "replay_per_s": round(figures.replay_per_s, 1),
            "open_s_1e6": round(log.open_s, 2) if million else None,
            "rss_mib_verify_1e6": round(log.rss_mib[MILLION], 1) if million else None,
            "bytes_per_entry": round(log.bytes_per_entry, 1),
        }

    return {
        "limits": {
            "ed25519_verify_per_s": round(limits.ed25519_verify_per_s),
            "ed25519_verify_per_s_2": round(limits.ed25519_verify_per_s_2),
            "commits_per_s": round(limits.commits_per_s),
        },
        "sqlite": named(sqlite),
        "postgresql": None if postgres is None else named(postgres),
    }


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

    return rate(prove, len(range(0, size, 50)))


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
    writer = Writer(store, work)
    writer.commit(work.setup)
    writer.close()
    store.close()
    write_head(home / HEAD, writer.note)
    return ledger_http.measure(work, home, 4000)


# --- a database ---------------------------------------------------------------------------------


def _database(url: str, large: str, entries: int, replay: float, alone: float, say: Say) -> Figures:
    """Measure one; ``alone`` entries a second this run verified and parsed on one core, at its best."""
    kind = sa.make_url(url).get_backend_name()
    appends = ledger_appends.measure(url)
    many = f"{kind}: durable appends, {AUTHORS} authors, {AUTHORS} a commit"
    say(f"{kind}: durable appends, one author, one a commit", appends.one, "entries/s")
    say(many, appends.many, "entries/s")
    say(f"{kind}: the same parsed and verified, one core", appends.verified, "entries/s")
    say(f"{kind}: 64 a commit, of that, in turn, median", 100 * appends.many_of_verified, "%")
    say(f"{kind}: 64 a commit, of that, in turn, least", 100 * appends.least, "%")
    say(f"{kind}: 64 a commit, of that, in turn, most", 100 * appends.most, "%")
    whole = 100 * appends.many / alone
    say(f"{kind}: 64 a commit, of the run's verify and parse", whole, "%")
    say(f"{kind}: fold alone", replay, "entries/s")
    return Figures(appends.one, appends.many, replay, measure(large, entries, say))


if __name__ == "__main__":
    main()
