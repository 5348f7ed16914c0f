"""Masked rounds of an honest federation in memory, phase by phase, for a test to leave or spoil.

``MaskedRound(federation, experiment)`` opens the next round with everybody who approved; each method
plays a phase for those who are still here. Vectors are `Federation.update`'s noise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from ledger.entries.operations.masking import (
    MaskingAdvanced,
    MaskingAdvertised,
    MaskingAgreed,
    MaskingRevealed,
    MaskingShared,
    RevealedShare,
)
from ledger.entries.operations.rounds import MaskedVector, RoundAggregated
from ledger.entries.operations.values import PublicKey
from ledger.experiment.average import ExactSum, server_step
from ledger.experiment.masked import encode_shares, masked_round, open_sum, public_keys, roster_of
from ledger.experiment.tensors import decode_update, encode_update, pack_model, unpack_model
from ledger.formats.value import replace
from ledger.rules.experiment_state import Masking, OpenRound
from ledger.rules.masking import secrets_asked
from privacy.masking import member
from privacy.masking.member import Secrets, Shares
from privacy.masking.roster import Roster, survivors_digest
from tests.federation import COORDINATOR, Federation, node_of


class MaskedRound:
    """One round. ``secrets``, ``shares`` and ``vectors`` are by dataset."""

    def __init__(self, federation: Federation, experiment: str) -> None:
        self.federation = federation
        self.id = experiment
        cohort = federation.open_round(experiment).cohort
        for name in cohort:
            if name not in federation.experiment(experiment).reservations:
                federation.reserve(experiment, name)
        self.secrets: dict[str, Secrets] = {}
        self.shares: dict[str, Shares] = {}
        self.vectors: dict[str, np.ndarray] = {}

    @property
    def current(self) -> OpenRound:
        current = self.federation.experiment(self.id).round
        assert current is not None
        return current

    @property
    def masking(self) -> Masking:
        assert self.current.masking is not None
        return self.current.masking

    @property
    def roster(self) -> Roster:
        return roster_of(self.masking.context, self.current.cohort)

    def common(self, dataset: str) -> dict[str, Any]:
        return {
            "experiment": self.id,
            "dataset": dataset,
            "round": self.current.number,
            "attempt": self.current.attempt,
            "context": self.masking.context,
        }

    def node(self, dataset: str) -> str:
        return node_of(self.federation.state.datasets[dataset].organisation)

    def advertise(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.masking.members:
            self.secrets[name] = member.advertise(self.roster, name, os.urandom)
            public = self.secrets[name].public
            op = MaskingAdvertised(
                type="masking.advertised",
                sharing=PublicKey(alg="x25519", public=public.sharing.hex()),
                masking=PublicKey(alg="x25519", public=public.masking.hex()),
                **self.common(name),
            )
            self.federation.say(self.node(name), op)

    def share(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.masking.members:
            shares = self.shares[name] = member.share(
                self.secrets[name], self.roster, public_keys(self.masking.keys), os.urandom
            )
            op = MaskingShared(
                type="masking.shared",
                shares=self.federation.put(encode_shares(shares.envelopes)),
                seed=shares.commitment.hex(),
                **self.common(name),
            )
            self.federation.say(self.node(name), op)

    def mask(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.masking.members:
            self.federation.say(self.node(name), self.update(name))

    def update(self, name: str, masked: np.ndarray | None = None) -> Any:
        """A masked update; of another vector where one is given."""
        op = self.federation.update(self.id, name)
        size = (op.update.bytes - 27) // 8
        bare = self.federation.blobs[op.update.sha256]
        self.vectors[name] = decode_update(bare, size)
        if masked is None:
            self.secrets[name], masked = member.mask(
                self.secrets[name],
                self.roster,
                public_keys(self.masking.keys),
                self.masking.members,
                self.vectors[name],
            )
        del self.federation.blobs[op.update.sha256]
        commitment = hashlib.sha256(b"salt" + bare).hexdigest()
        return replace(
            op,
            update=self.federation.put(encode_update(masked)),
            masked=MaskedVector(context=self.masking.context, vector=commitment),
        )

    def advance(self, phase: Any, *names: str) -> None:
        op = MaskingAdvanced(
            type="masking.advanced",
            experiment=self.id,
            round=self.current.number,
            attempt=self.current.attempt,
            phase=phase,
            datasets=tuple(sorted(names)),
        )
        self.federation.say(COORDINATOR, op)

    def agree(self, here: Iterable[str] | None = None) -> None:
        for name in here or self.masking.members:
            self.secrets[name], digest = member.agree(
                self.secrets[name], self.roster, self.masking.sharing, self.masking.members
            )
            op = MaskingAgreed(type="masking.agreed", survivors=digest.hex(), **self.common(name))
            self.federation.say(self.node(name), op)

    def reveal(self, here: Iterable[str] | None = None, *, wrong: Iterable[str] = ()) -> None:
        """Reveal shares; of those named as wrong, zeros."""
        digest = survivors_digest(bytes.fromhex(self.masking.context), self.masking.members)
        for name in here or sorted(self.masking.agreed):
            envelopes = {s: self.shares[s].envelopes[name] for s in self.masking.sharing}
            self.secrets[name], revealed = member.unmask(
                self.secrets[name],
                self.roster,
                public_keys(self.masking.keys),
                self.masking.sharing,
                self.masking.members,
                dict.fromkeys(self.masking.agreed, digest),
                envelopes,
            )
            found = {**revealed.seeds, **revealed.keys}
            shares = tuple(
                RevealedShare(
                    of=of, secret=secret, share=(bytes(66) if name in wrong else found[of]).hex()
                )
                for of, secret in sorted(secrets_asked(self.masking).items())
            )
            op = MaskingRevealed(type="masking.revealed", shares=shares, **self.common(name))
            self.federation.say(self.node(name), op)

    def total(self) -> np.ndarray:
        """The sum that the revealed shares open."""
        updates = self.current.updates
        size = len(next(iter(self.vectors.values())))
        masked = ExactSum(size)
        for name in self.masking.members:
            masked.add(decode_update(self.federation.blobs[updates[name].blob.sha256], size))
        return open_sum(masked.total(), masked_round(self.current, self.masking))

    def aggregated(self, total: np.ndarray | None = None) -> RoundAggregated:
        """What the coordinator says of the sum, or of another one."""
        federation, current = self.federation, self.current
        total = self.total() if total is None else total
        now = federation.experiment(self.id)
        model = current.model
        if current.kind == "train":
            spec, shapes = federation.spec_of(self.id), federation.shapes(self.id)
            divisor = sum(s.divisor for s in now.plan.sites if s.dataset in self.masking.members)
            flat = unpack_model(federation.blobs[current.model.sha256], shapes)
            model = federation.put(pack_model(shapes, server_step(spec, flat, total, divisor)))
        return RoundAggregated(
            type="round.aggregated",
            experiment=self.id,
            round=current.number,
            attempt=current.attempt,
            updates=tuple(sorted(current.updates[n].entry for n in self.masking.members)),
            aggregate=federation.put(encode_update(total)),
            model=model,
        )

    def until(self, phase: str) -> MaskedRound:
        """Play honestly, everybody there, until a phase has begun."""
        if self.masking.phase == "advertise" != phase:
            self.advertise()
            self.advance("share", *self.masking.keys)
        if self.masking.phase == "share" != phase:
            self.share()
            self.advance("mask", *self.masking.shares)
        if self.masking.phase == "mask" != phase:
            self.mask()
            self.advance("unmask", *self.current.updates)
        return self

    def finish(self) -> None:
        """Agree, reveal, and end in the sum."""
        self.until("unmask")
        self.agree()
        self.reveal()
        self.federation.say(COORDINATOR, self.aggregated())


def play_masked(federation: Federation, experiment: str) -> None:
    """All training rounds and the evaluation, everybody there."""
    plan = federation.experiment(experiment).plan
    for _ in range(plan.rounds + plan.evaluate):
        MaskedRound(federation, experiment).finish()
