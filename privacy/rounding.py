"""What rounding may add to a patient's share of a sum that is not made of integers, before any data.

The ``fast`` engine never forms a patient's vector. It adds, in float64 and in whatever order a matrix
product takes, the products c_p g_r a_r^T of patients p, their rows r, clip factors c_p, output
gradients g_r and activations a_r, and rounds the sum to the grid. ``clip_within`` says to what norm
it must clip, so that removing one patient moves the rounded sum by at most the plan's sensitivity.

The argument, with u = 2^-53, gamma_k = k u / (1 - k u) (Higham 2002, Lemma 3.1), C' the norm that
is clipped to, n patients, and A_p the sum of the norms of p's rows, which the engine keeps below
c_p A_p <= CANCELLATION * C':

1. a_r and g_r are the same bits whoever else is there: the engine's duty, which it checks.
2. A computed squared norm errs by at most gamma_w A_p^2, w the ``terms`` of its inner products, which
   the engine adds to it, so that no patient is longer than C' (1 + gamma_8).
3. c_p itself may differ by that error: a patient who stays moves the sum by at most
   2 gamma_w CANCELLATION^2 C'.
4. The computed sum errs by at most gamma_depth n CANCELLATION C', depth the most additions in a row;
   with the patient and without: twice.
5. Rounding to the grid moves each of d coordinates by at most 1/2, twice: at most sqrt(d) in all.

Promised: this arithmetic. Not promised: that the engine does what 1 and 2 say; its tests do.
"""

from __future__ import annotations

import math
from typing import Final

from privacy.errors import InvalidParameter
from privacy.events import MAX_LENGTH, require_int

CANCELLATION: Final = 64
"""How much longer than C' the rows of a clipped patient may be together; beyond, all shrink."""

BLOCK_CANCELLATION: Final = 256
"""The same where a row has many places (pixels, words), whose gradients add up to the row's."""

_U: Final = 2.0**-53
_U32: Final = 2.0**-24
_BLOCK_TERMS: Final = 2**17
_MOST_KEPT: Final = 2**20
_MIN_LEFT: Final = 0.5


def gamma(operations: int) -> float:
    """Higham's bound on the relative error of so many float64 operations, rounded up."""
    return operations * _U / (1.0 - operations * _U) * (1.0 + 2.0**-40)


def gamma32(operations: int) -> float:
    """The same for float32."""
    return operations * _U32 / (1.0 - operations * _U32) * (1.0 + 2.0**-20)


def clip_within(
    sensitivity: int, *, parameters: int, terms: int, depth: int, patients: int
) -> float:
    """Say to what norm to clip, so that a patient moves the rounded sum by ``sensitivity`` at most.

    Args:
        sensitivity: L2 bound that is charged, grid units, 1 .. 2^53-1.
        parameters: coordinates of the sum.
        terms: the most products that one squared norm of a row adds, over all layers.
        depth: the most additions in a row on the way to one coordinate of the sum.
        patients: the most that may be in the sum: a public bound.

    Returns:
        The norm C', grid units, below ``sensitivity``.

    Raises:
        InvalidEvent: a number is not a positive integer.
        InvalidParameter: rounding would take more than half of the sensitivity.
    """
    require_int("sensitivity", sensitivity, 1, MAX_LENGTH)
    for name, value in (
        ("parameters", parameters), ("terms", terms), ("depth", depth), ("patients", patients)
    ):  # fmt: skip
        require_int(name, value, 1, 2**40)
    stay = 2.0 * gamma(terms) * CANCELLATION**2 * patients
    added = 2.0 * gamma(depth) * CANCELLATION * patients
    return _left(sensitivity, parameters, patients, 1.0 + gamma(8) + stay + added)


def clip_within_blocks(
    sensitivity: int, *, parameters: int, kept: int, added: int, patients: int
) -> float:
    """As ``clip_within``, where small layers' gradients are kept, in float32, and added from there.

    A kept gradient is what it is, float32 rounding included, whoever else is there. Its norm is taken
    in float32; under float32 factors, ``added`` of them are added in float32, the rest in float64.
    For layers whose gradients are not kept, 2 to 4 of the argument above hold in float64, with inner
    products of at most 2^17 terms and ``BLOCK_CANCELLATION``.

    Args:
        sensitivity: as in ``clip_within``.
        parameters: as in ``clip_within``.
        patients: as in ``clip_within``.
        kept: the most scalars of a layer over which a norm is taken in float32.
        added: rows that are added in float32.

    Raises:
        InvalidEvent: a number is not a positive integer.
        InvalidParameter: rounding would take more than half of the sensitivity.
    """
    require_int("sensitivity", sensitivity, 1, MAX_LENGTH)
    for name, value in (
        ("parameters", parameters), ("kept", kept), ("added", added), ("patients", patients)
    ):  # fmt: skip
        require_int(name, value, 1, 2**40)
    if kept > _MOST_KEPT:
        raise InvalidParameter(f"a norm over {kept} float32 numbers has no useful bound")
    sums = 2.0 * gamma32(added + 8) * patients
    formed = 4.0 * gamma(_BLOCK_TERMS) * BLOCK_CANCELLATION**2 * patients
    return _left(sensitivity, parameters, patients, 1.0 + gamma32(kept + 8) + sums + formed)


def _left(sensitivity: int, parameters: int, patients: int, growth: float) -> float:
    left = (sensitivity - math.sqrt(parameters) - 1.0) / growth
    if not left >= _MIN_LEFT * sensitivity:
        raise InvalidParameter(
            f"rounding {parameters} sums over {patients} patients would use up more than half of the "
            f"sensitivity of {sensitivity} grid units; raise the clip norm, or use the exact engine"
        )
    return left * (1.0 - 2.0**-40)
