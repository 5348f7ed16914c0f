"""Which checkpoints a copy holds for final, and how old that makes an entry."""

from __future__ import annotations

import pytest

from ledger.copies.store import LogStore
from ledger.entries.operations.log import NodeReady
from ledger.entries.operations.members import KeyRevoked
from ledger.errors import (
    NotConsistent,
    NotWitnessed,
)
from ledger.rules.finality import standing_quorum
from tests.federation import COORDINATOR, HOSPITALS, Federation, node_of, steward_of
from tests.ledger.copies.followed import NODES, NOTED, catch_up, copy_of, reopen


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
    federation = Federation.found(ready=False)
    for node in NODES[:2]:
        federation.say(node, NodeReady(type="node.ready", protocol=1))
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    replica.accept_final(federation.finalize())
    for node in NODES[2:]:
        federation.say(node, NodeReady(type="node.ready", protocol=1))
    catch_up(replica, federation)
    for hospital, at_s in (("basel", 2000), ("bern", 1000), ("chur", 3000)):
        note = federation.checkpoint([node_of(hospital)], at_s=at_s)
    final = replica.accept_final(note)
    assert final is not None
    assert final.quorum is not None
    assert final.quorum.before is not None
    assert (final.quorum.needed, set(final.quorum.before.signed)) == (3, {"basel", "bern"})
    assert final.fresh(1000)
    assert not final.fresh(1001)  # three of four must sign, and both of those before
    assert replica.cosigned_s(federation.log.size - 1) == 3000


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


def test_a_hospital_that_left_leaves_a_place_that_its_old_key_does_not_fill(
    store: LogStore,
) -> None:
    federation = Federation.found(HOSPITALS[:3])
    replica = copy_of(federation, store)
    catch_up(replica, federation)
    replica.accept_final(federation.finalize())
    revoke = KeyRevoked(type="key.revoked", member=NODES[1], compromised_since_ms=None)
    federation.say(steward_of("bern"), revoke)
    catch_up(replica, federation)
    with pytest.raises(NotWitnessed) as short:
        replica.accept_final(federation.checkpoint(NODES[:3]))  # it held on to its key
    assert short.value.missing == {"bern"}
    federation.say(COORDINATOR, NOTED)
    catch_up(replica, federation)
    assert standing_quorum(replica.state, replica.final.size).lost, "and says so itself"


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
