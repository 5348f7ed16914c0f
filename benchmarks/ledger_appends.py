"""Durable appends, singly and by 64, in a process of its own.

    python -m benchmarks.ledger_appends DATABASE-URL

What a sequencer does with entries that wait: parse them, check their signatures on all cores
(``coordinator.sequencing.checking``), judge and fold them in order, append them to the tree, sign the
checkpoint over them, and make both durable in one commit. Beside every few batches of 64 the same
entries are only parsed and verified, on one core: the other work on a machine comes and goes, and the
ratio of neighbours says what a ratio of two figures minutes apart does not.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from statistics import median

from nacl.signing import VerifyKey

from benchmarks.ledger_workload import Workload
from coordinator.sequencing.checking import Checker
from ledger.copies.leaves import row_of
from ledger.copies.store import LogStore
from ledger.entries.entry import parse_leaf, verify_signature
from ledger.formats.keys import signed_message
from ledger.rules.log import Log

AUTHORS = 64
SINGLES = 1000
ROUNDS = 192
_TURN = 8
"""Batches that are committed before the same ones are only parsed and verified."""


@dataclass(frozen=True)
class Appends:
    """Entries per second.

    Attributes:
        one: durable, of one author, each in a commit of its own.
        many: durable, of 64 authors, an entry each in one commit.
        verified: the same entries parsed and verified alone, on one core, in turn with the latter.
        many_of_verified: the part of that which the latter reaches; the median of neighbours.
        least, most: of these.
    """

    one: float
    many: float
    verified: float
    many_of_verified: float
    least: float
    most: float


def measure(url: str) -> Appends:
    """Append to an empty database in a process that does nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ledger_appends", url],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    )
    return Appends(**json.loads(done.stdout.splitlines()[-1]))


class Writer:
    """A log in memory and in a store, and what makes entries durable in both."""

    def __init__(self, store: LogStore, work: Workload) -> None:
        self.log = Log()
        self.note = b""
        self._store = store
        self._work = work
        self._checker = Checker()

    def commit(self, leaves: Sequence[bytes]) -> None:
        """Take entries in one commit; all of them have to be applied."""
        log, first = self.log, self.log.size
        entries = [parse_leaf(leaf) for leaf in leaves]
        checked = self._checker.checked(entries, log.state.keys) if first else {}
        taken = []
        for entry in entries:
            public = log.admit(entry)
            if checked.get(entry.hash) != public:
                verify_signature(entry, public)
            taken.append(log.append(entry))
        if not all(item.outcome.applied for item in taken):
            raise RuntimeError(f"an entry of the benchmark after {first} is void")
        self.note = self._work.note(log.tree)
        self._store.append(first, [row_of(item) for item in taken], (log.size, self.note))

    def close(self) -> None:
        """End the threads; the store stays open."""
        self._checker.close()


def _measure(url: str) -> Appends:
    store = LogStore.open(url)
    work = Workload(AUTHORS, ROUNDS)
    writer = Writer(store, work)
    writer.commit(work.setup)
    node = f"{work.names[0]}-node"
    singles = [[work.single(node)] for _ in range(SINGLES)]
    batches = work.batches()
    keys = {key: VerifyKey(bytes.fromhex(k.public)) for key, k in writer.log.state.keys.items()}
    gc.collect()
    gc.freeze()  # as ``run`` does
    one = SINGLES / _spent(writer, singles)
    turns = []
    while some := list(islice(batches, 2 * _TURN)):
        spent = [_spent(writer, [leaves]) for leaves in some]
        full = [at for at, leaves in enumerate(some) if len(leaves) == AUTHORS]
        turns.append(
            (
                sum(spent[at] for at in full),
                _verified(chain.from_iterable(some[at] for at in full), keys),
            )
        )
    writer.close()
    store.close()
    entries = AUTHORS * ROUNDS
    ratios = [verified / appended for appended, verified in turns]
    return Appends(
        one=one,
        many=entries / sum(appended for appended, _ in turns),
        verified=entries / sum(verified for _, verified in turns),
        many_of_verified=median(ratios),
        least=min(ratios),
        most=max(ratios),
    )


def _spent(writer: Writer, batches: Sequence[Sequence[bytes]]) -> float:
    began = time.perf_counter()
    for leaves in batches:
        writer.commit(leaves)
    return time.perf_counter() - began


def _verified(leaves: Iterable[bytes], keys: dict[str, VerifyKey]) -> float:
    """Seconds in which entries are parsed and verified, and nothing else."""
    began = time.perf_counter()
    for leaf in leaves:
        entry = parse_leaf(leaf)
        keys[entry.body.key].verify(signed_message("entry", entry.raw), entry.signature)
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(sys.argv[1]))))
