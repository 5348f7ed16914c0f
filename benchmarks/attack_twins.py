"""What two attacks on twins of a released model see, with many shadow models and with few: a part of ``benchmarks.attack``.

One set of shadows serves both attacks, each target asked once with all other shadows as references and once
with ``--references`` of them. Beside the right mechanism stands one with hardly any noise, where an attack that
works must see more than the proof allows; so a low figure on the right one is not the attack's own weakness alone.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from consilium.actions.audit.attack_target import Target
from ledger.experiment.noise_shares import site_in_round
from node.training.attack.mechanism import AuditedSite, Noise
from node.training.attack.shadows import likelihoods, made_up_pools, population, train_shadows
from privacy.selfaudit.attacks import ALPHA
from privacy.selfaudit.membership import FALSE_POSITIVE_RATES, likelihood_ratios, rates
from privacy.selfaudit.population import population_ratios
from privacy.selfaudit.references import Bools, Floats

_RATES = 1 + len(FALSE_POSITIVE_RATES)


def twins(target: Target, fault: str, noise: Noise, shadows: int, few: int) -> list[dict[str, Any]]:
    """Attack twins of an experiment's model.

    Args:
        target: whose model.
        fault: of the noise, in words.
        noise: opens the generators.
        shadows: models to train.
        few: references of each target, beside all.

    Returns:
        One finding for each attack and number of references.
    """
    begin = time.perf_counter()
    sites = [
        AuditedSite(target.spec, schema, site_in_round(target.plan, site))
        for schema, site in zip(target.schemas, target.plan.sites, strict=True)
    ]
    pools = made_up_pools(sites)
    apart = population(pools)
    signals, members = train_shadows(
        sites, pools, target.start, target.plan.rounds, shadows, noise, apart=apart
    )
    seconds = round(time.perf_counter() - begin, 1)
    chances, asked = likelihoods(target.spec, signals), members[:, ~apart]
    mu = max(target.proven(site).mu for site in target.plan.sites)
    listed = []
    for count in (None, few):
        for attack, scores in (
            ("LiRA", likelihood_ratios(signals[:, ~apart], asked, count)),
            ("RMIA", population_ratios(chances, members, apart, count)),
        ):
            found = {"attack": attack, "fault": fault, "shadows": shadows}
            found |= {"references": count or shadows - 1, "mu_proven": mu, "seconds": seconds}
            listed.append(found | _figures(scores, asked, mu))
    return listed


def _figures(scores: Floats, members: Bools, mu: float) -> dict[str, Any]:
    shown = rates(scores, members, mu, ALPHA / _RATES)
    return {
        "units": int(members.shape[1]),
        "unknown": round(float(np.isnan(scores).mean()), 4),
        "alarm": any(rate.low > rate.bound for rate in shown),
        "rates": [asdict(rate) for rate in shown],
    }
