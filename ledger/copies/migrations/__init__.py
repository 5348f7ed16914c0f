"""Schema migrations of a log's store, run by ``ledger.copies.database`` through Alembic.

``env.py`` works on a connection handed to it; every step is a file in ``versions``.
"""
