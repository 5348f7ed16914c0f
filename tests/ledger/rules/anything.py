"""Whatever a member may say in a state, sensible or not, drawn at random."""

from __future__ import annotations

from random import Random
from typing import Any

from ledger.entries.operations.audits import LedgerReviewed, PrivacyAudited
from ledger.entries.operations.budgets import BudgetRefused, BudgetReserved, BudgetSettled, Used
from ledger.entries.operations.datasets import CellCharge, DatasetWithdrawn
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentCompleted,
    ExperimentRefused,
    ExperimentStopped,
    ModelDownloaded,
    ModelReleased,
)
from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    Invitation,
    InviteChange,
    Policy,
    PolicyChange,
    RekeyChange,
    Seat,
)
from ledger.entries.operations.log import ForkReported, NodeReady, NodeResumed, TimeNoted
from ledger.entries.operations.members import KeyRevoked, KeyRotated
from ledger.entries.operations.rounds import (
    RoundAggregated,
    RoundClosed,
    RoundOpened,
    UpdateRefused,
    UpdateSubmitted,
)
from ledger.entries.operations.values import EMPTY_HASH, MAX_INT, BlobRef, PublicKey
from ledger.entries.operations.vocabulary import Operation
from ledger.rules.experiments import totals
from ledger.rules.state import State
from tests.federation import COORDINATOR, RESEARCHER, node_of, steward_of
from tests.ledger.facts import HOSPITALS, STEPS, cell_of, dataset_of, h, keys, proposal

PEOPLE = (COORDINATOR, RESEARCHER, *map(node_of, HOSPITALS), *map(steward_of, HOSPITALS))
PURPOSES: tuple[Any, ...] = tuple(STEPS)
NUMBERS = (0, 1, 2, 3, 4, 5, 10**6, 2**31 - 1, 2**40, MAX_INT)
POSITIVE = (1, 2, 3, 10**6, 2**31, 2**40, MAX_INT)
COUNTS = (0, 1, 1, 2, 2, 3, 3, 4, 5, 30, MAX_INT)


HASHES = tuple(map(h, range(4)))
BLOBS = tuple(BlobRef(sha256=sha256, bytes=7) for sha256 in HASHES)


def any_op(rng: Random, state: State) -> Operation:
    """Any operation: mostly about what there is, with numbers that fit or do not."""
    pick = rng.choice
    experiments = list(state.experiments) or [EMPTY_HASH]
    which = pick([*experiments * 9, h("nowhere")])
    found_ = state.experiments.get(which)
    name = pick(["basel"] * 12 + ["bern"] * 6 + ["chur"])
    dataset = f"{name}-heart"
    rounds = [1, 2, 3, 4, 99]
    attempts = [1, 2]
    model = pick(BLOBS)
    if found_ is not None:
        rounds += [found_.next_round] * 8
        attempts += [found_.next_attempt] * 4
        model = pick([model, found_.model, found_.model, found_.model])
    number, attempt = pick(rounds), pick(attempts)
    kind = "train" if number <= 2 else "evaluate" if number == 3 else "baseline"
    used = tuple(Used(purpose=pick(PURPOSES), steps=pick(COUNTS)) for _ in range(rng.randint(1, 4)))
    if rng.random() < 0.5:
        used = tuple(
            Used(purpose=p, steps=rng.randint(0, most))
            for p, most in zip(PURPOSES, STEPS.values(), strict=True)
        )
    hospital = name if name in HOSPITALS else "basel"
    kinds: dict[str, Any] = {
        "cell": lambda: cell_of(
            hospital,
            pick(["all", "more", "test"]),
            pick(["all", "2024", "2025"]),
            pick(["train", "test", "both"]),
        ),
        "dataset": lambda: dataset_of(hospital, pick(["all", "more"]), pick(HASHES)),
        "withdraw": lambda: DatasetWithdrawn(
            type="dataset.withdrawn", dataset=dataset, reason="legal"
        ),
        "propose": lambda: proposal(
            state, (hospital,), sampling=pick([1, 2**31, 2**32]), baseline=rng.random() < 0.5
        ),
        "approve": lambda: ExperimentApproved(
            type="experiment.approved",
            experiment=which,
            dataset=dataset,
            epsilon_max_micro=pick(POSITIVE),
            until_ms=pick([0] + [2**50] * 9),
        ),
        "refuse": lambda: ExperimentRefused(
            type="experiment.refused", experiment=which, dataset=dataset, reason="other"
        ),
        "stop": lambda: ExperimentStopped(
            type="experiment.stopped",
            experiment=which,
            reason=pick(["researcher", "expired", "invalid_plan"]),
        ),
        "complete": lambda: ExperimentCompleted(
            type="experiment.completed", experiment=which, model=model
        ),
        "release": lambda: ModelReleased(type="model.released", experiment=which, model=model),
        "download": lambda: ModelDownloaded(
            type="model.downloaded", experiment=which, reader=pick([RESEARCHER, "nobody"])
        ),
        "open": lambda: RoundOpened(
            type="round.opened",
            experiment=which,
            round=number,
            attempt=attempt,
            kind=kind,  # type: ignore[arg-type]
            cohort=("basel-heart", "bern-heart")
            if found_ is not None and len(found_.plan.sites) > 1
            else (dataset,),
            model=model,
            deadline_ms=pick([0] + [2**50] * 9 + [MAX_INT]),
        ),
        "reserve": lambda: BudgetReserved(
            type="budget.reserved",
            experiment=which,
            dataset=dataset,
            charges=_charges(found_, dataset) or (CellCharge(cell="basel-all", g=1, r=MAX_INT),),
        ),
        "no budget": lambda: BudgetRefused(
            type="budget.refused", experiment=which, dataset=dataset, reason="unavailable"
        ),
        "settle": lambda: BudgetSettled(
            type="budget.settled", experiment=which, dataset=dataset, used=used, intents=EMPTY_HASH
        ),
        "submit": lambda: UpdateSubmitted(
            type="update.submitted",
            experiment=which,
            dataset=dataset,
            round=number,
            attempt=attempt,
            update=pick(BLOBS),
            used=used,
            intents=EMPTY_HASH,
            masked=None,
        ),
        "refuse update": lambda: UpdateRefused(
            type="update.refused", update=pick([*_updates(found_), h(0)]), reason="norm_bound"
        ),
        "aggregate": lambda: RoundAggregated(
            type="round.aggregated",
            experiment=which,
            round=number,
            attempt=attempt,
            updates=tuple(sorted(_updates(found_))) or (h(0),),
            aggregate=pick(BLOBS),
            model=model,
        ),
        "close": lambda: RoundClosed(
            type="round.closed",
            experiment=which,
            round=number,
            attempt=attempt,
            reason="quorum_missed",
        ),
        "time": lambda: TimeNoted(type="time.noted"),
        "ready": lambda: NodeReady(type="node.ready", protocol=pick(POSITIVE)),
        "resumed": lambda: NodeResumed(type="node.resumed", nonce=pick(HASHES)),
        "fork": lambda: ForkReported(type="fork.reported", ours=pick(BLOBS), theirs=pick(BLOBS)),
        "audited": lambda: PrivacyAudited(
            type="privacy.audited",
            kind=pick(["membership", "canary", "residuals"]),
            data="synthetic",
            experiment=pick([which, None]),
            dataset=pick(["bern-heart", "nothing", None]),
            finding=pick(["as_proved", "contradicts"]),
            samples=pick(POSITIVE),
            measured_ppm=pick(NUMBERS),
            low_ppm=pick(NUMBERS),
            high_ppm=pick(NUMBERS),
            bound_ppm=pick(NUMBERS),
            confidence_ppm=999_900,
            result=pick([*BLOBS, None]),
        ),
        "reviewed": lambda: LedgerReviewed(
            type="ledger.reviewed", size=pick(NUMBERS), root=pick(HASHES), finding="incident"
        ),
        "revoke": lambda: KeyRevoked(
            type="key.revoked",
            member=pick([steward_of("bern"), "nobody"]),
            compromised_since_ms=pick(NUMBERS),
        ),
        "rotate": lambda: KeyRotated(
            type="key.rotated", keys=keys(pick(NUMBERS), rng.random() < 0.5), proof="0" * 128
        ),
        "change": lambda: ChangeProposed(type="change.proposed", change=_change(rng)),
        "endorse": lambda: ChangeEndorsed(
            type="change.endorsed", change=pick([*state.changes, h("no change")])
        ),
    }
    likely = ["approve", "open", "reserve", "submit", "submit", "aggregate", "settle", "time"] * 8
    return kinds[pick([*kinds, *likely])]()  # type: ignore[no-any-return]


def _charges(experiment: Any, dataset: str) -> tuple[CellCharge, ...]:
    if experiment is None:
        return ()
    sites = [s for s in experiment.plan.sites if s.dataset == dataset]
    return totals(sites[0].releases) if sites else ()


def _updates(experiment: Any) -> list[str]:
    if experiment is None or experiment.round is None:
        return []
    return [u.entry for u in experiment.round.updates.values() if u.refused is None]


def _change(rng: Random) -> Any:
    pick = rng.choice
    number = rng.randint(0, 2)
    if number == 0:
        seat = Seat(handle=pick(["basel-node", "new-node"]), role="node")
        key = PublicKey(alg="ed25519", public=pick(HASHES))
        return InviteChange(invitation=Invitation(organisation="zug", key=key, seats=(seat,)))
    if number == 1:
        member = pick([node_of("bern"), steward_of("bern"), COORDINATOR, "no"])
        return RekeyChange(member=member, keys=keys(pick(NUMBERS), rng.random() < 0.5))
    policy = Policy(
        endorsements=rng.randint(1, 3),
        max_lag=pick(POSITIVE),
        max_delay_ms=pick(POSITIVE),
        max_age_ms=1,
        skew_ms=1,
    )
    return PolicyChange(policy=policy)
