"""Training on cells whose patients are accounted for one by one: which plans may, and at what noise.

The noise is for ``privacy.full_rounds`` rounds at the clip norm, the plan's rounds may be many more: each
patient takes part until the own gradients have cost what so many full rounds would, or until the cell's
promise is used up. So the most that a run costs any patient is a number of the plan, and its rounds are
public; who takes part how long is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.entries.operations.datasets import CellCharge
from ledger.errors import PlanRefused
from ledger.experiment.plan.quantities import noise_shares, steps_per_round
from ledger.experiment.plan.sites import Site, cells_of
from ledger.experiment.spec import ExperimentSpec
from ledger.rules.individual import is_individual, renyi_of
from privacy.filters import g_step


def counts_one_by_one(site: Site) -> bool:
    """Whether training at a site reads patients who are accounted for one by one.

    Raises:
        PlanRefused: it would read cells of both kinds.
    """
    kinds = {is_individual(site.cells[cell]) for cell in cells_of(site, "train")}
    if len(kinds) > 1:
        raise PlanRefused(
            f"dataset {site.terms.dataset}",
            "some of its patients are accounted for one by one and some are not; "
            "name blocks of one kind in federation.blocks",
        )
    return True in kinds


def check_one_by_one(spec: ExperimentSpec, sites: Sequence[Site]) -> None:
    """Refuse what cannot be accounted for patient by patient.

    Raises:
        PlanRefused: another release than the full-batch sum of a FedSGD round, clipped flat, noise that is
            shared, a baseline, or ``full_rounds`` that nobody needs or that are more than the rounds.
    """
    full = spec.privacy.full_rounds
    concerned = [site.terms.dataset for site in sites if counts_one_by_one(site)]
    if not concerned:
        if full is not None:
            raise PlanRefused(
                "privacy.full_rounds",
                "none of the datasets accounts for its patients one by one; leave it out",
            )
        return
    why = f"{concerned[0]} accounts for its patients one by one"
    if spec.federation.strategy.name != "fedsgd":
        raise PlanRefused("federation.strategy", f"{why}, which needs fedsgd")
    if spec.federation.sampling != "full":
        raise PlanRefused("federation.sampling", f"{why}, which needs the full batch")
    if noise_shares(spec) > 1:
        raise PlanRefused("federation.secure_aggregation", f"{why}, which needs noise: local")
    if spec.privacy.baseline is not None:
        raise PlanRefused("privacy.baseline", f"{why}, and a baseline is not; leave it out")
    if spec.privacy.engine == "fast":
        raise PlanRefused("privacy.engine", f"{why}, which needs each patient's exact vector")
    if spec.privacy.clipping != "flat":
        raise PlanRefused("privacy.clipping", f"{why}, which needs flat")
    if full is not None and full > training_steps(spec):
        raise PlanRefused(
            "privacy.full_rounds",
            f"{full} are more than the {training_steps(spec)} that are planned",
        )


def training_steps(spec: ExperimentSpec) -> int:
    """Noisy sums that training may release, spare rounds included."""
    return (spec.rounds + spec.federation.spare_rounds) * steps_per_round(spec)


def steps_at_full_length(spec: ExperimentSpec, site: Site) -> int:
    """For how many sums at the clip norm a site's training noise is made."""
    full = spec.privacy.full_rounds
    return full if full is not None and counts_one_by_one(site) else training_steps(spec)


def most_for_a_patient(
    spec: ExperimentSpec, site: Site, sensitivity: int, noise_sd: int
) -> tuple[CellCharge, ...]:
    """The most that all training rounds together may cost any one patient of each cell.

    Never more than the cell's whole promise. Lane R is that of a Gaussian release with this mu^2.
    """
    charges = []
    for name in cells_of(site, "train"):
        limit = site.cells[name].limit
        g = min(steps_at_full_length(spec, site) * g_step(sensitivity, noise_sd), limit.g_max)
        charges.append(CellCharge(cell=name, g=g, r=renyi_of(g, limit.order_centi)))
    return tuple(charges)
