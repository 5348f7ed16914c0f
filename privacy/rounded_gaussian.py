"""Exact sampling of round(N(0, sd^2)) for integer sd, by inversion with lazily refined digits.

A uniform U is an endless string of random bits of which only as many are drawn as the answer needs.
64 bits are drawn for everybody at once: a sign and 63 bits of the tail probability. Double
precision gives z = Phi^-1(U) within a stated error; where sd * |z| is farther from the next
half-integer than that error, its rounding is decided, whatever the undrawn bits are. The few others
(about one in a million at sd = 2^20) are decided by comparing U with Phi at the half-integers
themselves in decimal arithmetic with proven bounds, drawing more bits and more digits until the
comparison has an answer; equality has probability zero. The idea of undrawn digits is Karney's
(2016, "Sampling exactly from the normal distribution", ACM TOMS 42).

Promised: the distribution is exact if (a) the bits are uniform and (b) ``scipy.special.ndtri`` is
within 2^-44 (1 + |z|) of the truth for probabilities in [2^-18, 1/2], over a hundred
times the error that the tests measure against the decimal arithmetic of this file. Not promised:
constant time. How long a draw takes depends on the noise, never on data.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Bits = Callable[[int], bytes]
"""Gives that many fresh uniform random bytes."""

_TAIL_BITS: Final = 64
_SMALLEST_FAST_CELL: Final = 2**46
"""Below it (one draw in 131,072) a 64-bit cell is too wide, relative to its probability."""

_Z_ERROR: Final = 2.0**-43
"""Twice the bound of (b). The other half covers the cell: its half width and its conversion to
float64 move the probability by a relative 2^-47 + 2^-52, and z by at most 1.26 times that (Mills'
ratio is largest at 0); and the rounding of sd * z."""

_FIRST_DIGITS: Final = 50
_MORE_DIGITS: Final = 30
_MORE_BYTES: Final = 8
_PI: Final = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534"
    "21170679821480865132823066470938446095505822317253594081284811174502841027019385211055596446229"
)
_PI_DIGITS: Final = 180


def sample(bits: Bits, sd: int, size: int) -> npt.NDArray[np.int64]:
    """Draw ``size`` independent values of round(z), z ~ N(0, sd^2).

    Args:
        bits: source of uniform random bytes.
        sd: standard deviation, 1 .. 2^53-1. Fast below 2^36; every draw near 2^53 is decided
            in decimal arithmetic, about a millisecond each.
        size: how many, >= 0.

    Returns:
        int64 array of shape [size].
    """
    words = np.frombuffer(bits(8 * size), dtype="<u8").astype(np.uint64)
    negative = (words >> np.uint64(63)).astype(bool)
    cells = words & np.uint64(2**63 - 1)
    # The tail probability lies in [cell, cell + 1] / 2^64, so in [0, 1/2].
    z = -ndtri((cells.astype(np.float64) + 0.5) * 2.0**-_TAIL_BITS)
    magnitude = sd * z + 0.5
    rounded = np.floor(magnitude)
    fraction = magnitude - rounded
    margin = sd * _Z_ERROR * (1.0 + z)
    undecided = (
        (fraction <= margin) | (fraction >= 1.0 - margin) | (cells < np.uint64(_SMALLEST_FAST_CELL))
    )
    result = np.where(undecided, 0.0, rounded).astype(np.int64)
    for index in np.flatnonzero(undecided):
        result[index] = _decide(bits, sd, int(cells[index]))
    return np.where(negative, -result, result)


class _Tail:
    """A tail probability in (0, 1/2) known to ``_TAIL_BITS`` bits so far, and more on demand."""

    def __init__(self, bits: Bits, cell: int) -> None:
        self._bits = bits
        self._cell = cell
        self._scale = 2**_TAIL_BITS

    def refine(self) -> None:
        self._cell = (self._cell << (8 * _MORE_BYTES)) | int.from_bytes(self._bits(_MORE_BYTES))
        self._scale <<= 8 * _MORE_BYTES

    def middle(self) -> Fraction:
        return Fraction(2 * self._cell + 1, 2 * self._scale)

    def is_below_the_tail_of(self, x: Fraction) -> bool:
        """Say whether this is less than Phi(-x), drawing digits until that is certain."""
        digits = _FIRST_DIGITS
        while True:
            low, high = tail_bounds(x, digits)
            if Fraction(self._cell + 1, self._scale) <= low:
                return True
            if Fraction(self._cell, self._scale) >= high:
                return False
            self.refine()
            digits += _MORE_DIGITS


def _decide(bits: Bits, sd: int, cell: int) -> int:
    """Find round(sd * |z|) exactly, for the tail probability that begins with ``cell``."""
    tail = _Tail(bits, cell)
    if cell < _SMALLEST_FAST_CELL:
        tail.refine()
    n = _guess(tail.middle(), sd)
    # n is right when Phi(-(n+1/2)/sd) <= tail < Phi(-(n-1/2)/sd): walk there from the guess.
    while n > 0 and not tail.is_below_the_tail_of(Fraction(2 * n - 1, 2 * sd)):
        n -= 1
    while tail.is_below_the_tail_of(Fraction(2 * n + 1, 2 * sd)):
        n += 1
    return n


def _guess(probability: Fraction, sd: int) -> int:
    """Guess round(sd * z) for Phi(-z) = probability: two Newton steps, near enough to walk."""
    z = Fraction(-float(ndtri(float(probability))))
    for _ in range(2):
        low, _ = tail_bounds(z, _FIRST_DIGITS)
        with localcontext() as context:
            context.prec = _FIRST_DIGITS
            density = (-_decimal(z * z) / 2).exp() / (2 * _PI).sqrt()
            z += (low - probability) / Fraction(density)
        z = Fraction(round(z * 2**120), 2**120)
    return max(0, round(sd * z))


def tail_bounds(x: Fraction, digits: int) -> tuple[Fraction, Fraction]:
    """Bound Phi(-x) for 0 <= x <= 40, about 10^-(digits-10) apart.

    Phi(x) - 1/2 = phi(x) * sum_n x^(2n+1) / (1 * 3 * 5 ... (2n+1)) (Abramowitz & Stegun 26.2.11).
    All terms are positive, so the relative error of the sum is at most the number of operations
    times 10^(1-digits), and once x^2 < n the rest is below the last term.
    """
    if x == 0:
        return Fraction(1, 2), Fraction(1, 2)
    digits = min(digits, _PI_DIGITS)
    with localcontext() as context:
        context.prec = digits
        value = _decimal(x)
        square = value * value
        term = value
        total = value
        n = 0
        while term > total.scaleb(-digits) or n < square:
            n += 1
            term = term * square / (2 * n + 1)
            total += term
        half = total * (-square / 2).exp() / (2 * _PI).sqrt()
    # Fewer than 10^4 operations; e^(-x^2/2) turns x^2's relative error into at most 800 times it.
    error = Fraction(1, 10 ** (digits - 8))
    middle = Fraction(1, 2) - Fraction(half)
    return middle - error, middle + error


def _decimal(x: Fraction) -> Decimal:
    return Decimal(x.numerator) / Decimal(x.denominator)
