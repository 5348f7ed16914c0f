"""Budgets in the fold: reserved before use, never charged less than what was used."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.entries.operations.budgets import BudgetRefused
from ledger.entries.operations.datasets import CellCharge, DatasetWithdrawn
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentRefused,
    ExperimentStopped,
)
from ledger.entries.operations.values import MAX_INT
from ledger.rules.budget import refunds
from ledger.rules.encoding import digest
from ledger.rules.experiments import site_of
from ledger.rules.fold import step
from ledger.rules.purposes import gate
from ledger.rules.state import State, replace
from privacy.filters import Spend, g_step, r_step_full_batch
from tests.federation import COORDINATOR, RESEARCHER, node_of, steward_of
from tests.ledger.facts import (
    STEPS,
    base,
    dataset_of,
    experiment_of,
    fold,
    open_op,
    proposal,
    reserve_op,
    says,
    settle_op,
    submit_op,
)

G, R = g_step(1, 2), r_step_full_batch(1, 2, 750)
ALL = sum(STEPS.values())
BASEL, BERN, STEWARD = node_of("basel"), node_of("bern"), steward_of("basel")


def spend(state: State, cell: str = "basel-all") -> Spend:
    return state.cells[cell].spend


def reserved() -> tuple[State, str]:
    state = base()
    experiment = experiment_of(state)
    return fold(state, BASEL, reserve_op(state, experiment)), experiment


def test_a_reservation_charges_every_cell_for_the_most_that_the_plan_may_spend() -> None:
    state, experiment = reserved()
    assert spend(state) == Spend(ALL * G, ALL * R)
    assert spend(state, "bern-all") == Spend()
    held = state.experiments[experiment].reservations["basel-heart"]
    assert held.charges == (CellCharge(cell="basel-all", g=ALL * G, r=ALL * R),)


def test_a_dataset_is_reserved_once_for_an_experiment() -> None:
    state, experiment = reserved()
    state = fold(state, BASEL, reserve_op(state, experiment), void="already_reserved")
    state = fold(state, BASEL, settle_op(experiment))
    fold(state, BASEL, reserve_op(state, experiment), void="already_reserved")


def test_a_reservation_needs_a_steward_who_said_yes_and_still_does() -> None:
    state = base()
    experiment = experiment_of(state)
    reserve = reserve_op(state, experiment)
    no = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset="basel-heart", reason="other"
    )
    fold(fold(state, STEWARD, no), BASEL, reserve, void="not_approved")

    def approve(**terms: int) -> ExperimentApproved:
        fields = {"epsilon_max_micro": 10**6, "until_ms": 2**50} | terms
        return ExperimentApproved(
            type="experiment.approved", experiment=experiment, dataset="basel-heart", **fields
        )

    expired = approve(until_ms=state.log_time - 1)
    fold(fold(state, STEWARD, expired), BASEL, reserve, void="approval_expired")
    narrow = approve(epsilon_max_micro=10**5 - 1)
    fold(fold(state, STEWARD, narrow), BASEL, reserve, void="approval_conditions")
    exact = approve(epsilon_max_micro=10**5, until_ms=state.log_time)
    fold(fold(state, STEWARD, exact), BASEL, reserve)


def test_a_reservation_is_for_the_dataset_that_the_plan_was_made_for() -> None:
    state = base()
    experiment = experiment_of(state)
    reserve = reserve_op(state, experiment)
    fold(state, BERN, reserve, void="not_owner")
    anew = fold(state, BASEL, dataset_of("basel", snapshot="1" * 64))
    fold(anew, BASEL, reserve, void="dataset_changed")
    gone = DatasetWithdrawn(type="dataset.withdrawn", dataset="basel-heart", reason="legal")
    fold(fold(state, BASEL, gone), BASEL, reserve, void="dataset_withdrawn")
    stop = ExperimentStopped(type="experiment.stopped", experiment=experiment, reason="expired")
    fold(fold(state, COORDINATOR, stop), BASEL, reserve, void="experiment_ended")
    elsewhere = replace(reserve, dataset="chur-heart")
    fold(state, BASEL, elsewhere, void="unknown_dataset")
    nothing = replace(reserve, experiment="0" * 64)
    fold(state, BASEL, nothing, void="unknown_experiment")


@pytest.mark.parametrize("lane", ["g", "r"])
def test_a_reservation_charges_neither_more_nor_less_than_the_plan(lane: str) -> None:
    state = base()
    reserve = reserve_op(state, experiment_of(state))
    (charge,) = reserve.charges
    for change in (-1, 1):
        other = replace(charge, **{lane: getattr(charge, lane) + change})
        wrong = replace(reserve, charges=(other,))
        fold(state, BASEL, wrong, void="charges_mismatch")


def more(state: State, count: int) -> tuple[State, list[str]]:
    """Further experiments on Basel's dataset alone, all approved."""
    made = []
    for _ in range(count):
        entry = says(state, RESEARCHER, proposal(state, ("basel",)))
        state, outcome = step(state, entry)
        assert outcome.applied
        op = ExperimentApproved(
            type="experiment.approved",
            experiment=entry.hash,
            dataset="basel-heart",
            epsilon_max_micro=10**6,
            until_ms=2**50,
        )
        state = fold(state, STEWARD, op)
        made.append(entry.hash)
    return state, made


def test_a_cell_pays_until_both_lanes_are_full_and_refunds_open_none_again() -> None:
    state, (first, second, third) = more(base(), 3)
    limit = gate(state.cells["basel-all"])
    assert ALL * R <= limit.r_max < 2 * ALL * R
    assert ALL * G <= limit.g_max < 2 * ALL * G
    state = fold(state, BASEL, reserve_op(state, first))
    before = spend(state)
    state = fold(state, BASEL, reserve_op(state, second), void="budget_exhausted")
    assert spend(state) == before  # a refusal closes no lane
    state = fold(state, BASEL, settle_op(first, train=1))
    assert spend(state) == Spend(G, R)
    state = fold(state, BASEL, reserve_op(state, second))
    assert spend(state) == Spend((ALL + 1) * G, (ALL + 1) * R)
    fold(state, BASEL, reserve_op(state, third), void="budget_exhausted")


def test_a_lane_that_overflowed_stays_closed_and_the_other_carries() -> None:
    state, (first, second, third) = more(base(), 3)
    cell = state.cells["basel-all"]
    wide = replace(cell.terms.limit, r_max=3 * ALL * R - 1)
    terms = replace(cell.terms, limit=wide)
    state = replace(state, cells=state.cells.set("basel-all", replace(cell, terms=terms)))
    state = fold(state, BASEL, reserve_op(state, first))
    state = fold(state, BASEL, reserve_op(state, second))
    assert spend(state) == Spend(2 * ALL * G, 2 * ALL * R, g_overflowed=True)
    state = fold(state, BASEL, settle_op(second))
    assert spend(state) == Spend(ALL * G, ALL * R, g_overflowed=True)
    state = fold(state, BASEL, reserve_op(state, third))
    assert not spend(state).r_overflowed


def test_a_settlement_gives_back_what_has_no_intent_once() -> None:
    state, experiment = reserved()
    state = fold(state, BASEL, settle_op(experiment, train=2, evaluate=1))
    assert spend(state) == Spend(3 * G, 3 * R)
    fold(state, BASEL, settle_op(experiment, train=2, evaluate=1), void="settled")
    fold(state, BERN, settle_op(experiment, "bern"), void="not_reserved")
    fold(state, BERN, settle_op(experiment), void="not_owner")


def test_a_settlement_is_never_below_what_updates_stated_void_or_not() -> None:
    state, experiment = reserved()
    late = submit_op(state, experiment, train=2)
    state = fold(state, BASEL, late, void="round_not_open")
    state = fold(state, BASEL, settle_op(experiment, train=1), void="under_reported")
    assert spend(state) == Spend(ALL * G, ALL * R)
    state = fold(state, BASEL, settle_op(experiment, train=4), void="over_reservation")
    state = fold(state, BASEL, settle_op(experiment, train=2))
    assert spend(state) == Spend(2 * G, 2 * R)


def test_of_a_purpose_said_twice_the_larger_number_counts() -> None:
    state, experiment = reserved()
    twice = settle_op(experiment, train=1)
    twice = replace(twice, used=(*settle_op(experiment, train=3).used, *twice.used))
    assert spend(fold(state, BASEL, twice)) == Spend(3 * G, 3 * R)


def test_steps_stated_beyond_a_reservation_are_charged_and_close_what_they_overflow() -> None:
    state, experiment = reserved()
    state = fold(state, COORDINATOR, open_op(state, experiment))
    state = fold(state, BASEL, submit_op(state, experiment, train=3 + 5), void="over_reservation")
    assert spend(state) == Spend((ALL + 5) * G, (ALL + 5) * R, r_overflowed=True)
    state = fold(state, BASEL, submit_op(state, experiment, train=MAX_INT), void="over_reservation")
    assert spend(state).g == (ALL - 3 + MAX_INT) * G
    assert spend(state).g_overflowed
    assert len(digest(state)) == 64  # integers beyond 64 bits have their bytes, too
    fold(state, BASEL, settle_op(experiment, train=3), void="under_reported")


def test_noise_that_is_confessed_after_a_settlement_is_charged_again() -> None:
    state, experiment = reserved()
    state = fold(state, BASEL, settle_op(experiment))
    assert spend(state) == Spend()
    state = fold(state, BASEL, submit_op(state, experiment, train=2), void="settled")
    assert spend(state) == Spend(2 * G, 2 * R)
    state = fold(state, BASEL, submit_op(state, experiment, train=2), void="settled")
    assert spend(state) == Spend(2 * G, 2 * R)


def test_two_datasets_of_one_cell_are_both_charged() -> None:
    state = base()
    twin = replace(dataset_of("basel"), dataset="basel-twin")
    state = fold(state, BASEL, twin)
    asked = proposal(state, ("basel",))
    (site,) = asked.plan.sites
    other = replace(
        site, dataset="basel-twin", registration=state.datasets["basel-twin"].registration
    )
    plan = replace(asked.plan, sites=(site, other))
    entry = says(state, RESEARCHER, replace(asked, plan=plan))
    state, outcome = step(state, entry)
    assert outcome.applied
    for dataset in ("basel-heart", "basel-twin"):
        op = ExperimentApproved(
            type="experiment.approved",
            experiment=entry.hash,
            dataset=dataset,
            epsilon_max_micro=10**6,
            until_ms=2**50,
        )
        state = fold(state, STEWARD, op)
    state = fold(state, BASEL, reserve_op(state, entry.hash))
    second = replace(reserve_op(state, entry.hash), dataset="basel-twin")
    fold(state, BASEL, second, void="budget_exhausted")


def test_registering_anew_under_a_new_promise_brings_no_new_budget() -> None:
    state, experiment = reserved()
    state = fold(state, BASEL, dataset_of("basel", snapshot="2" * 64))
    assert spend(state) == Spend(ALL * G, ALL * R)
    state = fold(state, BASEL, settle_op(experiment, train=1))  # by the plan's own cells
    assert spend(state) == Spend(G, R)


def test_a_node_says_why_it_takes_no_part_until_it_reserves() -> None:
    state = base()
    experiment = experiment_of(state)
    no = BudgetRefused(
        type="budget.refused",
        experiment=experiment,
        dataset="basel-heart",
        reason="not_approved",
    )
    state = fold(state, BASEL, no)
    assert state.experiments[experiment].budget_refusals["basel-heart"].reason == "not_approved"
    state = fold(state, BASEL, reserve_op(state, experiment))
    assert "basel-heart" not in state.experiments[experiment].budget_refusals
    fold(state, BERN, no, void="not_owner")


def test_refunds_are_the_planned_steps_without_an_intent() -> None:
    state, experiment = reserved()
    site = site_of(state.experiments[experiment].plan, "basel-heart")
    assert site is not None
    used = base().experiments[experiment].reservations  # an empty map
    assert refunds(site, used.update(STEPS)) == (CellCharge(cell="basel-all", g=0, r=0),)  # type: ignore[arg-type]


ACTIONS = st.tuples(
    st.sampled_from(["reserve", "submit", "settle"]),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(0, 2),
    st.integers(0, 3),
)


@settings(max_examples=150, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=30))
def test_a_cell_is_never_charged_less_than_what_its_node_ever_stated(
    actions: list[tuple[str, int, int, int, int]],
) -> None:
    state, experiments = FOUR
    stated: dict[str, dict[str, int]] = {e: {} for e in experiments}
    vectors: dict[str, list[int]] = {e: [] for e in experiments}
    for action, which, train, evaluate, word in actions:
        experiment = experiments[which]
        op = (
            reserve_op(state, experiment)
            if action == "reserve"
            else settle_op(experiment, train=train, evaluate=evaluate)
            if action == "settle"
            else submit_op(state, experiment, word=word, train=train, evaluate=evaluate)
        )
        state, outcome = step(state, says(state, BASEL, op))
        held = state.experiments[experiment].reservations.get("basel-heart")
        if action == "submit" and held is not None:
            if vectors[experiment][-1:] != [word]:
                vectors[experiment].append(word)
            told = {"train": max(train, len(vectors[experiment])), "evaluate": evaluate}
            for purpose, steps in told.items():
                stated[experiment][purpose] = max(steps, stated[experiment].get(purpose, 0))
        if action == "settle" and outcome.applied:
            for purpose, steps in (("train", train), ("evaluate", evaluate)):
                assert steps >= stated[experiment].get(purpose, 0)
                stated[experiment][purpose] = steps
        least = 0
        for name in experiments:
            held = state.experiments[name].reservations.get("basel-heart")
            for purpose, steps in STEPS.items() if held else ():
                floor = 0 if held and held.settled_at is not None else steps
                least += max(floor, stated[name].get(purpose, 0))
        now = spend(state)
        assert (now.g, now.r) == (least * G, least * R)
        limit = gate(state.cells["basel-all"])
        assert now.g_overflowed or now.g <= limit.g_max
        assert now.r_overflowed or now.r <= limit.r_max


FOUR = more(base(), 4)
