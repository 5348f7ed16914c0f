"""Two entries at one place of a chain: kept, said once, and whom that ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.evidence import frame, judge_equivocation, split
from ledger.copies.store import LogStore
from ledger.entries.operations.log import TimeNoted
from ledger.errors import (
    NotAdmitted,
    NotConsistent,
)
from tests.coordinator.sequenced import reviewed, sequencing, verified
from tests.federation import COORDINATOR, Federation, steward_of
from tests.patience import PATIENCE_S


def test_a_second_entry_at_a_place_of_a_chain_is_kept_as_evidence_once_a_key(
    federation: Federation, home: Path
) -> None:
    good = federation.entry(steward_of("basel"), reviewed(federation))
    rivals = [federation.entry(steward_of("basel"), reviewed(federation, n)) for n in (1, 2, 3)]
    forged = bytearray(rivals[0].leaf)
    forged[-1] ^= 1

    def refused(sequencer: Sequencer, *leaves: bytes) -> None:
        for future in [sequencer.submit(leaf) for leaf in leaves]:
            with pytest.raises(NotAdmitted, match=r"chain goes on|was retired at entry"):
                future.result(PATIENCE_S)

    with sequencing(federation, home) as sequencer:
        taken = sequencer.submit(good.leaf)
        refused(sequencer, bytes(forged), rivals[0].leaf, rivals[1].leaf)
        taken_at = taken.result(PATIENCE_S)
        assert taken_at.applied
        key = sequencer.view.state.keys[good.body.key]
        assert key.conflicted_at == taken_at.index + 1  # the coordinator said so at once
        size = sequencer.view.size
    with sequencing(federation, home) as sequencer:
        refused(sequencer, rivals[2].leaf)
        assert sequencer.view.size == size
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    (kept,) = store.conflicts()
    state = federation.state
    store.close()
    assert split(kept.evidence) == (good.leaf, rivals[0].leaf)
    found = judge_equivocation(kept.evidence, federation.id, state.keys)
    assert (found.member, found.seq) == (steward_of("basel"), good.body.seq)
    with pytest.raises(NotConsistent):
        judge_equivocation(kept.evidence, "0" * 64, state.keys)


def test_evidence_that_was_kept_before_a_crash_is_said_at_the_next_start(
    federation: Federation, home: Path
) -> None:
    rivals = [federation.entry(steward_of("basel"), reviewed(federation, n)) for n in (1, 2)]
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    store.put_conflict("equivocation", frame(rivals[0].leaf, rivals[1].leaf))
    with sequencing(federation, home, store) as sequencer:
        sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        key = sequencer.view.state.keys[rivals[0].body.key]
        assert key.conflicted_at == federation.log.size
    assert verified(federation, home).size == federation.log.size + 2


def test_kept_evidence_that_does_not_hold_is_said_by_nobody(
    federation: Federation, home: Path
) -> None:
    rivals = [federation.entry(steward_of("basel"), reviewed(federation, n)) for n in (1, 2)]
    forged = bytearray(rivals[1].leaf)
    forged[-1] ^= 1
    store = LogStore.open(f"sqlite:///{home / 'ledger.db'}")
    store.put_conflict("equivocation", frame(rivals[0].leaf, bytes(forged)))
    with sequencing(federation, home, store) as sequencer:
        sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        assert sequencer.view.size == federation.log.size + 1


def test_a_conflict_of_the_coordinators_own_key_silences_it_and_nobody_else(
    federation: Federation, home: Path
) -> None:
    hub = [
        federation.entry(COORDINATOR, TimeNoted(type="time.noted"), at_ms=federation.now_ms + n)
        for n in (1, 2)
    ]
    with sequencing(federation, home) as sequencer:
        assert sequencer.submit(hub[0].leaf).result(PATIENCE_S).applied
        with pytest.raises(NotAdmitted, match="chain goes on"):
            sequencer.submit(hub[1].leaf).result(PATIENCE_S)
        with pytest.raises(NotAdmitted, match="entry key is not active"):
            sequencer.say(TimeNoted(type="time.noted")).result(PATIENCE_S)
        entry = federation.entry(steward_of("basel"), reviewed(federation))
        assert sequencer.submit(entry.leaf).result(PATIENCE_S).applied
        assert sequencer.view.state.keys[hub[0].body.key].conflicted_at is not None
    with sequencing(federation, home) as sequencer:
        assert sequencer.view.stopped is None
