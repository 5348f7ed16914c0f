"""Trust policies for checkpoints: which logs, which witnesses, which quorum of them.

c2sp.org/tlog-policy (untagged). A policy file lets someone outside the federation verify a proof
offline with another implementation; inside it, quorums come from the ledger (``witness``).

Promise: reading follows the specification, duplicates and forward references refused, and what
``format_policy`` writes reads back equal. Comments, blank lines and spacing are not kept.

Not promised: ML-DSA keys (type 0x06); a policy that names one is refused, not half understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ledger.errors import MalformedInput, NotWitnessed, UnknownKey
from ledger.formats.checkpoint import Checkpoint, parse_checkpoint
from ledger.formats.note import COSIGNATURE_V1, ED25519, VerifierKey, parse_vkey, verify_note
from ledger.formats.strict import excerpt

MAX_POLICY = 256 * 1024
MAX_DEFINITIONS = 1024
"""Logs, witnesses and groups together; the specification asks for at least 32 of each."""
NONE = "none"

_OCTETS = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*+")
_NUMBER = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Log:
    """A log whose checkpoints are accepted; its key's name is its origin."""

    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness under a name that means something in this policy only."""

    name: str
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Members (witnesses or earlier groups), ``threshold`` of which must have witnessed."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A checkpoint is valid if one of the logs signed it and the quorum witnessed it.

    Attributes:
        logs: accepted logs.
        witnesses: known witnesses.
        groups: in order of definition, each after its members.
        quorum: a witness's or group's name; None when no cosignature is needed.
    """

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str | None

    def met_by(self, keys: frozenset[bytes]) -> bool:
        """Say whether these public witness keys, 32 bytes each, satisfy the quorum."""
        if self.quorum is None:
            return True
        met = {witness.name: witness.key.public in keys for witness in self.witnesses}
        for group in self.groups:
            met[group.name] = sum(met[member] for member in group.members) >= group.threshold
        return met[self.quorum]


def parse_policy(data: bytes) -> Policy:
    """Read a policy file.

    Names are opaque octets: what is not UTF-8 travels as Python's surrogate escapes.

    Raises:
        MalformedInput: ``where`` is the line.
    """
    if len(data) > MAX_POLICY:
        raise MalformedInput("policy", f"has {len(data)} bytes; at most {MAX_POLICY} accepted")
    allowed = _OCTETS.match(data)
    if allowed is None or allowed.end() != len(data):
        raise MalformedInput("policy", "has a control character other than tab and LF")
    if data and not data.endswith(b"\n"):
        raise MalformedInput("policy", "does not end in LF")
    draft = _Draft()
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), start=1):
        # Not str.split(): it would also split at Unicode spaces, which are part of a name here.
        words = [word for word in re.split(r"[ \t]", line) if word]
        if words and not words[0].startswith("#"):
            draft.add(words, f"policy line {number}")
    return draft.finish()


def format_policy(policy: Policy) -> bytes:
    """Write a policy file."""
    lines = [_words("log", str(log.key), log.url) for log in policy.logs]
    lines += [_words("witness", w.name, str(w.key), w.url) for w in policy.witnesses]
    lines += [_words("group", g.name, _threshold_word(g), *g.members) for g in policy.groups]
    lines.append(_words("quorum", policy.quorum or NONE))
    return "".join(lines).encode("utf-8", "surrogateescape")


def verify_by_policy(note: bytes, policy: Policy) -> Checkpoint:
    """Verify a checkpoint note: one of the logs under its own origin, and the quorum.

    Raises:
        MalformedInput: not a checkpoint note.
        BadSignature: a line by a key of the policy does not verify.
        UnknownKey: no log of the policy signed it as its own.
        NotWitnessed: the quorum did not.
    """
    keys = [log.key for log in policy.logs] + [witness.key for witness in policy.witnesses]
    opened, verified = verify_note(note, keys)
    checkpoint = parse_checkpoint(opened.text)
    logs = {log.key for log in policy.logs if log.key.name == checkpoint.origin}
    if not any(signer.key in logs for signer in verified):
        raise UnknownKey(f"checkpoint of {excerpt(checkpoint.origin)}", "no log of the policy")
    signed = frozenset(signer.key.public for signer in verified if signer.time_s is not None)
    if not policy.met_by(signed):
        absent = frozenset(w.name for w in policy.witnesses if w.key.public not in signed)
        raise NotWitnessed(
            f"quorum {policy.quorum}",
            signed=len(policy.witnesses) - len(absent),
            missing=absent,
            needed=_threshold(policy),
        )
    return checkpoint


class _Draft:
    """A policy being read, line after line."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorum: list[str] = []
        self.grouped: set[str] = set()

    def add(self, words: list[str], where: str) -> None:
        if len(self.logs) + len(self.witnesses) + len(self.groups) >= MAX_DEFINITIONS:
            raise MalformedInput(where, f"is beyond the {MAX_DEFINITIONS} definitions accepted")
        match words:
            case ["log", vkey, *url] if len(url) <= 1:
                self._add_log(vkey, url, where)
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._add_witness(name, vkey, url, where)
            case ["group", name, threshold, *members]:
                self._add_group(name, threshold, members, where)
            case ["quorum", name]:
                self._set_quorum(name, where)
            case _:
                raise MalformedInput(where, "is no log, witness, group or quorum line")

    def finish(self) -> Policy:
        if not self.quorum:
            raise MalformedInput("policy", "has no quorum line; write `quorum none` to need none")
        name = self.quorum[0]
        return Policy(
            logs=tuple(self.logs),
            witnesses=tuple(self.witnesses),
            groups=tuple(self.groups),
            quorum=None if name == NONE else name,
        )

    def _add_log(self, vkey: str, url: list[str], where: str) -> None:
        key = _key(vkey, ED25519, where)
        if any(log.key.public == key.public for log in self.logs):
            raise MalformedInput(where, "repeats a log's key")
        self.logs.append(Log(key, *url))

    def _add_witness(self, name: str, vkey: str, url: list[str], where: str) -> None:
        key = _key(vkey, COSIGNATURE_V1, where)
        if any(witness.key.public == key.public for witness in self.witnesses):
            raise MalformedInput(where, "repeats a witness's key")
        self._check_new(name, where)
        self.witnesses.append(Witness(name, key, *url))

    def _add_group(self, name: str, threshold: str, members: list[str], where: str) -> None:
        self._check_new(name, where)
        if not members:
            raise MalformedInput(where, "is a group without members")
        for member in members:
            if member not in self._names():
                raise MalformedInput(where, f"{excerpt(member)} is not defined above")
            if member in self.grouped:
                raise MalformedInput(where, f"{excerpt(member)} is in a group already")
            self.grouped.add(member)
        needed = {"any": 1, "all": len(members)}.get(threshold)
        if needed is None:
            if not _NUMBER.fullmatch(threshold) or int(threshold) > len(members):
                raise MalformedInput(where, f"{excerpt(threshold)} is not any, all or 1..n")
            needed = int(threshold)
        self.groups.append(Group(name, needed, tuple(members)))

    def _set_quorum(self, name: str, where: str) -> None:
        if self.quorum:
            raise MalformedInput(where, "is a second quorum line")
        if name != NONE and name not in self._names():
            raise MalformedInput(where, f"{excerpt(name)} is not defined above")
        self.quorum.append(name)

    def _names(self) -> set[str]:
        return {witness.name for witness in self.witnesses} | {g.name for g in self.groups}

    def _check_new(self, name: str, where: str) -> None:
        if name == NONE or name in self._names():
            raise MalformedInput(where, f"the name {excerpt(name)} is taken")


def _threshold_word(group: Group) -> str:
    return "any" if group.threshold == 1 else str(group.threshold)


def _key(vkey: str, signature_type: int, where: str) -> VerifierKey:
    key = parse_vkey(vkey)
    if key.type != signature_type:
        raise MalformedInput(where, f"its key has type {key.type:#04x}, not {signature_type:#04x}")
    return key


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word is not None) + "\n"


def _threshold(policy: Policy) -> int:
    thresholds: Mapping[str, int] = {group.name: group.threshold for group in policy.groups}
    return thresholds.get(policy.quorum or NONE, 1)
