"""The coordinator opens an unapproved or over-budget round: the node refuses by itself, and no log that
a coordinator can make says otherwise."""

from __future__ import annotations

from ledger.entries.operations.budgets import BudgetRefused, BudgetReserved
from ledger.entries.operations.datasets import DatasetWithdrawn
from ledger.entries.operations.experiments import ExperimentRefused
from ledger.entries.operations.rounds import RoundAggregated
from ledger.errors import BadSignature
from ledger.formats.value import replace
from ledger.rules.experiments import site_of, totals
from node.duties.duty import CheckPlan, Refuse, Reserve
from tests.adversary.coordinator import resigned
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import COORDINATOR, node_of, steward_of

NODE = "the hospital's node"


def reservation(world: World, experiment: str, dataset: str) -> BudgetReserved:
    """What the dataset's node would say."""
    site = site_of(world.federation.experiment(experiment).plan, dataset)
    assert site is not None
    return BudgetReserved(
        type="budget.reserved",
        experiment=experiment,
        dataset=dataset,
        charges=totals(site.releases),
    )


@attack(
    name="coordinator opens a round that the hospital's steward did not approve",
    exposed_by=NODE,
    evidence="its own fold has no approval; budget.refused(not_approved), signed",
)
def test_an_unapproved_round_is_refused_by_the_node(world: World) -> None:
    experiment = world.experiment(approved_by=["bern"])
    world.open_round(experiment, "basel-heart", "bern-heart")  # the lie
    world.settle()
    basel = world.hospital("basel")
    assert basel.duties() == (Refuse(experiment, "basel-heart", "not_approved"),)
    world.exposed(NODE)
    op = BudgetRefused(
        type="budget.refused", experiment=experiment, dataset="basel-heart", reason="not_approved"
    )
    assert basel.say(op).applied
    world.federation.reserve(experiment, "basel-heart", void="not_approved")  # not even if it would


@attack(
    name="coordinator shows an approval of its own making with an unapproved round",
    exposed_by=NODE,
    evidence="a signature that is not the steward's",
)
def test_a_made_up_approval_moves_no_node(world: World) -> None:
    experiment = world.experiment(approved_by=["bern"])
    entry = world.federation.entry(steward_of("basel"), world.approval(experiment, "basel"))
    hub = world.federation.rings[COORDINATOR].entry
    world.coordinator.lie([*world.federation.leaves, resigned(entry, hub)], to=["basel"])
    basel = world.hospital("basel")
    with world.caught(BadSignature, by=NODE):
        basel.follow()
    assert not basel.replica.state.experiments[experiment].approvals.get("basel-heart")
    assert basel.duties() == ()


@attack(
    name="coordinator approves in its own name",
    exposed_by="everybody's fold",
    evidence="void: not_permitted",
)
def test_a_coordinator_approves_nothing(world: World) -> None:
    experiment = world.experiment(approved_by=["bern"])
    op = world.approval(experiment, "basel")
    world.federation.say(COORDINATOR, op, void="not_permitted")  # the lie
    assert world.hospital("basel").follow()[-1].outcome.void == "not_permitted"
    world.exposed("everybody's fold")


@attack(
    name="another hospital's steward approves for this one",
    exposed_by="everybody's fold",
    evidence="void: not_owner",
)
def test_a_steward_speaks_for_its_own_hospital_only(world: World) -> None:
    experiment = world.experiment(approved_by=["bern"])
    op = world.approval(experiment, "basel")
    world.federation.say(steward_of("bern"), op, void="not_owner")  # the lie
    assert world.hospital("basel").follow()[-1].outcome.void == "not_owner"
    world.exposed("everybody's fold")


@attack(
    name="coordinator opens a round that a cell cannot pay for",
    exposed_by=NODE,
    evidence="its own register; budget.refused(budget_exhausted), signed",
)
def test_an_over_budget_round_is_refused_by_the_node(world: World) -> None:
    basel = world.hospital("basel")
    first = world.experiment(epsilon="4")
    world.open_round(first, "basel-heart", "bern-heart")
    basel.follow()
    basel.reserve(first, "basel-heart")
    world.federation.reserve(first, "basel-heart")
    spent = world.federation.state.cells["basel-all"].spend

    second = world.experiment(epsilon="4", name="second")
    world.open_round(second, "basel-heart", "bern-heart")  # the lie
    world.settle()
    basel.check_plan(second)
    refusals = [duty for duty in basel.duties() if getattr(duty, "experiment", "") == second]
    assert refusals == [Refuse(second, "basel-heart", "budget_exhausted")]
    world.exposed(NODE)
    # Not even a node that would pay can: the fold's filter is the same for everybody.
    world.federation.reserve(second, "basel-heart", void="budget_exhausted")
    assert world.federation.state.cells["basel-all"].spend == spent


@attack(
    name="coordinator reserves and answers in the node's place",
    exposed_by="everybody's fold",
    evidence="void: not_permitted, then not_reserved",
)
def test_a_coordinator_reserves_nothing_for_a_node(world: World) -> None:
    experiment = world.experiment()
    world.open_round(experiment, "basel-heart", "bern-heart")
    basel = world.hospital("basel")
    basel.follow()
    assert basel.duties() == (CheckPlan(experiment),)
    world.attack_begins()
    op = reservation(world, experiment, "basel-heart")
    world.federation.say(COORDINATOR, op, void="not_permitted")  # the lie
    assert basel.follow()[-1].outcome.void == "not_permitted"
    world.exposed("everybody's fold")
    op = reservation(world, experiment, "basel-heart")
    world.federation.say(node_of("bern"), op, void="not_owner")
    world.federation.reserve(experiment, "bern-heart")
    update = world.federation.update(experiment, "bern-heart")
    false = replace(update, dataset="basel-heart")
    world.federation.say(node_of("basel"), false, void="not_reserved")
    basel.follow()
    basel.check_plan(experiment)
    (duty,) = basel.duties()
    assert isinstance(duty, Reserve)  # it still begins at the beginning, by itself


@attack(
    name="coordinator counts an update that came after its steward took the approval back",
    exposed_by="everybody's fold",
    evidence="void: not_approved; the refusal's index is below the update's",
)
def test_an_update_after_a_refusal_does_not_count(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.open_round(experiment)
    for dataset in ("basel-heart", "bern-heart"):
        federation.reserve(experiment, dataset)
    no = ExperimentRefused(
        type="experiment.refused", experiment=experiment, dataset="basel-heart", reason="purpose"
    )
    federation.say(steward_of("basel"), no)
    world.attack_begins()
    op = federation.update(experiment, "basel-heart")
    federation.say(node_of("basel"), op, void="not_approved")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "not_approved"
    world.exposed("everybody's fold")
    federation.submit(experiment, "bern-heart")
    both = tuple(sorted(e.hash for e in federation.entries()[-2:]))
    aggregated = RoundAggregated(
        type="round.aggregated",
        experiment=experiment,
        round=1,
        attempt=1,
        updates=both,
        aggregate=op.update,
        model=federation.experiment(experiment).model,
    )
    federation.say(COORDINATOR, aggregated, void="updates_mismatch")
    held = federation.experiment(experiment).reservations["basel-heart"]
    assert dict(held.used) == {"train": 1}  # its noise may have been used: it stays charged


@attack(
    name="coordinator counts an update of a withdrawn dataset",
    exposed_by="everybody's fold",
    evidence="void: dataset_withdrawn",
)
def test_an_update_of_a_withdrawn_dataset_does_not_count(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.open_round(experiment)
    federation.reserve(experiment, "basel-heart")
    gone = DatasetWithdrawn(type="dataset.withdrawn", dataset="basel-heart", reason="consent")
    federation.say(steward_of("basel"), gone)
    world.attack_begins()
    op = federation.update(experiment, "basel-heart")
    federation.say(node_of("basel"), op, void="dataset_withdrawn")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "dataset_withdrawn"
    world.exposed("everybody's fold")
    now = federation.experiment(experiment).round
    assert now is not None
    assert not now.updates
