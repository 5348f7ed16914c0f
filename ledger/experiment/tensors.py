r"""The bytes of vectors: updates as int64 on a grid, models as safetensors of float64.

Promise: one value, one spelling. ``encode_update`` and ``pack_model`` are functions of their
arguments alone; ``decode_update`` and ``unpack_model`` accept exactly what these two write, so
re-encoding an accepted blob gives the same bytes and a blob's SHA-256 names its value.

Update: ``b"consilium int64 v1\n"``, the count as unsigned 64-bit big-endian, then the values as
signed 64-bit little-endian. All 2^64 patterns are values (a masked vector looks random); bounds on
them are for the caller to check.

Model: the safetensors format (https://github.com/huggingface/safetensors, "Format"): the header's
length as unsigned 64-bit little-endian, a JSON header padded with spaces to 8 bytes, the data. Of
the many spellings it allows this module writes and accepts the reference library's: tensors sorted
by name, ``dtype``, ``shape``, ``data_offsets`` in this order, no space, no ``__metadata__``. The
header is therefore a function of names and shapes, and is compared, not interpreted.

Grid: one unit is 2^-20. A float64 is put on it by multiplying with 2^20, which is exact, and
dropping the fraction (toward zero, so that no norm grows).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson

from ledger.errors import MalformedInput

UPDATE_MAGIC = b"consilium int64 v1\n"
UPDATE_HEADER_BYTES = len(UPDATE_MAGIC) + 8
VALUE_BYTES = 8
MAX_VECTOR_BYTES = 256 * 1024 * 1024
"""The largest update or model blob, the same as the blob store's limit."""
GRID_BITS = 20
GRID = 2**GRID_BITS
"""Grid units in 1.0; ``privacy.events.GRID`` is the same number."""

Int64Vector = npt.NDArray[np.int64]
Float64Vector = npt.NDArray[np.float64]
Shapes = Sequence[tuple[str, tuple[int, ...]]]


def encode_update(values: Int64Vector) -> bytes:
    """Encode a vector of int64, ``[n]``, as ``UPDATE_HEADER_BYTES + 8 n`` bytes.

    Raises:
        MalformedInput: another dtype or shape.
    """
    _check_vector(values, np.int64, "update")
    count = len(values).to_bytes(8, "big")
    return UPDATE_MAGIC + count + values.astype("<i8", copy=False).tobytes()


def decode_update(
    data: bytes, expected_count: int, *, limit: int = MAX_VECTOR_BYTES
) -> Int64Vector:
    """Decode a vector whose length the plan has fixed.

    Args:
        data: the blob exactly as received.
        expected_count: how many values it must hold.
        limit: the most bytes accepted.

    Returns:
        A read-only native int64 array ``[expected_count]`` with memory of its own.

    Raises:
        MalformedInput: another first line, count or length, or over the limit.
    """
    where = "update"
    if len(data) > limit:
        raise MalformedInput(where, f"has {len(data)} bytes; at most {limit} are accepted")
    if data[: len(UPDATE_MAGIC)] != UPDATE_MAGIC:
        raise MalformedInput(where, f"does not begin with the line {UPDATE_MAGIC[:-1].decode()!r}")
    if len(data) < UPDATE_HEADER_BYTES:
        raise MalformedInput(where, f"ends within its header of {UPDATE_HEADER_BYTES} bytes")
    count = int.from_bytes(data[len(UPDATE_MAGIC) : UPDATE_HEADER_BYTES], "big")
    if count != expected_count:
        raise MalformedInput(where, f"holds {count} values where the plan has {expected_count}")
    length = UPDATE_HEADER_BYTES + VALUE_BYTES * count
    if len(data) != length:
        raise MalformedInput(where, f"has {len(data)} bytes; {count} values take exactly {length}")
    # A copy: the values begin at an odd offset, and arithmetic on unaligned memory is slow.
    values = np.frombuffer(data, dtype="<i8", offset=UPDATE_HEADER_BYTES).astype(np.int64)
    values.setflags(write=False)
    return values


def pack_model(shapes: Shapes, flat: Float64Vector) -> bytes:
    """Encode a model's parameters as safetensors.

    Args:
        shapes: names and shapes as ``network_spec.parameter_shapes`` lists them.
        flat: all parameters ``[n]`` in that order, each tensor row-major.

    Raises:
        MalformedInput: another dtype or count, or a value that is not finite.
    """
    _check_vector(flat, np.float64, "model")
    if len(flat) != _count(shapes):
        raise MalformedInput("model", f"has {len(flat)} parameters; its tree has {_count(shapes)}")
    _check_finite(flat)
    little = flat.astype("<f8", copy=False)
    parts = [_header(shapes)]
    parts += [little[low:high].tobytes() for _, low, high in _file_order(shapes)]
    return b"".join(parts)


def unpack_model(data: bytes, shapes: Shapes) -> Float64Vector:
    """Decode a model whose tree the spec has fixed.

    Args:
        data: the blob exactly as received.
        shapes: names and shapes as ``network_spec.parameter_shapes`` lists them.

    Returns:
        A read-only native float64 array ``[n]`` in the order of ``shapes``.

    Raises:
        MalformedInput: other names, dtypes, shapes, spelling or length, or a value that is not
            finite.
    """
    header = _header(shapes)
    if data[: len(header)] != header:
        raise MalformedInput("model", _header_fault(data, shapes))
    length = len(header) + VALUE_BYTES * _count(shapes)
    if len(data) != length:
        raise MalformedInput("model", f"has {len(data)} bytes; these tensors take exactly {length}")
    stored = np.frombuffer(data, dtype="<f8", offset=len(header))
    flat = np.empty(len(stored), dtype=np.float64)
    at = 0
    for _, low, high in _file_order(shapes):
        flat[low:high] = stored[at : at + high - low]
        at += high - low
    _check_finite(flat)
    flat.setflags(write=False)
    return flat


def to_grid(values: Float64Vector) -> Int64Vector:
    """Put float64 values on the grid: ``trunc(value * 2^20)``, toward zero.

    Raises:
        MalformedInput: a value is not finite, or its grid number does not fit into int64.
    """
    with np.errstate(over="ignore"):
        scaled = np.asarray(values, dtype=np.float64) * GRID
    # Written so that NaN is refused as well: every comparison with it is false.
    if not np.all(np.abs(scaled) < 2.0**63):
        raise MalformedInput("grid", "a value is not finite, or is beyond +-2^43")
    units: Int64Vector = np.trunc(scaled).astype(np.int64)
    return units


def from_grid(units: Int64Vector) -> Float64Vector:
    """Turn grid numbers into float64: ``float64(unit) / 2^20``.

    Exact up to 2^53 units; beyond, the conversion rounds to nearest, ties to even (IEEE 754).
    """
    values: Float64Vector = np.asarray(units, dtype=np.int64).astype(np.float64) / GRID
    return values


def _check_vector(values: npt.NDArray[np.generic], dtype: type[np.generic], where: str) -> None:
    if values.dtype != np.dtype(dtype) or values.ndim != 1:
        raise MalformedInput(
            where,
            f"is {values.dtype} with {values.ndim} dimensions; "
            f"it must be {np.dtype(dtype)} with one",
        )


def _check_finite(flat: Float64Vector) -> None:
    finite = np.isfinite(flat)
    if not finite.all():
        raise MalformedInput("model", f"parameter {int(np.argmin(finite))} is not finite")


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for _, shape in shapes)


def _file_order(shapes: Shapes) -> list[tuple[str, int, int]]:
    """List name and flat range of each tensor as they follow one another in the file."""
    ranges: list[tuple[str, int, int]] = []
    at = 0
    for name, shape in shapes:
        size = math.prod(shape)
        ranges.append((name, at, at + size))
        at += size
    return sorted(ranges)


def _header(shapes: Shapes) -> bytes:
    """Write the one header that these names and shapes have, its length in front."""
    by_name = dict(shapes)
    header: dict[str, dict[str, object]] = {}
    at = 0
    for name, low, high in _file_order(shapes):
        end = at + VALUE_BYTES * (high - low)
        header[name] = {"dtype": "F64", "shape": by_name[name], "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % VALUE_BYTES)
    return len(text).to_bytes(8, "little") + text


def _header_fault(data: bytes, shapes: Shapes) -> str:
    """Say for a person what is wrong with a header that is not the one."""
    length = int.from_bytes(data[:8], "little")
    try:
        found = orjson.loads(data[8 : 8 + min(length, 1 << 20)])
    except orjson.JSONDecodeError:
        return "does not begin with a safetensors header"
    if not isinstance(found, dict):
        return "does not begin with a safetensors header"
    expected = dict(shapes)
    if "__metadata__" in found:
        return "carries metadata, and a model has none"
    if missing := sorted(expected.keys() - found.keys()):
        return f"lacks the tensor {missing[0]}"
    if len(found) > len(expected):
        return f"holds {len(found)} tensors where its tree has {len(expected)}"
    for name, shape in expected.items():
        tensor = found[name]
        if not isinstance(tensor, dict) or tensor.get("dtype") != "F64":
            return f"tensor {name} is not float64 (F64)"
        if tensor.get("shape") != list(shape):
            return f"tensor {name} does not have the shape {list(shape)}"
    return (
        "spells its header otherwise than the reference library: tensors sorted by name, no "
        "spaces between, padded to 8 bytes"
    )
