"""What a node refuses, or waits with, by its own copy of the log and its own register."""

from __future__ import annotations

from pathlib import Path

import pytest
from immutables import Map
from msgspec import structs

from ledger.entries.operations.budgets import BudgetRefused
from ledger.entries.operations.datasets import DatasetWithdrawn
from ledger.entries.operations.experiments import ExperimentRefused
from node.duties.duty import (
    Adopt,
    CheckPlan,
    Refuse,
    Wait,
)
from node.duties.judging import refusal_for
from node.duties.situation import LocalPolicy, Memory
from tests.federation import COORDINATOR, HOUR_MS, Federation, node_of, steward_of
from tests.node.duties.scenes import MINE, Scene
from tests.node.hospital import Hospital


def test_a_round_that_nobody_approved_is_refused(tmp_path: Path) -> None:
    federation = Federation.found(("basel", "bern"))
    datasets = [federation.register_dataset(name) for name in ("basel", "bern")]
    experiment = federation.propose(federation.spec(datasets))
    federation.approve(experiment, "bern-heart")
    basel = Hospital(federation, "basel", tmp_path)
    basel.own(MINE)
    from ledger.entries.operations.rounds import RoundOpened

    op = RoundOpened(
        type="round.opened",
        experiment=experiment,
        round=1,
        attempt=1,
        kind="train",
        cohort=("basel-heart", "bern-heart"),
        model=federation.experiment(experiment).model,
        deadline_ms=federation.now_ms + HOUR_MS,
    )
    federation.say(COORDINATOR, op)
    assert basel.duties() == (Refuse(experiment, MINE, "not_approved"),)
    said = BudgetRefused(
        type="budget.refused", experiment=experiment, dataset=MINE, reason="not_approved"
    )
    federation.say(node_of("basel"), said)
    assert basel.duties() == ()
    federation.approve(experiment, MINE)
    assert basel.duties() == (CheckPlan(experiment),)


def test_an_approval_that_is_not_final_is_waited_for(scene: Scene) -> None:
    scene.open_round()
    approved = scene.federation.experiment(scene.experiment).approvals[MINE].index
    (duty,) = scene.basel.duties(final_size=approved)
    assert isinstance(duty, Wait)
    assert "approval is not under a final checkpoint" in duty.why


def test_an_approval_taken_back_ends_it(scene: Scene) -> None:
    scene.reserved()
    op = ExperimentRefused(
        type="experiment.refused", experiment=scene.experiment, dataset=MINE, reason="other"
    )
    scene.federation.say(steward_of("basel"), op)
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "not_approved"),)


def test_an_approval_that_expired_by_the_nodes_own_clock_ends_it(scene: Scene) -> None:
    until = scene.federation.now_ms + HOUR_MS
    scene.federation.approve(scene.experiment, MINE, until_ms=until)
    scene.open_round()
    assert scene.basel.duties(now_ms=until + 1) == (
        Refuse(scene.experiment, MINE, "approval_expired"),
    )


def test_an_approval_that_hospitals_saw_too_late_is_refused(scene: Scene) -> None:
    scene.open_round()
    state = scene.federation.state
    at_ms = scene.federation.experiment(scene.experiment).approvals[MINE].at_ms
    latest = at_ms + state.policy.max_delay_ms + state.policy.skew_ms
    assert latest % 1000 == 0
    assert scene.basel.duties(cosigned_ms=latest) == (CheckPlan(scene.experiment),)
    assert scene.basel.duties(cosigned_ms=latest + 1000) == (
        Refuse(scene.experiment, MINE, "approval_expired"),
    )


def test_an_approval_that_no_hospital_cosigned_is_waited_for(scene: Scene) -> None:
    scene.open_round()
    (duty,) = scene.basel.duties(cosigned_ms=-1)
    assert isinstance(duty, Wait)
    assert "no quorum of hospitals has cosigned" in duty.why


def test_more_epsilon_than_the_steward_allowed_is_refused(scene: Scene) -> None:
    scene.federation.approve(scene.experiment, MINE, epsilon_max=0.1)
    scene.open_round()
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "approval_conditions"),)


def test_a_withdrawn_dataset_is_refused(scene: Scene) -> None:
    scene.reserved()
    op = DatasetWithdrawn(type="dataset.withdrawn", dataset=MINE, reason="consent")
    scene.federation.say(steward_of("basel"), op)
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "dataset_withdrawn"),)


def test_a_dataset_registered_anew_is_refused(scene: Scene) -> None:
    scene.open_round()
    scene.federation.register_dataset("basel", declared_rows=200)
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "dataset_changed"),)


def test_a_dataset_that_is_not_here_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (tmp_path / "other").mkdir()
    empty = Hospital(scene.federation, "basel", tmp_path / "other")
    scene.open_round()
    assert empty.duties() == (Refuse(scene.experiment, MINE, "unavailable"),)


def test_a_plan_that_is_not_the_specs_is_refused(scene: Scene) -> None:
    scene.open_round()
    scene.basel.checked(scene.experiment, good=False)
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "plan_mismatch"),)


@pytest.mark.parametrize("policy", [LocalPolicy(paused=True), LocalPolicy(epsilon_max_micro=1)])
def test_local_policy_refuses_new_experiments(scene: Scene, policy: LocalPolicy) -> None:
    scene.open_round()
    assert scene.basel.duties(policy=policy) == (Refuse(scene.experiment, MINE, "local_policy"),)


def test_what_the_private_register_cannot_pay_is_refused(scene: Scene) -> None:
    scene.open_round()
    scene.basel.checked(scene.experiment)
    limit = scene.basel.register.view.cells["basel-all"].limit
    charges = scene.basel.charges(scene.experiment, MINE)
    most = structs.replace(charges[0], g=limit.g_max, r=limit.r_max)
    scene.basel.register.reserve("e" * 64, "9" * 64, MINE, (most,))
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "budget_exhausted"),)


def test_what_the_log_cannot_pay_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path, epsilon="4")
    second = scene.federation.propose(
        scene.federation.spec(["basel-heart", "bern-heart"], name="second", epsilon="4")
    )
    for dataset in ("basel-heart", "bern-heart"):
        scene.federation.approve(second, dataset)
    scene.open_round()
    scene.federation.reserve(scene.experiment, MINE)
    scene.federation.open_round(second)
    scene.basel.checked(second)
    (adopt,) = scene.basel.duties()  # what the register does not know is counted before all else
    assert isinstance(adopt, Adopt)
    scene.basel.register.adopt(scene.federation.id, scene.experiment, MINE, adopt.charges)
    found = [d for d in scene.basel.duties() if getattr(d, "experiment", "") == second]
    assert found == [Refuse(second, MINE, "budget_exhausted")]


def test_a_reservation_that_the_log_voided_becomes_a_refusal(scene: Scene) -> None:
    scene.open_round()
    scene.basel.checked(scene.experiment)
    reason = refusal_for("budget_exhausted")
    assert reason is not None
    refuse = Map({(scene.experiment, MINE): reason})
    scene.basel.memory = Memory(scene.basel.memory.plans, refuse)
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "budget_exhausted"),)
    assert refusal_for("stale") is None
