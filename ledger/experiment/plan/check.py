"""What a node and an auditor run on a proposed plan: compile it anew, and compare.

The noise is chosen anew and the plan rebuilt around the noise that it states: the same integers, within
what two machines' floating-point functions may differ by, and no more than the target epsilon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from ledger.entries.operations.plans import Plan, Purpose, SitePlan
from ledger.errors import PlanRefused
from ledger.experiment.plan.calibration import calibrate, target_limit
from ledger.experiment.plan.compilation import assemble
from ledger.experiment.plan.quantities import refuse_auto
from ledger.experiment.plan.sites import Site, narrowed
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.value import replace
from ledger.rules.experiments import totals

_TOLERANCE = Fraction(1, 10**6)
_NOISE_TOLERANCE = Fraction(1, 10**7)
_EPSILON_TOLERANCE_MICRO = 5


def check_plan(spec: ExperimentSpec, sites: Sequence[Site], plan: Plan) -> None:
    """Compile a plan anew, and compare.

    Args:
        spec: the experiment's.
        sites: its datasets as registered when the plan was made, in the spec's order.
        plan: as proposed.

    Raises:
        PlanRefused: it is not what the spec implies; ``where`` names the part.
    """
    refuse_auto(spec)
    named = [s.terms.dataset for s in sites]
    if named != list(spec.federation.datasets) or named != [s.dataset for s in plan.sites]:
        raise PlanRefused("plan.sites", "its datasets are not those of the spec, in their order")
    sites = [narrowed(spec, site) for site in sites]
    noises = [
        _check_noise(f"plan.sites.{stated.dataset}", wanted, stated)
        for wanted, stated in zip(calibrate(spec, sites), plan.sites, strict=True)
    ]
    expected = assemble(spec, sites, plan.initial_model, noises)
    for site, wanted, stated in zip(sites, expected.sites, plan.sites, strict=True):
        where = f"plan.sites.{stated.dataset}"
        _compare_site(where, wanted, stated)
        _check_target_epsilon(where, spec, site, stated)
    if replace(expected, sites=plan.sites) != plan:
        different = next(
            name
            for name in type(plan).__struct_fields__
            if name != "sites" and getattr(expected, name) != getattr(plan, name)
        )
        raise PlanRefused(f"plan.{different}", "it is not what the spec says")


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
        if replace(a, charges=b.charges) != b:
            raise PlanRefused(f"{where}.{b.purpose}", "it is not the release that the spec implies")
    same = replace(wanted, releases=stated.releases, epsilon_micro=stated.epsilon_micro)
    if same != stated:
        raise PlanRefused(where, "weight, divisor, bound or registration are not the spec's")


def _check_target_epsilon(where: str, spec: ExperimentSpec, site: Site, stated: SitePlan) -> None:
    for charge in totals(stated.releases):
        limit = target_limit(spec, site.cells[charge.cell])
        most = 1 + _TOLERANCE
        if charge.g > most * limit.g_max and charge.r > most * limit.r_max:
            raise PlanRefused(
                where, f"it costs {charge.cell} more than the target epsilon {spec.privacy.epsilon}"
            )
