"""What each patient still has, and what the patient's actual vector costs: individual accounting.

A Gaussian release of a sum costs patient i only (|v_i| / noise_sd)^2, v_i the patient's own clipped
vector, and not the worst case of the clip norm (Feldman & Zrnic 2021, arXiv:2008.11193). Where every
patient takes part only with a vector that fits into what is left of one's own budget, the sum over all
adaptively chosen releases stays within it, and the whole is mu-GDP for each patient with mu^2 the
budget (the individual GDP filter: Koskela, Tobaben & Honkela 2023, arXiv:2209.15596; the fully adaptive
composition of Gaussian mechanisms under a bound on the sum of mu^2: Smith & Thakurta 2022,
arXiv:2210.17520). For this each patient's vector and budget must be functions of the patient's own rows
and of what was released before, and of nobody else's.

Units: spends and budgets are mu^2 in 2^-40, lengths grid units of 2^-20. Everything is rounded against
the spender: with ``most = allowances(left, ...)`` and an integer vector of at most that length, ``charges``
never exceeds ``left`` and is never below the exact (|v| / noise_sd)^2. All patients are handled alike, in
float64 operations whose number does not depend on values: whoever has nothing left costs the same work.

Not promised: anything about who sees these numbers. They depend on rows and must not leave.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from privacy.errors import InvalidParameter
from privacy.events import CHARGE_UNIT, MAX_LENGTH, require_int
from privacy.filters import g_step

MOST_SPEND: Final = 2**53 - 1
"""Every spend and budget is at most this, so that float64 holds it exactly."""
_DOWN: Final = 1.0 - 2.0**-40
_UP: Final = 1.0 + 2.0**-48

IntVector = npt.NDArray[np.int64]


def allowances(left: IntVector, *, noise_sd: int, sensitivity: int) -> IntVector:
    """To which length each patient's vector may go at most.

    Args:
        left: int64 [m], what remains of each patient's budget; below 0 counts as nothing.
        noise_sd: deviation of the release, 1 .. 2^53-1.
        sensitivity: the clip norm that holds for everybody, 1 .. 2^53-1.

    Returns:
        int64 [m], 0 .. sensitivity; 0 retires the patient from this release.

    Raises:
        InvalidEvent, InvalidParameter: an argument is out of range.
    """
    require_int("noise_sd", noise_sd, 1, MAX_LENGTH)
    require_int("sensitivity", sensitivity, 1, MAX_LENGTH)
    _check(left)
    # Four roundings of 2^-53 each are far less than the factor takes away, 2^-40.
    free = np.maximum(left, 0).astype(np.float64) / CHARGE_UNIT
    lengths = np.floor(np.minimum(np.sqrt(free) * noise_sd * _DOWN, float(sensitivity)))
    allowed: IntVector = lengths.astype(np.int64)
    return allowed


def charges(squares: IntVector, *, noise_sd: int, sensitivity: int) -> IntVector:
    """What each patient's vector costs: (|v| / noise_sd)^2 in units of 2^-40, rounded up.

    Args:
        squares: int64 [m], sums of squares of the integer vectors, each at most sensitivity^2.
        noise_sd: deviation of the release, 1 .. 2^53-1.
        sensitivity: the clip norm, 1 .. 2^31.

    Returns:
        int64 [m], 0 for a vector of zeros, at most ``g_step(sensitivity, noise_sd)``.

    Raises:
        InvalidEvent, InvalidParameter: an argument is out of range.
    """
    require_int("sensitivity", sensitivity, 1, 2**31)
    most = g_step(sensitivity, noise_sd)
    if most > MOST_SPEND:
        raise InvalidParameter(f"noise of {noise_sd} at sensitivity {sensitivity} is too little")
    if len(squares) and not 0 <= int(squares.min()) <= int(squares.max()) <= sensitivity**2:
        raise InvalidParameter("a vector is longer than the sensitivity")
    exact = squares.astype(np.float64) / (float(noise_sd) * float(noise_sd)) * CHARGE_UNIT
    cost: IntVector = np.minimum(np.ceil(exact * _UP), float(most)).astype(np.int64)
    return cost


def _check(spends: IntVector) -> None:
    if len(spends) and int(spends.max()) > MOST_SPEND:
        raise InvalidParameter(f"a budget is above {MOST_SPEND} units of 2^-40")
