"""The entries of one commit, before it: parsed, signed, taken in memory, and as rows."""

from __future__ import annotations

from collections.abc import Callable

from coordinator.errors import Mishap
from coordinator.sequencing.inbox import mishap
from ledger.copies.leaves import leaf_at
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Body, Entry, Seen, parse_leaf, sign_entry
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import LedgerError, NotAdmitted
from ledger.formats.keys import KeyRing
from ledger.rules.log import Sequenced
from ledger.rules.state import State


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


def entry_or_refusal(leaf: bytes) -> Entry | LedgerError | Mishap:
    """An entry, or why it is none: said when its turn comes."""
    try:
        return parse_leaf(leaf)
    except LedgerError as refusal:
        return refusal
    except Exception as error:  # noqa: BLE001
        return mishap(error)


def sign_next(op: Operation, keyring: KeyRing, state: State, seen: Seen, at_ms: int) -> Entry:
    """The coordinator's next entry, at this very place in the order.

    Raises:
        NotAdmitted: its entry key has ended.
    """
    key = keyring.entry
    chain = state.keys.get(key.id)
    if chain is None or chain.retired_at is not None:
        raise NotAdmitted(f"key {key.id}", "the coordinator's entry key is not active")
    body = Body(
        v=1,
        federation=state.federation,
        author=keyring.handle,
        key=key.id,
        seq=chain.next_seq,
        prev=chain.head,
        seen=seen,
        at_ms=at_ms,
        op=op,
    )
    return sign_entry(body, key)


def row(item: Sequenced) -> Row:
    """An entry as it is stored."""
    entry = item.entry
    return Row(
        entry.raw, entry.signature, bytes.fromhex(entry.hash), entry.body.key, entry.body.seq
    )
