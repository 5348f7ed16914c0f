"""Checkpoints and kept evidence: steps 6, 7 and 14 of a verification, and 4 where evidence says so.

A copy holds signed checkpoints, final ones with cosignatures, and a node's also what it cosigned
itself. Each must be signed by the log's key over the root that the replayed entries have, and must
carry no line by anybody unknown: in one's own copy a line that nobody can account for is a change.
Finals are judged in order, each under the hospitals that counted at the final before it and under
those that count in the state which it covers. Evidence
against the log or a member is judged by ``ledger.copies.evidence``, as if a stranger had sent it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from audit.errors import DamagedCopy
from audit.verification.findings import Check, Witnesses
from audit.verification.replay import Replay
from audit.verification.sources import Copy
from ledger.copies.broken_receipt import BROKEN_RECEIPT, judge_broken, read_broken
from ledger.copies.evidence import (
    EQUIVOCATION,
    FORK,
    UNEXPLAINED,
    judge_equivocation,
    judge_fork,
    read_fork,
    split,
)
from ledger.copies.stored import Conflict
from ledger.entries.entry import log_origin
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobError, MalformedInput, NotConsistent, Refused, UnknownKey
from ledger.formats.checkpoint import Checkpoint, log_verifier, open_checkpoint
from ledger.formats.cosigned import find_cosigner, open_ours
from ledger.formats.note import parse_note
from ledger.formats.witness import QuorumResult
from ledger.rules.finality import judge_final


@dataclass(frozen=True, slots=True)
class Notes:
    """What the checkpoints of a copy show.

    Attributes:
        checks: steps 4, 6, 7 and 14.
        checkpoint: size of the newest signed checkpoint that fits, 0 for none.
        note: the newest final note where there is one, else the newest signed one, or None.
        note_size: the size that it covers, 0 for none.
        witnesses: who cosigned the newest final one.
        cosigned: sizes of the finals that hospitals had to cosign, rising, each with the POSIX
            seconds by which a quorum had.
    """

    checks: tuple[Check, ...]
    checkpoint: int
    note: bytes | None
    note_size: int
    witnesses: Witnesses
    cosigned: tuple[tuple[int, int], ...] = ()


def check_notes(replay: Replay, copy: Copy) -> Notes:
    """Check every stored checkpoint of a copy against the entries that were replayed."""
    if replay.size == 0:
        reason = "there is no federation whose log key could be used"
        checks = tuple(Check(step, "not_checkable", reason) for step in (6, 7, 14))
        return Notes(checks, 0, None, 0, Witnesses(0))
    judge = _Judge(replay)
    signed = judge.signed(copy)
    finals = judge.finals(copy)
    judge.memory(copy)
    judge.evidence(copy)
    judge.reports(copy)
    newest = max(signed, default=0)
    judge.conclude(newest, len(signed), finals)
    checks = (*judge.checks, *_releases(replay, [q.checkpoint.size for q, _ in finals]))
    if finals:
        quorum, note = finals[-1]
        cosigned = tuple(
            (q.checkpoint.size, q.reached_s) for q, _ in finals if q.reached_s is not None
        )
        size = quorum.checkpoint.size
        return Notes(checks, newest, note, size, _witnesses(quorum), cosigned)
    return Notes(checks, newest, signed.get(newest), newest, Witnesses(1))


class _Judge:
    """Collects checks over the notes of one copy."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._state = replay.log.state
        self._origin = log_origin(replay.federation)
        self._log = log_verifier(self._origin, bytes.fromhex(self._state.log_key.public))
        self._witnesses = frozenset(map(bytes.fromhex, replay.history.witness_keys))
        self.checks: list[Check] = []

    def signed(self, copy: Copy) -> dict[int, bytes]:
        """The signed checkpoints that fit, by size."""
        fits: dict[int, bytes] = {}
        try:
            for stored in copy.checkpoints():
                place = f"checkpoint of size {stored.size}"
                if self._open(6, place, stored.note, stored.size) is not None:
                    fits[stored.size] = stored.note
        except DamagedCopy as error:
            self._refute(6, error.reason, error.place)
        return fits

    def finals(self, copy: Copy) -> list[tuple[QuorumResult, bytes]]:
        """The finals that fit, in order, each with its quorum."""
        found: list[tuple[QuorumResult, bytes]] = []
        before = 1
        try:
            for stored in copy.finals():
                place = f"final checkpoint of size {stored.size}"
                if self._open(7, place, stored.note, stored.size) is None:
                    continue
                try:
                    quorum = judge_final(
                        stored.note, self._log, self._state, before=before, origin=self._origin
                    )
                except Refused as error:
                    self._refute(7, str(error), place)
                    continue
                short = quorum.short
                if short is not None:
                    self._refute(
                        7,
                        f"{len(short.signed)} hospitals cosigned where {short.needed} must; "
                        f"missing: {', '.join(sorted(short.missing))}",
                        place,
                    )
                    continue
                found.append((quorum, stored.note))
                before = quorum.checkpoint.size
        except DamagedCopy as error:
            self._refute(7, error.reason, error.place)
        return found

    def memory(self, copy: Copy) -> None:
        """What a node remembers to have cosigned must be of this log too."""
        try:
            held, count = copy.witnessed(self._origin)
        except DamagedCopy as error:
            self._refute(7, error.reason, error.place)
            return
        place = "the witness's memory"
        if count > (held is not None):
            self._refute(7, "it remembers to have cosigned another log than this one", place)
        if held is None:
            return
        checkpoint = self._open(7, place, held.note, held.size)
        if checkpoint is not None and checkpoint.root != held.root:
            self._refute(7, "its root is not that of its note", place)

    def evidence(self, copy: Copy) -> None:
        """What a copy keeps against the log or a member, judged as if a stranger had sent it."""
        try:
            for kept in copy.evidence():
                self._kept(kept)
        except DamagedCopy as error:
            self._refute(6, error.reason, error.place)

    def reports(self, copy: Copy) -> None:
        """Forks and broken receipts that members published."""
        for said, op in self._replay.history.forks:
            place = f"entry {said.index}"
            try:
                ours, theirs = _blob(copy, op.ours), _blob(copy, op.theirs)
            except (BlobError, MalformedInput) as error:
                detail = f"{place} reports a fork, whose evidence cannot be read: {error}"
                self.checks.append(Check(6, "not_checkable", detail))
            else:
                self._fork(place, ours, theirs)

        for said, broken in self._replay.history.broken_receipts:
            place = f"entry {said.index}"
            try:
                evidence = _blob(copy, broken.evidence)
            except (BlobError, MalformedInput) as error:
                detail = f"{place} reports a broken receipt; its evidence cannot be read: {error}"
                self.checks.append(Check(6, "not_checkable", detail))
            else:
                self._broken_receipt(place, evidence)

    def conclude(self, newest: int, signed: int, finals: list[tuple[QuorumResult, bytes]]) -> None:
        """Say what holds, and what these notes cannot show."""
        size = self._replay.size
        if signed:
            detail = (
                f"signed checkpoints that fit the tree of these entries: {signed}, up to {newest}"
            )
            self.checks.append(Check(6, "proved", detail))
        if newest < size and self._replay.complete:
            # Our programs store entries and the checkpoint over them in one transaction; a copy that
            # has only just begun holds genesis alone.
            detail = f"no checkpoint by the log covers entries {newest} to {size - 1}"
            if size > 1:
                self._refute(6, detail, f"entry {newest}")
            else:
                self.checks.append(Check(6, "not_checkable", detail))
        if finals:
            quorum = finals[-1][0]
            detail = (
                f"final checkpoints: {len(finals)}; the newest, over {quorum.checkpoint.size} "
                f"entries, has {len(quorum.signed)} of "
                f"{len(quorum.signed) + len(quorum.missing)} hospitals, {quorum.needed} are needed"
            )
            self.checks.append(Check(7, "proved", detail))
            if not _witnesses(quorum).independent:
                detail = "not independently witnessed: fewer than three hospitals could cosign"
                self.checks.append(Check(7, "not_checkable", detail))
        else:
            detail = "there is no final checkpoint in this copy: nobody but the log vouches for it"
            self.checks.append(Check(7, "not_checkable", detail))

    def _open(self, step: int, place: str, note: bytes, size: int) -> Checkpoint | None:
        """Open a note that belongs in this copy; a check instead where it does not."""
        if size > self._replay.size and not self._replay.complete:
            return None  # the replay has said that nothing from there on can be followed
        try:
            return self._fit(note, size)
        except Refused as error:
            self._refute(step, str(error), place)
            return None

    def _fit(self, note: bytes, size: int) -> Checkpoint:
        """The note is the log's, has known lines only, each once, and fits the tree."""
        opened = parse_note(note)
        seen: set[bytes] = set()
        for line in opened.signatures:
            if line.is_by(self._log):
                self._log.check(opened.text, line.payload)
                by = self._log.public
            else:
                found = find_cosigner(line, opened.text, self._origin, self._witnesses)
                by = b"" if found is None else found[0]
            if not by or by in seen:
                raise UnknownKey("signature line", f"one by {line.name!r} is unknown or twice")
            seen.add(by)
        checkpoint = open_ours(note, self._log)
        if checkpoint.size != size:
            raise NotConsistent("checkpoint", f"it is stored as one of size {size}")
        if size > self._replay.size:
            here = self._replay.size
            raise NotConsistent("checkpoint", f"it covers {size} entries, and only {here} are here")
        if self._replay.log.tree.root(size) != checkpoint.root:
            raise NotConsistent("checkpoint", "its root is not that of the entries")
        return checkpoint

    def _kept(self, kept: Conflict) -> None:
        place = "the evidence kept in this copy"
        try:
            if kept.kind == FORK:
                self._fork(place, *split(kept.evidence))
            elif kept.kind == UNEXPLAINED:
                self._unexplained(*split(kept.evidence))
            elif kept.kind == EQUIVOCATION:
                self._equivocation(place, kept.evidence)
            elif kept.kind == BROKEN_RECEIPT:
                self._broken_receipt(place, kept.evidence)
            else:
                detail = f"evidence of kind {kept.kind!r} is kept here; a person must read it"
                self.checks.append(Check(6, "not_checkable", detail))
        except MalformedInput as error:
            detail = f"{place}, of kind {kept.kind!r}, cannot be read: {error}"
            self.checks.append(Check(6, "not_checkable", detail))

    def _fork(self, place: str, ours: bytes, theirs: bytes) -> None:
        try:
            self._refute(6, judge_fork(read_fork(ours, theirs), self._log), place)
        except Refused as error:
            detail = f"{place} is called proof of a fork, and proves none: {error}"
            self.checks.append(Check(6, "not_checkable", detail))

    def _broken_receipt(self, place: str, evidence: bytes) -> None:
        """The log's own signatures, or its hospitals', against a promise of its."""
        try:
            verdict = judge_broken(read_broken(evidence), self._log, self._state)
        except Refused as error:
            detail = f"{place} is called a broken receipt, and shows none: {error}"
            self.checks.append(Check(6, "not_checkable", detail))
            return
        self._refute(6, f"the log broke a signed promise ({verdict.way}): {verdict.said}", place)

    def _unexplained(self, held: bytes, note: bytes) -> None:
        """A note that came with entries which do not lead to it: only this copy's growth can tell."""
        try:
            before = open_checkpoint(held, self._log, origin=self._origin)
            later = open_checkpoint(note, self._log, origin=self._origin)
        except Refused as error:
            detail = f"a note kept as unexplained is not the log's: {error}"
            self.checks.append(Check(6, "not_checkable", detail))
            return
        what = f"a note over {later.size} entries, kept as unexplained,"
        if later.size > self._replay.size:
            detail = (
                f"{what} came with entries that do not lead from {before.size} to it: the answer was "
                "wrong, or the log forked; a copy that reaches its size can tell"
            )
            self.checks.append(Check(6, "not_checkable", detail))
        elif self._replay.log.tree.root(later.size) == later.root:
            detail = (
                f"{what} fits this copy: an answer to its owner was wrong, the log is not forked"
            )
            self.checks.append(Check(6, "proved", detail))
        else:
            detail = f"{what} is by the log, and is not of this copy's history"
            self._refute(6, detail, f"checkpoint of size {later.size}, kept as unexplained")

    def _equivocation(self, place: str, evidence: bytes) -> None:
        try:
            found = judge_equivocation(evidence, self._replay.federation, self._state.keys)
        except Refused as error:
            detail = f"{place} is called two entries at one place, and is not: {error}"
            self.checks.append(Check(4, "not_checkable", detail))
            return
        first, second = (each[:12] for each in found.hashes)
        detail = (
            f"{found.member} signed two entries, {first} and {second}, as number {found.seq} of the "
            f"chain of key {found.key}: its owner, or somebody who has its key"
        )
        ended = self._state.keys[found.key].retired_at
        if ended is None:
            self._refute(4, detail, place)
            return
        settled = f"{detail}; the key ended at entry {ended - 1}"
        self.checks.append(Check(4, "proved", settled, place))

    def _refute(self, step: int, detail: str, place: str) -> None:
        self.checks.append(Check(step, "refuted", detail, place))


def _releases(replay: Replay, finals: list[int]) -> Iterator[Check]:
    """Step 14: a final checkpoint between a model's completion and its release."""
    released = unknown = 0
    for experiment in replay.history.experiments.values():
        if experiment.released is None or experiment.completed is None:
            continue
        done, out = experiment.completed[0].index, experiment.released[0].index
        if any(done < size <= out for size in finals):
            released += 1
            continue
        unknown += 1
        yield Check(
            14,
            "not_checkable",
            f"model of {experiment.terms.name}: this copy has no final checkpoint between its "
            f"completion (entry {done}) and its release (entry {out})",
        )
    if released or not unknown:
        detail = f"releases under a final checkpoint that contains their completion: {released}"
        yield Check(14, "proved", detail if released else "no model was released so far")


def _witnesses(quorum: QuorumResult) -> Witnesses:
    return Witnesses(
        size=quorum.checkpoint.size,
        signed=tuple(sorted(quorum.signed)),
        missing=tuple(sorted(quorum.missing)),
        needed=quorum.needed,
        newest_s=max(quorum.signed.values(), default=None),
    )


def _blob(copy: Copy, ref: BlobRef) -> bytes:
    return copy.blob(ref.sha256, ref.bytes)
