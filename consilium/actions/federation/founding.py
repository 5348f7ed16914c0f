"""Founding a federation from the command line: seats, policy, invitations on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from pydantic import ValidationError

from consilium.actions.member.joining import parse_seats
from consilium.errors import InputError
from consilium.passphrase import read_passphrase
from consilium.settings import Settings
from ledger.entries.invitation import save_invitation
from ledger.entries.operations.federation import Policy, Seat
from ledger.errors import MalformedInput
from ledger.formats.documents import explain

INVITATIONS = "invitations"
SUFFIX = ".invitation"
_HOUR_MS = 3_600_000


class Made(TypedDict):
    """A new federation: its id and where things lie."""

    federation: str
    name: str
    home: str
    genesis: str
    invitations: dict[str, str]


def found(
    settings: Settings,
    name: str,
    *,
    organisation: str,
    url: str,
    hospitals: Sequence[str],
    researchers: Sequence[str] = (),
    seats: Sequence[str] = (),
    endorsements: int | None = None,
    ca: Path | None = None,
    database: str | None = None,
) -> Made:
    """Found a federation and write its founders' invitations.

    Args:
        settings: the coordinator's home and passphrase.
        name: of the federation.
        organisation: that runs the coordinator.
        url: where members will reach it.
        hospitals: organisations, each with a node and a steward.
        researchers: ``ORGANISATION=HANDLE`` each.
        seats: ``ORGANISATION:HANDLE=ROLE`` each.
        endorsements: what a change needs; by default more than half of the hospitals.
        ca: PEM file that members should trust.
        database: URL; by default SQLite in the home.

    Raises:
        InputError, HomeUnusable, StoreError: why not.
    """
    from coordinator.found import found_federation
    from coordinator.settings import GENESIS

    places = _seats(hospitals, researchers, seats)
    if not places:
        raise InputError("nobody is invited; name the founders with --hospital NAME")
    most = max(1, len(hospitals))
    if endorsements is not None and endorsements > most:
        raise InputError(f"--endorsements {endorsements} is more than the {most} hospitals invited")
    try:
        ca_pem = None if ca is None else ca.read_bytes()
    except OSError as error:
        raise InputError(f"{ca}: {error.strerror}") from None
    passphrase = read_passphrase(settings.passphrase_file, of="the coordinator", new=True)
    written = {}
    try:
        with _whole_or_empty(settings.home):
            founded = found_federation(
                settings.home,
                passphrase,
                name=name,
                organisation=organisation,
                policy=default_policy(endorsements or most // 2 + 1),
                seats=places,
                url=url,
                ca=ca_pem,
                database=database,
                port=_loopback_port(url),
                strength=settings.key_strength,
            )
            folder = settings.home / INVITATIONS
            folder.mkdir(mode=0o700)
            for invitation in founded.invitations:
                path = folder / f"{invitation.organisation}{SUFFIX}"
                save_invitation(path, invitation)
                written[invitation.organisation] = str(path)
    except ValidationError as error:
        raise InputError(f"federation: {explain(error)}") from None
    except MalformedInput as error:
        raise InputError(f"federation: {error}") from None
    except OSError as error:
        raise InputError(f"{settings.home} cannot be written: {error.strerror}") from None
    return Made(
        federation=founded.federation,
        name=name,
        home=str(settings.home),
        genesis=str(settings.home / GENESIS),
        invitations=written,
    )


@contextmanager
def _whole_or_empty(home: Path) -> Iterator[None]:
    """Leave a home that held nothing before without anything when what fills it fails.

    A founding that stopped halfway cannot be gone on with: its invitations' secrets are lost with it.
    """
    there = home.exists()
    try:
        fresh = not there or not any(home.iterdir())
    except OSError:
        fresh = False
    try:
        yield
    except BaseException:
        if fresh:
            for path in home.iterdir() if there else (home,):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        path.unlink()
        raise


def default_policy(endorsements: int) -> Policy:
    """The policy that a federation begins with."""
    return Policy(
        endorsements=endorsements,
        max_lag=100_000,
        max_delay_ms=7 * 24 * _HOUR_MS,
        max_age_ms=_HOUR_MS,
        skew_ms=5 * 60_000,
    )


def _loopback_port(url: str) -> int | None:
    """The port on which a coordinator must listen for a URL of this very machine, if it names one."""
    try:
        parts = urlsplit(url)
        return parts.port if parts.hostname in ("127.0.0.1", "::1", "localhost") else None
    except ValueError as error:
        raise InputError(f"--url {url!r}: {error}") from None


def _seats(
    hospitals: Sequence[str], researchers: Sequence[str], seats: Sequence[str]
) -> dict[str, list[Seat]]:
    places: dict[str, list[Seat]] = {}
    for hospital in hospitals:
        if hospital in places:
            raise InputError(f"hospital {hospital!r} is named twice")
        places[hospital] = list(parse_seats(hospital, ()))
    for text in researchers:
        organisation, equals, handle = text.partition("=")
        if not equals:
            raise InputError(f"--researcher {text!r}: write ORGANISATION=HANDLE")
        _add(places, organisation, f"{handle}=researcher")
    for text in seats:
        organisation, colon, seat = text.partition(":")
        if not colon:
            raise InputError(f"--seat {text!r}: write ORGANISATION:HANDLE=ROLE")
        _add(places, organisation, seat)
    return places


def _add(places: dict[str, list[Seat]], organisation: str, seat: str) -> None:
    places.setdefault(organisation, []).extend(parse_seats(organisation, (seat,)))
