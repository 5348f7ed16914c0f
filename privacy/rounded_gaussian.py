"""Exact sampling of round(N(0, sd^2)) for integer sd, by inversion with lazily refined digits.

A uniform U is an endless string of random bits of which only as many are drawn as the answer needs.
64 bits are drawn for everybody at once: a sign and 63 bits of the tail probability. Three levels
give z = Phi^-1(U), each within a stated error; where sd * |z| is farther from the next half-integer
than that error, its rounding is decided, whatever the undrawn bits are:

1. a table of cubics, 512 to an octave of U, 5 to 6 ns a draw;
2. ``scipy.special.ndtri`` in double precision, where that is too coarse (one draw in 500,000 at sd = 2^20)
   or has a tail below 2^-18, for which 64 more bits are drawn;
3. where that is too coarse (one in four million), U is compared with Phi at the half-integers themselves in
   decimal arithmetic with proven bounds, drawing more bits and more digits until the comparison has
   an answer; equality has probability zero.

So no slack is taken out of delta, however many steps draw. The idea of undrawn digits is Karney's
(2016, "Sampling exactly from the normal distribution", ACM TOMS 42).

Promised: the distribution is exact if (a) the bits are uniform, (b) ``scipy.special.ndtri`` is
within 2^-44 (1 + |z|) of the truth for probabilities in [2^-82, 1/2], over a hundred
times the error that the tests measure against the decimal arithmetic of this file, and (c) the table
is within 2^-42 of ndtri in [2^-18, 1/2], ten times what the tests measure. Not promised:
constant time. How long a draw takes depends on the noise, never on data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache, lru_cache
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

_TABLE_ERROR: Final = 2.0**-40
"""The bound of (c), and ``_Z_ERROR`` times 1 + |z| <= 6: beyond that the table has no number."""
_CHUNK: Final = 8192
"""Draws handled at once, so that what lies between two of level 1's passes stays in a cache."""
_MANTISSA_BITS: Final = 52
_EXPONENT_BIAS: Final = 1023
_SEGMENT_BITS: Final = 9
_WITHIN_BITS: Final = _MANTISSA_BITS - _SEGMENT_BITS
_CELL: Final = np.int64(2**63 - 1)
_SIGN: Final = np.int64(-(2**63))
_NONE: Final = np.empty(0, dtype=np.intp)
_SEGMENTS: Final = 2**_SEGMENT_BITS
_OCTAVES: Final = 64
"""Cells are below 2^63, so six bits of the exponent of their float64 tell their octave."""

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
    result = np.empty(size, dtype=np.int64)
    Sampler(bits, sd, size).fill(result)
    return result


class Sampler:
    """What draws of one deviation need, made once.

    Args:
        bits: as in ``sample``.
        sd: as in ``sample``.
        most: how many are drawn at once where fewer than some thousands are ever asked for.
    """

    def __init__(self, bits: Bits, sd: int, most: int = _CHUNK) -> None:
        self._bits = bits
        self._sd = sd
        self._chunk = max(1, min(most, _CHUNK))
        self._level = _Table(sd, self._chunk)

    def fill(self, result: npt.NDArray[np.int64]) -> None:
        """Write draws over all of ``result``."""
        for low in range(0, len(result), self._chunk):
            part = result[low : low + self._chunk]
            words = np.frombuffer(self._bits(8 * len(part)), dtype="<u8")
            for index in self._level.round(words.astype(np.uint64, copy=False), part):
                part[index] = _round_alone(self._bits, self._sd, int(words[index]))


class _Table:
    """Level 1, for one sd: at most ``size`` draws at once, in room that is made once."""

    def __init__(self, sd: int, size: int) -> None:
        self._cubics = _scaled_table(sd)
        self._near = 0.5 - sd * _TABLE_ERROR
        self._cubic = np.empty((size, 4))
        self._cells, self._values, self._rounded = np.empty((3, size))
        self._whole, self._rows = np.empty((2, size), dtype=np.int64)

    def round(
        self, words: npt.NDArray[np.uint64], result: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.intp]:
        """Write the draws that the table decides, and say where it decides nothing."""
        size = len(words)
        cubic = self._cubic[:size]
        whole, rows = self._whole[:size], self._rows[:size]
        cells, values, rounded = self._cells[:size], self._values[:size], self._rounded[:size]
        signed = words.view(np.int64)
        np.bitwise_and(signed, _CELL, out=whole)
        np.copyto(cells, whole)
        # The float64 of a cell is its octave, its segment in the octave, and where it is in the segment.
        np.right_shift(cells.view(np.int64), _WITHIN_BITS, out=rows)
        rows &= _OCTAVES * _SEGMENTS - 1
        np.take(self._cubics, rows, axis=0, mode="wrap", out=cubic)  # all are inside; quickest so
        np.multiply(cubic[:, 3], cells, out=values)
        for power in (2, 1):
            values += cubic[:, power]
            values *= cells
        values += cubic[:, 0]
        np.rint(values, out=rounded)
        values -= rounded
        undecided = _NONE
        if not (values.max() < self._near and values.min() > -self._near):
            # Also where the table has no number.
            undecided = np.flatnonzero(~(np.abs(values) < self._near))
            rounded[undecided] = 0.0
        np.bitwise_and(signed, _SIGN, out=whole)
        whole |= rounded.view(np.int64)
        np.copyto(result, whole.view(np.float64), casting="unsafe")
        return undecided


@lru_cache(maxsize=4)
def _scaled_table(sd: int) -> npt.NDArray[np.float64]:
    """``_table`` times ``sd``."""
    table = _table() * sd
    table.setflags(write=False)
    return table


@cache
def _table() -> npt.NDArray[np.float64]:
    """Cubics in a cell, row ``exponent * segments + segment``.

    Each meets -ndtri at the four Chebyshev nodes of its segment. The function's fourth derivative
    in ln U is below 6, a segment's half width 2^-10: the cubic is within 2^-44. Cells below
    ``_SMALLEST_FAST_CELL`` have no number (NaN). A segment is short beside its distance from 0, and
    the function and its derivatives in U's mantissa are below 10, so that a cubic written out in the
    cell itself loses no more than 2^-48 to rounding.
    """
    nodes = (0.5 - 0.5 * np.cos((2 * np.arange(4) + 1) * np.pi / 8)) / _SEGMENTS
    through_nodes = np.linalg.inv(np.vander(nodes * _SEGMENTS, 4, increasing=True)).T
    table = np.full((_OCTAVES * _SEGMENTS, 4), np.nan)
    start = 1.0 + np.arange(_SEGMENTS) / _SEGMENTS
    for octave in range(_SMALLEST_FAST_CELL.bit_length() - 1, _TAIL_BITS - 1):
        row = (_EXPONENT_BIAS + octave) % _OCTAVES * _SEGMENTS
        z = -ndtri((start[:, None] + nodes) * 2.0 ** (octave - _TAIL_BITS))
        a, b, c, d = (z @ through_nodes * float(_SEGMENTS) ** np.arange(4)).T  # from the start
        cubic = (
            a - start * (b - start * (c - start * d)),
            b - start * (2.0 * c - start * 3.0 * d),
            c - start * 3.0 * d,
            d,
        )
        table[row : row + _SEGMENTS] = np.stack(cubic, axis=1) * 2.0 ** (-octave * np.arange(4.0))
    table.setflags(write=False)
    return table


def _round_alone(bits: Bits, sd: int, word: int) -> int:
    """Levels 2 and 3, for one draw."""
    tail = _Tail(bits, word & (2**63 - 1))
    sign = -1 if word >> 63 else 1
    if tail.is_wide():
        tail.refine()
    if not tail.is_wide():
        # The tail probability lies in one cell around this, and in (0, 1/2].
        z = -float(ndtri(tail.middle()))
        rounded = math.floor(sd * z + 0.5)
        fraction = sd * z + 0.5 - rounded
        margin = sd * _Z_ERROR * (1.0 + z)
        if margin < fraction < 1.0 - margin:
            return sign * rounded
    return sign * _decide(tail, sd)


class _Tail:
    """A tail probability in (0, 1/2) known to ``_TAIL_BITS`` bits so far, and more on demand."""

    def __init__(self, bits: Bits, cell: int) -> None:
        self._bits = bits
        self._cell = cell
        self._scale: int = 2**_TAIL_BITS

    def is_wide(self) -> bool:
        """Say whether more bits are needed before double precision can tell anything."""
        return self._cell < _SMALLEST_FAST_CELL

    def refine(self) -> None:
        self._cell = (self._cell << (8 * _MORE_BYTES)) | int.from_bytes(self._bits(_MORE_BYTES))
        self._scale <<= 8 * _MORE_BYTES

    def middle(self) -> float:
        return (2 * self._cell + 1) / (2 * self._scale)

    def exact_middle(self) -> Fraction:
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


def _decide(tail: _Tail, sd: int) -> int:
    """Find round(sd * |z|) exactly."""
    n = _guess(tail.exact_middle(), sd)
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
