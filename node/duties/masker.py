"""Doing a masked round's duties: the secrets in the register, the phases of ``privacy.masking``.

What a phase keeps is durable before what it made leaves. Secrets rest sealed to the member's own
sealing key and are dropped with the next attempt's, or with the experiment's account.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import structlog

from ledger.entries.operations.masking import (
    MaskingAdvertised,
    MaskingAgreed,
    MaskingRevealed,
    MaskingShared,
    RevealedShare,
)
from ledger.entries.operations.values import PublicKey
from ledger.errors import CannotOpen, MalformedInput
from ledger.exchange.home import Membership
from ledger.experiment.masked import encode_shares, envelope_for, public_keys, roster_of
from ledger.experiment.tensors import decode_update, encode_update
from ledger.experiment.updates import update_size
from ledger.formats.keys import seal
from ledger.rules.experiment_state import Experiment, Masking, OpenRound
from ledger.rules.masking import secrets_asked
from node.errors import RoundFailed
from node.register.accounts import Key
from node.register.private import PrivateRegister
from privacy.errors import MaskingRefused
from privacy.masking import member
from privacy.masking.member import Secrets
from privacy.masking.roster import survivors_digest

_log = structlog.get_logger("node")


class Masker:
    """A node's hand in masked rounds."""

    def __init__(self, membership: Membership, private: PrivateRegister) -> None:
        self._membership = membership
        self._private = private

    def advertise(self, key: Key) -> MaskingAdvertised:
        """R0; the same keys again for the same attempt."""
        experiment, current, masking = self._open_round(key)
        if self._private.view.masks.get(key) == masking.context:
            secrets = self._secrets(key, masking)
        else:
            roster = roster_of(masking.context, current.cohort)
            secrets = member.advertise(roster, key[1], os.urandom)
            self._keep(key, secrets)
        public = secrets.public
        return MaskingAdvertised(
            type="masking.advertised",
            experiment=experiment.id,
            dataset=key[1],
            round=current.number,
            attempt=current.attempt,
            context=masking.context,
            sharing=PublicKey(alg="x25519", public=public.sharing.hex()),
            masking=PublicKey(alg="x25519", public=public.masking.hex()),
        )

    def share(self, key: Key) -> MaskingShared:
        """R1; the blob is with the coordinator when this returns.

        Raises:
            LedgerError: it could not be brought.
            RoundFailed: the log's keys are not to be used.
        """
        experiment, current, masking = self._open_round(key)
        secrets = self._secrets(key, masking)
        try:
            shares = member.share(
                secrets,
                roster_of(masking.context, current.cohort),
                public_keys(masking.keys),
                os.urandom,
            )
        except MaskingRefused as refused:
            raise RoundFailed(str(refused)) from None
        return MaskingShared(
            type="masking.shared",
            experiment=experiment.id,
            dataset=key[1],
            round=current.number,
            attempt=current.attempt,
            context=masking.context,
            shares=self._membership.publish(encode_shares(shares.envelopes)),
            seed=shares.commitment.hex(),
        )

    def mask(self, key: Key) -> Callable[[bytes], bytes]:
        """R2, for the training thread: from the vector's blob to the masked one's."""
        experiment, current, masking = self._open_round(key)
        roster = roster_of(masking.context, current.cohort)
        keys = public_keys(masking.keys)
        size = update_size(experiment.plan, current.kind)
        private = self._private

        def run(vector: bytes) -> bytes:
            secrets = self._secrets(key, masking)
            try:
                kept, masked = member.mask(
                    secrets, roster, keys, masking.members, decode_update(vector, size)
                )
            except MaskingRefused as refused:
                raise RoundFailed(str(refused)) from None
            if experiment.plan.noise_shares > 1:
                private.outbox.note_masked(*key, current.number, masking.context)
            if kept != secrets:
                private.outbox.keep_masks(*key, masking.context, self._sealed(kept))
            return encode_update(masked)

        return run

    def agree(self, key: Key) -> MaskingAgreed:
        """R3.

        Raises:
            RoundFailed: the survivors that the log names are not to be agreed to.
        """
        experiment, current, masking = self._open_round(key)
        roster = roster_of(masking.context, current.cohort)
        try:
            secrets, digest = member.agree(
                self._secrets(key, masking), roster, masking.sharing, masking.members
            )
        except MaskingRefused as refused:
            raise RoundFailed(str(refused)) from None
        self._keep(key, secrets)
        return MaskingAgreed(
            type="masking.agreed",
            experiment=experiment.id,
            dataset=key[1],
            round=current.number,
            attempt=current.attempt,
            context=masking.context,
            survivors=digest.hex(),
        )

    def reveal(self, key: Key) -> MaskingRevealed:
        """R4: noted first, then said; the vector is spent with it (``masking.is_spent``).

        Raises:
            LedgerError: an envelope could not be fetched now.
            RoundFailed: nothing is to be revealed.
        """
        experiment, current, masking = self._open_round(key)
        envelopes = {name: self._envelope(masking, name, key[1]) for name in masking.sharing}
        # The fold applied these only because each names the same survivors as the log.
        digest = survivors_digest(bytes.fromhex(masking.context), masking.members)
        try:
            secrets, revealed = member.unmask(
                self._secrets(key, masking),
                roster_of(masking.context, current.cohort),
                public_keys(masking.keys),
                masking.sharing,
                masking.members,
                dict.fromkeys(masking.agreed, digest),
                envelopes,
            )
        except MaskingRefused as refused:
            raise RoundFailed(str(refused)) from None
        self._keep(key, secrets)
        self._private.outbox.note_masked(*key, current.number, masking.context)
        for name in revealed.unreadable:
            _log.warning("envelope.unreadable", dataset=key[1], sender=name)
        shares = {**revealed.seeds, **revealed.keys}
        return MaskingRevealed(
            type="masking.revealed",
            experiment=experiment.id,
            dataset=key[1],
            round=current.number,
            attempt=current.attempt,
            context=masking.context,
            shares=tuple(
                RevealedShare(of=name, secret=secret, share=shares[name].hex())
                for name, secret in sorted(secrets_asked(masking).items())
                if name in shares
            ),
        )

    # --- inside ---------------------------------------------------------------------------------

    def _open_round(self, key: Key) -> tuple[Experiment, OpenRound, Masking]:
        experiment = self._membership.replica.state.experiments[key[0]]
        current = experiment.round
        if current is None or current.masking is None:
            raise RoundFailed(f"experiment {key[0][:12]} has no masked round open")
        return experiment, current, current.masking

    def _envelope(self, masking: Masking, sender: str, receiver: str) -> bytes:
        data = self._membership.fetch(masking.shares[sender].blob)
        try:
            return envelope_for(data, masking.keys, receiver)
        except MalformedInput:
            return b""

    def _secrets(self, key: Key, masking: Masking) -> Secrets:
        try:
            opened = self._membership.keyring.sealing.open(self._private.outbox.masks_of(*key))
            secrets = Secrets.decode(opened)
        except (CannotOpen, MaskingRefused):
            raise RoundFailed("the round's secrets do not open with this node's key") from None
        if secrets.context.hex() != masking.context:
            raise RoundFailed("the secrets that this node holds are another round's")
        return secrets

    def _keep(self, key: Key, secrets: Secrets) -> None:
        self._private.outbox.keep_masks(*key, secrets.context.hex(), self._sealed(secrets))

    def _sealed(self, secrets: Secrets) -> bytes:
        return seal(self._membership.keyring.sealing.public, secrets.encode())
