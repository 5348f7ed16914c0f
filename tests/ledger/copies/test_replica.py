"""A verified copy grows by what verifies, keeps evidence of what cannot be, and moves nothing then."""

from __future__ import annotations

import pytest

from ledger.copies.evidence import Fork, judge_fork, read_fork, split
from ledger.copies.leaves import read_leaves
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.errors import (
    BadSignature,
    ForkDetected,
    MalformedInput,
    NotAdmitted,
    NotConsistent,
    StoreConflict,
    UnknownKey,
)
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.cosigned import keep_known
from ledger.formats.keys import SigningKey
from ledger.rules.encoding import digest
from tests.federation import COORDINATOR, Federation
from tests.ledger.copies.followed import NOTED, catch_up, copy_of, reopen


def test_a_copy_holds_what_the_log_holds(store: LogStore) -> None:
    federation = Federation.found(("basel", "bern"))
    replica = copy_of(federation, store)
    federation.play(federation.start())
    taken = replica.extend(federation.leaves[1:], federation.checkpoint())
    assert [item.index for item in taken] == list(range(1, federation.log.size))
    assert replica.size == federation.log.size
    assert replica.root() == federation.log.tree.root()
    assert replica.checkpoint == keep_known(federation.checkpoint(), replica.log_key)
    assert digest(replica.state) == digest(federation.state)
    assert list(read_leaves(store, 0, 5)) == federation.leaves[:5]
    assert digest(reopen(federation, store).state) == digest(federation.state)


def test_news_comes_in_any_number_of_pieces(store: LogStore) -> None:
    federation = Federation.found(("basel",))
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    for _ in range(3):
        federation.say(COORDINATOR, NOTED)
        catch_up(replica, federation)
    assert replica.extend((), federation.checkpoint()) == []
    assert replica.extend(federation.leaves[-1:], federation.checkpoint()) == []
    assert reopen(federation, store).checkpoint == federation.checkpoint()


def test_a_copy_is_of_the_federation_that_its_owner_trusts(store: LogStore) -> None:
    federation, other = Federation.found(("basel",)), Federation.found(("basel",), now_ms=1)
    with pytest.raises(NotAdmitted, match="genesis of another federation"):
        Replica.create(store, other.leaves[0], federation.id)
    assert store.size() == 0
    copy_of(federation, store)
    with pytest.raises(StoreConflict):
        copy_of(federation, store)


def test_a_checkpoint_covers_exactly_what_came_with_it(store: LogStore) -> None:
    federation = Federation.found(("basel",))
    replica = copy_of(federation, store)
    note = federation.checkpoint()
    with pytest.raises(NotConsistent, match=f"covers {federation.log.size} entries, but"):
        replica.extend(federation.leaves[1:-1], note)
    with pytest.raises(NotConsistent, match="covers"):
        replica.extend([*federation.leaves[1:], federation.leaves[1]], note)
    assert replica.size == 1
    assert store.size() == 1


def test_a_checkpoint_by_another_key_or_that_was_changed_is_refused(store: LogStore) -> None:
    federation = Federation.found(("basel",))
    replica = copy_of(federation, store)
    checkpoint = Checkpoint(federation.origin, federation.log.size, federation.log.tree.root())
    forged = sign_checkpoint(SigningKey.from_seed(bytes(32)), checkpoint)
    with pytest.raises(UnknownKey):
        replica.extend(federation.leaves[1:], forged)
    note = federation.checkpoint()
    size = str(federation.log.size).encode()
    with pytest.raises(BadSignature):
        replica.extend(federation.leaves[1:], note.replace(b"\n" + size, b"\n1" + size, 1))
    with pytest.raises(MalformedInput):
        replica.extend(federation.leaves[1:], b"")
    assert replica.size == 1


@pytest.mark.parametrize("at", [1, 3, -1])
def test_one_changed_byte_anywhere_is_refused_and_nothing_is_taken(
    store: LogStore, at: int
) -> None:
    federation = Federation.found(("basel",))
    replica = copy_of(federation, store)
    leaves = list(federation.leaves)
    leaves[at] = leaves[at][:-1] + bytes([leaves[at][-1] ^ 1])
    with pytest.raises((BadSignature, NotAdmitted)):
        replica.extend(leaves[1:], federation.checkpoint())
    assert (replica.size, store.size()) == (1, 1)
    assert replica.checkpoint is None
    catch_up(replica, federation)


def forked(federation: Federation, keep: int, extra: int) -> Federation:
    """The same log up to a size; then the coordinator tells another story."""
    other = Federation(now_ms=federation.now_ms + 5, rings=federation.rings)
    for entry in federation.entries()[:keep]:
        other.take(entry)
    other.now_ms += 5
    for _ in range(extra):
        other.say(COORDINATOR, NOTED)
    return other


def test_two_roots_of_one_size_are_a_fork_and_both_notes_are_kept(store: LogStore) -> None:
    federation = Federation.found(("basel",))
    replica = copy_of(federation, store)
    federation.say(COORDINATOR, NOTED)
    catch_up(replica, federation)
    ours, state = federation.checkpoint(), replica.state
    theirs = forked(federation, federation.log.size - 1, 1).checkpoint()
    with pytest.raises(ForkDetected, match=f"two roots for {federation.log.size} ent") as caught:
        replica.extend((), theirs)
    assert (caught.value.ours, caught.value.theirs) == (ours, theirs)
    assert [(c.kind, c.evidence) for c in store.conflicts()] == [
        ("fork", Fork(ours, theirs).encode())
    ]
    assert replica.state is state
    assert replica.checkpoint == ours


def test_an_older_checkpoint_of_another_history_is_a_fork_too(store: LogStore) -> None:
    federation = Federation.found(("basel",))
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    size = federation.log.size
    federation.say(COORDINATOR, NOTED)
    catch_up(replica, federation)
    theirs = forked(federation, size - 1, 1).checkpoint()
    with pytest.raises(ForkDetected) as caught:
        replica.extend((), theirs)
    assert caught.value.ours == federation.notes[size]
    assert caught.value.theirs == theirs
    (kept,) = store.conflicts()
    fork = read_fork(*split(kept.evidence))
    assert fork == read_fork(*caught.value.statements)
    assert (
        judge_fork(fork, replica.log_key) == f"the log signed two different trees of {size} entries"
    )


def test_entries_that_do_not_lead_to_the_signed_root_move_nothing(store: LogStore) -> None:
    federation = Federation.found(("basel",))
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    before = federation.checkpoint()
    other = forked(federation, federation.log.size - 1, 2)
    federation.say(COORDINATOR, NOTED)
    with pytest.raises(NotConsistent, match="do not give the root signed for"):
        replica.extend(federation.leaves[-1:], other.checkpoint())
    assert replica.size == store.size() == federation.log.size - 1
    (kept,) = store.conflicts()  # kept, and called no more than it is
    assert (kept.kind, *split(kept.evidence)) == ("unexplained", before, other.checkpoint())
    more = forked(federation, federation.log.size - 2, 4)
    with pytest.raises(NotAdmitted):
        replica.extend(more.leaves[replica.size :], more.checkpoint())
    assert list(store.conflicts()) == [kept]  # a liar does not fill the store
    catch_up(replica, federation)


def test_a_write_that_fails_leaves_memory_as_the_store_is(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation.found(("basel",))
    replica = copy_of(federation, store)
    state = replica.state

    def fails(*_: object) -> int:
        raise StoreConflict("here", "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "append", fails)
        with pytest.raises(StoreConflict, match="disk is full"):
            catch_up(replica, federation)
    assert (replica.size, replica.state, replica.checkpoint) == (1, state, None)
    catch_up(replica, federation)
    assert reopen(federation, store).size == federation.log.size
