"""A federation's witnesses as a tlog-policy file, for whoever verifies with other people's tools.

The file names the log's key, every witness key with its organisation as a group, and the quorum over
these groups: floor(2w/3)+1 of w organisations, each by any of its keys. With w = 0 it asks for none.

Not promised: all of finality. A policy file knows one set of witnesses; a final checkpoint also has the
quorum of those that witnessed the final before it (``finality.py``), which only the log can tell.
Who hands the file over decides what is trusted, so it comes from a hospital, not from a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.entries.entry import log_origin
from ledger.errors import MalformedInput
from ledger.formats.note import COSIGNATURE_V1, VerifierKey, key_id_of, parse_note
from ledger.formats.tlog_policy import NONE, Group, Log, Policy, Witness
from ledger.formats.witness import quorum_size, witness_name
from ledger.rules.state import State

QUORUM = "consilium/quorum"
"""Name of the group of organisations. Slugs have no slash, so nobody's name collides with it."""
WITH_OUTSIDE = "consilium/quorum-and-outside"


def outside_policy(
    state: State,
    size: int,
    log: VerifierKey,
    *,
    note: bytes | None = None,
    outside: Sequence[VerifierKey] = (),
) -> Policy:
    """Write down who must have cosigned a checkpoint over ``size`` entries.

    Args:
        state: of a log that holds at least that many entries.
        size: whose witnesses count, those in the state after so many entries.
        log: the log's key, named by its origin.
        note: a checkpoint note; a key that its handle has given up since is found by its line there.
        outside: keys (type 0x04) of witnesses that belong to no member; all of them are asked for
            beside the quorum.

    Raises:
        MalformedInput: an outside key is of another type, or there twice.
    """
    names = _handles(state)
    if note is not None:
        names |= _names_in(note, log.name, state.witnesses_at(size))
    witnesses: list[Witness] = []
    labels: set[str] = set()
    groups: list[Group] = []
    for organisation, keys in sorted(state.witnesses_at(size).items()):
        members = []
        for public in sorted(keys):
            # A key that nobody holds any more and that did not sign: no line will name it.
            name = names.get(public, witness_name(log.name, f"former-{public[:8]}"))
            key = VerifierKey(name, bytes.fromhex(public), COSIGNATURE_V1)
            label = "witness/" + name.removeprefix(witness_name(log.name, ""))
            if label in labels:  # lines that somebody renamed still count, by their keys
                label = f"{label}/{public[:8]}"
            labels.add(label)
            witnesses.append(Witness(label, key))
            members.append(label)
        # ``none`` is the one slug that means something else in a policy.
        name = f"organisation/{NONE}" if organisation == NONE else organisation
        groups.append(Group(name, 1, tuple(members)))
    quorum = None
    if groups:
        needed = quorum_size(len(groups))
        groups.append(Group(QUORUM, needed, tuple(group.name for group in groups)))
        quorum = QUORUM
    return _ask_outside(Policy((Log(log),), tuple(witnesses), tuple(groups), quorum), outside)


def _ask_outside(policy: Policy, outside: Sequence[VerifierKey]) -> Policy:
    if not outside:
        return policy
    known = [witness.key.public for witness in policy.witnesses]
    added: list[Witness] = []
    for key in outside:
        if key.type != COSIGNATURE_V1 or key.public in known:
            raise MalformedInput(
                f"witness {key.name}", "is no cosignature key, or is there already"
            )
        known.append(key.public)
        added.append(Witness(f"outside/{len(added) + 1}", key))
    members = tuple(each for each in (policy.quorum, *(w.name for w in added)) if each)
    group = Group(WITH_OUTSIDE, len(members), members)
    return Policy(policy.logs, (*policy.witnesses, *added), (*policy.groups, group), group.name)


def _handles(state: State) -> dict[str, str]:
    """Key names of the witness keys that members hold now, by public key in hex."""
    origin = log_origin(state.federation)
    return {
        member.keys.witness.public: witness_name(origin, member.handle)
        for member in state.members.values()
        if member.keys.witness is not None
    }


def _names_in(note: bytes, origin: str, witnesses: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Key names of those that signed a note, by public key in hex."""
    found: dict[str, str] = {}
    lines = parse_note(note).signatures
    for public in (key for keys in witnesses.values() for key in keys):
        for line in lines:
            if not line.name.startswith(witness_name(origin, "")):
                continue
            if key_id_of(line.name, COSIGNATURE_V1, bytes.fromhex(public)) == line.key_id:
                found[public] = line.name
    return found
