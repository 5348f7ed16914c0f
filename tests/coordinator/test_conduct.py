"""Rounds that move by themselves: over HTTP, through restarts, and to an end in every case."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from ledger.entries.operations.budgets import BudgetRefused, BudgetReserved
from ledger.entries.operations.experiments import ExperimentApproved
from ledger.entries.operations.rounds import RoundAggregated, UpdateRefused
from ledger.experiment.privacy_spec import Baseline, Privacy
from ledger.experiment.spec import ExperimentSpec
from ledger.rules.experiments import site_of, totals
from tests.coordinator.serving import Serving
from tests.federation import RESEARCHER, Federation, node_of, steward_of

HOSPITALS = ("basel", "bern", "chur")


@pytest.fixture
def federation() -> Federation:
    now_ms = time.time_ns() // 1_000_000
    federation = Federation.found(HOSPITALS, now_ms=now_ms - 60_000)
    for name in HOSPITALS:
        federation.register_dataset(name)
    return federation


def spec(federation: Federation, **federating: object) -> ExperimentSpec:
    return federation.spec(sorted(federation.state.datasets), **federating)  # type: ignore[arg-type]


def start(serving: Serving, wanted: ExperimentSpec, by: tuple[str, ...] = HOSPITALS) -> str:
    """Propose over HTTP and let hospitals approve; returns the experiment."""
    federation = serving.federation
    proposal = federation.proposal(wanted)
    with serving.client(RESEARCHER) as client:
        for data in federation.blobs.values():
            client.put_blob(data)
    index = serving.say(RESEARCHER, proposal).index
    experiment = federation.entries()[index].hash
    assert all(approve(serving, experiment, by))
    return experiment


def approve(serving: Serving, experiment: str, by: tuple[str, ...]) -> list[bool]:
    """Each of these hospitals' stewards says yes; whether it took effect."""
    applied = []
    for name in by:
        op = ExperimentApproved(
            type="experiment.approved",
            experiment=experiment,
            dataset=f"{name}-heart",
            epsilon_max_micro=10**8,
            until_ms=2**50,
        )
        applied.append(serving.say(steward_of(name), op).applied)
    return applied


def answer(serving: Serving, experiment: str, name: str) -> None:
    """One hospital's honest part in the open round."""
    federation, dataset = serving.federation, f"{name}-heart"
    if dataset not in federation.experiment(experiment).reservations:
        reserve(serving, experiment, name)
    update = federation.update(experiment, dataset)
    with serving.client(node_of(name)) as client:
        client.put_blob(federation.blobs[update.update.sha256])
    assert serving.say(node_of(name), update).applied


def reserve(serving: Serving, experiment: str, name: str) -> None:
    """The hospital sets its budget aside."""
    site = site_of(serving.federation.experiment(experiment).plan, f"{name}-heart")
    assert site is not None
    op = BudgetReserved(
        type="budget.reserved",
        experiment=experiment,
        dataset=f"{name}-heart",
        charges=totals(site.releases),
    )
    assert serving.say(node_of(name), op).applied


def opened(serving: Serving, experiment: str, number: int) -> Callable[[], bool]:
    def condition() -> bool:
        current = serving.federation.experiment(experiment).round
        return current is not None and current.number == number

    return condition


def play(serving: Serving, experiment: str, rounds: int, first: int = 1) -> None:
    for number in range(first, first + rounds):
        serving.until(opened(serving, experiment, number))
        for name in HOSPITALS:
            answer(serving, experiment, name)


def test_an_experiment_runs_from_approval_to_release(
    federation: Federation, tmp_path: Path
) -> None:
    wanted = spec(federation, rounds=2).model_copy(
        update={"privacy": Privacy(epsilon=Decimal(2), baseline=Baseline(rounds=2))}
    )
    with Serving(federation, tmp_path) as serving:
        experiment = start(serving, wanted)
        play(serving, experiment, rounds=4)
        serving.until(lambda: federation.experiment(experiment).status == "completed")
        for entry in federation.entries():
            if isinstance(entry.body.op, RoundAggregated):
                federation.put(serving.coordinator.blobs.get(entry.body.op.model))
        assert federation.experiment(experiment).model == federation.final_model(experiment)
        time.sleep(0.05)
        serving.follow()
        assert federation.experiment(experiment).status == "completed"
        serving.cosign(*(node_of(name) for name in HOSPITALS))
        serving.until(lambda: federation.experiment(experiment).status == "released")


def test_a_coordinator_that_was_stopped_within_a_round_goes_on(
    federation: Federation, tmp_path: Path
) -> None:
    with Serving(federation, tmp_path) as serving:
        experiment = start(serving, spec(federation, rounds=2))
        serving.until(opened(serving, experiment, 1))
        answer(serving, experiment, "basel")
    with Serving(federation, tmp_path) as serving:
        answer(serving, experiment, "bern")
    with Serving(federation, tmp_path) as serving:
        answer(serving, experiment, "chur")
        play(serving, experiment, rounds=2, first=2)
        serving.until(lambda: federation.experiment(experiment).status == "completed")
    said = [e.body.op for e in federation.entries() if isinstance(e.body.op, RoundAggregated)]
    assert [len(op.updates) for op in said] == [3, 3, 3]


def test_an_update_whose_blob_never_came_is_refused_and_the_round_tried_again(
    federation: Federation, tmp_path: Path
) -> None:
    with Serving(federation, tmp_path) as serving:
        experiment = start(serving, spec(federation, rounds=1))
        serving.until(opened(serving, experiment, 1))
        for name in ("bern", "chur"):
            answer(serving, experiment, name)
        held = serving.federation.blobs
        reserve(serving, experiment, "basel")
        update = federation.update(experiment, "basel-heart")
        assert serving.say(node_of("basel"), update).applied
        serving.until(lambda: federation.experiment(experiment).next_attempt == 2)
        refused = [e.body.op for e in federation.entries() if e.body.op.type == "update.refused"]
        assert [op.reason for op in refused if isinstance(op, UpdateRefused)] == ["missing_blob"]
        assert update.update.sha256 in held
        play(serving, experiment, rounds=1)
        serving.until(opened(serving, experiment, 2))


def test_hospitals_that_all_refuse_end_the_experiment(
    federation: Federation, tmp_path: Path
) -> None:
    with Serving(federation, tmp_path) as serving:
        experiment = start(serving, spec(federation, rounds=1))
        serving.until(opened(serving, experiment, 1))
        for name in HOSPITALS:
            op = BudgetRefused(
                type="budget.refused",
                experiment=experiment,
                dataset=f"{name}-heart",
                reason="local_policy",
            )
            serving.say(node_of(name), op)
        serving.until(lambda: federation.experiment(experiment).ended)
    ended = federation.experiment(experiment)
    assert (ended.status, ended.reason, ended.next_attempt) == ("stopped", "quorum_lost", 2)


def test_a_proposal_without_its_spec_is_stopped_as_invalid(
    federation: Federation, tmp_path: Path
) -> None:
    with Serving(federation, tmp_path) as serving:
        proposal = federation.proposal(spec(federation, rounds=1))
        index = serving.say(RESEARCHER, proposal).index
        experiment = federation.entries()[index].hash
        approve(serving, experiment, HOSPITALS)
        serving.until(lambda: federation.experiment(experiment).ended)
    assert federation.experiment(experiment).reason == "invalid_plan"


def test_a_round_that_nobody_answers_is_closed_after_its_deadline(
    federation: Federation, tmp_path: Path
) -> None:
    with Serving(federation, tmp_path) as serving:
        experiment = start(serving, spec(federation, rounds=1, round_timeout_s=1))
        serving.until(lambda: federation.experiment(experiment).next_attempt == 2)
        assert federation.experiment(experiment).status == "running"


def test_an_experiment_that_nobody_answers_ends_with_its_spec(
    federation: Federation, tmp_path: Path
) -> None:
    over = spec(federation).model_copy(update={"until": date(2020, 1, 1)})
    with Serving(federation, tmp_path) as serving:
        experiment = start(serving, over, by=())
        serving.until(lambda: federation.experiment(experiment).status == "stopped")
        assert federation.experiment(experiment).reason == "expired"
