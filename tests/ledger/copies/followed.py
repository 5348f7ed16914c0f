"""Copies of a federation in memory, and a store of one that somebody changes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.log import NodeResumed, TimeNoted
from tests.federation import HOSPITALS, Federation, node_of

NODES = tuple(map(node_of, HOSPITALS))
NOTED = TimeNoted(type="time.noted")


def copy_of(federation: Federation, store: LogStore) -> Replica:
    return Replica.create(store, federation.leaves[0], federation.id)


def catch_up(replica: Replica, federation: Federation) -> None:
    replica.extend(federation.leaves[replica.size :], federation.checkpoint())


def reopen(federation: Federation, store: LogStore) -> Replica:
    return Replica.open(store, federation.id)


def stored(tmp_path: Path) -> tuple[Federation, Path]:
    federation = Federation.found(HOSPITALS[:2])
    store = LogStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    replica.accept_final(federation.finalize())
    federation.say(NODES[0], NodeResumed(type="node.resumed", nonce="0" * 64))
    catch_up(replica, federation)
    store.close()
    return federation, tmp_path / "ledger.db"


def tamper(path: Path, *statements: str) -> None:
    """What an administrator with the file can do: the triggers do not stop them."""
    with sqlite3.connect(path) as database:
        triggers = database.execute("select name from sqlite_master where type='trigger'")
        for (name,) in triggers.fetchall():
            database.execute(f'drop trigger "{name}"')
        for statement in statements:
            database.execute(statement)
