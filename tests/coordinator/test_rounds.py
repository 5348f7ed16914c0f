"""What is due, as a pure function: one table of situations."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coordinator.rounds.actions import (
    MAX_ATTEMPTS,
    Action,
    Complete,
    Conclude,
    Open,
    Say,
    next_actions,
    next_wake_ms,
)
from ledger.entries.operations.budgets import BudgetRefused
from ledger.entries.operations.datasets import DatasetWithdrawn
from ledger.entries.operations.experiments import (
    ExperimentRefused,
    ExperimentStopped,
    ModelReleased,
)
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.rounds import RoundClosed, RoundOpened
from tests.federation import COORDINATOR, HOUR_MS, Federation, node_of, steward_of

THREE = ("basel", "bern", "chur")


@pytest.fixture
def federation() -> Federation:
    return Federation.found(THREE)


def due(
    federation: Federation,
    *,
    now_ms: int | None = None,
    final_size: int = 1,
    completed_at: int | None = None,
    until_ms: dict[str, int] | None = None,
) -> tuple[Action, ...]:
    return next_actions(
        federation.state,
        now_ms=federation.now_ms if now_ms is None else now_ms,
        final_size=final_size,
        completed_at=lambda _: completed_at,
        until_ms=until_ms or {},
    )


def proposed(federation: Federation, quorum: int = 2) -> str:
    datasets = [federation.register_dataset(name) for name in THREE]
    return federation.propose(federation.spec(datasets, quorum=quorum))


def withdraw(federation: Federation, hospital: str) -> None:
    op = DatasetWithdrawn(type="dataset.withdrawn", dataset=f"{hospital}-heart", reason="consent")
    federation.say(node_of(hospital), op)


def refuse_budget(federation: Federation, experiment: str, hospital: str) -> None:
    op = BudgetRefused(
        type="budget.refused",
        experiment=experiment,
        dataset=f"{hospital}-heart",
        reason="local_policy",
    )
    federation.say(node_of(hospital), op)


def stop_reason(action: Action) -> str:
    assert isinstance(action, Say)
    assert isinstance(action.op, ExperimentStopped)
    return action.op.reason


def test_nothing_happens_below_the_quorum_of_approvals(federation: Federation) -> None:
    experiment = proposed(federation)
    assert due(federation) == ()
    federation.approve(experiment, "basel-heart")
    assert due(federation) == ()


def test_the_first_round_opens_for_all_who_approved(federation: Federation) -> None:
    experiment = proposed(federation)
    for hospital in ("chur", "basel"):
        federation.approve(experiment, f"{hospital}-heart")
    (action,) = due(federation)
    timeout = federation.experiment(experiment).plan.round_timeout_ms
    assert action == Open(
        experiment, "train", 1, 1, ("basel-heart", "chur-heart"), federation.now_ms + timeout
    )


def test_who_approves_later_joins_the_next_round(federation: Federation) -> None:
    experiment = proposed(federation)
    for hospital in ("basel", "bern"):
        federation.approve(experiment, f"{hospital}-heart")
    federation.play_round(experiment)
    federation.approve(experiment, "chur-heart")
    (action,) = due(federation)
    assert isinstance(action, Open)
    assert (action.number, action.cohort) == (2, ("basel-heart", "bern-heart", "chur-heart"))


def test_withdrawn_refused_expired_and_settled_datasets_are_not_asked(
    federation: Federation,
) -> None:
    experiment = proposed(federation, quorum=1)
    federation.approve(experiment, "basel-heart")
    federation.approve(experiment, "bern-heart", until_ms=federation.now_ms + HOUR_MS)
    federation.approve(experiment, "chur-heart")
    refuse_budget(federation, experiment, "chur")
    (now,) = due(federation)
    (later,) = due(federation, now_ms=federation.now_ms + 2 * HOUR_MS)
    assert isinstance(now, Open)
    assert isinstance(later, Open)
    assert now.cohort == ("basel-heart", "bern-heart")
    assert later.cohort == ("basel-heart",)


def test_a_round_is_left_alone_until_all_have_answered(federation: Federation) -> None:
    experiment = federation.start(THREE)
    federation.open_round(experiment)
    for dataset in ("basel-heart", "bern-heart"):
        federation.reserve(experiment, dataset)
        federation.submit(experiment, dataset)
    assert due(federation) == ()
    refuse_budget(federation, experiment, "chur")
    assert due(federation) == (Conclude(experiment),)


def test_a_round_ends_after_its_deadline_not_at_it(federation: Federation) -> None:
    experiment = federation.start(THREE)
    deadline = federation.open_round(experiment).deadline_ms
    still = due(federation, now_ms=deadline)
    assert [type(a) for a in still] == [Say]
    assert due(federation, now_ms=deadline + 1) == (Conclude(experiment),)


def test_time_is_noted_while_nodes_wait_for_a_young_enough_log(federation: Federation) -> None:
    experiment = federation.start(THREE)
    federation.open_round(experiment)
    half = federation.state.policy.skew_ms // 2
    log_time = federation.state.log_time
    assert due(federation, now_ms=log_time + half) == ()
    assert due(federation, now_ms=log_time + half + 1) == (Say("", TimeNoted(type="time.noted")),)
    wake = next_wake_ms(federation.state, log_time)
    assert wake == log_time + half + 1


def test_a_missed_quorum_is_tried_again_and_then_given_up(federation: Federation) -> None:
    experiment = federation.start(THREE)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        (action,) = due(federation)
        assert isinstance(action, Open)
        assert action.attempt == attempt
        opened = RoundOpened(
            type="round.opened",
            experiment=experiment,
            round=1,
            attempt=attempt,
            kind="train",
            cohort=action.cohort,
            model=federation.experiment(experiment).model,
            deadline_ms=action.deadline_ms,
        )
        federation.say(COORDINATOR, opened)
        federation.now_ms = action.deadline_ms + 1
        closed = RoundClosed(
            type="round.closed",
            experiment=experiment,
            round=1,
            attempt=attempt,
            reason="quorum_missed",
        )
        federation.say(COORDINATOR, closed)
    (action,) = due(federation)
    assert stop_reason(action) == "quorum_lost"


def test_an_experiment_that_can_never_reach_its_quorum_is_stopped(federation: Federation) -> None:
    experiment = proposed(federation, quorum=3)
    op = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset="bern-heart", reason="purpose"
    )
    federation.say(steward_of("bern"), op)
    (action,) = due(federation)
    assert stop_reason(action) == "no_approval"
    federation.approve(experiment, "bern-heart")
    assert due(federation) == ()


def test_a_withdrawal_while_it_runs_stops_it_below_the_quorum(federation: Federation) -> None:
    experiment = federation.start(THREE)
    federation.play_round(experiment)
    withdraw(federation, "bern")
    (action,) = due(federation)
    assert stop_reason(action) == "quorum_lost"


def test_a_dataset_registered_anew_is_not_the_one_of_the_plan(federation: Federation) -> None:
    experiment = federation.start(THREE)
    federation.register_dataset("bern")
    (action,) = due(federation)
    assert stop_reason(action) == "no_approval"
    assert experiment in federation.state.experiments


def test_approvals_that_all_expired_stop_it(federation: Federation) -> None:
    experiment = proposed(federation, quorum=3)
    until_ms = federation.now_ms + HOUR_MS
    for name in THREE:
        federation.approve(experiment, f"{name}-heart", until_ms=until_ms)
    assert next_wake_ms(federation.state, federation.now_ms) == until_ms + 1
    (action,) = due(federation, now_ms=until_ms + 1)
    assert stop_reason(action) == "expired"


def test_what_nobody_answers_is_stopped_after_the_last_day_of_its_spec(
    federation: Federation,
) -> None:
    experiment = proposed(federation, quorum=2)
    federation.approve(experiment, "basel-heart")
    end = federation.spec_of(experiment).until_ms
    assert end == int(datetime(2030, 1, 2, tzinfo=UTC).timestamp()) * 1000 - 1
    until_ms = {experiment: end}
    assert next_wake_ms(federation.state, federation.now_ms, until_ms) == end + 1
    assert due(federation, now_ms=end, until_ms=until_ms) == ()
    (action,) = due(federation, now_ms=end + 1, until_ms=until_ms)
    assert stop_reason(action) == "expired"
    assert due(federation, now_ms=end + 1) == ()


def test_who_approved_for_longer_than_the_spec_says_is_still_asked(federation: Federation) -> None:
    experiment = federation.start(THREE)
    end = federation.spec_of(experiment).until_ms
    (action,) = due(federation, now_ms=end + 1, until_ms={experiment: end})
    assert isinstance(action, Open)


def test_the_plan_goes_from_training_to_evaluation_to_completion(federation: Federation) -> None:
    experiment = federation.start(THREE, rounds=1)
    federation.play_round(experiment)
    (action,) = due(federation)
    assert isinstance(action, Open)
    assert (action.kind, action.number) == ("evaluate", 2)
    federation.play_round(experiment)
    assert due(federation) == (Complete(experiment),)


def test_a_model_is_released_when_its_completion_is_final(federation: Federation) -> None:
    experiment = federation.start(THREE, rounds=1)
    federation.play(experiment)
    entries = federation.entries()
    at = next(i for i, e in enumerate(entries) if e.body.op.type == "experiment.completed")
    federation = _upto(federation, at + 1)
    assert due(federation, completed_at=at, final_size=at) == ()
    (action,) = due(federation, completed_at=at, final_size=at + 1)
    model = federation.experiment(experiment).model
    released = ModelReleased(type="model.released", experiment=experiment, model=model)
    assert action == Say(experiment, released)


def test_experiments_do_not_wait_for_one_another(federation: Federation) -> None:
    first = federation.start(THREE)
    second = federation.propose(federation.spec(["basel-heart"], name="second"))
    federation.approve(second, "basel-heart")
    federation.open_round(first)
    (action,) = due(federation)
    assert action.experiment == second


def _upto(federation: Federation, size: int) -> Federation:
    earlier = Federation(now_ms=federation.now_ms, rings=federation.rings, blobs=federation.blobs)
    for entry in federation.entries()[:size]:
        earlier.take(entry)
    return earlier
