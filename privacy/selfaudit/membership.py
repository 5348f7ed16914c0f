"""T4: how well somebody who sees only a released model tells who was in its training data.

``likelihood_ratios`` is LiRA (Carlini et al. 2022, arXiv:2112.03570), online form: for each unit the attacker
knows how sure shadow models with it and without it are, as two normal laws with one common variance, and
scores a target model by the ratio of the two densities. ``rates`` are what is reported of such scores: true
positives at small false positive rates, and the area under the curve, with a jackknife interval over the target
models, because units of one model share its luck.

Beside them stands what the proof allows any attacker who sees everything that was released: Phi(Phi^-1(a) +
mu) true positives at false positive rate a, and an area of Phi(mu / sqrt 2) (Dong, Roth & Su 2022). An attack
that stays far below proves nothing; one above it disproves the proof.

With few reference models a mean of either side may rest on one of them, or on none; ``privacy.selfaudit.population``
is an attack for that.

Statistics only: this module never sees a row, and its callers only synthetic or public ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats
from scipy.special import ndtr

from privacy.curves import true_positive_rate
from privacy.selfaudit.references import Bools, Floats, mean_of, references, require_models

FALSE_POSITIVE_RATES: Final = (0.001, 0.01)
_LEAST_VARIANCE: Final = 1e-12

Figure = Callable[[Floats, Floats], float]


@dataclass(frozen=True, slots=True)
class Rate:
    """A figure of an attack beside the most that the proof allows.

    Attributes:
        name: ``auc``, or ``tpr`` at a false positive rate.
        false_positive_rate: of a ``tpr``; None for the area.
        measured, low, high: the figure and its interval.
        bound: the most that any attacker reaches.
    """

    name: str
    false_positive_rate: float | None
    measured: float
    low: float
    high: float
    bound: float


def likelihood_ratios(signals: Floats, members: Bools, count: int | None = None) -> Floats:
    """Score every model's every unit by other models.

    Args:
        signals: how sure model k is of unit i, any real scale on which its law is near normal; [k, i].
        members: whether unit i trained model k; [k, i].
        count: reference models of each target; None for all others.

    Returns:
        log p(signal | in) - log p(signal | out), [k, i]; NaN where the others hold no unit on one side.

    Raises:
        InvalidParameter: shapes differ, there are too few models, or a signal is no number.
    """
    require_models(signals, members)
    models = len(signals)
    several = references(models, count)
    inside, outside = mean_of(several, signals, members), mean_of(several, signals, ~members)
    spread = np.full((models, 1), _pooled_variance(signals, members))
    if count is not None:
        for target in range(models):
            ring = (target + 1 + np.arange(several)) % models
            spread[target] = _pooled_variance(signals[ring], members[ring])
    with np.errstate(invalid="ignore"):
        return ((signals - outside) ** 2 - (signals - inside) ** 2) / (2.0 * spread)


def rates(scores: Floats, members: Bools, mu: float, alpha: float) -> tuple[Rate, ...]:
    """Read an attack's scores: the area, and true positives at ``FALSE_POSITIVE_RATES``.

    A threshold is the k-th largest score of units outside, k = floor(rate (n + 1)), and counts what is
    strictly above: so the expected share of false positives is below the rate, never above. A rate too small for n is
    left out.

    Args:
        scores: of an attack, higher for members, [models, units]; NaN where it knows nothing.
        members: as it took them, for the same units.
        mu: what the proof says of all that was released together.
        alpha: of the two-sided interval.
    """
    require_models(np.nan_to_num(scores), members)
    known = ~np.isnan(scores)
    found = [_jackknife(scores, members, known, _area, alpha)]
    listed = [Rate("auc", None, *found[0], float(ndtr(mu / math.sqrt(2.0))))]
    least_outside = int((known & ~members).sum() - (known & ~members).sum(axis=1).max())
    for wanted in FALSE_POSITIVE_RATES:
        if math.floor(wanted * (least_outside + 1)) < 1:
            continue

        def at(inside: Floats, outside: Floats, rate: float = wanted) -> float:
            allowed = math.floor(rate * (outside.size + 1))
            threshold = np.partition(outside, outside.size - allowed)[outside.size - allowed]
            return float((inside > threshold).mean())

        figure = _jackknife(scores, members, known, at, alpha)
        listed.append(Rate("tpr", wanted, *figure, true_positive_rate(mu, wanted)))
    return tuple(listed)


def _area(inside: Floats, outside: Floats) -> float:
    """Mann-Whitney: the chance that a unit inside scores higher, ties by half."""
    ordered = np.sort(outside)
    below = np.searchsorted(ordered, inside, side="left")
    equal = np.searchsorted(ordered, inside, side="right") - below
    return float((below + equal / 2.0).mean() / outside.size)


def _jackknife(
    scores: Floats, members: Bools, known: Bools, figure: Figure, alpha: float
) -> tuple[float, float, float]:
    """A figure over all models, and its t interval from leaving one model out at a time."""
    models = len(scores)

    def of(chosen: Bools) -> float:
        part, who, seen = scores[chosen], members[chosen], known[chosen]
        return float(figure(part[seen & who], part[seen & ~who]))

    whole = of(np.ones(models, dtype=bool))
    left = np.array([of(np.arange(models) != out) for out in range(models)])
    error = math.sqrt((models - 1) / models * float(((left - left.mean()) ** 2).sum()))
    reach = float(stats.t.ppf(1.0 - alpha / 2.0, models - 1)) * error
    return whole, max(0.0, whole - reach), min(1.0, whole + reach)


def _pooled_variance(signals: Floats, members: Bools) -> float:
    """One variance for all: of signals about the mean of their own unit and side."""
    squares, freedom = 0.0, 0
    for side in (members, ~members):
        count = side.sum(axis=0)
        mean = (signals * side).sum(axis=0) / np.maximum(1, count)
        squares += float((((signals - mean) ** 2) * side).sum())
        freedom += int(np.maximum(0, count - 1).sum())
    return max(_LEAST_VARIANCE, squares / max(1, freedom))
