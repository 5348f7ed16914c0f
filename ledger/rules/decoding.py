"""A state from its bytes: what ``encoding.encode`` wrote, exactly, and nothing else.

Driven by the records' own field types, so that a new field needs nothing here. A record must have
all of its fields and no other; every value must have its type; and the state that comes out must
encode to the very bytes that came in. Whether those bytes are what a log amounts to, only a fold of
the log can say.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import orjson
from immutables import Map
from msgspec import Struct, structs

from ledger.entries.operations.federation import Change
from ledger.errors import MalformedInput
from ledger.formats.strict import MAX_INT
from ledger.formats.value import Reader, Value
from ledger.rules.encoding import encode
from ledger.rules.state import State
from privacy.errors import PrivacyError

MAX_STATE = 256 * 2**20
"""Bytes of a state that are read; one of a federation of a thousand hospitals has a few million."""

_CHANGE: Reader[Value] = Reader(Change, "change")


def decode(data: bytes) -> State:
    """Read back a state.

    Raises:
        MalformedInput: the bytes are not those that ``encode`` writes of a state.
    """
    if len(data) > MAX_STATE:
        raise MalformedInput("state", f"{len(data)} bytes; at most {MAX_STATE} are read")
    try:
        state = _read(State, orjson.loads(data), "state")
    except (orjson.JSONDecodeError, PrivacyError) as error:
        raise MalformedInput("state", str(error).partition("\n")[0]) from None
    if not isinstance(state, State) or encode(state) != data:
        raise MalformedInput("state", "it does not encode to the bytes that it was read from")
    return state


def _read(kind: Any, value: Any, where: str) -> object:
    """A value of a type from its plain form."""
    origin = get_origin(kind)
    if isinstance(kind, type) and issubclass(kind, Value):
        return _signed(kind.read, value, where)
    if kind == Change:
        return _signed(_CHANGE.read, value, where)
    if isinstance(kind, type) and (issubclass(kind, Struct) or dataclasses.is_dataclass(kind)):
        fields = _fields(kind)
        found = _expect(dict, value, where)
        if found.keys() != fields.keys():
            raise MalformedInput(where, f"its fields are {sorted(found)}, not {sorted(fields)}")
        read = {name: _read(fields[name], found[name], f"{where}.{name}") for name in fields}
        return kind(**read)
    if origin is Map:
        _, item = get_args(kind)
        entries = _expect(dict, value, where).items()
        return Map({key: _read(item, each, f"{where}.{key}") for key, each in entries})
    if origin is tuple:
        items, values = get_args(kind), _expect(list, value, where)
        if items[-1] is Ellipsis:
            items = items[:1] * len(values)
        if len(items) != len(values):
            raise MalformedInput(where, f"has {len(values)} items, not {len(items)}")
        return tuple(_read(*each, where) for each in zip(items, values, strict=True))
    if origin is frozenset:
        (item,) = get_args(kind)
        return frozenset(_read(item, each, where) for each in _expect(list, value, where))
    if origin in (Union, types.UnionType) and type(None) in get_args(kind):
        (some,) = (each for each in get_args(kind) if each is not type(None))
        return None if value is None else _read(some, value, where)
    if origin is Literal:
        return _expect(str, value, where)
    if kind is int and type(value) is str and value.isdigit() and int(value) > MAX_INT:
        return int(value)
    return _expect(kind, value, where)


def _signed(read: Callable[[bytes], Value], value: Any, where: str) -> Value:
    """A part that an entry had, where it stands in the state."""
    try:
        return read(orjson.dumps(value))
    except MalformedInput as refused:
        place = refused.where.partition(".")[2]
        raise MalformedInput(f"{where}.{place}" if place else where, refused.reason) from None


def _expect(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise MalformedInput(where, f"is of type {type(value).__name__}, not {kind.__name__}")
    return value


@cache
def _fields(kind: type[Any]) -> dict[str, Any]:
    found = structs.fields(kind) if issubclass(kind, Struct) else dataclasses.fields(kind)
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in found}
