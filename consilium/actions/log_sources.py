"""Where a log is read from: what ``--at`` may name, and what can be taken from it.

A place is a copy on this machine (a home, a bundle, a folder of tiles, a demo's folder, a database by
URL), or a server by ``http(s)://``: a coordinator, or any web server that holds exported tiles. A
coordinator hands out entries to members alone, so with a home the requests for them are signed.

Promise: whatever is taken was checked against a root that the log signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from audit.verification.sources import Copy, TileCopy, close_copies, open_copies
from audit.verification.tile_copy import open_tiles
from consilium.actions.homes import ANYBODY, member_homes
from consilium.errors import InputError
from consilium.passphrase import read_passphrase
from ledger.entries.entry import federation_id, log_origin, parse_leaf
from ledger.entries.operations.federation import FederationFounded
from ledger.entries.operations.succession import FederationSucceeded
from ledger.errors import MalformedInput, NotConsistent
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.home import CA, MemberHome
from ledger.exchange.renewal import KEYRING
from ledger.formats.checkpoint import log_verifier, open_checkpoint
from ledger.formats.key_file import load_keyring
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import Note, NoteSignature, VerifierKey, parse_note
from ledger.formats.proof import Proof, build_proof
from ledger.formats.tile_folder import Exported, export_tiles, folder
from ledger.formats.tiles import Fetch
from ledger.formats.tlog_policy import Policy
from ledger.rules.log import Log
from ledger.rules.outside_policy import outside_policy

SERVER = ("http://", "https://")


@contextmanager
def open_at(
    at: str, home: Path, passphrase_file: Path | None, *, kept: Path | None = None
) -> Iterator[list[Copy]]:
    """Open what ``--at`` names.

    Args:
        at: see the module's first lines.
        home: where a member's keys may be found, for a coordinator.
        passphrase_file: of these keys.
        kept: a folder of tiles that a server's full tiles are taken from where they are in it.

    Raises:
        SourceUnusable, CallFailed: nothing there is a copy of a ledger.
    """
    with ExitStack() as stack:
        if at.startswith(SERVER):
            yield [_open_server(at, home, passphrase_file, kept, stack)]
            return
        copies = open_copies(at)
        stack.callback(close_copies, copies)
        yield copies


@dataclass(frozen=True)
class LogSource:
    """One log, and what others' tools want of it.

    Attributes:
        copy: the fullest copy at the place.
        url: of the server, if that is the place.
    """

    copy: Copy
    url: str | None = None

    @cached_property
    def genesis(self) -> bytes:
        """Leaf of entry 0."""
        return self.leaf(0)

    @cached_property
    def log(self) -> VerifierKey:
        """The log's key, from entry 0."""
        if isinstance(self.copy, TileCopy):
            return self.copy.log
        entry = parse_leaf(self.genesis)
        if not isinstance(entry.body.op, FederationFounded | FederationSucceeded):
            raise InputError(f"{self.copy.name}: entry 0 is a {entry.body.op.type}, no genesis")
        public = bytes.fromhex(entry.body.op.log_key.public)
        return log_verifier(log_origin(federation_id(entry)), public)

    def leaf(self, index: int) -> bytes:
        """The exact bytes of an entry's leaf.

        Raises:
            InputError: there is no such entry.
        """
        self._require(index)
        return next(self.copy.entries(index, index + 1)).leaf

    def note(self, index: int | None = None) -> bytes:
        """The newest final checkpoint; the newest signed one where no final one covers an entry.

        Args:
            index: of the entry that it must cover, or None for whatever there is.

        Raises:
            InputError: nothing that the log signed covers it.
        """
        if index is not None:
            self._require(index)
        if isinstance(self.copy, TileCopy):
            return self.copy.note
        for notes in (list(self.copy.finals()), list(self.copy.checkpoints())):
            if notes and (index is None or index < notes[-1].size):
                return notes[-1].note
        raise InputError(f"{self.copy.name} has no signed checkpoint over entry {index or 0}")

    def readable(self, home: Path) -> bool:
        """Whether entries can be read: not from a coordinator without a member's home."""
        if self.url is None or not isinstance(self.copy, TileCopy):
            return True
        with CoordinatorClient(self.url, federation="") as client:
            coordinator = client.find_genesis() is not None
        return not coordinator or member_of(self.copy.federation, home) is not None

    def newest(self) -> bytes:
        """The newest signed checkpoint, final or not.

        Raises:
            InputError: there is none.
        """
        notes = [held.note for held in self.copy.checkpoints()]
        if not notes:
            raise InputError(f"{self.copy.name} holds no signed checkpoint yet")
        return notes[-1]

    def with_lines(self, given: bytes) -> bytes:
        """A checkpoint that was kept elsewhere, with the cosignatures that this copy knows of it.

        Args:
            given: a note by this log, e.g. as a witness outside the federation hands it out.

        Raises:
            Refused: it is not this log's.
            NotConsistent: this log has another root at its size.
        """
        checkpoint = open_checkpoint(given, self.log)
        merged = parse_note(given)
        for notes in (self.copy.finals(), self.copy.checkpoints()):
            for held in notes:
                opened = parse_note(held.note)
                if opened.text == merged.text:
                    merged = Note(merged.text, _union(merged.signatures, opened.signatures))
        if self.root(checkpoint.size) != checkpoint.root:
            raise NotConsistent(
                f"checkpoint of {checkpoint.size} entries", "this log has another root: keep both"
            )
        return merged.encode()

    def root(self, size: int) -> bytes:
        """Root over the first entries."""
        if isinstance(self.copy, TileCopy):
            return self.copy.reader.root(size)
        return self._tree.root(size)

    def prove(self, index: int, note: bytes) -> Proof:
        """The offline proof of an entry under a checkpoint of this log.

        Raises:
            MalformedInput, OutsideTree: the checkpoint is not of this log, or does not cover it.
        """
        self._require(index)
        if isinstance(self.copy, TileCopy):
            checkpoint = open_checkpoint(note, self.log)
            if self.root(checkpoint.size) != checkpoint.root:
                raise MalformedInput("checkpoint.root", "is not this log's")
            return Proof(index, self.copy.reader.inclusion(index, checkpoint.size), note)
        return build_proof(self._tree, index, note)

    def policy(self, outside: tuple[VerifierKey, ...] = ()) -> Policy:
        """Who must have cosigned the checkpoint that `note` gives, from the folded entries.

        Raises:
            LedgerError: the entries do not fold.
        """
        note = self.note()
        size = open_checkpoint(note, self.log).size
        log = Log()
        for stored in self.copy.entries(0, size):
            log.append(log.judge(stored.leaf))
        if log.tree.root(size) != open_checkpoint(note, self.log).root:
            raise NotConsistent(f"checkpoint of {size} entries", "the entries give another root")
        return outside_policy(log.state, size, self.log, note=note, outside=outside)

    def export(self, out: Path, note: bytes) -> Exported:
        """Write the log as a folder of tiles; see ``export_tiles``."""
        return export_tiles(
            lambda start, stop: (entry.leaf for entry in self.copy.entries(start, stop)),
            note,
            self.log,
            out,
        )

    @cached_property
    def _tree(self) -> MerkleTree:
        return MerkleTree.from_leaves(leaf_hash(entry.leaf) for entry in self.copy.entries())

    def _require(self, index: int) -> None:
        size = self.copy.size()
        if not 0 <= index < size:
            raise InputError(f"{self.copy.name} has no entry {index}; it holds 0 to {size - 1}")


@contextmanager
def open_source(
    at: str, home: Path, passphrase_file: Path | None, *, kept: Path | None = None
) -> Iterator[LogSource]:
    """The longest log at a place; arguments as in `open_at`."""
    with open_at(at, home, passphrase_file, kept=kept) as copies:
        longest = max(copies, key=lambda copy: copy.size())
        yield LogSource(longest, at if at.startswith(SERVER) else None)


def member_of(federation: str, home: Path) -> MemberHome | None:
    """A member's home here that may sign requests to a federation; people before services."""
    homes = [found for found in member_homes(home) if found.config.federation == federation]
    return min(homes, key=lambda found: ANYBODY.index(found.config.role), default=None)


def _open_server(
    url: str, home: Path, passphrase_file: Path | None, kept: Path | None, stack: ExitStack
) -> TileCopy:
    stranger = stack.enter_context(CoordinatorClient(url, federation="", ca=_ca_for(url, home)))
    genesis = stranger.find_genesis()
    signing = _Signing(url, home, passphrase_file, genesis, stack)

    def ask(name: str) -> bytes | None:
        if genesis is None or not name.startswith("tile/entries/"):
            return stranger.tile(name)
        return signing.client.tile(name)

    return open_tiles(url, ask if kept is None else _local_first(kept, ask), genesis)


def _ca_for(url: str, home: Path) -> Path | None:
    """The private certificate authority of a home that has joined at this address."""
    for found in member_homes(home):
        if found.config.url.rstrip("/") == url.rstrip("/") and (found.path / CA).exists():
            return found.path / CA
    return None


class _Signing:
    """A member's client, made when the first entry is asked for: only then keys are needed."""

    def __init__(
        self,
        url: str,
        home: Path,
        passphrase_file: Path | None,
        genesis: bytes | None,
        stack: ExitStack,
    ) -> None:
        self._url = url
        self._home = home
        self._passphrase_file = passphrase_file
        self._genesis = genesis
        self._stack = stack

    @cached_property
    def client(self) -> CoordinatorClient:
        """The client.

        Raises:
            InputError: nobody here is a member of that federation.
        """
        genesis = self._genesis
        federation = "" if genesis is None else federation_id(parse_leaf(genesis))
        member = member_of(federation, self._home)
        if member is None:
            raise InputError(
                f"{self._url} hands out entries to members alone: name a member's home with --home, "
                "or read a folder of tiles that a hospital exported"
            )
        config = member.config
        passphrase = read_passphrase(self._passphrase_file, of=f"{config.handle} ({member.path})")
        ring = load_keyring(member.path / KEYRING, passphrase)
        ca = member.path / CA
        return self._stack.enter_context(
            CoordinatorClient(
                self._url,
                federation=config.federation,
                handle=config.handle,
                request_key=ring.request,
                ca=ca if ca.exists() else None,
            )
        )


def _local_first(directory: Path, ask: Callable[[str], bytes | None]) -> Fetch:
    """Take full tiles from an unfinished export; the reader checks them like any other."""
    local = folder(directory)

    def fetch(name: str) -> bytes | None:
        if name.startswith("tile/") and ".p/" not in name:
            held = local(name)
            if held is not None:
                return held
        return ask(name)

    return fetch


def _union(
    first: tuple[NoteSignature, ...], second: tuple[NoteSignature, ...]
) -> tuple[NoteSignature, ...]:
    held = {(line.name, line.key_id) for line in first}
    return (*first, *(line for line in second if (line.name, line.key_id) not in held))
