"""Between a log's framed leaves and the rows that a store keeps of them.

A row holds a leaf in parts, beside what a store finds it by. Nothing is judged here: what comes out is what
lies there, and whose entry it is, and whether the log may hold it, ``replica`` sees to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ledger.copies.store import LogStore, Row
from ledger.entries.entry import chain_position, frame_leaf, split_leaf
from ledger.errors import NotConsistent, StoreUnusable
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules.log import Sequenced


def append_rows(
    store: LogStore, first: int, rows: Sequence[Row], note: tuple[int, bytes] | None
) -> None:
    """Store rows and a note; what was reported lost counts if the store holds it after all.

    Raises:
        StoreUnusable: nothing of it is there.
    """
    try:
        store.append(first, rows, note)
    except StoreUnusable:
        size = first + len(rows)
        if store.size() != size or list(store.leaves(first)) != [row.leaf for row in rows]:
            raise
        if note is not None and store.checkpoint_at(size) != note[1]:
            raise


def read_leaves(store: LogStore, start: int, stop: int) -> Iterator[bytes]:
    """Framed leaves of a store, as they are sent to followers."""
    return (leaf_of(row) for row in store.rows(start, stop))


def leaf_at(store: LogStore, key: str, seq: int) -> bytes | None:
    """Framed leaf of the entry at a place of a key's chain, or None."""
    index = store.find_seq(key, seq)
    return None if index is None else leaf_of(store.row(index))


def row_of(item: Sequenced) -> Row:
    """The row of an entry that was judged."""
    entry = item.entry
    return Row(
        entry.raw, entry.signature, bytes.fromhex(entry.hash), entry.body.key, entry.body.seq
    )


def unread_row(leaf: bytes) -> Row:
    """A row of an entry whose operation is not known here; its envelope is that of every protocol."""
    key, seq = chain_position(leaf)
    return Row(*split_leaf(leaf), leaf_hash(leaf), key, seq)


def leaf_of(row: Row) -> bytes:
    """The framed leaf of a row."""
    return frame_leaf(row.body, row.signature)


def leaf_of_unread(row: Row, index: int) -> bytes:
    """The framed leaf of a row that `unread_row` made.

    Raises:
        NotConsistent: it was changed in the store.
    """
    leaf = leaf_of(row)
    if unread_row(leaf) != row:
        raise NotConsistent(
            f"entry {index}", "its stored index columns do not match its bytes"
        ) from None
    return leaf


def leads_to(tree: MerkleTree, leaves: Sequence[bytes], root: bytes) -> bool:
    """Whether a tree with further leaves has a root; the tree stays as it is."""
    size = tree.size
    try:
        tree.extend(map(leaf_hash, leaves))
        return tree.root() == root
    finally:
        tree.truncate(size)
