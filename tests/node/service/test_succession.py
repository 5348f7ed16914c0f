"""A federation whose log cannot go on: another one takes over, and its hospitals go on with their promises."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from coordinator.succeed import found_successor, propose_successor
from ledger.copies.succession import SuccessionFile, check_successor, endorse
from ledger.entries.entry import federation_id, parse_leaf
from ledger.errors import StoreUnusable, SuccessionRefused
from ledger.exchange.home import LEDGER, MEMBER, MemberHome
from ledger.formats.key_file import load_keyring
from tests.node.service.played import Misbehaving, finish, start
from tests.node.town import PASSPHRASE, Town, small_spec


def succeed(town: Town, name: str = "heir") -> SuccessionFile:
    """The steward of bern stands behind a new log; the old coordinator is gone."""
    steward = town.people["bern-steward"]
    proposal = propose_successor(
        town.directory / name,
        PASSPHRASE,
        steward.replica,
        organisation="university",
        url=f"http://127.0.0.1:{town.port}",
        strength="interactive",
    )
    endorsed = endorse(proposal, steward.replica, steward.keyring)
    ring = load_keyring(town.directory / name / "keyring.json", PASSPHRASE)
    return found_successor(town.directory / name, proposal, [endorsed], ring)


def move(town: Town, succession: SuccessionFile) -> None:
    """Every member accepts, and the new coordinator answers at the old one's address."""
    for person in town.people.values():
        check_successor(succession.leaf, person.replica)
        person.close()
        person.home.succeed(succession)
    for hospital in town.hospitals:
        home = town.home(hospital)
        replica = home.open_replica()
        check_successor(succession.leaf, replica)
        replica.store.close()
        home.succeed(succession)
    (town.directory / "hub").rename(town.directory / "old-hub")
    (town.directory / "heir").rename(town.directory / "hub")
    ring = load_keyring(town.directory / "hub" / "keyring.json", PASSPHRASE)
    town.founded = replace(
        town.founded, federation=federation_id(parse_leaf(succession.leaf)), keyring=ring
    )
    town.start_coordinator()
    for handle in list(town.people):
        town.people[handle] = MemberHome(town.directory / handle).open(PASSPHRASE)
        town.people[handle].follow()


def test_hospitals_go_on_in_the_new_log_with_all_that_their_patients_have_paid(town: Town) -> None:
    first = start(town)
    finish(town, first)
    for hospital in town.hospitals:
        town.stop_node(hospital)
    slow = {name: Misbehaving(before=[2.0]) for name in town.hospitals}
    for hospital, trainer in slow.items():
        town.start_node(hospital, trainer)
    second = town.propose(small_spec(["basel-heart", "bern-heart"], name="second"))
    for dataset in ("basel-heart", "bern-heart"):
        town.approve(second, dataset)
    town.until(lambda: len(town.experiment(second).reservations) == 2)
    size = town.state.size
    town.until(lambda: town.coordinator.sequencer.view.final_size >= size)
    paid = {name: cell.spend for name, cell in town.state.cells.items()}
    for person in town.people.values():
        person.follow()
    for hospital in town.hospitals:
        town.stop_node(hospital)
    town.stop_coordinator()

    succession = succeed(town)
    move(town, succession)
    assert {name: cell.spend for name, cell in town.state.cells.items()} == paid
    assert not town.state.experiments
    for hospital in town.hospitals:
        running = town.start_node(hospital)
        here = running.register.view.cells[f"{hospital}-all"].spend
        assert here == paid[f"{hospital}-all"], "the register came along, open reservation included"
    town.until(lambda: all(town.state.members[f"{h}-node"].ready for h in town.hospitals))
    third = town.propose(small_spec(["basel-heart", "bern-heart"], name="third"))
    for dataset in ("basel-heart", "bern-heart"):
        town.approve(third, dataset)
    finish(town, third)
    assert town.state.cells["basel-all"].spend.g > paid["basel-all"].g


def test_a_home_follows_one_successor_and_a_crash_on_the_way_is_made_good(town: Town) -> None:
    town.start_node("basel")
    town.until(lambda: town.state.members["basel-node"].ready)
    size = town.state.size
    town.until(lambda: town.coordinator.sequencer.view.final_size >= size)
    for person in town.people.values():
        person.follow()
    town.stop_node("basel")
    town.stop_coordinator()
    succession, other = succeed(town), succeed(town, "other")
    ada = town.people.pop("ada")
    ada.close()
    old_id = ada.config.federation
    kept = ada.home.path / "predecessors" / old_id[:16]
    kept.mkdir(parents=True)
    shutil.copy(ada.home.path / MEMBER, kept / MEMBER)  # a crash after the first step
    ada.home.succeed(succession)
    assert ada.home.config.federation == federation_id(parse_leaf(succession.leaf))
    assert (kept / LEDGER).exists()
    assert (
        ada.home.succeed(succession)
        == ada.home.path / "predecessors" / (ada.home.config.federation[:16])
    )
    replica = ada.home.open_replica()
    with pytest.raises(SuccessionRefused, match="it succeeds federation") as refused:
        check_successor(other.leaf, replica)  # a second heir of the same log
    replica.store.close()
    assert refused.value.where == "predecessor"
    steward = town.people.pop("bern-steward")
    steward.close()
    kept = steward.home.path / "predecessors" / old_id[:16]
    kept.mkdir(parents=True)
    (kept / "succession.json").write_bytes(b"{}")
    with pytest.raises(StoreUnusable, match="another successor was accepted here"):
        steward.home.succeed(other)
    town.start_coordinator()
