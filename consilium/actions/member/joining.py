"""Taking one's seats in a federation, and inviting others.

Private keys are made here, on the machine that will use them, and go nowhere. Every step can be done
again: a home that is there already, for the same invitation, is opened instead of made, and an entry
that was signed is sent again as the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from consilium.actions.speaking import open_member, say
from consilium.actions.written import read_written
from consilium.errors import InputError
from consilium.passphrase import read_passphrase
from consilium.settings import Settings
from ledger.entries.cards import MemberCard, Sealed, seal_card
from ledger.entries.invitation import (
    InvitationFile,
    invitation_file,
    join_operation,
    load_invitation,
    new_invitation,
    save_invitation,
)
from ledger.entries.operations.federation import ChangeProposed, InviteChange, Seat
from ledger.entries.operations.members import MemberJoined
from ledger.errors import MalformedInput
from ledger.exchange.home import CA, GENESIS, MEMBER, MemberHome
from ledger.formats.keys import KeyRing, key_id
from ledger.rules.state import State


@dataclass(frozen=True, slots=True)
class Joined:
    """A seat that was taken."""

    handle: str
    role: str
    organisation: str
    index: int
    home: Path


@dataclass(frozen=True, slots=True)
class Invited:
    """A proposed invitation.

    Attributes:
        change: id of the change.
        index: of its entry.
        missing: organisations that must still endorse it.
    """

    change: str
    index: int
    missing: int


def join(
    path: Path, settings: Settings, *, handle: str | None = None, card: Path | None = None
) -> list[Joined]:
    """Take the seats of an invitation.

    Args:
        path: the invitation file.
        settings: home and passphrase; with several seats, each gets a directory below the home.
        handle: take this seat alone.
        card: a YAML file with a ``MemberCard``, or None.

    Raises:
        InputError: no such seat, or the home belongs to somebody else.
        RequestRefused: a seat is taken already, or the invitation is not in force.
    """
    invitation = load_invitation(path)
    seats = [seat for seat in invitation.seats if handle in (None, seat.handle)]
    if not seats:
        offered = ", ".join(seat.handle for seat in invitation.seats)
        raise InputError(f"the invitation has no seat for {handle!r}; it has: {offered}")
    sealed = None if card is None else seal_card(read_written(card, MemberCard))
    places = _places(settings.home, seats)
    for seat, place in zip(seats, places, strict=True):
        _check_free(place, invitation, seat)
    # Where an interrupted run made keys, their passphrase is asked for, and no new one.
    passphrase = read_passphrase(
        settings.passphrase_file,
        of=" and ".join(seat.handle for seat in seats),
        new=not any((place / MEMBER).exists() for place in places),
    )
    return [
        _take_seat(invitation, seat, place, passphrase, settings, sealed)
        for seat, place in zip(seats, places, strict=True)
    ]


def invite(settings: Settings, organisation: str, seats: Sequence[str], out: Path) -> Invited:
    """Propose an invitation, and write the file for those who may join.

    Args:
        settings: a steward's home and passphrase.
        organisation: whose people.
        seats: ``HANDLE=ROLE`` each; none for a node and a steward.
        out: a file that must not exist.
    """
    wanted = parse_seats(organisation, seats)
    if out.exists():
        raise InputError(f"{out} exists already; name another file with --out")
    try:
        invitation, secret = new_invitation(organisation, wanted)
    except MalformedInput as error:
        raise InputError(f"invitation: {error}") from None
    with open_member(settings.home, settings.passphrase_file, ("steward",)) as member:
        ca = member.home.path / CA
        # The file first: an invitation in the log whose secret is lost would block its handles.
        save_invitation(
            out,
            invitation_file(
                invitation,
                secret,
                url=member.config.url,
                genesis=(member.home.path / GENESIS).read_bytes(),
                ca=ca.read_bytes() if ca.exists() else None,
            ),
        )
        change = InviteChange(invitation=invitation)
        found = say(member, ChangeProposed(type="change.proposed", change=change))
        return Invited(
            found.entry.hash, found.index, _missing(member.replica.state, found.entry.hash)
        )


def parse_seats(organisation: str, seats: Sequence[str]) -> tuple[Seat, ...]:
    """Seats from ``HANDLE=ROLE`` texts; a node and a steward when none is given.

    Raises:
        InputError: a text is not in that form.
    """
    texts = seats or (f"{organisation}-node=node", f"{organisation}-steward=steward")
    parsed = []
    for text in texts:
        handle, _, role = text.partition("=")
        try:
            parsed.append(Seat(handle=handle, role=role))  # type: ignore[arg-type] # it checks
        except MalformedInput as error:
            raise InputError(
                f"seat {text!r}: {error}; write HANDLE=ROLE, such as ada=researcher"
            ) from None
    return tuple(parsed)


def _places(home: Path, seats: Sequence[Seat]) -> list[Path]:
    """One home for one seat; below the home, by role or else by handle, for several."""
    if len(seats) == 1:
        return [home]
    roles = [seat.role for seat in seats]
    return [home / (s.role if roles.count(s.role) == 1 else s.handle) for s in seats]


def _check_free(place: Path, invitation: InvitationFile, seat: Seat) -> None:
    if not (place / MEMBER).exists():
        if place.is_dir() and any(place.iterdir()):
            raise InputError(f"{place} is not empty; choose another --home")
        return
    config = MemberHome(place).config
    if (config.federation, config.handle) != (invitation.federation, seat.handle):
        raise InputError(f"{place} is the home of {config.handle}; choose another --home")


def _take_seat(
    invitation: InvitationFile,
    seat: Seat,
    place: Path,
    passphrase: bytes,
    settings: Settings,
    card: Sealed | None,
) -> Joined:
    home = MemberHome(place)
    if not (place / MEMBER).exists():
        home = MemberHome.create(
            place,
            invitation,
            KeyRing.generate(seat.handle, seat.role),
            passphrase,
            strength=settings.key_strength,
        )
    member = home.open(passphrase)
    try:
        known = member.replica.state.members.get(seat.handle)
        if known is not None:
            index = known.joined_at
        else:
            waiting = member.author.pending
            operation = join_operation(
                invitation, member.keyring, None if card is None else card.commitment
            )
            if waiting is not None and isinstance(waiting.body.op, MemberJoined):
                operation = waiting.body.op
            index = say(member, operation).index
            if card is not None and operation.card == card.commitment:
                member.publish(card.blob)
        return Joined(seat.handle, seat.role, invitation.organisation, index, place)
    finally:
        member.close()


def _missing(state: State, change: str) -> int:
    pending = state.changes[change]
    if pending.effective_at is not None or not isinstance(pending.change, InviteChange):
        return 0
    invitation = pending.change.invitation
    if key_id("ed25519", bytes.fromhex(invitation.key.public)) in state.invitations:
        return 0
    needed = min(state.policy.endorsements, len(state.organisations_with_steward()))
    return max(1, needed - len(pending.organisations))
