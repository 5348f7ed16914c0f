"""Having a card forgotten: which of them a person means, and saying so."""

from __future__ import annotations

from dataclasses import dataclass

from consilium.actions.homes import ANYBODY
from consilium.actions.speaking import open_member, say
from consilium.errors import InputError
from consilium.settings import Settings
from ledger.entries.operations.members import CardErased


@dataclass(frozen=True, slots=True)
class Erased:
    """A card that the log says is erased.

    Attributes:
        card: its commitment.
        index: of the entry that says so.
    """

    card: str
    index: int


def erase_member_card(settings: Settings, handle: str | None) -> tuple[Erased, ...]:
    """Erase a member's card: one's own, or as steward that of somebody of the organisation.

    Raises:
        InputError: there is none that is not erased.
        RefusedByFederation: it is somebody else's.
    """
    return _erase(settings, ANYBODY, member=handle)


def erase_dataset_card(settings: Settings, dataset: str) -> tuple[Erased, ...]:
    """Erase the cards of all versions of a dataset.

    Raises:
        InputError: there is none that is not erased.
        RefusedByFederation: it is another hospital's.
    """
    return _erase(settings, ("steward", "node"), dataset=dataset)


def _erase(
    settings: Settings,
    roles: tuple[str, ...],
    *,
    member: str | None = None,
    dataset: str | None = None,
) -> tuple[Erased, ...]:
    with open_member(settings.home, settings.passphrase_file, roles) as own:
        own.follow()
        state = own.replica.state
        if dataset is None:
            whose = state.members.get(member or own.config.handle)
            meant = set() if whose is None else {whose.card}
        else:
            meant = {card for card, bound in state.cards.items() if bound.dataset == dataset}
        found = [
            card for card, bound in state.cards.items() if card in meant and bound.erased_at is None
        ]
        if not found:
            name = dataset or member or own.config.handle
            raise InputError(f"no card of {name} is bound in the log, or it was erased")
        said = tuple(
            Erased(card, say(own, CardErased(type="card.erased", card=card)).index)
            for card in sorted(found)
        )
        own.follow()
        return said
