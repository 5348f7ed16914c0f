"""What a plan proves of the training that attacks are on: computed from its integers, and never taken from a finding.

Spare rounds are left out: an attack plays the rounds that a model is made of. A plan that accounts for each patient
alone charges no run as a whole, so nothing is proved of one.
"""

from __future__ import annotations

import math

from ledger.entries.operations.plans import Plan, Release, SitePlan
from privacy.calibrate import compose_epsilon
from privacy.events import CHARGE_UNIT, Gaussian


def training_of(site: SitePlan) -> Release | None:
    """What a site releases in training; None where it trains nothing."""
    return next((release for release in site.releases if release.purpose == "train"), None)


def is_accounted_alone(site: SitePlan) -> bool:
    """Whether a site keeps an account for each patient, so that no run is charged as a whole."""
    release = training_of(site)
    return release is not None and release.engine == "individual"


def proven_mu(plan: Plan, release: Release) -> float:
    """Mu of a site's rounds of training: what lane G charges its worst cell for them."""
    step = max(charge.g for charge in release.charges)
    return math.sqrt(step * plan.rounds * plan.steps_per_round / CHARGE_UNIT)


def proven_epsilon(plan: Plan, release: Release, delta: float) -> float:
    """Epsilon of a site's rounds of training at a delta, by the mechanism's parameters."""
    steps = plan.rounds * plan.steps_per_round
    event = Gaussian(release.sensitivity, release.noise_sd, steps, release.sampling)
    return compose_epsilon([event], delta)
