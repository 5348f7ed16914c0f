from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from ledger.errors import MalformedInput
from ledger.experiment import tensors
from ledger.experiment.network_spec import Linear, Mlp, Sequential, expand, parameter_shapes
from ledger.experiment.tensors import (
    Float64Vector,
    Int64Vector,
    decode_update,
    encode_update,
    from_grid,
    pack_model,
    to_grid,
    unpack_model,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
UPDATES = stn.arrays(np.int64, st.integers(0, 40), elements=INT64)
# Twelve layers, so that "10.weight" sorts before "2.weight" in the file.
DEEP = expand(Mlp(preset="mlp", hidden=(3, 2, 4, 2, 3, 2)), inputs=2, outputs=1)
SHAPES = parameter_shapes(DEEP)
COUNT = sum(math.prod(shape) for _, shape in SHAPES)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
MODELS = stn.arrays(np.float64, COUNT, elements=FINITE)


# --- updates ------------------------------------------------------------------------------------


def test_an_update_has_the_documented_bytes() -> None:
    encoded = encode_update(np.array([1, -2], dtype=np.int64))
    assert encoded == (
        b"consilium int64 v1\n\0\0\0\0\0\0\0\2\1\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff"
    )


@given(UPDATES)
def test_an_update_comes_back_as_it_was_read_only(values: Int64Vector) -> None:
    decoded = decode_update(encode_update(values), len(values))
    assert decoded.dtype == np.int64
    assert decoded.tolist() == values.tolist()
    assert not decoded.flags.writeable
    assert encode_update(decoded) == encode_update(values)


@given(UPDATES, st.data())
def test_a_changed_update_is_refused_or_is_another_value(
    values: Int64Vector, data: st.DataObject
) -> None:
    encoded = encode_update(values)
    at = data.draw(st.integers(0, len(encoded) - 1))
    flipped = bytearray(encoded)
    flipped[at] ^= data.draw(st.integers(1, 255))
    if at < tensors.UPDATE_HEADER_BYTES:
        with pytest.raises(MalformedInput):
            decode_update(bytes(flipped), len(values))
    else:
        assert encode_update(decode_update(bytes(flipped), len(values))) == bytes(flipped)


@given(UPDATES, st.integers(0, 400), st.binary(min_size=1, max_size=9))
def test_an_update_cut_short_or_with_more_after_it_is_refused(
    values: Int64Vector, cut: int, more: bytes
) -> None:
    encoded = encode_update(values)
    with pytest.raises(MalformedInput):
        decode_update(encoded[: min(cut, len(encoded) - 1)], len(values))
    with pytest.raises(MalformedInput, match=r"take exactly"):
        decode_update(encoded + more, len(values))


def test_refusals_of_updates_say_what_was_wrong() -> None:
    encoded = encode_update(np.arange(3, dtype=np.int64))
    for data, count, limit, reason in (
        (b"consilium int32 v1\n" + encoded[19:], 3, 100, "does not begin with the line"),
        (encoded[:20], 3, 100, "ends within its header of 27 bytes"),
        (encoded, 4, 100, "holds 3 values where the plan has 4"),
        (encoded[:-1], 3, 100, "has 50 bytes; 3 values take exactly 51"),
        (encoded, 3, 50, "has 51 bytes; at most 50 are accepted"),
    ):
        with pytest.raises(MalformedInput) as caught:
            decode_update(data, count, limit=limit)
        assert caught.value.where == "update"
        assert reason in caught.value.reason


@pytest.mark.parametrize(
    "values", [np.zeros(2), np.zeros(2, np.int32), np.zeros((1, 2), np.int64), np.int64(3)]
)
def test_only_a_flat_int64_vector_is_encoded(values: Int64Vector) -> None:
    with pytest.raises(MalformedInput, match="it must be int64 with one"):
        encode_update(values)


# --- models -------------------------------------------------------------------------------------


def by_name(flat: Float64Vector) -> dict[str, Float64Vector]:
    named = {}
    at = 0
    for name, shape in SHAPES:
        size = math.prod(shape)
        named[name] = flat[at : at + size].reshape(shape)
        at += size
    return named


@given(MODELS)
def test_a_model_has_the_bytes_that_the_reference_library_writes(flat: Float64Vector) -> None:
    packed = pack_model(SHAPES, flat)
    assert packed == safetensors_save(by_name(flat))
    read = safetensors_load(packed)
    for name, tensor in by_name(flat).items():
        assert np.array_equal(read[name], tensor)


@given(MODELS)
def test_a_model_comes_back_bit_for_bit_read_only(flat: Float64Vector) -> None:
    unpacked = unpack_model(pack_model(SHAPES, flat), SHAPES)
    assert unpacked.tobytes() == flat.tobytes()  # the sign of zero as well
    assert not unpacked.flags.writeable


@given(MODELS, st.data())
def test_a_changed_model_is_refused_or_is_another_value(
    flat: Float64Vector, data: st.DataObject
) -> None:
    packed = bytearray(pack_model(SHAPES, flat))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        other = unpack_model(bytes(packed), SHAPES)
    except MalformedInput:
        return
    assert at >= len(packed) - 8 * COUNT
    assert pack_model(SHAPES, other) == bytes(packed)


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_foreign_bytes_as_a_model_are_refused_by_type(junk: bytes, cut: int) -> None:
    packed = pack_model(SHAPES, np.zeros(COUNT))
    for data in (junk, packed[: min(cut, len(packed) - 1)], packed + b"\0", packed + junk + b"x"):
        with pytest.raises(MalformedInput) as caught:
            unpack_model(data, SHAPES)
        assert caught.value.where == "model"


def test_refusals_of_models_say_what_was_wrong() -> None:
    named = by_name(np.zeros(COUNT))
    first = SHAPES[0][0]
    fewer = {name: tensor for name, tensor in named.items() if name != first}
    spaced = json.dumps({"__metadata__": {}}).encode()
    for data, reason in (
        (safetensors_save(named, metadata={"by": "x"}), "carries metadata"),
        (safetensors_save(fewer), f"lacks the tensor {first}"),
        (safetensors_save({**named, "more": np.zeros(1)}), "holds 15 tensors where its tree has"),
        (
            safetensors_save({**named, first: named[first].astype(np.float32)}),
            f"tensor {first} is not float64",
        ),
        (
            safetensors_save({**named, first: np.ascontiguousarray(named[first].T)}),
            f"tensor {first} does not have the shape [3, 2]",
        ),
        (struct.pack("<Q", len(spaced)) + spaced, "carries metadata"),
        (b"", "does not begin with a safetensors header"),
        (b"\xff" * 8 + b"[]", "does not begin with a safetensors header"),
        (respelt(pack_model(SHAPES, np.zeros(COUNT))), "spells its header otherwise"),
    ):
        with pytest.raises(MalformedInput) as caught:
            unpack_model(data, SHAPES)
        assert reason in caught.value.reason


def respelt(packed: bytes) -> bytes:
    """The same tensors at the same places, eight spaces more in the header."""
    length = int.from_bytes(packed[:8], "little")
    return (
        (length + 8).to_bytes(8, "little")
        + packed[8 : 8 + length]
        + b" " * 8
        + packed[8 + length :]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_is_not_finite_is_neither_packed_nor_unpacked(value: float) -> None:
    shapes = parameter_shapes(Sequential(layers=(Linear(in_features=2, out_features=1),)))
    flat = np.array([0.0, value, 0.0])
    with pytest.raises(MalformedInput, match="parameter 1 is not finite"):
        pack_model(shapes, flat)
    good = pack_model(shapes, np.zeros(3))
    # The bias comes first in the file: sorted by name.
    with pytest.raises(MalformedInput, match="parameter 1 is not finite"):
        unpack_model(good[:-16] + struct.pack("<dd", 0.0, value), shapes)


def test_a_model_of_another_dtype_or_size_is_not_packed() -> None:
    with pytest.raises(MalformedInput, match=f"has 3 parameters; its tree has {COUNT}"):
        pack_model(SHAPES, np.zeros(3))
    with pytest.raises(MalformedInput, match="it must be float64 with one"):
        pack_model(SHAPES, np.zeros(COUNT, dtype=np.float32))


# --- the grid -----------------------------------------------------------------------------------


@given(st.floats(-(2.0**43), 2.0**43, exclude_min=True, exclude_max=True))
def test_a_value_is_put_on_the_grid_toward_zero_exactly(value: float) -> None:
    numerator, denominator = value.as_integer_ratio()
    exact = abs(numerator) * 2**20 // denominator
    assert to_grid(np.array([value])).tolist() == [exact if value >= 0 else -exact]


@given(st.lists(st.integers(-(2**53), 2**53), max_size=5))
def test_grid_numbers_come_back_exactly(units: list[int]) -> None:
    array = np.array(units, dtype=np.int64)
    assert to_grid(from_grid(array)).tolist() == units


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**43, -(2.0**43), 1e308])
def test_a_value_beyond_the_grid_is_refused(value: float) -> None:
    with pytest.raises(MalformedInput, match=r"not finite, or is beyond \+-2\^43"):
        to_grid(np.array([0.5, value]))
