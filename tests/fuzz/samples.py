"""Valid bytes of every kind, from one federation that has run an experiment; made once a process."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

from ledger.copies.blobs import BlobStore
from ledger.copies.bundle import export_bundle
from ledger.entries.operations.values import BlobRef
from ledger.formats.checkpoint import log_verifier
from ledger.formats.note import VerifierKey
from ledger.formats.strict import canonical
from ledger.formats.value import replace
from tests.federation import COORDINATOR, Federation, node_of
from tests.ledger.rules.anything import any_op

FOLDER = Path(tempfile.mkdtemp(prefix="consilium-fuzz-"))
"""Of this process; files that a parser reads lie here."""
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


@cache
def federation() -> Federation:
    """Two hospitals, one experiment of two rounds, played and released."""
    made = Federation.found(("basel", "bern"))
    made.play(made.start())
    return made


@cache
def experiment() -> str:
    """Its experiment."""
    (found,) = federation().state.experiments
    return found


@cache
def log_key() -> VerifierKey:
    """The key that signed its checkpoints."""
    log = federation().rings[COORDINATOR].log
    assert log is not None
    return log_verifier(federation().origin, log.public)


@cache
def note() -> bytes:
    """Its newest checkpoint, cosigned."""
    return federation().finalize()


@cache
def witnesses() -> tuple[VerifierKey, ...]:
    """Its nodes' witness keys."""
    from ledger.formats.note import COSIGNATURE_V1
    from ledger.formats.witness import witness_name

    made = federation()
    return tuple(
        VerifierKey(
            witness_name(made.origin, node_of(name)),
            made.rings[node_of(name)].witness.public,
            COSIGNATURE_V1,
        )
        for name in ("basel", "bern")
    )


@cache
def leaves() -> list[bytes]:
    """An entry of each operation."""
    by_type = {entry.body.op.type: entry.leaf for entry in federation().entries()}
    return list(by_type.values())


@cache
def bodies() -> list[bytes]:
    """A body of each operation, those that no honest federation says as well."""
    entries = federation().entries()
    chance = random.Random(1)
    ops = {op.type: op for op in (any_op(chance, federation().state) for _ in range(400))}
    made = [canonical(replace(entries[-1].body, op=op)) for op in ops.values()]
    return [entry.raw for entry in entries[:30]] + made


@cache
def bundle() -> bytes:
    """Its log and a few blobs as one file."""
    small = Federation.found(("basel",))
    small.finalize()
    home = FOLDER / "exported"
    store = small.persist(home)
    ref = BlobStore(home / "blobs").put(b"a blob")
    store.put_conflict("fork", b"evidence of some kind")
    export_bundle(store, BlobStore(home / "blobs"), FOLDER / "sample.consilium", [ref])
    store.close()
    return (FOLDER / "sample.consilium").read_bytes()


@cache
def database() -> bytes:
    """The same log as a database file."""
    bundle()
    return (FOLDER / "exported" / "ledger.db").read_bytes()


def blob(ref: BlobRef) -> bytes:
    """A blob of the federation."""
    return federation().blobs[ref.sha256]


def in_file(name: str, data: bytes) -> Path:
    """The data in a file of this process."""
    path = FOLDER / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path
