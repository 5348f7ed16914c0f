"""The coordinator's own keys change through any crash, by itself or by k organisations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator import renewing
from coordinator.errors import KeysEnded, RotationRefused
from coordinator.renewing import coming_keys, request_keys, rotate_keys
from coordinator.sequencing.sequencer import Sequencer
from coordinator.service import Coordinator
from coordinator.settings import KEYRING, CoordinatorSettings
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore, exclusive_lock
from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import ChangeEndorsed, ChangeProposed
from ledger.entries.operations.log import TimeNoted
from ledger.errors import AlreadyRunning, NotAdmitted
from ledger.exchange.renewal import NEXT
from ledger.formats.key_file import load_keyring, save_keyring
from tests.federation import COORDINATOR, Federation, ring_of, steward_of
from tests.patience import PATIENCE_S

PASSPHRASE = b"open sesame"
NOTED = TimeNoted(type="time.noted")


pytestmark = pytest.mark.usefixtures("quick_keys")


@pytest.fixture
def settings(federation: Federation, tmp_path: Path) -> CoordinatorSettings:
    federation.persist(tmp_path).close()
    (tmp_path / "coordinator.json").write_text(json.dumps({"federation": federation.id}))
    save_keyring(
        tmp_path / KEYRING, federation.rings[COORDINATOR], PASSPHRASE, strength="interactive"
    )
    return CoordinatorSettings(federation=federation.id, home=tmp_path, final_interval_s=0.0)


@contextmanager
def running(settings: CoordinatorSettings) -> Iterator[Coordinator]:
    """As ``coordinator run`` opens it."""
    ring = load_keyring(settings.home / KEYRING, PASSPHRASE)
    coordinator = Coordinator(settings, ring, coming_keys(settings.home, PASSPHRASE))
    coordinator.sequencer.start()
    try:
        yield coordinator
    finally:
        coordinator.close()


def rotate(settings: CoordinatorSettings) -> renewing.Rotated:
    return rotate_keys(settings, PASSPHRASE, "interactive")


def works_under_one_key(settings: CoordinatorSettings) -> str:
    """It speaks under the key in its home, a replay verifies, and no second file is left."""
    with running(settings) as coordinator:
        (receipt,) = coordinator.sequencer.say(NOTED).result(PATIENCE_S)
        assert receipt.applied
        state = coordinator.sequencer.view.state
    ring = load_keyring(settings.home / KEYRING, PASSPHRASE)
    assert state.members[COORDINATOR].keys == member_keys(ring)
    active = [k for k, s in state.keys.items() if s.member == COORDINATOR and s.retired_at is None]
    assert active == [ring.entry.id]
    copy = Replica.open(LogStore.open(settings.database_url), settings.federation)
    assert copy.state == state
    return ring.entry.id


def test_new_keys_come_into_force_and_the_log_key_stays(
    settings: CoordinatorSettings, federation: Federation
) -> None:
    old = federation.rings[COORDINATOR]
    done = rotate(settings)
    new = load_keyring(settings.home / KEYRING, PASSPHRASE)
    assert (done.handle, done.key, done.index) == (COORDINATOR, new.entry.id, federation.log.size)
    assert new.log == old.log
    assert not {old.entry.id, old.request.id} & {new.entry.id, new.request.id}
    assert sorted(path.name for path in settings.home.glob("keyring*")) == [KEYRING]
    assert works_under_one_key(settings) == done.key
    assert rotate(settings).key == works_under_one_key(settings) != done.key


def test_the_old_key_says_nothing_more(
    settings: CoordinatorSettings, federation: Federation
) -> None:
    old = (settings.home / KEYRING).read_bytes()
    rotate(settings)
    (settings.home / KEYRING).write_bytes(old)  # from a backup
    with running(settings) as coordinator:
        assert not coordinator.sequencer.speaks
        with pytest.raises(NotAdmitted, match="entry key is not active"):
            coordinator.sequencer.say(NOTED).result(PATIENCE_S)
        stale = federation.entry(COORDINATOR, NOTED)
        with pytest.raises(NotAdmitted, match="was retired at entry"):
            coordinator.sequencer.submit(stale.leaf).result(PATIENCE_S)
    with pytest.raises(KeysEnded, match="consilium coordinator new-keys"):
        rotate(settings)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before it is said", "after it is said", "after the rename"])
@pytest.mark.parametrize("then", ["run", "rotate"])
def test_a_kill_at_any_step_leaves_a_home_that_speaks(
    settings: CoordinatorSettings, monkeypatch: pytest.MonkeyPatch, moment: str, then: str
) -> None:
    say: Callable[..., Future[Any]] = Sequencer.say

    def dying_say(self: Sequencer, *ops: Any) -> Future[Any]:
        if moment == "after it is said":
            say(self, *ops).result(PATIENCE_S)
        raise Killed

    def dying_sync(directory: Path) -> None:
        raise Killed

    before = load_keyring(settings.home / KEYRING, PASSPHRASE).entry.id
    with monkeypatch.context() as patch:
        if moment == "after the rename":
            patch.setattr(renewing, "flush_folder", dying_sync)
        else:
            patch.setattr(Sequencer, "say", dying_say)
        with pytest.raises(Killed):
            rotate(settings)
    if then == "rotate":
        said = rotate(settings)
        assert (said.index is None) == (moment == "after it is said")
        assert works_under_one_key(settings) == said.key != before
    else:
        kept = works_under_one_key(settings)
        assert (kept == before) == (moment == "before it is said")


def test_a_running_coordinator_is_not_disturbed(settings: CoordinatorSettings) -> None:
    with exclusive_lock(settings.database_url), pytest.raises(AlreadyRunning):
        rotate(settings)
    assert not (settings.home / NEXT).exists()


def test_keys_that_the_log_refuses_are_given_up(
    settings: CoordinatorSettings, federation: Federation
) -> None:
    from dataclasses import replace

    hub = federation.rings[COORDINATOR]
    taken = replace(ring_of(COORDINATOR, "coordinator"), log=hub.log, request=hub.entry)
    taken = replace(taken, entry=type(hub.entry).generate())
    save_keyring(settings.home / NEXT, taken, PASSPHRASE, strength="interactive")
    with pytest.raises(RotationRefused, match="is void: key_conflict"):
        rotate(settings)
    assert not (settings.home / NEXT).exists()
    assert works_under_one_key(settings) == hub.entry.id


def test_k_organisations_give_it_new_keys_when_evidence_ended_its_own(
    settings: CoordinatorSettings, federation: Federation
) -> None:
    twins = [federation.entry(COORDINATOR, NOTED, at_ms=federation.now_ms + n) for n in (1, 2)]
    with running(settings) as coordinator:
        sequencer = coordinator.sequencer
        assert sequencer.submit(twins[0].leaf).result(PATIENCE_S).applied
        with pytest.raises(NotAdmitted):
            sequencer.submit(twins[1].leaf).result(PATIENCE_S)
        sequencer.submit(b"").exception(PATIENCE_S)  # now the evidence is durable too
        assert not sequencer.speaks
        asked = request_keys(settings.home, federation.id, PASSPHRASE, "interactive")
        assert request_keys(settings.home, federation.id, PASSPHRASE, "interactive") == asked
        follow(federation, settings)
        proposed = federation.entry(
            steward_of("basel"), ChangeProposed(type="change.proposed", change=asked.change)
        )
        assert sequencer.submit(proposed.leaf).result(PATIENCE_S).applied
        follow(federation, settings)
        key = twins[0].body.key
        assert (
            sequencer.view.state.members[COORDINATOR].keys.entry.public != asked.keys.entry.public
        )
        endorsed = federation.entry(
            steward_of("bern"), ChangeEndorsed(type="change.endorsed", change=proposed.hash)
        )
        assert sequencer.submit(endorsed.leaf).result(PATIENCE_S).applied
        assert sequencer.view.state.members[COORDINATOR].keys == asked.keys
        assert not sequencer.speaks  # until it is started anew
    assert works_under_one_key(settings) == asked.fingerprint != key
    assert rotate(settings).index is not None


def follow(federation: Federation, settings: CoordinatorSettings) -> None:
    """Take into the copy in memory what the coordinator's database holds."""
    from ledger.copies.leaves import read_leaves
    from ledger.entries.entry import parse_leaf

    store = LogStore.open(settings.database_url)
    for leaf in list(read_leaves(store, federation.log.size, store.size())):
        federation.take(parse_leaf(leaf))
    store.close()
