"""The specified bytes of a state, and their digest (docs/formats.md).

Canonical JSON. A map becomes an object with sorted keys, a set a sorted array, a record an object of
all its fields; an integer above 2^53 - 1 (a closed lane's sum can grow so far) the string of its digits.

Promise: two parties who folded the same entries get the same bytes and the same digest, whatever the
process. ``decoding`` reads them back.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import orjson
from immutables import Map
from msgspec import Struct, to_builtins
from msgspec.structs import fields

from ledger.entries.operations.values import MAX_INT, Value
from ledger.rules.state import State
from privacy.filters import Spend
from privacy.periods import Periods


def encode(state: State) -> bytes:
    """The specified bytes of a state: canonical JSON, see the module's first lines."""
    return orjson.dumps(_plain(state), option=orjson.OPT_SORT_KEYS)


def digest(state: State) -> str:
    """SHA-256 of `encode`, lowercase hex."""
    return hashlib.sha256(encode(state)).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Value):
        return to_builtins(value)
    if isinstance(value, Struct):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Spend | Periods):
        return {name: _plain(item) for name, item in asdict(value).items()}
    if isinstance(value, Map):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int) and value > MAX_INT:
        return str(value)
    return value
