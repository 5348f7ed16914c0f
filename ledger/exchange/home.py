"""A member's home: one directory that holds its keys, its copy of the log and its pen.

::

    keyring.json    private keys, encrypted (``keys.py``); new ones come by ``renewal.py``
    member.json     which federation, where its coordinator answers, who I am
    genesis.leaf    entry 0: what this member trusts from the start
    ca.pem          the coordinator's certificate authority, when it is a private one
    ledger.db       the verified copy of the log
    last-entry.leaf the last entry that was signed (``author.py``)
    receipts/       promises of the log that are not kept yet (``receipts.py``)
    blobs/          documents, models and updates that this member keeps
    predecessors/   copies of logs that were succeeded (``succeed``)

Nodes and people's commands open the same kind of home.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints

from ledger.copies.blobs import BlobStore
from ledger.copies.erasing import CardEraser
from ledger.copies.replica import Replica
from ledger.copies.snapshot import SnapshotFile
from ledger.copies.store import LogStore
from ledger.copies.succession import SuccessionFile
from ledger.copies.whole_file import replace_file
from ledger.entries.author import Author
from ledger.entries.entry import federation_id, parse_leaf
from ledger.entries.invitation import InvitationFile
from ledger.entries.operations.log import ReceiptBroken
from ledger.entries.operations.members import Role
from ledger.entries.operations.values import BlobRef, Hash, Slug
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import BlobMissing, MalformedInput, StoreUnusable
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.follow import follow_once
from ledger.exchange.receipts import ReceiptBook
from ledger.exchange.renewal import KEYRING, settle, unsettled
from ledger.formats.key_file import Strength, load_keyring, save_keyring
from ledger.formats.keys import KeyRing
from ledger.formats.strict import canonical, parse_canonical
from ledger.rules.log import Sequenced

MEMBER = "member.json"
GENESIS = "genesis.leaf"
CA = "ca.pem"
LEDGER = "ledger.db"
LAST_ENTRY = "last-entry.leaf"
RECEIPTS = "receipts"
BLOBS = "blobs"
PREDECESSORS = "predecessors"


class MemberConfig(BaseModel):
    """Who a home belongs to, and which federation it follows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    consilium: Literal[1]
    federation: Hash
    url: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,400}$")]
    handle: Slug
    role: Role
    organisation: Slug


@dataclass(frozen=True, slots=True)
class MemberHome:
    """The directory; `open` gives what can be done from it."""

    path: Path

    @property
    def config(self) -> MemberConfig:
        """The member's configuration.

        Raises:
            StoreUnusable: there is no home here.
        """
        try:
            data = (self.path / MEMBER).read_bytes()
        except OSError as error:
            raise StoreUnusable(
                str(self.path),
                f"it is no member's home ({MEMBER}: {error.strerror}); "
                "make one with an invitation: consilium member join INVITATION --home DIR",
            ) from None
        return parse_canonical(data, MemberConfig, limit=16 * 1024)

    @classmethod
    def create(
        cls,
        path: Path,
        invitation: InvitationFile,
        keyring: KeyRing,
        passphrase: bytes,
        *,
        strength: Strength = "moderate",
    ) -> Self:
        """Make a home from an invitation and fresh keys; the member has not joined by that.

        Raises:
            MalformedInput: the invitation has no seat for the key ring's handle.
            StoreUnusable: the directory is not empty, or cannot be written.
        """
        seat = next((s for s in invitation.seats if s.handle == keyring.handle), None)
        if seat is None:
            raise MalformedInput("invitation", f"it has no seat for {keyring.handle!r}")
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise StoreUnusable(str(path), "it is not empty; choose another --home")
        except OSError as error:
            raise StoreUnusable(str(path), f"cannot be made: {error.strerror}") from None
        config = MemberConfig(
            consilium=1,
            federation=invitation.federation,
            url=invitation.url,
            handle=keyring.handle,
            role=seat.role,
            organisation=invitation.organisation,
        )
        save_keyring(path / KEYRING, keyring, passphrase, strength=strength)
        replace_file(path / GENESIS, invitation.genesis_leaf)
        if invitation.ca_pem is not None:
            replace_file(path / CA, invitation.ca_pem)
        # Last: a directory without it is no home.
        replace_file(path / MEMBER, canonical(config))
        return cls(path)

    def open(self, passphrase: bytes) -> Membership:
        """Unlock the keys, replay the copy, take the pen.

        A change of keys that was begun here is finished first, when the log has it.

        Raises:
            KeyFileError, WrongPassphrase: the keys do not open.
            StoreUnusable: the home is in use or incomplete.
            LedgerError: the copy of the log was changed; says where.
        """
        config = self.config
        keyring = load_keyring(self.path / KEYRING, passphrase)
        with ExitStack() as undo:
            replica = self.open_replica(SnapshotFile.of(self.path, keyring.entry))
            undo.callback(replica.store.close)
            if unsettled(self.path):

                def connect(ring: KeyRing) -> CoordinatorClient:
                    return self._client(config, ring)

                keyring = settle(self.path, passphrase, replica, connect, self.path / LAST_ENTRY)
            client = self._client(config, keyring)
            undo.callback(client.close)
            receipts = ReceiptBook(self.path / RECEIPTS, replica, client.submit)
            author = Author(keyring, replica, receipts.send, self.path / LAST_ENTRY)
            undo.callback(author.close)
            blobs = BlobStore(self.path / BLOBS)
            undo.pop_all()
        return Membership(
            self, config, keyring, replica, client, author, blobs, receipts, CardEraser(blobs)
        )

    def open_replica(self, snapshots: SnapshotFile | None = None) -> Replica:
        """The home's verified copy of the log; needs no passphrase.

        Args:
            snapshots: under the home's keys, to open a large copy fast; else it is replayed.
        """
        config = self.config
        store = LogStore.open(f"sqlite:///{(self.path / LEDGER).resolve()}")
        if store.size() == 0:
            try:
                genesis = (self.path / GENESIS).read_bytes()
            except OSError as error:
                raise StoreUnusable(
                    str(self.path / GENESIS), f"cannot be read: {error.strerror}"
                ) from None
            return Replica.create(store, genesis, config.federation, snapshots)
        return Replica.open(store, config.federation, snapshots)

    def succeed(self, succession: SuccessionFile) -> Path:
        """Follow the log that took over from this home's, from now on.

        The old copy goes to ``predecessors/<first 16 digits of its federation id>``, and stays readable
        there. Keys, blobs and a node's private register stay where they are. May be repeated after a
        crash at any point. The caller has checked the succession (``ledger.copies.succession``), and
        nothing else has the home open.

        Returns:
            Where the old copy lies.

        Raises:
            StoreUnusable: a file cannot be moved or written.
        """
        config = self.config
        genesis = parse_leaf(succession.leaf)
        kept = self.path / PREDECESSORS / config.federation[:16]
        if config.federation == federation_id(genesis):
            return kept
        try:
            kept.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (kept / MEMBER).exists():
                replace_file(kept / MEMBER, (self.path / MEMBER).read_bytes())
                replace_file(kept / GENESIS, (self.path / GENESIS).read_bytes())
            begun = kept / "succession.json"
            if not begun.exists():
                replace_file(begun, canonical(succession))
            elif begun.read_bytes() != canonical(succession):
                raise StoreUnusable(
                    str(begun), "another successor was accepted here; finish with that file"
                )
            for file in [*self.path.glob(LEDGER + "*"), self.path / LAST_ENTRY]:
                if file.exists():
                    file.replace(kept / file.name)
        except OSError as error:
            raise StoreUnusable(str(kept), f"cannot be written: {error.strerror}") from None
        replace_file(self.path / GENESIS, succession.leaf)
        if succession.ca_pem is not None:
            replace_file(self.path / CA, succession.ca_pem)
        new = config.model_copy(
            update={"federation": federation_id(genesis), "url": succession.url}
        )
        replace_file(self.path / MEMBER, canonical(new))
        return kept

    def _client(self, config: MemberConfig, keyring: KeyRing) -> CoordinatorClient:
        ca = self.path / CA
        try:
            return CoordinatorClient(
                config.url,
                federation=config.federation,
                handle=config.handle,
                request_key=keyring.request,
                ca=ca if ca.exists() else None,
            )
        except ssl.SSLError:
            raise StoreUnusable(
                str(ca), "it holds no certificate; put the coordinator's authority there, as PEM"
            ) from None


@dataclass(frozen=True, slots=True)
class Membership:
    """An open home. One thread, one process."""

    home: MemberHome
    config: MemberConfig
    keyring: KeyRing
    replica: Replica
    client: CoordinatorClient
    author: Author
    blobs: BlobStore
    receipts: ReceiptBook
    eraser: CardEraser

    def follow(self, wait_s: float = 0.0) -> list[Sequenced]:
        """Catch up with the coordinator; waits up to ``wait_s`` for the first news."""
        taken = follow_once(self.replica, self.client, wait_s)
        news = taken
        while news:
            news = follow_once(self.replica, self.client, 0.0)
            taken = taken + news
        self.receipts.look()
        self.eraser.look(self.replica.state)
        return taken

    def fetch(self, ref: BlobRef) -> bytes:
        """A blob from here, or from the coordinator, kept for next time."""
        try:
            return self.blobs.get(ref)
        except BlobMissing:
            data = self.client.get_blob(ref)
            self._keep(data)
            return data

    def publish(self, data: bytes) -> BlobRef:
        """Keep a blob and bring it to the coordinator."""
        ref = self._keep(data)
        self.client.put_blob(data)
        return ref

    def _keep(self, data: bytes) -> BlobRef:
        try:
            return self.blobs.put(data)
        except OSError as error:  # a full disk, say: the caller tries again when there is room
            where = str(self.blobs.directory)
            raise StoreUnusable(where, f"cannot be written: {error.strerror}") from None

    def report_broken(self, say: Callable[[Operation], object] | None = None) -> None:
        """Put on record what evidence of broken promises waits.

        Args:
            say: signs an operation and hands it in; by default the pen of this home. Whoever judges
                what to say next from the own copy waits for this, too, and so hands in its own.

        Raises:
            LedgerError: it could not be; the rest waits for the next time.
        """
        for evidence in self.receipts.unpublished:
            ref = self.publish(evidence)
            (say or self.author.submit)(ReceiptBroken(type="receipt.broken", evidence=ref))
            self.receipts.published(evidence)

    def close(self) -> None:
        """Release locks and connections."""
        self.author.close()
        self.client.close()
        self.replica.save_snapshot()
        self.replica.store.close()
