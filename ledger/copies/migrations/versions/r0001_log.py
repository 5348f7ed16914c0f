"""The log, its signed and final checkpoints, conflicts, and the witness's memory.

Rows of a log are written once. SQLite's INSERT OR REPLACE deletes without firing delete triggers,
so an insert trigger refuses whatever would replace a row. Whoever owns the database can drop the
triggers: they stop accidents, and every verification is made as if they were not there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = {
    "entries": '"index" = NEW."index" OR leaf = NEW.leaf OR (key = NEW.key AND seq = NEW.seq)',
    "checkpoints": "size = NEW.size",
    "finals": "size = NEW.size",
    "conflicts": "id = NEW.id OR digest = NEW.digest",
}


def upgrade() -> None:
    # In SQLite only INTEGER PRIMARY KEY is the row id itself.
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "entries",
        sa.Column("index", big, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("leaf", name="entries_leaf"),
        sa.UniqueConstraint("key", "seq", name="entries_key_seq"),
        sa.CheckConstraint('"index" >= 0', name="entries_index_from_zero"),
        sa.CheckConstraint("length(leaf) = 32", name="entries_leaf_is_sha256"),
    )
    for name in ("checkpoints", "finals"):
        op.create_table(
            name,
            sa.Column("size", big, primary_key=True, autoincrement=False),
            sa.Column("note", sa.LargeBinary(), nullable=False),
        )
    op.create_table(
        "conflicts",
        sa.Column("id", big, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.UniqueConstraint("digest", name="conflicts_digest"),
    )
    op.create_table(
        "witnessed",
        sa.Column("origin", sa.Text(), primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_triggers()
    else:
        _postgresql_triggers()


def downgrade() -> None:
    raise NotImplementedError("a log is never taken back: there is nothing before its first schema")


def _sqlite_triggers() -> None:
    for table, same in APPEND_ONLY.items():
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {event} refused'); END"
            )
        present = f"EXISTS (SELECT 1 FROM {table} WHERE {same})"  # noqa: S608
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {present} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: this row is there already'); END"
        )
    op.execute(
        "CREATE TRIGGER witnessed_forward BEFORE UPDATE ON witnessed WHEN NEW.size < OLD.size "
        "BEGIN SELECT RAISE(ABORT, 'witnessed never goes back: UPDATE refused'); END"
    )
    op.execute(
        "CREATE TRIGGER witnessed_no_delete BEFORE DELETE ON witnessed "
        "BEGIN SELECT RAISE(ABORT, 'witnessed never goes back: DELETE refused'); END"
    )
    op.execute(
        "CREATE TRIGGER witnessed_no_replace BEFORE INSERT ON witnessed "
        "WHEN EXISTS (SELECT 1 FROM witnessed WHERE origin = NEW.origin) "
        "BEGIN SELECT RAISE(ABORT, 'witnessed never goes back: this row is there already'); END"
    )


def _postgresql_triggers() -> None:
    op.execute(
        "CREATE FUNCTION consilium_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP "
        "USING ERRCODE = 'restrict_violation'; END $$"
    )
    op.execute(
        "CREATE FUNCTION consilium_forward() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF TG_OP = 'UPDATE' AND NEW.size >= OLD.size THEN RETURN NEW; END IF; "
        "RAISE EXCEPTION '% never goes back: % refused', TG_TABLE_NAME, TG_OP "
        "USING ERRCODE = 'restrict_violation'; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION consilium_append_only()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION consilium_append_only()"
        )
    op.execute(
        "CREATE TRIGGER witnessed_forward BEFORE UPDATE OR DELETE ON witnessed "
        "FOR EACH ROW EXECUTE FUNCTION consilium_forward()"
    )
    op.execute(
        "CREATE TRIGGER witnessed_no_truncate BEFORE TRUNCATE ON witnessed "
        "FOR EACH STATEMENT EXECUTE FUNCTION consilium_append_only()"
    )
