"""New keys for a member's home, through any crash: made first, in force second, in use last.

::

    keyring.next.json      new keys, encrypted, from before anybody heard of them until they are in use
    keyring-<id>.json      keys that were in use before; kept, since old things may be sealed to them
    hospital.key.next      what was sealed to the old keys, sealed to the new ones

New keys come into force in the log: by ``key.rotated`` with the old ones in hand, or by a change that k
organisations endorsed (``rekey``). This machine changes over when its own verified copy shows that, in
this order, each step durable before the next: (1) whatever is sealed to the old sealing key is sealed to
the new one beside it; (2) the old key file gets its other name; (3) the new one takes its place, in one
rename; (4) what was sealed anew takes the place of the old. Each step can be done again. So whenever the
power fails, the home opens with the keys that the log knows.

Between 'in the log' and 'in the own copy' a home knows neither: `settle` asks the coordinator with the
new keys, having sent what was pending; a coordinator that knows them lets them in, and the copy says
whether they are in force. Not promised: that a home opens while a rotation is under way and the
coordinator cannot be reached.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ledger.copies.replica import Replica
from ledger.copies.whole_file import flush_folder, replace_file
from ledger.entries.author import take_lock
from ledger.entries.entry import Entry, parse_leaf
from ledger.entries.invitation import member_keys
from ledger.entries.operations.members import KeyRotated
from ledger.errors import CannotOpen, CoordinatorUnreachable, RequestRefused
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.follow import follow_once
from ledger.formats.key_file import Strength, load_keyring, save_keyring
from ledger.formats.keys import KeyRing, SealingKey, seal
from ledger.rules.members import claim_bytes
from ledger.rules.state import State

KEYRING = "keyring.json"
NEXT = "keyring.next.json"
SEALED = ("hospital.key",)
"""Files of a home that are sealed to its member's sealing key."""
_FORBIDDEN = 403

Connect = Callable[[KeyRing], CoordinatorClient]


def next_keys(home: Path, handle: str, role: str, passphrase: bytes, strength: Strength) -> KeyRing:
    """New keys beside those in use; the same ones when they were made before.

    Raises:
        KeyFileError, WrongPassphrase: they were made before and do not open, or cannot be written.
    """
    path = home / NEXT
    if not path.exists():
        save_keyring(path, KeyRing.generate(handle, role), passphrase, strength=strength)
    return load_keyring(path, passphrase)


def forget_next(home: Path) -> None:
    """Give up new keys that the log will not take."""
    (home / NEXT).unlink(missing_ok=True)
    flush_folder(home)


def rotation(federation: str, ring: KeyRing) -> KeyRotated:
    """What a member says under its old keys to go on with these."""
    keys = member_keys(ring)
    proof = ring.entry.sign("invitation", claim_bytes(federation, ring.handle, keys)).hex()
    return KeyRotated(type="key.rotated", keys=keys, proof=proof)


def in_force(state: State, ring: KeyRing) -> bool:
    """Whether the log's newest state knows these as their member's keys."""
    member = state.members.get(ring.handle)
    return member is not None and member.keys == member_keys(ring)


def settle(
    home: Path,
    passphrase: bytes,
    replica: Replica,
    connect: Connect,
    last_entry: Path,
) -> KeyRing:
    """The keys to open a home with; changes over to new ones when they are in force.

    Args:
        home: its directory.
        passphrase: of all its key files.
        replica: its copy of the log; followed further where that decides.
        connect: a connection under given keys; closed here.
        last_entry: the last leaf that was signed here.

    Raises:
        KeyFileError, WrongPassphrase: a key file does not open.
        AlreadyRunning: another process uses the home.
        CoordinatorUnreachable, RequestRefused: a rotation is under way, and it cannot be known now
            whether the log has it.
        LedgerError: what the coordinator sent does not verify.
    """
    lock = take_lock(last_entry.with_suffix(".lock"))
    try:
        ring = load_keyring(home / KEYRING, passphrase)
        if (home / NEXT).exists():
            coming = load_keyring(home / NEXT, passphrase)
            if coming.entry.id == ring.entry.id:
                forget_next(home)
            elif in_force(replica.state, coming) or _ask(replica, coming, connect, last_entry):
                _change_over(home, ring, coming)
                ring = coming
        _finish(home, ring.sealing)
        return ring
    finally:
        os.close(lock)


def unsettled(home: Path) -> bool:
    """Whether a change of keys was begun here and has not come to its end."""
    return (home / NEXT).exists() or any(_new(home, name).exists() for name in SEALED)


def _ask(replica: Replica, coming: KeyRing, connect: Connect, last_entry: Path) -> bool:
    """Whether new keys are in force by now, as the own copy says once it followed under them."""
    pending = _pending_rotation(last_entry, coming)
    client = connect(coming)
    try:
        if pending is not None:
            try:
                client.submit(pending.leaf)
            except RequestRefused as refusal:
                if refusal.status >= 500:
                    raise
        while follow_once(replica, client):
            pass
    except RequestRefused as refusal:
        if refusal.status == _FORBIDDEN:
            return False  # nobody knows these keys: the old ones are in force
        if pending is not None:
            raise
        return False
    except CoordinatorUnreachable:
        if pending is not None:
            raise
        return False
    finally:
        client.close()
    return in_force(replica.state, coming)


def _pending_rotation(last_entry: Path, coming: KeyRing) -> Entry | None:
    """The rotation to these keys, when it was the last thing that was signed here."""
    try:
        entry = parse_leaf(last_entry.read_bytes())
    except FileNotFoundError:
        return None
    op = entry.body.op
    return entry if isinstance(op, KeyRotated) and op.keys == member_keys(coming) else None


def _change_over(home: Path, old: KeyRing, new: KeyRing) -> None:
    """Steps 1 to 3 of the module's first lines; `_finish` is the fourth."""
    for name in SEALED:
        path = home / name
        if path.exists():
            try:
                plain = old.sealing.open(path.read_bytes())
            except CannotOpen:
                continue  # sealed to keys before these; they are gone, and so is it
            replace_file(_new(home, name), seal(new.sealing.public, plain), private=True)
    replace_file(
        home / f"keyring-{old.entry.id[:12]}.json", (home / KEYRING).read_bytes(), private=True
    )
    (home / NEXT).replace(home / KEYRING)
    flush_folder(home)


def _finish(home: Path, sealing: SealingKey) -> None:
    """Step 4, when the keys in use open what was sealed anew."""
    for name in SEALED:
        new = _new(home, name)
        if not new.exists():
            continue
        try:
            sealing.open(new.read_bytes())
        except CannotOpen:
            if not (home / NEXT).exists():
                new.unlink()  # from a change of keys that was given up
            continue
        new.replace(home / name)
        flush_folder(home)


def _new(home: Path, name: str) -> Path:
    return home / f"{name}.next"
