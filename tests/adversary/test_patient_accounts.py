"""A hospital that accounts for its patients one by one restores a backup to give them something back."""

from __future__ import annotations

import numpy as np
import pytest

from ledger.entries.operations.experiments import ExperimentStopped
from ledger.rules.experiments import site_of
from node.data.patient_spend import Allowance, PatientSpend, members_of
from node.duties.duty import Adopt, Refuse, Settle
from node.duties.individual import PatientAccounts, steps_of_patients
from node.register.accounts import Key
from node.register.individual import LIFETIME, open_spend
from tests.adversary.hospital import Hospital
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import RESEARCHER
from tests.one_by_one import STRETCHED, register_one_by_one

KEY = bytes(range(32))
CELL = "basel-train"
PEOPLE = members_of([bytes([number]) * 32 for number in (1, 2, 3)])


@pytest.fixture
def reserved(world: World) -> Key:
    """Basel, which has accounts for its patients, reserved for an experiment of six rounds."""
    register_one_by_one(world.federation, "basel")
    world.settle()
    return begin(world, "first")


def begin(world: World, name: str) -> Key:
    experiment = world.experiment(name=name, privacy=STRETCHED, rounds=6)
    basel, key = world.hospital("basel"), (experiment, "basel-heart")
    world.open_round(experiment, "basel-heart", "bern-heart")
    world.settle()
    basel.check_plan(experiment)
    basel.reserve(*key)
    world.federation.reserve(*key)
    world.settle()
    return key


def play(world: World, key: Key, number: int, costs: list[int]) -> None:
    """A round at basel that cost its patients so much; its update is in the log."""
    register = world.hospital("basel").register
    register.record_intent(*key, "train", round_number=number, steps=1, at_ms=1)
    cost = PatientSpend(PEOPLE, np.array(costs))
    PatientAccounts(register, KEY).recorder(key, number)(cost.encode())
    if number == 1:
        world.federation.submit(*key)
        world.settle()


def spent(hospital: Hospital) -> list[int]:
    """The most that each patient's account says."""
    record = open_spend(KEY, LIFETIME, hospital.register.patients.record_of(LIFETIME))
    base = hospital.register.view.cells[CELL].spend.g
    return (record.spent_by(PEOPLE) + base).tolist()


def step_of(world: World, key: Key) -> tuple[int, int]:
    """What one round, and all of them, may cost a patient."""
    site = site_of(world.federation.experiment(key[0]).plan, key[1])
    assert site is not None
    train = next(release for release in site.releases if release.purpose == "train")
    return steps_of_patients(site)[CELL], train.charges[0].g


@attack(
    name="a node restores a backup so that patients' own accounts forget a round",
    exposed_by="the node's own software",
    evidence="an update in the log that the register knows no intent of",
)
def test_a_restored_register_charges_every_patient_for_what_it_forgot(
    world: World, reserved: Key
) -> None:
    basel = world.hospital("basel")
    step, most = step_of(world, reserved)
    backup = basel.back_up(world.directory / "backup")
    play(world, reserved, 1, [step, 7, 0])
    truth = spent(basel)
    assert truth == [step, 7, 0]
    basel.restore(backup)  # the lie
    world.attack_begins()
    basel.follow()
    assert spent(basel) == [0, 0, 0]
    (adopt,) = [d for d in basel.duties() if getattr(d, "experiment", "") == reserved[0]]
    assert isinstance(adopt, Adopt)
    world.exposed("the node's own software")
    basel.register.adopt(basel.replica.federation, *reserved, adopt.charges)
    assert spent(basel) == [most] * 3  # whoever it was: all that the experiment may cost
    assert [d for d in basel.duties() if getattr(d, "experiment", "") == reserved[0]] == []
    stop = ExperimentStopped(type="experiment.stopped", experiment=reserved[0], reason="researcher")
    world.federation.say(RESEARCHER, stop)
    world.settle()
    (settle,) = [d for d in basel.duties() if getattr(d, "experiment", "") == reserved[0]]
    assert isinstance(settle, Settle)
    basel.register.settle(*reserved, (), settle.used)
    assert spent(basel) == [most] * 3


@attack(
    name="a node restores a backup from before its patients' accounts began",
    exposed_by="the node's own software",
    evidence="a reservation in the log that the register cannot account for",
)
def test_a_reservation_that_the_accounts_forgot_is_charged_to_everybody(world: World) -> None:
    register_one_by_one(world.federation, "basel")
    world.settle()
    basel = world.hospital("basel")
    basel.own("basel-heart")
    backup = basel.back_up(world.directory / "backup")
    key = begin(world, "first")
    _, most = step_of(world, key)
    basel.restore(backup)  # the lie
    world.attack_begins()
    basel.follow()
    (adopt,) = [d for d in basel.duties() if getattr(d, "experiment", "") == key[0]]
    assert isinstance(adopt, Adopt)
    world.exposed("the node's own software")
    basel.register.adopt(basel.replica.federation, *key, adopt.charges)
    assert spent(basel) == [most] * 3
    assert [d for d in basel.duties() if getattr(d, "experiment", "") == key[0]] == [
        Refuse(*key, "unavailable")
    ]


def test_a_second_experiment_beside_the_first_finds_what_that_one_left(
    world: World, reserved: Key
) -> None:
    basel = world.hospital("basel")
    step, _ = step_of(world, reserved)
    play(world, reserved, 1, [step, 7, 0])
    other = begin(world, "second")
    left = Allowance.decode(PatientAccounts(basel.register, KEY).allowance(other))
    limit = basel.register.view.cells[CELL].limit.g_max
    assert (left.promise - left.lifetime.spent_by(PEOPLE)).tolist() == [
        limit - step,
        limit - 7,
        limit,
    ]
    play(world, other, 2, [5, 5, 5])
    assert spent(basel) == [step + 5, 12, 5]
