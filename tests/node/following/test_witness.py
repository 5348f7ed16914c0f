from __future__ import annotations

from pathlib import Path

import pytest

from ledger.copies.evidence import judge_fork, read_fork
from ledger.copies.finals import Final
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.log import TimeNoted
from ledger.errors import ForkDetected
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.note import parse_note
from ledger.formats.witness import judge_quorum
from node.following.witness import Witness, awaits_final, others_suffice, vouched
from tests.federation import COORDINATOR, Federation, node_of

BASEL = node_of("basel")


class Copy:
    """Basel's own copy of a federation's log, and its witness."""

    def __init__(self, federation: Federation, directory: Path) -> None:
        self.federation = federation
        self.url = f"sqlite:///{directory / 'copy.db'}"
        store = LogStore.open(self.url)
        self.replica = Replica.create(store, federation.leaves[0], federation.id)
        self.follow()
        self.start()

    def start(self) -> None:
        self.witness = Witness(self.federation.rings[BASEL].witness, BASEL, self.replica)

    def follow(self) -> None:
        news = self.federation.leaves[self.replica.size :]
        self.replica.extend(news, self.federation.checkpoint())


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(Federation.found(), tmp_path)


def test_the_newest_checkpoint_is_cosigned_once(copy: Copy) -> None:
    now = copy.federation.now_ms
    cosigned = copy.witness.cosign(now)
    assert cosigned is not None
    assert cosigned.size == copy.federation.log.size
    note = parse_note(copy.federation.checkpoint()).encode() + cosigned.line
    quorum = judge_quorum(
        note,
        copy.replica.log_key,
        {"basel": frozenset({copy.federation.rings[BASEL].witness.public})},
    )
    assert quorum.signed == {"basel": now // 1000}
    assert copy.witness.cosign(now) is None
    assert not copy.witness.due


def test_what_was_cosigned_is_remembered_before_it_leaves(copy: Copy) -> None:
    copy.witness.cosign(copy.federation.now_ms)
    remembered = copy.replica.store.witnessed(copy.replica.origin)
    assert remembered is not None
    assert (remembered.size, remembered.root) == (copy.replica.size, copy.replica.root())


def test_a_lost_cosignature_is_made_again(copy: Copy) -> None:
    copy.witness.cosign(copy.federation.now_ms)
    copy.witness.forget()
    assert copy.witness.cosign(copy.federation.now_ms) is not None
    copy.start()
    assert copy.witness.cosign(copy.federation.now_ms) is not None


def test_a_log_whose_time_runs_ahead_is_not_cosigned(copy: Copy) -> None:
    skew = copy.federation.state.policy.skew_ms
    late = copy.federation.now_ms
    copy.federation.say(COORDINATOR, TimeNoted(type="time.noted"))
    copy.follow()
    assert copy.witness.cosign(late - skew - 1) is None
    assert copy.witness.due
    assert copy.witness.cosign(late) is not None


def test_a_copy_that_contradicts_what_was_cosigned_is_a_fork(copy: Copy) -> None:
    log_key = copy.federation.rings[COORDINATOR].log
    assert log_key is not None
    other = Checkpoint(copy.replica.origin, copy.replica.size, bytes(32))
    theirs = sign_checkpoint(log_key, other)
    copy.replica.store.set_witnessed(
        copy.replica.origin, other.size, other.root, theirs, expected_size=0
    )
    with pytest.raises(ForkDetected, match=f"size {other.size}") as caught:
        copy.witness.cosign(copy.federation.now_ms)
    assert caught.value.ours == theirs
    assert [c.kind for c in copy.replica.store.conflicts()] == ["fork"]


def test_a_longer_copy_that_contradicts_what_was_cosigned_is_shown_with_its_proof(
    copy: Copy,
) -> None:
    log_key = copy.federation.rings[COORDINATOR].log
    assert log_key is not None
    other = Checkpoint(copy.replica.origin, copy.replica.size - 2, bytes(32))
    theirs = sign_checkpoint(log_key, other)
    copy.replica.store.set_witnessed(
        copy.replica.origin, other.size, other.root, theirs, expected_size=0
    )
    with pytest.raises(ForkDetected) as caught:
        copy.witness.cosign(copy.federation.now_ms)
    fork = read_fork(*caught.value.statements)
    assert "does not begin with them" in judge_fork(fork, copy.replica.log_key)


def test_a_copy_restored_from_a_backup_cosigns_nothing_older(copy: Copy) -> None:
    size = copy.replica.size + 5
    copy.replica.store.set_witnessed(
        copy.replica.origin, size, bytes(32), b"newer", expected_size=0
    )
    assert copy.witness.cosign(copy.federation.now_ms) is None


@pytest.mark.parametrize(
    ("cosigners", "enough"),
    [
        (("basel", "bern", "chur"), False),
        (("bern", "chur", "davos"), True),
        (("basel", "bern", "chur", "davos"), True),
    ],
)
def test_a_restarted_node_needs_a_quorum_of_others(
    tmp_path: Path, cosigners: tuple[str, ...], enough: bool
) -> None:
    federation = Federation.found()
    note = federation.checkpoint(tuple(map(node_of, cosigners)))
    copy = Copy(federation, tmp_path)
    witnesses = {
        organisation: frozenset(map(bytes.fromhex, keys))
        for organisation, keys in federation.state.witnesses_at(federation.log.size).items()
    }
    quorum = judge_quorum(note, copy.replica.log_key, witnesses)
    final = Final(federation.log.size, quorum.checkpoint.root, note, quorum)
    assert quorum.final
    assert vouched(final, federation.log.size - 1, "basel") is enough
    assert not vouched(final, federation.log.size, "basel"), "it does not cover the statement"


def test_three_of_four_can_finalise_without_the_fourth_but_two_of_three_cannot() -> None:
    four, three = Federation.found(), Federation.found(("basel", "bern", "chur"))
    assert others_suffice(four.state, four.log.size, "basel")
    assert not others_suffice(three.state, three.log.size, "basel")


def test_cosignatures_are_urgent_while_a_permission_waits_for_them() -> None:
    federation = Federation.found(("basel", "bern"))
    experiment = federation.start()
    size = federation.log.size
    assert awaits_final(federation.state, size - 1)
    assert not awaits_final(federation.state, size)
    federation.open_round(experiment)
    assert not awaits_final(federation.state, size)
    federation.reserve(experiment, "basel-heart")
    assert awaits_final(federation.state, size)
    federation.reserve(experiment, "bern-heart")
    reserved = federation.log.size
    for dataset in ("basel-heart", "bern-heart"):
        federation.submit(experiment, dataset)
    assert not awaits_final(federation.state, reserved)
