"""Founding a federation: entry 0, its first checkpoint, and the coordinator's home.

::

    coordinator.json    settings; written last, so that a home without it is no home
    keyring.json        private keys, encrypted
    genesis.leaf        entry 0: what every member trusts from the start
    ledger.db           the log (or another database by URL)
    head.note           the newest signed checkpoint (``head.py``)
    snapshot            of a large log, for a fast start (``opening.py``); none at first
    blobs/              documents, updates, models

The invitations' one-time secrets are returned and kept nowhere here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.errors import HomeUnusable
from coordinator.sequencing.head import write_head
from coordinator.settings import BLOBS, GENESIS, HEAD, JSON, KEYRING, CoordinatorSettings
from ledger.copies.blobs import BlobStore
from ledger.copies.store import LogStore, Row, exclusive_lock
from ledger.copies.whole_file import replace_file
from ledger.entries.author import clock_ms
from ledger.entries.entry import federation_id, genesis_body, log_origin, sign_entry
from ledger.entries.invitation import InvitationFile, invitation_file, member_keys, new_invitation
from ledger.entries.operations.federation import FederationFounded, Policy, Seat
from ledger.entries.operations.values import PublicKey
from ledger.errors import MalformedInput
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.key_file import Strength, save_keyring
from ledger.formats.keys import KeyRing
from ledger.formats.strict import canonical
from ledger.rules.log import Log


@dataclass(frozen=True, slots=True)
class Founded:
    """A new federation.

    Attributes:
        federation: its id.
        genesis: leaf of entry 0, which every member gets.
        keyring: the coordinator's keys.
        invitations: one an organisation, secrets included; hand them over as passwords.
    """

    federation: str
    genesis: bytes
    keyring: KeyRing
    invitations: tuple[InvitationFile, ...]


def found_federation(
    home: Path,
    passphrase: bytes,
    *,
    name: str,
    organisation: str,
    policy: Policy,
    seats: Mapping[str, Sequence[Seat]],
    url: str,
    handle: str = "coordinator",
    ca: bytes | None = None,
    database: str | None = None,
    port: int | None = None,
    strength: Strength = "moderate",
    now_ms: int | None = None,
) -> Founded:
    """Make a federation and the home of its coordinator.

    Args:
        home: a directory that is empty or not there yet.
        passphrase: for the coordinator's keys.
        name: of the federation.
        organisation: that runs the coordinator; no hospital of the federation.
        policy: in force from the start.
        seats: organisation -> who may join for it.
        url: where members will reach the coordinator.
        handle: the coordinator's own.
        ca: PEM of a private certificate authority that members should trust.
        database: URL of the log's database; by default SQLite in the home.
        port: on which the coordinator listens; by default the settings' own.
        strength: of the key file.
        now_ms: POSIX milliseconds; by default the clock's.

    Raises:
        HomeUnusable: the directory is taken or cannot be written.
        StoreError: the database cannot be used, or holds a log already.
        MalformedInput: a name is out of bounds.
    """
    _check_seats(seats, organisation, handle)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(home.iterdir()):
            raise HomeUnusable(home, "it is not empty; choose another directory")
    except OSError as error:
        raise HomeUnusable(home, f"it cannot be made: {error.strerror}") from None
    ring = KeyRing.generate(handle, "coordinator")
    log_key = ring.log
    if log_key is None:
        raise HomeUnusable(home, "a coordinator's key ring came without a log key")
    drafts = {org: new_invitation(org, tuple(places)) for org, places in sorted(seats.items())}
    op = FederationFounded(
        type="federation.founded",
        name=name,
        policy=policy,
        organisation=organisation,
        keys=member_keys(ring),
        log_key=PublicKey(alg="ed25519", public=log_key.public.hex()),
        invitations=tuple(invitation for invitation, _ in drafts.values()),
    )
    at_ms = clock_ms() if now_ms is None else now_ms
    entry = sign_entry(genesis_body(handle, ring.entry.id, at_ms, op), ring.entry)
    federation = federation_id(entry)
    log = Log()
    log.append(log.judge(entry.leaf))
    settings = CoordinatorSettings(federation=federation, home=home, database=database)
    invitations = tuple(
        invitation_file(invitation, secret, url=url, genesis=entry.leaf, ca=ca)
        for invitation, secret in drafts.values()
    )
    note = sign_checkpoint(log_key, Checkpoint(log_origin(federation), 1, log.tree.root()))
    save_keyring(home / KEYRING, ring, passphrase, strength=strength)
    replace_file(home / GENESIS, entry.leaf)
    BlobStore(home / BLOBS)
    store = LogStore.open(settings.database_url)
    try:
        with exclusive_lock(settings.database_url):
            row = Row(entry.raw, entry.signature, bytes.fromhex(entry.hash), ring.entry.id, 0)
            store.append(0, [row], (1, note))
    finally:
        store.close()
    write_head(home / HEAD, note)
    plain: dict[str, str | int] = {"federation": federation}
    plain |= {} if database is None else {"database": database}
    plain |= {} if port is None else {"port": port}
    replace_file(home / JSON, canonical(plain) + b"\n")
    return Founded(federation, entry.leaf, ring, invitations)


def _check_seats(seats: Mapping[str, Sequence[Seat]], organisation: str, handle: str) -> None:
    handles = [handle, *(seat.handle for places in seats.values() for seat in places)]
    twice = sorted({name for name in handles if handles.count(name) > 1})
    if twice:
        raise MalformedInput("seats", f"the handle {twice[0]!r} is given twice")
    if organisation in seats:
        raise MalformedInput(
            "seats", f"{organisation} runs the coordinator; it cannot also be invited"
        )
