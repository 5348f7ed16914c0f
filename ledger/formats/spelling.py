"""The spelling of texts: what msgspec's types alone do not enforce of a typed value, derived from them.

msgspec checks types, ranges and lengths while it decodes. A text's pattern it could check too, by a
regular expression for every text, which costs more than decoding the whole value. So a pattern is
declared beside the length (`spelt`), and `Spelling` checks all texts of a value together: lowercase
hexadecimal joined, in one pass; short names against those that were found good before; the rest one
by one. It is made from the declared types by code, so no field can be forgotten: a type that holds a
text without a pattern, or anything else that could have two spellings, has no `Spelling` at all.

Promise: `Spelling.holds` and `Spelling.fault` agree, and `holds` is true only where each text matches
its whole pattern and each key has the algorithm that its place asks for.

Not promised: types, lengths and ranges. Check a value that msgspec decoded by the same types.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Meta, inspect

from ledger.formats.pattern_words import pattern_in_words

Path = tuple[str | int, ...]

_HEX = re.compile(r"\^\[0-9a-f\]\{\d+\}\$")
_MOST_KNOWN = 4096
_LONGEST_KNOWN = 64
_MAX_INT = 2**53 - 1  # RFC 8259 section 6: what every parser reads exactly


class Fault(NamedTuple):
    """The first text that is out of its pattern, by its path, and what is wrong with it."""

    path: Path
    reason: str


Walk = Callable[[Any, Path], Fault | None]


def spelt(pattern: str, least: int, most: int) -> Meta:
    """Declare a text: ``least`` to ``most`` characters, all of it as the pattern ``^...$`` says."""
    return Meta(min_length=least, max_length=most, extra={"pattern": pattern})


def with_algorithm(name: str) -> Meta:
    """Declare a key whose ``alg`` must be this one where it stands."""
    return Meta(extra={"alg": name})


class Pattern:
    """A declared pattern, and some short texts that matched it, which come again and again.

    Attributes:
        known: texts that match; more are found out by `hold`.
    """

    def __init__(self, pattern: str) -> None:
        """Compile ``^...$``; it is always matched against a whole text."""
        self.known: set[str] = set()
        self._pattern = pattern
        self._match = re.compile(pattern.removeprefix("^").removesuffix("$")).fullmatch

    def hold(self, texts: tuple[str, ...]) -> bool:
        """Whether all of these texts match."""
        return all(map(self._judge, texts))

    def walk(self, text: str, path: Path) -> Fault | None:
        """The fault of one text."""
        if self._judge(text):
            return None
        return Fault(path, pattern_in_words(self._pattern))

    def _judge(self, text: str) -> bool:
        if text in self.known:
            return True
        if self._match(text) is None:
            return False
        if len(text) <= _LONGEST_KNOWN:
            if len(self.known) >= _MOST_KNOWN:  # a bound, whoever makes names up
                self.known.clear()
            self.known.add(text)
        return True


class Spelling:
    """Judges the texts of a value that msgspec decoded as a type.

    Attributes:
        holds: whether every text of such a value is in its pattern.
    """

    def __init__(self, kind: Any) -> None:
        """Derive from a struct's type, or a union of structs.

        Raises:
            TypeError: it holds something for which there is no rule here.
        """
        found = inspect.type_info(kind)
        self._walk = _walker(found)
        self.holds = _quick(found)

    def fault(self, value: Any) -> Fault | None:
        """The first text out of its pattern, or None."""
        return None if self._walk is None else self._walk(value, ())


def _quick(kind: inspect.Type) -> Callable[[Any], bool]:
    """What says as fast as can be whether there is no fault below a node."""
    hexes: list[str] = []
    hex_lists: list[Callable[[Any], Any]] = []
    places: dict[str, list[str]] = {}
    names: list[tuple[Pattern, Callable[[Any], Any]]] = []
    others: list[tuple[Callable[[Any], Any], Walk]] = []
    for place, node in _places(kind, ""):
        pattern, of_items, walk = _pattern(node), _pattern_of_items(node), _walker(node)
        if pattern is not None and _HEX.fullmatch(pattern):
            hexes.append(place)
        elif pattern is not None:
            places.setdefault(pattern, []).append(place)
        elif of_items is not None and _HEX.fullmatch(of_items):
            hex_lists.append(attrgetter(place))
        elif of_items is not None:
            names.append((_PATTERNS[of_items], attrgetter(place)))
        elif walk is not None:
            others.append((attrgetter(place) if place else lambda value: value, walk))
    hex_texts = _getter(hexes)
    names += [(_PATTERNS[each], _getter(at)) for each, at in places.items()]
    spelt = [(pattern.known, pattern.hold, get) for pattern, get in names]

    def holds(value: Any) -> bool:
        text = "".join(hex_texts(value))
        for get in hex_lists:
            text += "".join(get(value))
        try:
            if unhexlify(text).hex() != text:
                return False
        except ValueError:
            return False
        for known, hold, get in spelt:
            texts = get(value)
            if not (known.issuperset(texts) or hold(texts)):
                return False
        for get, walk in others:
            found = get(value)
            if found is not None and walk(found, ()) is not None:
                return False
        return True

    return holds


_PATTERNS: dict[str, Pattern] = {}


def _pattern(node: inspect.Type) -> str | None:
    """The pattern of a text, or None where the node is no text."""
    if isinstance(node, inspect.Metadata) and isinstance(node.type, inspect.StrType):
        pattern: str = (node.extra or {})["pattern"]
        if pattern not in _PATTERNS:
            _PATTERNS[pattern] = Pattern(pattern)
        return pattern
    return None


def _pattern_of_items(node: inspect.Type) -> str | None:
    """The pattern of a list's texts, or None where the node is no list of texts."""
    return _pattern(node.item_type) if isinstance(node, inspect.VarTupleType) else None


def _places(node: inspect.Type, place: str) -> Iterator[tuple[str, inspect.Type]]:
    """The fields that are always there, by dotted path: structs are entered, nothing else is."""
    if isinstance(node, inspect.StructType):
        for field in node.fields:
            yield from _places(field.type, f"{place}.{field.name}" if place else field.name)
    else:
        yield place, node


def _getter(places: list[str]) -> Callable[[Any], tuple[str, ...]]:
    """What gives the texts at some places as a tuple."""
    if not places:
        return lambda _: ()
    if len(places) == 1:
        get = attrgetter(places[0])
        return lambda value: (get(value),)
    return attrgetter(*places)


def _walker(node: inspect.Type) -> Walk | None:
    """What finds the first fault below a node; None where none can be."""
    pattern = _pattern(node)
    if pattern is not None:
        return _PATTERNS[pattern].walk
    match node:
        case inspect.IntType(ge=int(least), le=int(most)) if -_MAX_INT <= least <= most <= _MAX_INT:
            return None
        case inspect.BoolType() | inspect.NoneType():
            return None
        case inspect.LiteralType(values=words) if all(type(word) is str for word in words):
            return None
        case inspect.Metadata(type=inner, extra={"alg": str(name)}):
            return _keys(name, _walker(inner))
        case inspect.StructType():
            return _fields(node)
        case inspect.VarTupleType(item_type=item):
            return _items(_walker(item))
        case inspect.UnionType(types=types):
            return _choices(types)
    raise TypeError(
        f"{node}: a signed value holds no such type; a text needs `spelt`, a number two limits"
    )


def _keys(name: str, inner: Walk | None) -> Walk:
    """A key of one algorithm."""
    verb = "signs" if name == "ed25519" else "seals"

    def walk(value: Any, path: Path) -> Fault | None:
        if value.alg != name:
            return Fault(path, f"a key that {verb} is an {name} key")
        return None if inner is None else inner(value, path)

    return walk


def _fields(node: inspect.StructType) -> Walk | None:
    """A struct's fields in their order."""
    found = [(f.name, f.encode_name, _walker(f.type)) for f in node.fields]
    walks = [(name, said, walk) for name, said, walk in found if walk is not None]
    if not walks:
        return None

    def walk(value: Any, path: Path) -> Fault | None:
        for name, said, each in walks:
            fault = each(getattr(value, name), (*path, said))
            if fault is not None:
                return fault
        return None

    return walk


def _items(item: Walk | None) -> Walk | None:
    """The items of a list."""
    if item is None:
        return None

    def walk(value: Any, path: Path) -> Fault | None:
        for index, each in enumerate(value):
            fault = item(each, (*path, index))
            if fault is not None:
                return fault
        return None

    return walk


def _choices(types: tuple[inspect.Type, ...]) -> Walk | None:
    """Null or one other type, or one of several structs that a tag tells apart."""
    some = [each for each in types if not isinstance(each, inspect.NoneType)]
    structs = {each.cls: _walker(each) for each in some if isinstance(each, inspect.StructType)}
    if len(structs) == len(some) > 1:
        return lambda value, path: (
            None if (walk := structs.get(type(value))) is None else walk(value, path)
        )
    if len(some) != 1:
        raise TypeError(f"{types}: nothing tells these types apart")
    only = _walker(some[0])
    if only is None:
        return None
    return lambda value, path: None if value is None else only(value, path)
