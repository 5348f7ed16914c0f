"""The coordinator's own keys from the command line: which home, which passphrase, which file."""

from __future__ import annotations

from pathlib import Path

from consilium.errors import InputError
from consilium.passphrase import read_passphrase
from consilium.settings import Settings
from coordinator.renewing import Rotated, request_keys, rotate_keys
from coordinator.settings import load_settings
from ledger.entries.rekey_request import RekeyRequest, save_request


def rotate(settings: Settings, *, database: str | None) -> Rotated:
    """Put new keys into force, with the old ones in hand; see ``coordinator.renewing``."""
    own = load_settings(settings.home, database=database)
    passphrase = read_passphrase(settings.passphrase_file, of=f"the coordinator ({own.home})")
    return rotate_keys(own, passphrase, settings.key_strength)


def request(settings: Settings, out: Path) -> RekeyRequest:
    """Make new keys, and write the request for them to a new file.

    Raises:
        InputError: the file exists already.
    """
    if out.exists():
        raise InputError(f"{out} exists already; name another file with --out")
    own = load_settings(settings.home)
    passphrase = read_passphrase(settings.passphrase_file, of=f"the coordinator ({own.home})")
    made = request_keys(own.home, own.federation, passphrase, settings.key_strength)
    save_request(out, made)
    return made
