"""Everything that ``ledger`` raises, in one tree.

::

    LedgerError
    ├── Refused                 something from outside did not pass the door (where, reason)
    │   ├── MalformedInput      bytes or a value outside the strict format
    │   ├── BadSignature        a signature by a key we know does not verify
    │   ├── UnknownKey          nobody we know has signed
    │   ├── NotWitnessed        fewer organisations cosigned than finality needs (missing, needed)
    │   ├── CannotOpen          a sealed box is not for our key, or was changed
    │   ├── NotConsistent       a Merkle proof or a root does not hold
    │   ├── NotAdmitted         an entry's envelope does not fit the log (federation, key, chain, view)
    │   │   └── CopiedKey       this home's key was used elsewhere; nothing is signed with it (key)
    │   ├── ProtocolUnknown     the log's rules are newer than this software (at, version, known)
    │   ├── SuccessionRefused   a log does not take over what another one left
    │   ├── PlanRefused         an experiment cannot be planned on these datasets as it is described
    │   └── UploadOutOfStep     a part of a blob does not follow on what is there (expected)
    ├── ForkDetected            two signed checkpoints that cannot both be true (ours, theirs)
    ├── PromiseBroken           a log did not keep a signed receipt (evidence)
    ├── CallFailed              a coordinator did not do what was asked (url)
    │   ├── CoordinatorUnreachable  no answer; asking again is safe
    │   └── RequestRefused      it answered no (status, error, where, reason)
    ├── OutsideTree             an index or size that this tree does not have (asked, size)
    ├── KeyFileError            a key file cannot be written or read (path)
    │   ├── UnsafeKeyFile       others may read it, or it is no plain file
    │   └── WrongPassphrase     its passphrase does not open it
    ├── WorkerDied              a process that checked signatures for this one is gone
    ├── BlobError               a blob cannot be handed out (path)
    │   ├── BlobMissing         it is not here
    │   └── BlobCorrupt         its file is not what its name says
    └── StoreError              a copy of a log cannot be written or read (store)
        ├── StoreUnusable       it cannot be opened, or its database failed
        ├── StoreConflict       a write does not follow on what is stored
        ├── StoreCorrupt        what was stored is no longer there
        └── AlreadyRunning      another process holds its lock

Callers catch types and read fields; the messages are for people and may change.
"""

from __future__ import annotations

from pathlib import Path


class LedgerError(Exception):
    """The root: every error this package raises on purpose."""


class Refused(LedgerError):
    """Something from outside did not pass the door.

    Attributes:
        where: what was looked at, as a dotted path or a few words (``Entry.author.key``).
        reason: what was wrong with it.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class MalformedInput(Refused):
    """Bytes, or a value to encode, outside the strict format."""


class BadSignature(Refused):
    """A signature by a key we know does not verify."""


class UnknownKey(Refused):
    """Nobody we know has signed."""


class NotWitnessed(Refused):
    """Fewer organisations cosigned a checkpoint than finality needs.

    Attributes:
        missing: the organisations without a cosignature.
        needed: how many must cosign.
    """

    def __init__(self, where: str, *, signed: int, missing: frozenset[str], needed: int) -> None:
        super().__init__(
            where,
            f"{signed} organisations cosigned where {needed} must; "
            f"missing: {', '.join(sorted(missing)) or 'none'}",
        )
        self.missing = missing
        self.needed = needed


class CannotOpen(Refused):
    """A sealed box is not addressed to our key, or was changed on the way."""


class NotConsistent(Refused):
    """A Merkle proof or a root does not hold."""


class NotAdmitted(Refused):
    """An entry's envelope does not fit the log: federation, key, chain or view."""


class ProtocolUnknown(Refused):
    """The log has moved to a version of the rules that this software does not know.

    Attributes:
        at: the first entry that cannot be read.
        version: the version in force there.
        known: the newest that this software knows.
    """

    def __init__(self, *, at: int, version: int, known: int) -> None:
        super().__init__(
            f"entry {at}",
            f"from here on the log is of protocol {version}, and this software knows "
            f"{known}; install a newer release, which reads the log anew from its first entry",
        )
        self.at = at
        self.version = version
        self.known = known


class CopiedKey(NotAdmitted):
    """The log holds entries by a key that were not signed from this home; it signs nothing more.

    Attributes:
        key: its id.
        signed: number of the last entry that this home signed with it, or None.
        sequenced: number of its last entry in the log.
    """

    def __init__(self, key: str, signed: int | None, sequenced: int) -> None:
        here = "this home signed none" if signed is None else f"this home's last is number {signed}"
        super().__init__(
            f"key {key}",
            f"the log holds its entries up to number {sequenced} and {here}, or another under that "
            "number: the home was restored or copied, or somebody has its key. Nothing more is "
            "signed with it; make new keys with consilium member new-keys",
        )
        self.key = key
        self.signed = signed
        self.sequenced = sequenced


class SuccessionRefused(Refused):
    """A log that names another as its predecessor does not take over what that one left."""


class PlanRefused(Refused):
    """An experiment cannot be planned on these datasets as its spec describes it."""


class UploadOutOfStep(Refused):
    """A part of a blob does not follow on what is there already.

    Attributes:
        expected: the offset at which to go on.
    """

    def __init__(self, where: str, *, offset: int, expected: int) -> None:
        super().__init__(
            where, f"a part for byte {offset} came, but {expected} are here; go on at {expected}"
        )
        self.expected = expected


class ForkDetected(LedgerError):
    """One log signed two trees that cannot both be true.

    Attributes:
        origin: the log's origin.
        ours: the signed note that we held.
        theirs: the signed note that contradicts it.
        statements: both as evidence that anyone can check without us: where they are of two sizes,
            ours carries the proof between them (``evidence.Fork``).
    """

    def __init__(
        self,
        origin: str,
        *,
        ours: bytes,
        theirs: bytes,
        reason: str,
        statements: tuple[bytes, bytes] | None = None,
    ) -> None:
        super().__init__(f"log {origin!r} is forked: {reason}; keep both signed checkpoints")
        self.origin = origin
        self.ours = ours
        self.theirs = theirs
        self.reason = reason
        self.statements = statements or (ours, theirs)


class PromiseBroken(LedgerError):
    """A log did not keep a signed receipt; anybody can check it.

    Attributes:
        said: what is shown, in words.
    """

    def __init__(self, said: str) -> None:
        super().__init__(
            f"the log broke a signed promise: {said}. The evidence is kept in your home, and waits to "
            "be put on record; tell the other hospitals, and go on by repeating the command"
        )
        self.said = said


class CallFailed(LedgerError):
    """A coordinator did not do what was asked.

    Attributes:
        url: what was asked, without its query.
    """

    def __init__(self, url: str, text: str) -> None:
        super().__init__(f"{url}: {text}")
        self.url = url


class CoordinatorUnreachable(CallFailed):
    """No answer, or none that counts (a gateway's 502, a body cut short). Asking again is safe."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            url,
            f"the coordinator does not answer ({reason}); check its address and that it runs, "
            "then do the same again: nothing is done twice",
        )
        self.reason = reason


class RequestRefused(CallFailed):
    """The coordinator answered no.

    Attributes:
        status: HTTP status.
        error: name of the coordinator's error, e.g. ``NotAdmitted``.
        where: what it looked at.
        reason: what was wrong with it.
    """

    def __init__(self, url: str, *, status: int, error: str, where: str, reason: str) -> None:
        super().__init__(url, f"refused ({status} {error}): {where}: {reason}")
        self.status = status
        self.error = error
        self.where = where
        self.reason = reason


class OutsideTree(LedgerError):
    """An index or a size that this tree does not have.

    Attributes:
        asked: what the caller asked for, in words.
        size: how many leaves the tree has.
    """

    def __init__(self, asked: str, size: int) -> None:
        super().__init__(f"{asked} is outside this tree of {size} leaves")
        self.asked = asked
        self.size = size


class KeyFileError(LedgerError):
    """A key file cannot be written or read.

    Attributes:
        path: the file.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"key file {path}: {reason}")
        self.path = path
        self.reason = reason


class UnsafeKeyFile(KeyFileError):
    """Others than its owner may read or replace the file, or it is no plain file."""


class WrongPassphrase(KeyFileError):
    """The passphrase does not open the file, or its sealed part was changed."""


class WorkerDied(LedgerError):
    """A process that checked signatures for this one is gone; what it had to check is not verified."""

    def __init__(self) -> None:
        super().__init__(
            "a process that checks signatures has ended before it answered (was it killed, or out of "
            "memory?); start again"
        )


class BlobError(LedgerError):
    """A blob cannot be handed out.

    Attributes:
        path: its file.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"blob {path}: {reason}")
        self.path = path
        self.reason = reason


class BlobMissing(BlobError):
    """The blob is not in this store."""


class BlobCorrupt(BlobError):
    """The file is not what its name says, or is no plain file."""


class StoreError(LedgerError):
    """A copy of a log cannot be written or read.

    Attributes:
        store: the database, as a URL without its password.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, store: str, reason: str) -> None:
        super().__init__(f"store {store}: {reason}")
        self.store = store
        self.reason = reason


class StoreUnusable(StoreError):
    """The database cannot be opened, or failed; a write may or may not have been stored."""


class StoreConflict(StoreError):
    """A write does not follow on what is stored; nothing of it was stored."""


class StoreCorrupt(StoreError):
    """What was stored is no longer there: somebody else wrote into the database."""


class AlreadyRunning(StoreError):
    """Another process holds the store's lock."""
