"""Reading a ledger for a command: from a member's own live copy, or offline from any copy.

Either way the entries are replayed by the same fold; nothing in a copy is believed because it is
there. What this does not do is all that ``audit verify`` does beyond the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit.verification.sources import Copy, close_copies, open_copies
from consilium.actions.homes import find_home
from consilium.actions.log_sources import open_at
from consilium.actions.speaking import open_member
from consilium.terminal import note
from ledger.copies.leaves import read_leaves
from ledger.entries.operations.values import BlobRef
from ledger.errors import AlreadyRunning, BlobMissing
from ledger.exchange.home import Membership
from ledger.rules.log import Log, Sequenced
from ledger.rules.state import State


@dataclass(frozen=True)
class LedgerView:
    """A ledger, folded.

    Attributes:
        source: where it was read, in words.
        state: after its last entry.
        leaves: the framed leaves from the first on.
        blob: a document, model or update by its reference.
        checkpoint: the newest signed note that is here, or None.
        final_size: entries under the newest final checkpoint that is here.
    """

    source: str
    state: State
    leaves: Callable[[], Iterator[bytes]]
    blob: Callable[[BlobRef], bytes]
    checkpoint: bytes | None
    final_size: int

    def entries(self) -> Iterator[Sequenced]:
        """Every entry in order, with the fold's verdict."""
        log = Log()
        for leaf in self.leaves():
            yield log.append(log.judge(leaf))


@contextmanager
def open_view(home: Path, at: str | None, passphrase_file: Path | None) -> Iterator[LedgerView]:
    """A ledger to read.

    Args:
        home: a member's home; its copy is brought up to date first. While the member's own service
            runs there, its copy is read as it is.
        at: what to read instead (``log_sources.py``): a copy, without keys and network, or a server.
        passphrase_file: see ``passphrase.py``.
    """
    if at is not None:
        with open_at(at, home, passphrase_file) as copies:
            yield copies_view(at, copies)
        return
    with ExitStack() as stack:
        try:
            membership = stack.enter_context(open_member(home, passphrase_file))
        except AlreadyRunning:
            place = find_home(home).path
            note(f"{place} is in use by its own service; its copy is read as it is now")
            yield stack.enter_context(offline_view(place))
            return
        membership.follow()
        yield member_view(membership)


def member_view(membership: Membership) -> LedgerView:
    """What a member's verified copy says now."""
    replica = membership.replica
    return LedgerView(
        source=str(membership.home.path),
        state=replica.state,
        leaves=lambda: read_leaves(replica.store, 0, replica.size),
        blob=membership.fetch,
        checkpoint=replica.checkpoint,
        final_size=replica.final.size,
    )


@contextmanager
def offline_view(at: Path) -> Iterator[LedgerView]:
    """The longest copy at a place."""
    copies = open_copies(str(at))
    try:
        yield copies_view(str(at), copies)
    finally:
        close_copies(copies)


def copies_view(at: str, copies: list[Copy]) -> LedgerView:
    """The longest of some copies, folded; the caller keeps them open while it is read."""
    longest = max(copies, key=lambda copy: copy.size())

    def leaves() -> Iterator[bytes]:
        return (entry.leaf for entry in longest.entries())

    def blob(ref: BlobRef) -> bytes:
        missing: BlobMissing | None = None
        for copy in [longest, *copies]:
            try:
                return copy.blob(ref.sha256, ref.bytes)
            except BlobMissing as error:
                missing = error
        assert missing is not None
        raise missing

    log = Log()
    for leaf in leaves():
        log.append(log.judge(leaf))
    notes = list(longest.checkpoints())
    finals = list(longest.finals())
    return LedgerView(
        source=f"{at} ({longest.name})" if len(copies) > 1 else at,
        state=log.state,
        leaves=leaves,
        blob=blob,
        checkpoint=notes[-1].note if notes else None,
        final_size=finals[-1].size if finals else 1,
    )
