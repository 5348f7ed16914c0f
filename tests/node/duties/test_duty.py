from __future__ import annotations

from pathlib import Path

import pytest
from immutables import Map

from ledger.copies.blobs import blob_ref
from ledger.entries.operations.budgets import BudgetRefused, BudgetSettled
from ledger.entries.operations.datasets import DatasetWithdrawn
from ledger.entries.operations.experiments import ExperimentRefused, ExperimentStopped
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.rounds import RoundClosed
from ledger.rules.budget import refunds
from ledger.rules.experiments import site_of
from node.duties.duty import (
    Adopt,
    CheckPlan,
    CloseAccount,
    Refuse,
    Reserve,
    Send,
    Settle,
    Train,
    Wait,
)
from node.duties.judging import refusal_for
from node.duties.recovery import counted_in
from node.duties.situation import LocalPolicy, Memory
from node.register.accounts import stated
from tests.federation import COORDINATOR, HOUR_MS, RESEARCHER, Federation, node_of, steward_of
from tests.node.hospital import Hospital

MINE = "basel-heart"


class Scene:
    """Two hospitals, one experiment approved by both, a round open, and basel's own register."""

    def __init__(self, directory: Path, **spec: object) -> None:
        self.federation = Federation.found(("basel", "bern"))
        self.experiment = self.federation.start(**spec)
        self.basel = Hospital(self.federation, "basel", directory)
        self.basel.own(MINE)

    def open_round(self) -> None:
        self.federation.open_round(self.experiment)

    def reserved(self) -> None:
        self.open_round()
        self.basel.checked(self.experiment)
        self.basel.reserve(self.experiment, MINE)

    def trained(self, number: int = 1) -> None:
        self.basel.intend(self.experiment, MINE, "train", number, 1)
        self.basel.register.outbox.store(self.experiment, MINE, number, blob_ref(b"noise"))

    def stop(self) -> None:
        op = ExperimentStopped(
            type="experiment.stopped", experiment=self.experiment, reason="researcher"
        )
        self.federation.say(RESEARCHER, op)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_without_a_round_there_is_nothing_to_do(scene: Scene) -> None:
    assert scene.basel.duties() == ()


def test_a_round_asks_first_whether_the_plan_is_the_specs(scene: Scene) -> None:
    scene.open_round()
    assert scene.basel.duties() == (CheckPlan(scene.experiment),)


def test_then_the_budget_is_reserved_for_all_the_plan_may_cost(scene: Scene) -> None:
    scene.open_round()
    scene.basel.checked(scene.experiment)
    charges = scene.basel.charges(scene.experiment, MINE)
    assert scene.basel.duties() == (Reserve(scene.experiment, MINE, charges),)


def test_a_reserved_round_is_trained_under_a_final_checkpoint(scene: Scene) -> None:
    scene.reserved()
    index = scene.federation.state.size - 1
    assert scene.basel.duties(final_size=index) == (
        Wait(scene.experiment, MINE, "the reservation is not under a final checkpoint yet"),
    )
    assert scene.basel.duties() == (Train(scene.experiment, MINE, 1, 1, "train"),)


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        ({"fresh": False}, "too old to give permission"),
        ({"vouched": False}, "have not vouched"),
        ({"policy": LocalPolicy(paused=True)}, "is paused"),
        ({"policy": LocalPolicy(working=False)}, "outside this node's hours"),
    ],
)
def test_data_waits_for_permission(scene: Scene, standing: dict[str, object], why: str) -> None:
    scene.reserved()
    (duty,) = scene.basel.duties(**standing)  # type: ignore[arg-type]
    assert isinstance(duty, Wait)
    assert why in duty.why


def test_data_waits_while_the_logs_time_is_behind(scene: Scene) -> None:
    scene.reserved()
    late = scene.federation.now_ms + scene.federation.state.policy.skew_ms + 10_000
    (duty,) = scene.basel.duties(now_ms=late)
    assert isinstance(duty, Wait)
    assert "behind this node's clock" in duty.why


def test_rounds_under_way_need_no_new_permission(scene: Scene) -> None:
    scene.reserved()
    scene.trained()
    scene.federation.reserve(scene.experiment, "bern-heart")
    for dataset in (MINE, "bern-heart"):
        scene.federation.submit(scene.experiment, dataset)
    scene.federation.aggregate(scene.experiment)
    scene.open_round()
    assert scene.basel.duties(fresh=False) == (Train(scene.experiment, MINE, 2, 1, "train"),)


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
    most = charges[0].model_copy(update={"g": limit.g_max, "r": limit.r_max})
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


def test_the_same_bytes_are_sent_after_a_restart_and_in_the_next_attempt(scene: Scene) -> None:
    scene.reserved()
    scene.trained()
    assert scene.basel.duties() == (Send(scene.experiment, MINE, 1, 1),)
    scene.basel.restart()
    assert scene.basel.duties() == (Send(scene.experiment, MINE, 1, 1),)
    scene.federation.now_ms += 2 * HOUR_MS
    scene.federation.say(COORDINATOR, TimeNoted(type="time.noted"))
    assert scene.basel.duties() == ()
    op = RoundClosed(
        type="round.closed",
        experiment=scene.experiment,
        round=1,
        attempt=1,
        reason="quorum_missed",
    )
    scene.federation.say(COORDINATOR, op)
    scene.open_round()
    assert scene.basel.duties() == (Send(scene.experiment, MINE, 1, 2),)


def test_an_update_is_handed_in_once_per_attempt(scene: Scene) -> None:
    scene.reserved()
    scene.trained()
    answered = frozenset({(scene.experiment, MINE, 1, 1)})
    scene.basel.memory = Memory(scene.basel.memory.plans, Map(), answered)
    assert scene.basel.duties() == ()


def test_a_crash_after_the_intent_costs_a_spare_round_and_then_the_node_leaves(
    scene: Scene,
) -> None:
    scene.reserved()
    for crash in range(3):  # two rounds and one spare are reserved
        assert scene.basel.duties() == (Train(scene.experiment, MINE, 1, 1, "train"),), crash
        scene.basel.intend(scene.experiment, MINE, "train", 1, 1)
        scene.basel.restart()
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "no_spare_round"),)


def test_a_stopped_experiment_is_settled_for_what_was_used(scene: Scene) -> None:
    scene.reserved()
    scene.trained()
    scene.stop()
    (duty,) = scene.basel.duties()
    assert duty == Settle(scene.experiment, MINE, Map({"train": 1}))
    scene.basel.register.close_intents(scene.experiment, MINE)
    op = BudgetSettled(
        type="budget.settled",
        experiment=scene.experiment,
        dataset=MINE,
        used=stated(duty.used),
        intents=scene.basel.register.intents_root(scene.experiment, MINE),
    )
    scene.federation.say(node_of("basel"), op)
    (closing,) = scene.basel.duties()
    assert closing == CloseAccount(scene.experiment, MINE, Map({"train": 1}))


def test_the_register_and_the_log_hold_the_same_spend_after_settling(scene: Scene) -> None:
    test_a_stopped_experiment_is_settled_for_what_was_used(scene)
    site = site_of(scene.federation.experiment(scene.experiment).plan, MINE)
    assert site is not None
    scene.basel.register.settle(scene.experiment, MINE, refunds(site, Map({"train": 1})))
    here = scene.basel.register.view.cells["basel-all"].spend
    assert here == scene.federation.state.cells["basel-all"].spend
    assert here.g > 0
    assert scene.basel.duties() == ()


def test_a_reservation_that_never_took_effect_is_released_when_the_experiment_ends(
    scene: Scene,
) -> None:
    scene.open_round()
    charges = scene.basel.charges(scene.experiment, MINE)
    scene.basel.register.reserve(scene.federation.id, scene.experiment, MINE, charges)
    scene.stop()
    assert scene.basel.duties() == (CloseAccount(scene.experiment, MINE, Map()),)


def test_after_a_restored_backup_the_reservation_counts_as_spent(scene: Scene) -> None:
    scene.open_round()
    scene.federation.reserve(scene.experiment, MINE)  # the register knows nothing of it
    charges = scene.basel.charges(scene.experiment, MINE)
    assert scene.basel.duties() == (Adopt(scene.experiment, MINE, charges),)
    scene.basel.register.adopt(scene.federation.id, scene.experiment, MINE, charges)
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "unavailable"),)
    scene.stop()
    (duty,) = scene.basel.duties()
    assert isinstance(duty, Settle)
    assert duty.used["train"] == 3
    assert duty.used["evaluate"] == 1


def settle_in_log(scene: Scene, train: int) -> None:
    op = BudgetSettled(
        type="budget.settled",
        experiment=scene.experiment,
        dataset=MINE,
        used=stated(Map({"train": train})),  # type: ignore[arg-type]
        intents="0" * 64,
    )
    scene.federation.say(node_of("basel"), op)


def test_a_restored_register_learns_what_was_settled_meanwhile(scene: Scene) -> None:
    scene.open_round()
    scene.federation.reserve(scene.experiment, MINE)  # the register knows nothing of it
    scene.stop()
    settle_in_log(scene, 2)
    charges = scene.basel.charges(scene.experiment, MINE)
    used = Map({"train": 2})
    assert scene.basel.duties() == (Adopt(scene.experiment, MINE, charges, used),)  # type: ignore[arg-type]
    site = site_of(scene.federation.experiment(scene.experiment).plan, MINE)
    assert site is not None
    key = (scene.experiment, MINE)
    scene.basel.register.adopt(scene.federation.id, *key, charges, refunds(site, used))  # type: ignore[arg-type]
    scene.basel.restart()
    assert scene.basel.duties() == ()
    here = scene.basel.register.view.cells["basel-all"].spend
    assert here == scene.federation.state.cells["basel-all"].spend
    assert here.g > 0


@pytest.mark.parametrize("settled_before", [True, False])
def test_spend_that_came_with_the_cell_is_not_counted_again(
    scene: Scene, tmp_path: Path, settled_before: bool
) -> None:
    scene.open_round()
    scene.federation.reserve(scene.experiment, MINE)
    scene.stop()
    if settled_before:
        settle_in_log(scene, 2)
    cell = scene.federation.state.cells["basel-all"]
    (tmp_path / "new").mkdir()
    new = Hospital(scene.federation, "basel", tmp_path / "new")
    counted = counted_in(scene.federation.state, "basel-all")
    new.register.add_cell(cell.terms, None, cell.spend, counted)
    if not settled_before:
        settle_in_log(scene, 2)
    (adopt,) = new.duties()
    assert isinstance(adopt, Adopt)
    site = site_of(scene.federation.experiment(scene.experiment).plan, MINE)
    assert site is not None
    given = refunds(site, Map({"train": 2}))
    new.register.adopt(scene.federation.id, scene.experiment, MINE, adopt.charges, given)
    here = new.register.view.cells["basel-all"].spend
    assert here == scene.federation.state.cells["basel-all"].spend


def test_a_start_charges_the_round_that_a_restored_register_forgot(scene: Scene) -> None:
    scene.reserved()
    backup = scene.basel.back_up()
    scene.trained()  # and its noise may have left
    scene.basel.restore(backup)
    for _ in range(2):
        scene.basel.restart()
        scene.basel.come_back()
        assert dict(scene.basel.register.view.used_by((scene.experiment, MINE))) == {"train": 1}
    final_size = scene.federation.state.size - 1
    (wait,) = scene.basel.duties(final_size=final_size)
    assert isinstance(wait, Wait), "an intent of a restart is no permission"
    assert scene.basel.duties() == (Train(scene.experiment, MINE, 1, 1, "train"),)


def test_a_backup_restored_twice_within_a_round_is_spent_in_full(scene: Scene) -> None:
    scene.reserved()
    backup = scene.basel.back_up()
    key = (scene.experiment, MINE)
    for used in ({"train": 1}, None):
        scene.basel.restore(backup)
        scene.basel.resume()
        if used is not None:
            assert dict(scene.basel.register.view.used_by(key)) == used
            scene.trained()  # and its noise may have left
    assert scene.basel.register.view.charges[key] == "lost"
    assert scene.basel.duties() == (Refuse(*key, "unavailable"),)
    scene.stop()
    (settle,) = scene.basel.duties()
    assert isinstance(settle, Settle)
    assert dict(settle.used) == {"train": 3, "evaluate": 1}, "all that was reserved"


def test_a_start_charges_a_round_that_was_closed_without_its_vector(scene: Scene) -> None:
    scene.reserved()
    scene.federation.now_ms += 2 * HOUR_MS
    scene.federation.say(COORDINATOR, TimeNoted(type="time.noted"))
    op = RoundClosed(
        type="round.closed", experiment=scene.experiment, round=1, attempt=1, reason="quorum_missed"
    )
    scene.federation.say(COORDINATOR, op)
    scene.basel.resume()
    key = (scene.experiment, MINE)
    assert dict(scene.basel.register.view.used_by(key)) == {"train": 1}
    scene.basel.resume()
    assert dict(scene.basel.register.view.used_by(key)) == {"train": 1}, "once a round"
    assert scene.basel.register.view.charges[key] == "reserved"


def test_a_start_charges_nothing_where_the_vector_is_kept_or_the_log_knows_more(
    scene: Scene,
) -> None:
    scene.reserved()
    scene.trained()
    scene.basel.come_back()
    key = (scene.experiment, MINE)
    assert dict(scene.basel.register.view.used_by(key)) == {"train": 1}
    scene.basel.register.adopt(scene.federation.id, *key, ())
    scene.basel.come_back()
    assert dict(scene.basel.register.view.used_by(key)) == {"train": 1}


def test_a_start_charges_no_more_than_the_plan_has_left(scene: Scene) -> None:
    scene.reserved()
    scene.basel.intend(scene.experiment, MINE, "train", 7, 3)  # two rounds and one spare
    scene.basel.come_back()
    assert scene.basel.duties() == (Refuse(scene.experiment, MINE, "no_spare_round"),)
    used = scene.basel.register.view.used_by((scene.experiment, MINE))
    assert dict(used) == {"train": 3}


def test_a_register_that_counts_less_than_the_log_is_a_restored_backup(scene: Scene) -> None:
    scene.reserved()
    scene.federation.submit(scene.experiment, MINE)
    (duty,) = scene.basel.duties()
    assert isinstance(duty, Adopt)


def test_nothing_is_settled_before_others_vouched_for_the_log(scene: Scene) -> None:
    scene.reserved()
    scene.stop()
    (duty,) = scene.basel.duties(vouched=False)
    assert isinstance(duty, Wait)
    assert scene.basel.duties() == (Settle(scene.experiment, MINE, Map()),)
