"""Anybody may ask a hospital's node for a cosignature over HTTP; it cosigns what its own copy holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from audit.verification.check_notes import check_notes
from audit.verification.copies import StoreCopy
from audit.verification.replay import replay
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import COSIGNATURE_V1, Note, VerifierKey, parse_note, verify_note
from ledger.formats.witness import AddCheckpoint, checkpoint_path, parse_size_answer, witness_name
from node.service.local_api import LocalServer
from tests.federation import node_of
from tests.node.town import Running, Town
from tests.patience import PATIENCE_S


class Asked:
    """A running node of a quiet federation, and what is asked of it."""

    def __init__(self, town: Town, node: Running, url: str) -> None:
        self.town = town
        self.node = node
        self.url = url
        self.replica = node.membership.replica
        log_key = town.founded.keyring.log
        assert log_key is not None
        self.log_key = log_key
        self.tree = MerkleTree.from_leaves(self.replica.store.leaves())
        self.size = self.tree.size

    def note(self, tree: MerkleTree, size: int, key: SigningKey | None = None) -> bytes:
        checkpoint = Checkpoint(self.replica.origin, size, tree.root(size))
        return sign_checkpoint(key or self.log_key, checkpoint)

    def ask(self, old: int, size: int, tree: MerkleTree | None = None) -> httpx.Response:
        tree = tree or self.tree
        body = AddCheckpoint(old, tree.consistency(min(old, size), size), self.note(tree, size))
        return self.post(body.encode())

    def post(self, body: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/witness/add-checkpoint", content=body, timeout=PATIENCE_S)


@pytest.fixture
def asked(tmp_path: Path, quick_keys: None) -> Iterator[Asked]:
    with Town(tmp_path) as town:
        node = town.start_node("basel")
        town.until(lambda: town.state.members[node_of("basel")].ready)
        replica = node.membership.replica

        def quiet() -> bool:
            held = replica.store.witnessed(replica.origin)
            return held is not None and held.size == replica.size == town.state.size

        town.until(quiet)
        server = LocalServer(node.service)
        url = server.start()
        yield Asked(town, node, url)
        server.close()


def test_a_third_party_gets_the_hospitals_cosignature_and_monitors_read_it(asked: Asked) -> None:
    answer = asked.ask(asked.size, asked.size)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    ring = asked.node.membership.keyring
    name = witness_name(asked.replica.origin, node_of("basel"))
    witness = VerifierKey(name, ring.witness.public, COSIGNATURE_V1)
    note = asked.note(asked.tree, asked.size) + answer.content
    assert len(verify_note(note, (asked.replica.log_key, witness))[1]) == 2
    monitored = httpx.get(
        f"{asked.url}/witness/{checkpoint_path(asked.replica.origin)}", timeout=PATIENCE_S
    )
    assert monitored.status_code == 200
    assert len(verify_note(monitored.content, (asked.replica.log_key, witness))[1]) == 2
    unknown = httpx.get(f"{asked.url}/witness/{checkpoint_path('elsewhere')}", timeout=PATIENCE_S)
    assert unknown.status_code == 404


def test_each_refusal_has_the_protocols_status(asked: Asked) -> None:
    size, tree, origin = asked.size, asked.tree, asked.replica.origin
    assert asked.post(b"hello").status_code == 400
    assert asked.ask(size, size - 1).status_code == 400
    elsewhere = sign_checkpoint(asked.log_key, Checkpoint("elsewhere", size, tree.root(size)))
    assert asked.post(AddCheckpoint(0, (), elsewhere).encode()).status_code == 404
    stranger = asked.note(tree, size, SigningKey.generate())
    assert asked.post(AddCheckpoint(size, (), stranger).encode()).status_code == 403
    conflict = asked.ask(size - 1, size)
    assert conflict.status_code == 409
    assert conflict.headers["content-type"] == "text/x.tlog.size"
    assert parse_size_answer(conflict.content) == size
    held = asked.replica.store.witnessed(origin)
    assert held is not None
    assert held.size == size
    assert httpx.get(f"{asked.url}/healthz", timeout=PATIENCE_S).status_code == 200


def test_a_tree_that_goes_beyond_the_nodes_own_copy_is_not_cosigned_yet(asked: Asked) -> None:
    """The protocol would allow it; a hospital's cosignature says that it has verified the entries."""
    longer = MerkleTree.from_leaves([*asked.replica.store.leaves(), leaf_hash(b"not seen")])
    answer = asked.ask(asked.size, asked.size + 1, longer)
    assert answer.status_code == 503
    assert answer.text == f"this witness holds {asked.size} entries so far\n"
    assert answer.headers["retry-after"] == "5"
    held = asked.replica.store.witnessed(asked.replica.origin)
    assert held is not None
    assert held.size == asked.size


def test_nothing_that_a_third_party_writes_into_a_note_stays_in_the_hospitals_memory(
    asked: Asked,
) -> None:
    size, note = asked.size, asked.note(asked.tree, asked.size)
    opened = parse_note(note)
    twice = Note(opened.text, opened.signatures * 2).encode()
    assert asked.post(AddCheckpoint(size, (), twice).encode()).status_code == 200
    held = asked.replica.store.witnessed(asked.replica.origin)
    assert held is not None
    assert len(parse_note(held.note).signatures) == 2, "the log's line once, and the own"
    copy = StoreCopy("basel", asked.replica.store)
    assert not [c for c in check_notes(replay(copy), copy).checks if c.verdict == "refuted"]
    marked = Checkpoint(asked.replica.origin, size, asked.tree.root(size), ("a mark",))
    body = AddCheckpoint(size, (), sign_checkpoint(asked.log_key, marked)).encode()
    assert asked.post(body).text == "this log writes no extension lines\n"


@pytest.mark.parametrize("back", [0, 1])
def test_a_fork_that_a_third_party_brings_is_kept_reported_and_ends_the_work(
    asked: Asked, back: int
) -> None:
    """Of the size that was cosigned last, or of one before: the copy knows both."""
    size = asked.size - back
    lie = MerkleTree.from_leaves([leaf_hash(b"a lie"), *list(asked.replica.store.leaves())[1:]])
    answer = asked.post(AddCheckpoint(size, (), asked.note(lie, size)).encode())
    assert answer.status_code == (409 if back else 422)
    asked.town.until(
        lambda: httpx.get(f"{asked.url}/healthz", timeout=PATIENCE_S).status_code == 503
    )
    kept = [conflict for conflict in asked.replica.store.conflicts() if conflict.kind == "fork"]
    assert any(asked.note(lie, size) in conflict.evidence for conflict in kept)

    def reported() -> bool:
        rows = asked.town.people["ada"]
        rows.follow()
        return any(b'"type":"fork.reported"' in row.body for row in rows.replica.store.rows())

    asked.town.until(reported)
    refused = asked.ask(asked.size, asked.size)
    assert refused.status_code == 503
    assert refused.text.startswith("this witness has stopped: ")
