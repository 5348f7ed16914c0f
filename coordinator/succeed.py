"""Founding a log that takes over from another: its entry 0, what it carries, and the coordinator's home.

The same home as ``found.py`` makes, with two files more: ``proposal.json``, which stewards endorse, and
``succession.json``, which every member gets. Keys are new, all of them: whatever ended the old log may
have been its coordinator's doing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coordinator.errors import HomeUnusable
from coordinator.sequencing.head import write_head
from coordinator.settings import BLOBS, GENESIS, HEAD, JSON, KEYRING, CoordinatorSettings
from ledger.copies.blobs import BlobStore
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore, Row, exclusive_lock
from ledger.copies.succession import (
    EndorsementFile,
    ProposalFile,
    SuccessionFile,
    endorsed_body,
    last_final,
)
from ledger.copies.whole_file import replace_file
from ledger.entries.author import clock_ms
from ledger.entries.entry import (
    NOTHING_SEEN,
    Body,
    federation_id,
    genesis_body,
    log_origin,
    sign_entry,
)
from ledger.entries.invitation import member_keys
from ledger.entries.operations.succession import FederationSucceeded, Predecessor
from ledger.entries.operations.values import PublicKey
from ledger.errors import SuccessionRefused
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.key_file import Strength, save_keyring
from ledger.formats.keys import KeyRing
from ledger.formats.strict import canonical, encode_b64
from ledger.rules.encoding import digest
from ledger.rules.log import Log
from ledger.rules.succession import carry, part_hash

PROPOSAL = "proposal.json"
SUCCESSION = "succession.json"


def propose_successor(
    home: Path,
    passphrase: bytes,
    old: Replica,
    *,
    organisation: str,
    url: str,
    handle: str = "coordinator",
    ca: bytes | None = None,
    strength: Strength = "moderate",
    now_ms: int | None = None,
) -> ProposalFile:
    """Make new coordinator's keys, and the genesis that stewards are asked to endorse.

    Args:
        home: a directory that is empty or not there yet.
        passphrase: for the new keys.
        old: a verified copy of the log that is succeeded; its last final checkpoint counts.
        organisation: that runs the new coordinator; no hospital of the federation.
        url: where members will reach it.
        handle: its own; the old coordinator's may be taken over.
        ca: PEM of a private certificate authority.
        strength: of the key file.
        now_ms: POSIX milliseconds; by default the clock's.

    Raises:
        HomeUnusable: the directory is taken or cannot be written.
        SuccessionRefused: nothing was final yet, so there is nothing to take over.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(home.iterdir()):
            raise HomeUnusable(home, "it is not empty; choose another directory")
    except OSError as error:
        raise HomeUnusable(home, f"it cannot be made: {error.strerror}") from None
    here = last_final(old)
    state = here.state
    parts = carry(state)
    if not parts:
        raise SuccessionRefused("predecessor", "nobody had joined under a final checkpoint")
    ring = KeyRing.generate(handle, "coordinator")
    if ring.log is None:
        raise HomeUnusable(home, "a coordinator's key ring came without a log key")
    op = FederationSucceeded(
        type="federation.succeeded",
        name=state.name,
        policy=state.policy,
        organisation=organisation,
        keys=member_keys(ring),
        log_key=PublicKey(alg="ed25519", public=ring.log.public.hex()),
        predecessor=Predecessor(
            federation=state.federation, size=state.size, root=here.root, state=digest(state)
        ),
        carried=tuple(map(part_hash, parts)),
        endorsements=(),
    )
    at_ms = max(clock_ms() if now_ms is None else now_ms, state.log_time)
    proposal = ProposalFile(
        format="consilium succession proposal v1",
        url=url,
        ca=None if ca is None else encode_b64(ca),
        body=genesis_body(handle, ring.entry.id, at_ms, op),
        parts=parts,
    )
    save_keyring(home / KEYRING, ring, passphrase, strength=strength)
    replace_file(home / PROPOSAL, canonical(proposal))
    return proposal


def found_successor(
    home: Path,
    proposal: ProposalFile,
    endorsements: Sequence[EndorsementFile],
    keyring: KeyRing,
    *,
    database: str | None = None,
) -> SuccessionFile:
    """Found the new log with its endorsements: entry 0, what it carries, its first checkpoint.

    Args:
        home: that `propose_successor` made.
        proposal: its own.
        endorsements: of stewards of k organisations.
        keyring: the home's.
        database: URL of the new log's database; by default SQLite in the home.

    Raises:
        SuccessionRefused: an endorsement is for something else, or there are too few.
        StoreError: the database cannot be used, or holds a log already.
    """
    log_key = keyring.log
    if log_key is None:
        raise HomeUnusable(home, "its key ring has no log key")
    genesis = sign_entry(endorsed_body(proposal, tuple(endorsements)), keyring.entry)
    federation = federation_id(genesis)
    log = Log()
    entries = [log.append(log.judge(genesis.leaf)).entry]
    for part in proposal.parts:
        head = log.state.keys[keyring.entry.id]
        body = Body(
            v=1,
            federation=federation,
            author=keyring.handle,
            key=keyring.entry.id,
            seq=head.next_seq,
            prev=head.head,
            seen=NOTHING_SEEN,
            at_ms=proposal.body.at_ms,
            op=part,
        )
        entry = sign_entry(body, keyring.entry)
        item = log.append(log.judge(entry.leaf))
        if item.outcome.void == "not_endorsed":
            raise SuccessionRefused(
                "endorsements",
                f"the policy asks for {log.state.policy.endorsements} organisations' stewards, and "
                f"fewer have signed ({len(endorsements)} files are here)",
            )
        if item.outcome.void is not None:
            raise SuccessionRefused(f"carried part {item.index}", item.outcome.void)
        entries.append(item.entry)
    settings = CoordinatorSettings(federation=federation, home=home, database=database)
    note = sign_checkpoint(log_key, Checkpoint(log_origin(federation), log.size, log.tree.root()))
    replace_file(home / GENESIS, genesis.leaf)
    BlobStore(home / BLOBS)
    store = LogStore.open(settings.database_url)
    try:
        with exclusive_lock(settings.database_url):
            rows = [
                Row(e.raw, e.signature, bytes.fromhex(e.hash), e.body.key, e.body.seq)
                for e in entries
            ]
            store.append(0, rows, (log.size, note))
    finally:
        store.close()
    write_head(home / HEAD, note)
    succession = SuccessionFile(
        format="consilium succession v1",
        url=proposal.url,
        ca=proposal.ca,
        genesis=encode_b64(genesis.leaf),
    )
    replace_file(home / SUCCESSION, canonical(succession))
    plain = {"federation": federation} | ({} if database is None else {"database": database})
    replace_file(home / JSON, canonical(plain) + b"\n")
    return succession
