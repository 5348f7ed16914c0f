"""New keys for the coordinator, through any crash: made first, in force second, in use last.

Its entry, request and sealing key change like a member's: by ``key.rotated``, which the old entry key
signs, or by a change that k organisations endorsed (``rekey``) where evidence has ended that key. The log
key stays, since the log is that key's: whoever lost it, or had it stolen, needs a new genesis.

::

    keyring.next.json      new keys, encrypted, with the same log key; until they are in use

Nothing rests sealed to a coordinator's keys, so the old file is not kept: the new one takes its place in
one rename, when the coordinator's own log shows that they are in force. A rotation is said by a process
that holds the log's lock, so never beside a running coordinator. Whatever dies when, the next start
finds which keys the log knows (`settle`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from coordinator.errors import KeysEnded, NotSequencing, RotationRefused
from coordinator.sequencing.sequencer import Sequencer
from coordinator.settings import HEAD, KEYRING, CoordinatorSettings
from ledger.copies.snapshot import SnapshotFile
from ledger.copies.store import LogStore, exclusive_lock
from ledger.copies.whole_file import flush_folder
from ledger.entries.rekey_request import RekeyRequest
from ledger.exchange.renewal import NEXT, in_force, rotation
from ledger.formats.key_file import Strength, load_keyring, save_keyring
from ledger.formats.keys import KeyRing
from ledger.rules.state import State

SAY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Rotated:
    """New keys that are in force and in use.

    Attributes:
        handle: the coordinator's.
        key: id of its new entry key.
        index: entry at which the old one ended; None where an earlier run, or k organisations, said so.
    """

    handle: str
    key: str
    index: int | None


def rotate_keys(settings: CoordinatorSettings, passphrase: bytes, strength: Strength) -> Rotated:
    """Make new keys, put them into force with the old ones in hand, and use them.

    Args:
        settings: of a coordinator that does not run.
        passphrase: of its key file, and of the new one.
        strength: of the new one.

    Raises:
        AlreadyRunning: it runs; stop it first.
        KeysEnded: the old entry key cannot speak any more: `request_keys`.
        RotationRefused: it is in the log, and void; the old keys stay.
        NotSequencing: it is not known whether it is in the log; the next start finds out.
        CoordinatorError, LedgerError: the log cannot be opened; says why.
    """
    ring = load_keyring(settings.home / KEYRING, passphrase)
    store = LogStore.open(settings.database_url)
    try:
        with exclusive_lock(settings.database_url):
            sequencer = Sequencer(
                store,
                ring,
                settings.federation,
                head=settings.home / HEAD,
                snapshots=snapshot_file(settings, ring),
            )
            sequencer.start()
            try:
                return _rotate(settings.home, sequencer, ring, passphrase, strength)
            finally:
                sequencer.close()
    finally:
        store.close()


def request_keys(
    home: Path, federation: str, passphrase: bytes, strength: Strength
) -> RekeyRequest:
    """Make new keys where the old entry key has ended, and the request for them.

    The same keys again when they were made before. They are used from the start after k organisations
    have put them into force.

    Raises:
        KeyFileError, WrongPassphrase: a key file does not open, or cannot be written.
    """
    ring = load_keyring(home / KEYRING, passphrase)
    return RekeyRequest.of(federation, _next_keys(home, ring, passphrase, strength))


def coming_keys(home: Path, passphrase: bytes) -> KeyRing | None:
    """New keys that were made and are not in use yet.

    Raises:
        KeyFileError, WrongPassphrase: they do not open.
    """
    return load_keyring(home / NEXT, passphrase) if (home / NEXT).exists() else None


def settle(home: Path, state: State, ring: KeyRing, coming: KeyRing | None) -> KeyRing:
    """The keys to go on with: the new ones, which take the old ones' place, where the log knows them.

    Args:
        home: the coordinator's.
        state: of its whole log.
        ring: the keys in use.
        coming: new ones, as `coming_keys` gives them.
    """
    if coming is None:
        return ring
    if coming.entry.id == ring.entry.id or not in_force(state, coming):
        return ring
    (home / NEXT).replace(home / KEYRING)
    flush_folder(home)
    return coming


def snapshot_file(settings: CoordinatorSettings, ring: KeyRing) -> SnapshotFile | None:
    """The snapshot in a home. It is under the log key's, which outlives every rotation."""
    return None if ring.log is None else SnapshotFile.of(settings.home, ring.log)


def _rotate(
    home: Path, sequencer: Sequencer, ring: KeyRing, passphrase: bytes, strength: Strength
) -> Rotated:
    settled = settle(home, sequencer.view.state, ring, coming_keys(home, passphrase))
    if settled is not ring:
        return Rotated(settled.handle, settled.entry.id, None)
    if not sequencer.speaks:
        raise KeysEnded(ring.entry.id)
    coming = _next_keys(home, ring, passphrase, strength)
    operation = rotation(sequencer.view.state.federation, coming)
    try:
        (receipt,) = sequencer.say(operation).result(SAY_TIMEOUT_S)
    except TimeoutError:
        waited = f"nothing was written for {SAY_TIMEOUT_S:g} s; the same command goes on from here"
        raise NotSequencing(waited) from None
    if receipt.reason is not None:
        (home / NEXT).unlink()
        flush_folder(home)
        raise RotationRefused(receipt.index, receipt.reason)
    settle(home, sequencer.view.state, ring, coming)
    return Rotated(coming.handle, coming.entry.id, receipt.index)


def _next_keys(home: Path, ring: KeyRing, passphrase: bytes, strength: Strength) -> KeyRing:
    """New keys beside those in use; the same ones when they were made before."""
    held = coming_keys(home, passphrase)
    if held is not None and held.entry.id != ring.entry.id:
        return held
    (home / NEXT).unlink(missing_ok=True)
    made = replace(KeyRing.generate(ring.handle, ring.role), log=ring.log)
    save_keyring(home / NEXT, made, passphrase, strength=strength)
    return made
