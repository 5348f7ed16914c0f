"""Which checkpoints become final at the sequencer, by whose cosignatures, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.sequencing.head import read_head
from coordinator.sequencing.sequencer import Sequencer
from ledger.entries.operations.log import NodeReady, TimeNoted
from ledger.errors import (
    BadSignature,
    NotConsistent,
    UnknownKey,
)
from ledger.formats.checkpoint import Checkpoint, cosign, sign_checkpoint
from ledger.formats.witness import witness_name
from tests.coordinator.sequenced import reviewed, sequencing, verified
from tests.federation import COORDINATOR, Federation, node_of, steward_of
from tests.patience import PATIENCE_S


def line(federation: Federation, handle: str, note: bytes) -> bytes:
    witness = federation.rings[handle].witness
    name = witness_name(federation.origin, handle)
    return cosign(note, witness, name, federation.now_ms // 1000)


def test_without_witnesses_a_checkpoint_is_final_when_signed(tmp_path: Path) -> None:
    federation = Federation.found(("basel",), ready=False)
    federation.persist(tmp_path).close()
    with sequencing(federation, tmp_path) as sequencer:
        assert sequencer.view.final_size == federation.log.size
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        sequencer.submit(entry.leaf).result(PATIENCE_S)
        sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == federation.log.size + 2
    assert verified(federation, tmp_path).final.size == federation.log.size + 2


def test_a_checkpoint_is_final_with_its_quorum_and_not_one_before(
    federation: Federation, tmp_path: Path
) -> None:
    federation.finalize()
    federation.finals = [federation.log.size - 3, federation.log.size]
    federation.notes[federation.log.size - 3] = _signed_at(federation, federation.log.size - 3)
    federation.say(steward_of("basel"), reviewed(federation))
    federation.persist(tmp_path).close()
    with sequencing(federation, tmp_path) as sequencer:
        before, note = sequencer.view.final_size, sequencer.view.note
        size = sequencer.view.size
        for handle in ("basel-node", "basel-node", "bern-node"):
            sequencer.cosign(size, line(federation, handle, note)).result(PATIENCE_S)
            assert sequencer.view.final_size == before
        assert b"bern-node" in sequencer.checkpoint()
        sequencer.cosign(size, line(federation, "chur-node", note)).result(PATIENCE_S)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == size
        assert sequencer.view.final_note == sequencer.checkpoint()
    assert verified(federation, tmp_path).final.size == size


def _signed_at(federation: Federation, size: int) -> bytes:
    """The note over an earlier size: with no witness ready yet, the log's word was final."""
    key = federation.rings[COORDINATOR].log
    assert key is not None
    return sign_checkpoint(key, Checkpoint(federation.origin, size, federation.log.tree.root(size)))


def test_a_strangers_cosignature_is_refused_and_an_unknown_size_too(
    federation: Federation, home: Path
) -> None:
    with sequencing(federation, home) as sequencer:
        federation.tick_ms = 0
        sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        note, size = sequencer.view.note, sequencer.view.size
        with pytest.raises(UnknownKey, match="by no node of this federation"):
            sequencer.cosign(size, line(federation, steward_of("basel"), note)).result(PATIENCE_S)
        with pytest.raises(NotConsistent, match="signed none of that size"):
            sequencer.cosign(size + 1, line(federation, "bern-node", note)).result(PATIENCE_S)
        for beyond in (
            2**53 - 1,
            2**63,
            10**30,
        ):  # no entry has such a number, nor SQLite's integers
            with pytest.raises(NotConsistent, match="signed none of that size"):
                sequencer.cosign(beyond, line(federation, "bern-node", note)).result(PATIENCE_S)
        bad = line(federation, "bern-node", _signed_at(federation, size - 1))
        with pytest.raises(BadSignature, match="bern-node"):
            sequencer.cosign(size, bad).result(PATIENCE_S)
        assert sequencer.view.stopped is None


def test_a_checkpoint_nobody_waits_for_is_not_final_at_once_and_one_somebody_needs_is(
    tmp_path: Path,
) -> None:
    federation = Federation.found(("basel",), ready=False)
    federation.persist(tmp_path).close()
    with sequencing(federation, tmp_path, final_interval_s=3600.0) as sequencer:
        opened = sequencer.view.final_size
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        sequencer.submit(entry.leaf).result(PATIENCE_S)
        federation.take(entry)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == opened
        ready = federation.entry(node_of("basel"), NodeReady(type="node.ready", protocol=1))
        sequencer.submit(ready.leaf).result(PATIENCE_S)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == opened  # basel counts in it, and has not cosigned it
        note, size = sequencer.view.note, sequencer.view.size
        sequencer.cosign(size, line(federation, node_of("basel"), note)).result(PATIENCE_S)
        _settle(sequencer, federation)
        assert sequencer.view.final_size == opened + 2


def _settle(sequencer: Sequencer, federation: Federation) -> None:
    """Wait until the sequencer's thread has come round once more."""
    for _ in range(2):
        sequencer.examine(federation.checkpoint()).result(PATIENCE_S)


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_head_file_that_a_power_loss_cut_off_keeps_nobody_from_starting(
    federation: Federation, home: Path, keep: int
) -> None:
    with sequencing(federation, home) as sequencer:
        note = sequencer.view.note
    head = home / "head.note"
    assert read_head(head) == note
    head.write_bytes(head.read_bytes()[:keep])
    with sequencing(federation, home) as sequencer:
        assert sequencer.view.note == note
    assert read_head(head) == note
