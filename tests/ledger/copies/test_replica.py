"""A verified copy: it grows by what verifies, keeps evidence of what cannot be, and moves nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.copies.evidence import Fork, judge_fork, read_fork, split
from ledger.copies.leaves import read_leaves
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore, Row
from ledger.entries.operations.log import NodeReady, NodeResumed, TimeNoted
from ledger.entries.operations.members import KeyRevoked
from ledger.errors import (
    BadSignature,
    ForkDetected,
    MalformedInput,
    NotAdmitted,
    NotConsistent,
    NotWitnessed,
    StoreConflict,
    UnknownKey,
)
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.keys import SigningKey
from ledger.rules.encoding import digest
from tests.federation import COORDINATOR, HOSPITALS, Federation, node_of, steward_of

NODES = tuple(map(node_of, HOSPITALS))
NOTED = TimeNoted(type="time.noted")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    opened = LogStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def copy_of(federation: Federation, store: LogStore) -> Replica:
    return Replica.create(store, federation.leaves[0], federation.id)


def catch_up(replica: Replica, federation: Federation) -> None:
    replica.extend(federation.leaves[replica.size :], federation.checkpoint())


def reopen(federation: Federation, store: LogStore) -> Replica:
    return Replica.open(store, federation.id)


def test_a_copy_holds_what_the_log_holds(store: LogStore) -> None:
    federation = Federation.found(("basel", "bern"))
    replica = copy_of(federation, store)
    federation.play(federation.start())
    taken = replica.extend(federation.leaves[1:], federation.checkpoint())
    assert [item.index for item in taken] == list(range(1, federation.log.size))
    assert replica.size == federation.log.size
    assert replica.root() == federation.log.tree.root()
    assert replica.checkpoint == federation.checkpoint()
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


# --- finals ---------------------------------------------------------------------------------------


def test_genesis_is_final_by_definition_and_gives_no_permission(store: LogStore) -> None:
    federation = Federation.found()
    replica = copy_of(federation, store)
    assert (replica.final.size, replica.final.note, replica.final.fresh(0)) == (1, None, False)


def test_a_copy_of_genesis_alone_takes_no_log_that_its_hospitals_do_not_stand_behind(
    store: LogStore,
) -> None:
    federation = Federation.found()
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    for cosigners in ((), NODES[:2]):  # no witness counted at genesis, four count here
        with pytest.raises(NotWitnessed) as caught:
            replica.accept_final(federation.checkpoint(cosigners))
        assert (caught.value.needed, len(caught.value.missing)) == (3, 4 - len(cosigners))
        assert (replica.final.size, replica.final.fresh(0)) == (1, False)
    final = replica.accept_final(federation.checkpoint(NODES[:3], at_s=1000))
    assert final is not None
    assert final.fresh(1000)
    assert not final.fresh(1001)


def test_a_checkpoint_is_final_and_fresh_with_both_quorums(store: LogStore) -> None:
    federation = Federation.found(HOSPITALS[:2])
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    replica.accept_final(federation.finalize())
    revoke = KeyRevoked(type="key.revoked", member=NODES[1], compromised_since_ms=None)
    federation.say(steward_of("bern"), revoke)
    catch_up(replica, federation)
    federation.checkpoint(NODES[:1], at_s=2000)
    final = replica.accept_final(federation.checkpoint(NODES[1:2], at_s=1000))
    assert final is not None
    assert final.quorum is not None
    assert (final.quorum.needed, set(final.quorum.signed)) == (1, {"basel"})
    assert final.fresh(1000)
    assert not final.fresh(1001)  # basel is enough now; before, bern had to sign too
    assert replica.cosigned_s(federation.log.size - 1) == 2000


def test_a_checkpoint_is_final_with_a_quorum_of_the_final_before(store: LogStore) -> None:
    federation = Federation.found()
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    assert replica.accept_final(federation.finalize()) is not None
    federation.say(COORDINATOR, NOTED)
    catch_up(replica, federation)
    with pytest.raises(NotWitnessed) as caught:
        replica.accept_final(federation.checkpoint(NODES[:2]))
    assert caught.value.needed == 3
    assert caught.value.missing == {"chur", "davos"}
    assert replica.final.size == federation.log.size - 1
    final = replica.accept_final(federation.checkpoint(NODES[:3], at_s=1000))
    assert final == replica.final
    assert final is not None
    assert final.size == federation.log.size
    again = reopen(federation, store)
    assert again.final == final
    assert final.fresh(federation.now_ms // 1000 - 5) is False


def test_an_entry_is_as_old_as_the_first_quorum_over_it(store: LogStore) -> None:
    federation = Federation.found()
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    index = federation.log.size
    assert replica.cosigned_s(0) is None
    for at_s in (1000, 2000):
        federation.say(COORDINATOR, NOTED)
        catch_up(replica, federation)
        for node, later_s in zip(NODES, (3, 1, 2, 0), strict=True):
            note = federation.checkpoint([node], at_s=at_s + later_s)
        replica.accept_final(note)
    for each in (replica, reopen(federation, store)):
        # Three of four must: the third of 1000, 1001, 1002 and 1003.
        assert [each.cosigned_s(at) for at in (0, index, index + 1, index + 2)] == [
            1002,
            1002,
            2002,
            None,
        ]


def test_the_quorum_is_that_of_the_final_before_also_when_a_hospital_left(store: LogStore) -> None:
    federation = Federation.found(HOSPITALS[:2])
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    replica.accept_final(federation.finalize())
    revoke = KeyRevoked(type="key.revoked", member=NODES[1], compromised_since_ms=None)
    federation.say(steward_of("bern"), revoke)
    catch_up(replica, federation)
    alone = federation.checkpoint(NODES[:1])
    with pytest.raises(NotWitnessed):
        replica.accept_final(alone)
    replica.accept_final(federation.checkpoint(NODES[:2]))
    federation.say(COORDINATOR, NOTED)
    catch_up(replica, federation)
    replica.accept_final(federation.checkpoint(NODES[:1]))
    assert replica.final.size == federation.log.size


def test_an_older_final_says_nothing_new_whoever_is_a_witness_now(store: LogStore) -> None:
    federation = Federation.found(HOSPITALS[:1], ready=False)
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    old = federation.checkpoint()
    replica.accept_final(old)
    federation.say(NODES[0], NodeReady(type="node.ready", protocol=1))
    catch_up(replica, federation)
    new = replica.accept_final(federation.finalize())
    assert replica.accept_final(old) is None  # though basel, who counts by now, did not sign it
    assert replica.final == new


def test_a_final_of_what_is_not_here_yet_is_refused(store: LogStore) -> None:
    federation = Federation.found(HOSPITALS[:1])
    replica = copy_of(federation, store)
    with pytest.raises(NotConsistent, match="only 1 are here"):
        replica.accept_final(federation.finalize())


def test_every_final_is_judged_again_on_opening_also_beyond_the_first_page(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = Federation.found(HOSPITALS[:1])
    replica = copy_of(federation, store)
    for _ in range(5):
        federation.say(COORDINATOR, NOTED)
        catch_up(replica, federation)
        replica.accept_final(federation.finalize())
    whole = store.finals

    def page(after: int = -1, limit: int = 2) -> tuple[object, ...]:
        return whole(after, 2)

    monkeypatch.setattr(store, "finals", page)
    assert reopen(federation, store).final.size == federation.log.size


# --- a store that somebody changed ----------------------------------------------------------------


def stored(tmp_path: Path) -> tuple[Federation, Path]:
    federation = Federation.found(HOSPITALS[:2])
    store = LogStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    replica.accept_final(federation.finalize())
    federation.say(NODES[0], NodeResumed(type="node.resumed", nonce="0" * 64))
    catch_up(replica, federation)
    store.close()
    return federation, tmp_path / "ledger.db"


def tamper(path: Path, *statements: str) -> None:
    """What an administrator with the file can do: the triggers do not stop them."""
    with sqlite3.connect(path) as database:
        triggers = database.execute("select name from sqlite_master where type='trigger'")
        for (name,) in triggers.fetchall():
            database.execute(f'drop trigger "{name}"')
        for statement in statements:
            database.execute(statement)


TAMPERINGS = {
    "a body": (
        "update entries set body = cast(replace(cast(body as text), '\"seq\":0', '\"seq\":1') "
        'as blob) where "index" = 2',
        (MalformedInput, NotAdmitted, BadSignature, NotConsistent),
    ),
    "a signature": (
        'update entries set signature = zeroblob(64) where "index" = 3',
        (BadSignature,),
    ),
    "a leaf hash": (
        'update entries set leaf = randomblob(32) where "index" = 3',
        (NotConsistent,),
    ),
    "a sequence number": (
        'update entries set seq = seq + 7 where "index" = 3',
        (NotConsistent,),
    ),
    "the last entry gone": (
        'delete from entries where "index" = (select max("index") from entries)',
        (NotConsistent,),
    ),
    "a checkpoint's root": (
        "update checkpoints set note = cast(replace(cast(note as text), 'A', 'B') as blob)",
        (BadSignature, MalformedInput, UnknownKey),
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_changed_store_is_not_opened(tmp_path: Path, name: str) -> None:
    federation, path = stored(tmp_path)
    statement, errors = TAMPERINGS[name]
    tamper(path, statement)
    store = LogStore.open(f"sqlite:///{path}")
    with pytest.raises(errors):
        Replica.open(store, federation.id)
    store.close()


def test_a_store_cut_back_with_its_newest_checkpoint_is_not_behind_its_finals(
    tmp_path: Path,
) -> None:
    federation, path = stored(tmp_path)
    tamper(
        path,
        'delete from entries where "index" > 3',
        "delete from checkpoints where size > 4",
    )
    store = LogStore.open(f"sqlite:///{path}")
    with pytest.raises(NotConsistent, match="only 4 are here"):
        Replica.open(store, federation.id)
    store.close()


def test_the_copy_of_another_federation_is_not_opened(tmp_path: Path) -> None:
    _, path = stored(tmp_path)
    store = LogStore.open(f"sqlite:///{path}")
    with pytest.raises(NotAdmitted, match="genesis of another federation"):
        Replica.open(store, "0" * 64)
    store.close()


def test_rows_in_another_order_are_not_this_log(tmp_path: Path) -> None:
    federation = Federation.found(HOSPITALS[:2])
    order = [0, 2, 1, *range(3, federation.log.size)]
    entries = [federation.entries()[n] for n in order]
    store = LogStore.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    rows = [Row(e.raw, e.signature, bytes.fromhex(e.hash), e.body.key, e.body.seq) for e in entries]
    store.append(0, rows, (federation.log.size, federation.checkpoint()))
    with pytest.raises((NotAdmitted, NotConsistent)):
        Replica.open(store, federation.id)
    store.close()
