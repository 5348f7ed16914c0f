"""A lost database comes back from copies: all that was signed, nothing else, and never below it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec import structs

from coordinator.errors import AccessDenied, HomeUnusable, RefillRefused, RolledBack
from coordinator.refilling.home import prepare_home
from coordinator.refilling.refill import Refill
from coordinator.service import Coordinator
from coordinator.settings import BLOBS, GENESIS, HEAD, JSON, REFILL, CoordinatorSettings
from ledger.copies.stored import Conflict, StoredNote
from ledger.entries.operations.log import TimeNoted
from ledger.errors import BlobMissing, ForkDetected, MalformedInput
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.rules.encoding import digest
from tests.federation import COORDINATOR, HOSPITALS, Federation, node_of
from tests.patience import PATIENCE_S

NODES = tuple(map(node_of, HOSPITALS))
NOTED = TimeNoted(type="time.noted")


@dataclass
class Handed:
    """A copy in memory, honest unless a test changes it."""

    name: str
    kept: list[bytes]
    notes: list[StoredNote]
    final: list[StoredNote] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def leaves(self, start: int) -> Iterator[bytes]:
        return iter(self.kept[start:])

    def checkpoints(self) -> Iterator[StoredNote]:
        return iter(self.notes)

    def finals(self) -> Iterator[StoredNote]:
        return iter(self.final)

    def evidence(self) -> Iterator[Conflict]:
        return iter(())

    def blob(self, sha256: str, length: int | None) -> bytes:
        if sha256 not in self.blobs:
            raise BlobMissing(Path(sha256), "is not here")
        return self.blobs[sha256]


def copy_of(federation: Federation, hospital: str = "basel", size: int | None = None) -> Handed:
    size = federation.log.size if size is None else size
    notes = [StoredNote(at, note_over(federation, federation.leaves[:at])) for at in (3, size)]
    finals = [StoredNote(at, federation.notes[at]) for at in federation.finals if at <= size]
    return Handed(hospital, federation.leaves[:size], notes, finals, dict(federation.blobs))


def note_over(federation: Federation, leaves: list[bytes], key: SigningKey | None = None) -> bytes:
    tree = MerkleTree()
    tree.extend(map(leaf_hash, leaves))
    key = key or federation.rings[COORDINATOR].log
    assert key is not None
    return sign_checkpoint(key, Checkpoint(federation.origin, tree.size, tree.root()))


@pytest.fixture
def federation() -> Federation:
    made = Federation.found(HOSPITALS)
    made.play(made.start())
    made.finalize()
    return made


@pytest.fixture
def home(tmp_path: Path, federation: Federation) -> CoordinatorSettings:
    """A home that has lost its database."""
    path = tmp_path / "hub"
    path.mkdir()
    (path / GENESIS).write_bytes(federation.leaves[0])
    (path / JSON).write_text(f'{{"federation":"{federation.id}"}}')
    return CoordinatorSettings(federation=federation.id, home=path)


def refill(federation: Federation, home: CoordinatorSettings, *left_out: str) -> Refill:
    return Refill(home, federation.rings[COORDINATOR], left_out)


def test_a_database_comes_back_whole_and_the_same_log_goes_on(
    federation: Federation, home: CoordinatorSettings
) -> None:
    size = federation.log.size
    with refill(federation, home) as under_way:
        assert under_way.take(copy_of(federation, size=size - 4), NODES[0]) == size - 5
        assert under_way.standing.awaited == NODES[1:]
        assert under_way.take(copy_of(federation), NODES[1]) == 4
        for node in NODES[2:]:
            under_way.take(copy_of(federation), node)
        assert digest(under_way.replica.state) == digest(federation.state)
        assert under_way.replica.final.size == federation.finals[-1]
        assert under_way.wanted() == {}
        under_way.finish()
    with Coordinator(home, federation.rings[COORDINATOR]) as running:
        (receipt,) = running.sequencer.say(NOTED).result(PATIENCE_S)
        assert receipt.index >= size
        assert running.sequencer.root(size) == federation.log.tree.root()


def test_the_coordinator_does_not_run_while_a_node_has_not_shown_what_it_holds(
    federation: Federation, home: CoordinatorSettings
) -> None:
    with refill(federation, home) as under_way:
        for node in NODES[:3]:
            under_way.take(copy_of(federation), node)
        with pytest.raises(RefillRefused, match=f"{NODES[3]} did not show what they hold"):
            under_way.finish()
    with pytest.raises(HomeUnusable, match="is being refilled"):
        Coordinator(home, federation.rings[COORDINATOR])
    with refill(federation, home, NODES[3]) as again:
        assert again.standing.complete, "who has shown is remembered"
        assert again.standing.unasked == (NODES[3],)
        warning = again.standing.in_words
        assert warning is not None
        assert warning.startswith(f"{NODES[3]} showed nothing and will not be asked")
        assert f"over more than {federation.log.size} entries" in warning
        again.finish()
    assert not (home.home / REFILL).exists()
    Coordinator(home, federation.rings[COORDINATOR]).close()


def test_a_blob_comes_back_though_somebody_named_it_with_a_wrong_length(
    federation: Federation, home: CoordinatorSettings
) -> None:
    schema = federation.state.datasets["basel-heart"].terms.schema_
    theirs = federation.state.datasets["bern-heart"].terms
    op = structs.replace(theirs, schema_=structs.replace(schema, bytes=schema.bytes + 1))
    federation.say(NODES[1], op)
    with refill(federation, home) as under_way:
        under_way.take(copy_of(federation), NODES[0])
        assert under_way.blobs.has(schema)
        assert under_way.wanted() == {}


def test_a_part_is_taken_only_of_what_entries_name_and_as_long_as_they_say(
    federation: Federation, home: CoordinatorSettings
) -> None:
    schema = federation.state.datasets["basel-heart"].terms.schema_
    with refill(federation, home) as under_way:
        with pytest.raises(AccessDenied, match="no entry that is back names this one"):
            under_way.needs_part(schema.sha256, 0, schema.bytes, schema.bytes)
        honest = copy_of(federation)
        honest.blobs.clear()
        under_way.take(honest, NODES[0])
        assert under_way.needs_part(schema.sha256, 0, schema.bytes, 1)
        for total in (schema.bytes - 1, 2**28):
            with pytest.raises(
                MalformedInput, match=f"announced where entries name {schema.bytes}"
            ):
                under_way.needs_part(schema.sha256, 0, total, 1)
        with pytest.raises(MalformedInput, match="ends beyond the total"):
            under_way.needs_part(schema.sha256, schema.bytes, schema.bytes, 1)
        under_way.blobs.put(federation.blobs[schema.sha256])
        assert not under_way.needs_part(schema.sha256, 0, schema.bytes, 1), "it is here"


def test_nothing_is_signed_below_the_highest_checkpoint_that_anybody_shows(
    federation: Federation, home: CoordinatorSettings
) -> None:
    size = federation.log.size
    with refill(federation, home) as under_way:
        for node in NODES:
            under_way.take(copy_of(federation, size=size - 2), node)
        short = copy_of(federation)
        short.kept = short.kept[:-2]  # it shows the checkpoint and has lost the entries
        assert under_way.take(short) == 0
        with pytest.raises(RefillRefused, match=f"over {size} entries was signed") as caught:
            under_way.finish()
        assert f"more than {size - 2}; bring the copy that does" in str(caught.value)
        assert under_way.standing.signed == size
    (home.home / REFILL).unlink()  # somebody helps himself
    with pytest.raises(RolledBack, match="consilium coordinator refill") as stopped:
        Coordinator(home, federation.rings[COORDINATOR])
    assert (stopped.value.held, stopped.value.signed) == (size - 2, size)


def test_a_node_is_not_counted_before_its_entries_are_here(
    federation: Federation, home: CoordinatorSettings
) -> None:
    with refill(federation, home) as under_way:
        under_way.take(copy_of(federation, size=federation.log.size - 1))
        newest = federation.checkpoint()
        with pytest.raises(RefillRefused, match="its entries are needed first"):
            under_way.show(NODES[0], newest)
        with pytest.raises(RefillRefused, match="no node of this federation"):
            under_way.show("ada", newest)
        assert under_way.standing.shown == ()


def test_a_changed_entry_is_refused_with_its_place_and_nothing_of_it_stays(
    federation: Federation, home: CoordinatorSettings
) -> None:
    forged = copy_of(federation)
    author = federation.entries()[12].body
    forged.kept[12] = forged.kept[12][:-1] + bytes([forged.kept[12][-1] ^ 1])
    moved = copy_of(federation)
    moved.kept = [*moved.kept[:5], moved.kept[6], *moved.kept[6:]]
    with refill(federation, home) as under_way:
        under_way.take(copy_of(federation, size=9))
        place = f"entry {author.author}/{author.seq} .*: the signature is not one by key"
        with pytest.raises(RefillRefused, match=f"basel: among its entries from 9 on: {place}"):
            under_way.take(forged, NODES[0])
        moved.kept.insert(9, moved.kept[3])
        with pytest.raises(RefillRefused, match="basel: its entry 5 is not this log's"):
            under_way.take(moved, NODES[0])
        assert (under_way.replica.size, under_way.standing.shown) == (9, ())


def test_a_longer_copy_needs_a_checkpoint_by_the_logs_own_key(
    federation: Federation, home: CoordinatorSettings
) -> None:
    longer = copy_of(federation)
    extra = federation.entry(COORDINATOR, NOTED).leaf
    longer.kept.append(extra)
    false = note_over(federation, longer.kept, SigningKey.generate())
    longer.notes.append(StoredNote(len(longer.kept), false))
    with refill(federation, home) as under_way:
        with pytest.raises(RefillRefused, match="basel: among its entries from 1 on"):
            under_way.take(longer)
        assert under_way.standing.signed == 1


def test_two_signed_histories_are_a_fork_that_no_refill_mends(
    federation: Federation, home: CoordinatorSettings
) -> None:
    other = Federation.found(HOSPITALS)
    other.take(other.entry(COORDINATOR, NOTED))
    forked = Handed("bern", list(other.leaves), [])
    forked.notes = [StoredNote(len(forked.kept), note_over(federation, forked.kept))]
    with refill(federation, home) as under_way:
        under_way.take(copy_of(federation), NODES[0])
        before = under_way.replica.size
        with pytest.raises(ForkDetected, match="keep both signed checkpoints") as caught:
            under_way.take(forked, NODES[1])
        assert caught.value.theirs == forked.notes[0].note
        assert under_way.replica.size == before
        assert [item.kind for item in under_way.replica.store.conflicts()] == ["fork"]


def test_a_final_checkpoint_without_its_quorum_does_not_get_in(
    federation: Federation, home: CoordinatorSettings
) -> None:
    false = copy_of(federation)
    false.final = [StoredNote(federation.log.size, note_over(federation, federation.leaves))]
    with refill(federation, home) as under_way:
        with pytest.raises(RefillRefused, match=r"basel: .* cosigned"):
            under_way.take(false, NODES[0])
        assert under_way.standing.shown == ()


def test_lines_of_strangers_do_not_get_into_the_database(
    federation: Federation, home: CoordinatorSettings
) -> None:
    noisy = copy_of(federation)
    line = note_over(federation, federation.leaves, SigningKey.generate()).split(b"\n\n")[1]
    noisy.notes = [StoredNote(n.size, n.note + line) for n in noisy.notes]
    noisy.final = [StoredNote(n.size, n.note + line) for n in noisy.final]
    with refill(federation, home) as under_way:
        under_way.take(noisy)
        store = under_way.replica.store
        assert all(line not in note.note for note in (*store.checkpoints(), *store.finals()))


def test_a_database_that_was_rolled_back_is_filled_up_again(
    federation: Federation, home: CoordinatorSettings
) -> None:
    shorter = Federation.found(HOSPITALS)
    shorter.persist(home.home).close()
    shutil.rmtree(home.home / BLOBS)
    with refill(federation, home) as under_way:
        assert under_way.standing.size == shorter.log.size
        for node in NODES:
            under_way.take(copy_of(federation), node)
        under_way.finish()
        assert digest(under_way.replica.state) == digest(federation.state)


def test_a_home_is_written_anew_from_its_keys_and_a_copy(
    federation: Federation, tmp_path: Path
) -> None:
    path = tmp_path / "new"
    path.mkdir()
    ring = federation.rings[COORDINATOR]
    with pytest.raises(HomeUnusable, match="give one copy of the log"):
        prepare_home(path, ring, ())
    prepare_home(path, ring, [copy_of(federation)])
    assert (path / GENESIS).read_bytes() == federation.leaves[0]
    settings = CoordinatorSettings(federation=federation.id, home=path)
    with refill(federation, settings) as under_way:
        under_way.take(copy_of(federation))
        assert digest(under_way.replica.state) == digest(federation.state)
    assert (path / HEAD).exists()


def test_keys_of_another_log_refill_nothing(
    federation: Federation, home: CoordinatorSettings, tmp_path: Path
) -> None:
    stranger = federation.rings[NODES[0]]
    with pytest.raises(RefillRefused, match="its log key is not the one that genesis names"):
        Refill(home, stranger)
    with pytest.raises(RefillRefused, match="does not name the log key of this key ring"):
        prepare_home(tmp_path, stranger, [copy_of(federation)])
