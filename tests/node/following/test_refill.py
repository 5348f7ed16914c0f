"""A coordinator that lost its database in the middle of an experiment, and nodes that bring it back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from coordinator.errors import HomeUnusable
from coordinator.refilling.door import create_door
from coordinator.refilling.refill import Refill
from coordinator.settings import HEAD, CoordinatorSettings
from ledger.entries.cards import MemberCard, seal_card
from ledger.errors import NotAdmitted, RequestRefused
from ledger.exchange.home import Membership
from ledger.exchange.messages import CHUNK
from node.following.offering import offer_copy
from tests.node.service.played import Misbehaving, finish, start
from tests.node.town import PASSPHRASE, Town
from tests.patience import PATIENCE_S


@pytest.fixture
def town(tmp_path: Path, quick_keys: None) -> Iterator[Town]:
    with Town(tmp_path) as opened:
        yield opened


@contextmanager
def refilling(town: Town, *left_out: str) -> Iterator[Refill]:
    """The door of a refill where the coordinator was."""
    settings = CoordinatorSettings(federation=town.founded.federation, home=town.directory / "hub")
    with Refill(settings, town.founded.keyring, left_out) as under_way:
        listener = socket.create_server(("127.0.0.1", town.port))
        server = uvicorn.Server(
            uvicorn.Config(create_door(under_way, lambda: None), log_config=None, ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.002)
        try:
            yield under_way
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            listener.close()


def lose_database(town: Town) -> None:
    hub = town.directory / "hub"
    for file in hub.glob("ledger.db*"):
        file.unlink()
    (hub / HEAD).unlink()


def test_an_experiment_goes_on_after_the_nodes_brought_the_database_back(town: Town) -> None:
    experiment = start(town, trainers={"bern": Misbehaving(before=[1.0])})
    town.until(lambda: town.experiment(experiment).round is not None)
    town.stop_coordinator()
    lose_database(town)
    with pytest.raises(NotAdmitted, match="consilium coordinator refill"):
        town.start_coordinator()
    with refilling(town) as under_way:
        town.until(lambda: under_way.standing.complete)
        assert under_way.standing.shown == ("basel-node", "bern-node")
        with pytest.raises(HomeUnusable, match="is being refilled"):
            town.start_coordinator(socket.create_server(("127.0.0.1", 0)))
        under_way.finish()
    town.start_coordinator()
    finish(town, experiment)
    for node in town.nodes.values():
        assert node.service.picture.fork is None


def test_whoever_follows_meanwhile_is_told_and_a_stranger_brings_nothing(town: Town) -> None:
    town.start_node("basel")
    town.until(lambda: town.state.members["basel-node"].ready)
    town.stop_node("basel")
    town.stop_coordinator()
    lose_database(town)
    ada = town.people["ada"]
    with refilling(town, "bern-node") as under_way:
        with pytest.raises(
            RequestRefused, match="the coordinator's database is being refilled"
        ) as told:
            ada.follow()
        assert (told.value.status, told.value.error) == (503, "Refilling")
        with pytest.raises(RequestRefused, match="no node of this federation"):
            offer(ada)
        assert under_way.replica.size > 1, "what she holds is this log's, whoever she is"
        ada.client._connection.key = ada.keyring.entry
        with pytest.raises(RequestRefused, match="the signature does not verify"):
            offer(ada)
        assert under_way.standing.shown == ()
        assert under_way.standing.awaited == ("basel-node",)
        node = town.home("basel").open(PASSPHRASE)
        offer(node)
        node.close()
        assert under_way.standing.complete
        under_way.finish()
    town.start_coordinator()


def test_a_member_brings_nothing_that_no_entry_names_and_nothing_longer(town: Town) -> None:
    town.start_node("basel")
    town.until(lambda: town.state.members["basel-node"].ready)
    card = seal_card(MemberCard(name="Anna"))
    ada = town.people["ada"]
    town.stop_node("basel")
    town.stop_coordinator()
    lose_database(town)
    with refilling(town, "bern-node") as under_way:
        home = town.home("basel").open(PASSPHRASE)
        offer(home)
        home.close()
        before = stored(under_way)
        for data in (card.blob, bytes(CHUNK + 1)):
            with pytest.raises(RequestRefused, match="no entry that is back names this one") as no:
                ada.client.put_blob(data)
            assert (no.value.status, no.value.error) == (403, "AccessDenied")
        assert stored(under_way) == before, "not even a part of it"
        under_way.finish()
    town.start_coordinator()


def stored(under_way: Refill) -> list[str]:
    return sorted(path.name for path in under_way.blobs.directory.rglob("*") if path.is_file())


def offer(member: Membership) -> int:
    return offer_copy(member.client, member.replica, member.blobs)
