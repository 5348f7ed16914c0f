"""Promises that renew, in the fold: declared once and before use, counted per period of the log's time."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import to_builtins

from ledger.entries.operations.budgets import BudgetReserved
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.purposes import PurposeLimited
from ledger.entries.operations.refreshes import RefreshDeclared
from ledger.entries.operations.statistics import StatisticsReleased, StatisticsReserved
from ledger.entries.operations.values import BlobRef
from ledger.formats.strict import canonical, parse_canonical
from ledger.rules.decoding import decode
from ledger.rules.encoding import encode
from ledger.rules.fold import step
from ledger.rules.purposes import fitting, now
from ledger.rules.refreshes import resumed
from ledger.rules.state import Cell, State, replace
from ledger.rules.succession import carry
from privacy.filters import Charge, Spend, g_step, r_step_full_batch
from privacy.periods import DAY_MS, Periods
from tests.federation import COORDINATOR, Federation, node_of, steward_of
from tests.ledger.facts import (
    HOSPITALS,
    STEPS,
    asked,
    cell_of,
    dataset_of,
    experiment_of,
    fold,
    h,
    open_op,
    reserve_op,
    says,
    settle_op,
    submit_op,
)

ALL = sum(STEPS.values())
BASEL, STEWARD = node_of("basel"), steward_of("basel")
CELL = "basel-all"
MONTH = 30 * DAY_MS


def began() -> int:
    """Log time of the facts' federation."""
    return Federation.found(HOSPITALS).state.log_time


def renews(days: int = 30, from_ms: int | None = None, cell: str = CELL) -> RefreshDeclared:
    return RefreshDeclared(
        type="refresh.declared",
        cell=cell,
        days=days,
        from_ms=began() if from_ms is None else from_ms,
    )


@cache
def monthly() -> State:
    """Basel's promise renews each month and pays for one experiment and a half; bern's is for ever."""
    state = Federation.found(HOSPITALS).state
    for name in HOSPITALS:
        terms = cell_of(name)
        limit = replace(terms.limit, g_max=3 * ALL * g_step(1, 2) // 2, r_max=1)
        state = fold(state, node_of(name), replace(terms, limit=limit))
    state = fold(state, BASEL, renews())
    for name in HOSPITALS:
        state = fold(state, node_of(name), dataset_of(name))
    return state


def later(state: State, by_ms: int) -> State:
    """Log time moves by the coordinator's word."""
    noted = says(state, COORDINATOR, TimeNoted(type="time.noted"), at_ms=state.log_time + by_ms)
    state, outcome = step(state, noted)
    assert outcome.applied
    return state


def spent(state: State) -> int:
    """Steps in the cell's spend of the period of log time."""
    return now(state.cells[CELL], state.log_time).spend.g // g_step(1, 2)


def periods(state: State) -> Periods:
    held = state.cells[CELL].periods
    assert held is not None
    return held


# --- declared once, before the cell is used -------------------------------------------------------


def test_a_period_is_declared_by_the_cells_own_node_and_once() -> None:
    state = fold(Federation.found(HOSPITALS).state, BASEL, cell_of("basel"))
    fold(state, node_of("bern"), renews(), void="not_owner")
    fold(state, STEWARD, renews(), void="not_permitted")
    fold(state, BASEL, renews(cell="basel-none"), void="unknown_cell")
    state = fold(state, BASEL, renews(365))
    fold(state, BASEL, renews(365), void="repeated")
    fold(state, BASEL, renews(30), void="repeated")
    assert periods(state) == Periods(365, began())


def test_no_period_is_declared_of_a_cell_in_use() -> None:
    state = fold(Federation.found(HOSPITALS).state, BASEL, cell_of("basel"))
    offered = fold(state, BASEL, dataset_of("basel"))
    fold(offered, BASEL, renews(), void="cell_exists")
    cell = replace(state.cells[CELL], spend=Spend(1, 1))
    charged = replace(state, cells=state.cells.set(CELL, cell))
    fold(charged, BASEL, renews(), void="cell_exists")


def test_a_cell_with_a_period_is_not_registered_again() -> None:
    state = monthly()
    fold(state, BASEL, cell_of("basel"), void="cell_exists")
    fold(state, BASEL, cell_of("basel", "more"), void="cell_exists")


def test_no_period_where_patients_have_accounts_of_their_own() -> None:
    op = cell_of("basel", "train", half="individual")
    state = fold(Federation.found(HOSPITALS).state, BASEL, op)
    fold(state, BASEL, renews(cell="basel-train"), void="individual_cell")


def test_a_first_period_that_is_over_already_is_void() -> None:
    state = fold(Federation.found(HOSPITALS).state, BASEL, cell_of("basel"))
    fold(state, BASEL, renews(from_ms=began() - MONTH), void="cell_terms")
    state = fold(state, BASEL, renews(from_ms=began() - MONTH + 1))
    assert periods(state).at(state.log_time) == 0


@pytest.mark.parametrize("days", [0, 29, 36_526, -1])
def test_other_lengths_are_refused_at_the_door(days: int) -> None:
    said = to_builtins(renews()) | {"days": days}
    with pytest.raises(Exception, match="days"):
        parse_canonical(canonical(said), RefreshDeclared)


# --- counted per period of log time ---------------------------------------------------------------


def test_a_promise_that_renews_admits_again_in_the_next_period_and_one_for_ever_does_not() -> None:
    state = monthly()
    state, first = asked(state)
    state, second = asked(state)
    state = fold(state, BASEL, reserve_op(state, first))
    state = fold(state, BASEL, settle_op(first, **STEPS))
    fold(state, BASEL, reserve_op(state, second), void="budget_exhausted")
    before = later(state, MONTH - 1)
    fold(before, BASEL, reserve_op(before, second), void="budget_exhausted")
    after = later(before, 1)
    assert spent(after) == 0
    after = fold(after, BASEL, reserve_op(after, second))
    assert spent(after) == ALL
    assert periods(after).total_g == 2 * ALL * g_step(1, 2)
    assert (periods(after).number, periods(after).earlier) == (1, 1)


def test_what_is_open_counts_in_both_periods_and_is_given_back_in_the_one_that_settles_it() -> None:
    state = monthly()
    state, first = asked(state)
    state, second = asked(state)
    state = fold(state, BASEL, reserve_op(state, first))
    state = later(state, MONTH)
    fold(state, BASEL, reserve_op(state, second), void="budget_exhausted")
    assert spent(state) == ALL
    state = fold(state, BASEL, settle_op(first, train=1))
    assert spent(state) == 1
    state = fold(state, BASEL, reserve_op(state, second))
    state = later(state, MONTH)
    state = fold(state, BASEL, settle_op(second, train=2))
    assert spent(state) == 2
    assert periods(state).total_g == 3 * g_step(1, 2)
    assert (periods(state).open_g, periods(state).open_r) == (0, 0)
    assert spent(later(state, MONTH)) == 0


def test_a_refund_after_the_boundary_gives_the_new_period_no_more_than_it_inherited() -> None:
    state = monthly()
    state, first = asked(state)
    state, second = asked(state)
    state = fold(state, BASEL, reserve_op(state, first))
    state = later(state, MONTH)
    state = fold(state, BASEL, settle_op(first))
    assert state.cells[CELL].spend == Spend(0, 0, False, True)  # lane R never held it
    state = fold(state, BASEL, reserve_op(state, second))
    assert spent(state) == ALL


def test_noise_beyond_a_settlement_is_charged_to_the_period_in_which_it_is_stated() -> None:
    state = monthly()
    state, first = asked(state)
    state = fold(state, COORDINATOR, open_op(state, first, deadline_ms=2**50))
    state = fold(state, BASEL, reserve_op(state, first))
    state = fold(state, BASEL, settle_op(first, train=1))
    state = later(state, MONTH)
    state = fold(state, BASEL, submit_op(state, first, train=4), void="settled")
    assert spent(state) == 3
    assert periods(state).total_g == 4 * g_step(1, 2)


def test_a_purposes_part_renews_with_the_cell() -> None:
    state = monthly()
    most = ALL + 1
    part = PurposeLimited(
        type="purpose.limited",
        cell=CELL,
        purpose="care",
        epsilon_micro=500_000,
        g_max=most * g_step(1, 2),
        r_max=1,
    )
    state = fold(state, STEWARD, part)
    state, first = asked(state, "care")
    state, second = asked(state, "care")
    state = fold(state, BASEL, reserve_op(state, first))
    state = fold(state, BASEL, settle_op(first, train=3))
    fold(state, BASEL, reserve_op(state, second), void="purpose_exhausted")
    state = later(state, MONTH)
    step_cost = Charge(g_step(1, 2), r_step_full_batch(1, 2, 750))
    assert fitting(now(state.cells[CELL], state.log_time), "care", step_cost) == most
    state = fold(state, BASEL, reserve_op(state, second))
    state = later(state, MONTH)
    lower = replace(part, g_max=(ALL - 1) * g_step(1, 2))
    state = fold(state, STEWARD, lower)
    share = state.cells[CELL].purposes["care"]
    assert share.spend.g == share.open_g == ALL * g_step(1, 2)
    assert share.spend.g_overflowed  # what is still open is more than the new part


def test_statistics_stay_open_until_they_are_told() -> None:
    state = monthly()
    order = state.cells[CELL].terms.limit.order_centi
    cost = CellCharge(cell=CELL, g=g_step(1, 2), r=r_step_full_batch(1, 2, order))
    op = StatisticsReserved(
        type="statistics.reserved",
        dataset="basel-heart",
        registration=state.datasets["basel-heart"].registration,
        question=BlobRef(sha256=h("question"), bytes=1),
        size=4,
        sensitivity=1,
        noise_sd=2,
        pure=(),
        charges=(cost,),
    )
    entry = says(state, STEWARD, op)
    state, outcome = step(state, entry)
    assert outcome.applied
    state = later(state, MONTH)
    assert spent(state) == 1
    told = StatisticsReleased(
        type="statistics.released",
        reservation=entry.hash,
        result=BlobRef(sha256=h("numbers"), bytes=1),
    )
    state = fold(state, BASEL, told)
    assert spent(state) == 1
    assert periods(state).open_g == 0
    assert spent(later(state, MONTH)) == 0
    assert periods(state).total_g == g_step(1, 2)


# --- what a state keeps ---------------------------------------------------------------------------


def busy() -> State:
    """One reservation settled in the first period, one open in the second."""
    state = monthly()
    state, first = asked(state)
    state, second = asked(state)
    state = fold(state, BASEL, reserve_op(state, first))
    state = fold(state, BASEL, settle_op(first, train=1))
    state = later(state, MONTH)
    return fold(state, BASEL, reserve_op(state, second))


def test_a_state_with_periods_is_read_back_as_it_was() -> None:
    state = busy()
    assert decode(encode(state)) == state
    assert b'"periods":null' in encode(state)  # bern's


def test_a_successor_carries_period_and_spend_and_opens_nothing() -> None:
    state = busy()
    (part,) = (p for p in carry(state) if p.cells)
    basel, bern = part.cells
    assert bern.refresh is None
    refresh = basel.refresh
    assert refresh is not None
    assert (refresh.days, refresh.number, refresh.earlier) == (30, 1, 1)
    assert refresh.total_g == (ALL + 1) * g_step(1, 2)
    assert parse_canonical(canonical(part), type(part)) == part
    spend = Spend(basel.g, basel.r)
    same = resumed(refresh, spend, state.log_time)
    assert (same.number, same.open_g) == (1, 0)
    much_later = resumed(refresh, spend, state.log_time + 3 * MONTH)
    cell = Cell("basel", 1, basel.terms, spend, periods=much_later)
    assert now(cell, state.log_time + 3 * MONTH).spend == spend  # counts where the new log begins
    assert now(cell, state.log_time + 4 * MONTH).spend == Spend()
    assert much_later.used(spend) == 1 + 4


def test_an_auditor_who_folds_the_entries_again_gets_the_same_periods() -> None:
    assert encode(busy()) == encode(busy())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "settle", "later"]),
            st.integers(0, 3),
            st.integers(0, ALL),
            st.integers(0, MONTH),
        ),
        max_size=25,
    )
)
def test_in_no_period_of_log_time_more_is_charged_than_promised(
    acts: list[tuple[str, int, int, int]],
) -> None:
    """Against an oracle that keeps every reservation's life and adds up what could have left in each period."""
    state = four()
    cell = state.cells[CELL]
    lives: dict[str, list[int]] = {}  # first period, last period or -1, steps used
    for what, which, number, by_ms in acts:
        experiment = sorted(state.experiments)[which]
        if what == "later":
            state = later(state, by_ms)
        elif what == "reserve" and experiment not in lives:
            op = reserve_op(state, experiment)
            after, outcome = step(state, says(state, BASEL, op))
            open_now = [life for life in lives.values() if life[1] < 0 or life[1] == at(state)]
            due = sum(ALL if life[1] < 0 else life[2] for life in open_now) + ALL
            assert outcome.applied == (due * g_step(1, 2) <= cell.terms.limit.g_max)
            if outcome.applied:
                state, lives[experiment] = after, [at(state), -1, ALL]
        elif what == "settle" and lives.get(experiment, [0, 0])[1] < 0:
            used = min(number, STEPS["train"])
            state = fold(state, BASEL, settle_op(experiment, train=used))
            lives[experiment][1:] = [at(state), used]
    for period in range(at(state) + 1):
        could = sum(u for a, b, u in lives.values() if a <= period and (b < 0 or period <= b))
        assert could * g_step(1, 2) <= cell.terms.limit.g_max
    total = sum(life[2] for life in lives.values())
    assert periods(state).total_g == total * g_step(1, 2)


@cache
def four() -> State:
    """Four experiments that ask."""
    state = monthly()
    for _ in range(4):
        state, _experiment = asked(state)
    return state


def at(state: State) -> int:
    return periods(state).at(state.log_time)


def test_a_reservation_that_is_not_the_plans_is_void_in_any_period() -> None:
    state, experiment = asked(monthly())
    op = reserve_op(state, experiment)
    less = BudgetReserved(
        type="budget.reserved",
        experiment=experiment,
        dataset="basel-heart",
        charges=tuple(replace(c, g=1) for c in op.charges),
    )
    fold(later(state, MONTH), BASEL, less, void="charges_mismatch")
    assert experiment_of(state) == experiment
