r"""One value, one spelling: the JSON profile of everything that is signed or hashed here.

The profile: UTF-8 JSON whose every byte is printable ASCII; keys sorted, each once, no space
between tokens; strings hold only the characters U+0020..U+007E, with the two escapes ``\"`` and
``\\``; numbers are integers within +-(2^53 - 1); no field left out (``null`` is written); at
most ``MAX_DEPTH`` levels deep. So equal values have equal bytes in any language with a sorted
JSON encoder, and no terminal sees a control character from the log.

Promise: ``parse_canonical`` accepts ``data`` if and only if ``canonical(parsed) == data``. That
refuses duplicate keys, ``-0``, odd escapes, spaces, floats and NaN, which JSON parsers read
differently from one another. It is a check of strictness only: signatures and hashes are always
taken over the bytes received, never over a re-encoding.

Not promised: that a value makes sense. The models say that.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from ledger.errors import MalformedInput
from ledger.formats.value import Value, check, write

MAX_ENTRY = 32 * 1024
"""The largest signed entry, in bytes; tlog-tiles bundles could frame 65,535."""
MAX_INT = 2**53 - 1
"""The largest integer that every JSON parser reads exactly (RFC 8259 section 6)."""
MAX_DEPTH = 64
"""Levels of nesting: far above our models, far below every parser's own limit."""
MAX_ECHO = 80
"""Characters of foreign input that an error message may repeat."""
MAX_MESSAGE = 160
"""Characters of a model's own complaint that an error message keeps."""

M = TypeVar("M", bound=BaseModel | Value)
Path = tuple[str | int, ...]

_PRINTABLE = re.compile(rb'(?:[ -\[\]-~]++|\\["\\])*+')
_STRING = re.compile(r"[ -~]*+")


def parse_canonical(data: bytes, model: type[M], *, limit: int = MAX_ENTRY) -> M:
    """Turn bytes at the door into a frozen, typed value, or refuse them.

    Args:
        data: the bytes exactly as received.
        model: a kind of `Value`, or a frozen pydantic model with ``extra="forbid"``; validated strictly.
        limit: the most bytes accepted.

    Raises:
        MalformedInput: ``where`` is the model's name and the path of the first bad field. The
            message repeats at most ``MAX_ECHO`` characters of the input, apart from what a
            model's own validator says about it (cut at ``MAX_MESSAGE``).
    """
    where = model.__name__
    if len(data) > limit:
        raise MalformedInput(where, f"has {len(data)} bytes; at most {limit} are accepted")
    printable = _PRINTABLE.match(data)
    end = printable.end() if printable else 0
    if end != len(data):
        raise MalformedInput(
            where,
            f'byte {end} is not printable ASCII, or is an escape other than \\" and \\\\; '
            "text outside U+0020..U+007E belongs into a blob",
        )
    parsed = _read(data, model)
    encoded = write(parsed) if isinstance(parsed, Value) else canonical(parsed)
    if encoded != data:
        raise MalformedInput(where, _first_difference(data, encoded))
    return parsed


def canonical(value: Value | BaseModel | dict[str, Any]) -> bytes:
    """Encode a value in the one spelling that ``parse_canonical`` accepts.

    Args:
        value: a `Value`, a model, or a dict of str, int, bool, None, list, tuple and dict.

    Raises:
        MalformedInput: a float, an integer beyond 2^53 - 1, a string or key outside
            U+0020..U+007E, too deep a nesting, or another type; ``where`` is the path.
    """
    name = type(value).__name__
    if isinstance(value, Value):
        return check(value)
    if isinstance(value, BaseModel):
        try:
            plain = value.model_dump(mode="json", by_alias=True, round_trip=True, warnings="error")
        except (PydanticSerializationError, ValueError, RecursionError):
            raise MalformedInput(name, "a field holds a value that its type forbids") from None
    else:
        plain = value
    _check(plain, (), name)
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)


def encode_b64(data: bytes) -> str:
    """Write bytes in base64: RFC 4648 section 4, padded."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_b64(text: str, where: str = "base64", *, size: int | None = None) -> bytes:
    """Read base64 of RFC 4648 section 4: padded, no foreign character, one spelling per value.

    Args:
        text: the base64 text.
        where: how an error names this value.
        size: the number of bytes it must hold, when that is fixed.

    Raises:
        MalformedInput: anything that ``encode_b64`` would not have written (``AB==`` decodes to
            the same byte as ``AA==`` and is refused), or another size.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one; so is a non-ASCII character
        raise MalformedInput(where, "is not base64 (RFC 4648 section 4, padded)") from None
    if encode_b64(data) != text:
        raise MalformedInput(where, "is base64 in another spelling than the canonical one")
    if size is not None and len(data) != size:
        raise MalformedInput(where, f"holds {len(data)} bytes where {size} are expected")
    return data


def excerpt(text: str, length: int = MAX_ECHO) -> str:
    """Quote foreign text for an error message: escaped, at most ``length`` characters."""
    quoted = ascii(text[:length])
    return quoted if len(quoted) <= length else quoted[: length - 3] + "..."


def _read(data: bytes, model: type[M]) -> M:
    """What printable JSON says, by the type or the model."""
    if issubclass(model, Value):
        return model.read(data)
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise _refusal(model.__name__, error) from None


def _check(value: object, path: Path, name: str) -> None:
    """Refuse every value that has no canonical spelling; types are exact, not subclasses."""
    if len(path) > MAX_DEPTH:
        raise MalformedInput(_dotted(name, path[:4]), f"is nested deeper than {MAX_DEPTH} levels")
    kind = type(value)
    if kind is str:
        if not _STRING.fullmatch(value):  # type: ignore[call-overload]
            raise MalformedInput(_dotted(name, path), "holds a character outside U+0020..U+007E")
    elif kind is int:
        if not -MAX_INT <= value <= MAX_INT:  # type: ignore[operator]
            raise MalformedInput(_dotted(name, path), "is an integer beyond +-(2^53 - 1)")
    elif type(value) is dict:
        for key, item in value.items():
            if type(key) is not str or not _STRING.fullmatch(key):
                raise MalformedInput(_dotted(name, path), "has a key outside U+0020..U+007E")
            _check(item, (*path, key), name)
    elif type(value) is list or type(value) is tuple:
        for index, item in enumerate(value):
            _check(item, (*path, index), name)
    elif value is not None and kind is not bool:
        raise MalformedInput(
            _dotted(name, path), f"is a {kind.__name__}; only integers, text and their containers"
        )


def _dotted(name: str, path: Path) -> str:
    """Join a path for a message, keeping its foreign part under ``MAX_ECHO``."""
    dotted = "".join(f"[{part}]" if type(part) is int else f".{part}" for part in path)
    if len(dotted) > MAX_ECHO // 2:
        dotted = dotted[: MAX_ECHO // 2 - 3] + "..."
    return name + ascii(dotted)[1:-1][:MAX_ECHO]


def _refusal(name: str, error: ValidationError) -> MalformedInput:
    """Say the first of pydantic's complaints in our words."""
    first, *others = error.errors(include_url=False, include_context=False)
    reason = first["msg"]
    if first["type"] == "union_tag_invalid":  # pydantic's own text repeats the foreign tag
        reason = "its tag is none of those known"
    if first["type"] == "literal_error":  # an algorithm to come, say, is refused by its name
        reason += f", not {excerpt(str(first['input']), MAX_ECHO // 2)}"
    if len(reason) > MAX_MESSAGE:
        reason = reason[: MAX_MESSAGE - 3] + "..."
    if others:
        reason += f" (and {len(others)} more)"
    return MalformedInput(_dotted(name, first["loc"]), reason[:1].lower() + reason[1:])


def _first_difference(data: bytes, encoded: bytes) -> str:
    """Say where the bytes leave their canonical form."""
    pairs = zip(data, encoded, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(data), len(encoded)))
    return (
        f"differs from its canonical form at byte {same}; write keys sorted and once each, "
        "no spaces, every field present, integers without sign or exponent"
    )
