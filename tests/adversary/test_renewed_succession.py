"""A promise that renews, through a succession: what was open in the old log is released late, and forgotten."""

from __future__ import annotations

import dataclasses

import pytest

from ledger.rules.state import State, replace
from node.duties.predecessors import account_for_predecessors
from node.duties.recovery import counted_in, spend_in
from node.duties.renewing import periods_in
from privacy.errors import BudgetExceeded
from privacy.filters import Spend
from privacy.periods import Periods
from tests.adversary.registry import attack
from tests.adversary.test_patient_accounts import succeeded
from tests.adversary.test_renewed_budget import CELL, MONTH, NODE, TABLE, Month
from tests.adversary.world import World

pytestmark = pytest.mark.usefixtures("quick_keys")


class Late:
    """Basel reserved in the first month, and released in the second, when the new log had begun anew."""

    def __init__(self, world: World) -> None:
        self.home = world.directory / "home"
        self.world, self.month = world, Month(world)
        self.basel = self.month.basel
        (self.charge,) = self.month.charges(self.month.first)
        honest = self.basel.back_up(world.directory / "honest")
        self.basel.restore(self.month.empty)
        self.basel.follow()
        cell = self.basel.replica.state.cells[CELL]
        assert cell.periods is not None
        begun = Periods(cell.periods.days, cell.periods.from_ms)  # as before anything was reserved
        self.basel.register.add_cell(cell.terms, None, periods=begun)
        self.before = self.basel.back_up(world.directory / "before")
        self.basel.restore(honest)

    def comes_into_the_new_log(self, state: State) -> None:
        """As at a start of the node."""
        account_for_predecessors(
            self.home, state, self.basel.handle, self.basel.register, self.basel.now_ms
        )

    def successor(self, *, keep: bool) -> State:
        """The new log, in a period in which it knows of nothing spent."""
        state = succeeded(self.world, self.home, keep=keep)
        cell = state.cells[CELL]
        assert cell.periods is not None
        periods = dataclasses.replace(
            cell.periods, number=cell.periods.at(self.basel.now_ms), open_g=0, open_r=0
        )
        return replace(
            state, cells=state.cells.set(CELL, replace(cell, spend=Spend(), periods=periods))
        )

    def asks_again(self) -> None:
        """Somebody asks 4 of 5 in the new log."""
        self.basel.register.reserve("e" * 64, "f" * 64, TABLE, (self.charge,))


@pytest.fixture
def late(world: World) -> Late:
    return Late(world)


@attack(
    name="hospital comes late into a new log, and restores a register from before what it released late",
    exposed_by=NODE,
    evidence="the home's copy of the log before",
)
@pytest.mark.parametrize("keep", [True, False], ids=["with the old copy", "without it"])
def test_what_was_open_in_the_old_log_counts_in_the_month_of_the_move(
    late: Late, keep: bool
) -> None:
    late.month.pass_time(MONTH)  # and a vector leaves, by the reservation of the month before
    state = late.successor(keep=keep)
    late.basel.restore(late.before)  # the lie
    assert late.month.register_spend() == Spend()
    late.comes_into_the_new_log(state)
    found = late.month.register_spend()
    assert found.g >= late.charge.g
    assert found.r >= late.charge.r
    late.comes_into_the_new_log(state)
    assert late.month.register_spend() == found
    late.world.exposed(NODE)
    with pytest.raises(BudgetExceeded):
        late.asks_again()
    late.month.pass_time(MONTH)
    assert late.month.register_spend() == Spend(), "nothing of it is open in the new log"
    late.asks_again()


def test_an_honest_register_holds_nothing_of_the_old_log_open_for_ever(late: Late) -> None:
    late.month.pass_time(MONTH)
    state = late.successor(keep=True)
    late.comes_into_the_new_log(state)
    assert late.month.register_spend() == Spend(late.charge.g, late.charge.r)
    with pytest.raises(BudgetExceeded):
        late.asks_again()
    late.month.pass_time(MONTH)
    assert late.month.register_spend() == Spend()


def test_a_lost_register_counts_all_that_both_logs_ever_charged(late: Late) -> None:
    late.month.pass_time(MONTH)
    state = late.successor(keep=True)
    late.basel.restore(late.month.empty)
    late.comes_into_the_new_log(state)
    late.basel.register.add_cell(
        state.cells[CELL].terms,
        None,
        spend_in(state, CELL),
        counted_in(state, CELL),
        periods_in(state, CELL, late.basel.now_ms),
    )
    assert late.month.register_spend().g >= late.charge.g
    with pytest.raises(BudgetExceeded):
        late.asks_again()
