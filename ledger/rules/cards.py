"""Rules for cards: whose a card is, and that its owner may have it forgotten.

A card is its first binder's, a member or a dataset: who binds another's commitment later gains nothing
by it, in the own organisation neither. Whoever could bind one before its owner is the coordinator, which
has the card anyway.

A card is erased at the word of the member that it is about, of a steward of that organisation, or, for a
dataset's, of its node; where nobody of the organisation can speak any more, of any steward. That acts
on sight. Everyone who holds the blob deletes it (``ledger.copies.erasing``). Not promised: that they do.
"""

from __future__ import annotations

from ledger.entries.operations.members import CardErased
from ledger.rules.state import BoundCard, Member, State, replace
from ledger.rules.verdict import Step, Void


def bind_card(
    state: State,
    card: str | None,
    organisation: str,
    *,
    dataset: str | None = None,
    member: str | None = None,
) -> State:
    """Note whose card an entry bound, a member's or a dataset's; it stays its first binder's."""
    if card is None or card in state.cards:
        return state
    return replace(state, cards=state.cards.set(card, BoundCard(organisation, dataset, member)))


def erased(state: State, step: Step, op: CardErased) -> State | Void:
    """Its owner wants it forgotten."""
    found = state.cards.get(op.card)
    if found is None:
        return Void("unknown_card")
    if not _may_erase(state, state.members[step.author], found):
        return Void("not_owner")
    if found.erased_at is not None:
        return Void("repeated")
    gone = replace(found, erased_at=step.index)
    return replace(state, cards=state.cards.set(op.card, gone))


def _may_erase(state: State, author: Member, bound: BoundCard) -> bool:
    if author.organisation != bound.organisation:
        return author.role == "steward" and not _has_a_voice(state, bound.organisation)
    if author.role == "node" and bound.dataset is not None:
        return True
    return author.role == "steward" or author.handle == bound.member


def _has_a_voice(state: State, organisation: str) -> bool:
    return any(
        m.organisation == organisation and m.revoked_at is None for m in state.members.values()
    )
