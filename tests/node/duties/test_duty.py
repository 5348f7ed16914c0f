"""What a node does next in a round that it may serve: reserve, train, send, settle, once each."""

from __future__ import annotations

import pytest
from immutables import Map

from ledger.entries.operations.budgets import BudgetSettled
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.rounds import RoundClosed
from ledger.rules.budget import refunds
from ledger.rules.experiments import site_of
from node.duties.duty import (
    CheckPlan,
    CloseAccount,
    Refuse,
    Reserve,
    Send,
    Settle,
    Train,
    Wait,
)
from node.duties.situation import LocalPolicy, Memory
from node.register.accounts import stated
from tests.federation import COORDINATOR, HOUR_MS, node_of
from tests.node.duties.scenes import MINE, Scene


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


def test_a_settlement_that_this_node_did_not_say_gives_nothing_back_of_its_intents(
    scene: Scene,
) -> None:
    """Another node of the hospital says it while a vector is on its way, of which no entry tells yet."""
    scene.reserved()
    scene.basel.intend(scene.experiment, MINE, "train", 1, 1)
    op = BudgetSettled(
        type="budget.settled", experiment=scene.experiment, dataset=MINE, used=(), intents="0" * 64
    )
    scene.federation.say(node_of("basel"), op)
    assert scene.federation.experiment(scene.experiment).reservations[MINE].used == Map()
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
