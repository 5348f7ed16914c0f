"""From a spec to its plan: the integers that the fold needs, implied by spec and registrations.

`compile_plan` calibrates the noise and builds the plan around it; `assemble` is the second half alone,
for whoever was given the noise. Both refuse a plan of which a bound would not fit its integers.

Sensitivities: clip norm times 2^20, rounded down, for a patient's gradient; 2^20 for a histogram.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from ledger.entries.operations.datasets import CellCharge
from ledger.entries.operations.plans import Engine, Plan, Purpose, Release, SitePlan
from ledger.entries.operations.rounds import RoundKind
from ledger.entries.operations.values import BlobRef
from ledger.errors import MalformedInput, PlanRefused
from ledger.experiment.adaptive_clip import extra_values, split_of
from ledger.experiment.fast_clip import clip_norm
from ledger.experiment.network_spec import parameter_count, parameter_shapes
from ledger.experiment.plan.calibration import calibrate
from ledger.experiment.plan.individual import (
    counts_one_by_one,
    most_for_a_patient,
    training_steps,
)
from ledger.experiment.plan.quantities import (
    clip_units,
    engine_of,
    noise_shares,
    refuse_auto,
    sampling_units,
    steps_per_round,
    training_rows,
)
from ledger.experiment.plan.shape import check_agreement, metric_layout, network_of
from ledger.experiment.plan.sites import (
    ACTUAL_OVER_DECLARED,
    Site,
    cells_of,
    narrowed,
    rows_each,
    site_limits,
)
from ledger.experiment.spec import ExperimentSpec, FedAvg
from ledger.experiment.updates import update_bound
from ledger.rules.experiments import TRAINING, totals
from privacy.calibrate import epsilon_of
from privacy.errors import PrivacyError
from privacy.events import FULL_BATCH, GRID, Gaussian
from privacy.filters import step_charge

MASKED_SUM_LIMIT = 2**62
"""Bound on the sum of a masked round's update bounds: half of what int64 holds."""


def compile_plan(spec: ExperimentSpec, sites: Sequence[Site], initial_model: BlobRef) -> Plan:
    """The plan of a spec on these sites, calibrated to its target epsilon.

    Raises:
        PlanRefused: the spec does not fit the datasets, its budget cannot pay for it, or it still says
            ``auto`` where a number belongs (``recipe.resolve`` puts it there).
    """
    refuse_auto(spec)
    read = [narrowed(spec, site) for site in sites]
    return assemble(spec, read, initial_model, calibrate(spec, read))


def assemble(
    spec: ExperimentSpec,
    sites: Sequence[Site],
    initial_model: BlobRef,
    noises: Sequence[Mapping[Purpose, int]],
) -> Plan:
    """Build the plan around given noise: everything in it but the noise follows from the spec."""
    check_agreement(spec, sites)
    tree = network_of(spec, sites[0].schema)
    tensors = len(parameter_shapes(tree))
    if spec.privacy.clipping == "per_layer" and clip_units(spec) ** 2 < tensors:
        raise PlanRefused("privacy.clip_norm", f"no grid unit of it is left for each of {tensors}")
    if spec.privacy.adaptive is not None:
        try:
            split_of(spec, spec.privacy.adaptive)
        except ValueError as error:
            raise PlanRefused("privacy.clipping", str(error)) from None
    metrics = metric_layout(spec)
    parameters = parameter_count(tree) + extra_values(spec)
    masked = spec.federation.secure_aggregation
    plan = Plan(
        purpose=spec.purpose_code,
        strategy=spec.federation.strategy.name,
        parameters=parameters,
        metric_size=metrics.size if metrics else 0,
        rounds=spec.rounds,
        steps_per_round=steps_per_round(spec),
        spare_rounds=spec.federation.spare_rounds,
        evaluate=metrics is not None,
        baseline=spec.privacy.baseline is not None,
        quorum=spec.federation.quorum,
        round_timeout_ms=spec.federation.round_timeout_s * 1000,
        initial_model=initial_model,
        sites=tuple(
            _bounded_site(spec, site, parameters, noise)
            for site, noise in zip(sites, noises, strict=True)
        ),
        secure_aggregation=None if masked is None else masked.noise,
        noise_shares=noise_shares(spec),
    )
    if masked is not None:
        _check_masked_sums(plan, sites)
    return plan


def _check_masked_sums(plan: Plan, sites: Sequence[Site]) -> None:
    """No sum of masked vectors may leave int64, or what is unmasked would be another number.

    The bound of each update's L2 norm bounds each of its values: for FedSGD
    2 N_i C 2^20 + sigma_i (sqrt(d) + 11), so the sums of the bounds are more than
    N C 2^20 + 8 sigma sqrt(n), the sum of honest vectors with a Gaussian tail of 8 deviations.
    """
    kinds: list[RoundKind] = ["train"]
    kinds += ["evaluate"] if plan.evaluate else []
    kinds += ["baseline"] if plan.baseline else []
    for kind in kinds:
        total = sum(
            update_bound(plan, stated, kind, site.terms.declared_test)
            for stated, site in zip(plan.sites, sites, strict=True)
        )
        if total >= MASKED_SUM_LIMIT:
            raise PlanRefused(
                "federation.secure_aggregation",
                f"the sums of its {kind} rounds may reach {total}, and masks need less than 2^62; "
                "use a smaller clip norm, or fewer hospitals",
            )


def _bounded_site(
    spec: ExperimentSpec, site: Site, parameters: int, noises: Mapping[Purpose, int]
) -> SitePlan:
    """A site's plan, or a refusal where a charge or a bound is more than an entry can say."""
    where = f"plan.sites.{site.terms.dataset}"
    try:
        return _assemble_site(spec, site, parameters, noises)
    except MalformedInput as error:
        raise PlanRefused(where, f"a number is out of range: {error}") from None
    except PrivacyError as error:
        raise PlanRefused(where, str(error)) from None


def _assemble_site(
    spec: ExperimentSpec, site: Site, parameters: int, noises: Mapping[Purpose, int]
) -> SitePlan:
    sensitivity = clip_units(spec)
    steps: dict[Purpose, int] = {"train": training_steps(spec)}
    if spec.privacy.metrics is not None:
        steps["evaluate"] = 1
    if spec.privacy.baseline is not None:
        steps["baseline_train"] = spec.privacy.baseline.rounds
        steps["baseline_evaluate"] = 1
    one_by_one = counts_one_by_one(site)
    releases = tuple(
        _individual_release(spec, site, sensitivity, noises[purpose], count)
        if one_by_one and purpose == "train"
        else _release(
            site,
            purpose,
            sensitivity=sensitivity if purpose in TRAINING else GRID,
            noise_sd=noises[purpose],
            sampling=sampling_units(spec) if purpose == "train" else FULL_BATCH,
            steps=count,
            engine=engine_of(spec, purpose),
        )
        for purpose, count in steps.items()
    )
    declared = site.terms.declared_train
    if any(release.engine == "fast" for release in releases):
        rows = training_rows(spec, site.schema.declared_rows)
        limits = site_limits(declared, rows, rows_each(site.schema))
        per_layer = spec.privacy.clipping == "per_layer"
        # Refuses what rounding eats.
        clip_norm(network_of(spec, site.schema), sensitivity, limits, per_layer)
    federated_average = isinstance(spec.federation.strategy, FedAvg)
    return SitePlan(
        dataset=site.terms.dataset,
        registration=site.registration,
        weight=declared if federated_average else 1,
        divisor=declared,
        update_bound=_update_bound(spec, parameters, declared, noises["train"]),
        epsilon_micro=_epsilon_micro(site, releases),
        releases=releases,
    )


def _release(
    site: Site,
    purpose: Purpose,
    *,
    sensitivity: int,
    noise_sd: int,
    sampling: int,
    steps: int,
    engine: Engine,
) -> Release:
    event = Gaussian(sensitivity, noise_sd, 1, sampling)
    charges = []
    for cell in cells_of(site, purpose):
        charge = step_charge(event, site.cells[cell].limit.order_centi)
        charges.append(CellCharge(cell=cell, g=charge.g, r=charge.r))
    if not charges:
        raise PlanRefused(
            f"dataset {site.terms.dataset}", f"it has no cell of patients for {purpose}"
        )
    return Release(
        purpose=purpose,
        sensitivity=sensitivity,
        noise_sd=noise_sd,
        sampling=sampling,
        steps=steps,
        engine=engine,
        charges=tuple(charges),
    )


def _individual_release(
    spec: ExperimentSpec, site: Site, sensitivity: int, noise_sd: int, steps: int
) -> Release:
    return Release(
        purpose="train",
        sensitivity=sensitivity,
        noise_sd=noise_sd,
        sampling=FULL_BATCH,
        steps=steps,
        engine="individual",
        charges=most_for_a_patient(spec, site, sensitivity, noise_sd),
    )


def _update_bound(spec: ExperimentSpec, parameters: int, declared: int, noise_sd: int) -> int:
    """L2 bound on a training update that an honest node never exceeds but with chance < 1e-20.

    A node refuses to register a dataset with more than ``ACTUAL_OVER_DECLARED`` times its declared
    rows. The norm of n Gaussians of deviation s exceeds s (sqrt(n) + 10) with chance exp(-50)
    (Laurent & Massart 2000, Lemma 1).
    """
    rows = ACTUAL_OVER_DECLARED * declared
    step = rows * clip_units(spec) + noise_sd * (math.isqrt(parameters) + 11)
    strategy = spec.federation.strategy
    if not isinstance(strategy, FedAvg):
        return step
    batch = max(Fraction(1), Fraction(sampling_units(spec) * declared, FULL_BATCH))
    moved = strategy.local_steps * Fraction(strategy.learning_rate) * step / batch
    return math.ceil(moved * declared) + parameters


def _epsilon_micro(site: Site, releases: Sequence[Release]) -> int:
    worst = 0.0
    for charge in totals(releases):
        cell = site.cells[charge.cell]
        delta = cell.delta_e15 / 1e15
        epsilon = epsilon_of(charge.g, charge.r, cell.limit.order_centi, delta)
        worst = max(worst, epsilon)
    return max(1, math.ceil(worst * 10**6))
