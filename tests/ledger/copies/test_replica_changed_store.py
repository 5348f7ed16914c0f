"""A store that somebody changed is not opened as a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore, Row
from ledger.errors import (
    BadSignature,
    MalformedInput,
    NotAdmitted,
    NotConsistent,
    UnknownKey,
)
from tests.federation import HOSPITALS, Federation
from tests.ledger.copies.followed import stored, tamper

TAMPERINGS = {
    "a body": (
        "update entries set body = cast(replace(cast(body as text), '\"seq\":0', '\"seq\":1') "
        'as blob) where "index" = 2',
        (MalformedInput, NotAdmitted, BadSignature, NotConsistent),
    ),
    "a signature": (
        'update entries set signature = zeroblob(64) where "index" = 3',
        (BadSignature,),
    ),
    "a leaf hash": (
        'update entries set leaf = randomblob(32) where "index" = 3',
        (NotConsistent,),
    ),
    "a sequence number": (
        'update entries set seq = seq + 7 where "index" = 3',
        (NotConsistent,),
    ),
    "the last entry gone": (
        'delete from entries where "index" = (select max("index") from entries)',
        (NotConsistent,),
    ),
    "a checkpoint's root": (
        "update checkpoints set note = cast(replace(cast(note as text), 'A', 'B') as blob)",
        (BadSignature, MalformedInput, UnknownKey),
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_changed_store_is_not_opened(tmp_path: Path, name: str) -> None:
    federation, path = stored(tmp_path)
    statement, errors = TAMPERINGS[name]
    tamper(path, statement)
    store = LogStore.open(f"sqlite:///{path}")
    with pytest.raises(errors):
        Replica.open(store, federation.id)
    store.close()


def test_a_store_cut_back_with_its_newest_checkpoint_is_not_behind_its_finals(
    tmp_path: Path,
) -> None:
    federation, path = stored(tmp_path)
    tamper(
        path,
        'delete from entries where "index" > 3',
        "delete from checkpoints where size > 4",
    )
    store = LogStore.open(f"sqlite:///{path}")
    with pytest.raises(NotConsistent, match="only 4 are here"):
        Replica.open(store, federation.id)
    store.close()


def test_the_copy_of_another_federation_is_not_opened(tmp_path: Path) -> None:
    _, path = stored(tmp_path)
    store = LogStore.open(f"sqlite:///{path}")
    with pytest.raises(NotAdmitted, match="genesis of another federation"):
        Replica.open(store, "0" * 64)
    store.close()


def test_rows_in_another_order_are_not_this_log(tmp_path: Path) -> None:
    federation = Federation.found(HOSPITALS[:2])
    order = [0, 2, 1, *range(3, federation.log.size)]
    entries = [federation.entries()[n] for n in order]
    store = LogStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    rows = [Row(e.raw, e.signature, bytes.fromhex(e.hash), e.body.key, e.body.seq) for e in entries]
    store.append(0, rows, (federation.log.size, federation.checkpoint()))
    with pytest.raises((NotAdmitted, NotConsistent)):
        Replica.open(store, federation.id)
    store.close()
