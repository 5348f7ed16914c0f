"""SIGKILL at random instants of a real coordinator under load, and what became of the log.

::

    python -m tests.journeys.kill_storm --kills 1000            # SQLite; about a quarter of an hour
    python -m tests.journeys.kill_storm --kills 200 --postgresql

A coordinator's process serves HTTP on a port, over its own database. Stewards and nodes submit without
a pause, nodes cosign each checkpoint that they see. At a random instant, in the start and its recovery
too, the process is killed and the next one started; members go on with the bytes they hold. From time
to time a log is brought to its end and read from its first byte:

- every acknowledged entry is in the log, at the index that was acknowledged;
- no entry is there twice, and every member's chain is without a gap;
- every checkpoint that a member saw, and every one stored, is that of the log: no size has two roots;
- the log verifies as an auditor does it, finals and all.

Then the next kills get a new log, since a start takes the longer the more there is to replay.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from audit.verification.verify import verify_at
from consilium.demo.processes import free_port
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.copies.stored import StoredNote
from ledger.entries.entry import frame_leaf, parse_leaf
from ledger.formats.checkpoint import open_checkpoint
from tests import postgres
from tests.federation_log import FederationLog, node_of, steward_of
from tests.journeys.members import Member, Noted
from tests.journeys.nursery import Child, Nursery

HOSPITALS = ("basel", "bern", "chur")
EARLY = 0.3
"""Share of kills that fall into the start, recovery included."""
WORK_S = 0.25
"""How long a process may serve at most before it is killed."""
_START_TIMEOUT_S = 60.0


@dataclass
class Storm:
    """What happened in all logs.

    Attributes:
        counts: ``kills``, of them ``in_start``; ``entries`` in all logs, ``acknowledged`` ones,
            ``answers`` to them, requests whose answer was ``lost``, ``checkpoints`` seen or stored,
            ``cosignatures``, ``finals``; ``starts_while_locked`` with PostgreSQL.
        faults: in words; must stay empty.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def storm(
    folder: Path,
    kills: int,
    *,
    seed: int,
    kills_per_log: int = 25,
    server: postgres.PostgresServer | None = None,
    program: str = "coordinator",
    progress: bool = False,
) -> Storm:
    """Kill so many processes, over as many logs as it takes.

    Args:
        folder: for homes, databases and the processes' output; empty.
        kills: how many.
        seed: decides the instants (but not the machine's own timing).
        kills_per_log: after which a log is read and the next begun.
        server: a PostgreSQL to keep the logs in, or None for SQLite.
        program: the function of ``programs`` that is killed.
        progress: say each log's figures on standard error.
    """
    told = Storm()
    chance = random.Random(seed)
    number = 0
    with Nursery(f"tests.journeys.programs:{program}", folder / "processes.log") as nursery:
        while told.counts["kills"] < kills and not told.faults:
            number += 1
            wanted = min(kills_per_log, kills - told.counts["kills"])
            url = None if server is None else server.new_database()
            log = _Log(folder / f"log-{number}", url)
            log.live(nursery, chance, wanted, told)
            if progress:
                print(f"log {number}: {dict(told.counts)}", file=sys.stderr, flush=True)
    return told


class _Log:
    """One federation, its members and its home."""

    def __init__(self, home: Path, url: str | None) -> None:
        self._federation = FederationLog.found(HOSPITALS)
        self._home = home
        self._url = url or f"sqlite:///{home / 'ledger.db'}"
        settings = {"federation": self._federation.id}
        with _closing(self._federation.persist(home)) as store:
            if url is not None:
                settings["database"] = url
                with _closing(LogStore.open(url)) as other:
                    newest = store.latest_checkpoint()
                    other.append(0, list(store.rows()), newest)
        (home / "coordinator.json").write_text(json.dumps(settings))
        self._port = free_port()
        self._noted = Noted()
        handles = [node_of(name) for name in HOSPITALS] + [steward_of(name) for name in HOSPITALS]
        self._members = [
            Member(
                self._federation.rings[handle],
                self._federation.state,
                self._federation.seen(),
                self._port,
                self._noted,
            )
            for handle in handles
        ]

    def live(self, nursery: Nursery, chance: random.Random, kills: int, told: Storm) -> None:
        """Serve, be killed, and in the end be read."""
        for member in self._members:
            member.start()
        start_s, done = 0.3, 0
        while done < kills and not told.faults:
            child = self._start(nursery)
            early = chance.random() < EARLY
            if early:
                time.sleep(max(0.0, chance.uniform(0.0, start_s) - child.age_s))
            elif self._until_it_serves(child):
                start_s = child.age_s
                time.sleep(chance.uniform(0.0, WORK_S))
            status = child.kill()
            if status == -signal.SIGKILL:
                done += 1
                told.counts["kills"] += 1
                told.counts["in_start"] += early
            elif self._postgresql:
                # The lock of a killed process lasts until its server sees the broken connection.
                told.counts["starts_while_locked"] += 1
            else:
                told.faults.append(f"a process ended by itself with status {status}")
        self._finish(nursery, told)

    def _finish(self, nursery: Nursery, told: Storm) -> None:
        """Let the last entries be answered, end the process in order, and read the log."""
        child = self._start(nursery)
        while not self._until_it_serves(child) and self._postgresql:
            child.wait()
            child = self._start(nursery)
        if told.faults:
            self._noted.over.set()
        for member in self._members:
            member.stop()
        status = child.end(signal.SIGTERM)
        told.faults += self._noted.faults
        if status != 0:
            told.faults.append(f"the last process ended with status {status}")
        told.counts += self._noted.counts
        self._check(told)

    def _start(self, nursery: Nursery) -> Child:
        return nursery.start(str(self._home), str(self._port))

    def _until_it_serves(self, child: Child) -> bool:
        """Wait until the process answers; False when it has ended instead."""
        while child.age_s < _START_TIMEOUT_S:
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._port, timeout=_START_TIMEOUT_S
            )
            try:
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    return True
            except (OSError, http.client.HTTPException):
                if child.ended():
                    return False
                time.sleep(0.005)
            finally:
                connection.close()
        return False

    # --- what became of it ----------------------------------------------------------------------

    def _check(self, told: Storm) -> None:
        """Read the log from its first byte, as a member and as an auditor."""
        with _closing(LogStore.open(self._url)) as store:
            replica = Replica.open(store, self._federation.id)
            leaves = [frame_leaf(row.body, row.signature) for row in store.rows()]
            told.counts["entries"] += len(leaves)
            told.counts["finals"] += sum(1 for _ in _pages(store.finals))
            signed = dict(self._noted.roots)
            for size, note in _pages(store.checkpoints):
                root = open_checkpoint(note, replica.log_key).root
                if signed.setdefault(size, root) != root:
                    told.faults.append(f"stored and seen checkpoints of size {size} differ")
            told.faults += [
                f"a checkpoint of size {size} is not of this log"
                for size, root in signed.items()
                if size > replica.size or replica.root(size) != root
            ]
        told.counts["checkpoints"] += len(signed)
        told.counts["acknowledged"] += len(self._noted.acknowledged)
        told.faults += faults_of(leaves, self._noted.acknowledged)
        verdicts = verify_at(self._url if self._postgresql else str(self._home))
        told.faults += [str(c) for report in verdicts.reports for c in report.refuted]

    @property
    def _postgresql(self) -> bool:
        return self._url.startswith("postgresql")


def faults_of(leaves: list[bytes], acknowledged: dict[bytes, int]) -> list[str]:
    """What is wrong with a log, in words.

    Args:
        leaves: framed, in order.
        acknowledged: the index that was answered for a leaf.
    """
    faults = [f"entry {leaf[:40]!r} is there twice" for leaf, n in Counter(leaves).items() if n > 1]
    for leaf, index in acknowledged.items():
        if index >= len(leaves) or leaves[index] != leaf:
            faults.append(f"an entry acknowledged at {index} is not there")
    heads: dict[str, tuple[int, str]] = {}
    for index, leaf in enumerate(leaves):
        entry = parse_leaf(leaf)
        seq, prev = heads.get(entry.body.key, (0, "0" * 64))
        if (entry.body.seq, entry.body.prev) != (seq, prev):
            faults.append(f"entry {index} does not go on with the chain of {entry.body.author}")
        heads[entry.body.key] = (seq + 1, entry.hash)
    return faults


def _pages(page: Callable[[int], Sequence[StoredNote]]) -> Iterator[StoredNote]:
    after = -1
    while notes := page(after):
        yield from notes
        after = notes[-1].size


@contextmanager
def _closing(store: LogStore) -> Iterator[LogStore]:
    try:
        yield store
    finally:
        store.close()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.journeys.kill_storm", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills-per-log", type=int, default=25)
    parser.add_argument(
        "--postgresql", action="store_true", help="a server of its own, by tests/postgres.py"
    )
    given = parser.parse_args()
    if given.postgresql and (reason := postgres.lacking()):
        parser.error(reason)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="consilium-storm-") as folder,
        postgres.running() if given.postgresql else nullcontext() as server,
    ):
        told = storm(
            Path(folder),
            given.kills,
            seed=given.seed,
            kills_per_log=given.kills_per_log,
            server=server,
            progress=True,
        )
        if told.faults:
            print((Path(folder) / "processes.log").read_text()[-4000:], file=sys.stderr)
    counts = dict(told.counts) | {"seconds": round(time.monotonic() - began)}
    print(json.dumps({"seed": given.seed, **counts, "faults": told.faults}))
    return 1 if told.faults else 0


if __name__ == "__main__":
    sys.exit(main())
