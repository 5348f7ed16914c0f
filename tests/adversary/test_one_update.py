"""The coordinator looks into one hospital's update: noise at the source, judged before it is made, and
nobody else is shown an update."""

from __future__ import annotations

import pytest

from coordinator.errors import AccessDenied
from coordinator.http.access import may_read
from coordinator.sequencing.history import History
from ledger.entries.operations.experiments import ExperimentProposed
from ledger.entries.operations.plans import Release
from ledger.formats.value import replace
from ledger.rules.log import Log
from node.duties.duty import Refuse
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import RESEARCHER, node_of, steward_of


def with_site(op: ExperimentProposed, **changes: object) -> ExperimentProposed:
    """The proposal with other terms for its first site."""
    first, *others = op.plan.sites
    sites = (replace(first, **changes), *others)
    return replace(op, plan=replace(op.plan, sites=sites))


def with_release(op: ExperimentProposed, **changes: object) -> ExperimentProposed:
    """The proposal with another first release at its first site."""
    first: Release
    first, *others = op.plan.sites[0].releases
    return with_site(op, releases=(replace(first, **changes), *others))


def proposal(world: World) -> ExperimentProposed:
    """An honest proposal on two datasets that are registered."""
    names = [world.federation.register_dataset(name) for name in ("basel", "bern")]
    world.settle()
    for name in ("basel", "bern"):
        world.hospital(name).own(f"{name}-heart")
    world.attack_begins()
    return world.federation.proposal(world.federation.spec(names))


@attack(
    name="researcher and coordinator plan noise that is too small for its charge",
    exposed_by="everybody's fold",
    evidence="void: plan_invalid; the charge of a step follows from its noise",
)
def test_a_plan_that_undercharges_is_void(world: World) -> None:
    op = proposal(world)
    noise = op.plan.sites[0].releases[0].noise_sd
    false = with_release(op, noise_sd=noise - 1 - noise // 100)
    world.federation.say(RESEARCHER, false, void="plan_invalid")  # the lie
    assert world.hospital("basel").follow()[-1].outcome.void == "plan_invalid"
    world.exposed("everybody's fold")
    assert not world.federation.state.experiments


@attack(
    name="researcher states a smaller epsilon than the plan costs",
    exposed_by="the hospital's node",
    evidence="the plan recompiled from its specification: another epsilon",
)
def test_a_plan_that_understates_its_epsilon_is_refused(world: World) -> None:
    federation, basel = world.federation, world.hospital("basel")
    op = proposal(world)
    honest = op.plan.sites[0].epsilon_micro
    said = federation.say(RESEARCHER, with_site(op, epsilon_micro=honest // 10))  # the lie
    experiment = said.entry.hash
    for name in ("basel", "bern"):
        federation.approve(experiment, f"{name}-heart", epsilon_max=0.2)
    world.open_round(experiment, "basel-heart", "bern-heart")
    world.settle()
    found = basel.check_plan(experiment)
    assert found.refused is not None
    assert "epsilon" in found.refused.where + found.refused.reason
    assert basel.duties() == (Refuse(experiment, "basel-heart", "plan_mismatch"),)
    world.exposed("the hospital's node")
    home = world.coordinator.write(world.directory / "hub")
    assert refuted(world.audit(home)) == [(9, f"entry {said.index} (first)")]


@attack(
    name="others ask for one hospital's update",
    exposed_by="the coordinator",
    evidence="the table of who may read which blob",
)
def test_an_update_is_shown_to_nobody_else(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.open_round(experiment)
    federation.reserve(experiment, "basel-heart")
    federation.submit(experiment, "basel-heart")
    history, log = History(), Log()
    for leaf in federation.leaves:
        history.observe(log.append(log.judge(leaf)))
    current = federation.experiment(experiment).round
    assert current is not None
    update = current.updates["basel-heart"].blob.sha256
    world.attack_begins()
    for reader in (node_of("bern"), steward_of("basel"), steward_of("bern"), RESEARCHER):
        world.coordinator.messages += 1
        with pytest.raises(AccessDenied, match="an update is for the node that made it") as caught:
            may_read(federation.state, history, reader, update)
        assert caught.value.where == f"blob {update[:12]}"
        world.exposed("the coordinator")
    assert may_read(federation.state, history, node_of("basel"), update).log_as == ()
