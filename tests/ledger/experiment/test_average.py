from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, overload

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.experiment.average import (
    ExactSum,
    LateAverage,
    averaged_rounds,
    final_model,
    initial_model,
    server_step,
    within_l2,
)
from ledger.experiment.network_spec import expand, parameter_shapes
from ledger.experiment.spec import ExperimentSpec
from ledger.experiment.tensors import Float64Vector, Int64Vector
from ledger.formats.documents import encode_document, parse_document

INT64 = st.integers(-(2**63), 2**63 - 1)
VECTORS = st.integers(1, 6).flatmap(
    lambda size: st.lists(st.lists(INT64, min_size=size, max_size=size), min_size=1, max_size=8)
)


def spec(
    strategy: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **more: Any
) -> ExperimentSpec:
    federation = {"datasets": ["a"], "rounds": 7, "sampling": more.pop("sampling", "full")}
    return ExperimentSpec.model_validate(
        {
            "consilium": 1,
            "name": "x",
            "title": "x",
            "purpose": "x",
            "lawful_basis": "x",
            "until": "2030-01-01",
            "task": {"kind": "binary", "target": "y", "above": "0"},
            "features": ["a", "b"],
            "model": model or {"preset": "logistic-regression"},
            "federation": {
                **federation,
                "strategy": {"learning_rate": "2", **(strategy or {"name": "fedsgd"})},
            },
            "privacy": {"epsilon": "1"},
            **more,
        }
    )


def int64(values: list[int]) -> Int64Vector:
    return np.array(values, dtype=np.int64)


# --- the sum ------------------------------------------------------------------------------------


@given(VECTORS)
def test_the_sum_is_that_of_integers_mod_two_to_the_64(updates: list[list[int]]) -> None:
    total = ExactSum(len(updates[0]))
    for update in updates:
        total.add(int64(update))
    for column, found in enumerate(total.total().tolist()):
        exact = sum(update[column] for update in updates)
        assert found == (exact + 2**63) % 2**64 - 2**63
    assert total.count == len(updates)


@given(VECTORS, st.randoms(use_true_random=False))
def test_the_order_of_updates_does_not_matter(updates: list[list[int]], random: Any) -> None:
    totals = []
    for _ in range(2):
        total = ExactSum(len(updates[0]))
        for update in updates:
            total.add(int64(update))
        totals.append(total.total().tolist())
        random.shuffle(updates)
    assert totals[0] == totals[1]


def test_masks_that_cancel_mod_two_to_the_64_leave_the_plain_sum() -> None:
    mask = np.random.Generator(np.random.PCG64(1)).integers(-(2**63), 2**63 - 1, 50)
    plain = np.arange(50)
    total = ExactSum(50)
    with np.errstate(over="ignore"):
        total.add(plain + mask)
        total.add(plain - mask)
    assert total.total().tolist() == (2 * plain).tolist()


def test_a_total_is_a_copy_and_a_wrong_update_leaves_it_unchanged() -> None:
    total = ExactSum(2)
    total.add(int64([1, 2]))
    before = total.total()
    for wrong in (int64([1]), np.zeros(2), np.zeros(2, np.int32), np.zeros((2, 1), np.int64)):
        with pytest.raises(ValueError, match=r"an update of this sum is int64 \(2,\)"):
            total.add(wrong)  # type: ignore[arg-type]
    total.add(int64([10, 10]))
    assert before.tolist() == [1, 2]
    assert total.total().tolist() == [11, 12]
    with pytest.raises(ValueError, match="at least one element"):
        ExactSum(0)


# --- the norm -----------------------------------------------------------------------------------


@given(
    st.lists(INT64 | st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1]), max_size=9),
    st.integers(-2, 2),
)
def test_the_norm_check_is_exact_at_its_edge(values: list[int], around: int) -> None:
    squares = sum(value * value for value in values)
    bound = max(0, math.isqrt(squares) + around)
    assert within_l2(int64(values), bound) == (squares <= bound * bound)


def test_the_norm_check_is_exact_over_several_chunks_of_the_largest_values() -> None:
    size = 2**17 + 3
    update = np.full(size, -(2**63), dtype=np.int64)
    edge = math.isqrt(size * 2**126)
    assert not within_l2(update, edge)  # size is no square: the root is cut
    assert within_l2(update, edge + 1)
    ones = np.ones(size, dtype=np.int64)
    assert within_l2(ones, math.isqrt(size) + 1)
    assert not within_l2(ones, math.isqrt(size))
    with pytest.raises(ValueError, match="at least 0"):
        within_l2(ones, -1)


# --- server steps -------------------------------------------------------------------------------


def nearest(value: Fraction) -> float:
    """Round to nearest, ties to even: what one IEEE operation does (Python's int division)."""
    return value.numerator / value.denominator


VALUES = st.floats(-1e6, 1e6)


@given(
    st.lists(st.tuples(VALUES, st.integers(-(2**52), 2**52)), min_size=1, max_size=4),
    st.integers(1, 10**6),
    st.sampled_from(["2", "0.5", "0.1", "0.3333333"]),
    st.sampled_from(["full", "0.1", "0.25"]),
)
def test_fedsgd_rounds_once_for_each_stated_operation(
    pairs: list[tuple[float, int]], divisor: int, rate: str, sampling: str
) -> None:
    """Recomputed with exact fractions, rounded where the docstring says an operation is."""
    made = spec({"name": "fedsgd", "learning_rate": rate}, sampling=sampling)
    model = np.array([value for value, _ in pairs])
    stepped = server_step(made, model, int64([unit for _, unit in pairs]), divisor)
    probability = 1.0 if sampling == "full" else float(Decimal(sampling))
    denominator = nearest(Fraction(divisor) * Fraction(probability))
    scale = nearest(Fraction(float(Decimal(rate))) / Fraction(denominator))
    for (value, unit), found in zip(pairs, stepped.tolist(), strict=True):
        product = nearest(Fraction(scale) * Fraction(unit, 2**20))
        assert found == nearest(Fraction(value) - Fraction(product))


@given(
    st.lists(st.tuples(VALUES, st.integers(-(2**52), 2**52)), min_size=1, max_size=4),
    st.integers(1, 10**6),
    st.sampled_from(["1", "0.1", "1.7"]),
)
def test_fedavg_rounds_once_for_each_stated_operation(
    pairs: list[tuple[float, int]], divisor: int, rate: str
) -> None:
    made = spec({"name": "fedavg", "server_learning_rate": rate}, sampling="0.1")
    model = np.array([value for value, _ in pairs])
    stepped = server_step(made, model, int64([unit for _, unit in pairs]), divisor)
    for (value, unit), found in zip(pairs, stepped.tolist(), strict=True):
        product = nearest(Fraction(float(Decimal(rate))) * Fraction(unit, 2**20))
        quotient = nearest(Fraction(product) / divisor)
        assert found == nearest(Fraction(value) + Fraction(quotient))


def test_a_server_step_needs_equal_shapes_and_a_divisor() -> None:
    with pytest.raises(ValueError, match=r"the model is \(2,\), its aggregate \(3,\)"):
        server_step(spec(), np.zeros(2), np.zeros(3, np.int64), 1)
    with pytest.raises(ValueError, match="divisor of a round is at least 1, not 0"):
        server_step(spec(), np.zeros(2), np.zeros(2, np.int64), 0)


# --- the final model ----------------------------------------------------------------------------


class Counting(Sequence[Float64Vector]):
    """Models made when asked for; notes which were."""

    def __init__(self, models: list[Float64Vector]) -> None:
        self.models = models
        self.asked: list[int] = []

    @overload
    def __getitem__(self, index: int) -> Float64Vector: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Float64Vector]: ...
    def __getitem__(self, index: int | slice) -> Any:
        assert isinstance(index, int)
        self.asked.append(index)
        return self.models[index]

    def __len__(self) -> int:
        return len(self.models)


@pytest.mark.parametrize(
    ("part", "rounds", "counted"),
    [
        ("0.5", 7, 4),
        ("0.5", 6, 3),
        ("1", 5, 5),
        ("0.000001", 20, 1),
        ("0.1", 10, 1),
        ("0.3", 10, 3),
    ],
)
def test_the_final_model_is_the_mean_of_the_late_rounds(
    part: str, rounds: int, counted: int
) -> None:
    made = spec({"name": "fedsgd", "average_last": part})
    random = np.random.Generator(np.random.PCG64(3))
    models = [random.normal(size=3) for _ in range(rounds)]
    lazy = Counting(models)
    total = [0.0, 0.0, 0.0]
    for model in models[-counted:]:
        total = [a + b for a, b in zip(total, model.tolist(), strict=True)]
    assert averaged_rounds(made, rounds) == counted
    assert final_model(made, lazy).tolist() == [value / counted for value in total]
    assert lazy.asked == list(range(rounds - counted, rounds))
    assert models[-counted].tolist() != final_model(made, models).tolist() or counted == 1


@pytest.mark.parametrize(("part", "ema"), [("0.5", "0.9"), ("1", "0.999"), ("1", "0.1")])
def test_a_moving_average_weighs_the_late_rounds_in_the_stated_order(part: str, ema: str) -> None:
    made = spec({"name": "fedsgd", "average_last": part, "ema": ema})
    random = np.random.Generator(np.random.PCG64(3))
    models = [random.normal(size=3) for _ in range(7)]
    late = [m.tolist() for m in models[-averaged_rounds(made, 7) :]]
    decay, expected = float(Decimal(ema)), late[0]
    for model in late[1:]:
        rest = 1.0 - decay
        expected = [decay * e + rest * m for e, m in zip(expected, model, strict=True)]
    assert final_model(made, Counting(models)).tolist() == expected


def test_an_average_wants_exactly_the_models_that_count() -> None:
    average = LateAverage(spec({"name": "fedsgd", "average_last": "1"}), 3)
    average.add(np.zeros(2))
    with pytest.raises(ValueError, match="1 of 3 models"):
        average.result()


def test_a_spec_without_a_moving_average_does_not_name_it() -> None:
    assert b'"ema"' not in encode_document(spec())
    made = spec({"name": "fedsgd", "ema": "0.90"})
    assert b'"ema":"0.9"' in encode_document(made)
    assert parse_document(encode_document(made), ExperimentSpec) == made


def test_a_final_model_needs_a_round() -> None:
    with pytest.raises(ValueError, match="at least one train round"):
        final_model(spec(), [])


# --- the first model ----------------------------------------------------------------------------

# Philox4x64-10 in plain integers, after Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as
# easy as 1, 2, 3" (SC 2011), section 4.
M64 = 2**64 - 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & M64, (p0 >> 64) ^ c3 ^ k1, p0 & M64
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & M64, (k1 + 0xBB67AE8584CAA73B) & M64
    return c0, c1, c2, c3


def words(seed: int) -> Iterator[int]:
    counter = 0
    while True:
        counter += 1
        yield from philox((counter, 0, 0, 0), (seed, 0))


def test_our_philox_gives_the_authors_known_answers() -> None:
    """kat_vectors of the authors' Random123 library: all zeros, all ones."""
    assert philox((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )
    assert philox((M64, M64, M64, M64), (M64, M64)) == (
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    )


@given(st.integers(0, 2**32 - 1))
def test_the_first_model_is_recomputed_from_the_documentation(seed: int) -> None:
    model = {
        "_target_": "torch.nn.Sequential",
        "layers": [
            {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3},
            {"_target_": "torch.nn.LayerNorm", "normalized_shape": 3},
            {"_target_": "torch.nn.Tanh"},
            {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 1},
        ],
    }
    made = spec(model=model, seed=seed)
    stream = words(seed)

    def uniform(count: int, fan_in: int) -> list[float]:
        bound = 1.0 / math.sqrt(fan_in)
        return [(2 * ((next(stream) >> 11) * 2.0**-53) - 1) * bound for _ in range(count)]

    expected = [*uniform(6, 2), *uniform(3, 2), 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    expected += [*uniform(3, 3), *uniform(1, 3)]
    tree = expand(made.model, 2, 1)
    assert initial_model(made, tree).tolist() == expected
    assert len(expected) == sum(math.prod(shape) for _, shape in parameter_shapes(tree))


@pytest.mark.parametrize("preset", ["logistic-regression", "linear-regression"])
def test_the_convex_presets_begin_at_zero(preset: str) -> None:
    made = spec(model={"preset": preset}, seed=5)
    assert initial_model(made, expand(made.model, 4, 3)).tolist() == [0.0] * 15


def test_another_seed_gives_another_first_model() -> None:
    first, second = (spec(model={"preset": "mlp"}, seed=seed) for seed in (1, 2))
    tree = expand(first.model, 2, 1)
    assert not np.array_equal(initial_model(first, tree), initial_model(second, tree))
