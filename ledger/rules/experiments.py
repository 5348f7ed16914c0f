"""Rules for an experiment's life: proposed, approved or refused by each hospital, ended, released."""

from __future__ import annotations

from collections.abc import Iterable

from ledger.entries.operations.audits import TWINS, PrivacyAudited
from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.experiments import (
    ExperimentApproved,
    ExperimentCompleted,
    ExperimentProposed,
    ExperimentRefused,
    ExperimentStopped,
    ModelDownloaded,
    ModelReleased,
)
from ledger.entries.operations.federation import Policy
from ledger.entries.operations.plans import Plan, Release, SitePlan
from ledger.entries.operations.values import MAX_INT
from ledger.rules.experiment_state import Approval, Experiment, Refusal
from ledger.rules.findings import belies_itself
from ledger.rules.individual import fits
from ledger.rules.state import Dataset, State, replace
from ledger.rules.verdict import Step, Void
from privacy.events import FULL_BATCH
from privacy.filters import g_step, r_step_full_batch
from privacy.masking.roster import LEAST_MEMBERS, MOST_MEMBERS, threshold

TRAINING = ("train", "baseline_train")


def proposed(state: State, step: Step, op: ExperimentProposed) -> State | Void:
    """The plan must name registered datasets and charge, step by step, what its noise costs."""
    seen: set[str] = set()
    for site in op.plan.sites:
        dataset = state.datasets.get(site.dataset)
        if dataset is None:
            return Void("unknown_dataset")
        if dataset.withdrawn_at is not None:
            return Void("dataset_withdrawn")
        if dataset.registration != site.registration:
            return Void("dataset_changed")
        if site.dataset in seen or not _charges_enough(state, op.plan, site, dataset):
            return Void("plan_invalid")
        seen.add(site.dataset)
    if op.plan.quorum > len(op.plan.sites) or (op.plan.baseline and not op.plan.evaluate):
        return Void("plan_invalid")
    if op.plan.secure_aggregation is not None and not _can_be_masked(state, op.plan):
        return Void("plan_invalid")
    if not _shares_noise_well(op.plan):
        return Void("plan_invalid")
    author = state.members[step.author]
    experiment = Experiment(
        id=step.entry.hash,
        index=step.index,
        name=op.name,
        researcher=author.handle,
        organisation=author.organisation,
        spec=op.spec,
        plan=op.plan,
        model=op.plan.initial_model,
    )
    return put(state, experiment)


def approved(state: State, step: Step, op: ExperimentApproved) -> State | Void:
    """A steward speaks for its own hospital's dataset."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    if experiment.ended:
        return Void("experiment_ended")
    refusal = _not_the_stewards(state, step, experiment, op.dataset)
    if refusal is not None:
        return refusal
    if state.datasets[op.dataset].withdrawn_at is not None:
        return Void("dataset_withdrawn")
    at_ms = step.entry.body.at_ms
    approval = Approval(step.author, step.index, at_ms, op.epsilon_max_micro, op.until_ms)
    refusals = experiment.refusals
    if op.dataset in refusals:
        refusals = refusals.delete(op.dataset)
    return put(
        state,
        replace(
            experiment,
            approvals=experiment.approvals.set(op.dataset, approval),
            refusals=refusals,
        ),
    )


def refused(state: State, step: Step, op: ExperimentRefused) -> State | Void:
    """A no, or an earlier yes taken back: nothing is used after it."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    if experiment.ended:
        return Void("experiment_ended")
    refusal = _not_the_stewards(state, step, experiment, op.dataset)
    if refusal is not None:
        return refusal
    approvals = experiment.approvals
    if op.dataset in approvals:
        approvals = approvals.delete(op.dataset)
    said = Refusal(step.author, step.index, op.reason)
    return put(
        state,
        replace(
            experiment,
            approvals=approvals,
            refusals=experiment.refusals.set(op.dataset, said),
        ),
    )


def stopped(state: State, step: Step, op: ExperimentStopped) -> State | Void:
    """The researcher's own experiment, or any by the coordinator with its reason."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    if experiment.ended:
        return Void("experiment_ended")
    by_researcher = step.author == experiment.researcher
    if by_researcher != (op.reason == "researcher"):
        return Void("not_permitted")
    if not by_researcher and step.author != state.coordinator:
        return Void("not_permitted")
    return put(state, replace(experiment, status="stopped", reason=op.reason, round=None))


def completed(state: State, step: Step, op: ExperimentCompleted) -> State | Void:
    """After the plan's last round. An evaluated model is the one that was evaluated."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    if experiment.ended:
        return Void("experiment_ended")
    if experiment.next_round <= last_round(experiment.plan) or experiment.round is not None:
        return Void("not_due")
    if experiment.plan.evaluate and op.model != experiment.model:
        return Void("model_mismatch")
    return put(state, replace(experiment, status="completed", model=op.model))


def released(state: State, step: Step, op: ModelReleased) -> State | Void:
    """The completed model may be handed out."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    if experiment.status != "completed":
        return Void("repeated" if experiment.status == "released" else "not_due")
    if op.model != experiment.model:
        return Void("model_mismatch")
    return put(state, replace(experiment, status="released"))


def downloaded(state: State, step: Step, op: ModelDownloaded) -> State | Void:
    """Who took the model."""
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    if experiment.status != "released":
        return Void("not_released")
    if op.reader not in state.members:
        return Void("unknown_member")
    return state


def privacy_audited(state: State, step: Step, op: PrivacyAudited) -> State | Void:
    """What an empirical check found: of a plan's site, or of a model that was released."""
    if belies_itself(op):
        return Void("finding_mismatch")
    if op.experiment is None:
        return state
    experiment = state.experiments.get(op.experiment)
    if experiment is None:
        return Void("unknown_experiment")
    if op.dataset is not None and site_of(experiment.plan, op.dataset) is None:
        return Void("unknown_dataset")
    if op.kind in TWINS and experiment.status != "released":
        return Void("not_released")
    return state


def was_held_back(at_ms: int, cosigned_s: int, policy: Policy) -> bool:
    """Whether an approval was too old when hospitals first stood behind it.

    The fold cannot tell: log time moves only with the coordinator's entries. Hospitals' cosignatures
    carry their own clocks.

    Args:
        at_ms: of the approval, by its steward's clock.
        cosigned_s: POSIX seconds by which a quorum had cosigned the first final checkpoint that
            covers it (``Replica.cosigned_s``).
        policy: in force when it is used.
    """
    return cosigned_s * 1000 > at_ms + policy.max_delay_ms + policy.skew_ms


def last_round(plan: Plan) -> int:
    """Number of the plan's last round: training, then evaluation, then the local baseline."""
    return plan.rounds + plan.evaluate + plan.baseline


def site_of(plan: Plan, dataset: str) -> SitePlan | None:
    """The plan's part for a dataset, or None."""
    return next((site for site in plan.sites if site.dataset == dataset), None)


def totals(releases: Iterable[Release]) -> tuple[CellCharge, ...]:
    """The most that releases may cost, per cell, cells in sorted order."""
    return tuple(CellCharge(cell=c, g=g, r=r) for c, (g, r) in sorted(_sums(releases).items()))


def put(state: State, experiment: Experiment) -> State:
    """The state with this version of the experiment."""
    return replace(state, experiments=state.experiments.set(experiment.id, experiment))


def _sums(releases: Iterable[Release]) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for release in releases:
        for charge in release.charges:
            g, r = sums.get(charge.cell, (0, 0))
            times = 1 if release.engine == "individual" else release.steps
            sums[charge.cell] = (g + times * charge.g, r + times * charge.r)
    return sums


def _can_be_masked(state: State, plan: Plan) -> bool:
    """Enough hospitals, each once. Training sums fit int64: 64 bounds of at most 2^53 - 1."""
    organisations = {state.datasets[site.dataset].organisation for site in plan.sites}
    return (
        plan.quorum >= LEAST_MEMBERS
        and len(plan.sites) <= MOST_MEMBERS
        and len(organisations) == len(plan.sites)
    )


def _shares_noise_well(plan: Plan) -> bool:
    """Divided noise needs masks, one linear sum a round, enough sites in it, and one noise for all."""
    if plan.secure_aggregation != "distributed":
        return plan.noise_shares == 1
    noises = {
        (release.purpose, release.noise_sd)
        for site in plan.sites
        for release in site.releases
        if release.purpose != "baseline_train"
    }
    return (
        plan.strategy == "fedsgd"
        and plan.quorum >= threshold(len(plan.sites))
        and 2 <= plan.noise_shares < plan.quorum
        and len(noises) == len({purpose for purpose, _ in noises})
        and all(r.sampling == FULL_BATCH for site in plan.sites for r in site.releases)
    )


def _not_the_stewards(
    state: State, step: Step, experiment: Experiment, dataset: str
) -> Void | None:
    if site_of(experiment.plan, dataset) is None:
        return Void("unknown_dataset")
    owner = state.datasets[dataset].organisation
    return None if owner == state.members[step.author].organisation else Void("not_owner")


def _charges_enough(state: State, plan: Plan, site: SitePlan, dataset: Dataset) -> bool:
    """Every release is planned once, for all cells of its use, at no less than its noise costs.

    All of them are of the calendar blocks that the plan reads, the same for each of its releases.
    """
    wanted = {"train": plan.rounds_with_spare * plan.steps_per_round}
    if plan.evaluate:
        wanted["evaluate"] = 1
    if plan.baseline:
        wanted["baseline_evaluate"] = 1
    got: dict[str, Release] = {release.purpose: release for release in site.releases}
    if len(got) != len(site.releases):
        return False
    if set(got) != set(wanted) | ({"baseline_train"} if plan.baseline else set()):
        return False
    if any(got[purpose].steps != steps for purpose, steps in wanted.items()):
        return False
    named = {charge.cell for release in site.releases for charge in release.charges}
    blocks = {state.cells[cell].terms.block for cell in named if cell in state.cells}
    read = [c for c in dataset.terms.cells if state.cells[c.cell].terms.block in blocks]
    for release in site.releases:
        use = "train" if release.purpose in TRAINING else "test"
        cells = {c.cell for c in read if c.use in (use, "both")}
        if {charge.cell for charge in release.charges} != cells:
            return False
        if len(cells) != len(release.charges):
            return False
        if not fits(plan, release, (state.cells[c.cell].terms for c in release.charges)):
            return False
        if release.engine == "individual":
            continue
        for charge in release.charges:
            if charge.g < g_step(release.sensitivity, release.noise_sd):
                return False
            order = state.cells[charge.cell].terms.limit.order_centi
            full = r_step_full_batch(release.sensitivity, release.noise_sd, order)
            if release.sampling == FULL_BATCH and charge.r < full:
                return False
    return all(max(g, r) <= MAX_INT for g, r in _sums(site.releases).values())
