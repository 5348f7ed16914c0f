"""Noise that several hospitals add together, each its part of the variance.

With h shares, each site adds rounded Gaussian integers of deviation s, s^2 h >= (noise_sd + 1)^2. A sum
in which h sites are honest then holds noise of variance above noise_sd^2, and is charged for noise_sd.

Why the grid unit above pays for the rounding: by Poisson summation a sum of h rounded Gaussians has, but
for terms below exp(-pi^2 s^2 / 2), the characteristic function of round(N(0, h s^2) + U), U the sum of
h - 1 uniforms on [-1/2, 1/2] that depend on nothing; so the released sum is, within that distance,
post-processing of the Gaussian mechanism with deviation sqrt(h) s. At s >= 2^10 the distance is below
exp(-5,000,000) for each coordinate and step; the unit above noise_sd leaves a part of delta that is
greater by far for every epsilon at which delta itself is not smaller still. So the slack is in the noise and
not in delta, and lane charges are those of noise_sd.

Not covered: sites that add less than their share. That is what the number of colluders is for.
"""

from __future__ import annotations

import math
from typing import Final

from ledger.entries.operations.plans import Plan, Purpose, SitePlan
from ledger.formats.value import replace

SHARED: Final[frozenset[Purpose]] = frozenset({"train", "evaluate", "baseline_evaluate"})
"""Releases that leave as one linear sum. A local baseline's steps stay inside, under full noise."""
LEAST_SHARE_SD: Final = 2**10


def share_sd(noise_sd: int, shares: int) -> int:
    """Deviation that each site adds, grid units: all of it for one share.

    Args:
        noise_sd: deviation that is charged, grid units.
        shares: honest sites that a sum holds at least.
    """
    if shares == 1:
        return noise_sd
    variance = -(-((noise_sd + 1) ** 2) // shares)
    root = math.isqrt(variance)
    return root if root * root == variance else root + 1


def site_in_round(plan: Plan, site: SitePlan) -> SitePlan:
    """A site's part of the plan as its node carries it out: the noise that it adds itself."""
    if plan.noise_shares == 1:
        return site
    releases = tuple(
        replace(release, noise_sd=share_sd(release.noise_sd, plan.noise_shares))
        if release.purpose in SHARED
        else release
        for release in site.releases
    )
    return replace(site, releases=releases)
