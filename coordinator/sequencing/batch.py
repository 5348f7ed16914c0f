"""The entries of one commit, before it: parsed, taken in memory, and as rows."""

from __future__ import annotations

from collections.abc import Callable

from ledger.copies.leaves import leaf_at
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Entry, Seen, parse_leaf
from ledger.errors import LedgerError
from ledger.rules.log import Sequenced


class Taken:
    """The entries of one batch, not durable yet."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.checked: dict[str, bytes] = {}
        self.taken: list[Sequenced] = []
        self.known: dict[str, int] = {}
        self.voids: dict[int, str] = {}

    def leaf_at(self, store: LogStore) -> Callable[[str, int], bytes | None]:
        """Where to look for the entry at a place of a key's chain: here, then in the store."""

        def find(key: str, seq: int) -> bytes | None:
            for item in self.taken:
                if (item.entry.body.key, item.entry.body.seq) == (key, seq):
                    return item.entry.leaf
            return leaf_at(store, key, seq)

        return find


def entry_or_refusal(leaf: bytes) -> Entry | LedgerError:
    """An entry, or why it is none: said when its turn comes."""
    try:
        return parse_leaf(leaf)
    except LedgerError as refusal:
        return refusal


def row(item: Sequenced) -> Row:
    """An entry as it is stored."""
    entry = item.entry
    return Row(
        entry.raw, entry.signature, bytes.fromhex(entry.hash), entry.body.key, entry.body.seq
    )
