"""T4 by a population: a unit is a member if the model fits it better than it fits people like it.

``population_ratios`` is RMIA (Zarifzadeh, Liu & Shokri 2024, arXiv:2312.03262), its offline form: the reference
models of an attacker never held the unit. A unit x is compared with each z of a population that no model held:

    LR(x, z) = (Pr(x|model) / Pr(x)) / (Pr(z|model) / Pr(z)),   score(x) = share of z with LR(x, z) > gamma,

Pr(x) = ((1 + a) mean of Pr(x|reference without x) + (1 - a)) / 2, as the paper estimates it: with a below 1, as
if the models with x gave it (1 - a) more of what is left to 1. So a shadow model is needed to say how hard x is
and none to say what x's presence does, which is why few of them go further than in a likelihood-ratio attack.

``GAMMA`` is 1: a private model moves Pr(x|model) by little, and no ratio of two reaches the paper's 2. ``A`` is 1
for the same reason. Equal shares are told apart by the ratio of x alone.

Statistics only: this module never sees a row, and its callers only synthetic or public ones.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from privacy.errors import InvalidParameter
from privacy.selfaudit.references import Bools, Floats, mean_of, references, require_models

GAMMA: Final = 1.0
A: Final = 1.0


def population_ratios(
    likelihoods: Floats,
    members: Bools,
    population: Bools,
    count: int | None = None,
    a: float = A,
) -> Floats:
    """Score every model's every unit that is not of the population.

    Args:
        likelihoods: Pr of unit i's target under model k, above 0; [k, i].
        members: whether unit i trained model k; [k, i].
        population: units that trained no model; [i].
        count: reference models of each target; None for all others.
        a: of Pr(x), 0 to 1.

    Returns:
        Shares, [k, units that are not of the population]; NaN where no reference is without the unit.

    Raises:
        InvalidParameter: shapes differ, there are too few models, a likelihood is no number above 0, there is no
            population, or a model was trained with a unit of it.
    """
    require_models(likelihoods, members)
    if not (likelihoods > 0.0).all():
        raise InvalidParameter("a likelihood is not above 0")
    if population.shape != members.shape[1:] or not population.any():
        raise InvalidParameter("a population is a part of the units, and not empty")
    if members[:, population].any():
        raise InvalidParameter("a unit of the population trained a model")
    usual = mean_of(references(len(members), count), likelihoods, ~members)
    ratios = likelihoods / (((1.0 + a) * usual + (1.0 - a)) / 2.0)
    asked = ratios[:, ~population]
    others = np.sort(ratios[:, population], axis=1)
    size = others.shape[1]
    scores = np.full(asked.shape, np.nan)
    for model, (own, theirs) in enumerate(zip(asked, others, strict=True)):
        known = ~np.isnan(own)
        below = np.searchsorted(theirs, own[known] / GAMMA, side="left")
        scores[model, known] = (below + own[known] / (1.0 + own[known])) / (size + 1)
    return scores
