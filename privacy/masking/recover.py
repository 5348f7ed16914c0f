"""From masked vectors and revealed shares to the sum: the coordinator's side, and the auditor's.

The sum of the masked vectors of the survivors still holds each survivor's own mask, and the pair
masks between survivors and those who dropped out after R1; all other pair masks cancel. The first
come off by the survivors' seeds, the others by the masking keys of those who dropped out.

Promise: a secret counts only if it is the one that its owner committed to (the seed by its digest, the
key by its public half), so a wrong share never yields a wrong sum in silence. Any threshold of good
shares that are neighbours in the roster's circle is found, however many of the others are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from privacy.errors import MaskingRefused, SharesMissing
from privacy.masking import keys, shamir, streams
from privacy.masking.roster import PublicKeys, Roster, seed_commitment


@dataclass(frozen=True, slots=True)
class Opened:
    """The secrets that open one sum, and no single vector.

    Attributes:
        seeds: by survivor.
        keys: masking keys by member that dropped out after R1.
    """

    seeds: Mapping[str, bytes] = field(repr=False)
    keys: Mapping[str, bytes] = field(repr=False)


def recover(
    roster: Roster,
    advertised: Mapping[str, PublicKeys],
    commitments: Mapping[str, bytes],
    survivors: Collection[str],
    revealed: Mapping[str, Mapping[str, bytes]],
) -> Opened:
    """Put the secrets together.

    Args:
        roster: of the round.
        advertised: U1's keys.
        commitments: of U2 to their seeds.
        survivors: U3.
        revealed: by holder, the shares it revealed by owner: of the seed for a survivor, of the
            masking key for who dropped out.

    Raises:
        SharesMissing: too few shares of a secret fit together.
    """
    lagrange = _Weights()
    seeds, opened = {}, {}
    for owner in sorted(commitments):
        held = {
            roster.number(holder): shares[owner]
            for holder, shares in sorted(revealed.items())
            if owner in shares and holder in roster.members
        }
        if owner in survivors:
            said = commitments[owner]

            def is_seed(secret: bytes, owner: str = owner, said: bytes = said) -> bool:
                return seed_commitment(roster.context, owner, secret) == said

            seeds[owner] = _fitting(owner, held, roster.threshold, lagrange, is_seed)
        else:
            public = advertised[owner].masking

            def is_key(secret: bytes, public: bytes = public) -> bool:
                return keys.public_of(secret) == public

            opened[owner] = _fitting(owner, held, roster.threshold, lagrange, is_key)
    return Opened(seeds, opened)


def take_off(
    total: npt.NDArray[np.int64],
    roster: Roster,
    advertised: Mapping[str, PublicKeys],
    opened: Opened,
    *,
    threads: int | None = None,
) -> npt.NDArray[np.int64]:
    """The sum of the survivors' vectors, from the sum mod 2^64 of their masked ones.

    Args:
        total: int64 ``[n]``; unchanged.
        roster: of the round.
        advertised: U1's keys.
        opened: from `recover`.
        threads: see `streams.apply`.

    Returns:
        int64 ``[n]``, exact where the plan excludes an overflow.
    """
    masks = [streams.Mask(seed, add=False) for seed in opened.seeds.values()]
    for gone, secret in opened.keys.items():
        for name in opened.seeds:
            key = keys.mask_key(secret, advertised[name].masking, roster.context, (gone, name))
            # The survivor added it if the other comes later, and so on: the other way round here.
            masks.append(streams.Mask(key, add=gone < name))
    bare = total.astype(np.int64, copy=True)
    streams.apply(bare.view(np.uint64), masks, threads=threads)
    return bare


class _Weights:
    """Lagrange weights, kept by their holders: most secrets come from the same ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def __call__(self, holders: tuple[int, ...]) -> tuple[int, ...]:
        found = self._known.get(holders)
        if found is None:
            found = self._known[holders] = shamir.weights(holders)
        return found


def _fitting(
    owner: str,
    held: Mapping[int, bytes],
    threshold: int,
    lagrange: _Weights,
    fits: Callable[[bytes], bool],
) -> bytes:
    numbers = list(held)
    if len(numbers) < threshold:
        raise SharesMissing(owner, len(numbers), threshold)
    turns = len(numbers) if len(numbers) > threshold else 1
    for turn in range(turns):
        chosen = tuple((numbers + numbers)[turn : turn + threshold])
        try:
            secret = shamir.combine({number: held[number] for number in chosen}, lagrange(chosen))
        except MaskingRefused:
            continue
        if fits(secret):
            return secret
    raise SharesMissing(owner, len(numbers), threshold)
