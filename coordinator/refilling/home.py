"""A coordinator's home before and during a refill: what is written anew, and what keeps it from running.

Promise: while the note of a refill is there, the coordinator does not run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from coordinator.errors import HomeUnusable, RefillRefused
from coordinator.refilling.offer import Offer
from coordinator.settings import GENESIS, JSON, REFILL, TOML, CoordinatorSettings
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.copies.whole_file import replace_file
from ledger.entries.entry import federation_id, parse_leaf
from ledger.entries.operations.federation import FederationFounded
from ledger.entries.operations.succession import FederationSucceeded
from ledger.formats.keys import KeyRing
from ledger.formats.strict import canonical


def prepare_home(home: Path, keyring: KeyRing, offers: Iterable[Offer]) -> None:
    """Write what a home has lost beside its database, from the first copy's genesis entry.

    The keys anchor it: genesis names their log key, and is signed by the coordinator that held them.

    Raises:
        HomeUnusable: there is neither a home nor a copy.
        RefillRefused: the copy's genesis names another log key.
    """
    if (home / TOML).is_file() or (home / JSON).is_file():
        return
    first = next(iter(offers), None)
    leaf = None if first is None else next(first.leaves(0), None)
    if first is None or leaf is None:
        raise HomeUnusable(
            home, f"it holds no {JSON}; give one copy of the log (--from) to write it from"
        )
    entry = parse_leaf(leaf)
    op = entry.body.op
    named = op.log_key.public if isinstance(op, FederationFounded | FederationSucceeded) else None
    if keyring.log is None or named != keyring.log.public.hex():
        raise RefillRefused(first.name, "its entry 0 does not name the log key of this key ring")
    replace_file(home / GENESIS, leaf)
    replace_file(home / JSON, canonical({"federation": federation_id(entry)}) + b"\n")


def require_no_refill(home: Path) -> None:
    """Refuse to run while a refill is under way.

    Raises:
        HomeUnusable: one is.
    """
    if (home / REFILL).exists():
        raise HomeUnusable(
            home,
            "its database is being refilled; finish that first: consilium coordinator refill",
        )


def replica_of(store: LogStore, settings: CoordinatorSettings) -> Replica:
    """The copy in a database; of genesis alone where it is empty.

    Raises:
        HomeUnusable: genesis cannot be read.
        LedgerError: the database is of another log, or cannot be read.
    """
    if store.size():
        return Replica.open(store, settings.federation)
    path = settings.home / GENESIS
    try:
        genesis = path.read_bytes()
    except OSError as error:
        raise HomeUnusable(
            path,
            f"cannot be read ({error.strerror}); any member's home holds the same file",
        ) from None
    return Replica.create(store, genesis, settings.federation)


def progress_noted(path: Path) -> dict[str, list[str]]:
    """What an unfinished refill noted of itself; empty without one.

    Raises:
        HomeUnusable: the note is not in the format.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise HomeUnusable(path, "it cannot be read; delete it and refill again") from None
    if not isinstance(found, dict):
        raise HomeUnusable(path, "it cannot be read; delete it and refill again")
    return {str(key): [str(item) for item in value] for key, value in found.items()}
