"""Where the passphrase of a key file comes from: a file, a systemd credential, or a prompt.

Never an argument or an environment variable, which other users and crash reports can read. A file
ends where its first line does. The order: the file that was named (``--passphrase-file`` or
``CONSILIUM_PASSPHRASE_FILE``), ``$CREDENTIALS_DIRECTORY/passphrase``, the terminal.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from consilium.errors import InputError

CREDENTIAL = "passphrase"
MAX_PASSPHRASE = 1024


def read_passphrase(file: Path | None, *, of: str, new: bool = False) -> bytes:
    """The passphrase, not empty.

    Args:
        file: a file that holds it, or None.
        of: what it opens, for the prompt.
        new: it is being chosen: a prompt asks for it twice.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if file is not None:
        return _from_file(file)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials is not None and (Path(credentials) / CREDENTIAL).exists():
        return _from_file(Path(credentials) / CREDENTIAL)
    if not sys.stdin.isatty():
        raise InputError(
            f"a passphrase is needed for {of}, and there is no terminal to ask at; "
            "name a file that holds it with --passphrase-file or CONSILIUM_PASSPHRASE_FILE"
        )
    given = getpass.getpass(f"{'New passphrase' if new else 'Passphrase'} for {of}: ")
    if new and given != getpass.getpass("Once more: "):
        raise InputError("the two passphrases differ; nothing was made")
    return _checked(given.encode(), "the passphrase")


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PASSPHRASE + 2)
    except OSError as error:
        raise InputError(f"passphrase file {path}: {error.strerror}") from None
    return _checked(data.split(b"\n", 1)[0].rstrip(b"\r"), f"passphrase file {path}")


def _checked(passphrase: bytes, where: str) -> bytes:
    if not passphrase:
        raise InputError(f"{where}: it is empty, which protects nothing")
    if len(passphrase) > MAX_PASSPHRASE:
        raise InputError(f"{where}: it is longer than {MAX_PASSPHRASE} bytes")
    return passphrase
