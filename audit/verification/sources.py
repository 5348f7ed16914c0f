"""Copies of a ledger: what a person points at, opened for reading and nothing else.

A copy is a bundle file, a home of a coordinator or a node (``ledger.db`` and ``blobs/``), a folder of
tiles, a database by URL, or a directory that holds several of these, such as a demo's output.
`open_copies` finds them.

Promise: nothing is written beside, locked or migrated; an SQLite database is copied first. Not
promised: that anything in a copy is true; that is for ``verify``.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from audit.errors import BadTrustAnchor, SourceUnusable
from audit.verification.copies import BundleCopy as BundleCopy
from audit.verification.copies import Copy as Copy
from audit.verification.copies import Fault as Fault
from audit.verification.copies import StoreCopy as StoreCopy
from audit.verification.copies import StoredEntry as StoredEntry
from audit.verification.copies import reason_of
from audit.verification.sqlite_copy import MAGIC as SQLITE_MAGIC
from audit.verification.sqlite_copy import copy_database, page_fault, wal_fault
from audit.verification.tile_copy import TileCopy as TileCopy
from audit.verification.tile_copy import open_tiles
from ledger.copies.blobs import BlobStore
from ledger.copies.bundle import MAGIC as BUNDLE_MAGIC
from ledger.copies.bundle import SUFFIX
from ledger.copies.database import REVISION
from ledger.copies.store import LogStore
from ledger.entries.entry import federation_id, parse_leaf
from ledger.entries.operations.federation import FederationFounded
from ledger.entries.operations.succession import FederationSucceeded
from ledger.errors import Refused, StoreError
from ledger.formats.tile_folder import folder
from ledger.formats.tiles import CHECKPOINT

DATABASE = "ledger.db"
_MADE_UP = (
    "SELECT m.name FROM sqlite_master AS m WHERE type = 'view' OR (type = 'table' AND (rootpage = 0"
    " OR EXISTS (SELECT 1 FROM pragma_table_xinfo(m.name) AS c WHERE c.hidden > 0)))"
)
"""Views, virtual tables, generated columns: an answer without end or of any size is a line of SQL there."""
BLOBS = "blobs"


def open_copies(at: str) -> list[Copy]:
    """Open what a person points at.

    Args:
        at: a bundle file, an SQLite file, a home directory, a folder of tiles, a directory of homes
            and bundles, or a database URL.

    Returns:
        At least one copy; the caller closes them.

    Raises:
        SourceUnusable: nothing there is a copy of a ledger, or one of them cannot be opened at all.
    """
    if at.startswith(("http://", "https://")):
        raise SourceUnusable(
            at, "is a server; fetch its log first: consilium ledger tiles --at URL --out DIR"
        )
    if "://" in at:
        return [_open_url(at)]
    path = Path(at)
    if path.is_file():
        return [_open_file(path, path.name)]
    if not path.is_dir():
        raise SourceUnusable(at, "is not there; give a bundle, a home directory or a database URL")
    if (path / DATABASE).exists():
        return [_open_home(path, path.name or str(path))]
    if is_tile_folder(path):
        return [open_tiles(path.name or str(path), folder(path))]
    opened: list[Copy] = []
    try:
        for found in _within(path):
            name = str(found.relative_to(path))
            opened.append(_open_file(found, name) if found.is_file() else _open_home(found, name))
    except SourceUnusable:
        close_copies(opened)
        raise
    if not opened:
        raise SourceUnusable(
            at, f"holds no {DATABASE} and no *{SUFFIX} file, here or two directories down"
        )
    return opened


def is_tile_folder(path: Path) -> bool:
    """Whether a directory looks like a log's exported tiles."""
    return (path / CHECKPOINT).is_file() and (path / "tile").is_dir()


def find_places(at: str) -> list[Path]:
    """Files whose change means that the copies at a place have changed; for a watcher."""
    if "://" in at:
        return []
    path = Path(at)
    if is_tile_folder(path):
        return [path / CHECKPOINT]
    alone = not path.is_dir() or (path / DATABASE).exists()
    homes = [path] if alone else list(_within(path))
    files = [home / DATABASE if home.is_dir() else home for home in homes]
    return [each for file in files for each in (file, file.with_name(file.name + "-wal"))]


def close_copies(copies: Iterable[Copy]) -> None:
    """Close each of them."""
    for copy in copies:
        copy.close()


def parse_trust(given: str) -> str:
    """The federation id behind a trust anchor: a genesis file, or the id itself.

    Raises:
        BadTrustAnchor: it is neither.
    """
    text = given.strip()
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text
    try:
        data = Path(given).read_bytes()
    except OSError as error:
        raise BadTrustAnchor(given, f"cannot be read ({error.strerror})") from None
    try:
        entry = parse_leaf(data)
    except Refused as error:
        raise BadTrustAnchor(given, f"is no genesis entry ({error})") from None
    if not isinstance(entry.body.op, FederationFounded | FederationSucceeded):
        raise BadTrustAnchor(given, f"is an entry {entry.body.op.type}, not a genesis entry")
    return federation_id(entry)


def _within(path: Path) -> Iterator[Path]:
    homes = {found.parent for depth in ("*", "*/*") for found in path.glob(f"{depth}/{DATABASE}")}
    yield from sorted(homes)
    yield from sorted(path.glob(f"*{SUFFIX}"))


def _open_file(path: Path, name: str) -> Copy:
    try:
        with path.open("rb") as file:
            first = file.read(len(BUNDLE_MAGIC))
    except OSError as error:
        raise SourceUnusable(str(path), f"cannot be read ({error.strerror})") from None
    if first.startswith(SQLITE_MAGIC):
        return _open_sqlite(path, None, name)
    if first == BUNDLE_MAGIC or path.suffix == SUFFIX:
        return BundleCopy(name, path)
    if path.suffix == ".db":
        raise SourceUnusable(str(path), "is not an SQLite database: its first bytes are others")
    raise SourceUnusable(str(path), f"is neither a bundle (*{SUFFIX}) nor an SQLite database")


def _open_home(path: Path, name: str) -> Copy:
    blobs = path / BLOBS
    return _open_sqlite(path / DATABASE, blobs if blobs.is_dir() else None, name)


def _open_sqlite(path: Path, blobs: Path | None, name: str) -> Copy:
    temporary = Path(tempfile.mkdtemp(prefix="consilium-audit-"))
    try:
        copied = copy_database(path, temporary)
        damage = wal_fault(copied)
        faults = [] if damage is None else [Fault(f"{path}-wal", damage)]
        damage = page_fault(copied)
        if damage is not None:
            faults.append(Fault(str(path), f"its pages do not hold together: {damage}"))
        _require_schema(copied, path)
        store = LogStore.open(f"sqlite:///{copied}")
    except SourceUnusable:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    except (StoreError, UnicodeDecodeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SourceUnusable(str(path), reason_of(error)) from None
    return StoreCopy(
        name, store, None if blobs is None else BlobStore(blobs), tuple(faults), temporary
    )


def _require_schema(copied: Path, path: Path) -> None:
    """A database of another release is refused, never migrated: an auditor changes nothing."""
    connection = sqlite3.connect(copied)
    try:
        made_up = connection.execute(_MADE_UP).fetchone()
        if made_up is not None:
            raise SourceUnusable(
                str(path), f"its {made_up[0]!a} computes what it holds; a ledger's tables hold rows"
            )
        found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise SourceUnusable(str(path), f"is no ledger database ({error})") from None
    finally:
        connection.close()
    if found != (REVISION,):
        raise SourceUnusable(
            str(path), f"has schema {found!r}, this release reads {REVISION!r}; use the other one"
        )


def _open_url(url: str) -> Copy:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SourceUnusable("(unreadable URL)", "write postgresql://user@host/name") from None
    name = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite":
        return _open_file(Path(parsed.database or ""), name)
    guarded = parsed.update_query_dict({"options": "-c default_transaction_read_only=on"})
    try:
        return StoreCopy(name, LogStore.open(guarded.render_as_string(hide_password=False)))
    except StoreError as error:
        raise SourceUnusable(name, error.reason) from None
