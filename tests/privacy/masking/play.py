"""A masked round played in memory: members, and a coordinator that may lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from privacy.masking import member
from privacy.masking.member import Revealed, Secrets, Shares
from privacy.masking.recover import Opened, recover, take_off
from privacy.masking.roster import PublicKeys, Roster

CONTEXT = bytes(range(32))


def names(count: int) -> tuple[str, ...]:
    return tuple(f"hospital-{i:02d}" for i in range(count))


@dataclass
class Play:
    """One round. Each phase takes who is still there; the rest dropped out."""

    vectors: Mapping[str, np.ndarray]
    context: bytes = CONTEXT
    secrets: dict[str, Secrets] = field(default_factory=dict)
    advertised: dict[str, PublicKeys] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)
    masked: dict[str, np.ndarray] = field(default_factory=dict)
    agreed: dict[str, bytes] = field(default_factory=dict)
    revealed: dict[str, Revealed] = field(default_factory=dict)

    @property
    def roster(self) -> Roster:
        return Roster(self.context, tuple(sorted(self.vectors)))

    def advertise(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.roster.members:
            self.secrets[name] = member.advertise(self.roster, name, os.urandom)
            self.advertised[name] = self.secrets[name].public

    def share(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.advertised:
            self.shares[name] = member.share(
                self.secrets[name], self.roster, self.advertised, os.urandom
            )

    def mask(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.shares:
            self.secrets[name], self.masked[name] = member.mask(
                self.secrets[name],
                self.roster,
                self.advertised,
                tuple(self.shares),
                self.vectors[name],
            )

    def agree(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.masked:
            self.secrets[name], self.agreed[name] = member.agree(
                self.secrets[name], self.roster, tuple(self.shares), tuple(self.masked)
            )

    def unmask(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.agreed:
            self.secrets[name], self.revealed[name] = self.unmasked(name)

    def unmasked(self, name: str, **other: object) -> tuple[Secrets, Revealed]:
        """What a member answers, where the coordinator says something else if asked to."""
        said: dict[str, object] = {
            "sharing": tuple(self.shares),
            "survivors": tuple(self.masked),
            "agreements": self.agreed,
            "envelopes": self.envelopes_for(name),
        }
        return member.unmask(
            self.secrets[name],
            self.roster,
            self.advertised,
            **(said | other),  # type: ignore[arg-type]
        )

    def envelopes_for(self, name: str) -> dict[str, bytes]:
        return {sender: shares.envelopes[name] for sender, shares in self.shares.items()}

    def opened(self) -> Opened:
        commitments = {name: shares.commitment for name, shares in self.shares.items()}
        revealed = {
            holder: {**shares.seeds, **shares.keys} for holder, shares in self.revealed.items()
        }
        return recover(self.roster, self.advertised, commitments, tuple(self.masked), revealed)

    def total(self) -> np.ndarray:
        return modular_sum(self.masked.values())

    def result(self) -> np.ndarray:
        return take_off(self.total(), self.roster, self.advertised, self.opened())


def modular_sum(vectors: Iterable[np.ndarray]) -> np.ndarray:
    parts = [vector.view(np.uint64) for vector in vectors]
    return np.sum(parts, axis=0, dtype=np.uint64).view(np.int64)


def some_vectors(count: int, size: int = 7, seed: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        name: generator.integers(-(2**50), 2**50, size, dtype=np.int64) for name in names(count)
    }
