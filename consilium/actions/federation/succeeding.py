"""A log that cannot go on, and the one that takes over: proposing, endorsing, founding, accepting.

Whoever endorses or accepts compares everything with the own verified copy of the old log. What that
comparison meant is returned in words, for a person to read before anything is signed or moved.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypedDict

from pydantic import ValidationError

from audit.verification.sources import Copy, close_copies, open_copies
from consilium.actions.files import write_file
from consilium.actions.homes import find_home, member_homes
from consilium.actions.speaking import open_member
from consilium.errors import InputError
from consilium.passphrase import read_passphrase
from consilium.settings import Settings
from coordinator.settings import KEYRING
from coordinator.succeed import PROPOSAL, SUCCESSION, found_successor, propose_successor
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.copies.succession import (
    LastFinal,
    SuccessionFile,
    check_proposal,
    check_successor,
    read_endorsement,
    read_proposal,
    read_succession,
)
from ledger.copies.succession import endorse as endorse_proposal
from ledger.entries.entry import federation_id, parse_leaf
from ledger.entries.operations.succession import FederationSucceeded
from ledger.errors import MalformedInput
from ledger.exchange.home import LEDGER, MEMBER, PREDECESSORS, MemberHome
from ledger.formats.documents import explain
from ledger.formats.key_file import load_keyring
from ledger.formats.strict import canonical
from privacy.calibrate import epsilon_of

RESTRICTIONS = frozenset(
    {"key.revoked", "key.conflicted", "dataset.withdrawn", "experiment.refused", "change.endorsed"}
)
"""What somebody said after the last final checkpoint and has to say again in the new log."""


class Meaning(TypedDict):
    """What a succession takes over, by the own copy of the old log.

    Attributes:
        dropped_entries: entries after the last final checkpoint, which do not come along.
        to_be_said_again: those among them that restrict something, as ``author operation``.
    """

    old_federation: str
    old_entries: int
    name: str
    new_organisation: str
    url: str
    endorsed_by: list[str]
    endorsements_needed: int
    members: list[str]
    cells: dict[str, float]
    datasets: list[str]
    experiments_that_end: list[str]
    dropped_entries: int
    to_be_said_again: list[str]


class Accepted(TypedDict):
    """A home that follows the new log now."""

    home: str
    federation: str
    old_copy: str


def propose(
    settings: Settings, at: str, *, organisation: str, url: str, handle: str, ca: Path | None
) -> Path:
    """Make the new coordinator's home and keys, and the proposal that stewards endorse.

    Args:
        settings: ``home`` is the new coordinator's, not there yet.
        at: a copy of the old log: a home, a database or a bundle.
        organisation: that runs the new coordinator.
        url: where it will answer.
        handle: the new coordinator's.
        ca: PEM of a private certificate authority.

    Returns:
        The proposal's file.
    """
    with _replica_at(at) as old:
        passphrase = read_passphrase(
            settings.passphrase_file, of=f"the new coordinator ({settings.home})", new=True
        )
        try:
            propose_successor(
                settings.home,
                passphrase,
                old,
                organisation=organisation,
                url=url,
                handle=handle,
                ca=None if ca is None else _read(ca),
                strength=settings.key_strength,
            )
        except ValidationError as error:
            raise InputError(f"succession: {explain(error)}") from None
        except MalformedInput as error:
            raise InputError(f"succession: {error}") from None
    return settings.home / PROPOSAL


def look_at_proposal(settings: Settings, file: Path, at: str | None) -> Meaning:
    """What a proposal means, by one's own copy or the one at a place.

    Raises:
        SuccessionRefused: it does not take over what that copy says.
    """
    proposal = read_proposal(_read(file))
    with _own_copy(settings, at) as old:
        op = proposal.body.op
        if not isinstance(op, FederationSucceeded):
            raise InputError(f"{file} founds nothing")
        return _meaning(check_proposal(proposal, old), op, proposal.url)


def endorse(settings: Settings, file: Path, at: str | None, out: Path | None) -> Path:
    """Sign a proposal as a steward, after checking it against the own copy of the old log."""
    proposal = read_proposal(_read(file))
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        if at is None:
            made = endorse_proposal(proposal, member.replica, member.keyring)
        else:
            with _replica_at(at) as old:
                _require_prefix(member.replica, old)
                made = endorse_proposal(proposal, old, member.keyring)
        target = out or file.with_name(f"{made.steward}.endorsement")
    write_file(target, canonical(made))
    return target


def found(settings: Settings, endorsements: Sequence[Path], database: str | None) -> Path:
    """Found the new log with the endorsements of k organisations; returns the file for its members."""
    home = settings.home
    if not (home / PROPOSAL).is_file():
        raise InputError(f"{home} holds no {PROPOSAL}; propose first, in this home")
    passphrase = read_passphrase(settings.passphrase_file, of=f"the new coordinator ({home})")
    keyring = load_keyring(home / KEYRING, passphrase)
    proposal = read_proposal(_read(home / PROPOSAL))
    files = tuple(read_endorsement(_read(path)) for path in endorsements)
    found_successor(home, proposal, files, keyring, database=database)
    return home / SUCCESSION


def look_at_succession(settings: Settings, file: Path, at: str | None) -> Meaning:
    """What a founded successor means, by one's own copy or the one at a place.

    Raises:
        SuccessionRefused: it does not take over what that copy says.
    """
    succession = read_succession(_read(file))
    with _own_copy(settings, at) as old:
        return _judge(succession, old)


def accept(settings: Settings, file: Path, at: str | None) -> list[Accepted]:
    """Let a member's home, or all in a directory, follow the new log from now on.

    Raises:
        SuccessionRefused: it does not take over what the own copy says; nothing was moved.
    """
    succession = read_succession(_read(file))
    new = federation_id(parse_leaf(succession.leaf))
    homes = member_homes(settings.home) or (find_home(settings.home),)
    accepted: list[Accepted] = []
    for home in homes:
        if home.config.federation != new and not _begun(home):
            with open_member(home.path, settings.passphrase_file) as member:
                if at is None:
                    _judge(succession, member.replica)
                else:
                    with _replica_at(at) as old:
                        _require_prefix(member.replica, old)
                        _judge(succession, old)
        kept = home.succeed(succession)
        accepted.append(Accepted(home=str(home.path), federation=new, old_copy=str(kept)))
    return accepted


def _begun(home: MemberHome) -> bool:
    """Whether an acceptance that was judged before was cut short by a crash."""
    return (home.path / PREDECESSORS / home.config.federation[:16] / MEMBER).exists()


def _judge(succession: SuccessionFile, old: Replica) -> Meaning:
    here = check_successor(succession.leaf, old)
    op = parse_leaf(succession.leaf).body.op
    assert isinstance(op, FederationSucceeded)
    return _meaning(here, op, succession.url)


def _meaning(here: LastFinal, op: FederationSucceeded, url: str) -> Meaning:
    state = here.state
    stewards = (state.members.get(each.steward) for each in op.endorsements)
    cells = {}
    for name, cell in sorted(state.cells.items()):
        spend, terms = cell.spend, cell.terms
        order, delta = terms.limit.order_centi, terms.delta_e15 / 10**15
        cells[name] = round(epsilon_of(spend.g, spend.r, order, delta), 6) if spend.g else 0.0
    return Meaning(
        old_federation=state.federation,
        old_entries=state.size,
        name=state.name,
        new_organisation=op.organisation,
        url=url,
        endorsed_by=sorted({member.organisation for member in stewards if member is not None}),
        endorsements_needed=state.policy.endorsements,
        members=sorted(m.handle for m in state.members.values() if m.role != "coordinator"),
        cells=cells,
        datasets=sorted(state.datasets),
        experiments_that_end=sorted(e.name for e in state.experiments.values() if not e.ended),
        dropped_entries=len(here.dropped),
        to_be_said_again=[
            f"{entry.body.author} {entry.body.op.type}"
            for entry in here.dropped
            if entry.body.op.type in RESTRICTIONS
        ],
    )


@contextmanager
def _own_copy(settings: Settings, at: str | None) -> Iterator[Replica]:
    if at is not None:
        with _replica_at(at) as old:
            yield old
        return
    home = find_home(settings.home)
    kept = home.path / PREDECESSORS / home.config.federation[:16] / LEDGER
    if _begun(home) and kept.exists():
        replica = Replica.open(LogStore.open(f"sqlite:///{kept}"), home.config.federation)
    else:
        replica = home.open_replica()
    try:
        yield replica
    finally:
        replica.store.close()


@contextmanager
def _replica_at(at: str) -> Iterator[Replica]:
    """A copy at a place, verified anew from its first byte; nothing is written there."""
    copies = open_copies(at)
    try:
        longest = max(copies, key=lambda copy: copy.size())
        with tempfile.TemporaryDirectory(prefix="consilium-succession-") as directory:
            store = LogStore.open(f"sqlite:///{directory}/ledger.db")
            try:
                yield _verified(longest, store)
            finally:
                store.close()
    finally:
        close_copies(copies)


def _verified(copy: Copy, store: LogStore) -> Replica:
    leaves = (entry.leaf for entry in copy.entries())
    genesis = next(leaves, None)
    if genesis is None:
        raise InputError(f"{copy.name} holds no entry")
    replica = Replica.create(store, genesis, federation_id(parse_leaf(genesis)))
    notes = [note for note in copy.checkpoints() if note.size > 1]
    for note in notes:
        wanted = note.size - replica.size
        replica.extend(list(islice(leaves, wanted)), note.note)
    for final in copy.finals():
        replica.accept_final(final.note)
    return replica


def _require_prefix(own: Replica, other: Replica) -> None:
    """The own copy must be of the same history, as far as both go."""
    size = min(own.size, other.size)
    if own.federation != other.federation or own.root(size) != other.root(size):
        raise InputError(f"the copy given is not of the log in your own home (at size {size})")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
