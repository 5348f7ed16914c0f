"""Rounds in the fold: opened in order, fed in time, summed exactly or closed."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.entries.operations.budgets import BudgetRefused
from ledger.entries.operations.datasets import DatasetWithdrawn
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentRefused,
    ExperimentStopped,
)
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.rounds import RoundClosed, UpdateRefused
from ledger.entries.operations.values import MAX_INT, BlobRef
from ledger.formats.value import replace
from ledger.rules.experiment_state import Vectors
from ledger.rules.fold import step
from ledger.rules.rounds import round_kind, waiting_for
from ledger.rules.state import State
from tests.federation import COORDINATOR, node_of, steward_of
from tests.ledger.facts import (
    STEPS,
    aggregate_op,
    base,
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

BASEL, BERN = node_of("basel"), node_of("bern")
HERE = "basel-heart"


def ready() -> tuple[State, str]:
    """Both hospitals have reserved."""
    state = base()
    experiment = experiment_of(state)
    for name in ("basel", "bern"):
        state = fold(state, node_of(name), reserve_op(state, experiment, name))
    return state, experiment


def under_way() -> tuple[State, str]:
    state, experiment = ready()
    return fold(state, COORDINATOR, open_op(state, experiment)), experiment


def close_op(state: State, experiment: str) -> RoundClosed:
    now = state.experiments[experiment]
    return RoundClosed(
        type="round.closed",
        experiment=experiment,
        round=now.next_round,
        attempt=now.next_attempt,
        reason="quorum_missed",
    )


def pass_time(state: State, ms: int) -> State:
    noted = says(state, COORDINATOR, TimeNoted(type="time.noted"), at_ms=state.log_time + ms)
    return step(state, noted)[0]


def test_the_plan_has_training_rounds_then_an_evaluation_then_a_baseline() -> None:
    state, experiment = ready()
    plan = state.experiments[experiment].plan
    kinds = [round_kind(plan, n) for n in range(1, 5)]
    assert kinds == ["train", "train", "evaluate", "baseline"]


@pytest.mark.parametrize(
    ("changed", "void"),
    [
        ({"round": 2}, "round_mismatch"),
        ({"attempt": 2}, "round_mismatch"),
        ({"kind": "evaluate"}, "round_mismatch"),
        ({"cohort": ("bern-heart", HERE)}, "not_in_cohort"),
        ({"cohort": (HERE, HERE)}, "not_in_cohort"),
        ({"cohort": (HERE, "chur-heart")}, "not_in_cohort"),
        ({"model": BlobRef(sha256="1" * 64, bytes=1)}, "model_mismatch"),
        ({"deadline_ms": 0}, "deadline_passed"),
    ],
)
def test_a_round_opens_only_as_the_plan_and_the_log_have_it(
    changed: dict[str, Any], void: str
) -> None:
    state, experiment = ready()
    fold(state, COORDINATOR, open_op(state, experiment, **changed), void=void)
    fold(state, COORDINATOR, open_op(state, experiment))


def test_a_round_opens_once_and_not_after_the_end() -> None:
    state, experiment = under_way()
    fold(state, COORDINATOR, open_op(state, experiment), void="round_mismatch")
    fold(state, COORDINATOR, replace(open_op(state, experiment), experiment="0" * 64), void="unknown_experiment")  # fmt: skip
    stop = ExperimentStopped(type="experiment.stopped", experiment=experiment, reason="expired")
    state = fold(state, COORDINATOR, stop)
    assert state.experiments[experiment].round is None
    fold(state, COORDINATOR, open_op(state, experiment), void="experiment_ended")


def test_an_update_counts_and_tells_what_it_used() -> None:
    state, experiment = under_way()
    state = fold(state, BASEL, submit_op(state, experiment, train=2))
    now = state.experiments[experiment]
    assert now.round is not None
    assert set(now.round.updates) == {HERE}
    assert dict(now.reservations[HERE].used) == {"train": 2}
    assert waiting_for(now) == ("bern-heart",)


@pytest.mark.parametrize(
    ("changed", "void"),
    [
        ({"round": 2}, "round_not_open"),
        ({"attempt": 2}, "round_not_open"),
        ({"experiment": "0" * 64}, "unknown_experiment"),
        ({"dataset": "chur-heart"}, "unknown_dataset"),
        ({"dataset": "bern-heart"}, "not_owner"),
    ],
)
def test_an_update_is_for_the_open_round_and_ones_own_dataset(
    changed: dict[str, Any], void: str
) -> None:
    state, experiment = under_way()
    op = replace(submit_op(state, experiment, train=1), **changed)
    fold(state, BASEL, op, void=void)


def test_an_update_needs_a_reservation() -> None:
    state = base()
    experiment = experiment_of(state)
    state = fold(state, COORDINATOR, open_op(state, experiment))
    fold(state, BASEL, submit_op(state, experiment, train=1), void="not_reserved")


def test_an_update_outside_the_cohort_or_twice_does_not_count() -> None:
    state, experiment = ready()
    alone = fold(state, COORDINATOR, open_op(state, experiment, cohort=("bern-heart",)))
    fold(alone, BASEL, submit_op(alone, experiment, train=1), void="not_in_cohort")
    state, experiment = under_way()
    state = fold(state, BASEL, submit_op(state, experiment, train=1))
    fold(state, BASEL, submit_op(state, experiment, train=1), void="duplicate_update")


def test_an_update_after_the_deadline_is_void_but_its_noise_is_used() -> None:
    state, experiment = under_way()
    state = pass_time(state, 1000)
    in_time = fold(state, BASEL, submit_op(state, experiment, train=1))
    assert in_time.experiments[experiment].round is not None
    late = pass_time(state, 1)
    after = fold(late, BASEL, submit_op(late, experiment, train=1), void="deadline_passed")
    assert dict(after.experiments[experiment].reservations[HERE].used) == {"train": 1}
    assert after.experiments[experiment].round == late.experiments[experiment].round


def test_what_restricts_acts_on_updates_at_once() -> None:
    state, experiment = under_way()
    update = submit_op(state, experiment, train=1)
    no = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset=HERE, reason="legal_basis"
    )
    fold(fold(state, steward_of("basel"), no), BASEL, update, void="not_approved")
    gone = DatasetWithdrawn(type="dataset.withdrawn", dataset=HERE, reason="consent")
    fold(fold(state, steward_of("basel"), gone), BASEL, update, void="dataset_withdrawn")
    anew = fold(state, BASEL, dataset_of("basel", snapshot="3" * 64))
    fold(anew, BASEL, update, void="dataset_changed")
    until = ExperimentApproved(
        type="experiment.approved",
        experiment=experiment,
        dataset=HERE,
        epsilon_max_micro=10**6,
        until_ms=state.log_time - 1,
    )
    fold(fold(state, steward_of("basel"), until), BASEL, update, void="approval_expired")
    stop = ExperimentStopped(type="experiment.stopped", experiment=experiment, reason="expired")
    fold(fold(state, COORDINATOR, stop), BASEL, update, void="experiment_ended")


def test_a_node_cannot_hide_the_noise_that_a_round_needs() -> None:
    state, experiment = under_way()
    state = fold(state, BASEL, submit_op(state, experiment, evaluate=1), void="under_reported")
    used = state.experiments[experiment].reservations[HERE].used
    assert dict(used) == {"evaluate": 1, "train": 1}  # the vector is out: its step is used
    fold(state, BASEL, settle_op(experiment, evaluate=1), void="under_reported")


def test_another_vector_for_the_same_round_needs_further_noise() -> None:
    state, experiment = under_way()
    state = pass_time(fold(state, BASEL, submit_op(state, experiment, train=1)), 1001)
    bern = submit_op(state, experiment, "bern", train=1)
    state = fold(state, BERN, bern, void="deadline_passed")
    (entry,) = (u.entry for u in state.experiments[experiment].round.updates.values())  # type: ignore[union-attr]
    refuse = UpdateRefused(type="update.refused", update=entry, reason="missing_blob")
    state = fold(state, COORDINATOR, refuse)
    state = fold(state, COORDINATOR, close_op(state, experiment))
    state = fold(state, COORDINATOR, open_op(state, experiment))
    same = submit_op(state, experiment, train=1)
    assert same.attempt == 2
    again = fold(state, BASEL, same)
    held = again.experiments[experiment].reservations[HERE]
    assert dict(held.vectors) == {"train": Vectors(1, same.update.sha256)}
    other = submit_op(state, experiment, word="another draw", train=1)
    fold(state, BASEL, other, void="under_reported")
    fold(state, BASEL, submit_op(state, experiment, word="another draw", train=2))


def test_more_steps_than_were_reserved_do_not_count() -> None:
    state, experiment = under_way()
    fold(state, BASEL, submit_op(state, experiment, train=4), void="over_reservation")
    fold(state, BASEL, submit_op(state, experiment, train=1, evaluate=2), void="over_reservation")
    fold(state, BASEL, submit_op(state, experiment, train=3, evaluate=1))


def test_a_sum_names_exactly_the_updates_that_count() -> None:
    state, experiment = under_way()
    for name in ("basel", "bern"):
        state = fold(state, node_of(name), submit_op(state, experiment, name, train=1))
    both = aggregate_op(state, experiment)
    for updates in (both.updates[:1], both.updates[::-1], (*both.updates, both.updates[1])):
        wrong = replace(both, updates=updates)
        fold(state, COORDINATOR, wrong, void="updates_mismatch")
    for changed in ({"round": 2}, {"attempt": 2}):
        fold(state, COORDINATOR, replace(both, **changed), void="round_not_open")
    done = fold(state, COORDINATOR, both)
    now = done.experiments[experiment]
    assert (now.round, now.next_round, now.next_attempt) == (None, 2, 1)
    assert now.model == both.model
    assert [now.reservations[d].served for d in (HERE, "bern-heart")] == [1, 1]
    fold(done, COORDINATOR, both, void="round_not_open")


def test_a_refused_update_is_left_out_of_the_sum() -> None:
    state, experiment = under_way()
    for name in ("basel", "bern"):
        state = fold(state, node_of(name), submit_op(state, experiment, name, train=1))
    both = aggregate_op(state, experiment)
    current = state.experiments[experiment].round
    assert current is not None
    bad = UpdateRefused(
        type="update.refused", update=current.updates[HERE].entry, reason="norm_bound"
    )
    state = fold(state, COORDINATOR, bad)
    fold(state, COORDINATOR, bad, void="repeated")
    fold(state, COORDINATOR, both, void="updates_mismatch")
    done = fold(state, COORDINATOR, aggregate_op(state, experiment))
    assert done.experiments[experiment].reservations[HERE].served == 0
    stranger = replace(bad, update=h("nobody's"))
    fold(done, COORDINATOR, stranger, void="unknown_update")
    fold(done, COORDINATOR, bad, void="unknown_update")


def test_a_sum_below_the_quorum_is_void_and_the_round_closes_when_nobody_is_awaited() -> None:
    state, experiment = under_way()
    close = close_op(state, experiment)
    fold(state, COORDINATOR, close, void="not_due")
    empty = aggregate_op(state, experiment, updates=(h(1),))
    fold(state, COORDINATOR, empty, void="updates_mismatch")
    for name in ("basel", "bern"):
        no = BudgetRefused(
            type="budget.refused",
            experiment=experiment,
            dataset=f"{name}-heart",
            reason="unavailable",
        )
        state = fold(state, node_of(name), no)
    state = fold(state, COORDINATOR, close)
    assert state.experiments[experiment].next_attempt == 2
    fold(state, COORDINATOR, close, void="round_not_open")


def test_a_round_closes_after_its_deadline_but_not_with_a_quorum() -> None:
    state, experiment = under_way()
    late = pass_time(state, 1001)
    fold(late, COORDINATOR, close_op(late, experiment))
    answered = fold(state, BASEL, submit_op(state, experiment, train=1))
    answered = pass_time(answered, 1001)
    fold(answered, COORDINATOR, close_op(answered, experiment), void="round_mismatch")


def test_who_settled_or_was_refused_is_not_awaited() -> None:
    state, experiment = under_way()
    state = fold(state, BASEL, settle_op(experiment))
    no = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset="bern-heart", reason="other"
    )
    state = fold(state, steward_of("bern"), no)
    assert waiting_for(state.experiments[experiment]) == ()


def evaluated() -> tuple[State, str, BlobRef]:
    """Both training rounds done; the evaluation is open for another model than the last."""
    state, experiment = under_way()
    for number in (1, 2):
        if number == 2:
            state = fold(state, COORDINATOR, open_op(state, experiment))
        state = fold(state, BASEL, submit_op(state, experiment, train=number))
        state = fold(state, COORDINATOR, aggregate_op(state, experiment))
    model = BlobRef(sha256=h("mean of late models"), bytes=1)
    state = fold(state, COORDINATOR, open_op(state, experiment, model=model))
    return state, experiment, model


def test_the_evaluated_model_is_named_once_and_stays() -> None:
    state, experiment, model = evaluated()
    assert state.experiments[experiment].model == model
    late = pass_time(state, 1001)
    late = fold(late, COORDINATOR, close_op(late, experiment))
    other = BlobRef(sha256=h("another"), bytes=1)
    fold(late, COORDINATOR, open_op(late, experiment, model=other), void="model_mismatch")
    again = fold(late, COORDINATOR, open_op(late, experiment))
    again = fold(again, BASEL, submit_op(again, experiment, train=2, evaluate=1))
    moved = aggregate_op(again, experiment, model=other)
    fold(again, COORDINATOR, moved, void="model_mismatch")
    done = fold(again, COORDINATOR, aggregate_op(again, experiment))
    assert done.experiments[experiment].model == model


def test_an_evaluation_is_drawn_once_and_a_baseline_uses_all_its_steps() -> None:
    state, experiment, _ = evaluated()
    fold(state, BASEL, submit_op(state, experiment, train=2), void="under_reported")
    state = fold(state, BASEL, submit_op(state, experiment, train=2, evaluate=1))
    state = fold(state, COORDINATOR, aggregate_op(state, experiment))
    state = fold(state, COORDINATOR, open_op(state, experiment))
    least: dict[str, Any] = {"train": 2, "evaluate": 1, "baseline_train": 1, "baseline_evaluate": 1}
    fold(state, BASEL, submit_op(state, experiment, **least), void="under_reported")
    full = least | {"baseline_train": STEPS["baseline_train"]}
    state = fold(state, BASEL, submit_op(state, experiment, **full))
    state = fold(state, COORDINATOR, aggregate_op(state, experiment))
    fold(state, COORDINATOR, open_op(state, experiment, kind="baseline"), void="round_mismatch")


def test_an_update_for_a_round_beyond_the_plan_is_void_whatever_it_says() -> None:
    state, experiment = under_way()
    op = replace(submit_op(state, experiment, train=1), round=MAX_INT)
    after = fold(state, BASEL, op, void="round_not_open")
    used = after.experiments[experiment].reservations[HERE].used
    assert used["baseline_train"] == STEPS["baseline_train"]
