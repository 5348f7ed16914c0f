"""A node denies having trained: its signature, its chain, and checkpoints that it cosigned."""

from __future__ import annotations

import pytest

from ledger.entries.entry import federation_id, log_origin, parse_leaf, verify_signature
from ledger.entries.operations.federation import FederationFounded
from ledger.entries.operations.members import MemberJoined
from ledger.entries.operations.rounds import UpdateSubmitted
from ledger.errors import NotConsistent
from ledger.formats.proof import Proof, verify_proof
from tests.adversary.coordinator import Story
from tests.adversary.registry import attack
from tests.adversary.world import World, refuted
from tests.federation import node_of

SCEPTIC = "anybody with the entry and its proof"


@attack(
    name="a hospital denies that it trained",
    exposed_by=SCEPTIC,
    evidence="its signed entry in a checkpoint that it cosigned, its chain",
)
def test_a_node_cannot_deny_having_trained(world: World) -> None:
    experiment = world.experiment()
    world.federation.play(experiment)
    world.settle()
    basel, bern = world.hospital("basel"), world.hospital("bern")
    index, leaf = next(
        (at, leaf)
        for at, leaf in enumerate(world.federation.leaves)
        if isinstance(parse_leaf(leaf).body.op, UpdateSubmitted)
        and parse_leaf(leaf).body.author == node_of("basel")
    )
    final = bern.replica.final
    assert final.note is not None
    proof = Proof(index, bern.replica.inclusion(index, final.size), final.note).encode()
    world.attack_begins()  # basel: "we never did"
    world.coordinator.messages += 1

    # The sceptic has the federation's id, basel's joining entry from genesis on, and two files.
    genesis, joined = (
        parse_leaf(world.federation.leaves[at])
        for at in (0, bern.replica.state.members[node_of("basel")].joined_at)
    )
    assert federation_id(genesis) == world.federation.id
    assert isinstance(genesis.body.op, FederationFounded)
    assert isinstance(joined.body.op, MemberJoined)
    entry = parse_leaf(leaf)
    verify_signature(entry, bytes.fromhex(joined.body.op.keys.entry.public))
    assert joined.body.op.keys.witness is not None
    own_witness = bytes.fromhex(joined.body.op.keys.witness.public)
    found = verify_proof(
        leaf,
        proof,
        world.coordinator.verifier,
        {"basel": frozenset({own_witness})},
        origin=log_origin(world.federation.id),
    )
    assert "basel" in found.signed  # basel itself cosigned a log with this entry in it
    assert isinstance(entry.body.op, UpdateSubmitted)
    assert entry.body.op.experiment == experiment
    world.exposed(SCEPTIC)

    after = [parse_leaf(each).body for each in world.federation.leaves[index + 1 :]]
    assert any(b.author == node_of("basel") and b.prev == entry.hash for b in after)
    other = world.federation.leaves[index - 1]
    with pytest.raises(NotConsistent):
        verify_proof(other, proof, world.coordinator.verifier, {})
    assert basel.replica.root(final.size) == final.root


@attack(
    name="a hospital shows its own copy without the entries it denies",
    exposed_by="a sceptic with that copy alone",
    evidence="the next author's signed view: a longer log than is shown",
)
def test_a_copy_without_the_denied_entry_contradicts_the_next_author(world: World) -> None:
    experiment = world.experiment()
    world.federation.play(experiment)
    leaves = world.federation.leaves
    index = next(
        at
        for at, leaf in enumerate(leaves)
        if isinstance(parse_leaf(leaf).body.op, UpdateSubmitted)
    )
    world.attack_begins()
    home = world.coordinator.write(
        world.directory / "denied", Story([*leaves[:index], *leaves[index + 1 :]])
    )
    found = refuted(world.audit(home))
    assert found[0][0] == 4
    assert found[0][1] == f"entry {index}"  # the next one has seen another log
    world.exposed("a sceptic with that copy alone")
