"""The arithmetic of a round: the exact sum, the server step, the first and the last model.

Promise: anyone who holds the spec, the updates and the models recomputes every number bit for bit,
on any machine, in any order of updates. Sums are integers mod 2^64. What follows them is float64
(IEEE 754 binary64, round to nearest, ties to even), elementwise, one operation after the other in
the order stated at each function; nothing is fused, reordered or reduced across elements. Decimal
numbers of the spec become the nearest float64 first.

Not promised: that the updates deserve to count. ``within_l2`` checks the one bound that the plan
states; the rest is for the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from ledger.experiment.adaptive_clip import extra_values, first_norm, next_norm, split_of
from ledger.experiment.input_parts import fan_in
from ledger.experiment.network_spec import Linear, LogisticRegression, Sequential, parameter_shapes
from ledger.experiment.spec import ExperimentSpec, FedSgd
from ledger.experiment.tensors import GRID, Float64Vector, Int64Vector, from_grid

_LIMB_BITS = 22
_CHUNK = 1 << 16  # 2^16 products of two limbs stay below 2^60


class ExactSum:
    """The sum of int64 vectors mod 2^64, one vector in memory at a time.

    The order of the updates does not matter. Values are summed as they are: a public weight is
    already in them. Without secure aggregation the sum of bounded updates stays far within int64
    and the wraparound never shows; with it, masks cancel because of it.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a sum needs at least one element, not {size}")
        self._sum = np.zeros(size, dtype=np.uint64)
        self._count = 0

    @property
    def count(self) -> int:
        """How many updates are in the sum."""
        return self._count

    def add(self, update: Int64Vector) -> None:
        """Add one update ``[size]``.

        Raises:
            ValueError: another dtype or shape; the sum is unchanged.
        """
        if update.dtype != np.int64 or update.shape != self._sum.shape:
            raise ValueError(
                f"an update of this sum is int64 {self._sum.shape}, "
                f"not {update.dtype} {update.shape}"
            )
        # Unsigned arithmetic wraps by definition; the bits are those of two's complement.
        np.add(self._sum, update.view(np.uint64), out=self._sum)
        self._count += 1

    def total(self) -> Int64Vector:
        """Return the sum so far: the representative in [-2^63, 2^63)."""
        return self._sum.copy().view(np.int64)


def within_l2(update: Int64Vector, bound: int) -> bool:
    """Say whether the sum of squares is at most ``bound``^2, exactly, for every int64 input.

    Args:
        update: int64 ``[n]``, grid units.
        bound: at least 0, grid units.
    """
    if bound < 0:
        raise ValueError(f"an L2 bound is at least 0, not {bound}")
    limit = bound * bound
    total = 0
    for start in range(0, len(update), _CHUNK):
        total += _sum_of_squares(update[start : start + _CHUNK])
        if total > limit:
            return False
    return True


def server_step(
    spec: ExperimentSpec, model: Float64Vector, aggregate: Int64Vector, divisor: int
) -> Float64Vector:
    """Apply a round's aggregate to the model.

    With ``s = float64(aggregate) / 2^20`` and ``d = float64(divisor)``, in this order:

    - fedsgd: ``model - (lr / (d * q)) * s``, where q is the sampling probability, 1 for ``full``;
      the aggregate is a sum of gradients. Where the clip norm adapts, model and aggregate have one
      value more. With the round's clip norm C and ``adaptive_clip.split``'s G and B, s is
      ``((C * 2^20) / float64(G)) * s`` for the parameters; the next norm is ``next_norm`` with
      ``float64(last of the aggregate) / float64(B)`` and ``d * q``.
    - fedavg: ``model + (server_lr * s) / d``; the aggregate is a sum of weighted differences.

    Args:
        spec: names strategy, rates and sampling.
        model: float64 ``[n]``, the round's first model.
        aggregate: int64 ``[n]``, grid units.
        divisor: the public divisor, at least 1: the sum of the counted sites' ``divisor``.

    Returns:
        The model after the round, float64 ``[n]``. It may be beyond float64 (infinite);
        ``tensors.pack_model`` refuses such a model.

    Raises:
        ValueError: shapes differ, or a divisor below 1.
    """
    if model.shape != aggregate.shape:
        raise ValueError(f"the model is {model.shape}, its aggregate {aggregate.shape}")
    if divisor < 1:
        raise ValueError(f"the divisor of a round is at least 1, not {divisor}")
    change = from_grid(aggregate)
    strategy = spec.federation.strategy
    if isinstance(strategy, FedSgd):
        sampling = spec.federation.sampling
        probability = 1.0 if sampling == "full" else float(sampling)
        expected = float(divisor) * probability
        rate = float(spec.learning_rate) / expected
        adaptive = spec.privacy.adaptive
        if adaptive is None:
            return model - rate * change
        norm, parts = float(model[-1]), split_of(spec, adaptive)
        unscaled = ((norm * GRID) / float(parts.gradient)) * change[:-1]
        within = float(aggregate[-1]) / float(parts.count)
        after = next_norm(adaptive, first_norm(spec), norm, within, expected)
        return np.append(model[:-1] - rate * unscaled, after)
    return model + (float(strategy.server_learning_rate) * change) / float(divisor)


def averaged_rounds(spec: ExperimentSpec, rounds: int) -> int:
    """Return how many of the last ``rounds`` models are averaged: ceil(average_last * rounds)."""
    return math.ceil(Fraction(spec.federation.strategy.average_last) * rounds)


class LateAverage:
    """The average of the late models of a run, given one after the other.

    Of ``rounds`` models the last ``averaged_rounds`` count, in their order m_1, ..., m_k:

    - without ``ema``: m_1 + m_2 + ... from the left, then divided by ``float64(k)``;
    - with ``ema``, b its float64: e_1 = m_1, then e_j = (b * e_(j-1)) + ((1 - b) * m_j); the result
      is e_k. What 1 - b rounds to is used, too.

    Args:
        spec: says which part counts, and how.
        rounds: models in the whole run, at least 1.
    """

    def __init__(self, spec: ExperimentSpec, rounds: int) -> None:
        if rounds < 1:
            raise ValueError("an average needs at least one train round")
        ema = spec.federation.strategy.ema
        self._decay = None if ema is None else float(ema)
        self.counted = averaged_rounds(spec, rounds)
        self._value: Float64Vector | None = None
        self._seen = 0

    def add(self, model: Float64Vector) -> None:
        """Take the next model that counts, float64 ``[n]``."""
        self._seen += 1
        if self._value is None:
            self._value = np.array(model, dtype=np.float64)
        elif self._decay is None:
            self._value += model
        else:
            self._value *= self._decay
            self._value += (1.0 - self._decay) * model

    def result(self) -> Float64Vector:
        """Return the average, once all that count were given."""
        if self._value is None or self._seen != self.counted:
            raise ValueError(f"{self._seen} of {self.counted} models were given")
        if self._decay is not None:
            return self._value
        mean: Float64Vector = self._value / float(self.counted)
        return mean


def final_model(spec: ExperimentSpec, round_models: Sequence[Float64Vector]) -> Float64Vector:
    """Return the model that the experiment releases: the average of the late rounds' models.

    Of parameters alone: a clip norm that adapts is no part of it.

    Args:
        spec: says which part of the rounds counts, and how (``LateAverage``).
        round_models: the model after each train round, in order, float64 ``[n]``. Each one that
            counts is indexed once, so that a lazy sequence keeps two models in memory.

    Raises:
        ValueError: no round.
    """
    rounds = len(round_models)
    average = LateAverage(spec, rounds)
    for index in range(rounds - average.counted, rounds):
        average.add(round_models[index])
    result = average.result()
    return result[: len(result) - extra_values(spec)]


def initial_model(spec: ExperimentSpec, tree: Sequential) -> Float64Vector:
    """Return the model of round 1, a function of the spec alone: as ``round_shapes`` lists it.

    A clip norm that adapts begins as ``clip_norm``.

    The logistic and linear presets begin at 0 (their loss is convex). For other trees, in the
    order of ``parameter_shapes`` and row-major: LayerNorm weights are 1 and biases 0; weights and
    biases of a Linear layer are uniform in [-b, b) with ``b = 1 / sqrt(fan_in)``, the bounds that
    ``torch.nn.Linear`` uses (Kaiming uniform, He et al. 2015, with a = sqrt(5)). So are those of Conv1d
    (fan_in: channels times kernel) and GRU (its hidden size), as torch has it, and of Embedding (its
    dimension), which torch draws from a normal law; GroupNorm is as LayerNorm.

    One random stream serves all of them, each value taking one 64-bit word w: ``u = (w >> 11) *
    2^-53``, value ``(2 * u - 1) * b``. The stream is Philox4x64-10 (Salmon et al., SC 2011) with
    the key (seed, 0) and the counters (1, 0, 0, 0), (2, 0, 0, 0), ..., four words from each:
    ``numpy.random.Philox(key=seed).random_raw()``, whose stream numpy guarantees.

    Args:
        spec: names the model and the seed.
        tree: the full tree, ``network_spec.expand`` of the spec's model.
    """
    shapes = parameter_shapes(tree)
    last = np.full(extra_values(spec), first_norm(spec))
    if isinstance(spec.model, LogisticRegression):
        zeros = np.zeros(sum(math.prod(shape) for _, shape in shapes), dtype=np.float64)
        return np.append(zeros, last)
    stream = np.random.Philox(key=spec.seed)
    parts: list[Float64Vector] = []
    for name, shape in shapes:
        size = math.prod(shape)
        fan = _fan_in(tree, name)
        if fan:
            bound = 1.0 / math.sqrt(float(fan))
            uniform = (stream.random_raw(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53
            parts.append((2.0 * uniform - 1.0) * bound)
        else:
            parts.append(np.full(size, 1.0 if name.endswith(".weight") else 0.0))
    return np.concatenate([*parts, last])


def _fan_in(tree: Sequential, name: str) -> int:
    """What bounds a parameter's first values, by its name; 0 for a norm's."""
    kind, *places = name.split(".") if tree.embeddings or tree.series else ("layers", name)
    index = int(places[0].partition(".")[0])
    if kind == "embeddings":
        return fan_in(tree.embeddings[index])
    if kind == "series":
        return fan_in(tree.series[index].layers[int(places[1])])
    layer = tree.layers[index]
    return layer.in_features if isinstance(layer, Linear) else 0


def _sum_of_squares(part: Int64Vector) -> int:
    """Sum the squares of at most ``_CHUNK`` int64 values in limbs that cannot overflow."""
    # Unsigned negation of the two's complement bits gives |x|, for -2^63 as well.
    bits = part.view(np.uint64)
    rest = np.where(part < 0, np.uint64(0) - bits, bits)
    limbs = []
    while rest.any():
        limbs.append(rest & np.uint64(2**_LIMB_BITS - 1))
        rest = rest >> np.uint64(_LIMB_BITS)
    total = 0
    for i, low in enumerate(limbs):
        for j, high in enumerate(limbs[i:], start=i):
            products = int(np.dot(low, high)) << (_LIMB_BITS * (i + j))
            total += products if i == j else 2 * products
    return total
