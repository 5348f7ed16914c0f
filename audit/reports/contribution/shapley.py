"""The cosine-alignment game, exactly: what each hospital's update added to a round's direction.

The value of a coalition S is the cosine of its summed updates with the sum of all; 0 for nobody and
1 for all (Xu, Lyu, Ma, Miao, Foo & Low, "Gradient-driven rewards to guarantee fairness in
collaborative machine learning", NeurIPS 2021, section 3). They normalise each update first and
approximate the Shapley value; here updates enter as they were summed, and it is exact over all
coalitions, which takes 2^n values and is why n is bounded.

Everything follows from the Gram matrix of the updates, so a coalition costs n^2 and not the model's
size. Updates carry privacy noise; the game measures the noisy vectors that really were summed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MAX_PLAYERS = 10


@dataclass(frozen=True, slots=True)
class RoundGame:
    """One round's figures, in the order of the updates.

    Attributes:
        shapley: exact Shapley values, summing to 1; empty above ``MAX_PLAYERS``.
        leave_one_out: 1 minus the value of everybody else; 0 where nobody else was there.
        alignment: cosine of the update alone with the sum.
        norm_share: the update's L2 norm over the sum of all norms.
    """

    shapley: tuple[float, ...]
    leave_one_out: tuple[float, ...]
    alignment: tuple[float, ...]
    norm_share: tuple[float, ...]


def play_round(updates: Sequence[npt.NDArray[np.int64]]) -> RoundGame:
    """Play the game of one round.

    Args:
        updates: int64 vectors of one shape, as they were summed; at least one.
    """
    gram = gram_matrix(updates)
    count = len(updates)
    everybody = (1 << count) - 1
    norms = np.sqrt(np.diag(gram))
    total = float(norms.sum())
    alone = tuple(coalition_value(gram, 1 << i) for i in range(count))
    left_out = tuple(
        coalition_value(gram, everybody) - coalition_value(gram, everybody & ~(1 << i))
        for i in range(count)
    )
    return RoundGame(
        shapley=shapley_values(gram) if count <= MAX_PLAYERS else (),
        leave_one_out=left_out,
        alignment=alone,
        norm_share=tuple(float(n) / total if total else 0.0 for n in norms),
    )


def gram_matrix(updates: Sequence[npt.NDArray[np.int64]]) -> Floats:
    """Inner products of all pairs, float64 [n, n]."""
    stacked = np.stack([u.astype(np.float64) for u in updates])
    product: Floats = stacked @ stacked.T
    return product


def coalition_value(gram: Floats, members: int) -> float:
    """Cosine of a coalition's sum with everybody's.

    Args:
        gram: inner products [n, n].
        members: a bit for each player.
    """
    count = len(gram)
    chosen = np.array([(members >> i) & 1 for i in range(count)], dtype=np.float64)
    whole = np.ones(count)
    inner = float(chosen @ gram @ whole)
    square = float(chosen @ gram @ chosen) * float(whole @ gram @ whole)
    return inner / math.sqrt(square) if square > 0.0 else 0.0


def shapley_values(gram: Floats) -> tuple[float, ...]:
    """Exact Shapley values of the game with `coalition_value`.

    Raises:
        ValueError: more than ``MAX_PLAYERS`` players.
    """
    count = len(gram)
    if count > MAX_PLAYERS:
        raise ValueError(f"{count} players need 2^{count} coalitions; at most {MAX_PLAYERS}")
    masks = np.arange(1 << count)
    chosen = ((masks[:, None] >> np.arange(count)) & 1).astype(np.float64)
    inner = chosen @ gram.sum(axis=1)
    square = np.einsum("si,ij,sj->s", chosen, gram, chosen) * float(gram.sum())
    values = np.divide(
        inner, np.sqrt(np.maximum(square, 0.0)), where=square > 0.0, out=np.zeros(len(masks))
    )
    sizes = chosen.sum(axis=1).astype(int)
    weight = np.array(
        [
            math.factorial(s) * math.factorial(count - s - 1) / math.factorial(count)
            if s < count
            else 0
            for s in range(count + 1)
        ]
    )
    shares = []
    for player in range(count):
        without = masks[(masks >> player) & 1 == 0]
        gain = values[without | (1 << player)] - values[without]
        shares.append(float(weight[sizes[without]] @ gain))
    return tuple(shares)
