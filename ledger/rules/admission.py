"""Admission: whether an entry's envelope fits the log. The fold judges the operation afterwards.

`admit` is pure. It checks, in this order, the federation, the vocabulary in force, the author's active key, the position in
that key's chain, the author's view of the log, and for a member that joins its seat and the proof by
the invitation's one-time key. It gives back the public key under which the signature must verify;
verifying is a step of its own, since it can run beside others.

An entry that is not admitted is not in the log and changes nothing. Its author may mend and send
again; the same bytes again are recognised by the caller by their leaf hash.
"""

from __future__ import annotations

from collections.abc import Callable

from ledger.entries.entry import Entry
from ledger.entries.operations.members import MemberJoined
from ledger.entries.operations.values import EMPTY_HASH
from ledger.entries.operations.vocabulary import GENESIS
from ledger.errors import NotAdmitted
from ledger.formats.keys import key_id, verify
from ledger.rules.fold import PROTOCOLS, protocol_of
from ledger.rules.members import claim_bytes, keys_in_use, open_seat
from ledger.rules.state import State

RootAt = Callable[[int], bytes]


def admit(state: State, entry: Entry, root_at: RootAt) -> bytes:
    """Judge the envelope of an entry that would be number ``state.size``.

    Args:
        state: the state before the entry.
        entry: parsed; its signature is not looked at here.
        root_at: root of this log's tree at a size up to ``state.size``.

    Returns:
        The raw public key under which the entry's signature must verify.

    Raises:
        NotAdmitted: says which part of the envelope does not fit.
        ProtocolUnknown: the log has moved to rules that this software does not know.
    """
    body = entry.body
    if body.federation != state.federation:
        raise NotAdmitted(
            entry.where, f"it is for federation {body.federation[:12]}, not for this one"
        )
    op = body.op
    said = op.type
    protocol = PROTOCOLS.get(state.protocol) or protocol_of(state)
    if said not in protocol.rules and said not in GENESIS:
        raise NotAdmitted(entry.where, f"protocol {state.protocol}, now in force, knows no {said}")
    if op.type == "member.joined":  # an isinstance of a model costs half a microsecond
        public = _admit_joining(state, entry, op)
    else:
        public = _admit_chain(state, entry)
    seen = body.seen
    size = seen.size
    if size > state.size:
        raise NotAdmitted(entry.where, f"it has seen {size} entries of a log of {state.size}")
    if root_at(size).hex() != seen.root:
        raise NotAdmitted(
            entry.where, f"the log it has seen, of {size} entries, is not a prefix of this one"
        )
    return public


def _admit_chain(state: State, entry: Entry) -> bytes:
    body = entry.body
    key = state.keys.get(body.key)
    if key is None:
        raise NotAdmitted(entry.where, f"key {body.key} is not enrolled")
    if key.member != body.author:
        raise NotAdmitted(entry.where, f"key {body.key} belongs to {key.member}")
    if key.retired_at is not None:
        raise NotAdmitted(entry.where, f"key {body.key} was retired at entry {key.retired_at - 1}")
    if body.seq != key.next_seq or body.prev != key.head:
        raise NotAdmitted(
            entry.where,
            f"its key's chain goes on with number {key.next_seq} after {key.head[:12]}, "
            f"not with {body.seq} after {body.prev[:12]}",
        )
    return bytes.fromhex(key.public)


def _admit_joining(state: State, entry: Entry, op: MemberJoined) -> bytes:
    body = entry.body
    if (body.seq, body.prev) != (0, EMPTY_HASH):
        raise NotAdmitted(entry.where, "a member joins with the first entry of its key's chain")
    public = bytes.fromhex(op.keys.entry.public)
    if key_id(op.keys.entry.alg, public) != body.key:
        raise NotAdmitted(entry.where, "it is not signed by the entry key that it enrols")
    found = open_seat(state, body.author, op.invitation)
    if found is None:
        raise NotAdmitted(
            entry.where,
            f"no open invitation has a free seat for {body.author!r}; ask a steward for one",
        )
    seat = next(s for s in found.invitation.seats if s.handle == body.author)
    if (op.keys.witness is None) == (seat.role == "node"):
        raise NotAdmitted(entry.where, "a node enrols a witness key, and only a node")
    if keys_in_use(state, op.keys):
        raise NotAdmitted(entry.where, "one of its keys is or was in use; make new ones")
    one_time = bytes.fromhex(found.invitation.key.public)
    claim = claim_bytes(state.federation, body.author, op.keys)
    if not verify(one_time, "invitation", claim, bytes.fromhex(op.proof)):
        raise NotAdmitted(
            entry.where, "the invitation's key did not sign for this handle and these keys"
        )
    return public
