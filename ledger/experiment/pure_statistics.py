"""Statistics by mechanisms of pure epsilon: how an epsilon is divided, what it costs, how quantiles are chosen.

Half of the epsilon goes to counts and sums (one vector with discrete Laplace noise), half in equal parts to the
quantiles of the number columns; all of it to the counts where no number column is asked. A quantile is the
declared edge of a bin whose score has the largest noisy value: score_j = -|4 S_j - m S|, S_j patients below edge
j and S with a value, for the quarter m of 4. One patient moves a score by at most max(m, 4 - m), so noise of scale
2 max(m, 4 - m) / epsilon on every score makes the place of the largest epsilon-private (report noisy
max, Dwork & Roth 2014, section 3.3; with integers a tie goes to the lower edge, for all neighbours alike).

Everything about it but the noise is a function of the question: which draws are made, and how many.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from ledger.entries.operations.datasets import CellCharge, CellRegistered
from ledger.entries.operations.statistics import PurePart, StatisticsReserved
from ledger.errors import PlanRefused
from ledger.experiment.schema import NumberColumn
from ledger.experiment.statistics import QUANTILES, Shape, charges_of
from privacy.errors import PrivacyError
from privacy.events import GRID
from privacy.pure import MAX_EPSILON_MICRO, MICRO, Uniform, laplace_integers, pure_charge

Integers = npt.NDArray[np.int64]
_QUARTERS = 4


def divide_epsilon(epsilon: Decimal, shape: Shape) -> tuple[PurePart, ...]:
    """The parts of a whole epsilon.

    Raises:
        PlanRefused: it is too small to be divided, or above 10.
    """
    micro = int(epsilon * MICRO)
    each = micro // 2 // shape.chosen if shape.chosen else 0
    counts = micro - each * shape.chosen
    if counts < 1 or micro > MAX_EPSILON_MICRO or (shape.chosen and not each):
        raise PlanRefused("epsilon", f"{epsilon} cannot be divided; give one from 0.01 to 10")
    laplace = PurePart(mechanism="laplace", epsilon_micro=counts, count=1)
    if not shape.chosen:
        return (laplace,)
    return (laplace, PurePart(mechanism="noisy_max", epsilon_micro=each, count=shape.chosen))


def scale_for(sensitivity: int, epsilon_micro: int) -> int:
    """Least Laplace scale with which a change of at most ``sensitivity`` costs at most epsilon."""
    return -(-sensitivity * MICRO // epsilon_micro)


def pure_charges(
    cells: Mapping[str, CellRegistered], parts: tuple[PurePart, ...]
) -> tuple[CellCharge, ...]:
    """What all parts together cost each cell, cells in sorted order."""
    found = []
    for name, terms in sorted(cells.items()):
        g = r = 0
        for part in parts:
            charge = pure_charge(part.epsilon_micro, terms.limit.order_centi)
            g, r = g + part.count * charge.g, r + part.count * charge.r
        found.append(CellCharge(cell=name, g=g, r=r))
    return tuple(found)


def least_charges(
    terms: StatisticsReserved, cells: Mapping[str, CellRegistered]
) -> tuple[CellCharge, ...]:
    """What a permission's own parameters cost each cell, whatever it states."""
    if terms.pure:
        return pure_charges(cells, terms.pure)
    return charges_of(cells, terms.sensitivity, terms.noise_sd)


def shortfall(
    shape: Shape, terms: StatisticsReserved, cells: Mapping[str, CellRegistered]
) -> str | None:
    """Why a permission does not pay for what its question asks, or None where it does.

    The curves of lane R are compared within what two machines may make of one.
    """
    if shape.size != terms.size or shape.pure != bool(terms.pure):
        return "its question is not what was paid for"
    if terms.sensitivity < shape.sensitivity:
        return (
            f"it states that a patient changes {terms.sensitivity} at most, but its question gives "
            f"{shape.sensitivity}"
        )
    if terms.pure:
        chosen = sum(part.count for part in terms.pure if part.mechanism == "noisy_max")
        laplace = terms.pure[0]
        if chosen != shape.chosen:
            return f"it pays for {chosen} quantiles, and its question has {shape.chosen}"
        if terms.noise_sd < scale_for(terms.sensitivity, laplace.epsilon_micro):
            return "its Laplace noise is less than what its epsilon needs"
    try:
        due = least_charges(terms, cells)
    except PrivacyError as error:
        return str(error)
    for stated, least in zip(terms.charges, due, strict=True):
        if stated.g < least.g - max(2, least.g // 10**6) or stated.r < least.r - max(
            2, least.r // 10**6
        ):
            return (
                f"it charges {stated.g}, {stated.r} to {stated.cell}, but its mechanisms cost "
                f"{least.g}, {least.r}"
            )
    return None


def release_purely(
    rng: Uniform, shape: Shape, terms: StatisticsReserved, exact: Integers
) -> Integers:
    """Counts and sums with Laplace noise, then the place of each quantile.

    Args:
        rng: a fresh source of this release alone.
        shape: of the question.
        terms: what was paid for.
        exact: int64 [shape.counted], grid units; never released itself.

    Returns:
        int64 [shape.size].
    """
    noisy = exact + laplace_integers(rng, terms.noise_sd, shape.counted)
    places = []
    for part in shape.parts:
        if not isinstance(part.column, NumberColumn):
            continue
        present = exact[part.start : part.start + part.counts - 1]
        below = np.concatenate([[0], np.cumsum(present)]).astype(np.int64)
        for quantile in QUANTILES:
            m = int(quantile * _QUARTERS)
            scores = -np.abs(_QUARTERS * below - m * below[-1])
            moved = max(m, _QUARTERS - m) * GRID
            scale = scale_for(2 * moved, terms.pure[1].epsilon_micro)
            places.append(int(np.argmax(scores + laplace_integers(rng, scale, len(scores)))))
    return np.concatenate([noisy, np.array(places, dtype=np.int64)])
