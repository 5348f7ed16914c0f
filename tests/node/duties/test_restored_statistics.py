"""A register that was restored counts what ``dataset describe`` released, once, whatever it remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from node.duties.describing import unanswered
from node.duties.told import account_for_told, unaccounted
from node.register.private import PrivateRegister
from privacy.filters import Spend
from tests.federation import node_of
from tests.node.data.test_statistics import Hospital, prepared, table_file

BASEL = node_of("basel")


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def told(hospital: Hospital) -> str:
    """Statistics that were allowed, answered and said."""
    assert hospital.allow(hospital.permission()) is None
    (identity,) = unanswered(hospital.federation.state, BASEL)
    said, _ = hospital.answer(identity)
    assert hospital.saying.say(said) is None
    return identity


def back_up(hospital: Hospital) -> Path:
    hospital.private.close()
    file = hospital.directory / "private.db"
    kept = hospital.directory / "backup.db"
    shutil.copy(file, kept)
    hospital.private = PrivateRegister.open(file)
    return kept


def restore(hospital: Hospital, backup: Path) -> None:
    hospital.private.close()
    for file in hospital.directory.glob("private.db*"):
        file.unlink()
    shutil.copy(backup, hospital.directory / "private.db")
    hospital.private = PrivateRegister.open(hospital.directory / "private.db")


def spends(hospital: Hospital) -> tuple[Spend, Spend]:
    """Of the training cell: by the register, and by the log."""
    return (
        hospital.private.view.cells["basel-train"].spend,
        hospital.federation.state.cells["basel-train"].spend,
    )


def test_a_restored_register_counts_what_was_told_after_its_backup(hospital: Hospital) -> None:
    first = told(hospital)
    backup = back_up(hospital)
    second = told(hospital)
    restore(hospital, backup)
    state = hospital.federation.state
    assert spends(hospital)[0].g < spends(hospital)[1].g
    assert [identity for identity, _ in unaccounted(state, BASEL, hospital.private.view)] == [
        second
    ]
    assert list(unaccounted(state, node_of("bern"), hospital.private.view)) == []
    for _ in range(2):  # the second time nothing is left to do
        account_for_told(state, BASEL, hospital.private)
        assert spends(hospital)[0] == spends(hospital)[1]
    charges = hospital.private.view.charges
    assert (charges[first, "basel-heart"], charges[second, "basel-heart"]) == (
        "reserved",
        "settled",
    )


def test_it_counts_that_before_it_pays_for_more(hospital: Hospital) -> None:
    backup = back_up(hospital)
    told(hospital)
    restore(hospital, backup)
    told(hospital)
    assert spends(hospital)[0] == spends(hospital)[1]


def test_a_register_made_anew_takes_it_from_the_log_once(hospital: Hospital) -> None:
    told(hospital)
    hospital.private.close()
    hospital.private = PrivateRegister.open(hospital.directory / "new.db")
    file = table_file(hospital.directory)
    hospital.saying.register(prepared(hospital.private, file, hospital.declared), hospital.private)
    assert spends(hospital)[0] == spends(hospital)[1]
    account_for_told(hospital.federation.state, BASEL, hospital.private)
    assert spends(hospital)[0] == spends(hospital)[1]


def test_a_permission_that_such_a_register_answers_is_not_charged_twice(
    hospital: Hospital,
) -> None:
    hospital.private.close()
    hospital.private = PrivateRegister.open(hospital.directory / "new.db")
    assert hospital.allow(hospital.permission()) is None  # in the log's spend from here on
    # The same bytes are in the log already, and are registered anew for a register that lost them.
    file = table_file(hospital.directory)
    hospital.saying.register(prepared(hospital.private, file, hospital.declared), hospital.private)
    assert spends(hospital)[0] == spends(hospital)[1]
    (identity,) = unanswered(hospital.federation.state, BASEL)
    held = hospital.federation.state.statistics[identity]
    hospital.private.reserve(
        hospital.federation.state.federation, identity, "basel-heart", held.terms.charges
    )
    assert spends(hospital)[0] == spends(hospital)[1]
    hospital.private.record_intent(
        identity, "basel-heart", "evaluate", round_number=1, steps=1, at_ms=1
    )
