"""The tables of a log's store, as the newest migration leaves them.

A test compares them with a migrated database, on SQLite and PostgreSQL. Constraints and triggers
that only guard (``length(leaf) = 32``, append-only) stand in the migrations alone.
"""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()
# In SQLite only INTEGER PRIMARY KEY is the row id itself, and needs no index beside it.
_Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

ENTRIES = sa.Table(
    "entries",
    METADATA,
    sa.Column("index", _Big, primary_key=True, autoincrement=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("leaf", sa.LargeBinary, nullable=False),
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
    sa.Column("note", sa.LargeBinary, nullable=False),
)
"""Checkpoints as their log signed them, one for a size."""

FINALS = sa.Table(
    "finals",
    METADATA,
    sa.Column("size", _Big, primary_key=True, autoincrement=False),
    sa.Column("note", sa.LargeBinary, nullable=False),
)
"""Checkpoints with a quorum of cosignatures, one for a size."""

CONFLICTS = sa.Table(
    "conflicts",
    METADATA,
    sa.Column("id", _Big, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sa.Column("evidence", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("digest", name="conflicts_digest"),
)
"""Evidence, known by its SHA-256 (``digest``)."""

WITNESSED = sa.Table(
    "witnessed",
    METADATA,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("note", sa.LargeBinary, nullable=False),
)
"""The last tree that this witness cosigned, one row a log; its size never goes back."""
