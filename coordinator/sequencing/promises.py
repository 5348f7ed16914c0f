"""Receipts for what was taken: one signature for all entries of a commit (``ledger.formats.receipt``).

They are made after the commit. So an honest coordinator promises only what is durable under a
checkpoint already, and the deadline is the time within which it shows that to everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ledger.exchange.messages import Receipt
from ledger.formats.keys import SigningKey
from ledger.formats.receipt import MergeReceipt, sign_receipts
from ledger.rules.log import Sequenced

Place = tuple[Receipt, bytes]
"""An answer without its promise, and the entry's leaf hash."""


class Promises:
    """Signs with the log key. One thread.

    Args:
        key: the log key.
        origin: the log's.
        delay_s: seconds within which an entry is shown under a checkpoint.
        now_ms: the coordinator's clock.
    """

    def __init__(
        self, key: SigningKey, origin: str, delay_s: float, now_ms: Callable[[], int]
    ) -> None:
        self._key = key
        self._origin = origin
        self._delay_ms = round(delay_s * 1000)
        self._now_ms = now_ms

    def answer(self, taken: Sequence[Sequenced], places: Sequence[Place]) -> list[Receipt]:
        """Complete the answers of one turn.

        Args:
            taken: what was made durable now, in order.
            places: answers to submissions; of entries among `taken`, or known from before.
        """
        if not places:
            return []
        first = taken[0].index if taken else None
        signed = () if first is None else self._sign(first, [_leaf(item) for item in taken])
        answers = []
        for receipt, leaf in places:
            if first is not None and receipt.index >= first:
                promise = signed[receipt.index - first]
            else:
                (promise,) = self._sign(receipt.index, [leaf])
            answers.append(
                Receipt(receipt.index, receipt.applied, receipt.reason, promise.encode())
            )
        return answers

    def _sign(self, first: int, leaves: Sequence[bytes]) -> tuple[MergeReceipt, ...]:
        now_ms = self._now_ms()
        return sign_receipts(
            self._key,
            self._origin,
            first,
            leaves,
            accepted_ms=now_ms,
            merge_by_ms=now_ms + self._delay_ms,
        )


def _leaf(item: Sequenced) -> bytes:
    return bytes.fromhex(item.entry.hash)
