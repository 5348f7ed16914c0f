"""What a witness answers, and what its cosignatures are worth.

The witness half is c2sp.org/tlog-witness@v1.0.0 without HTTP: ``judge_add_checkpoint`` takes a
request body and what the witness remembers, and returns its answer and what to remember next.
The quorum half counts organisations: a quorum is floor(2w/3)+1 of w organisations, and with w = 0
the log's signature. Whose quorum makes a checkpoint final is in ``finality.py``.

Promise: a witness that stores ``Judgement.state`` durably, in one transaction with reading it and
BEFORE it sends the answer, never cosigns two trees that contradict each other. Each organisation
counts once, by any of its keys; a key counts for one organisation only.

Not promised: anything about time. The caller hands in its clock, and refuses a log time that
runs ahead of it before asking here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from ledger.errors import (
    BadSignature,
    ForkDetected,
    MalformedInput,
    NotConsistent,
    NotWitnessed,
    UnknownKey,
)
from ledger.formats.checkpoint import (
    Checkpoint,
    cosign,
    open_checkpoint,
    parse_checkpoint,
    parse_size,
)
from ledger.formats.cosigned import WITNESS, find_cosigner
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from ledger.formats.note import MAX_NOTE, VerifierKey, parse_note, verify_note
from ledger.formats.strict import decode_b64, encode_b64, excerpt

MAX_PROOF_LINES = 63
"""Hashes in a request: tlog-witness, a client MUST NOT send more."""
MAX_REQUEST = MAX_NOTE + 4096
"""Bytes of a request body."""
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request for a cosignature.

    Attributes:
        old: the size the log believes this witness cosigned last; 0 for none.
        proof: consistency proof from ``old`` to the checkpoint.
        note: the checkpoint note, verbatim.
    """

    old: int
    proof: tuple[bytes, ...]
    note: bytes

    def encode(self) -> bytes:
        """Write the request body."""
        lines = "".join(f"{encode_b64(node)}\n" for node in self.proof)
        return f"old {self.old}\n{lines}\n".encode() + self.note


@dataclass(frozen=True, slots=True)
class Seen:
    """The last checkpoint this witness cosigned for one origin.

    Attributes:
        size: its size.
        root: its root.
        note: the whole signed checkpoint, since it is the evidence if the log ever forks.
    """

    size: int
    root: bytes
    note: bytes


WitnessState = Mapping[str, Seen]
"""What a witness remembers: origin -> last checkpoint cosigned."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, body and its ``Content-Type``."""

    status: int
    body: bytes
    content_type: str = TEXT_TYPE


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to answer, and what to store before answering.

    Attributes:
        answer: the HTTP answer.
        state: the state to remember; the very same object when nothing changed.
        fork: evidence against the log, where the request carried some; publish it.
    """

    answer: Answer
    state: WitnessState
    fork: ForkDetected | None = None


@dataclass(frozen=True, slots=True)
class QuorumResult:
    """Who cosigned a checkpoint, who is missing, how many are needed.

    Attributes:
        checkpoint: what was signed.
        signed: organisation -> POSIX seconds of its newest cosignature.
        missing: organisations without one.
        needed: organisations that must have signed; 0 without any ready organisation.
        before: the same for other witnesses who must have a quorum too, or None. Whatever is asked
            of the whole (final, reached, fresh) must hold for both.
    """

    checkpoint: Checkpoint
    signed: Mapping[str, int]
    missing: frozenset[str]
    needed: int = field(default=0)
    before: QuorumResult | None = None

    @property
    def final(self) -> bool:
        """Whether enough organisations cosigned."""
        return self.short is None

    @property
    def short(self) -> QuorumResult | None:
        """The quorum that is missing, the witnesses' before first; None when none is."""
        short = None if self.before is None else self.before.short
        return short or (self if len(self.signed) < self.needed else None)

    @property
    def reached_s(self) -> int | None:
        """POSIX seconds by which enough of them had cosigned; None where nobody needs to."""
        if not self.final:
            return None
        times = [] if self.before is None else [self.before.reached_s]
        if self.needed:
            times.append(sorted(self.signed.values())[self.needed - 1])
        return max((time_s for time_s in times if time_s is not None), default=None)

    def fresh(self, since_s: int) -> bool:
        """Say whether enough of them cosigned at or after this time (POSIX seconds)."""
        if self.before is not None and not self.before.fresh(since_s):
            return False
        return sum(time_s >= since_s for time_s in self.signed.values()) >= self.needed

    def require(self) -> None:
        """Refuse a checkpoint that is not final.

        Raises:
            NotWitnessed: names who is missing.
        """
        short = self.short
        if short is not None:
            raise NotWitnessed(
                f"checkpoint {self.checkpoint.size} of {self.checkpoint.origin}",
                signed=len(short.signed),
                missing=short.missing,
                needed=short.needed,
            )


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """Read a request body; the note inside is cut out, not judged.

    Raises:
        MalformedInput: ``AddCheckpoint.encode`` would not have written these bytes, or more than
            ``MAX_PROOF_LINES`` hashes.
    """
    if len(body) > MAX_REQUEST:
        raise MalformedInput("request", f"has {len(body)} bytes; at most {MAX_REQUEST} accepted")
    head, empty, note = body.partition(b"\n\n")
    if not empty:
        raise MalformedInput("request", "has no empty line before the checkpoint")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedInput("request", f"is not ASCII at byte {error.start}") from None
    if not first.startswith("old "):
        raise MalformedInput("request", f"{excerpt(first)} is not an old size line")
    if len(lines) > MAX_PROOF_LINES:
        raise MalformedInput("request", f"has {len(lines)} hashes; at most {MAX_PROOF_LINES}")
    return AddCheckpoint(
        old=parse_size(first.removeprefix("old "), "request old size"),
        proof=tuple(
            decode_b64(line, f"request proof line {at}", size=HASH_BYTES)
            for at, line in enumerate(lines, start=1)
        ),
        note=note,
    )


def judge_add_checkpoint(
    body: bytes,
    state: WitnessState,
    *,
    logs: Mapping[str, Sequence[VerifierKey]],
    key: SigningKey,
    name: str,
    time_s: int,
) -> Judgement:
    """Decide one request for a cosignature (tlog-witness, "add-checkpoint").

    1. The body, the note and the checkpoint parse (400).
    2. The origin is one we witness (404).
    3. A trusted log key signed it, and no line by one fails (403).
    4. The old size is not above the checkpoint's (400).
    5. The old size is the one we cosigned last, 0 for none (409, with our size).
    6. The tree continues the one we cosigned last (422).
    7. Cosign, remember, answer (200). The same tree again gets a fresh time.

    Args:
        body: the request body.
        state: what this witness remembers.
        logs: the log keys trusted, by origin.
        key: the witness key.
        name: the witness's key name.
        time_s: this witness's clock, POSIX seconds.
    """
    try:  # 1
        request = parse_add_checkpoint(body)
        checkpoint = parse_checkpoint(parse_note(request.note).text)
    except MalformedInput as error:
        return Judgement(_says(400, str(error)), state)
    trusted = logs.get(checkpoint.origin)
    if trusted is None:  # 2
        return Judgement(_says(404, "unknown log"), state)
    try:  # 3
        verify_note(request.note, trusted)
    except (BadSignature, UnknownKey) as error:
        return Judgement(_says(403, f"invalid signature: {error}"), state)
    seen = state.get(checkpoint.origin)
    fork = _fork(seen, checkpoint, request.note)
    if request.old > checkpoint.size:  # 4
        return Judgement(_says(400, "old size is above the checkpoint's"), state, fork)
    last = seen.size if seen else 0
    if request.old != last:  # 5
        return Judgement(Answer(409, b"%d\n" % last, SIZE_TYPE), state, fork)
    try:  # 6
        _check_growth(seen, checkpoint, request.proof)
    except NotConsistent as error:
        return Judgement(_says(422, f"consistency proof: {error}"), state, fork)
    line = cosign(request.note, key, name, time_s)  # 7
    remembered = Seen(checkpoint.size, checkpoint.root, request.note)
    return Judgement(Answer(200, line), {**state, checkpoint.origin: remembered})


def parse_size_answer(body: bytes) -> int:
    """Read a 409's body: the size the witness cosigned last.

    A log whose own size is smaller was rolled back: it must stop, and never sign.

    Raises:
        MalformedInput: not a decimal number and LF.
    """
    text = body.decode("latin-1")
    if not text.endswith("\n"):
        raise MalformedInput("409 body", "does not end in LF")
    return parse_size(text[:-1], "409 body")


def witness_name(origin: str, handle: str) -> str:
    """Return the key name under which a federation's node cosigns."""
    return f"{origin}{WITNESS}{handle}"


def checkpoint_path(origin: str) -> str:
    """Return the monitoring path of an origin: ``<hex SHA-256(origin)>/checkpoint``."""
    return f"{sha256(origin.encode()).hexdigest()}/checkpoint"


def quorum_size(ready: int) -> int:
    """Return how many of ``ready`` organisations make a checkpoint final: floor(2w/3)+1.

    0 for w = 0: then the log's own signature is all there can be.
    """
    return ready * 2 // 3 + 1 if ready else 0


def judge_quorum(
    note: bytes,
    log: VerifierKey,
    witnesses: Mapping[str, frozenset[bytes]],
    *,
    origin: str | None = None,
) -> QuorumResult:
    """Count the organisations that cosigned a checkpoint.

    Cosignature/v1 does not cover the witness's name, so keys are recognised by the id they have
    under whatever name below ``<origin>/witness/`` the line carries. An unknown line is ignored.

    Args:
        note: the checkpoint note as received.
        log: the log's key.
        witnesses: each ready organisation's public witness keys, 32 bytes each.
        origin: the origin expected; by default the log key's name.

    Returns:
        Who signed, with ``final`` and ``require``; a missing quorum is no error here.

    Raises:
        MalformedInput: not a checkpoint of this log, or one key given to two organisations.
        BadSignature: a line by the log or by a known witness key does not verify.
        UnknownKey: the log did not sign.
    """
    checkpoint = open_checkpoint(note, log, origin=origin)
    owners = _owners(witnesses)
    opened = parse_note(note)
    signed: dict[str, int] = {}
    for line in opened.signatures:
        found = find_cosigner(line, opened.text, checkpoint.origin, owners)
        if found is not None:
            organisation = owners[found[0]]
            signed[organisation] = max(found[1], signed.get(organisation, 0))
    return QuorumResult(
        checkpoint=checkpoint,
        signed=signed,
        missing=frozenset(witnesses) - signed.keys(),
        needed=quorum_size(len(witnesses)),
    )


def _says(status: int, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode("utf-8", errors="replace"))


def _fork(seen: Seen | None, checkpoint: Checkpoint, note: bytes) -> ForkDetected | None:
    """Two signed roots of one size: proof that the log forked, whatever was asked."""
    if seen is None or seen.size != checkpoint.size or seen.root == checkpoint.root:
        return None
    reason = f"it signed two roots of size {seen.size}"
    return ForkDetected(checkpoint.origin, ours=seen.note, theirs=note, reason=reason)


def _check_growth(seen: Seen | None, checkpoint: Checkpoint, proof: tuple[bytes, ...]) -> None:
    """Refuse a tree that does not continue the one we saw; the RFC begins at size 1, we at 0."""
    where = f"checkpoint of size {checkpoint.size}"
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise NotConsistent(where, "the empty tree has one root only, SHA-256 of nothing")
    if seen is None or seen.size == 0:
        if proof:
            raise NotConsistent(where, "nothing came before, so there is nothing to prove")
        return
    verify_consistency(
        old_size=seen.size,
        new_size=checkpoint.size,
        old_root=seen.root,
        new_root=checkpoint.root,
        proof=proof,
    )


def _owners(witnesses: Mapping[str, frozenset[bytes]]) -> dict[bytes, str]:
    owners: dict[bytes, str] = {}
    for organisation, keys in witnesses.items():
        for public in keys:
            if owners.setdefault(public, organisation) != organisation:
                raise MalformedInput(
                    "witness keys", f"{organisation} and {owners[public]} share one key"
                )
    return owners
