"""Run migrations on the connection in ``config.attributes["connection"]``, in its transaction.

No alembic.ini, no logging set-up, no engine of its own: ``ledger.copies.database`` opened the database,
holds its lock and commits. Offline mode is not offered.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
