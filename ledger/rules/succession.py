"""A log that takes over from another: what it carries, who stands behind that, and what anybody checks.

After a fork, a stolen log key or a lost quorum a log cannot go on; its members can. The successor's entry
0 (``federation.succeeded``) names the old federation, its last final checkpoint and the digest of the
state there, and the hash of each part of what is carried. Stewards of k organisations, by the old
federation's policy, sign exactly that. The parts follow as entries 1 to n (``federation.carried``);
until the last one nothing else takes effect, and with it the fold counts the endorsements.

`carry` says what is carried: members with their keys, cells with all that was reserved or spent of them,
datasets. A reservation that is open counts as spent in full, for it is in the cell's spend; experiments,
rounds, invitations and proposed changes end with the old log, which stays the record of them. Where a
promise renews, the period and its whole spend come along.

The fold cannot know the old log: a successor is consistent in itself, and no more. `check_join` is what
everybody does who holds the old log: it carries that state over, and compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from immutables import Map

from ledger.entries.entry import Body, Entry
from ledger.entries.operations.succession import (
    CarriedCell,
    CarriedDataset,
    CarriedKey,
    CarriedMember,
    CarriedPurpose,
    FederationCarried,
    FederationSucceeded,
)
from ledger.entries.operations.values import EMPTY_HASH, MAX_INT, Hash, Value
from ledger.errors import SuccessionRefused
from ledger.formats.keys import key_id, verify
from ledger.formats.strict import canonical
from ledger.rules.cards import bind_card
from ledger.rules.encoding import digest
from ledger.rules.members import keys_in_use
from ledger.rules.refreshes import carried_refresh, resumed
from ledger.rules.state import (
    Cell,
    Dataset,
    KeyState,
    Member,
    PurposeShare,
    State,
    Succession,
    replace,
)
from ledger.rules.verdict import Step, Void
from privacy.filters import Spend

PART_BYTES = 16 * 1024
"""Canonical bytes of carried facts in one entry, but for a single fact that is longer."""

T = TypeVar("T", bound=Value)


class SuccessionClaim(Value):
    """What a steward signs (kind ``succession``): the genesis body, its list of endorsements empty."""

    genesis: Hash


def claim_of(body: Body) -> bytes:
    """Canonical bytes of the claim that a successor's genesis needs endorsed."""
    op = body.op
    if not isinstance(op, FederationSucceeded):
        raise SuccessionRefused("entry 0", f"it is {op.type}, not federation.succeeded")
    bare = replace(body, op=replace(op, endorsements=()))
    return canonical(SuccessionClaim(genesis=hashlib.sha256(canonical(bare)).hexdigest()))


def part_hash(part: FederationCarried) -> str:
    """SHA-256 of a part's canonical bytes, as genesis names it."""
    return hashlib.sha256(canonical(part)).hexdigest()


def carry(state: State) -> tuple[FederationCarried, ...]:
    """What a successor takes over from a state: one answer, cut into parts of bounded length."""
    active = {k.public for k in state.keys.values() if k.retired_at is None}
    members = [
        CarriedMember(
            handle=m.handle,
            organisation=m.organisation,
            role=m.role,
            keys=m.keys,
            card=_kept(state, m.card, member=m.handle),
            active=m.keys.entry.public in active,
            expelled=m.expelled_at is not None,
            disputed_since_ms=m.disputed_since_ms,
        )
        for _, m in sorted(state.members.items())
        if m.role != "coordinator"
    ]
    current = {member.keys.entry.public for member in members}
    keys = [
        CarriedKey(member=k.member, public=k.public)
        for _, k in sorted(state.keys.items())
        if k.public not in current
    ]
    cells = [
        CarriedCell(
            organisation=cell.organisation,
            terms=cell.terms,
            g=min(cell.spend.g, MAX_INT),
            r=min(cell.spend.r, MAX_INT),
            g_overflowed=cell.spend.g_overflowed,
            r_overflowed=cell.spend.r_overflowed,
            purposes=tuple(_purpose(code, share) for code, share in sorted(cell.purposes.items())),
            refresh=carried_refresh(cell.periods),
        )
        for _, cell in sorted(state.cells.items())
    ]
    datasets = [
        CarriedDataset(
            organisation=dataset.organisation,
            node=dataset.node,
            registration=dataset.registration,
            terms=replace(
                dataset.terms, card=_kept(state, dataset.terms.card, dataset=dataset.terms.dataset)
            ),
            withdrawn=dataset.withdrawn_at is not None,
        )
        for _, dataset in sorted(state.datasets.items())
    ]
    parts = [
        *(_part(members=chunk) for chunk in _chunks(members)),
        *(_part(keys=chunk) for chunk in _chunks(keys)),
        *(_part(cells=chunk) for chunk in _chunks(cells)),
        *(_part(datasets=chunk) for chunk in _chunks(datasets)),
    ]
    return tuple(parts)


def carried(state: State, step: Step, op: FederationCarried) -> State | Void:
    """The next part that genesis names, and no other; the last one needs the endorsements."""
    succession = state.succession
    if succession is None or succession.complete:
        return Void("repeated")
    if part_hash(op) != succession.carried[succession.taken]:
        return Void("not_carried")
    for member in op.members:
        if member.handle in state.members or keys_in_use(state, member.keys):
            return Void("key_conflict")
        state = _with_member(state, step.index, member)
    for key in op.keys:
        kid = key_id("ed25519", bytes.fromhex(key.public))
        if kid in state.keys:
            return Void("key_conflict")
        gone = KeyState(key.member, key.public, 0, EMPTY_HASH, retired_at=step.index)
        state = replace(state, keys=state.keys.set(kid, gone))
    for cell in op.cells:
        spend = Spend(cell.g, cell.r, cell.g_overflowed, cell.r_overflowed)
        purposes = Map[str, PurposeShare]({p.purpose: _share(p) for p in cell.purposes})
        periods = None if cell.refresh is None else resumed(cell.refresh, spend, state.log_time)
        held = Cell(cell.organisation, step.index, cell.terms, spend, purposes, periods)
        state = replace(state, cells=state.cells.set(cell.terms.cell, held))
    for dataset in op.datasets:
        offered = Dataset(
            organisation=dataset.organisation,
            node=dataset.node,
            registered_at=step.index,
            registration=dataset.registration,
            terms=dataset.terms,
            withdrawn_at=step.index if dataset.withdrawn else None,
        )
        card, name = dataset.terms.card, dataset.terms.dataset
        state = bind_card(state, card, dataset.organisation, dataset=name)
        state = replace(state, datasets=state.datasets.set(dataset.terms.dataset, offered))
    succession = replace(succession, taken=succession.taken + 1)
    state = replace(state, succession=succession)
    if succession.complete and len(endorsers(state, succession)) < state.policy.endorsements:
        return Void("not_endorsed")
    return state


def endorsers(state: State, succession: Succession) -> frozenset[str]:
    """Organisations of which an active steward, in this state, signed a genesis."""
    return frozenset(
        state.members[steward].organisation
        for steward, signature in succession.endorsements
        if _signed(state, succession.claim, steward, signature)
    )


def check_join(genesis: Entry, old: State, root: str, *, endorsed: bool = True) -> None:
    """Whether a successor's entry 0 takes over from a state, and from nothing else.

    The parts that follow are those that it names by hash, or the fold makes them void; so this is all
    that there is to compare. Whether the state is that of the old log's last final checkpoint is for
    the caller, who holds that log.

    Args:
        genesis: entry 0 of the successor.
        old: the fold of the old log up to its last final checkpoint.
        root: of the old log there, lowercase hex.
        endorsed: whether the endorsements must be there; a proposal has none yet.

    Raises:
        SuccessionRefused: says what differs, and how.
    """
    op = genesis.body.op
    if not isinstance(op, FederationSucceeded):
        raise SuccessionRefused("entry 0", f"it is {op.type}; nothing is succeeded by that")
    named = op.predecessor
    if named.federation != old.federation:
        raise SuccessionRefused(
            "predecessor",
            f"it succeeds federation {named.federation[:12]}, and this is {old.federation[:12]}",
        )
    if (named.size, named.root) != (old.size, root):
        raise SuccessionRefused(
            "predecessor",
            f"it takes over from a checkpoint over {named.size} entries with root "
            f"{named.root[:12]}; the last final one here covers {old.size}, with root {root[:12]}",
        )
    if named.state != digest(old):
        raise SuccessionRefused("predecessor", "the digest of the state there is another")
    if (op.name, op.policy) != (old.name, old.policy):
        raise SuccessionRefused("policy", "name or policy are not those of the old federation")
    if genesis.body.at_ms < old.log_time:
        raise SuccessionRefused("time", "it was signed before the time of the log it succeeds")
    _check_parts(op.carried, carry(old))
    _check_coordinator(genesis, op, old)
    if not endorsed:
        return
    claim = claim_of(genesis.body)
    behind = {
        old.members[each.steward].organisation
        for each in op.endorsements
        if _signed(old, claim.hex(), each.steward, each.signature)
    }
    if len(behind) < old.policy.endorsements:
        raise SuccessionRefused(
            "endorsements",
            f"{len(behind)} organisations' stewards signed it ({', '.join(sorted(behind)) or 'none'}"
            f"); the old federation's policy asks for {old.policy.endorsements}",
        )


def _check_parts(named: Sequence[str], wanted: Sequence[FederationCarried]) -> None:
    if len(named) != len(wanted):
        raise SuccessionRefused(
            "carried", f"it names {len(named)} parts of the state; the old log gives {len(wanted)}"
        )
    for at, (given, part) in enumerate(zip(named, wanted, strict=True)):
        if given != part_hash(part):
            what = next(n for n in ("members", "keys", "cells", "datasets") if getattr(part, n))
            raise SuccessionRefused(
                f"carried part {at + 1}",
                f"its {what} are not those of the old log: somebody was left out or added, or less "
                "was spent than the old log says",
            )


def _check_coordinator(genesis: Entry, op: FederationSucceeded, old: State) -> None:
    """A fork or a theft may be the old coordinator's doing: none of its keys come along."""
    if keys_in_use(old, op.keys) or op.log_key.public in _publics(old):
        raise SuccessionRefused("keys", "a key of its coordinator was in use before; make new ones")
    seated = {m.organisation for m in old.members.values() if m.role in ("node", "steward")}
    if op.organisation in seated:
        raise SuccessionRefused(
            "organisation", f"{op.organisation} runs the coordinator and would be watched by itself"
        )
    known = old.members.get(genesis.body.author)
    if known is not None and known.role != "coordinator":
        raise SuccessionRefused("author", f"the handle {known.handle} is a member's already")


def _publics(state: State) -> frozenset[str]:
    """Every public key that a state knows."""
    found = {state.log_key.public, *(key.public for key in state.keys.values())}
    for member in state.members.values():
        held = member.keys
        found.update(k.public for k in (held.entry, held.request, held.sealing, held.witness) if k)
    return frozenset(found)


def _signed(state: State, claim: str, steward: str, signature: str) -> bool:
    member = state.members.get(steward)
    if member is None or member.role != "steward" or member.revoked_at is not None:
        return False
    public = bytes.fromhex(member.keys.entry.public)
    held = state.keys.get(key_id(member.keys.entry.alg, public))
    if held is None or held.retired_at is not None:
        return False
    return verify(public, "succession", bytes.fromhex(claim), bytes.fromhex(signature))


def _with_member(state: State, index: int, carried: CarriedMember) -> State:
    ended = None if carried.active else index
    member = Member(
        handle=carried.handle,
        organisation=carried.organisation,
        role=carried.role,
        keys=carried.keys,
        joined_at=index,
        card=carried.card,
        revoked_at=ended,
        disputed_since_ms=carried.disputed_since_ms,
        expelled_at=index if carried.expelled else None,
    )
    state = bind_card(state, carried.card, carried.organisation, member=carried.handle)
    entry = carried.keys.entry
    kid = key_id(entry.alg, bytes.fromhex(entry.public))
    key = KeyState(carried.handle, entry.public, 0, EMPTY_HASH, retired_at=ended)
    return replace(
        state,
        members=state.members.set(carried.handle, member),
        keys=state.keys.set(kid, key),
    )


def _kept(
    state: State, card: str | None, *, member: str | None = None, dataset: str | None = None
) -> str | None:
    """A card that was not erased, if it is that member's or dataset's: its first binder stays its owner.

    Else whoever has bound another's, and is carried before the owner, would own it in the successor.
    """
    bound = None if card is None else state.cards.get(card)
    if bound is None:
        return card
    theirs = (bound.member, bound.dataset) == (member, dataset)
    return card if theirs and bound.erased_at is None else None


def _purpose(code: str, share: PurposeShare) -> CarriedPurpose:
    return CarriedPurpose(
        purpose=code,  # type: ignore[arg-type]  # a key of a cell's purposes is one
        terms=share.terms,
        g=min(share.spend.g, MAX_INT),
        r=min(share.spend.r, MAX_INT),
        g_overflowed=share.spend.g_overflowed,
        r_overflowed=share.spend.r_overflowed,
    )


def _share(carried: CarriedPurpose) -> PurposeShare:
    spend = Spend(carried.g, carried.r, carried.g_overflowed, carried.r_overflowed)
    return PurposeShare(carried.terms, spend)


def _part(
    members: Iterable[CarriedMember] = (),
    keys: Iterable[CarriedKey] = (),
    cells: Iterable[CarriedCell] = (),
    datasets: Iterable[CarriedDataset] = (),
) -> FederationCarried:
    return FederationCarried(
        type="federation.carried",
        members=tuple(members),
        keys=tuple(keys),
        cells=tuple(cells),
        datasets=tuple(datasets),
    )


def _chunks(facts: Iterable[T]) -> Iterator[list[T]]:
    chunk: list[T] = []
    length = 0
    for fact in facts:
        size = len(canonical(fact))
        if chunk and length + size > PART_BYTES:
            yield chunk
            chunk, length = [], 0
        chunk.append(fact)
        length += size
    if chunk:
        yield chunk
