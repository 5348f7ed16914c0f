"""Mutations that know the forms: bytes, lines, numbers, base64, lengths in front, JSON and YAML.

A random byte string fails at the first byte of a strict format. So one begins with a valid sample and
changes what its form is made of; a format with a checksum is repaired afterwards (``Parser.repair``).
Everything is decided by the generator that is handed in, so that a finding repeats.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

MAX_LENGTH = 64 * 1024

_NUMBER = re.compile(rb"-?[0-9]+")
_NUMBERS = (
    b"0", b"-0", b"-1", b"00", b"1", b"01", b"+1", b"1.0", b"1e3", b"1e400", b"255", b"256", b"65535",
    b"65536", b"4294967296", b"9007199254740991", b"9007199254740992", b"18446744073709551616",
    b"9" * 400, b"NaN", b"Infinity", b"\xd9\xa1", b"1_0", b" 1",
)  # fmt: skip
_PIECES = (
    b"", b"\x00", b"\n", b"\n\n", b"\r\n", b" ", b"\t", b"+", b"=", b",", b'"', b"\\", b"\\u0041",
    b"\\ud800", b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x80\x94 ", b"\xe2\x80\xae",
    b"A" * 1000, b"[" * 2000, b'{"a":' * 300, b"true", b"null", b"---\n", b"...\n", b"&a ", b"*a",
    b"!!python/object/apply:os.system [id]\n", b"? ", b"<<: ", b".nan", b"0x1F", b"2026-02-30",
    b"12:30:45", b"sig1=();created=1", b";keyid=1", b"?0", b"@path", b"old 5\n", b"quorum none\n",
    b"none", b"any", b"../../etc/passwd", b"%00", b"%ff", b"x001/", b".p/0", b"%2e%2e/",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**53 - 1, 2**53, 2**63, 2**64, -(2**63), 10**400, 0.5, 1e308, "", "0",
    "a" * 300, "\x00", "\u202e", "\ud800", "\u0661", "NaN", "1e3", "-0", " ", "0" * 64, "f" * 64,
    "2026-01-01", [], {}, [[]], [None], {"": None}, {"type": "ping"}, {"type": "time.noted"},
)  # fmt: skip

Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def mutate(
    data: bytes, chance: random.Random, samples: Sequence[bytes], most: int = MAX_LENGTH
) -> bytes:
    """Change a sample in one to four places.

    Args:
        data: where to begin.
        chance: decides.
        samples: others of the form, for splices.
        most: bytes of the outcome.
    """
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        change = chance.choice(_MUTATIONS)
        data = change(data, chance, samples)[:most]
    return data


def _flip(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x00"
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def _drop(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    start, stop = _range(data, chance)
    return data[:start] + data[stop:]


def _double(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    start, stop = _range(data, chance)
    return data[:stop] + data[start:stop] + data[stop:]


def _insert(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    at = chance.randint(0, len(data))
    return data[:at] + chance.choice(_PIECES) + data[at:]


def _replace(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    start, stop = _range(data, chance)
    return data[:start] + chance.choice(_PIECES) + data[stop:]


def _truncate(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    return data[: chance.randint(0, len(data))]


def _splice(data: bytes, chance: random.Random, samples: Sequence[bytes]) -> bytes:
    other = chance.choice(samples) if samples else b""
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def _number(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return data
    one = chance.choice(found)
    return data[: one.start()] + chance.choice(_NUMBERS) + data[one.end() :]


def _length(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    """A binary integer of two, four or eight bytes anywhere."""
    width = chance.choice((2, 4, 8))
    if len(data) < width:
        return data
    at = chance.randint(0, len(data) - width)
    order: Any = chance.choice(("big", "little"))
    old, limit = int.from_bytes(data[at : at + width], order), 1 << (8 * width)
    edges = (0, 1, old + 1, old - 1, len(data), 2**31, 2**32 - 1, 2**63, limit - 1)
    new: int = chance.choice(edges) % limit
    return data[:at] + new.to_bytes(width, order) + data[at + width :]


def _lines(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    """Lines doubled, dropped or swapped."""
    lines = data.split(b"\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(3):
        case 0:
            lines.insert(other, lines[one])
        case 1:
            del lines[one]
        case _:
            lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def _json(data: bytes, chance: random.Random, _: Sequence[bytes]) -> bytes:
    """A value, a key or a whole level of a JSON text that the data hold."""
    start = data.find(b"{")
    end = data.rfind(b"}") + 1
    if start < 0 or end <= start:
        return data
    try:
        tree = json.loads(data[start:end])
    except (ValueError, RecursionError):
        return data
    places = list(_places(tree))
    if not places:
        return data
    holder, key = chance.choice(places)
    match chance.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(("extra", "", "Type", "v", "_target_", "type"))] = holder[key]
        case 1 | 2:
            holder[key] = [holder[key]] * chance.choice((1, 2, 40))
        case 3:
            giver, given = chance.choice(places)
            holder[key] = giver[given] if giver is not holder else None
        case _:
            holder[key] = chance.choice(_VALUES)
    tight: Any = (",", ":") if chance.random() < 0.9 else (", ", ": ")
    try:
        text = json.dumps(
            tree,
            sort_keys=chance.random() < 0.95,
            separators=tight,
            ensure_ascii=chance.random() < 0.3,
        )
    except (ValueError, RecursionError, TypeError):  # it came to hold itself
        return data
    return data[:start] + text.encode("utf-8", "surrogatepass") + data[end:]


def _places(tree: Any) -> Any:
    """Every (container, key) of a JSON tree."""
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, value in items:
            yield holder, key
            if isinstance(value, dict | list):
                waiting.append(value)


def _range(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.choice((1, 1, 2, 4, 8, 32, 200)))


_MUTATIONS: tuple[Mutation, ...] = (
    _flip, _drop, _double, _insert, _replace, _truncate, _splice, _number, _number, _length, _lines,
    _json, _json, _json,
)  # fmt: skip
