"""Rows and notes for stores that do not look into them."""

from __future__ import annotations

from hashlib import sha256

import sqlalchemy as sa

from ledger.copies.store import Row


def row(index: int, key: str = "a") -> Row:
    body = f"body {index} of {key}".encode()
    return Row(body, b"signature %d" % index, sha256(body).digest(), key, index)


def rows(start: int, stop: int) -> list[Row]:
    return [row(index) for index in range(start, stop)]


def note(size: int, root: str = "cm9vdA==", signer: str = "log") -> bytes:
    return f"example.org/log\n{size}\n{root}\n\n— {signer} c2ln\n".encode()


def execute(url: str, statement: str) -> None:
    """What somebody with access to the database does, without our code."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
