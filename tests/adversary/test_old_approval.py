"""The coordinator holds back or reorders entries, plays an old approval later: ``seen``, the policy's
``max_lag`` and ``max_delay``, key chains, the times of cosignatures, and every node's own clock."""

from __future__ import annotations

import pytest

from ledger.entries.operations.experiments import ExperimentRefused
from ledger.entries.operations.log import TimeNoted
from ledger.errors import NotAdmitted, NotWitnessed
from node.duties.duty import Refuse, Reserve, Wait
from tests.adversary.hospital import Hospital
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR, HOUR_MS, steward_of


def asked(world: World) -> tuple[str, Hospital]:
    """A round asks for basel's dataset, and basel has reserved what that costs."""
    experiment = world.experiment()
    world.open_round(experiment, "basel-heart", "bern-heart")
    basel = world.hospital("basel")
    world.settle()
    basel.check_plan(experiment)
    basel.reserve(experiment, "basel-heart")
    world.federation.reserve(experiment, "basel-heart")
    world.settle()
    return experiment, basel


@attack(
    name="coordinator keeps an approval and plays it after max_lag entries",
    exposed_by="everybody's fold",
    evidence="void: stale; the signed view in the approval, and its index",
)
@pytest.mark.policy(max_lag=20)
def test_an_approval_played_after_max_lag_is_void(world: World) -> None:
    experiment = world.experiment(approved_by=["bern"])
    kept = world.federation.entry(steward_of("basel"), world.approval(experiment, "basel"))
    for _ in range(20):
        world.let_time_pass(0)
    late = world.federation.take(kept)  # the lie
    assert late.outcome.void == "stale"
    assert late.index - kept.body.seen.size == 20  # of the log before it, and itself
    assert world.hospital("basel").follow()[-1] == late  # each verified and folded it alone
    world.exposed("everybody's fold")
    world.open_round(experiment, "basel-heart", "bern-heart")
    world.settle()
    assert world.hospital("basel").duties() == (Refuse(experiment, "basel-heart", "not_approved"),)


@attack(
    name="coordinator keeps an approval and plays it after max_delay",
    exposed_by="everybody's fold",
    evidence="void: stale; the log's time at the signed view, and now",
)
def test_an_approval_played_after_max_delay_is_void(world: World) -> None:
    experiment = world.experiment(approved_by=["bern"])
    kept = world.federation.entry(steward_of("basel"), world.approval(experiment, "basel"))
    world.let_time_pass(24 * HOUR_MS + 1)
    late = world.federation.take(kept)  # the lie
    assert late.outcome.void == "stale"
    assert world.hospital("basel").follow()[-1] == late
    world.exposed("everybody's fold")
    assert list(world.federation.experiment(experiment).approvals) == ["bern-heart"]


@attack(
    name="coordinator says nothing for a weekend, then plays an approval",
    exposed_by="the hospital's node",
    evidence="hospitals cosigned it later than max_delay and skew after its steward's own time",
)
def test_an_approval_held_back_while_the_coordinator_says_nothing_is_not_used(
    world: World,
) -> None:
    experiment = world.experiment(approved_by=["bern"])
    kept = world.federation.entry(steward_of("basel"), world.approval(experiment, "basel"))
    world.federation.now_ms += 30 * HOUR_MS  # max_delay is 24 h
    assert world.federation.take(kept).outcome.applied  # the lie: the log's own time stood still
    world.let_time_pass(0)
    world.open_round(experiment, "basel-heart", "bern-heart")
    world.settle()
    basel = world.hospital("basel")
    basel.check_plan(experiment)
    assert basel.duties() == (Refuse(experiment, "basel-heart", "approval_expired"),)
    world.exposed("the hospital's node")
    world.federation.approve(experiment, "basel-heart")  # asked anew, the steward may say yes again
    world.settle()
    (duty,) = basel.duties()
    assert isinstance(duty, Reserve)


@attack(
    name="coordinator and a node use an approval that was held back",
    exposed_by="a sceptic with any copy",
    evidence="the steward's time in the approval, and the times of the first quorum over it",
)
def test_a_reservation_on_an_approval_that_was_held_back_is_found(world: World) -> None:
    experiment = world.experiment(approved_by=["bern"])
    kept = world.federation.entry(steward_of("basel"), world.approval(experiment, "basel"))
    world.federation.now_ms += 30 * HOUR_MS
    approved = world.federation.take(kept)
    world.let_time_pass(0)
    world.open_round(experiment, "basel-heart", "bern-heart")
    world.settle()
    honest = world.federation.reserve(experiment, "bern-heart")
    false = world.federation.reserve(experiment, "basel-heart")  # the lie
    world.settle()
    verdicts = world.audit(world.hospital("chur").directory)
    assert refuted(verdicts) == [(10, f"entry {false.index}")]
    assert f"(entry {approved.index}) that was held back" in verdicts.best.refuted[0].detail
    assert "30.0 h" in verdicts.best.refuted[0].detail
    assert honest.index != false.index
    world.exposed("a sceptic with any copy")


@attack(
    name="coordinator keeps an approval back while its steward goes on",
    exposed_by="every follower",
    evidence="the steward's chain goes on elsewhere",
)
def test_an_approval_left_out_of_its_chain_fits_nowhere_later(world: World) -> None:
    experiment = world.experiment(approved_by=["bern"])
    steward = steward_of("basel")
    kept = world.federation.entry(steward, world.approval(experiment, "basel"))
    no = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset="basel-heart", reason="purpose"
    )
    world.federation.say(steward, no)
    world.settle()
    world.coordinator.lie([*world.federation.leaves, kept.leaf])  # the lie
    with world.caught(NotAdmitted, by="every follower") as caught:
        world.hospital("bern").follow()
    assert caught.value.where == f"entry {steward}/{kept.body.seq}"
    assert f"goes on with number {kept.body.seq + 1}" in caught.value.reason


@attack(
    name="coordinator shows a hospital nothing newer, to hide a withdrawal",
    exposed_by="the hospital's node",
    evidence="cosignatures older than max_age: no permission to touch data",
)
def test_a_log_that_stands_still_gives_no_permission(world: World) -> None:
    experiment, basel = asked(world)
    world.coordinator.hold_back(to=["basel"])  # the lie
    no = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset="basel-heart", reason="purpose"
    )
    world.federation.say(steward_of("basel"), no)
    assert basel.follow() == []
    (duty,) = basel.duties(late_ms=HOUR_MS + 1)
    assert isinstance(duty, Wait)
    assert duty.why == "the final checkpoint's cosignatures are too old to give permission"
    world.exposed("the hospital's node")
    assert not basel.register.view.used_by((experiment, "basel-heart"))  # no data was touched


@attack(
    name="coordinator stops the log's clock so that an approval never expires",
    exposed_by="the hospital's node",
    evidence="the log's time is behind its own clock by more than the policy's skew",
)
def test_a_log_whose_clock_stands_still_gives_no_permission(world: World) -> None:
    _, basel = asked(world)
    then = world.federation.now_ms
    world.federation.now_ms += HOUR_MS
    world.attack_begins()
    still = world.federation.entry(COORDINATOR, TimeNoted(type="time.noted"), at_ms=then)
    world.federation.take(still)  # the lie
    world.settle()
    assert basel.replica.final.size == basel.size  # witnessed, and fresh
    (duty,) = basel.duties()
    assert isinstance(duty, Wait)
    assert duty.why == "the log's time is behind this node's clock"
    world.exposed("the hospital's node")


@attack(
    name="coordinator lets the log's clock run ahead so that deadlines pass",
    exposed_by="every hospital's witness",
    evidence="no cosignature: nothing becomes final",
)
def test_a_log_whose_clock_runs_ahead_gets_no_cosignature(world: World) -> None:
    op = TimeNoted(type="time.noted")
    ahead = world.federation.entry(COORDINATOR, op, at_ms=world.federation.now_ms + HOUR_MS)
    world.federation.take(ahead)  # the lie
    for hospital in world.hospitals.values():
        hospital.follow()
        assert hospital.witness.due
        assert hospital.witness.cosign(hospital.now_ms) is None
    size = world.federation.log.size
    world.federation.finals.append(size)
    with world.caught(NotWitnessed, by="every hospital's witness") as caught:
        world.hospital("basel").follow()
    assert len(caught.value.missing) == 4
