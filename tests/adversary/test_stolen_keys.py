"""A thief of a disk takes keys: encrypted at rest; revocation acts at its index, and is never
retroactive: a compromise date marks entries as disputed."""

from __future__ import annotations

from ledger.entries.operations.log import NodeResumed
from ledger.entries.operations.members import KeyRevoked
from ledger.errors import KeyFileError, NotAdmitted, WrongPassphrase
from ledger.formats.checkpoint import cosign
from ledger.formats.key_file import load_keyring, save_keyring
from ledger.formats.witness import judge_quorum, witness_name
from tests.adversary.registry import attack
from tests.adversary.world import World
from tests.federation import node_of, steward_of


@attack(
    name="thief of a disk opens the key file",
    exposed_by="nobody needs to: the file stays shut",
    evidence="argon2id and secretbox; no seed in its bytes",
)
def test_a_stolen_key_file_stays_shut(world: World) -> None:
    ring = world.federation.rings[node_of("basel")]
    path = world.directory / "keyring.json"
    save_keyring(path, ring, b"correct horse", strength="interactive")
    stolen = path.read_bytes()
    for key in (ring.entry, ring.witness, ring.request, ring.sealing):
        assert key.seed not in stolen
        assert key.seed.hex().encode() not in stolen
    with world.caught(WrongPassphrase, by="nobody needs to: the file stays shut") as caught:
        load_keyring(path, b"battery staple")
    assert caught.value.path == path
    assert load_keyring(path, b"correct horse") == ring


@attack(
    name="thief makes a key file pass for another member's",
    exposed_by="its owner's program",
    evidence="the readable part is not the one that was sealed",
)
def test_a_relabelled_key_file_is_refused(world: World) -> None:
    path = world.directory / "keyring.json"
    save_keyring(
        path, world.federation.rings[node_of("basel")], b"correct horse", strength="interactive"
    )
    path.write_bytes(path.read_bytes().replace(b'"basel-node"', b'"berne-node"'))  # the lie
    with world.caught(KeyFileError, by="its owner's program") as caught:
        load_keyring(path, b"correct horse")
    assert "changed since it was sealed" in caught.value.reason


@attack(
    name="thief signs with a stolen key after its revocation",
    exposed_by="the door, and every follower",
    evidence="the key, and the index at which it was retired",
)
def test_a_revoked_key_signs_nothing_more(world: World) -> None:
    federation = world.federation
    stolen = federation.entry(node_of("basel"), NodeResumed(type="node.resumed", nonce="88" * 32))
    before = federation.state.members[node_of("basel")]
    said = federation.say(
        steward_of("basel"),
        KeyRevoked(
            type="key.revoked",
            member=node_of("basel"),
            compromised_since_ms=federation.now_ms - 5000,
        ),
    )
    world.settle()
    world.attack_begins()
    with world.caught(NotAdmitted, by="the door, and every follower") as caught:
        world.coordinator.submit(stolen.leaf)  # the lie
    assert caught.value.reason == f"key {stolen.body.key} was retired at entry {said.index}"
    world.coordinator.lie([*federation.leaves, stolen.leaf])  # nor with the coordinator's help
    with world.caught(NotAdmitted, by="the door, and every follower"):
        world.hospital("bern").follow()

    member = world.hospital("bern").replica.state.members[node_of("basel")]
    assert (member.revoked_at, before.revoked_at) == (said.index, None)
    assert member.disputed_since_ms is not None  # marked, not undone
    assert "basel-node" in {e.body.author for e in federation.entries()}
    home = world.coordinator.write(world.directory / "hub")
    verdicts = world.audit(home)
    assert verdicts.exit_code == 0  # its older entries verify for ever
    (doubt,) = [c for c in verdicts.best.checks if c.detail.startswith("disputed: ")]
    assert (doubt.step, doubt.verdict) == (5, "not_checkable")
    assert "of basel-node; its keys were compromised from" in doubt.detail


@attack(
    name="thief cosigns with a stolen witness key after its revocation",
    exposed_by="every hospital",
    evidence="the revoked one does not count in the quorum",
)
def test_a_revoked_witness_counts_no_more(world: World) -> None:
    federation = world.federation
    revoke = KeyRevoked(type="key.revoked", member=node_of("basel"), compromised_since_ms=None)
    federation.say(steward_of("basel"), revoke)
    world.settle()
    world.let_time_pass(0)
    for name in ("bern", "chur"):
        world.hospital(name).follow()
        world.hospital(name).cosign()
    size = federation.log.size
    world.attack_begins()
    note = federation.notes[size]
    name = witness_name(federation.origin, node_of("basel"))
    stolen = cosign(note, federation.rings[node_of("basel")].witness, name, 2**31)
    federation.notes[size] = note + stolen  # the lie
    davos = world.hospital("davos")
    davos.follow_entries()
    state = davos.replica.state
    counted = judge_quorum(
        federation.notes[size],
        world.coordinator.verifier,
        {
            organisation: frozenset(bytes.fromhex(key) for key in keys)
            for organisation, keys in state.witnesses_at(davos.replica.final.size).items()
        },
    )
    assert set(counted.signed) == {"bern", "chur"}
    assert (counted.needed, counted.final) == (3, False)
    assert counted.missing == {"davos"}
    world.exposed("every hospital")
