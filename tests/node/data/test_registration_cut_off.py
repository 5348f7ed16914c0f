"""A registration that was refused, cut off or forgotten leaves nothing half done, and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ledger.entries.operations.datasets import DatasetRegistered
from ledger.entries.operations.vocabulary import Operation
from ledger.rules.state import replace as changed
from node.data.registration import finish_registrations, register
from node.errors import RegistrationRefused
from node.register.private import PrivateRegister
from tests.node.data.registered import Saying, prepared, schema, table


def test_what_the_log_refuses_leaves_nothing_half_registered(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying()
    saying.federation.register_dataset("bern", "basel-heart")
    with pytest.raises(RegistrationRefused, match="belongs to another hospital"):
        saying.register(prepared(private, table(tmp_path), schema()), private)
    assert private.datasets.unfinished() == ()
    assert "basel-heart" not in private.view.datasets


def test_a_crash_before_it_was_said_leaves_nothing_usable(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying(fail_at=DatasetRegistered)
    with pytest.raises(ConnectionError):
        saying.register(prepared(private, table(tmp_path), schema()), private)
    assert "basel-heart" not in private.view.datasets
    assert finish_registrations(private, saying.federation.state) == ()
    saying.fail_at = None
    saying.register(prepared(private, table(tmp_path), schema(), None), private)
    assert private.view.datasets["basel-heart"].registration is not None


@pytest.mark.parametrize("delta", [None, 1e-7])
def test_a_registration_cut_off_between_its_two_cells_goes_on_with_the_same_promise(
    tmp_path: Path, private: PrivateRegister, delta: float | None
) -> None:
    """Without ``--epsilon`` too: the second cell's patients are promised what the first cell's are."""
    saying, given = Saying(), schema(ids=True)
    saying.cut_off_after("cell.registered")
    with pytest.raises(ConnectionError):
        saying.register(prepared(private, table(tmp_path), given, 2.5, delta), private)
    assert list(private.view.cells) == ["basel-train"]
    saying.cut_off_after(None)
    saying.register(prepared(private, table(tmp_path), given, None), private)
    cells = saying.federation.state.cells
    assert cells["basel-test"].terms.epsilon_micro == 2_500_000
    assert cells["basel-test"].terms.delta_e15 == (10**10 if delta is None else 10**8)
    assert saying.said == ["cell.registered"] * 2 + ["dataset.registered"]
    assert private.view.datasets["basel-heart"].registration is not None


def test_the_second_cell_of_a_pair_gets_no_other_promise(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying()
    saying.cut_off_after("cell.registered")
    with pytest.raises(ConnectionError):
        saying.register(prepared(private, table(tmp_path), schema(ids=True), 2.5), private)
    with pytest.raises(RegistrationRefused, match=r"were promised epsilon 2\.5 for ever"):
        prepared(private, table(tmp_path), schema(ids=True), 3.0)


def test_a_crash_after_it_was_said_is_completed_from_the_log(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying()
    given = prepared(private, table(tmp_path), schema())
    private.datasets.note(given.record)
    for terms, _ in given.cells:
        saying.say(terms)
    saying.say(given.dataset)
    (finished,) = finish_registrations(private, saying.federation.state)
    assert finished.snapshot == given.dataset.snapshot
    assert "basel-all" in private.view.cells
    assert private.view.datasets["basel-heart"] == finished


def test_a_lost_register_takes_the_cells_spend_from_the_log(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying()
    federation = saying.federation
    datasets = [federation.register_dataset(name) for name in ("basel", "bern")]
    experiment = federation.propose(federation.spec(datasets))
    federation.approve(experiment, "basel-heart")
    federation.reserve(experiment, "basel-heart")
    given = prepared(private, table(tmp_path), schema(declared=200), 5.0, 1e-5)
    ((mine, percent),) = given.cells
    terms = federation.state.cells["basel-all"].terms
    assert (mine.epsilon_micro, mine.delta_e15) == (terms.epsilon_micro, terms.delta_e15)
    saying.register(replace(given, cells=((terms, percent),)), private)
    assert private.view.cells["basel-all"].spend == federation.state.cells["basel-all"].spend
    assert private.view.cells["basel-all"].spend.g > 0


def test_a_strangers_cell_of_the_same_name_is_refused(
    tmp_path: Path, private: PrivateRegister
) -> None:
    saying = Saying()
    given = prepared(private, table(tmp_path), schema())
    ((terms, _),) = given.cells
    saying.say(terms)
    cells = saying.federation.state.cells
    theirs = changed(cells["basel-all"], organisation="bern")
    state = changed(saying.federation.state, cells=cells.set("basel-all", theirs))
    saying.said.clear()
    with pytest.raises(
        RegistrationRefused, match=r"bern promised its 100 patients epsilon 5.*not basel"
    ):
        register(
            given,
            private,
            state=lambda: state,
            publish=saying.federation.put,
            say=saying.say,
        )
    assert saying.said == []
    assert not private.view.cells
    assert private.datasets.unfinished() == ()


@pytest.mark.parametrize(("epsilon", "declared"), [(9.0, 100), (5.0, 90)])
def test_another_promise_than_the_logs_is_refused(
    tmp_path: Path, private: PrivateRegister, epsilon: float, declared: int
) -> None:
    saying = Saying()
    ((terms, _),) = prepared(private, table(tmp_path), schema()).cells
    saying.say(terms)
    given = prepared(private, table(tmp_path), schema(declared=declared), epsilon)
    with pytest.raises(RegistrationRefused, match=r"promised its 100 patients epsilon 5.*for ever"):
        saying.register(given, private)
    assert not private.view.cells
    assert private.datasets.unfinished() == ()


def test_a_version_whose_end_was_not_heard_keeps_its_secret_when_another_follows(
    tmp_path: Path, private: PrivateRegister
) -> None:
    """The log has it, and only with its salt can a record be shown to be in it or not."""
    saying, first = Saying(), prepared(private, table(tmp_path), schema())

    def unheard(op: Operation) -> str | None:
        void = saying.say(op)
        if isinstance(op, DatasetRegistered):
            raise ConnectionError
        return void

    with pytest.raises(ConnectionError):
        register(
            first,
            private,
            state=lambda: saying.federation.state,
            publish=saying.federation.put,
            say=unheard,
        )
    registration = saying.federation.state.datasets["basel-heart"].registration
    saying.register(prepared(private, table(tmp_path, rows=90), schema()), private)
    kept = private.datasets.registered(registration)
    assert kept is not None
    assert kept.salt == first.record.salt
    assert private.view.datasets["basel-heart"].rows == 90
