"""Which shadow models an attacker may look at when one of them is the target: all others, or a few.

Whoever attacks with few models has few, whatever else was trained: a score that used more would say what a
stronger attacker sees. Each target has the models after it, around the ring, so that all serve alike often.

Statistics only: this module never sees a row.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.errors import InvalidParameter

LEAST_MODELS: Final = 8

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def references(models: int, count: int | None) -> int:
    """How many models the attacker of each target has.

    Args:
        models: all, targets and references.
        count: as asked for; None for all others.

    Raises:
        InvalidParameter: more than there are other models, or none.
    """
    several = models - 1 if count is None else count
    if not 1 <= several < models:
        raise InvalidParameter(
            f"{several} reference models: an attack on {models} models has 1 to {models - 1}"
        )
    return several


def mean_of(several: int, values: Floats, counted: Bools) -> Floats:
    """Mean of each unit's values in a target's reference models that count; NaN where there is none.

    Args:
        several: reference models of each target, as ``references`` gave them.
        values: of every model and unit, [model, unit].
        counted: which of them count, [model, unit].

    Returns:
        [target, unit].
    """
    count = _around(several, counted.astype(np.float64))
    total = _around(several, np.where(counted, values, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan)


def require_models(signals: Floats, members: Bools) -> None:
    """See that signals and membership belong together.

    Raises:
        InvalidParameter: shapes differ, there are too few models, or a signal is no number.
    """
    if signals.ndim != 2 or signals.shape != members.shape or len(signals) < LEAST_MODELS:
        raise InvalidParameter(
            f"signals {signals.shape} and members {members.shape} must be [models, units] with at "
            f"least {LEAST_MODELS} models"
        )
    if not np.isfinite(signals).all():
        raise InvalidParameter("a signal is not a finite number")
    if not (members.any() and (~members).any()):
        raise InvalidParameter("an attack needs units inside and outside")


def _around(several: int, values: Floats) -> Floats:
    """Sums over each model's next ``several`` of the ring."""
    sums = np.concatenate([values, values]).cumsum(axis=0)
    around: Floats = sums[several : several + len(values)] - sums[: len(values)]
    return around
