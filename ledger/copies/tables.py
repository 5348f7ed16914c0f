"""The tables of a log's store, as the newest migration leaves them.

A test compares them with a migrated database, on SQLite and PostgreSQL. Constraints and triggers
that only guard (``length(leaf) = 32``, append-only) stand in the migrations alone.

SQLite stores any type in any column, so whoever owns the file can put text, or a number, where bytes
belong. `Stored` hands out what is there as it is, and ``store`` looks at its type.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


class Stored(sa.types.TypeDecorator[bytes]):
    """Bytes that are read without a conversion, which would fail, or turn 5 into five zeros."""

    impl = sa.LargeBinary
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        """None: no conversion."""
        return None


METADATA = sa.MetaData()
# In SQLite only INTEGER PRIMARY KEY is the row id itself, and needs no index beside it.
_Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

ENTRIES = sa.Table(
    "entries",
    METADATA,
    sa.Column("index", _Big, primary_key=True, autoincrement=False),
    sa.Column("body", Stored, nullable=False),
    sa.Column("signature", Stored, nullable=False),
    sa.Column("leaf", Stored, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("leaf", name="entries_leaf"),
    sa.UniqueConstraint("key", "seq", name="entries_key_seq"),
)
"""The log: one row an entry, numbered from 0."""

CHECKPOINTS = sa.Table(
    "checkpoints",
    METADATA,
    sa.Column("size", _Big, primary_key=True, autoincrement=False),
    sa.Column("note", Stored, nullable=False),
)
"""Checkpoints as their log signed them, one for a size."""

FINALS = sa.Table(
    "finals",
    METADATA,
    sa.Column("size", _Big, primary_key=True, autoincrement=False),
    sa.Column("note", Stored, nullable=False),
)
"""Checkpoints with a quorum of cosignatures, one for a size."""

CONFLICTS = sa.Table(
    "conflicts",
    METADATA,
    sa.Column("id", _Big, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("digest", Stored, nullable=False),
    sa.Column("evidence", Stored, nullable=False),
    sa.UniqueConstraint("digest", name="conflicts_digest"),
)
"""Evidence, known by its SHA-256 (``digest``)."""

WITNESSED = sa.Table(
    "witnessed",
    METADATA,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("root", Stored, nullable=False),
    sa.Column("note", Stored, nullable=False),
)
"""The last tree that this witness cosigned, one row a log; its size never goes back."""
