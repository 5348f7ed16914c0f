"""The book of promises: federations of one hospital share its patients' lifetime promise."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.entries.operations.datasets import CellLimit, CellRegistered
from node.errors import PromiseExceeded
from node.register.promises import PromiseBook, Share
from privacy.filters import limit_for

DELTA = 10**10


def cell(
    epsilon: float, delta_e15: int = DELTA // 4, *, name: str = "basel-all", patients: int = 300
) -> CellRegistered:
    limit = limit_for(epsilon, 1e-5)
    return CellRegistered(
        type="cell.registered",
        cell=name,
        block="all",
        half="both",
        declared_patients=patients,
        epsilon_micro=round(epsilon * 10**6),
        delta_e15=delta_e15,
        limit=CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi),
    )


@pytest.fixture
def book(tmp_path: Path) -> PromiseBook:
    made = PromiseBook(tmp_path / "promises.db")
    made.promise(8_000_000, DELTA)
    return made


def test_a_second_federation_gets_what_the_first_one_left(book: PromiseBook) -> None:
    book.allot("one", [cell(5)])
    with pytest.raises(PromiseExceeded) as caught:
        book.allot("two", [cell(5)])
    assert "this federation asks for epsilon 5, delta 2.5e-06 of a lifetime of epsilon 8" in str(
        caught.value
    )
    assert "one has epsilon 5" in caught.value.reason
    book.allot("two", [cell(3)])
    assert book.allotments() == {
        "one": Share(5_000_000, DELTA // 4),
        "two": Share(3_000_000, DELTA // 4),
    }


def test_delta_is_shared_like_epsilon(book: PromiseBook) -> None:
    book.allot("one", [cell(1, DELTA)])
    with pytest.raises(PromiseExceeded, match="promise less here"):
        book.allot("two", [cell(1, 1)])
    with pytest.raises(PromiseExceeded):  # a tenth of 1 / patients, over all federations
        book.allot("one", [cell(1, DELTA), cell(1, 1, patients=10**6)])


def test_an_allotment_is_its_largest_cell_and_never_shrinks(book: PromiseBook) -> None:
    book.allot("one", [cell(5, name="basel-train"), cell(2, name="basel-test")])
    book.allot("one", [cell(2)])
    book.allot("one", [])
    assert book.allotments()["one"].epsilon_micro == 5_000_000


def test_a_lifetime_promise_is_made_once(book: PromiseBook, tmp_path: Path) -> None:
    assert book.promise(8_000_000, DELTA) == Share(8_000_000, DELTA)
    with pytest.raises(PromiseExceeded, match="is epsilon 8, delta 1e-05 for ever"):
        book.promise(9_000_000, DELTA)
    with pytest.raises(PromiseExceeded, match="put the book back from a backup"):
        PromiseBook(tmp_path / "lost.db").allot("one", [cell(1)])
    (tmp_path / "text.db").write_text("not a database, but long enough to be taken for one\n" * 20)
    with pytest.raises(PromiseExceeded, match="it cannot be used"):
        PromiseBook(tmp_path / "text.db").lifetime()


def test_a_book_that_takes_no_more_says_why_and_stays_as_it_was(
    book: PromiseBook, tmp_path: Path
) -> None:
    """A full disk ends the transaction by itself: there is none to roll back then."""
    with closing(sqlite3.connect(tmp_path / "promises.db")) as file:
        file.execute(
            "CREATE TRIGGER full BEFORE INSERT ON allotments "
            "BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END"
        )
        file.commit()
    with pytest.raises(PromiseExceeded, match="database or disk is full"):
        book.allot("first", [cell(1)])
    assert book.allotments() == {}


def test_homes_that_ask_at_once_get_no_more_than_there_is(book: PromiseBook) -> None:
    refused: list[str] = []

    def ask(name: str) -> None:
        try:
            book.allot(name, [cell(3, DELTA // 8)])
        except PromiseExceeded:
            refused.append(name)

    threads = [threading.Thread(target=ask, args=(f"federation-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 4
    assert sum(share.epsilon_micro for share in book.allotments().values()) == 6_000_000


@settings(deadline=None, max_examples=25)
@given(asked=st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9)), max_size=12))
def test_the_lifetime_promise_is_never_passed(
    asked: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    book = PromiseBook(tmp_path_factory.mktemp("book") / "promises.db")
    book.promise(8_000_000, DELTA)
    for name, epsilon in asked:
        try:
            book.allot(name, [cell(epsilon, DELTA // 8 * epsilon if epsilon <= 8 else DELTA)])
        except PromiseExceeded:
            continue
    held = book.allotments().values()
    assert sum(share.epsilon_micro for share in held) <= 8_000_000
    assert sum(share.delta_e15 for share in held) <= DELTA
