"""Two entries by one key at one place of its chain: the judge of such evidence, and what follows.

`judge_entries` is pure and total on parsed entries; the fold runs it on the leaves that a
``key.conflicted`` carries, and everybody who holds evidence on disk runs it too. What it confirms is
true for whoever knows the public key: it needs neither the log nor who found it.

Not promised: who used the key. An equivocation is its owner's, or that of somebody who has its key,
or of a copy that was restored; the key is worth nothing in all three cases. Nothing is undone: what it
signed before the evidence arrived stays valid, and the member goes on with new keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ledger.entries.entry import Entry, parse_leaf, verify_signature
from ledger.entries.operations.members import KeyConflicted
from ledger.entries.operations.values import EMPTY_HASH
from ledger.errors import BadSignature, MalformedInput, NotConsistent, UnknownKey
from ledger.formats.keys import key_id
from ledger.formats.strict import decode_b64, encode_b64
from ledger.rules.members import recount_witnesses
from ledger.rules.state import KeyState, State, replace
from ledger.rules.verdict import Step, Void

MAX_EVIDENCE = 22 * 1024
"""Bytes of both leaves together that surely fit into one entry as base64."""


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two entries at one place of a chain.

    Attributes:
        member, key: whose key, and its id.
        seq: the place.
        hashes: of both entries.
    """

    member: str
    key: str
    seq: int
    hashes: tuple[str, str]


def collide(first: Entry, second: Entry) -> bool:
    """Whether two entries claim one place of one chain, in one federation.

    An entry 0 states no federation: two of them by one key found two federations.
    """
    a, b = first.body, second.body
    if a.federation == EMPTY_HASH or (a.federation, a.key, a.seq) != (b.federation, b.key, b.seq):
        return False
    # By what was signed: somebody else could vary the signature's bytes, never the body's.
    return first.raw != second.raw


def judge_entries(
    first: Entry, second: Entry, federation: str, keys: Mapping[str, KeyState]
) -> Equivocation:
    """Confirm that one key signed two entries for one place of its chain.

    Args:
        first: one of them.
        second: the other.
        federation: whose log the chain is in.
        keys: every entry key that was ever enrolled, by id.

    Raises:
        UnknownKey, BadSignature: they are not two entries by one enrolled key.
        NotConsistent: they do not contradict each other.
    """
    key = keys.get(first.body.key)
    if key is None:
        raise UnknownKey("evidence", f"key {first.body.key} is not enrolled")
    if first.body.federation != federation or not collide(first, second):
        raise NotConsistent("evidence", "its two entries are not at one place of one chain")
    for entry in (first, second):
        verify_signature(entry, bytes.fromhex(key.public))
    return Equivocation(key.member, first.body.key, first.body.seq, (first.hash, second.hash))


def conflict_operation(first: bytes, second: bytes) -> KeyConflicted | None:
    """What a member says who holds two such leaves; None when they are too long for one entry.

    Longer evidence stays with whoever holds it and goes into bundles; a steward of the member's
    organisation ends the key by ``key.revoked``.
    """
    if len(first) + len(second) > MAX_EVIDENCE:
        return None
    return KeyConflicted(type="key.conflicted", first=encode_b64(first), second=encode_b64(second))


def key_conflicted(state: State, step: Step, op: KeyConflicted) -> State | Void:
    """The key ends here, and a node under it is no witness until it is ready under new keys."""
    try:
        first, second = (parse_leaf(decode_b64(leaf, "leaf")) for leaf in (op.first, op.second))
        found = judge_entries(first, second, state.federation, state.keys)
    except (MalformedInput, UnknownKey, BadSignature, NotConsistent):
        return Void("evidence_invalid")
    key = state.keys[found.key]
    if key.retired_at is not None:
        return Void("repeated")
    ended = replace(key, retired_at=step.index + 1, conflicted_at=step.index)
    state = replace(state, keys=state.keys.set(found.key, ended))
    member = state.members[found.member]
    current = key_id(member.keys.entry.alg, bytes.fromhex(member.keys.entry.public))
    if current != found.key:
        return state
    # Two devices with its keys are two witnesses with one voice: it counts for none of them.
    members = state.members.set(found.member, replace(member, ready=False))
    return recount_witnesses(replace(state, members=members))
