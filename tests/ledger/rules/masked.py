"""A masked round, played phase by phase by four hospitals."""

from __future__ import annotations

from typing import Any

from ledger.entries.operations.budgets import BudgetRefused
from ledger.entries.operations.experiments import ExperimentApproved
from ledger.entries.operations.log import TimeNoted
from ledger.entries.operations.masking import (
    MaskingAdvanced,
    MaskingAdvertised,
    MaskingAgreed,
    MaskingRevealed,
    MaskingShared,
    RevealedShare,
)
from ledger.entries.operations.rounds import MaskedVector, RoundClosed
from ledger.entries.operations.values import BlobRef, PublicKey
from ledger.formats.value import replace
from ledger.rules import masking as rules
from ledger.rules.experiment_state import Masking
from ledger.rules.fold import step
from ledger.rules.state import State
from privacy.masking.roster import survivors_digest
from tests.federation import COORDINATOR, RESEARCHER, Federation, node_of, steward_of
from tests.ledger.facts import (
    cell_of,
    dataset_of,
    fold,
    h,
    open_op,
    proposal,
    reserve_op,
    says,
    submit_op,
)

HOSPITALS = ("basel", "bern", "chur", "davos")
SHARE = "00" + 65 * "11"


def proposed(
    hospitals: tuple[str, ...] = HOSPITALS, *, void: str | None = None, **plan: Any
) -> State:
    """Hospitals with a cell and a dataset each; a masked experiment is the last entry."""
    state = Federation.found(hospitals).state
    for name in hospitals:
        for op in (cell_of(name), dataset_of(name)):
            state = fold(state, node_of(name), op)
    op = proposal(state, hospitals)
    changed = {"quorum": 3, "secure_aggregation": "local"} | plan
    return fold(
        state,
        RESEARCHER,
        replace(op, plan=replace(op.plan, **changed)),
        void,
    )


class Round:
    """The open masked round of a state, and what its members say."""

    def __init__(self, **plan: Any) -> None:
        state = proposed(**plan)
        self.id = next(iter(state.experiments))
        for name in HOSPITALS:
            approval = _approval(self.id, name)
            state = fold(state, steward_of(name), approval)
            state = fold(state, node_of(name), reserve_op(state, self.id, name))
        deadline = state.log_time + 60_000
        self.state = fold(state, COORDINATOR, open_op(state, self.id, deadline_ms=deadline))

    @property
    def masking(self) -> Masking:
        current = self.state.experiments[self.id].round
        assert current is not None
        assert current.masking is not None
        return current.masking

    def common(self, name: str, **changed: Any) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "experiment": self.id,
            "dataset": f"{name}-heart",
            "round": 1,
            "attempt": self.state.experiments[self.id].next_attempt,
            "context": self.masking.context,
        }
        return fields | changed

    def advertise(self, name: str, void: str | None = None, **changed: Any) -> None:
        fields = self.common(
            name,
            sharing=PublicKey(alg="x25519", public=h((name, "sharing"))),
            masking=PublicKey(alg="x25519", public=h((name, "masking"))),
        )
        op = MaskingAdvertised(type="masking.advertised", **(fields | changed))
        self.state = fold(self.state, node_of(name), op, void)

    def share(self, name: str, void: str | None = None, **changed: Any) -> None:
        blob = BlobRef(sha256=h(name), bytes=rules.shares_bytes(len(self.masking.members)))
        fields = self.common(name, shares=blob, seed=h((name, "seed")))
        op = MaskingShared(type="masking.shared", **(fields | changed))
        self.state = fold(self.state, node_of(name), op, void)

    def submit(self, name: str, void: str | None = None, **changed: Any) -> None:
        masked = MaskedVector(context=self.masking.context, vector=h((name, "vector")))
        op = submit_op(self.state, self.id, name, word=(name, self.masking.context), train=1)
        op = replace(op, **({"masked": masked} | changed))
        self.state = fold(self.state, node_of(name), op, void)

    def advance(self, phase: Any, *names: str, void: str | None = None) -> None:
        op = MaskingAdvanced(
            type="masking.advanced",
            experiment=self.id,
            round=1,
            attempt=self.state.experiments[self.id].next_attempt,
            phase=phase,
            datasets=tuple(f"{name}-heart" for name in names),
        )
        self.state = fold(self.state, COORDINATOR, op, void)

    def agree(self, name: str, void: str | None = None, **changed: Any) -> None:
        digest = survivors_digest(bytes.fromhex(self.masking.context), self.masking.members)
        op = MaskingAgreed(
            type="masking.agreed", **(self.common(name, survivors=digest.hex()) | changed)
        )
        self.state = fold(self.state, node_of(name), op, void)

    def reveal(self, name: str, void: str | None = None, **secrets: Any) -> None:
        asked = secrets or {k[:-6]: v for k, v in rules.secrets_asked(self.masking).items()}
        shares = tuple(
            RevealedShare(of=f"{of}-heart", secret=secret, share=SHARE)
            for of, secret in asked.items()
        )
        op = MaskingRevealed(type="masking.revealed", **self.common(name, shares=shares))
        self.state = fold(self.state, node_of(name), op, void)

    def close(self, reason: Any, void: str | None = None) -> None:
        op = RoundClosed(
            type="round.closed",
            experiment=self.id,
            round=1,
            attempt=self.state.experiments[self.id].next_attempt,
            reason=reason,
        )
        self.state = fold(self.state, COORDINATOR, op, void)

    def pass_time(self, ms: int) -> None:
        noted = says(
            self.state, COORDINATOR, TimeNoted(type="time.noted"), at_ms=self.state.log_time + ms
        )
        self.state = step(self.state, noted)[0]

    def leave(self, name: str) -> None:
        op = BudgetRefused(
            type="budget.refused", experiment=self.id, dataset=f"{name}-heart", reason="unavailable"
        )
        self.state = fold(self.state, node_of(name), op)

    def until(self, phase: str, here: tuple[str, ...] = HOSPITALS) -> Round:
        """Play honestly up to a phase; who is not here says that it leaves."""
        for name in set(HOSPITALS) - set(here):
            self.leave(name)
        for say, ends in ((self.advertise, "share"), (self.share, "mask"), (self.submit, "unmask")):
            if self.masking.phase == phase:
                break
            for name in here:
                say(name)
            self.advance(ends, *here)
        return self


def _approval(experiment: str, name: str) -> ExperimentApproved:
    return ExperimentApproved(
        type="experiment.approved",
        experiment=experiment,
        dataset=f"{name}-heart",
        epsilon_max_micro=10**6,
        until_ms=2**50,
    )
