"""A second reading of bodies, slow and independent: Python's json and the declared types, no msgspec.

``read`` says whether bytes are a canonical body by nothing but the profile (``ledger.formats.strict``)
and the types as they are declared. ``sample`` makes a plain value of a type, and ``texts`` and
``numbers`` find its leaves, so that tests reach every place of every operation by themselves.

Long run: ``python -m tests.ledger.entries.plainly 60000`` changes that many bodies and compares the verdicts.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Meta

from ledger.entries.entry import Body, parse_body, split_leaf
from ledger.entries.operations.values import Value
from ledger.entries.operations.vocabulary import OPERATIONS
from ledger.errors import MalformedInput
from ledger.formats.strict import MAX_ENTRY, MAX_INT, canonical
from tests.federation import Federation
from tests.ledger.facts import HOSPITALS

Path = tuple[str | int, ...]


class Odd(ValueError):
    """Not a canonical body."""


def read(raw: bytes) -> dict[str, Any]:
    """A body as plain values, or `Odd`."""
    if len(raw) > MAX_ENTRY:
        raise Odd("long")
    try:
        plain = json.loads(
            raw.decode("ascii"), object_pairs_hook=_once, parse_float=_no, parse_constant=_no
        )
        again = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise Odd(str(error)) from None
    if again.encode() != raw or not re.fullmatch(rb"[ -~]*", raw):
        raise Odd("spelling")
    if not isinstance(plain, dict) or not isinstance(plain.get("op"), dict):
        raise Odd("no operation")
    said = plain["op"].get("type")
    if not isinstance(said, str) or said not in OPERATIONS:
        raise Odd("unknown operation")
    if not fits(plain, body_of(said)):
        raise Odd("types")
    return plain


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise Odd("a key twice")
    return dict(pairs)


def _no(text: str) -> Any:
    raise Odd(text)


def body_of(said: str) -> dict[str, Any]:
    """The fields of a body with one operation."""
    return get_type_hints(Body, include_extras=True) | {"op": OPERATIONS[said]}


def fields_of(kind: Any) -> dict[str, Any]:
    """The fields of a type, its tag among them, by the name that they have in JSON."""
    if isinstance(kind, dict):
        return kind
    names = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    hints = get_type_hints(kind, include_extras=True)
    config = kind.__struct_config__
    tagged = {config.tag_field: Literal[config.tag]} if config.tag_field else {}
    return {names[name]: hints[name] for name in names} | tagged


def fits(value: Any, hint: Any, metas: tuple[Meta, ...] = ()) -> bool:
    """Whether a plain value is of a declared type."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *found = get_args(hint)
        return fits(value, inner, (*metas, *(m for m in found if isinstance(m, Meta))))
    if origin in (Union, UnionType):
        return any(fits(value, each, metas) for each in get_args(hint))
    if origin is Literal:
        return type(value) is str and value in get_args(hint)
    if origin is tuple:
        least, most = limits(metas, "min_length", "max_length")
        item = get_args(hint)[0]
        return (
            type(value) is list
            and least <= len(value) <= most
            and all(fits(each, item) for each in value)
        )
    if hint is NoneType:
        return value is None
    if hint is bool:
        return type(value) is bool
    if hint is int:
        least, most = limits(metas, "ge", "le")
        return type(value) is int and least <= value <= min(most, MAX_INT)
    if hint is str:
        (pattern,) = (meta.extra["pattern"] for meta in metas if meta.extra)
        least, most = limits(metas, "min_length", "max_length")
        return (
            type(value) is str
            and least <= len(value) <= most
            and re.fullmatch(pattern[1:-1], value) is not None
        )
    fields = fields_of(hint)
    asked = [meta.extra["alg"] for meta in metas if meta.extra]
    return (
        type(value) is dict
        and value.keys() == fields.keys()
        and all(fits(value[name], fields[name]) for name in fields)
        and all(value["alg"] == name for name in asked)
    )


def limits(metas: tuple[Meta, ...], low: str, high: str) -> tuple[int, int]:
    """Least and most."""
    found = [(getattr(meta, low), getattr(meta, high)) for meta in metas]
    least = max((low for low, _ in found if low is not None), default=0)
    return least, min((high for _, high in found if high is not None), default=2**63)


TEXTS = ("a", "ab" * 32, "ab" * 16, "01" + "ab" * 65, "ab" * 64)


def sample(hint: Any, metas: tuple[Meta, ...] = (), *, full: bool = True) -> Any:
    """A plain value of a type; ``full`` takes no null and no empty list where there is a choice."""
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *found = get_args(hint)
        return sample(inner, (*metas, *(m for m in found if isinstance(m, Meta))), full=full)
    if origin in (Union, UnionType):
        some = [each for each in get_args(hint) if each is not NoneType]
        return sample(some[0], metas, full=full) if full or some == list(get_args(hint)) else None
    if origin is Literal:
        return get_args(hint)[0]
    if origin is tuple:
        least, _ = limits(metas, "min_length", "max_length")
        return [sample(get_args(hint)[0], full=full) for _ in range(max(least, full))]
    if hint is bool:
        return full
    if hint is int:
        return limits(metas, "ge", "le")[0]
    if hint is str:
        return next(text for text in TEXTS if fits(text, str, metas))
    made = {name: sample(each, full=full) for name, each in fields_of(hint).items()}
    for meta in metas:
        made |= meta.extra or {}
    return made


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf of a plain value by its path."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from places(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from places(each, (*path, index))
    else:
        yield path, value


def written(plain: Any) -> bytes:
    """Canonical bytes of plain values."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def changed_at(plain: Any, path: Path, new: Any) -> bytes:
    """Canonical bytes of a plain value with one leaf changed."""
    copy = json.loads(json.dumps(plain))
    at = copy
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = new
    return written(copy)


TOKENS = (
    b"true", b"null", b"1.0", b"1e0", b"1e2", b"1E5", b"-0", b"-1", b"01", b"NaN", b"Infinity",
    b"9007199254740991", b"9007199254740992", b"18446744073709551616", b"9" * 40, b"0.0",
    b'"\\u0061"', b'"a\\\\"', b'"\\""', b"\\n", b"\\/", b" ", b"\t", b"\n", b",", b":", b'"', b"[]",
    b"{}", b"\x00", b"\x7f", b"\x80", b"\xc3\xa9", b"\xed\xa0\x80", b'"v":1,', b'"x":0,', b"[" * 70,
    b'"type":"time.noted"', b'"type":"', b"0", b"1", b"2", b"A", b"g", b"-", b"_", b"ed25519", b"x25519",
)  # fmt: skip
NUMBER = re.compile(rb"(?<=[:\[,])(?:-?\d+|null|true|false)(?=[,}\]])")
TEXT = re.compile(rb'"[^"]*"')


def changed(rng: random.Random, raw: bytes, others: list[bytes]) -> bytes:
    """Bytes that look like a body: bytes, tokens, fields, texts changed, moved, taken from others."""
    made = bytearray(raw)
    how = rng.randrange(9)
    at = rng.randrange(len(made))
    if how == 0:
        made[at] = rng.randrange(256)
    elif how == 1:
        number = rng.choice(list(NUMBER.finditer(raw)))
        made[number.start() : number.end()] = rng.choice(TOKENS)
    elif how == 2:
        made[at:at] = rng.choice(TOKENS)
    elif how == 3:
        del made[at : at + rng.randrange(30)]
    elif how == 4:  # what stands between commas changes places
        made = bytearray(b",".join(rng.sample(parts := raw.split(b","), len(parts))))
    elif how == 5:  # a field twice, or left out
        parts = raw.split(b",")
        index = rng.randrange(len(parts))
        parts[index : index + 1] = [parts[index]] * rng.choice((0, 2))
        made = bytearray(b",".join(parts))
    elif how == 6:  # a text becomes another one, or a longer or shorter one
        found = rng.choice(list(TEXT.finditer(raw)))
        new = rng.choice(
            (
                rng.choice(TEXT.findall(rng.choice(others))),
                found[0][:-1] + rng.choice((b"a", b"A", b"-", b"0", b" ")) + b'"',
                b'"' + found[0][2:],
                found[0].upper(),
            )
        )
        made[found.start() : found.end()] = new
    elif how == 7:  # one letter of a text
        found = rng.choice(list(TEXT.finditer(raw)))
        inside = rng.randrange(found.start(), found.end())
        made[inside] = rng.choice(b"0123456789abcdefgzAFZ-_ .")
    return bytes(made)


def bodies() -> list[bytes]:
    """The entries of a federation that ran a round, and one sample of every operation."""
    federation = Federation.found(HOSPITALS)
    federation.play(federation.start())
    samples = [
        written(sample(body_of(name), full=full)) for name in OPERATIONS for full in (True, False)
    ]
    return [split_leaf(leaf)[0] for leaf in federation.leaves] + samples


def compare(raw: bytes) -> bool:
    """Whether a body is taken; fails where the two readings differ."""
    try:
        plain: Any = read(raw)
    except Odd:
        plain = None
    try:
        body: Body | None = parse_body(raw)
    except MalformedInput:
        body = None
    if (plain is None) != (body is None):
        raise AssertionError(f"{raw!r}: {plain!r} by one reading, {body!r} by the other")
    if isinstance(body, Value) and canonical(body) != raw:
        raise AssertionError(f"{raw!r} is written as {canonical(body)!r}")
    return body is not None


def main(count: int) -> None:
    """Change bodies and compare the readings' verdicts."""
    rng = random.Random(count)
    known = bodies()
    taken = sum(compare(changed(rng, rng.choice(known), known)) for _ in range(count))
    print(f"{count} changed bodies: {taken} taken and {count - taken} refused by both readings")


if __name__ == "__main__":
    main(int(sys.argv[1]))
