"""From a spec to its plan: the integers that the fold needs, implied by spec and registrations.

`compile_plan` chooses the noise: for every cell that the experiment reads, the least noise with
which training, metrics, baseline and spare rounds together cost the target epsilon in the cell's own
filter (half of its lifetime delta). Metrics get a fixed share first where they read the same cell as
training. `check_plan` is what a node and an auditor run: it chooses the noise anew, rebuilds the plan
around the noise that it states and wants the same integers, within what two machines' floating-point
functions may differ by, and no more than the target.

Sensitivities: clip norm times 2^20, rounded down, for a patient's gradient; 2^20 for a histogram.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction

from pydantic import ValidationError

from ledger.entries.operations.datasets import (
    CellCharge,
    CellRegistered,
    CellUse,
    DatasetRegistered,
)
from ledger.entries.operations.plans import Engine, Plan, Purpose, Release, SitePlan
from ledger.entries.operations.rounds import RoundKind
from ledger.entries.operations.values import BlobRef
from ledger.errors import PlanRefused
from ledger.experiment.fast_clip import Limits, clip_norm
from ledger.experiment.network_spec import Sequential, expand, parameter_count
from ledger.experiment.noise_shares import LEAST_SHARE_SD, SHARED, share_sd
from ledger.experiment.schema import (
    CategoryColumn,
    NumberColumn,
    PatientColumn,
    Schema,
    normal_label,
)
from ledger.experiment.spec import (
    BinaryTask,
    ExperimentSpec,
    FedAvg,
    MulticlassTask,
    RegressionTask,
)
from ledger.experiment.updates import update_bound
from ledger.formats.documents import explain
from ledger.rules.experiments import TRAINING, totals
from ledger.rules.state import State
from privacy.calibrate import epsilon_of, plan_noise
from privacy.curves import mu2_max, rdp_max
from privacy.errors import PrivacyError
from privacy.events import CHARGE_UNIT, FULL_BATCH, GRID, Gaussian
from privacy.filters import Charge, Limit, step_charge
from privacy.histogram import Layout, layout

ACTUAL_OVER_DECLARED = 2
MASKED_SUM_LIMIT = 2**62
"""Bound on the sum of a masked round's update bounds: half of what int64 holds."""
_TOLERANCE = Fraction(1, 10**6)
_NOISE_TOLERANCE = Fraction(1, 10**7)
_EPSILON_TOLERANCE_MICRO = 5


@dataclass(frozen=True, slots=True)
class Site:
    """A dataset as a plan sees it: its registration, cells and public schema."""

    registration: str
    terms: DatasetRegistered
    cells: Mapping[str, CellRegistered]
    schema: Schema


def sites_from(
    state: State, schemas: Mapping[str, Schema], datasets: Sequence[str]
) -> tuple[Site, ...]:
    """The sites that a spec asks for, from the state and the schemas' blobs.

    Raises:
        PlanRefused: a dataset is not registered, or was withdrawn.
    """
    sites = []
    for name in datasets:
        dataset = state.datasets.get(name)
        if dataset is None:
            known = ", ".join(sorted(state.datasets)) or "none"
            raise PlanRefused("federation.datasets", f"{name} is not registered; known: {known}")
        if dataset.withdrawn_at is not None:
            raise PlanRefused("federation.datasets", f"{name} was withdrawn by its hospital")
        cells = {use.cell: state.cells[use.cell].terms for use in dataset.terms.cells}
        sites.append(Site(dataset.registration, dataset.terms, cells, schemas[name]))
    return tuple(sites)


def network_of(spec: ExperimentSpec, schema: Schema) -> Sequential:
    """The full layer tree of a spec on a schema.

    Raises:
        PlanRefused: unknown features or target, widths that do not chain, too many parameters.
    """
    width = 0
    for feature in spec.features:
        column = schema.column(feature)
        if column is None or isinstance(column, PatientColumn):
            usable = ", ".join(
                c.name
                for c in schema.columns
                if not isinstance(c, PatientColumn) and c.name != spec.task.target
            )
            reason = "is the patient's identifier" if column else "is not a column"
            raise PlanRefused(
                "features", f"{feature} {reason} of {schema.dataset}; there are: {usable}"
            )
        width += len(column.coded) if isinstance(column, CategoryColumn) else 1
        width += column.missing == "indicator"
    _check_target(spec, schema)
    try:
        return expand(spec.model, width, spec.outputs)
    except ValidationError as error:
        raise PlanRefused("model", explain(error)) from None
    except ValueError as error:
        raise PlanRefused("model", str(error)) from None


def metric_layout(spec: ExperimentSpec) -> Layout | None:
    """Shape of the released histograms, or None when the spec releases no metric.

    Raises:
        PlanRefused: no histogram has that many bins and classes.
    """
    if spec.privacy.metrics is None:
        return None
    classes = 2 if spec.task.kind == "binary" else spec.outputs
    try:
        return layout(spec.task.kind, classes, spec.privacy.metrics.bins)
    except PrivacyError as error:
        raise PlanRefused("privacy.metrics", str(error)) from None


def compile_plan(spec: ExperimentSpec, sites: Sequence[Site], initial_model: BlobRef) -> Plan:
    """The plan of a spec on these sites, calibrated to its target epsilon.

    Raises:
        PlanRefused: the spec does not fit the datasets, its budget cannot pay for it, or it still says
            ``auto`` where a number belongs (``recipe.resolve`` puts it there).
    """
    _refuse_auto(spec)
    read = [narrowed(spec, site) for site in sites]
    return _assemble(spec, read, initial_model, _calibrate_all(spec, read))


def check_plan(spec: ExperimentSpec, sites: Sequence[Site], plan: Plan) -> None:
    """Compile a plan anew, and compare.

    Args:
        spec: the experiment's.
        sites: its datasets as registered when the plan was made, in the spec's order.
        plan: as proposed.

    Raises:
        PlanRefused: it is not what the spec implies; ``where`` names the part.
    """
    _refuse_auto(spec)
    named = [s.terms.dataset for s in sites]
    if named != list(spec.federation.datasets) or named != [s.dataset for s in plan.sites]:
        raise PlanRefused("plan.sites", "its datasets are not those of the spec, in their order")
    sites = [narrowed(spec, site) for site in sites]
    noises = [
        _check_noise(f"plan.sites.{stated.dataset}", wanted, stated)
        for wanted, stated in zip(_calibrate_all(spec, sites), plan.sites, strict=True)
    ]
    expected = _assemble(spec, sites, plan.initial_model, noises)
    for site, wanted, stated in zip(sites, expected.sites, plan.sites, strict=True):
        where = f"plan.sites.{stated.dataset}"
        _compare_site(where, wanted, stated)
        _check_target_epsilon(where, spec, site, stated)
    if expected.model_copy(update={"sites": plan.sites}) != plan:
        different = next(
            name
            for name in type(plan).model_fields
            if name != "sites" and getattr(expected, name) != getattr(plan, name)
        )
        raise PlanRefused(f"plan.{different}", "it is not what the spec says")


def narrowed(spec: ExperimentSpec, site: Site) -> Site:
    """A site with the cells that the spec reads of it, and no more declared than those hold.

    Raises:
        PlanRefused: it has none of the blocks that the spec names.
    """
    wanted = spec.federation.blocks
    if not wanted:
        return site
    uses = tuple(use for use in site.terms.cells if site.cells[use.cell].block in wanted)
    if not any(use.use in ("train", "both") for use in uses):
        there = ", ".join(sorted({cell.block for cell in site.cells.values()}))
        raise PlanRefused(
            "federation.blocks",
            f"{site.terms.dataset} has no patients for training of {', '.join(wanted)}; "
            f"it has: {there}",
        )
    terms = site.terms.model_copy(
        update={
            "cells": uses,
            "declared_train": min(site.terms.declared_train, _declared_in(site, uses, "train")),
            "declared_test": min(site.terms.declared_test, _declared_in(site, uses, "test")),
        }
    )
    return replace(site, terms=terms)


def _declared_in(site: Site, uses: Sequence[CellUse], half: str) -> int:
    return sum(site.cells[u.cell].declared_patients for u in uses if u.use in (half, "both"))


def target_limit(spec: ExperimentSpec, cell: CellRegistered) -> Limit:
    """What the whole run may cost one cell: the target epsilon in the cell's own lanes."""
    epsilon = float(spec.privacy.epsilon)
    lane_delta = cell.delta_e15 / 1e15 / 2
    order = cell.limit.order_centi
    try:
        return Limit(
            g_max=math.floor(mu2_max(epsilon, lane_delta) * CHARGE_UNIT),
            r_max=math.floor(rdp_max(epsilon, lane_delta, order / 100) * CHARGE_UNIT),
            order_centi=order,
        )
    except PrivacyError as error:
        raise PlanRefused("privacy.epsilon", str(error)) from None


def clip_units(spec: ExperimentSpec) -> int:
    """The clip norm in grid units."""
    units = int(spec.privacy.clip_norm * GRID)
    if units < 1:
        raise PlanRefused("privacy.clip_norm", "it is below the grid of 2^-20")
    return units


def sampling_units(spec: ExperimentSpec) -> int:
    """The Poisson probability in units of 2^-32; 2^32 for the full batch."""
    rate = spec.federation.sampling
    return FULL_BATCH if rate == "full" else max(1, int(Decimal(rate) * FULL_BATCH))


def steps_per_round(spec: ExperimentSpec) -> int:
    """Noisy sums that one training round uses."""
    strategy = spec.federation.strategy
    return strategy.local_steps if isinstance(strategy, FedAvg) else 1


def engine_of(spec: ExperimentSpec, purpose: Purpose) -> Engine:
    """How the sums of a purpose are made; histograms are integers from the start."""
    if purpose not in TRAINING:
        return "exact"
    if spec.privacy.engine != "auto":
        return spec.privacy.engine
    several = purpose == "baseline_train" or isinstance(spec.federation.strategy, FedAvg)
    return "fast" if several else "exact"


def site_limits(declared_train: int, declared_rows: int) -> Limits:
    """The most training units and rows that a node admits to a dataset of that declared size."""
    return Limits(ACTUAL_OVER_DECLARED * declared_train, ACTUAL_OVER_DECLARED * declared_rows)


def cells_of(site: Site, purpose: Purpose) -> tuple[str, ...]:
    """The cells that a release of that purpose reads, sorted."""
    use = "train" if purpose in TRAINING else "test"
    return tuple(sorted(c.cell for c in site.terms.cells if c.use in (use, "both")))


def noise_shares(spec: ExperimentSpec) -> int:
    """Sites over which a release's noise is divided: the honest ones in the smallest sum.

    A sum has at least the quorum, which is at least the threshold t of all sites; so t - c of it are
    honest where c collude.
    """
    masked = spec.federation.secure_aggregation
    if masked is None or masked.noise == "local":
        return 1
    return spec.federation.quorum - masked.colluders


def _refuse_auto(spec: ExperimentSpec) -> None:
    """What is proposed holds numbers only, so that its hash says what happens."""
    if spec.auto:
        raise PlanRefused(spec.auto[0], "it is `auto`, and a proposed spec gives the number")


def _calibrate_all(spec: ExperimentSpec, sites: Sequence[Site]) -> list[Mapping[Purpose, int]]:
    """The noise of every site. What is shared is one noise for all: that of the strictest promise."""
    noises: list[Mapping[Purpose, int]] = [_calibrate(spec, site) for site in sites]
    if noise_shares(spec) == 1:
        return noises
    most: dict[Purpose, int] = {
        purpose: max(noise[purpose] for noise in noises)
        for purpose in noises[0]
        if purpose in SHARED
    }
    if any(share_sd(noise, noise_shares(spec)) < LEAST_SHARE_SD for noise in most.values()):
        raise PlanRefused(
            "federation.secure_aggregation",
            "the noise is too small to be divided on the grid of 2^-20; raise the clip norm",
        )
    return [{**noise, **most} for noise in noises]


def _calibrate(spec: ExperimentSpec, site: Site) -> dict[Purpose, int]:
    """Choose noise for every release of a site: metrics, then baseline, then training."""
    name = site.terms.dataset
    noises: dict[Purpose, int] = {}
    metrics, baseline = spec.privacy.metrics, spec.privacy.baseline
    measured: tuple[Purpose, ...] = ()
    if metrics is not None:
        measured = ("evaluate", "baseline_evaluate") if baseline else ("evaluate",)
        noise = math.ceil(metrics.noise_sd * GRID)
        for cell in cells_of(site, "evaluate"):
            limit = target_limit(spec, site.cells[cell])
            shared = cell in cells_of(site, "train")
            part = Fraction(metrics.share) if shared else Fraction(1)
            noise = max(noise, _plan(name, _scaled(limit, part), (), GRID, len(measured)))
        noises.update(dict.fromkeys(measured, noise))
    sensitivity, sampling = clip_units(spec), sampling_units(spec)
    training_steps = (spec.rounds + spec.federation.spare_rounds) * steps_per_round(spec)
    for cell in cells_of(site, "train"):
        limit = target_limit(spec, site.cells[cell])
        fixed = [
            step_charge(Gaussian(GRID, noises[purpose]), limit.order_centi)
            for purpose in measured
            if cell in cells_of(site, purpose)
        ]
        if baseline is not None:
            left = _less(limit, fixed)
            allowed = _scaled(left, Fraction(baseline.share))
            own = _plan(name, allowed, (), sensitivity, baseline.rounds)
            own = max(own, noises.get("baseline_train", 0))
            noises["baseline_train"] = own
            step = step_charge(Gaussian(sensitivity, own), limit.order_centi)
            fixed.append(step.times(baseline.rounds))
        chosen = _plan(name, limit, fixed, sensitivity, training_steps, sampling)
        noises["train"] = max(chosen, noises.get("train", 0))
    return noises


def _assemble(
    spec: ExperimentSpec,
    sites: Sequence[Site],
    initial_model: BlobRef,
    noises: Sequence[Mapping[Purpose, int]],
) -> Plan:
    """Build the plan around given noise: everything in it but the noise follows from the spec."""
    _check_agreement(spec, sites)
    tree = network_of(spec, sites[0].schema)
    metrics = metric_layout(spec)
    parameters = parameter_count(tree)
    masked = spec.federation.secure_aggregation
    plan = Plan(
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
    except ValidationError as error:
        raise PlanRefused(where, f"a number is out of range: {explain(error)}") from None
    except PrivacyError as error:
        raise PlanRefused(where, str(error)) from None


def _assemble_site(
    spec: ExperimentSpec, site: Site, parameters: int, noises: Mapping[Purpose, int]
) -> SitePlan:
    sensitivity = clip_units(spec)
    steps: dict[Purpose, int] = {
        "train": (spec.rounds + spec.federation.spare_rounds) * steps_per_round(spec)
    }
    if spec.privacy.metrics is not None:
        steps["evaluate"] = 1
    if spec.privacy.baseline is not None:
        steps["baseline_train"] = spec.privacy.baseline.rounds
        steps["baseline_evaluate"] = 1
    releases = tuple(
        _release(
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
        limits = site_limits(declared, site.schema.declared_rows)
        clip_norm(network_of(spec, site.schema), sensitivity, limits)  # refuses what rounding eats
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


def _plan(
    dataset: str,
    limit: Limit,
    fixed: Sequence[Charge],
    sensitivity: int,
    steps: int,
    sampling: int = FULL_BATCH,
) -> int:
    try:
        return plan_noise(limit, fixed, sensitivity, steps, sampling)
    except PrivacyError as error:
        raise PlanRefused(f"dataset {dataset}", str(error)) from None


def _scaled(limit: Limit, part: Fraction) -> Limit:
    return Limit(int(limit.g_max * part), int(limit.r_max * part), limit.order_centi)


def _less(limit: Limit, charges: Sequence[Charge]) -> Limit:
    g = limit.g_max - sum(c.g for c in charges)
    r = limit.r_max - sum(c.r for c in charges)
    return Limit(max(0, g), max(0, r), limit.order_centi)


def _check_target(spec: ExperimentSpec, schema: Schema) -> None:
    task, name = spec.task, schema.dataset
    column = schema.column(task.target)
    if column is None or isinstance(column, PatientColumn):
        raise PlanRefused("task.target", f"{task.target} is not a column of {name} to learn")
    wants_number = isinstance(task, RegressionTask) or (
        isinstance(task, BinaryTask) and task.above is not None
    )
    if wants_number != isinstance(column, NumberColumn):
        kind = "number" if wants_number else "category"
        raise PlanRefused("task.target", f"{task.target} of {name} is not a {kind} column")
    if isinstance(column, CategoryColumn):
        asked: tuple[str, ...] = ()
        if isinstance(task, BinaryTask):
            asked = task.positive
        elif isinstance(task, MulticlassTask):
            asked = task.classes
        known = {normal_label(value) for value in column.values}
        unknown = [value for value in asked if normal_label(value) not in known]
        if unknown:
            raise PlanRefused(
                "task", f"{unknown[0]!r} is not a value of {task.target} in {name}; "
                f"there are: {', '.join(column.values)}"
            )  # fmt: skip


def _check_agreement(spec: ExperimentSpec, sites: Sequence[Site]) -> None:
    """Every site must encode the features and the target in the same way."""
    first = sites[0]
    network_of(spec, first.schema)
    for site in sites[1:]:
        network_of(spec, site.schema)
        for name in (*spec.features, spec.task.target):
            a, b = first.schema.column(name), site.schema.column(name)
            if _meaning(a) != _meaning(b):
                raise PlanRefused(
                    "features",
                    f"column {name} is declared differently by {first.terms.dataset} and "
                    f"{site.terms.dataset}; the hospitals must agree on type, bounds and values",
                )


def _meaning(column: object) -> object:
    if isinstance(column, NumberColumn):
        return ("number", column.low, column.high, column.filled, column.missing, column.unit)
    if isinstance(column, CategoryColumn):
        codes = tuple(map(normal_label, column.values)), tuple(map(normal_label, column.coded))
        return ("category", *codes, column.missing)
    return column


def _check_noise(where: str, wanted: Mapping[Purpose, int], stated: SitePlan) -> dict[Purpose, int]:
    """The noise that a site's releases state, where it is what the spec implies."""
    if sorted(release.purpose for release in stated.releases) != sorted(wanted):
        raise PlanRefused(where, f"its releases are not {', '.join(sorted(wanted))}")
    noises = {release.purpose: release.noise_sd for release in stated.releases}
    for purpose, noise in wanted.items():
        if abs(noises[purpose] - noise) > max(Fraction(1), _NOISE_TOLERANCE * noise):
            raise PlanRefused(
                f"{where}.{purpose}",
                f"it states noise of {noises[purpose]}, but the target epsilon gives {noise}",
            )
    return noises


def _compare_site(where: str, wanted: SitePlan, stated: SitePlan) -> None:
    if abs(wanted.epsilon_micro - stated.epsilon_micro) > _EPSILON_TOLERANCE_MICRO:
        raise PlanRefused(
            f"{where}.epsilon_micro",
            f"it states {stated.epsilon_micro}, but its noise gives {wanted.epsilon_micro}",
        )
    for a, b in zip(wanted.releases, stated.releases, strict=True):
        if [c.cell for c in a.charges] != [c.cell for c in b.charges]:
            raise PlanRefused(
                f"{where}.{b.purpose}", "it does not charge the cells that it reads, in their order"
            )
        for mine, theirs in zip(a.charges, b.charges, strict=True):
            close = abs(mine.r - theirs.r) <= max(Fraction(2), _TOLERANCE * mine.r)
            if mine.g != theirs.g or not close:
                raise PlanRefused(
                    f"{where}.{b.purpose}",
                    f"its charge to {theirs.cell} is not what its noise costs",
                )
        if a.model_copy(update={"charges": b.charges}) != b:
            raise PlanRefused(f"{where}.{b.purpose}", "it is not the release that the spec implies")
    same = {"releases": stated.releases, "epsilon_micro": stated.epsilon_micro}
    if wanted.model_copy(update=same) != stated:
        raise PlanRefused(where, "weight, divisor, bound or registration are not the spec's")


def _check_target_epsilon(where: str, spec: ExperimentSpec, site: Site, stated: SitePlan) -> None:
    for charge in totals(stated.releases):
        limit = target_limit(spec, site.cells[charge.cell])
        most = 1 + _TOLERANCE
        if charge.g > most * limit.g_max and charge.r > most * limit.r_max:
            raise PlanRefused(
                where, f"it costs {charge.cell} more than the target epsilon {spec.privacy.epsilon}"
            )
