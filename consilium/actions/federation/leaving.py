"""An organisation leaves the federation by its own word, step by step, each of which can be done again.

In this order: proposals of its own are taken back, its datasets are withdrawn, cards are erased where
that is wanted, the keys of its other members end, and last those of the steward who says all this. So
whatever interrupts it, the same command goes on with what is left. No endorsement is needed, since every
step is the organisation's own to take.

What stays: its copy of the log, in every home, readable and verifiable without the federation; what its
patients' budgets paid; what it signed. Not promised: that others forget what they hold, or that
invitations with a free seat let nobody in: that needs k organisations (``member uninvite``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from consilium.actions.speaking import say
from consilium.errors import InputError, RefusedByFederation
from ledger.entries.operations.datasets import DatasetWithdrawn, WithdrawalReason
from ledger.entries.operations.federation import ChangeWithdrawn
from ledger.entries.operations.members import CardErased, KeyRevoked
from ledger.errors import RequestRefused
from ledger.exchange.home import Membership
from ledger.formats.witness import quorum_size
from ledger.rules.state import State
from ledger.rules.verdict import EXPLANATIONS

_FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class Farewell:
    """What an organisation's leaving consists of, as the log stands.

    Attributes:
        changes: its own proposals that are not in force.
        datasets: to be withdrawn.
        cards: to be erased.
        members: whose keys end, the speaker last.
        warnings: what others should know before, in words.
    """

    organisation: str
    changes: tuple[str, ...]
    datasets: tuple[str, ...]
    cards: tuple[str, ...]
    members: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_farewell(state: State, speaker: str, *, erase_cards: bool) -> Farewell:
    """What there is left to do for a steward's organisation to have left.

    Args:
        state: the newest.
        speaker: the steward's handle.
        erase_cards: whether cards that its people and datasets bound are to be forgotten.
    """
    own = state.members[speaker].organisation
    others = sorted(
        m.handle
        for m in state.members.values()
        if m.organisation == own and m.revoked_at is None and m.handle != speaker
    )
    return Farewell(
        organisation=own,
        changes=tuple(
            change
            for change, pending in sorted(state.changes.items())
            if pending.effective_at is None
            and state.members[pending.proposed_by].organisation == own
        ),
        datasets=tuple(
            name
            for name, dataset in sorted(state.datasets.items())
            if dataset.organisation == own and dataset.withdrawn_at is None
        ),
        cards=tuple(
            card
            for card, bound in sorted(state.cards.items())
            if erase_cards and bound.organisation == own and bound.erased_at is None
        ),
        members=(*others, speaker),
        warnings=tuple(_warnings(state, own)),
    )


def leave(member: Membership, farewell: Farewell, reason: WithdrawalReason) -> Iterator[str]:
    """Say all of it; yields what was done, in words.

    Raises:
        RefusedByFederation: a step is in the log, and void.
        CoordinatorUnreachable, RequestRefused: the rest is not said; do it again.
    """
    for change in farewell.changes:
        say(member, ChangeWithdrawn(type="change.withdrawn", change=change))
        yield f"took back change {change[:8]}"
    for name in farewell.datasets:
        say(member, DatasetWithdrawn(type="dataset.withdrawn", dataset=name, reason=reason))
        yield f"withdrew {name}"
    for card in farewell.cards:
        say(member, CardErased(type="card.erased", card=card))
        yield f"erased card {card[:12]}"
    *others, own = farewell.members
    for handle in others:
        say(member, _revoked(handle))
        yield f"ended the keys of {handle}"
    member.follow()  # the last time: nobody lets in who is revoked
    operation = _revoked(own)
    receipt = member.author.submit(operation)
    if receipt.reason is not None:
        why = EXPLANATIONS.get(receipt.reason, receipt.reason)
        raise RefusedByFederation(operation.type, receipt.index, receipt.reason, why)
    yield f"ended the keys of {own} (entry {receipt.index}): {farewell.organisation} has left"


def catch_up(member: Membership) -> None:
    """Follow the log, and say so plainly where this member is not let in any more.

    Raises:
        InputError: its keys have ended: it has left.
    """
    try:
        member.follow()
    except RequestRefused as refusal:
        if refusal.status == _FORBIDDEN:
            raise InputError(
                f"the keys of {member.config.handle} have ended, so it has left already; its copy "
                "stays readable: consilium ledger list --at HOME"
            ) from None
        raise


def _warnings(state: State, own: str) -> Iterator[str]:
    running = sorted(
        experiment.name
        for experiment in state.experiments.values()
        for dataset, held in experiment.reservations.items()
        if held.settled_at is None and state.datasets[dataset].organisation == own
    )
    if running:
        yield (
            f"budget is reserved for {', '.join(running)}; what its node does not settle before "
            "counts as spent in full"
        )
    left = len(state.organisations_with_steward() - {own})
    if left < state.policy.endorsements:
        yield (
            f"{left} organisations with a steward remain, and a change needs "
            f"{state.policy.endorsements}: nobody can change policy or keys after this"
        )
    witnesses = state.witnesses[-1].organisations
    needed = quorum_size(len(witnesses))
    if own in witnesses and len(witnesses) - 1 < needed:
        yield (
            f"{needed} of {len(witnesses)} hospitals must cosign what becomes final, and without "
            f"{own} only {len(witnesses) - 1} can: nothing becomes final after this until others "
            f"say consilium federation expel {own}, which takes {state.policy.endorsements} "
            "organisations; ask for that first, and you need not leave"
        )
    free = sorted(
        handle
        for held in state.invitations.values()
        if held.invitation.organisation == own
        for handle in held.free
    )
    if free:
        yield (
            f"an invitation still lets {', '.join(free)} in; others can withdraw it: "
            "consilium member uninvite"
        )


def _revoked(handle: str) -> KeyRevoked:
    return KeyRevoked(type="key.revoked", member=handle, compromised_since_ms=None)
