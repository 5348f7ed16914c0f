"""What waits to be sent: each round's noisy vector, and the secrets of the newest masked round.

Promise: each write is durable when its function returns. A vector that is kept goes out again as the same
bytes, never other ones; one that was masked belongs to its attempt.
"""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from ledger.entries.operations.values import BlobRef
from node.register import rows, tables
from node.register.held import Held


class Outbox:
    """The part of the register that holds vectors and masks, for reservations that are not settled."""

    def __init__(self, held: Held) -> None:
        self._held = held

    def store(self, experiment: str, dataset: str, round_number: int, ref: BlobRef) -> None:
        """Keep what a round sends: the same bytes go out again, never other ones."""
        with self._held.current():
            key = (experiment, dataset, round_number)
            with self._held.writing() as connection:
                connection.execute(
                    rows.INSERT_OUTBOX,
                    {
                        "experiment": experiment,
                        "dataset": dataset,
                        "round": round_number,
                        "sha256": ref.sha256,
                        "bytes": ref.bytes,
                    },
                )
            self._held.view = replace(self._held.view, outbox=self._held.view.outbox.set(key, ref))

    def note_masked(self, experiment: str, dataset: str, round_number: int, context: str) -> None:
        """A vector is about to leave under masks, or to be opened in a sum: it belongs to this attempt now."""
        with self._held.current():
            key = (experiment, dataset, round_number)
            with self._held.writing() as connection:
                change = sa.update(tables.outbox).where(*rows.outbox_of(key))
                connection.execute(change.values(masked_in=context))
            self._held.view = replace(
                self._held.view, masked_in=self._held.view.masked_in.set(key, context)
            )

    def drop(self, experiment: str, dataset: str, round_number: int) -> None:
        """Forget a vector that must not be used again; its intents stay."""
        with self._held.current():
            key = (experiment, dataset, round_number)
            outbox, masked_in = self._held.view.outbox, self._held.view.masked_in
            with self._held.writing() as connection:
                connection.execute(sa.delete(tables.outbox).where(*rows.outbox_of(key)))
            self._held.view = replace(
                self._held.view,
                outbox=outbox.delete(key) if key in outbox else outbox,
                masked_in=masked_in.delete(key) if key in masked_in else masked_in,
            )

    def keep_masks(self, experiment: str, dataset: str, context: str, sealed: bytes) -> None:
        """Keep a masked round's secrets in place of those of the round before."""
        with self._held.current():
            key = (experiment, dataset)
            values = {"experiment": key[0], "dataset": key[1], "context": context, "sealed": sealed}
            with self._held.writing() as connection:
                connection.execute(sa.delete(tables.masks).where(*rows.masks_of(key)))
                connection.execute(sa.insert(tables.masks).values(values))
            self._held.view = replace(
                self._held.view, masks=self._held.view.masks.set(key, context)
            )

    def masks_of(self, experiment: str, dataset: str) -> bytes:
        """The sealed secrets of the newest masked round; empty where none are held."""
        query = sa.select(tables.masks.c.sealed).where(*rows.masks_of((experiment, dataset)))
        with self._held.database.read() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return b"" if found is None else bytes(found)
