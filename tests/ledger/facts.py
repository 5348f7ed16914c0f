"""Small facts for tests of the fold: entries without signatures, integers without a spec.

``base`` is a state in which two hospitals have a cell and a dataset each and both approved one
experiment of two rounds, one spare, an evaluation and a baseline. ``says`` makes the entry that
admission would let in next, ``fold`` folds one and checks its verdict.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from ledger.entries.entry import Body, Entry, Seen
from ledger.entries.operations.budgets import BudgetReserved, BudgetSettled, Used
from ledger.entries.operations.datasets import (
    CellCharge,
    CellLimit,
    CellRegistered,
    CellUse,
    DatasetRegistered,
)
from ledger.entries.operations.experiments import ExperimentApproved, ExperimentProposed
from ledger.entries.operations.members import MemberKeys
from ledger.entries.operations.plans import Plan, Release, SitePlan
from ledger.entries.operations.rounds import RoundAggregated, RoundOpened, UpdateSubmitted
from ledger.entries.operations.values import EMPTY_HASH, BlobRef, PublicKey
from ledger.entries.operations.vocabulary import Operation
from ledger.rules.experiments import site_of, totals
from ledger.rules.fold import step
from ledger.rules.rounds import round_kind
from ledger.rules.state import State, replace
from privacy.filters import g_step, r_step_full_batch
from tests.federation import RESEARCHER, Federation, node_of, steward_of

HOSPITALS = ("basel", "bern")
STEPS = {"train": 3, "evaluate": 1, "baseline_train": 2, "baseline_evaluate": 1}
"""What every experiment here reserves: two rounds and a spare one, and the two measurements."""


def h(word: object) -> str:
    return hashlib.sha256(str(word).encode()).hexdigest()


def says(
    state: State, author: str, op: Operation, at_ms: int = 0, seen: int | None = None
) -> Entry:
    """The entry that admission would let in next, but for signature and roots."""
    live = {k.member: key for key, k in state.keys.items() if k.retired_at is None}
    key = live[author]
    body = Body(
        v=1,
        federation=state.federation,
        author=author,
        key=key,
        seq=state.keys[key].next_seq,
        prev=state.keys[key].head,
        seen=Seen(size=state.size if seen is None else seen, root=EMPTY_HASH),
        at_ms=at_ms,
        op=op,
    )
    return Entry(body, b"", b"", h((state.size, author, op)))


def keys(word: object, witness: bool) -> MemberKeys:
    def key(use: str, alg: Any = "ed25519") -> PublicKey:
        return PublicKey(alg=alg, public=h((word, use)))

    return MemberKeys(
        entry=key("entry"),
        request=key("request"),
        sealing=key("sealing", "x25519"),
        witness=key("witness") if witness else None,
    )


@cache
def base() -> State:
    """Two hospitals with a cell and a dataset each, one experiment approved by both."""
    federation = Federation.found(HOSPITALS)
    state = federation.state
    for name in HOSPITALS:
        for op in (cell_of(name), dataset_of(name)):
            state, outcome = step(state, says(state, node_of(name), op))
            assert outcome.applied
    entry = says(state, RESEARCHER, proposal(state, HOSPITALS))
    state, outcome = step(state, entry)
    assert outcome.applied, outcome
    for name in HOSPITALS:
        approval = ExperimentApproved(
            type="experiment.approved",
            experiment=entry.hash,
            dataset=f"{name}-heart",
            epsilon_max_micro=10**6,
            until_ms=2**50,
        )
        state, outcome = step(state, says(state, steward_of(name), approval))
        assert outcome.applied, outcome
    return state


def cell_of(name: str, cell: str = "all", block: str = "all", half: Any = "both") -> CellRegistered:
    return CellRegistered(
        type="cell.registered",
        cell=f"{name}-{cell}",
        block=block,
        half=half,
        declared_patients=300,
        epsilon_micro=10**6,
        delta_e15=10**10,
        limit=CellLimit(g_max=12 * g_step(1, 2), r_max=2**43, order_centi=750),
    )


def dataset_of(name: str, cell: str = "all", snapshot: str = EMPTY_HASH) -> DatasetRegistered:
    return DatasetRegistered(
        type="dataset.registered",
        dataset=f"{name}-heart",
        schema_=BlobRef(sha256=EMPTY_HASH, bytes=1),
        unit="patient",
        declared_train=200,
        declared_test=100,
        cells=(CellUse(cell=f"{name}-{cell}", use="both"),),
        snapshot=snapshot,
        card=None,
    )


def proposal(
    state: State, hospitals: tuple[str, ...], *, sampling: int = 2**32, baseline: bool = True
) -> ExperimentProposed:
    """Two rounds and a spare one, an evaluation and a baseline: 3 + 1 + 2 + 1 steps."""
    sites = []
    for name in hospitals:
        dataset = state.datasets[f"{name}-heart"]
        releases = []
        for purpose, steps in STEPS.items():
            if purpose.startswith("baseline") and not baseline:
                continue
            charges = tuple(
                CellCharge(
                    cell=use.cell,
                    g=g_step(1, 2),
                    r=r_step_full_batch(1, 2, state.cells[use.cell].terms.limit.order_centi),
                )
                for use in dataset.terms.cells
            )
            releases.append(
                Release(
                    purpose=purpose,  # type: ignore[arg-type]
                    sensitivity=1,
                    noise_sd=2,
                    sampling=sampling if purpose == "train" else 2**32,
                    steps=steps,
                    engine="exact",
                    charges=charges,
                )
            )
        sites.append(
            SitePlan(
                dataset=f"{name}-heart",
                registration=dataset.registration,
                weight=1,
                divisor=200,
                update_bound=1000,
                epsilon_micro=10**5,
                releases=tuple(releases),
            )
        )
    return ExperimentProposed(
        type="experiment.proposed",
        name="exp",
        spec=BlobRef(sha256=EMPTY_HASH, bytes=1),
        plan=Plan(
            purpose="research",
            strategy="fedsgd",
            parameters=3,
            metric_size=32,
            rounds=2,
            steps_per_round=1,
            spare_rounds=1,
            evaluate=True,
            baseline=baseline,
            quorum=1,
            round_timeout_ms=60_000,
            initial_model=BlobRef(sha256=EMPTY_HASH, bytes=1),
            sites=tuple(sites),
            secure_aggregation=None,
            noise_shares=1,
        ),
    )


def fold(state: State, author: str, op: Operation, void: str | None = None) -> State:
    """The state after an entry that must be applied, or void for that reason."""
    after, outcome = step(state, says(state, author, op))
    assert outcome.void == void, (op.type, outcome)
    return after


def experiment_of(state: State) -> str:
    """The experiment of ``base``."""
    return min(state.experiments.values(), key=lambda e: e.index).id


def reserve_op(state: State, experiment: str, name: str = "basel") -> BudgetReserved:
    site = site_of(state.experiments[experiment].plan, f"{name}-heart")
    assert site is not None
    return BudgetReserved(
        type="budget.reserved",
        experiment=experiment,
        dataset=f"{name}-heart",
        charges=totals(site.releases),
    )


def settle_op(experiment: str, name: str = "basel", **used: int) -> BudgetSettled:
    return BudgetSettled(
        type="budget.settled",
        experiment=experiment,
        dataset=f"{name}-heart",
        used=steps_used(**used),
        intents=EMPTY_HASH,
    )


def open_op(state: State, experiment: str, **changed: Any) -> RoundOpened:
    """The round that is due, for all sites."""
    now = state.experiments[experiment]
    fields: dict[str, Any] = {
        "round": now.next_round,
        "attempt": now.next_attempt,
        "kind": round_kind(now.plan, now.next_round),
        "cohort": tuple(sorted(site.dataset for site in now.plan.sites)),
        "model": now.model,
        "deadline_ms": state.log_time + 1000,
    }
    return RoundOpened(type="round.opened", experiment=experiment, **(fields | changed))


def submit_op(
    state: State, experiment: str, name: str = "basel", word: object = None, **used: int
) -> UpdateSubmitted:
    """An update for the open round (or the one that is due), made of the word."""
    now = state.experiments[experiment]
    number, attempt = now.next_round, now.next_attempt
    return UpdateSubmitted(
        type="update.submitted",
        experiment=experiment,
        dataset=f"{name}-heart",
        round=number,
        attempt=attempt,
        update=BlobRef(sha256=h((name, number) if word is None else word), bytes=7),
        used=steps_used(**used),
        intents=EMPTY_HASH,
        masked=None,
    )


def aggregate_op(state: State, experiment: str, **changed: Any) -> RoundAggregated:
    """The sum of what counts; a training round makes a new model."""
    now = state.experiments[experiment]
    assert now.round is not None
    model = now.model
    if now.round.kind == "train":
        model = BlobRef(sha256=h(("model", now.round.number)), bytes=1)
    fields: dict[str, Any] = {
        "round": now.round.number,
        "attempt": now.round.attempt,
        "updates": tuple(sorted(u.entry for u in now.round.updates.values() if not u.refused)),
        "aggregate": BlobRef(sha256=h("sum"), bytes=1),
        "model": model,
    }
    return RoundAggregated(type="round.aggregated", experiment=experiment, **(fields | changed))


def steps_used(**used: int) -> tuple[Used, ...]:
    return tuple(Used(purpose=p, steps=n) for p, n in used.items())  # type: ignore[arg-type]


def asked(state: State, purpose: Any = "research") -> tuple[State, str]:
    """One more approved experiment of that purpose on Basel's dataset."""
    op = proposal(state, ("basel",))
    op = replace(op, plan=replace(op.plan, purpose=purpose))
    entry = says(state, RESEARCHER, op)
    state, outcome = step(state, entry)
    assert outcome.applied
    yes = ExperimentApproved(
        type="experiment.approved",
        experiment=entry.hash,
        dataset="basel-heart",
        epsilon_max_micro=10**6,
        until_ms=2**50,
    )
    return fold(state, steward_of("basel"), yes), entry.hash
