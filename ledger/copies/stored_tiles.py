"""A log's tiles (c2sp.org/tlog-tiles) made from its store when somebody asks for them.

Promise: a tile's bytes are those that ``tile_folder`` would export. No tree is held: a tile of level 0
and a bundle are read from the store, and of every 256 entries one hash is remembered, which is what
the levels above are made of (125 KB for a million entries).

Not promised: that what is stored is true. Whoever reads a tile checks it against the signed root.

Safe from several threads.
"""

from __future__ import annotations

import threading

from ledger.copies.leaves import read_leaves
from ledger.copies.store import LogStore
from ledger.errors import OutsideTree
from ledger.formats.merkle import HASH_BYTES
from ledger.formats.tiles import WIDTH, Tile, bundle_bytes, fold_hashes


class StoredTiles:
    """See the module's first lines.

    Args:
        store: the log's.
    """

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._growing = threading.Lock()
        # _roots[k] holds one hash for each full tile of level k, 32 bytes each.
        self._roots: list[bytearray] = [bytearray()]

    def read(self, tile: Tile, size: int) -> bytes:
        """Return a tile or a bundle.

        Args:
            tile: its coordinates.
            size: entries that may be shown: those under a signed checkpoint, all of them stored.

        Raises:
            OutsideTree: it has entries beyond ``size``.
            StoreError: the store cannot be read.
        """
        if not tile.within(size):
            raise OutsideTree(tile.path, size)
        start = tile.index * WIDTH
        stop = start + tile.width
        if tile.level is None:
            return bundle_bytes(tuple(read_leaves(self._store, start, stop)))
        return self._hashes(tile.level, start, stop)

    def _hashes(self, level: int, start: int, stop: int) -> bytes:
        """Hashes ``start`` to ``stop`` of a level; each stands for 256^level entries."""
        if level == 0:
            return b"".join(self._store.leaves(start, stop))
        with self._growing:
            self._grow(level - 1, stop)
            return bytes(self._roots[level - 1][start * HASH_BYTES : stop * HASH_BYTES])

    def _grow(self, level: int, count: int) -> None:
        """Remember the hashes of the first ``count`` full tiles of a level."""
        while len(self._roots) <= level:
            self._roots.append(bytearray())
        known = self._roots[level]
        for index in range(len(known) // HASH_BYTES, count):
            if level == 0:
                hashes = b"".join(self._store.leaves(index * WIDTH, (index + 1) * WIDTH))
            else:
                self._grow(level - 1, (index + 1) * WIDTH)
                row = WIDTH * HASH_BYTES
                hashes = bytes(self._roots[level - 1][index * row : (index + 1) * row])
            known += fold_hashes(hashes)
