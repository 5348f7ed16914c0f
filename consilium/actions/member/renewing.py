"""New keys for a member: a rotation with the old ones in hand, or a request for a rekey without.

Every step can be done again. New keys lie on the disk before anybody hears of them, and a home that is
opened finishes what was begun (``ledger.exchange.renewal``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from consilium.actions.homes import find_home, member_homes
from consilium.errors import InputError, RefusedByFederation, RunFailed
from consilium.passphrase import read_passphrase
from consilium.settings import Settings
from ledger.entries.invitation import load_invitation
from ledger.entries.rekey_request import RekeyRequest, save_request
from ledger.exchange.home import MemberHome
from ledger.exchange.renewal import KEYRING, NEXT, SEALED, forget_next, next_keys, rotation
from ledger.formats.key_file import load_keyring, save_keyring
from ledger.formats.keys import KeyRing
from ledger.rules.verdict import EXPLANATIONS

LOST = "keyring-lost.json"


@dataclass(frozen=True, slots=True)
class Renewed:
    """Keys that came into force.

    Attributes:
        handle: whose.
        key: id of the new entry key.
        joined_at: index at which the old ones ended.
    """

    handle: str
    key: str
    retired_at: int


@dataclass(frozen=True, slots=True)
class Requested:
    """A request for new keys, and what goes with the old ones.

    Attributes:
        lost: in words, one line each.
    """

    request: RekeyRequest
    home: Path
    lost: tuple[str, ...]


def rotate(settings: Settings) -> Renewed:
    """Make new keys and put them into force, with the old ones in hand.

    Raises:
        RefusedByFederation: the log has it, and it is void; the old keys stay in use.
        CopiedKey: the home was restored or copied: ask for a rekey instead.
        CoordinatorUnreachable: it is not known to be in the log; the next command finishes it.
    """
    home = find_home(settings.home)
    config = home.config
    passphrase = read_passphrase(settings.passphrase_file, of=f"{config.handle} ({home.path})")
    begun = load_keyring(home.path / NEXT, passphrase) if (home.path / NEXT).exists() else None
    member = home.open(passphrase)  # finishes what was begun before
    try:
        old = member.keyring.entry.id
        if begun is not None and begun.entry.id == old:
            return Renewed(config.handle, old, _retired(member.replica.state.keys, config.handle))
        member.follow()
        coming = next_keys(home.path, config.handle, config.role, passphrase, settings.key_strength)
        operation = rotation(config.federation, coming)
        receipt = member.author.submit(operation)
    finally:
        member.close()
    if receipt.reason is not None:
        forget_next(home.path)
        reason = receipt.reason
        why = EXPLANATIONS.get(reason, reason)
        raise RefusedByFederation(operation.type, receipt.index, reason, why)
    member = home.open(passphrase)
    try:
        if member.keyring.entry.id != coming.entry.id:
            raise RunFailed(
                f"the coordinator said that it put the rotation at index {receipt.index}, but its "
                "log does not show it; keep your home directory and ask the coordinator"
            )
        return Renewed(config.handle, coming.entry.id, receipt.index)
    finally:
        member.close()


def request_keys(
    settings: Settings, out: Path, *, invitation: Path | None, handle: str | None, lost: bool
) -> Requested:
    """Make new keys for a member that cannot say so itself, and write the request for them.

    Args:
        settings: the home (to be made, with an invitation) and the passphrase of the new keys.
        out: the request, a file that must not exist.
        invitation: the file that the member joined with, where there is no home any more.
        handle: which of its seats.
        lost: the key file in the home does not open any more: set it aside.

    Raises:
        InputError: there is no home, or there is one already.
    """
    if out.exists():
        raise InputError(f"{out} exists already; name another file with --out")
    if invitation is not None:
        return _new_home(settings, out, invitation, handle)
    home = find_home(settings.home)
    config = home.config
    passphrase = read_passphrase(
        settings.passphrase_file, of=f"{config.handle} ({home.path})", new=lost
    )
    gone: tuple[str, ...] = ()
    if lost:
        if (home.path / LOST).exists():
            raise InputError(f"{home.path / LOST} exists already: look at it, and move it away")
        ring = KeyRing.generate(config.handle, config.role)
        # Made under the other name first: at no time is there a home without keys.
        forget_next(home.path)
        save_keyring(home.path / NEXT, ring, passphrase, strength=settings.key_strength)
        if (home.path / KEYRING).exists():
            (home.path / KEYRING).rename(home.path / LOST)
        (home.path / NEXT).rename(home.path / KEYRING)
        gone = what_is_lost(home.path)
    else:
        load_keyring(home.path / KEYRING, passphrase)  # the same passphrase for both
        ring = next_keys(home.path, config.handle, config.role, passphrase, settings.key_strength)
    request = RekeyRequest.of(config.federation, ring)
    save_request(out, request)
    return Requested(request, home.path, gone)


def what_is_lost(home: Path) -> tuple[str, ...]:
    """What of a home opens with the old keys only, in words."""
    if not any((home / name).exists() for name in SEALED):
        return ()
    return (
        "hospital.key is sealed to the old keys. It decides which patients are kept for measuring: "
        "without it no dataset of this hospital can be used or registered again, in this federation "
        "under these patients' promise; models and what was spent stay.",
        f"If the old key file and its passphrase turn up: put the file back as {home / KEYRING}, ask "
        "for new keys again without --lost, and hospital.key is carried over.",
    )


def _new_home(settings: Settings, out: Path, invitation: Path, handle: str | None) -> Requested:
    if member_homes(settings.home):
        raise InputError(f"{settings.home} holds a home already; leave --invitation away")
    file = load_invitation(invitation)
    seats = [seat for seat in file.seats if handle in (None, seat.handle)]
    if len(seats) != 1:
        offered = ", ".join(seat.handle for seat in file.seats)
        raise InputError(f"whose keys? Name one of its seats with --handle: {offered}")
    ring = KeyRing.generate(seats[0].handle, seats[0].role)
    passphrase = read_passphrase(settings.passphrase_file, of=seats[0].handle, new=True)
    home = MemberHome.create(settings.home, file, ring, passphrase, strength=settings.key_strength)
    request = RekeyRequest.of(file.federation, ring)
    save_request(out, request)
    return Requested(request, home.path, _EVERYTHING if seats[0].role == "node" else ())


_EVERYTHING = (
    "This home is new. The old one's private register and hospital.key exist nowhere else: restore "
    "private.db and hospital.key with the old key file from a backup, or no dataset of this hospital "
    "can be used or registered again; every reservation counts as spent.",
)


def _retired(keys: object, handle: str) -> int:
    from immutables import Map

    assert isinstance(keys, Map)
    ended = [k.retired_at for k in keys.values() if k.member == handle and k.retired_at is not None]
    return max(ended, default=1) - 1
