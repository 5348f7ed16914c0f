"""Whether a log that names a predecessor took over what that one left: part of step 2.

A successor is consistent in itself, and that says nothing: its first entries may carry anything. With a
copy of the old log the join is checked as every hospital checked it (``ledger.rules.succession``): the
old log is replayed, its final checkpoints are judged, and its state at the last of them is carried over
anew. Without one the join is named as not checkable.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from audit.verification.check_notes import check_notes
from audit.verification.findings import Check
from audit.verification.replay import Replay, replay
from audit.verification.sources import Copy
from ledger.entries.entry import parse_leaf
from ledger.errors import SuccessionRefused
from ledger.rules.log import Log
from ledger.rules.succession import check_join


def check_succession(done: Replay, copy: Copy, predecessor: Copy | None) -> Iterator[Check]:
    """The join of a log to the one before it.

    Args:
        done: the replay of the successor.
        copy: its copy.
        predecessor: a copy of the log that it names, or None.
    """
    succession = done.log.state.succession if done.size else None
    if succession is None:
        if predecessor is not None and done.size:
            yield Check(2, "refuted", "it takes over from no log: entry 0 founds it", "entry 0")
        return
    named = succession.predecessor
    if not succession.complete:
        yield Check(2, "refuted", "not all that genesis names was carried over", "entry 0")
        return
    if predecessor is None:
        yield Check(
            2,
            "not_checkable",
            f"it takes over from federation {named.federation[:12]} at {named.size} entries; give "
            "that log's copy with --predecessor",
        )
        return
    old = replay(predecessor)
    notes = check_notes(old, predecessor)
    wrong = [c for c in (*old.checks, *notes.checks) if c.verdict == "refuted"]
    if wrong:
        detail = f"{predecessor.name} is refuted itself, at step {wrong[0].step}: {wrong[0].detail}"
        yield Check(2, "not_checkable", detail)
        return
    finals = [final.size for final in predecessor.finals()]
    size = finals[-1] if finals else 1
    log = Log()
    for stored in islice(predecessor.entries(), size):
        log.append(log.judge(stored.leaf))
    genesis = parse_leaf(next(iter(copy.entries())).leaf)
    try:
        check_join(genesis, log.state, log.tree.root().hex())
    except SuccessionRefused as error:
        yield Check(2, "refuted", f"{error.where}: {error.reason}", "entry 0")
        return
    yield Check(
        2,
        "proved",
        f"it takes over from federation {named.federation[:12]} at its last final checkpoint over "
        f"{size} entries: members, spend and datasets are those of {predecessor.name}, and "
        f"{len(succession.endorsements)} stewards signed for it",
    )
