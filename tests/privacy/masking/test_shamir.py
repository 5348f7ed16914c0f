from __future__ import annotations

import itertools
import os
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import InvalidParameter, MaskingRefused
from privacy.masking.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, combine, split, weights

_SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


@given(_SECRETS, st.integers(1, 12), st.data())
def test_any_threshold_of_shares_gives_the_secret(
    secret: bytes, holders: int, data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(1, holders))
    shares = split(secret, holders, threshold, os.urandom)
    chosen = data.draw(st.permutations(range(1, holders + 1)))[:threshold]
    assert combine({x: shares[x - 1] for x in chosen}) == secret
    assert combine({x: shares[x - 1] for x in range(1, holders + 1)}) == secret


@given(_SECRETS, _SECRETS, st.integers(2, 8))
def test_one_share_less_than_the_threshold_fits_every_secret(
    secret: bytes, other: bytes, threshold: int
) -> None:
    """For each candidate there is exactly one last share, so the ones held say nothing."""
    shares = split(secret, threshold, threshold, os.urandom)
    held = {x: shares[x - 1] for x in range(1, threshold)}
    lagrange = weights((*held, threshold))
    known = sum(int.from_bytes(s, "big") * w for s, w in zip(held.values(), lagrange, strict=False))
    missing = (int.from_bytes(other, "big") - known) * pow(lagrange[-1], -1, PRIME) % PRIME
    assert combine({**held, threshold: missing.to_bytes(SHARE_BYTES, "big")}) == other


def test_shares_below_the_threshold_have_one_distribution_whatever_the_secret_is() -> None:
    """Over a field of 13 elements, counted in full: t-1 shares are equally likely for each secret."""
    prime, threshold = 13, 3
    for holders in itertools.combinations(range(1, 6), threshold - 1):
        seen = set()
        for secret in range(prime):
            counts: dict[tuple[int, ...], int] = {}
            for coefficients in itertools.product(range(prime), repeat=threshold - 1):
                view = tuple(
                    (secret + sum(c * x ** (k + 1) for k, c in enumerate(coefficients))) % prime
                    for x in holders
                )
                counts[view] = counts.get(view, 0) + 1
            seen.add(frozenset(counts.items()))
        assert len(seen) == 1
        assert {Fraction(n, prime ** (threshold - 1)) for _, n in next(iter(seen))} == {
            Fraction(1, prime ** (threshold - 1))
        }


def test_a_random_wrong_share_shows() -> None:
    shares = split(bytes(32), 3, 3, os.urandom)
    wrong = bytes(1) + os.urandom(SHARE_BYTES - 1)
    with pytest.raises(MaskingRefused, match="one of them is wrong"):
        combine({1: shares[0], 2: wrong, 3: shares[2]})


@pytest.mark.parametrize("share", [b"", bytes(65), PRIME.to_bytes(66, "big"), b"\xff" * 66])
def test_what_is_no_element_of_the_field_is_refused(share: bytes) -> None:
    with pytest.raises(MaskingRefused, match=r"below 2"):
        combine({1: share})


def test_a_threshold_above_the_holders_is_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"threshold 4 is not in 1 .. 3"):
        split(bytes(32), 3, 4, os.urandom)
