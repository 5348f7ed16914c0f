"""A patient whose rows make a computation fail adds zeros, and nobody else's vector is lost with it.

To give up a whole sum over one patient's rows would tell of them: with the patient the sum is zero, without
it is everybody's. So a set of patients over which a computation fails is divided until the failing ones
stand alone, and each of these counts as a vector of zeros, as one with a gradient that is no number does.

Promise, for a computation that adds vectors of patients which depend on nobody else: what is left out follows
from a patient's own rows, so one patient moves the result by at most its vector's length. A failure that
comes with the size of a set (its memory) leaves nobody out. Sums are added in pairs, at most 30 additions
in a row on top of the computation's own.

Not promised: anything about time, nor about a machine that has no memory for one patient: then nobody's
vector is in the sum, noise leaves all the same, and what was reserved for the step stays charged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from ledger.experiment.fast_clip import Limits
from node.data.encode import Examples
from node.errors import JobRefused

FAILURES: Final = (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError)
"""What torch, numpy and Opacus raise over numbers, shapes and the memory that rows need."""

Vector = TypeVar("Vector", bound=npt.NDArray[Any])
Units = npt.NDArray[np.intp]


def refuse_more_than_registered(examples: Examples, limits: Limits) -> None:
    """See that a dataset is within the bounds that its registration was held to, before anything is drawn.

    Found out by a sum, it would tell of the last patient: with that one there would be no sum.

    Args:
        examples: all rows from which batches are drawn.
        limits: public, of what rounding may add.

    Raises:
        JobRefused: there are more.
    """
    if examples.units > limits.patients or len(examples.targets) > limits.rows:
        raise JobRefused(
            "the dataset holds more patients or rows than its registration allows, so the fast engine "
            "cannot bound what rounding adds; register it anew with its declared size"
        )


def sum_without_failing(
    units: Units, sum_of: Callable[[Units], Vector], nothing: Callable[[], Vector]
) -> Vector:
    """Sum the vectors of all units but of those over whose own rows the computation fails.

    Args:
        units: numbers of units, [m].
        sum_of: the sum of some of them; may be asked of any of them again.
        nothing: makes the sum of nobody.
    """
    try:
        return sum_of(units)
    except FAILURES:
        alone = len(units) < 2
    if alone:
        return nothing()
    middle = len(units) // 2
    left = sum_without_failing(units[:middle], sum_of, nothing)
    left += sum_without_failing(units[middle:], sum_of, nothing)
    return left
