"""Parts of a promise in the fold: a filter for each purpose, never raised, that sums over all who ask."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.entries.operations.datasets import CellLimit
from ledger.entries.operations.purposes import PurposeLimited
from ledger.errors import PlanRefused
from ledger.experiment.purpose_parts import part_for, parts_inherited, parts_said
from ledger.formats.strict import canonical, parse_canonical
from ledger.rules.encoding import digest
from ledger.rules.fold import step
from ledger.rules.purposes import fitting, is_closed
from ledger.rules.state import State, replace
from ledger.rules.succession import carry
from privacy.curves import gaussian_epsilon, rdp_epsilon
from privacy.events import CHARGE_UNIT
from privacy.filters import Charge, Spend, g_step, limit_for, r_step_full_batch
from tests.federation import COORDINATOR, RESEARCHER, node_of, steward_of
from tests.ledger.facts import (
    STEPS,
    asked,
    base,
    experiment_of,
    fold,
    open_op,
    reserve_op,
    says,
    settle_op,
    submit_op,
)

ALL = sum(STEPS.values())
BASEL, STEWARD = node_of("basel"), steward_of("basel")
CELL = "basel-all"


def wide() -> State:
    """The facts' state, with a promise that pays for many experiments."""
    state = base()
    cell = state.cells[CELL]
    limit = cell.terms.limit
    more = replace(limit, g_max=20 * limit.g_max, r_max=20 * limit.r_max)
    terms = replace(cell.terms, limit=more)
    return replace(state, cells=state.cells.set(CELL, replace(cell, terms=terms)))


def steps(state: State, count: int) -> Charge:
    """The cost of so many steps of the facts' plan."""
    order = state.cells[CELL].terms.limit.order_centi
    return Charge(g_step(1, 2), r_step_full_batch(1, 2, order)).times(count)


def limited(state: State, purpose: Any, count: int, **change: Any) -> PurposeLimited:
    """A part that admits so many steps in either lane."""
    most = steps(state, count)
    terms = {"epsilon_micro": 1_000_000, "g_max": most.g, "r_max": most.r} | change
    return PurposeLimited(type="purpose.limited", cell=CELL, purpose=purpose, **terms)


def part(state: State, purpose: str) -> Spend:
    return state.cells[CELL].purposes[purpose].spend


def test_what_goes_beyond_a_purposes_part_is_void_and_costs_nothing() -> None:
    state = wide()
    state = fold(state, BASEL, limited(state, "development", ALL - 1))
    state, experiment = asked(state, "development")
    before = state.cells[CELL]
    state = fold(state, BASEL, reserve_op(state, experiment), void="purpose_exhausted")
    assert state.cells[CELL] == before
    state, other = asked(state, "care")
    state = fold(state, BASEL, reserve_op(state, other))
    assert part(state, "care") == state.cells[CELL].spend
    assert part(state, "development") == Spend()


def test_a_part_sums_over_experiments_and_gets_refunds_back() -> None:
    state = wide()
    state = fold(state, STEWARD, limited(state, "care", ALL + 1))
    state, first = asked(state, "care")
    state, second = asked(state, "care")
    state = fold(state, BASEL, reserve_op(state, first))
    state = fold(state, BASEL, reserve_op(state, second), void="purpose_exhausted")
    assert fitting(state.cells[CELL], "care", steps(state, ALL)) == 0
    state = fold(state, BASEL, settle_op(first, train=1))
    used = steps(state, 1)
    assert part(state, "care") == Spend(used.g, used.r) == state.cells[CELL].spend
    fold(state, BASEL, reserve_op(state, second))


def test_a_part_is_only_lowered_and_never_above_the_promise() -> None:
    state = wide()
    terms = state.cells[CELL].terms
    for change in (
        {"epsilon_micro": terms.epsilon_micro + 1},
        {"g_max": terms.limit.g_max + 1},
        {"r_max": terms.limit.r_max + 1},
    ):
        fold(state, BASEL, limited(state, "care", 1, **change), void="purpose_raised")
    state = fold(state, BASEL, limited(state, "care", 5))
    fold(state, BASEL, limited(state, "care", 5), void="repeated")
    fold(state, BASEL, limited(state, "care", 6), void="purpose_raised")
    fold(state, BASEL, limited(state, "care", 4, epsilon_micro=1_000_001), void="purpose_raised")
    state = fold(state, STEWARD, limited(state, "care", 4))
    state = fold(state, STEWARD, limited(state, "care", 0, epsilon_micro=0))
    fold(state, BASEL, limited(state, "care", 4), void="purpose_raised")


def test_a_part_is_said_by_the_cells_own_hospital() -> None:
    state = wide()
    said = limited(state, "care", 5)
    fold(state, node_of("bern"), said, void="not_owner")
    fold(state, RESEARCHER, said, void="not_permitted")
    nowhere = replace(said, cell="basel-none")
    fold(state, BASEL, nowhere, void="unknown_cell")


def test_what_was_spent_before_a_part_was_said_counts_in_it() -> None:
    state = wide()
    experiment = experiment_of(state)
    state = fold(state, BASEL, reserve_op(state, experiment))
    assert part(state, "research") == state.cells[CELL].spend
    state = fold(state, BASEL, limited(state, "research", ALL - 1))
    assert part(state, "research").g_overflowed
    assert is_closed(state.cells[CELL], "research")
    assert not is_closed(state.cells[CELL], "care")
    state = fold(state, BASEL, settle_op(experiment))
    assert part(state, "research") == Spend(g_overflowed=True, r_overflowed=True)
    state, second = asked(state, "research")
    fold(state, BASEL, reserve_op(state, second), void="purpose_exhausted")


def test_steps_beyond_a_reservation_are_charged_to_its_purpose_too() -> None:
    state = wide()
    experiment = experiment_of(state)
    state = fold(state, BASEL, limited(state, "research", ALL + 1))
    state = fold(state, BASEL, reserve_op(state, experiment))
    state = fold(state, COORDINATOR, open_op(state, experiment))
    state = fold(state, BASEL, submit_op(state, experiment, train=3 + 2), void="over_reservation")
    more = steps(state, ALL + 2)
    assert part(state, "research") == Spend(more.g, more.r, True, True)


def test_a_successor_carries_parts_and_their_spend() -> None:
    state = wide()
    state = fold(state, BASEL, limited(state, "research", ALL + 1))
    state = fold(state, BASEL, reserve_op(state, experiment_of(state)))
    state = fold(state, BASEL, limited(state, "care", 0, epsilon_micro=0))
    (cells,) = (part.cells for part in carry(state) if part.cells)
    (carried,) = (cell for cell in cells if cell.terms.cell == CELL)
    assert [p.purpose for p in carried.purposes] == ["care", "research"]
    research = carried.purposes[1]
    assert research.terms == state.cells[CELL].purposes["research"].terms
    assert (research.g, research.r) == (state.cells[CELL].spend.g, state.cells[CELL].spend.r)
    assert carried.purposes[0].terms is not None
    assert carried.purposes[0].terms.epsilon_micro == 0


def test_a_parts_gates_are_those_of_its_epsilon_at_the_cells_delta_and_order() -> None:
    limit = limit_for(5.0, 1e-5)
    gates = CellLimit(g_max=limit.g_max, r_max=limit.r_max, order_centi=limit.order_centi)
    change = {"epsilon_micro": 5_000_000, "delta_e15": 10**10, "limit": gates}
    cell = replace(base().cells[CELL].terms, **change)
    said = part_for(cell, "research", 3_000_000)
    order, half = cell.limit.order_centi / 100, cell.delta_e15 / 2e15
    mu = math.sqrt(said.g_max / CHARGE_UNIT)
    assert gaussian_epsilon(mu, half) == pytest.approx(3.0, abs=1e-6)
    assert rdp_epsilon(said.r_max / CHARGE_UNIT, order, half) == pytest.approx(3.0, abs=1e-6)
    assert part_for(cell, "care", 2_000_000).r_max == 0  # below what this order can express
    with pytest.raises(PlanRefused, match="is more than the 5 that"):
        part_for(cell, "research", 5_000_001)
    whole = part_for(cell, "research", cell.epsilon_micro)
    assert whole.g_max <= cell.limit.g_max
    assert part_for(cell, "development", 0).g_max == 0
    assert parse_canonical(canonical(said), PurposeLimited) == said


def test_a_later_block_gets_the_parts_of_the_newest_cell_that_has_any() -> None:
    state = wide()
    assert parts_inherited(state, "basel") == {}
    state = fold(state, BASEL, limited(state, "care", 5))
    assert parts_said(state, CELL) == parts_inherited(state, "basel") == {"care": 1_000_000}
    assert parts_inherited(state, "bern") == {}


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "lower"]),
        st.integers(0, 3),
        st.integers(0, 2 * ALL),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(moves=MOVES)
def test_an_open_part_never_holds_more_than_it_may_and_all_parts_make_the_cell(
    moves: list[tuple[str, int, int]],
) -> None:
    state, experiments = FOUR
    for move, which, count in moves:
        if move == "lower":
            op: Any = limited(state, ("care", "policy")[which % 2], count)
        elif move == "reserve":
            op = reserve_op(state, experiments[which])
        else:
            op = settle_op(experiments[which], train=count % 3)
        state, _ = step(state, says(state, BASEL, op))
        cell = state.cells[CELL]
        shares = list(cell.purposes.values())
        assert sum(s.spend.g for s in shares) == cell.spend.g
        assert sum(s.spend.r for s in shares) == cell.spend.r
        for share in shares:
            if share.terms is not None:
                assert share.spend.g_overflowed or share.spend.g <= share.terms.g_max
                assert share.spend.r_overflowed or share.spend.r <= share.terms.r_max
    assert len(digest(state)) == 64


def _four() -> tuple[State, list[str]]:
    state, made = wide(), []
    for purpose in ("care", "policy", "care", "policy"):
        state, experiment = asked(state, purpose)
        made.append(experiment)
    return state, made


FOUR = _four()
