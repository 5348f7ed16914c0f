"""Anybody in the network replays and alters: signatures over federation id and place in the chain."""

from __future__ import annotations

import pytest

from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.log import NodeResumed
from ledger.errors import BadSignature, MalformedInput, NotAdmitted, Refused, UnknownKey
from tests.adversary.coordinator import Story
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import START_MS, Federation, node_of


@attack(
    name="an entry replayed to another federation of the same members",
    exposed_by="the door, and every follower",
    evidence="the federation id that its author signed",
)
def test_a_replayed_entry_from_another_federation_is_refused(world: World) -> None:
    other = Federation.found(now_ms=START_MS + 1)
    assert other.id != world.federation.id
    entry = other.entry(node_of("basel"), NodeResumed(type="node.resumed", nonce="33" * 32))
    assert entry.body.key in world.federation.state.keys  # the very same key
    with world.caught(NotAdmitted, by="the door, and every follower") as caught:
        world.coordinator.submit(entry.leaf)  # the lie
    assert caught.value.reason == (f"it is for federation {other.id[:12]}, not for this one")
    world.coordinator.lie([*world.federation.leaves, entry.leaf])
    with world.caught(NotAdmitted, by="the door, and every follower"):
        world.hospital("bern").follow()


@attack(
    name="another federation's whole log shown to a hospital",
    exposed_by="every follower",
    evidence="the checkpoint is another log's",
)
def test_another_federations_checkpoint_is_not_ours(world: World) -> None:
    other = Federation.found(now_ms=START_MS + 1)
    while other.log.size < world.hospital("basel").size:
        other.say(node_of("basel"), NodeResumed(type="node.resumed", nonce="44" * 32))
    other.finalize()
    world.coordinator.show(Story(other.leaves, other.notes, other.finals))  # the lie
    with world.caught(UnknownKey, by="every follower"):
        world.hospital("basel").follow()


@attack(
    name="an entry replayed to its own federation",
    exposed_by="every follower",
    evidence="the author's chain; the same bytes get their first answer",
)
def test_an_entry_sent_twice_is_taken_once(world: World) -> None:
    basel = world.hospital("basel")
    receipt = basel.say(NodeResumed(type="node.resumed", nonce="55" * 32))
    leaf, size = world.federation.leaves[-1], world.federation.log.size
    world.attack_begins()
    assert world.coordinator.submit(leaf) == receipt  # the lie, answered as before
    world.coordinator.lie([*world.federation.leaves, leaf])  # or sequenced again
    with world.caught(NotAdmitted, by="every follower") as caught:
        world.hospital("bern").follow()
    assert "goes on with number" in caught.value.reason
    assert world.federation.log.size == size


@attack(
    name="one bit of an entry changed on its way, any bit of any byte",
    exposed_by="the door",
    evidence="strict form, envelope or signature refuses each",
)
def test_no_byte_of_an_entry_can_be_changed(world: World) -> None:
    op = NodeResumed(type="node.resumed", nonce="66" * 32)
    leaf = world.federation.entry(node_of("basel"), op).leaf
    size = world.federation.log.size
    for at in range(len(leaf)):
        changed = bytearray(leaf)
        changed[at] ^= 1 << (at % 8)  # the lie
        with pytest.raises(Refused) as caught:
            world.federation.log.judge(bytes(changed))
        assert isinstance(caught.value, MalformedInput | NotAdmitted | BadSignature)
    world.coordinator.messages += 1
    world.exposed("the door")
    assert world.federation.log.size == size
    assert world.coordinator.submit(leaf).applied  # unchanged it is good


@attack(
    name="an entry cut short on its way",
    exposed_by="the door",
    evidence="its lengths do not match its bytes",
)
def test_an_entry_cut_short_is_refused(world: World) -> None:
    op = NodeResumed(type="node.resumed", nonce="77" * 32)
    leaf = world.federation.entry(node_of("basel"), op).leaf
    for length in range(len(leaf)):
        with pytest.raises(MalformedInput):
            world.federation.log.judge(leaf[:length])  # the lie
    with world.caught(MalformedInput, by="the door") as caught:
        world.coordinator.submit(leaf[:-1])
    assert caught.value.where == "leaf"


@attack(
    name="somebody in the network shows a newcomer a federation of its own",
    exposed_by="the newcomer",
    evidence="genesis has another id than the invitation",
)
def test_a_genesis_of_another_federation_is_refused(world: World) -> None:
    other = Federation.found(now_ms=START_MS + 1)
    store = LogStore.open(f"sqlite:///{world.directory / 'fresh.db'}")
    with world.caught(NotAdmitted, by="the newcomer") as caught:
        Replica.create(store, other.leaves[0], world.federation.id)  # the lie
    assert "genesis of another federation" in caught.value.reason
    assert store.size() == 0
    store.close()
