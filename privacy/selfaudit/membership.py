"""T4: how well somebody who sees only a released model tells who was in its training data.

``likelihood_ratios`` is LiRA (Carlini et al. 2022, arXiv:2112.03570), online form: for each unit the attacker
knows how sure shadow models with it and without it are, as two normal laws with one common variance, and
scores a target model by the ratio of the two densities. ``rates`` are what is reported of such scores: true
positives at small false positive rates, and the area under the curve, with a jackknife interval over the target
models, because units of one model share its luck.

Beside them stands what the proof allows any attacker who sees everything that was released: Phi(Phi^-1(a) +
mu) true positives at false positive rate a, and an area of Phi(mu / sqrt 2) (Dong, Roth & Su 2022). An attack
that stays far below proves nothing; one above it disproves the proof.

Statistics only: this module never sees a row, and its callers only synthetic or public ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import ndtr

from privacy.curves import true_positive_rate
from privacy.errors import InvalidParameter

FALSE_POSITIVE_RATES: Final = (0.001, 0.01)
LEAST_MODELS: Final = 8
_LEAST_VARIANCE: Final = 1e-12

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
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


def likelihood_ratios(signals: Floats, members: Bools) -> Floats:
    """Score every model's every unit by all other models.

    Args:
        signals: how sure model k is of unit i, any real scale on which its law is near normal; [k, i].
        members: whether unit i trained model k; [k, i].

    Returns:
        log p(signal | in) - log p(signal | out), [k, i]; NaN where the others hold no unit on one side.

    Raises:
        InvalidParameter: shapes differ, there are too few models, or a signal is no number.
    """
    _require_models(signals, members)
    inside, outside = _others(signals, members), _others(signals, ~members)
    spread = _pooled_variance(signals, members)
    with np.errstate(invalid="ignore"):
        return ((signals - outside) ** 2 - (signals - inside) ** 2) / (2.0 * spread)


def rates(scores: Floats, members: Bools, mu: float, alpha: float) -> tuple[Rate, ...]:
    """Read an attack's scores: the area, and true positives at ``FALSE_POSITIVE_RATES``.

    A threshold is the k-th largest score of units outside, k = floor(rate (n + 1)), and counts what is
    strictly above: so the expected share of false positives is below the rate, never above. A rate too small for n is
    left out.

    Args:
        scores: as ``likelihood_ratios`` gave them, [models, units].
        members: as it took them.
        mu: what the proof says of all that was released together.
        alpha: of the two-sided interval.
    """
    _require_models(np.nan_to_num(scores), members)
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


def _others(signals: Floats, members: Bools) -> Floats:
    """Mean signal of the other models on one side; NaN where there is none."""
    count = members.sum(axis=0) - members
    total = (signals * members).sum(axis=0) - signals * members
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _pooled_variance(signals: Floats, members: Bools) -> float:
    """One variance for all: of signals about the mean of their own unit and side."""
    squares, freedom = 0.0, 0
    for side in (members, ~members):
        count = side.sum(axis=0)
        mean = (signals * side).sum(axis=0) / np.maximum(1, count)
        squares += float((((signals - mean) ** 2) * side).sum())
        freedom += int(np.maximum(0, count - 1).sum())
    return max(_LEAST_VARIANCE, squares / max(1, freedom))


def _require_models(signals: Floats, members: Bools) -> None:
    if signals.ndim != 2 or signals.shape != members.shape or len(signals) < LEAST_MODELS:
        raise InvalidParameter(
            f"signals {signals.shape} and members {members.shape} must be [models, units] with at "
            f"least {LEAST_MODELS} models"
        )
    if not np.isfinite(signals).all():
        raise InvalidParameter("a signal is not a finite number")
    if not (members.any() and (~members).any()):
        raise InvalidParameter("an attack needs units inside and outside")
