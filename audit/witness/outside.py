"""What a witness outside the federation keeps, and how it looks at a log.

::

    keyring.json    its private key, encrypted (``ledger.formats.keys``)
    logs.policy     the logs it witnesses: ``log <vkey> [<url>]`` lines (c2sp.org/tlog-policy)
    witness.db      its memory, and the evidence of forks
    cosigned/       what monitors read: ``<hex SHA-256(origin)>/checkpoint``; any web server may hand it out
    evidence/       a folder for each fork: ours.note, theirs.note, and where their sizes differ ours.proof

A look: fetch the checkpoint and the tiles that lead from the tree cosigned last to it, and ask the same
judge that answers requests over HTTP (``StandingWitness``). So what is cosigned is durable before anyone
sees it, and never goes back.

Promise: a log that shows this witness two histories is found at the next look, the evidence convinces
whoever knows the log's key, and that log is cosigned no more.

Not promised: that the entries are true, or even there; a witness looks at hashes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from audit.errors import WitnessUnusable
from ledger.copies.evidence import FORK, Fork, fork_detected, read_fork, split
from ledger.copies.standing_witness import StandingWitness
from ledger.copies.store import LogStore
from ledger.copies.whole_file import replace_file
from ledger.errors import ForkDetected, MalformedInput, NotConsistent, Refused, StoreUnusable
from ledger.formats.checkpoint import Checkpoint, parse_checkpoint
from ledger.formats.key_file import Strength, load_keyring, save_keyring
from ledger.formats.keys import KeyRing
from ledger.formats.note import ED25519, VerifierKey, check_name, parse_note
from ledger.formats.tiles import Fetch, TileReader
from ledger.formats.tlog_policy import MAX_POLICY, Log, Policy, format_policy, parse_policy
from ledger.formats.witness import AddCheckpoint, Answer, checkpoint_path, witness_name

KEYRING = "keyring.json"
LOGS = "logs.policy"
MEMORY = "witness.db"
COSIGNED = "cosigned"
EVIDENCE = "evidence"


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at a log found.

    Attributes:
        size: entries under the checkpoint that it shows.
        cosigned: whether it was cosigned now.
        problem: why not, or None.
    """

    origin: str
    size: int
    cosigned: bool
    problem: str | None = None


class OutsideWitness:
    """See the module's first lines. `add_checkpoint` and `newest` are safe from several threads.

    Args:
        directory: the witness's own.
        passphrase: of its key.
        now_s: its clock, POSIX seconds.

    Raises:
        WitnessUnusable: a file is missing or malformed, or its name is one for members of a log.
        KeyFileError: the key does not open.
    """

    def __init__(self, directory: Path, passphrase: bytes, now_s: Callable[[], int]) -> None:
        ring = load_keyring(directory / KEYRING, passphrase)
        self._directory = directory
        self.logs = _read_logs(directory / LOGS)
        for log in self.logs:
            if ring.handle.startswith(witness_name(log.key.name, "")):
                raise WitnessUnusable(
                    directory, f"its name {ring.handle} is one for members of {log.key.name}"
                )
        self._store = LogStore.open(f"sqlite:///{(directory / MEMORY).resolve()}")
        self._standing = StandingWitness(
            self._store,
            {log.key.name: (log.key,) for log in self.logs},
            ring.witness,
            ring.handle,
            now_s=now_s,
            may_cosign=self._may_cosign,
        )
        self._forked: set[str] = set()
        for conflict in self._store.conflicts():
            if conflict.kind == FORK:
                self._keep(read_fork(*split(conflict.evidence)))

    @classmethod
    def create(
        cls, directory: Path, name: str, passphrase: bytes, *, strength: Strength = "moderate"
    ) -> None:
        """Make a witness's directory with a new key; it witnesses no log yet.

        Args:
            directory: empty, or not there.
            name: its key name, by custom a URL without scheme that its owner controls.
            passphrase: of its key.
            strength: see ``save_keyring``.

        Raises:
            WitnessUnusable: the directory is not empty, or the name cannot be a key's.
        """
        try:
            check_name(name, "--name")
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise WitnessUnusable(directory, "is not empty; choose another directory")
        except MalformedInput as error:
            raise WitnessUnusable(directory, str(error)) from None
        except OSError as error:
            raise WitnessUnusable(directory, f"cannot be made: {error.strerror}") from None
        save_keyring(
            directory / KEYRING, KeyRing.generate(name, "witness"), passphrase, strength=strength
        )

    @property
    def vkey(self) -> VerifierKey:
        """The key that others name in their policies."""
        return self._standing.vkey

    @property
    def forks(self) -> tuple[Path, ...]:
        """Folders with the evidence of a fork."""
        try:
            return tuple(sorted((self._directory / EVIDENCE).iterdir()))
        except FileNotFoundError:
            return ()

    def close(self) -> None:
        """Let go of the memory."""
        self._store.close()

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer a request; see ``StandingWitness``."""
        answer = self._standing.add_checkpoint(body, self._heard)
        if answer.status == 200:
            for log in self.logs:
                self._publish(log.key.name)
        return answer

    def newest(self, path: str) -> bytes | None:
        """What monitors read; see ``StandingWitness``."""
        return self._standing.newest(path)

    def look(self, log: VerifierKey, fetch: Fetch) -> Looked:
        """Look at a log's files, and cosign its checkpoint if it continues what was cosigned.

        Args:
            log: the log's key, one of `logs`.
            fetch: hands out the log's files.

        Raises:
            ForkDetected: it shows another history than before; the evidence is kept.
            Refused: its files do not hold together, or are not the log's.
            CallFailed: they cannot be fetched.
        """
        reader = TileReader(fetch, log)
        size = reader.size
        held = self._store.witnessed(log.name)
        proof: tuple[bytes, ...] = ()
        if held is not None and size < held.size:
            problem = f"shows {size} entries, and {held.size} were cosigned: old, or rolled back"
            return Looked(log.name, size, cosigned=False, problem=problem)
        if held is not None and 0 < held.size < size:
            then = reader.root(held.size)
            proof = reader.consistency(held.size)
            if then != held.root:
                fork = Fork(held.note, reader.note, held.size, then, proof)
                self._store.put_conflict(FORK, fork.encode())
                reason = f"its {size} entries do not begin with the {held.size} cosigned"
                found = fork_detected(log.name, fork, reason)
                self._heard(found)
                raise found
        request = AddCheckpoint(0 if held is None else held.size, proof, reader.note)
        heard: list[ForkDetected] = []
        answer = self._standing.add_checkpoint(request.encode(), heard.append)
        for fork_found in heard:
            self._heard(fork_found)
            raise fork_found
        if answer.status == 409:
            # Somebody sent a later one meanwhile; the next look goes on from there.
            return Looked(log.name, size, cosigned=False)
        if answer.status != 200:
            raise NotConsistent(f"checkpoint of {size} entries", answer.body.decode().strip())
        self._publish(log.name)
        return Looked(log.name, size, cosigned=True)

    def _heard(self, fork: ForkDetected) -> None:
        self._keep(read_fork(*fork.statements))

    def _keep(self, fork: Fork) -> None:
        """A log that forked is cosigned no more; a restart does not heal it."""
        _write_evidence(self._directory / EVIDENCE, fork)
        self._forked.add(parse_checkpoint(parse_note(fork.ours).text).origin)

    def _may_cosign(self, checkpoint: Checkpoint, note: bytes) -> str | None:
        if checkpoint.origin in self._forked:
            return "this log has signed two histories; the evidence is kept here"
        return None

    def _publish(self, origin: str) -> None:
        note = self._standing.newest(checkpoint_path(origin))
        if note is not None:
            _write(self._directory / COSIGNED / checkpoint_path(origin), note)


def add_log(directory: Path, log: VerifierKey, url: str | None) -> None:
    """Let a witness know a log; one that it knows gets the new address.

    Raises:
        WitnessUnusable: it is no log's key, or the file of logs cannot be read or written.
    """
    path = directory / LOGS
    if log.type != ED25519:
        raise WitnessUnusable(path, f"{log.name} is no log's key: its type is {log.type:#04x}")
    others = tuple(known for known in _read_logs(path) if known.key != log)
    if any(known.key.name == log.name for known in others):
        raise WitnessUnusable(path, f"names another key for {log.name}")
    text = format_policy(Policy((*others, Log(log, url)), (), (), None))
    _write(path, text)


def _read_logs(path: Path) -> tuple[Log, ...]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise WitnessUnusable(path, f"cannot be read: {error.strerror}") from None
    try:
        return parse_policy(data).logs
    except Refused as error:
        raise WitnessUnusable(path, str(error)) from None


def _write_evidence(directory: Path, fork: Fork) -> None:
    """Both notes; where they are of two sizes, also the first document of ``Fork.statements``."""
    ours, theirs = fork.statements()
    place = directory / f"fork-{sha256(fork.encode()).hexdigest()[:16]}"
    _write(place / "ours.note", fork.ours)
    _write(place / "theirs.note", theirs)
    if fork.size:
        _write(place / "ours.proof", ours)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise WitnessUnusable(path, f"cannot be written: {error.strerror}") from None
    except StoreUnusable as error:
        raise WitnessUnusable(path, error.reason) from None
