"""A hospital that accounts for its patients one by one restores a backup to give them something back."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from immutables import Map

from ledger.entries.operations.experiments import ExperimentStopped
from ledger.entries.operations.succession import Predecessor
from ledger.entries.operations.values import BlobRef
from ledger.exchange.home import LEDGER, MEMBER, PREDECESSORS, MemberConfig
from ledger.formats.strict import canonical
from ledger.rules.experiments import site_of
from ledger.rules.state import State, Succession, replace
from node.data.patient_spend import Allowance, PatientSpend, members_of
from node.duties.duty import Adopt, Refuse, Send, Settle
from node.duties.individual import PatientAccounts, steps_of_patients
from node.duties.predecessors import account_for_predecessors
from node.register.accounts import Key
from node.register.individual import LIFETIME, open_spend
from tests.adversary.hospital import Hospital
from tests.adversary.registry import attack
from tests.adversary.test_masked_rounds import given_up
from tests.adversary.world import World
from tests.federation import HOSPITALS, RESEARCHER
from tests.masked import MaskedRound
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


def play(world: World, key: Key, number: int, costs: list[int], *, submit: bool = True) -> None:
    """A round at basel that cost its patients so much; its update is in the log."""
    register = world.hospital("basel").register
    register.record_intent(*key, "train", round_number=number, steps=1, at_ms=1)
    cost = PatientSpend(PEOPLE, np.array(costs))
    PatientAccounts(register, KEY).recorder(key, number)(cost.encode())
    if number == 1 and submit:
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


def test_a_masked_round_that_begins_anew_costs_no_patient_anything_again(world: World) -> None:
    """With full noise at each hospital the same vector goes out again, under new masks."""
    register_one_by_one(world.federation, "basel")
    experiment = world.experiment(
        HOSPITALS, quorum=3, secure_aggregation=True, privacy=STRETCHED, rounds=6
    )
    key, basel = (experiment, "basel-heart"), world.hospital("basel")
    masked = MaskedRound(world.federation, experiment).until("mask")
    world.settle()
    basel.check_plan(experiment)
    basel.reserve(*key)
    step, _ = step_of(world, key)
    play(world, key, 1, [step, 7, 0], submit=False)
    basel.register.outbox.store(*key, 1, BlobRef(sha256="a" * 64, bytes=1))
    first = masked.masking.context
    basel.register.outbox.keep_masks(*key, first, b"sealed")
    assert [type(duty) for duty in basel.duties()] == [Send]
    masked.until("unmask")
    given_up(masked)
    again = MaskedRound(world.federation, experiment).until("mask")
    world.settle()
    assert again.masking.context != first
    basel.register.outbox.keep_masks(*key, again.masking.context, b"sealed again")
    found = [duty for duty in basel.duties() if getattr(duty, "experiment", "") == experiment]
    assert found == [Send(*key, 1, 2)], "the vector that was made and paid for, and no other"
    assert spent(basel) == [step, 7, 0]
    assert basel.register.view.used_by(key) == Map({"train": 1})


def succeeded(world: World, home: Path, *, keep: bool) -> State:
    """A log that took over from the world's, as basel's home has it, with or without its copy of the old one."""
    basel = world.hospital("basel")
    if keep:
        kept = home / PREDECESSORS / "old"
        kept.mkdir(parents=True)
        shutil.copy(basel.directory / "ledger.db", kept / LEDGER)
        config = MemberConfig(
            consilium=1,
            federation=world.federation.id,
            url="https://gone.example.org",
            handle=basel.handle,
            role="node",
            organisation="basel",
        )
        (kept / MEMBER).write_bytes(canonical(config))
    before = Predecessor(federation=world.federation.id, size=1, root="0" * 64, state="0" * 64)
    carried = Succession(before, (), 0, (), "")
    return replace(basel.replica.state, federation="e" * 64, succession=carried, experiments=Map())


@attack(
    name="a node restores a backup from before a succession, of whose rounds the new log says nothing",
    exposed_by="the node's own software",
    evidence="the home's copy of the log before",
)
@pytest.mark.parametrize("keep", [True, False], ids=["with the old copy", "without it"])
def test_a_log_that_took_over_forgets_no_patient(world: World, reserved: Key, keep: bool) -> None:
    basel, home = world.hospital("basel"), world.directory / "home"
    step, _ = step_of(world, reserved)
    backup = basel.back_up(world.directory / "backup")
    play(world, reserved, 1, [step, 7, 0])
    basel.follow()
    truth = spent(basel)
    state = succeeded(world, home, keep=keep)
    everything = [basel.register.view.cells[CELL].limit.g_max] * 3

    def start() -> list[int]:
        account_for_predecessors(home, state, basel.handle, basel.register, 1)
        return spent(basel)

    honest = start()
    assert honest == (
        truth if keep else [one + g for one, g in zip(truth, everything, strict=True)]
    )
    assert start() == honest
    basel.restore(backup)  # the lie
    world.attack_begins()
    found = start()
    assert found == ([step] * 3 if keep else everything)  # the round that the old copy names
    assert all(kept >= true for kept, true in zip(found, truth, strict=True))
    assert start() == found
    world.exposed("the node's own software")


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
