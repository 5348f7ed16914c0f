"""What each patient of a hospital has spent, as bytes that stay there: by HMAC, sorted, one number each.

A `PatientSpend` says nothing of who somebody is without the hospital's key, and everything of how far each
patient's gradients went: it depends on rows. It rests sealed (``node.register.individual``), passes to the
training process over its pipe, and goes nowhere else. Its length tells the number of patients that ever
took part, and not what they have left.

An `Allowance` is what the training process needs for one round; what comes back is a `PatientSpend` of
that round alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from node.errors import PatientSpendUnreadable
from privacy.individual import MOST_SPEND

MEMBER_BYTES: Final = 32
_COUNT: Final = 8
Members = npt.NDArray[np.bytes_]
IntVector = npt.NDArray[np.int64]
_MEMBER = np.dtype(f"S{MEMBER_BYTES}")
_SPENT = np.dtype("<i8")


@dataclass(frozen=True, eq=False)
class PatientSpend:
    """Patients and what each has spent.

    Attributes:
        members: HMACs of patients ('S32' [n]), rising, each once.
        spent: int64 [n], mu^2 in units of 2^-40, 0 .. 2^53-1.
    """

    members: Members
    spent: IntVector

    @classmethod
    def nobody(cls) -> Self:
        """Nobody has spent anything."""
        return cls(np.zeros(0, dtype=_MEMBER), np.zeros(0, dtype=np.int64))

    @classmethod
    def of(cls, members: Members, spent: IntVector) -> Self:
        """Sort by patient."""
        order = np.argsort(members, kind="stable")
        return cls(members[order], spent[order])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote.

        Raises:
            PatientSpendUnreadable: it did not write this.
        """
        count = int.from_bytes(data[:_COUNT], "little")
        if len(data) != _COUNT + count * (MEMBER_BYTES + _SPENT.itemsize):
            raise PatientSpendUnreadable("its length is not that of its patients")
        split = _COUNT + count * MEMBER_BYTES
        members = np.frombuffer(data[_COUNT:split], dtype=_MEMBER)
        spent = np.frombuffer(data[split:], dtype=_SPENT).astype(np.int64)
        if not (members[:-1] < members[1:]).all():
            raise PatientSpendUnreadable("its patients are not sorted, each once")
        if count and not 0 <= int(spent.min()) <= int(spent.max()) <= MOST_SPEND:
            raise PatientSpendUnreadable("a spend is out of range")
        return cls(members, spent)

    def encode(self) -> bytes:
        """Number of patients (u64le), their HMACs, their spends (i64le)."""
        return (
            len(self.members).to_bytes(_COUNT, "little")
            + self.members.tobytes()
            + self.spent.astype(_SPENT).tobytes()
        )

    def spent_by(self, members: Members) -> IntVector:
        """What these patients have spent; 0 for whoever is not known."""
        if not len(self.members):
            return np.zeros(len(members), dtype=np.int64)
        places = np.minimum(np.searchsorted(self.members, members), len(self.members) - 1)
        known = self.members[places] == members
        found: IntVector = np.where(known, self.spent[places], 0)
        return found

    def plus(self, more: PatientSpend) -> PatientSpend:
        """The sum for everybody in either; at most 2^53-1, which is above every promise."""
        members = np.union1d(self.members, more.members).astype(_MEMBER)
        total = self.spent_by(members) + more.spent_by(members)
        return PatientSpend(members, np.minimum(total, MOST_SPEND))


@dataclass(frozen=True, eq=False)
class Allowance:
    """What patients may spend in a round, at most.

    Attributes:
        promise: mu^2 units that the strictest promise of the cells leaves to a patient who has spent
            nothing of one's own: what was charged to all alike is off already.
        experiment: the same of what the experiment may cost a patient.
        lifetime: what patients spent of the promise.
        here: what patients spent in this experiment.
    """

    promise: int
    experiment: int
    lifetime: PatientSpend
    here: PatientSpend

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` wrote.

        Raises:
            PatientSpendUnreadable: it did not write this.
        """
        head = [int.from_bytes(data[at : at + _COUNT], "little") for at in (0, 8, 16)]
        split = 3 * _COUNT + head[2]
        if len(data) < split or max(head[:2]) > MOST_SPEND:
            raise PatientSpendUnreadable("an allowance of no known form")
        lifetime = PatientSpend.decode(data[3 * _COUNT : split])
        return cls(head[0], head[1], lifetime, PatientSpend.decode(data[split:]))

    def encode(self) -> bytes:
        """Both numbers (u64le), the length of the first spend (u64le), both spends."""
        first = self.lifetime.encode()
        numbers = (self.promise, self.experiment, len(first))
        return b"".join(n.to_bytes(_COUNT, "little") for n in numbers) + first + self.here.encode()

    def left(self, members: Members) -> IntVector:
        """What each of these patients may still spend: int64 [m], may be below 0."""
        found: IntVector = np.minimum(
            self.promise - self.lifetime.spent_by(members),
            self.experiment - self.here.spent_by(members),
        )
        return found


def members_of(digests: list[bytes]) -> Members:
    """HMACs as an array."""
    return np.array(digests, dtype=_MEMBER)
