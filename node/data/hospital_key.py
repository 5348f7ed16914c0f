"""The hospital's own secret: it decides, by keyed hash, which half of the data a patient is in.

32 bytes of the operating system's randomness, made at the first registration and the same for all
datasets ever after: with another key patients would change halves and blocks, and so be charged to a second
cell, with a promise of its own. So a key that is lost is not made anew once the hospital has a cell. At rest it is sealed to the member's sealing key (X25519), which itself lies under
the passphrase. A change of the member's keys seals it anew while the old ones are at hand
(``ledger.exchange.renewal``).
"""

from __future__ import annotations

import secrets
import threading
from pathlib import Path

from ledger.copies.whole_file import replace_file
from ledger.errors import CannotOpen
from ledger.formats.keys import SealingKey, seal
from ledger.rules.state import State
from node.errors import ServiceError
from node.register.accounts import PrivateView

KEY_FILE = "hospital.key"
KEY_BYTES = 32
_MAKING = threading.Lock()
"""Two registrations that begin at once have one key; a home is open in one process at a time."""


def load_hospital_key(home: Path, sealing: SealingKey) -> bytes:
    """Open the key.

    Raises:
        ServiceError: it is gone, or does not open with this member's sealing key.
    """
    path = home / KEY_FILE
    try:
        opened = sealing.open(path.read_bytes())
    except OSError as error:
        raise ServiceError(
            f"{path} cannot be read ({error.strerror}). It decides which patients are kept for measuring, "
            "and nobody may divide them anew: restore it from a backup"
        ) from None
    except CannotOpen:
        raise ServiceError(
            f"{path} is sealed to keys that this home has no more. It decides which patients are kept "
            "for measuring, so no dataset of this hospital can be used or registered without it. "
            "Put back the key file that it was sealed to (keyring.json of a backup, with its "
            "passphrase), and make new keys again: consilium member new-keys"
        ) from None
    if len(opened) != KEY_BYTES:
        raise ServiceError(f"{path} holds no key of {KEY_BYTES} bytes; restore it from a backup")
    return opened


def ensure_hospital_key(home: Path, sealing: SealingKey, *, begun: bool) -> bytes:
    """Open the key, or make it when there is none; durable before this returns.

    Args:
        home: the node's.
        sealing: the member's.
        begun: whether the hospital has cells of patients (`has_cells`), and so had a key.

    Raises:
        ServiceError: see ``load_hospital_key``; or it is gone, and had divided patients.
        StoreUnusable: it cannot be written.
    """
    path = home / KEY_FILE
    with _MAKING:
        if begun or path.exists():
            return load_hospital_key(home, sealing)
        key = secrets.token_bytes(KEY_BYTES)
        replace_file(path, seal(sealing.public, key), private=True)
        return key


def has_cells(organisation: str, state: State, view: PrivateView) -> bool:
    """Whether a hospital has promised anything to patients that its key has divided, by the log or its register."""
    return bool(view.cells) or any(c.organisation == organisation for c in state.cells.values())
