"""Values that are signed: frozen structs with one spelling, typed once for reading and for making.

A `Value` is declared as a class with annotated fields, every one of them required. Its JSON has its
fields sorted by name (``rename`` apart), as the canonical form has, in whatever order they are
declared. ``read`` takes JSON into it, strictly; making one in Python checks as much, so that nothing
out of range is made by mistake, signed, and refused by everybody else. `replace` does not check: what
it changes is checked where the value is signed, at the latest.

Promise: `Value.read` returns a value whose every field is of its declared type, range and pattern, and
refuses unknown and missing fields. Not promised: that the bytes were canonical (``strict`` adds that).

Documents, which stay pydantic's, may have values for fields: this module tells pydantic how.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, dataclass_transform

import msgspec
from msgspec import Meta, Struct, StructMeta

from ledger.errors import MalformedInput
from ledger.formats.spelling import Spelling

if TYPE_CHECKING:
    from dataclasses import replace as replace  # so that each field is checked

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
else:
    from msgspec.structs import replace as replace

_MAX_ECHO = 40
_MAX_REASON = 120
_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)

V = TypeVar("V", bound="Value")

write = msgspec.json.Encoder(order="sorted").encode
"""JSON of a value: its fields sorted, no spaces, every field present."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
class _Checked(StructMeta):
    """Sorts a value's fields, takes them by name alone, and checks what is made in Python."""

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> Any:
        fields = namespace.get("__annotations__", {})
        namespace["__annotations__"] = dict(sorted(fields.items()))
        return super().__new__(mcls, name, bases, namespace, **{"kw_only": True, **config})

    def __call__(cls, **fields: Any) -> Any:
        made = super().__call__(**fields)
        check(made)
        return made


class Value(Struct, metaclass=_Checked, frozen=True, forbid_unknown_fields=True, gc=False):
    """A frozen, strict part of what is signed: no coercion, no unknown field, no default.

    Making one raises `MalformedInput`, which names the field, where a value is not its type's.
    """

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Read JSON.

        Raises:
            MalformedInput: ``where`` is the class's name and the path of the first bad field.
        """
        read: Self = _reader(cls).read(data)
        return read

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """As a field of a document: itself, or its plain form."""
        from pydantic_core import core_schema

        def admit(found: Any) -> Any:
            if isinstance(found, cls):
                return found
            try:
                return cls.read(msgspec.json.encode(found))
            except MalformedInput as refused:
                raise ValueError(str(refused)) from None

        return core_schema.no_info_plain_validator_function(
            admit,
            serialization=core_schema.plain_serializer_function_ser_schema(msgspec.to_builtins),
        )


class InDocuments:
    """Tells pydantic what `Meta` tells msgspec, for the aliases that documents use too."""

    def __init__(self, meta: Meta) -> None:
        """Take the limits from where they are declared."""
        self.meta = meta

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The type's own schema with the limits."""
        schema: Any = handler(source)  # a dict of its kind
        for name in ("ge", "le", "min_length", "max_length"):
            limit = getattr(self.meta, name)
            if limit is not None:
                schema[name] = limit
        pattern = (self.meta.extra or {}).get("pattern")
        if pattern is not None:
            schema["pattern"] = pattern
        limited: CoreSchema = schema
        return limited


def check(value: Value) -> bytes:
    """Hold a value to its types, by reading it back; `replace` may have taken it out of them.

    Returns:
        Its JSON, which is canonical.

    Raises:
        MalformedInput: a field holds what could not be read, or is not equal to what is read: a list
            where a tuple belongs.
    """
    where = type(value).__name__
    try:
        data = write(value)
    except (TypeError, ValueError, RecursionError):
        raise MalformedInput(where, "a field holds a value that its type forbids") from None
    if type(value).read(data) != value:
        raise MalformedInput(where, "a field holds a value that its type forbids")
    return data


class Reader(Generic[V]):
    """Takes JSON into one type of value.

    Attributes:
        decode: what msgspec checks: types, ranges, lengths, fields; raises ``msgspec.DecodeError``.
        spelling: what is left to check of what it decoded.
    """

    def __init__(self, kind: Any, name: str) -> None:
        """Compile a type; ``name`` is how refusals begin."""
        self.decode: Any = msgspec.json.Decoder(kind).decode
        self.spelling = Spelling(kind)
        self._name = name

    def read(self, data: bytes) -> V:
        """Read JSON, or say what is wrong with it; see `Value.read`."""
        try:
            value: V = self.decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise refusal(self._name, error) from None
        fault = self.spelling.fault(value)
        if fault is not None:
            raise MalformedInput(self._name + dotted(fault.path), fault.reason)
        return value


def dotted(path: tuple[str | int, ...]) -> str:
    """A path as text, such as ``.op.used[0]``."""
    return "".join(f"[{part}]" if type(part) is int else f".{part}" for part in path)


def refusal(name: str, error: Exception) -> MalformedInput:
    """Say msgspec's complaint in our words: at most ``_MAX_ECHO`` characters of it are foreign."""
    reason, _, path = str(error).partition(" - at `$")
    where = name + path.removesuffix("`")
    field = _FIELD.match(reason)
    if field is not None:
        known = field[1] != "contains unknown"
        reason = "field required" if known else "such a field is not permitted"
        where += "." + ascii(field[2][:_MAX_ECHO])[1:-1][:_MAX_ECHO]
    elif len(reason) > _MAX_REASON:
        reason = reason[:_MAX_ECHO] + "..."
    return MalformedInput(where, reason[:1].lower() + reason[1:])


@cache
def _reader(kind: type[V]) -> Reader[V]:
    return Reader(kind, kind.__name__)
