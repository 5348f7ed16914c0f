"""What a node owes in a masked round, phase by phase: a pure function of its copy of the log.

The node advertises once it may touch data, so that who takes part can also train; training goes on
beside the phases. Shares are revealed to the log only after the threshold signed the same survivors in
the copy that this node has verified. A node whose register does not hold the round's secrets (a backup
was restored, another process made them) takes no part in that attempt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ledger.rules.experiment_state import Masking, OpenRound
from ledger.rules.masking import enough_agreed
from node.register.accounts import Key


@dataclass(frozen=True, slots=True)
class Advertise:
    """Make the round's secrets, durably, and say ``masking.advertised``."""

    experiment: str
    dataset: str


@dataclass(frozen=True, slots=True)
class ShareSecrets:
    """Bring the sealed shares, and say ``masking.shared``."""

    experiment: str
    dataset: str


@dataclass(frozen=True, slots=True)
class Agree:
    """Say ``masking.agreed`` of the survivors that the log names."""

    experiment: str
    dataset: str


@dataclass(frozen=True, slots=True)
class Reveal:
    """Note that shares are revealed for these survivors, then say ``masking.revealed``."""

    experiment: str
    dataset: str


MaskingDuty = Advertise | ShareSecrets | Agree | Reveal


def masking_duties(
    current: OpenRound, masking: Masking, key: Key, held_context: str | None
) -> Iterator[MaskingDuty]:
    """What the open phase waits for from this dataset, but for the vector itself.

    Args:
        current: the open round.
        masking: its masks.
        key: experiment and dataset.
        held_context: of the secrets that this node holds for them, or None.
    """
    name = key[1]
    if name not in masking.members:
        return
    if masking.phase == "advertise":
        if name not in masking.keys:
            yield Advertise(*key)
        return
    if held_context != masking.context:
        return
    if masking.phase == "share" and name not in masking.shares:
        yield ShareSecrets(*key)
    elif masking.phase == "unmask" and name not in masking.agreed:
        yield Agree(*key)
    elif (
        masking.phase == "unmask"
        and name not in masking.revealed
        and enough_agreed(current, masking)
    ):
        yield Reveal(*key)


def is_spent(current: OpenRound, masked_in: str | None) -> bool:
    """Whether a vector must not be used again: it may be in the sum of another attempt.

    Two sums over different survivors with the same vectors in them differ by a single hospital's: with
    divided noise by one without the noise that protected it, with each its own noise by the one vector that
    the masks hid. So divided noise is spent when it leaves under masks, and other noise when this node
    revealed shares: that attempt's sum may have been opened, whatever the log says became of it.
    """
    if current.masking is None:
        return False
    return masked_in not in (None, current.masking.context)


def may_send(masking: Masking, key: Key, held_context: str | None) -> bool:
    """Whether the masked vector can be handed in now."""
    return masking.phase == "mask" and key[1] in masking.members and held_context == masking.context


def may_still_send(masking: Masking, key: Key, held_context: str | None) -> bool:
    """Whether a vector made now could still get into the round."""
    if masking.phase == "advertise":
        return True
    return (
        masking.phase != "unmask" and key[1] in masking.members and held_context == masking.context
    )
