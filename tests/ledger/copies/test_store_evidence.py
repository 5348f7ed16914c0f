"""What a store keeps beside entries: finals, evidence, where a witness stands."""

from __future__ import annotations

import threading

import pytest

from ledger.copies import store
from ledger.copies.store import LogStore
from ledger.copies.stored import Conflict, StoredNote, Witnessed
from ledger.errors import StoreConflict
from tests.ledger.copies.some_rows import note, rows

pytest_plugins = ("tests.postgres",)


def test_the_first_final_of_a_size_stays_and_another_text_is_refused(log: LogStore) -> None:
    log.append(0, rows(0, 3), (2, note(2)))
    log.put_final(2, note(2, signer="first"))
    log.put_final(2, note(2, signer="second"))
    with pytest.raises(StoreConflict, match="checkpoints hold another text at size 2"):
        log.put_final(2, note(2, root="b3RoZXI="))
    log.put_final(3, note(3))
    with pytest.raises(StoreConflict, match="finals hold another text at size 3"):
        log.put_final(3, note(3, root="b3RoZXI="))
    with pytest.raises(StoreConflict, match="over 4 entries came, but it has 3"):
        log.put_final(4, note(4))
    first = StoredNote(2, note(2, signer="first"))
    assert log.finals() == (first, StoredNote(3, note(3)))
    assert log.finals(limit=1) == (first,)
    assert log.finals(after=2) == (StoredNote(3, note(3)),)
    assert log.latest_final() == StoredNote(3, note(3))


def test_evidence_is_kept_once_and_in_order(log: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE", 2)
    for evidence in (b"one", b"two", b"one", b"three"):
        log.put_conflict("fork", evidence)
    kept = [Conflict("fork", evidence) for evidence in (b"one", b"two", b"three")]
    assert list(log.conflicts()) == kept


def test_a_witness_moves_forward_only_and_from_where_it_was_judged(log: LogStore) -> None:
    old, new = b"a" * 32, b"b" * 32
    assert log.witnessed("x") is None
    log.set_witnessed("x", 3, old, b"n3", expected_size=0)
    log.set_witnessed("x", 3, old, b"n3 fresh", expected_size=3)
    log.set_witnessed("x", 5, new, b"n5", expected_size=3)
    log.set_witnessed("y", 1, old, b"y1", expected_size=0)
    with pytest.raises(StoreConflict, match="stands at 5, not at 3; judge anew"):
        log.set_witnessed("x", 7, new, b"late", expected_size=3)
    with pytest.raises(StoreConflict, match="stands at 5, not at 0; judge anew"):
        log.set_witnessed("x", 7, new, b"late", expected_size=0)
    with pytest.raises(StoreConflict, match="stands at None, not at 4"):
        log.set_witnessed("z", 7, new, b"late", expected_size=4)
    with pytest.raises(StoreConflict, match="would go back from 5 to 4"):
        log.set_witnessed("x", 4, old, b"n4", expected_size=5)
    with pytest.raises(StoreConflict, match="another root at size 5"):
        log.set_witnessed("x", 5, old, b"fork", expected_size=5)
    assert log.witnessed("x") == Witnessed(5, new, b"n5")
    assert log.witnessed("y") == Witnessed(1, old, b"y1")


def test_of_two_requests_judged_from_one_state_one_moves_the_witness(url: str) -> None:
    stores = [LogStore.open(url) for _ in range(4)]
    start = threading.Barrier(len(stores))
    moved: list[int] = []

    def move(mine: LogStore, size: int) -> None:
        start.wait()
        try:
            mine.set_witnessed("x", size, b"%032d" % size, b"note", expected_size=0)
            moved.append(size)
        except StoreConflict:
            return

    threads = [
        threading.Thread(target=move, args=(mine, size)) for size, mine in enumerate(stores, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(moved) == 1
    seen = stores[0].witnessed("x")
    assert seen is not None
    assert seen.size == moved[0]
    for opened in stores:
        opened.close()
