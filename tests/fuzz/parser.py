"""What a parser of bytes from outside promises, as something that can be tried.

1. Whatever the bytes, it returns a value or raises one of its typed refusals, whose message is text.
2. Where the format has one encoding, encoding an accepted value gives the same bytes. Where a value has
   a canonical form beside what people write, that form is read back as the same value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parser:
    """One parser and how to try it.

    Attributes:
        name: for commands.
        covers: the functions that it goes through, as dotted names.
        samples: valid inputs, made once.
        parse: the bytes as they come in from outside.
        refusals: the errors that may be raised.
        encode: gives the accepted bytes back; None where the format has no encoding.
        without: why it has none.
        fixpoint: for those: raises where a value's canonical form does not read back as it.
        repair: makes a checksum right after a mutation, so that the parts behind it are reached.
        weight: how many tries of this one cost as much as one usual one.
    """

    name: str
    covers: tuple[str, ...]
    samples: Callable[[], Sequence[bytes]]
    parse: Callable[[bytes], Any]
    refusals: tuple[type[Exception], ...]
    encode: Callable[[Any], bytes] | None = None
    without: str = ""
    fixpoint: Callable[[Any], None] | None = None
    repair: Callable[[bytes], bytes] | None = None
    weight: int = 1


class Broken(AssertionError):
    """A parser broke its promise."""


def attempt(parser: Parser, data: bytes) -> bool:
    """Try one input; returns whether it was accepted.

    Raises:
        Broken: the encoding is another, or a refusal says nothing.
        Exception: what the parser raised beside its refusals.
    """
    try:
        value = parser.parse(data)
    except parser.refusals as refusal:
        if not str(refusal).strip():
            raise Broken(f"{parser.name}: {type(refusal).__name__} says nothing") from refusal
        str(refusal).encode("utf-8", "surrogateescape")
        return False
    if parser.encode is not None and (encoded := parser.encode(value)) != data:
        raise Broken(f"{parser.name}: {data!r} was accepted, but its encoding is {encoded!r}")
    if parser.fixpoint is not None:
        parser.fixpoint(value)
    return True
