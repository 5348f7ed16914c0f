"""Shamir's sharing of 32-byte secrets over GF(2^521 - 1).

A polynomial of degree t-1 with uniform coefficients has the secret at 0; holder x (1, 2, ...) keeps
its value at x. Any t shares give the secret; any t-1 fit every secret equally well, because for each
candidate exactly one polynomial goes through them and it (Shamir, CACM 1979). The field is a Mersenne
prime so large that a random wrong share shows: what it gives falls below 2^256 with chance 2^-265.

Not promised: that a share somebody chose to be wrong shows (``recover.py`` compares the secret with what
its owner committed to, and tries other shares), nor constant time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from privacy.errors import InvalidParameter, MaskingRefused

PRIME: Final = 2**521 - 1
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 66
_COEFFICIENT_BYTES: Final = 82  # 656 bits: the remainder mod PRIME is uniform to 2^-135

RandomBytes = Callable[[int], bytes]
"""``os.urandom``, or in a test something that says it is not."""


def split(secret: bytes, holders: int, threshold: int, random: RandomBytes) -> tuple[bytes, ...]:
    """Share a secret among ``holders``; any ``threshold`` of them can put it together again.

    Args:
        secret: 32 bytes.
        holders: how many shares, at least ``threshold``.
        threshold: at least 1.
        random: fresh uniform bytes.

    Returns:
        The shares of holders 1, 2, ..., each 66 bytes, big-endian.
    """
    if len(secret) != SECRET_BYTES:
        raise InvalidParameter(f"a shared secret has {SECRET_BYTES} bytes, not {len(secret)}")
    if not 1 <= threshold <= holders:
        raise InvalidParameter(f"threshold {threshold} is not in 1 .. {holders} holders")
    polynomial = [int.from_bytes(secret, "big")]
    for _ in range(threshold - 1):
        polynomial.append(int.from_bytes(random(_COEFFICIENT_BYTES), "big") % PRIME)
    return tuple(_value(polynomial, x).to_bytes(SHARE_BYTES, "big") for x in range(1, holders + 1))


def weights(holders: Sequence[int]) -> tuple[int, ...]:
    """Lagrange weights at 0 for these holders: the secret is the weighted sum of their shares.

    They depend on the holders alone, so one set serves all secrets that the same holders reveal.

    Raises:
        InvalidParameter: a holder is below 1 or named twice.
    """
    if len(set(holders)) != len(holders) or any(not 1 <= x < PRIME for x in holders):
        raise InvalidParameter("holders of shares are different integers from 1 on")
    found = []
    for x in holders:
        above, below = 1, 1
        for other in holders:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(found)


def combine(shares: Mapping[int, bytes], lagrange: Sequence[int] | None = None) -> bytes:
    """The secret that exactly these shares give.

    Args:
        shares: by holder, as many as the threshold.
        lagrange: `weights` of the holders in the mapping's order, where they are known.

    Raises:
        MaskingRefused: a share is no element of the field, or they give no 32-byte secret.
    """
    total = 0
    used = weights(tuple(shares)) if lagrange is None else lagrange
    for share, weight in zip(shares.values(), used, strict=True):
        value = int.from_bytes(share, "big")
        if len(share) != SHARE_BYTES or value >= PRIME:
            raise MaskingRefused("malformed", f"a share is {SHARE_BYTES} bytes below 2^521 - 1")
        total += value * weight
    total %= PRIME
    if total >= 2 ** (8 * SECRET_BYTES):
        raise MaskingRefused("malformed", "these shares give no secret: one of them is wrong")
    return total.to_bytes(SECRET_BYTES, "big")


def _value(polynomial: Sequence[int], x: int) -> int:
    total = 0
    for coefficient in reversed(polynomial):
        total = (total * x + coefficient) % PRIME
    return total
