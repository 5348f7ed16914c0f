"""A spent budget is looked for in an older register or an older entry."""

from __future__ import annotations

import pytest
from immutables import Map

from ledger.entries.operations.budgets import BudgetSettled
from ledger.entries.operations.experiments import ExperimentStopped
from ledger.entries.operations.statistics import StatisticsReleased, StatisticsReserved
from ledger.experiment.statistics import charges_of
from node.duties.duty import Adopt
from node.duties.told import account_for_told
from tests.adversary.registry import attack
from tests.adversary.ward import NODE, TABLE, Table, Ward
from tests.adversary.world import World
from tests.federation import RESEARCHER, node_of, steward_of

pytestmark = pytest.mark.usefixtures("quick_keys")


@attack(
    name="a hospital restores the register of before its spend, and asks again",
    exposed_by=NODE,
    evidence="the reservation in the log, which the register adopts before anything else",
)
def test_a_restored_backup_does_not_refund(world: World) -> None:
    empty = world.hospital("basel").back_up(world.directory / "backup")
    ward = Ward(world)
    dataset = ward.basel.register.view.datasets[TABLE]
    ward.basel.restore(empty)  # the lie: not even the cells are known
    ward.basel.follow()
    state = world.federation.state
    assert not ward.basel.register.view.cells
    (adopt,) = (d for d in ward.basel.duties() if getattr(d, "experiment", "") == ward.first)
    assert isinstance(adopt, Adopt)
    ward.basel.register.adopt(state.federation, ward.first, TABLE, adopt.charges)
    ward.register(Table(ward.rows), epsilon=5.0)  # nor can it promise them anew
    assert ward.spends() == ward.spend
    assert ward.basel.register.view.datasets[TABLE].registration != dataset.registration
    ward.refuses(ward.ask(TABLE), TABLE)


@attack(
    name="a hospital restores the register of before the statistics that it told, to tell more",
    exposed_by=NODE,
    evidence="the release in the log, which the register adopts before anything else",
)
def test_a_restored_backup_does_not_refund_statistics(ward: Ward) -> None:
    federation, basel = ward.world.federation, ward.basel
    backup = basel.back_up(ward.world.directory / "backup")
    cells = {"basel-train": federation.state.cells["basel-train"].terms}
    op = StatisticsReserved(
        type="statistics.reserved",
        dataset=TABLE,
        registration=federation.state.datasets[TABLE].registration,
        question=federation.put(b"{}"),
        size=4,
        sensitivity=2**20,
        noise_sd=2**23,
        pure=(),
        charges=charges_of(cells, 2**20, 2**23),
    )
    identity = federation.say(steward_of("basel"), op).entry.hash
    basel.register.reserve(federation.id, identity, TABLE, op.charges)
    told = StatisticsReleased(
        type="statistics.released", reservation=identity, result=federation.put(b"numbers")
    )
    federation.say(node_of("basel"), told)
    ward.world.settle()
    spent = ward.spends()
    assert spent["basel-train"].g > ward.spend["basel-train"].g
    basel.restore(backup)  # the lie
    basel.follow()
    first = basel.duties()[0]
    assert first == Adopt(identity, TABLE, op.charges, Map())
    ward.world.exposed(NODE)
    account_for_told(federation.state, node_of("basel"), basel.register)
    assert ward.spends() == spent
    assert not any(isinstance(duty, Adopt) for duty in basel.duties())


@attack(
    name="a hospital says its reservation or its settlement twice",
    exposed_by="everybody's fold",
    evidence="void: already_reserved, settled; the register does each once",
)
def test_a_charge_counts_once_and_is_given_back_once(ward: Ward) -> None:
    federation, basel = ward.world.federation, ward.basel
    basel.reserve(ward.first, TABLE)  # the lie: the same charge again
    assert ward.spends() == ward.spend
    federation.reserve(ward.first, TABLE, void="already_reserved")
    ward.world.exposed("everybody's fold")
    basel.follow()
    held = basel.replica.state.experiments[ward.first].reservations[TABLE]
    basel.register.adopt(federation.id, ward.first, TABLE, held.charges)
    assert ward.spends() == ward.spend
    stop = ExperimentStopped(type="experiment.stopped", experiment=ward.first, reason="researcher")
    federation.say(RESEARCHER, stop)
    back = BudgetSettled(
        type="budget.settled", experiment=ward.first, dataset=TABLE, used=(), intents="0" * 64
    )
    federation.say(node_of("basel"), back)
    basel.register.settle(ward.first, TABLE, held.charges)
    assert {spend.g for spend in ward.spends().values()} == {0}
    federation.say(node_of("basel"), back, void="settled")  # the lie: the refund again
    basel.register.settle(ward.first, TABLE, held.charges)
    assert {(spend.g, spend.r) for spend in ward.spends().values()} == {(0, 0)}
