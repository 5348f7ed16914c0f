"""A spent budget is charged with a number that is none."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from ledger.entries.entry import frame_leaf
from ledger.entries.operations.budgets import BudgetReserved
from ledger.entries.operations.datasets import CellCharge
from ledger.errors import MalformedInput
from ledger.formats.value import replace
from ledger.rules.experiments import totals
from node.data import registration
from node.errors import RegistrationRefused
from node.register.private import PrivateRegister
from privacy.errors import InvalidEvent, InvalidParameter
from privacy.events import Gaussian
from privacy.filters import Charge, Spend, limit_for
from tests.adversary.registry import attack
from tests.adversary.ward import DOOR, KEY, TABLE, Table, Ward, patients
from tests.adversary.world import World
from tests.federation import RESEARCHER, node_of

pytestmark = pytest.mark.usefixtures("quick_keys")

LITERALS = (
    "NaN", "Infinity", "-Infinity", "-1", "-0", "0.0", "1.0", "0.5", "4.9e-324", "1e-400", "1e400",
    "1e3", "9007199254740993", "true", "null", '"7"', "[7]",
)  # fmt: skip
"""What JSON readers here and there would take for a small charge, or for none."""


@attack(
    name="a hospital signs a reservation whose charge is no natural number",
    exposed_by=DOOR,
    evidence="its signed bytes, which are no entry",
)
def test_a_charge_that_is_no_natural_number_never_enters_the_log(world: World) -> None:
    experiment = world.experiment()
    (charge,) = totals(world.federation.experiment(experiment).plan.sites[0].releases)
    op = BudgetReserved(
        type="budget.reserved", experiment=experiment, dataset=TABLE, charges=(charge,)
    )
    honest = world.federation.entry(node_of("basel"), op)
    ring = world.federation.rings[node_of("basel")]
    size = world.federation.log.size
    for literal in LITERALS:
        false = honest.raw.replace(b'"g":%d' % charge.g, b'"g":' + literal.encode())
        assert false != honest.raw
        leaf = frame_leaf(false, ring.entry.sign("entry", false))
        with world.caught(MalformedInput, by=DOOR):
            world.coordinator.submit(leaf)  # the lie
        assert world.federation.log.size == size
        world.coordinator.lie([*world.federation.leaves, leaf])  # nor with the coordinator's help
        with world.caught(MalformedInput, by="every follower"):
            world.hospital("bern").follow()


@attack(
    name="a hospital reserves nothing for a plan that costs something",
    exposed_by="everybody's fold",
    evidence="void: charges_mismatch; the plan's own charges",
)
def test_a_charge_of_zero_is_not_the_plans(world: World) -> None:
    experiment = world.experiment()
    (charge,) = totals(world.federation.experiment(experiment).plan.sites[0].releases)
    for none in (replace(charge, g=0), replace(charge, g=0, r=0)):
        op = BudgetReserved(
            type="budget.reserved", experiment=experiment, dataset=TABLE, charges=(none,)
        )
        world.federation.say(node_of("basel"), op, void="charges_mismatch")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "charges_mismatch"
    world.exposed("everybody's fold")
    assert world.federation.state.cells["basel-all"].spend == Spend()


@attack(
    name="researcher proposes a plan that charges next to nothing for its noise",
    exposed_by="everybody's fold",
    evidence="void: plan_invalid; the charge that the noise implies, in integers",
)
def test_a_plan_that_charges_too_little_is_void(world: World) -> None:
    federation = world.federation
    world.experiment()
    said = federation.proposal(federation.spec([TABLE, "bern-heart"], name="cheap"))
    first, *others = said.plan.sites
    cheap = tuple(
        replace(release, charges=tuple(replace(c, g=1, r=1) for c in release.charges))
        for release in first.releases
    )
    plan = replace(said.plan, sites=(replace(first, releases=cheap), *others))
    cheaper = replace(said, plan=plan)
    federation.say(RESEARCHER, cheaper, void="plan_invalid")  # the lie
    assert world.hospital("bern").follow()[-1].outcome.void == "plan_invalid"
    world.exposed("everybody's fold")


NUMBERS = (math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 5e-324, 1e-300)


@pytest.mark.parametrize("number", NUMBERS)
def test_no_number_of_that_kind_is_a_charge_a_noise_or_a_promise(
    number: float, tmp_path: Path
) -> None:
    for make in (
        lambda: Charge(number, 0),  # type: ignore[arg-type]
        lambda: Charge(0, number),  # type: ignore[arg-type]
        lambda: Spend(number, 0),  # type: ignore[arg-type]
        lambda: Gaussian(number, 1),  # type: ignore[arg-type]
        lambda: Gaussian(1, number),  # type: ignore[arg-type]
        lambda: Gaussian(1, 1, number),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidEvent, match="an integer in"):
            make()
    with pytest.raises(InvalidEvent, match="an integer in"):
        Charge(True, 0)
    with pytest.raises(InvalidParameter):
        limit_for(number, 1e-5)
    with pytest.raises(InvalidParameter):
        limit_for(1.0, number)
    table = Table(patients(0, 300))
    for given in ({"epsilon": number}, {"epsilon": 5.0, "delta": number}):
        with pytest.raises(RegistrationRefused, match=re.escape(TABLE)):
            registration.prepare(
                table.write(tmp_path),
                table.schema,
                organisation="basel",
                hospital_key=KEY,
                cells=PrivateRegister.open(tmp_path / "private.db").view.cells,
                **given,
            )


def test_the_register_charges_no_such_number_either(ward: Ward) -> None:
    register, cell = ward.basel.register, min(ward.cells)
    for number in (*NUMBERS, -7, 2**300 + 1):
        false = [replace(CellCharge(cell=cell, g=0, r=0), g=number)]  # type: ignore[arg-type]
        with pytest.raises(InvalidEvent, match="an integer in"):
            register.reserve("f", "e" * 64, TABLE, false)
        with pytest.raises(InvalidEvent, match="an integer in"):
            register.adopt("f", "d" * 64, TABLE, false)
        with pytest.raises(InvalidEvent, match="an integer in"):
            register.settle(ward.first, TABLE, false)
        assert ward.spends() == ward.spend
