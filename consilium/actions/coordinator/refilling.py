"""Filling a coordinator's lost database again: which copies, whose they are, and how far it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from audit.verification.sources import Copy, close_copies, open_copies
from consilium.errors import InputError
from consilium.passphrase import read_passphrase
from consilium.settings import Settings
from coordinator.refilling.home import prepare_home
from coordinator.refilling.listening import listen_for_copies
from coordinator.refilling.refill import Refill
from coordinator.settings import KEYRING, load_settings
from ledger.copies.stored import Conflict, StoredNote
from ledger.exchange.home import MEMBER, MemberHome
from ledger.formats.key_file import load_keyring


class Refilled(TypedDict):
    """What a refill came to."""

    home: str
    entries: int
    new_entries: int
    signed: int
    shown: list[str]
    left_out: list[str]
    awaited: list[str]
    missing_blobs: int
    warning: str | None


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A copy as a refill takes it, and the handle of the node whose it is, if anybody says so."""

    copy: Copy
    handle: str | None

    @property
    def name(self) -> str:
        """The copy's."""
        return self.copy.name

    def leaves(self, start: int) -> Iterator[bytes]:
        """Framed leaves from an index on."""
        return (entry.leaf for entry in self.copy.entries(start))

    def checkpoints(self) -> Iterator[StoredNote]:
        """Signed checkpoints."""
        return self.copy.checkpoints()

    def finals(self) -> Iterator[StoredNote]:
        """Final checkpoints."""
        return self.copy.finals()

    def evidence(self) -> Iterator[Conflict]:
        """Kept evidence."""
        return self.copy.evidence()

    def blob(self, sha256: str, length: int | None) -> bytes:
        """A blob's content."""
        return self.copy.blob(sha256, length)


def refill(
    settings: Settings,
    sources: Sequence[str],
    *,
    without: Sequence[str] = (),
    listen: bool = False,
    host: str | None = None,
    port: int | None = None,
    database: str | None = None,
) -> Refilled:
    """Fill a home's database from copies, and from nodes that call while it listens.

    Args:
        settings: ``home`` is the coordinator's; it holds at least its key file.
        sources: copies, each ``PATH`` or ``HANDLE=PATH`` where the handle is of the node whose it is.
        without: handles of nodes to go on without.
        listen: serve the coordinator's address until every node has shown its copy.
        host: where to listen.
        port: 0 takes a free one.
        database: URL of the log's database.

    Raises:
        RefillRefused: a copy gives way, or the refill is not complete; says what is missing.
        ForkDetected: this log has signed two histories; both notes are kept.
        InputError, SourceUnusable, HomeUnusable: something cannot be opened.
    """
    home = settings.home
    if not (home / KEYRING).is_file():
        raise InputError(
            f"{home} holds no {KEYRING}; without the coordinator's keys this log cannot go on, only "
            "be succeeded: consilium federation succeed"
        )
    passphrase = read_passphrase(settings.passphrase_file, of=f"the coordinator ({home})")
    keyring = load_keyring(home / KEYRING, passphrase)
    with ExitStack() as undo:
        offers = [offer for source in sources for offer in _open(source, undo)]
        prepare_home(home, keyring, offers)
        own = load_settings(home, host=host, port=port, database=database)
        with Refill(own, keyring, without) as under_way:
            before = under_way.standing.size
            for offer in offers:
                under_way.take(offer, offer.handle)
            if listen and not under_way.standing.complete:
                listen_for_copies(own, under_way)
            under_way.finish()
            now = under_way.standing
            return Refilled(
                home=str(home),
                entries=now.size,
                new_entries=now.size - before,
                signed=now.signed,
                shown=list(now.shown),
                left_out=list(now.left_out),
                awaited=list(now.awaited),
                missing_blobs=len(under_way.wanted()),
                warning=now.in_words,
            )


def _open(source: str, undo: ExitStack) -> list[HandedOver]:
    handle, equals, path = source.partition("=")
    if not equals:
        handle, path = "", source
    copies = open_copies(path)
    undo.callback(close_copies, copies)
    if handle and len(copies) > 1:
        raise InputError(f"{path} holds several copies; name the one that is {handle}'s")
    return [HandedOver(copy, handle or _node_of(Path(path), copy)) for copy in copies]


def _node_of(path: Path, copy: Copy) -> str | None:
    """The node whose home a copy lies in; nobody for a bundle or another member's home."""
    for home in (path, path / copy.name):
        if (home / MEMBER).is_file():
            config = MemberHome(home).config
            return config.handle if config.role == "node" else None
    return None
