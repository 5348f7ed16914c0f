"""The noise of a plan: for every cell that is read, the least that keeps the whole run at its target.

Training, metrics, baseline and spare rounds together cost the target epsilon in the cell's own filter
(half of its lifetime delta). Metrics get a fixed share first where they read the same cell as training.
Floating-point searches end in integers here; two machines may differ by a unit, which the check allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from ledger.entries.operations.datasets import CellRegistered
from ledger.entries.operations.plans import Purpose
from ledger.errors import PlanRefused
from ledger.experiment.noise_shares import LEAST_SHARE_SD, SHARED, share_sd
from ledger.experiment.plan.individual import check_one_by_one, steps_at_full_length
from ledger.experiment.plan.quantities import (
    clip_units,
    noise_shares,
    sampling_units,
)
from ledger.experiment.plan.sites import Site, cells_of
from ledger.experiment.spec import ExperimentSpec
from privacy.calibrate import plan_noise
from privacy.errors import PrivacyError
from privacy.events import FULL_BATCH, GRID, Gaussian
from privacy.filters import Charge, Limit, part_of_limit, step_charge


def target_limit(spec: ExperimentSpec, cell: CellRegistered) -> Limit:
    """What the whole run may cost one cell: the target epsilon in the cell's own lanes."""
    epsilon = float(spec.privacy.epsilon)
    try:
        return part_of_limit(epsilon, cell.delta_e15 / 1e15, cell.limit.order_centi)
    except PrivacyError as error:
        raise PlanRefused("privacy.epsilon", str(error)) from None


def calibrate(spec: ExperimentSpec, sites: Sequence[Site]) -> list[Mapping[Purpose, int]]:
    """The noise of every site. What is shared is one noise for all: that of the strictest promise."""
    check_one_by_one(spec, sites)
    noises: list[Mapping[Purpose, int]] = [_calibrate_site(spec, site) for site in sites]
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


def _calibrate_site(spec: ExperimentSpec, site: Site) -> dict[Purpose, int]:
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
    training_steps = steps_at_full_length(spec, site)
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
