"""A node under-reports its spend: reservation precedes use, settlements cannot go below use, and spend
belongs to cells of people, whatever their tables are called."""

from __future__ import annotations

import hashlib

import numpy as np

from ledger.entries.operations.budgets import BudgetReserved, BudgetSettled, Used
from ledger.entries.operations.datasets import CellLimit, CellRegistered, DatasetRegistered
from ledger.entries.operations.experiments import ExperimentStopped
from ledger.entries.operations.rounds import RoundClosed
from ledger.formats.value import replace
from ledger.rules.experiments import site_of, totals
from privacy.filters import limit_for
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import COORDINATOR, RESEARCHER, node_of

FOLD = "everybody's fold"


def seen_void(world: World, reason: str) -> None:
    """A hospital that verifies for itself comes to the same verdict."""
    assert world.hospital("bern").follow()[-1].outcome.void == reason
    world.exposed(FOLD)


@attack(
    name="a node settles for less than its updates used",
    exposed_by=FOLD,
    evidence="void: under_reported; the numbers in its own signed updates",
)
def test_a_settlement_below_use_is_void(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.play_round(experiment)
    stop = ExperimentStopped(type="experiment.stopped", experiment=experiment, reason="researcher")
    federation.say(RESEARCHER, stop)
    before = federation.state.cells["basel-all"].spend
    world.attack_begins()
    op = BudgetSettled(
        type="budget.settled",
        experiment=experiment,
        dataset="basel-heart",
        used=(),
        intents="0" * 64,
    )
    federation.say(node_of("basel"), op, void="under_reported")  # the lie
    seen_void(world, "under_reported")
    assert federation.state.cells["basel-all"].spend == before


@attack(
    name="a node states fewer steps in an update than its round takes",
    exposed_by=FOLD,
    evidence="void: under_reported; the plan's steps a round",
)
def test_an_update_that_states_too_few_steps_does_not_count(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.play_round(experiment)
    federation.open_round(experiment)
    honest = federation.update(experiment, "basel-heart")
    false = replace(honest, used=(Used(purpose="train", steps=1),))
    world.attack_begins()
    federation.say(node_of("basel"), false, void="under_reported")  # the lie
    seen_void(world, "under_reported")
    now = federation.experiment(experiment).round
    assert now is not None
    assert "basel-heart" not in now.updates


@attack(
    name="a node states more noise than it reserved",
    exposed_by=FOLD,
    evidence="void: over_reservation; the cell is charged for all of it",
)
def test_noise_beyond_the_reservation_is_charged_and_named_once(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.play_round(experiment)
    federation.open_round(experiment)
    before = federation.state.cells["basel-all"].spend
    false = replace(
        federation.update(experiment, "basel-heart"), used=(Used(purpose="train", steps=1000),)
    )
    world.attack_begins()
    federation.say(node_of("basel"), false, void="over_reservation")  # the lie
    seen_void(world, "over_reservation")
    assert federation.state.cells["basel-all"].spend.g > before.g
    world.settle()
    verdicts = world.audit(world.hospital("bern").directory)
    (place,) = {found for found in refuted(verdicts) if found[0] == 10}
    assert place[1] != "cell basel-all"  # the lanes are what its own words add up to
    assert "used 1000 steps of train, but reserved" in verdicts.best.refuted[0].detail


@attack(
    name="a node answers two attempts at a round with two vectors and states one",
    exposed_by=FOLD,
    evidence="void: under_reported; two signed entries that name two vectors",
)
def test_a_second_vector_for_a_round_is_charged(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    federation.open_round(experiment)
    for dataset in ("basel-heart", "bern-heart"):
        federation.reserve(experiment, dataset)
    federation.submit(experiment, "basel-heart")
    world.let_time_pass(federation.experiment(experiment).plan.round_timeout_ms + 1)
    closed = RoundClosed(
        type="round.closed", experiment=experiment, round=1, attempt=1, reason="quorum_missed"
    )
    federation.say(COORDINATOR, closed)
    federation.open_round(experiment)
    size = federation.experiment(experiment).plan.parameters
    other = federation.update(experiment, "basel-heart", np.ones(size, dtype=np.int64))
    world.attack_begins()
    federation.say(node_of("basel"), other, void="under_reported")  # the lie
    seen_void(world, "under_reported")
    held = federation.experiment(experiment).reservations["basel-heart"]
    assert dict(held.used) == {"train": 2}  # both vectors were shown: both are paid for


@attack(
    name="a node reserves less than the plan may spend",
    exposed_by=FOLD,
    evidence="void: charges_mismatch; the plan's own charges",
)
def test_a_reservation_below_the_plan_is_void(world: World) -> None:
    federation = world.federation
    experiment = world.experiment()
    site = site_of(federation.experiment(experiment).plan, "basel-heart")
    assert site is not None
    (charge,) = totals(site.releases)
    op = BudgetReserved(
        type="budget.reserved",
        experiment=experiment,
        dataset="basel-heart",
        charges=(replace(charge, g=charge.g - 1),),
    )
    federation.say(node_of("basel"), op, void="charges_mismatch")  # the lie
    seen_void(world, "charges_mismatch")


def exhausted(world: World) -> DatasetRegistered:
    """Basel's cell has spent 4 of its 5; returns its dataset's registration."""
    experiment = world.experiment(epsilon="4")
    world.federation.reserve(experiment, "basel-heart")
    world.settle()
    world.attack_begins()
    return world.federation.state.datasets["basel-heart"].terms


@attack(
    name="a node registers the same table again, to have its budget anew",
    exposed_by=FOLD,
    evidence="void: budget_exhausted; the cell's spend under the new registration",
)
def test_a_dataset_registered_anew_inherits_its_spend(world: World) -> None:
    terms = exhausted(world)
    again = replace(terms, snapshot=hashlib.sha256(b"again").hexdigest())
    world.federation.say(node_of("basel"), again)  # the lie
    second = world.experiment(epsilon="4", name="second")
    world.federation.reserve(second, "basel-heart", void="budget_exhausted")
    seen_void(world, "budget_exhausted")


@attack(
    name="a node registers the same patients under another table's name",
    exposed_by=FOLD,
    evidence="void: budget_exhausted; the cell that both tables name",
)
def test_a_renamed_dataset_inherits_its_cells_spend(world: World) -> None:
    exhausted(world)
    federation = world.federation
    federation.register_dataset("basel", "basel-renamed")  # the lie
    names = ["basel-renamed", "bern-heart"]
    second = federation.propose(federation.spec(names, name="second", epsilon="4"))
    for name in names:
        federation.approve(second, name)
    federation.reserve(second, "basel-renamed", void="budget_exhausted")
    seen_void(world, "budget_exhausted")


@attack(
    name="a node promises a cell anew under its old name",
    exposed_by=FOLD,
    evidence="void: cell_exists; a promise is made once and for ever",
)
def test_a_cells_promise_is_not_made_twice(world: World) -> None:
    exhausted(world)
    terms = world.federation.state.cells["basel-all"].terms
    again = replace(terms, epsilon_micro=50_000_000)
    world.federation.say(node_of("basel"), again, void="cell_exists")  # the lie
    seen_void(world, "cell_exists")


@attack(
    name="a node promises the same patients a second cell under another name",
    exposed_by=FOLD,
    evidence="void: cell_exists; that block and half have a promise",
)
def test_the_same_patients_get_no_second_cell(world: World) -> None:
    exhausted(world)
    terms = world.federation.state.cells["basel-all"].terms
    world.federation.say(
        node_of("basel"), replace(terms, cell="basel-too"), void="cell_exists"
    )  # the lie
    seen_void(world, "cell_exists")


@attack(
    name="a node states gates for a cell that admit more than its promise",
    exposed_by="a sceptic with any copy",
    evidence="the gates that the promise gives, recomputed",
)
def test_gates_beyond_the_promise_are_refuted(world: World) -> None:
    promised, stated = limit_for(1.0, 1e-5), limit_for(8.0, 1e-5)
    op = CellRegistered(
        type="cell.registered",
        cell="chur-all",
        block="all",
        half="both",
        declared_patients=300,
        epsilon_micro=1_000_000,
        delta_e15=10**10,
        limit=CellLimit(g_max=stated.g_max, r_max=stated.r_max, order_centi=promised.order_centi),
    )
    world.hospital("chur").say(op)  # the lie
    world.settle()
    verdicts = world.audit(world.hospital("bern").directory)
    assert refuted(verdicts) == [(11, "cell chur-all")]
    assert "admit more than the promise" in verdicts.best.refuted[0].detail
    world.exposed("a sceptic with any copy")
